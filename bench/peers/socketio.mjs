// Fan-out with Socket.IO: one emit to everybody, WebSocket alone, no compression.
import { createServer } from "node:http";
import { Server } from "socket.io";
import { pace } from "./pace.mjs";

const server = createServer();
const io = new Server(server, {
  transports: ["websocket"],
  perMessageDeflate: false,
  serveClient: false,
});

pace(server, (events) => io.emit("events", events));

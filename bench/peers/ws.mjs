// Fan-out with ws: the event is encoded once and sent to every viewer.
import { createServer } from "node:http";
import { WebSocketServer } from "ws";
import { pace } from "./pace.mjs";

const server = createServer();
const sockets = new WebSocketServer({ server, perMessageDeflate: false });

pace(server, (events) => {
  const payload = Buffer.from(JSON.stringify(events));
  for (const viewer of sockets.clients) {
    viewer.send(payload, { binary: false });
  }
});

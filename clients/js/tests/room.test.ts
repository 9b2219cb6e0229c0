/** A room against a scripted socket: what goes out, and when it comes back. */
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { connect, Denied, newId, Refused, type Room, waitMs } from "../src/index.ts";

class Socket {
  static all: Socket[] = [];
  static get last(): Socket {
    return Socket.all.at(-1) as Socket;
  }
  sent: { id: number; cmd: string; data: Record<string, unknown>; key?: string }[] = [];
  onopen: () => void = () => {};
  onmessage: (event: { data: string }) => void = () => {};
  onclose: (event: { code: number; reason: string }) => void = () => {};
  closed = false;
  constructor(
    readonly url: string,
    readonly protocol: string,
  ) {
    Socket.all.push(this);
  }
  send(text: string) {
    this.sent.push(JSON.parse(text));
  }
  close() {
    this.closed = true;
  }
  say(...messages: object[]) {
    this.onmessage({ data: JSON.stringify(messages) });
  }
  join(seq = 41, extra: object = {}) {
    this.onopen();
    const snapshot = { room: { id: "r1", title: "Friday", host: "c1", state: "live", v: 1 } };
    const you = { id: "u1", name: "Ann", roles: [] };
    const ok = { you, epoch: "e1", seq, time_ms: Date.now() + 5000, mode: "snapshot", snapshot };
    this.say({ re: this.sent[0]?.id, ok: { ...ok, ...extra } });
  }
}

let room: Room;

beforeEach(() => {
  vi.useFakeTimers();
  vi.stubGlobal("WebSocket", Socket);
  Socket.all = [];
  room = connect("r1", { url: "http://here:8000/", token: "tok" });
});

afterEach(() => {
  room.close();
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

test("joins with the token in the first frame, never in the URL", () => {
  Socket.last.join();
  expect(Socket.last.url).toBe("ws://here:8000/ws/r1");
  expect(Socket.last.protocol).toBe("liveroom.v1.json");
  expect(Socket.last.sent[0]).toMatchObject({ cmd: "room.join", data: { token: "tok" } });
  expect(room.status).toBe("open");
  expect(room.now() - Date.now()).toBe(5000);
});

test("a command sent before the join waits for it", async () => {
  const said = room.send("message.post", { text: "hi" });
  expect(Socket.last.sent).toEqual([]);
  Socket.last.join();
  const frame = Socket.last.sent[1];
  expect(frame).toMatchObject({ cmd: "message.post", key: expect.any(String) });
  Socket.last.say({ re: frame?.id, ok: { message: { id: "e1-1", n: 1, text: "hi" } } });
  await expect(said).resolves.toEqual({ message: { id: "e1-1", n: 1, text: "hi" } });
});

test("listeners see the picture with the event already in it", () => {
  Socket.last.join();
  const seen: number[] = [];
  room.on("stock.changed", () => seen.push(room.picture.stock.s1?.left ?? -1));
  Socket.last.say({ ev: "stock.changed", at: 1, data: { sku: "s1", left: 3, v: 2 } });
  expect(seen).toEqual([3]);
});

test("a lost connection comes back with its position, after the time the server asks", () => {
  Socket.last.join(41);
  Socket.last.say({ ev: "notice.posted", seq: 42, at: 1, data: { text: "x" } });
  Socket.last.onclose({ code: 4000, reason: '{"after_ms":1200}' });
  expect(room.status).toBe("reconnecting");
  vi.advanceTimersByTime(1199);
  expect(Socket.all).toHaveLength(1);
  vi.advanceTimersByTime(1);
  Socket.last.onopen();
  expect(Socket.last.sent[0]?.data.since).toEqual({ epoch: "e1", seq: 42 });
});

test("a gap in seq is closed by resuming", () => {
  Socket.last.join(41);
  const first = Socket.last;
  first.say({ ev: "notice.posted", seq: 44, at: 1, data: { text: "late" } });
  expect(first.closed).toBe(true);
  vi.advanceTimersByTime(1);
  Socket.last.onopen();
  expect(Socket.last.sent[0]?.data.since).toEqual({ epoch: "e1", seq: 41 });
});

test("an unanswered order goes out again on the next connection, a tap does not", async () => {
  Socket.last.join();
  const placed = room.send("order.place", { order: "o1", lines: [{ sku: "s1", qty: 1 }] });
  const tapped = room.send("reaction.send", { kind: "heart", count: 2 });
  const lost = expect(tapped).rejects.toMatchObject({ code: "connection_lost" });
  Socket.last.onclose({ code: 1006, reason: "" });
  await lost;
  vi.advanceTimersByTime(500);
  Socket.last.join(41);
  const again = Socket.last.sent.filter((frame) => frame.cmd !== "room.join");
  expect(again.map((frame) => frame.cmd)).toEqual(["order.place"]);
  Socket.last.say({ re: again[0]?.id, ok: { order: { id: "o1", state: "placed" } } });
  await expect(placed).resolves.toMatchObject({ order: { id: "o1" } });
});

test("taps are summed, one command at a time, and the last go out with the close", async () => {
  Socket.last.join();
  const counted: object[] = [];
  room.on("tapped", (told) => counted.push(told));
  const taps = () =>
    Socket.last.sent.filter((one) => one.cmd === "reaction.send").map((one) => one.data);
  for (const kind of ["heart", "star", "heart"]) room.tap(kind);
  expect(taps()).toEqual([]);
  await vi.advanceTimersByTimeAsync(600);
  const sums = [
    { kind: "heart", count: 2 },
    { kind: "star", count: 1 },
  ];
  expect(taps()).toEqual(sums);
  for (let n = 0; n < 150; n++) room.tap();
  await vi.advanceTimersByTimeAsync(600);
  expect(taps()).toHaveLength(2);
  Socket.last.say({ re: 2, ok: {} }, { re: 3, error: { code: "bad_argument", retry: false } });
  await vi.advanceTimersByTimeAsync(600);
  expect(taps()[2]).toEqual({ kind: "heart", count: 100 });
  expect(counted).toEqual(sums.slice(0, 1));
  room.tap("star");
  room.close();
  expect(taps()[3]).toEqual({ kind: "star", count: 1 });
});

test("a keyed command keeps its key on every try", async () => {
  Socket.last.join();
  const added = room.send("cart.add", { sku: "s1", qty: 1 });
  const first = Socket.last.sent[1];
  const error = { code: "rebuilding", message: "…", retry: true, retry_after_ms: 200 };
  Socket.last.say({ re: first?.id, error });
  await vi.advanceTimersByTimeAsync(1500);
  const second = Socket.last.sent[2];
  expect(second).toMatchObject({ cmd: "cart.add", key: first?.key });
  expect(second?.id).not.toBe(first?.id);
  Socket.last.say({ re: second?.id, ok: { cart: { lines: [], total_minor: 0 } } });
  await expect(added).resolves.toHaveProperty("cart");
});

test("what brought the viewer here is told with what is bought, and with nothing else", () => {
  room.close();
  const source = { kind: "note", id: "n1" } as const;
  room = connect("r1", { url: "http://here:8000", source });
  Socket.last.join();
  const unanswered = () => {};
  room.send("cart.add", { sku: "s1", qty: 1 }).catch(unanswered);
  room.send("order.place", { order: "o1", lines: [{ sku: "s1", qty: 1 }] }).catch(unanswered);
  room.send("waitlist.join", { sku: "s1", qty: 1, source: { kind: "search" } }).catch(unanswered);
  room.send("cart.show", {}).catch(unanswered);
  expect(Socket.last.sent.map((frame) => frame.data.source)).toEqual([
    undefined,
    source,
    source,
    { kind: "search" },
    undefined,
  ]);
  Socket.last.onclose({ code: 1006, reason: "" });
  vi.advanceTimersByTime(500);
  Socket.last.join(41);
  const again = Socket.last.sent.find((frame) => frame.cmd === "order.place");
  expect(again?.data.source).toEqual(source);
});

test("a refusal is thrown in its family and is not tried again", async () => {
  Socket.last.join();
  const placed = room.send("order.place", { order: "o1", lines: [] });
  const refused = expect(placed).rejects.toBeInstanceOf(Refused);
  Socket.last.say({ re: 2, error: { code: "sold_out", message: "…", retry: false } });
  await refused;
  expect(Socket.last.sent).toHaveLength(2);
});

test("each lost connection is told, also one that never was", () => {
  const lost: number[] = [];
  room.on("lost", ({ code }) => lost.push(code));
  Socket.last.onclose({ code: 1006, reason: "" });
  vi.advanceTimersByTime(500);
  Socket.last.onclose({ code: 1012, reason: "" });
  expect(lost).toEqual([1006, 1012]);
});

test("from 4500 on the room stays closed and says why", () => {
  Socket.last.join();
  Socket.last.onclose({ code: 4502, reason: "" });
  vi.advanceTimersByTime(60_000);
  expect(room.status).toBe("closed");
  expect(room.why?.code).toBe("banned");
  expect(Socket.all).toHaveLength(1);
});

test("a token that is refused is not tried for ever; signing in begins again", () => {
  Socket.last.onopen();
  const error = { code: "token_expired", message: "…", retry: false };
  Socket.last.say({ re: 1, error });
  Socket.last.onclose({ code: 4003, reason: "" });
  vi.advanceTimersByTime(60_000);
  expect(room.why).toBeInstanceOf(Denied);
  expect(Socket.all).toHaveLength(1);
  room.signIn("fresh");
  Socket.last.join();
  expect(Socket.last.sent[0]?.data.token).toBe("fresh");
  expect(room.status).toBe("open");
});

test("a server that never answers is left for another try", () => {
  Socket.last.join();
  void room.send("cart.show", {}).catch(() => {});
  vi.advanceTimersByTime(15_000);
  expect(room.status).toBe("reconnecting");
});

test("after a silence the server is asked; if it is silent still, the line is lost", async () => {
  Socket.last.join();
  vi.advanceTimersByTime(29_999);
  Socket.last.say({ ev: "viewers.counted", at: 1, data: { viewers: 3, v: 1 } });
  vi.advanceTimersByTime(29_999);
  expect(Socket.last.sent).toHaveLength(1);
  vi.advanceTimersByTime(1);
  const asked = Socket.last.sent[1];
  expect(asked?.cmd).toBe("cart.show");
  // A guest is refused, which is as good an answer.
  Socket.last.say({ re: asked?.id, error: { code: "unauthenticated", retry: false } });
  await vi.advanceTimersByTimeAsync(30_000);
  expect(Socket.last.sent).toHaveLength(3);
  expect(room.status).toBe("open");
  await vi.advanceTimersByTimeAsync(15_000);
  expect(room.status).toBe("reconnecting");
  await vi.advanceTimersByTimeAsync(500);
  expect(Socket.all).toHaveLength(2);
});

test("a line that is let go of comes back with what waits for an answer", () => {
  Socket.last.join();
  void room.send("order.place", { order: "o1", lines: [] }).catch(() => {});
  room.reconnect();
  expect(room.status).toBe("reconnecting");
  vi.advanceTimersByTime(500);
  Socket.last.join(41);
  expect(Socket.last.sent[1]?.data.order).toBe("o1");
});

test("waits grow, are drawn from the whole range, and are bounded", () => {
  expect([0, 1, 2, 20].map((failures) => waitMs(failures, null, () => 1))).toEqual([
    500, 1000, 2000, 15_000,
  ]);
  expect(waitMs(3, null, () => 0)).toBe(0);
  expect(waitMs(0, 300, () => 1)).toBe(300);
  expect(waitMs(1, 300, () => 1)).toBe(1300);
});

test("ids are UUIDs of version 7, sorted by their time", () => {
  const ids = [1_790_000_000_000, 1_790_000_000_001, 1_800_000_000_000].map(newId);
  expect(
    ids.every((id) => /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-/.test(id)),
  ).toBe(true);
  expect([...ids].sort()).toEqual(ids);
});

test("a message that its author's reply overtook is put in its place", () => {
  Socket.last.join();
  const say = (n: number) => {
    const data = { id: `e1-${n}`, n, member: "u2", name: "Mia", text: `${n}`, at: n };
    Socket.last.say({ ev: "message.posted", n, at: n, data });
  };
  for (const n of [1, 4, 2, 2, 3]) say(n);
  expect(room.picture.messages.map((one) => one.n)).toEqual([1, 2, 3, 4]);
  expect(room.picture.unshown).toBe(0);
});

/**
 * One seat in one room, without its socket: positions, replies, events, commands.
 *
 * Rules: a logged event is shown once and in order, or the client resumes; a command goes out
 * again on a new connection only where repeating it is safe. Nothing here waits.
 */
import { fromWire, type LiveroomError } from "./errors.ts";
import { newId } from "./ids.ts";
import {
  PictureBook,
  withDrop,
  withEntry,
  withMessage,
  withOrder,
  withRoom,
  withWaiting,
} from "./picture.ts";
import type {
  Cart,
  CommandFrame,
  Drop,
  Entry,
  Joined,
  Message,
  Order,
  Position,
  ReplyFrame,
  RoomEvent,
  RoomInfo,
  ServerMessage,
  Source,
  Wait,
  You,
} from "./wire.ts";

/** Sent with an idempotency key, because doing them twice is not doing them once. */
const KEYED = new Set(
  (
    "cart.add message.post notice.post payment.start stock.restock stock.adjust drop.schedule " +
    "room.open room.close coupon.issue coupon.claim auction.start auction.bid giveaway.start " +
    "waitlist.join order.refund"
  ).split(" "),
);
/** Never sent again: losing one is better than doubling it. */
const ONCE = new Set(["reaction.send", "product.ask", "member.report"]);

/** They tell what brought the viewer here. */
const SOURCED = new Set(["cart.add", "order.place", "waitlist.join"]);

/** Whether a command may be sent again without an answer to the first. */
export const repeatable = (frame: CommandFrame): boolean => !ONCE.has(frame.cmd);

/** The answer to one command. */
export type Answer = { id: number; ok: object } | { id: number; error: LiveroomError };

/** What one frame brought. */
export interface Received {
  answers: Answer[];
  events: RoomEvent[];
  /** How the join went, when the frame held its answer. */
  joined: "resumed" | "snapshot" | null;
  refused: LiveroomError | null;
  /** A logged event is missing: connect again and resume. */
  gap: boolean;
}

export class Session {
  readonly book = new PictureBook();
  position: Position | null = null;
  you: You | null = null;
  timeOffsetMs = 0;
  #lastId = 0;
  #joinId = 0;
  #joinAt = 0;
  readonly #source: Source | null;

  constructor(source: Source | null = null) {
    this.#source = source;
  }

  /** A new frame; a command that needs a key and has none gets one, as it does the source. */
  command(cmd: string, data: object, key?: string): CommandFrame {
    const told = this.#source && SOURCED.has(cmd) ? { source: this.#source, ...data } : data;
    const frame: CommandFrame = { id: ++this.#lastId, cmd, data: told };
    const named = key ?? (KEYED.has(cmd) ? newId() : undefined);
    if (named !== undefined) frame.key = named;
    return frame;
  }

  /** The same command under a new id, for another try. */
  again(frame: CommandFrame): CommandFrame {
    return { ...frame, id: ++this.#lastId };
  }

  /** The first frame of a connection; it resumes where a position is known. */
  join(as: { token?: string | null; name?: string | null }, at = Date.now()): CommandFrame {
    const data: Record<string, unknown> = {};
    if (as.token) data.token = as.token;
    if (as.name) data.name = as.name;
    if (this.position) data.since = this.position;
    const frame = this.command("room.join", data);
    this.#joinId = frame.id;
    this.#joinAt = at;
    return frame;
  }

  /** Take the messages of one frame; after a gap the rest of the frame is left alone. */
  receive(messages: ServerMessage[], at = Date.now()): Received {
    const got: Received = { answers: [], events: [], joined: null, refused: null, gap: false };
    for (const message of messages) {
      if ("re" in message) this.#answer(message, got, at);
      else if ("ev" in message) this.#event(message, got);
      if (got.gap) break;
    }
    return got;
  }

  #answer(reply: ReplyFrame, got: Received, at: number): void {
    const id = reply.re;
    if (id === null) return;
    const joining = id === this.#joinId;
    if ("error" in reply) {
      const error = fromWire(reply.error);
      if (joining) got.refused = error;
      got.answers.push({ id, error });
    } else {
      if (joining) this.#joined(reply.ok as Joined, got, at);
      else this.#told(reply.ok);
      got.answers.push({ id, ok: reply.ok });
    }
    if (joining) this.#joinId = 0;
  }

  #joined(ok: Joined, got: Received, at: number): void {
    // The server read its clock about half way between our asking and its answer.
    this.timeOffsetMs = ok.time_ms - (this.#joinAt + at) / 2;
    this.you = ok.you;
    got.joined = ok.mode;
    if (ok.mode === "resumed") {
      for (const event of ok.events) this.#event(event, got);
      this.book.takeNow(ok.now);
    } else this.book.replace(ok.snapshot);
    this.position = { epoch: ok.epoch, seq: ok.seq };
  }

  /** A reply tells its sender what direct events tell the sender's other connections. */
  #told(ok: {
    cart?: Cart;
    order?: Order;
    message?: Message;
    room?: RoomInfo;
    drop?: Drop;
    entry?: Entry;
    waiting?: Wait;
  }): void {
    if (ok.room) this.book.put(withRoom(this.book.now, { room: ok.room }));
    if (ok.cart) this.book.put({ cart: ok.cart });
    if (ok.drop) this.book.put(withDrop(this.book.now, { drop: ok.drop }));
    if (ok.entry) this.book.put(withEntry(this.book.now, ok.entry));
    if (ok.waiting) this.book.put(withWaiting(this.book.now, ok.waiting));
    if (ok.order) this.book.put(withOrder(this.book.now, { order: ok.order }));
    if (ok.message?.text !== undefined) this.book.put(withMessage(this.book.now, ok.message));
  }

  #event(event: RoomEvent, got: Received): void {
    if (event.seq !== undefined && this.position) {
      if (event.seq <= this.position.seq) return;
      if (event.seq > this.position.seq + 1) {
        got.gap = true;
        return;
      }
      this.position = { ...this.position, seq: event.seq };
    }
    this.book.fold(event);
    got.events.push(event);
  }
}

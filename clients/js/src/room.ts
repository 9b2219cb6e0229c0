/**
 * A seat in a room that keeps itself: it reconnects, resumes, and sends again what may be sent
 * again. Everything known of the room is in `picture`, folded before any listener is called.
 */
import { ConnectionLost, Denied, type LiveroomError, RoomClosed, Unavailable } from "./errors.ts";
import type { Field, Picture } from "./picture.ts";
import { afterClose, closeName, waitMs } from "./reconnect.ts";
import { repeatable, Session } from "./session.ts";
import { Taps } from "./taps.ts";
import type {
  CommandFrame,
  Commands,
  EventName,
  Position,
  RoomEvent,
  ServerMessage,
  Source,
  You,
} from "./wire.ts";

const SUBPROTOCOL = "liveroom.v1.json";
const PENDING_MAX = 100;
const RETRIES_MAX = 4;
const ANSWER_WITHIN_MS = 15_000;
const OPEN_WITHIN_MS = 15_000;
/** How long nothing may come before the server is asked something: longer than between its pings. */
const SILENT_MS = 30_000;

/** `closed` is final: `why` tells, and only `open()` or `signIn()` begins again. */
export type Status = "connecting" | "open" | "reconnecting" | "closed";

export interface RoomOptions {
  /** Where the server is, as http(s) or ws(s); the page's own origin by default. */
  url?: string;
  token?: string | null;
  /** A guest's name. */
  name?: string | null;
  /** What brought the viewer here, told with all that is bought. */
  source?: Source | null;
}

interface Waiting {
  frame: CommandFrame;
  sent: boolean;
  tries: number;
  timer: ReturnType<typeof setTimeout> | undefined;
  resolve: (ok: object) => void;
  reject: (error: LiveroomError) => void;
}

type Listener = (told: never) => void;
interface OwnEvents {
  status: Status;
  changed: Set<Field>;
  joined: "resumed" | "snapshot";
  /** A connection, or the try to make one, has ended. */
  lost: { code: number; reason: string };
  /** So many of our own taps have been counted. */
  tapped: { kind: string; count: number };
}

export class Room {
  status: Status = "connecting";
  /** Why the room is closed to us. */
  why: LiveroomError | null = null;
  readonly #url: string;
  #token: string | null;
  readonly #name: string | null;
  readonly #session: Session;
  readonly #listeners = new Map<string, Set<Listener>>();
  readonly #waiting = new Map<number, Waiting>();
  readonly #taps = new Taps(async (kind, count) => {
    await this.send("reaction.send", { kind, count });
    this.#emit("tapped", { kind, count });
  });
  #socket: WebSocket | null = null;
  #joined = false;
  #failures = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #silence: ReturnType<typeof setTimeout> | undefined;

  constructor(
    readonly id: string,
    options: RoomOptions = {},
  ) {
    const base = (options.url ?? location.origin).replace(/^http/, "ws").replace(/\/$/, "");
    this.#url = `${base}/ws/${encodeURIComponent(id)}`;
    this.#token = options.token ?? null;
    this.#name = options.name ?? null;
    this.#session = new Session(options.source);
    this.open();
  }

  get picture(): Picture {
    return this.#session.book.now;
  }

  get you(): You | null {
    return this.#session.you;
  }

  get position(): Position | null {
    return this.#session.position;
  }

  /** The server's clock, in milliseconds. */
  now(): number {
    return Date.now() + this.#session.timeOffsetMs;
  }

  /** Listen to an event of the room, or to an own event (`status` …); returns the end of it. */
  on<Name extends EventName>(name: Name, listener: (event: RoomEvent<Name>) => void): () => void;
  on<Name extends keyof OwnEvents>(
    name: Name,
    listener: (told: OwnEvents[Name]) => void,
  ): () => void;
  on(name: string, listener: Listener): () => void {
    const all = this.#listeners.get(name) ?? new Set();
    this.#listeners.set(name, all.add(listener));
    return () => all.delete(listener);
  }

  /**
   * Send a command and wait for its `ok`; a refusal is thrown in its family. A command that may
   * be repeated is sent again after a reconnect, and when the server asks to try again.
   */
  send<Name extends keyof Commands>(
    cmd: Name,
    data: Commands[Name]["data"],
    key?: string,
  ): Promise<Commands[Name]["ok"]> {
    return new Promise((resolve, reject) => {
      if (this.status === "closed") throw this.why ?? new RoomClosed();
      if (this.#waiting.size >= PENDING_MAX) {
        throw new Unavailable({ code: "overloaded", retry: true });
      }
      const frame = this.#session.command(cmd, data, key);
      const waiting: Waiting = {
        frame,
        sent: false,
        tries: 0,
        timer: undefined,
        resolve: resolve as (ok: object) => void,
        reject,
      };
      this.#waiting.set(frame.id, waiting);
      this.#submit(waiting);
    });
  }

  /** React once. The taps of a short while go out as one command; `tapped` tells when they count. */
  tap(kind = "heart"): void {
    this.#taps.add(kind);
  }

  /** Take another token (or none) and join again, keeping the place in the log. */
  signIn(token: string | null): void {
    this.#token = token;
    this.#failures = 0;
    this.#drop();
    this.#keepWaiting(() => false); // What one member sent is not another's to repeat.
    this.open();
  }

  /** Connect, unless there is a connection already. */
  open(): void {
    if (this.#socket) return;
    clearTimeout(this.#timer);
    this.why = null;
    this.#say(this.#session.position ? "reconnecting" : "connecting");
    const socket = new WebSocket(this.#url, SUBPROTOCOL);
    this.#socket = socket;
    // A handshake or a join that never ends would otherwise hold the seat for ever.
    this.#timer = setTimeout(() => this.#lost(socket, 1006, ""), OPEN_WITHIN_MS);
    socket.onopen = () => {
      this.#write(this.#session.join({ token: this.#token, name: this.#name }));
    };
    socket.onmessage = ({ data }) => this.#receive(socket, data);
    socket.onclose = ({ code, reason }) => this.#lost(socket, code, reason);
  }

  /** Try now instead of after the backoff: the network is back, or the page is seen again. */
  wake(): void {
    if (this.status === "reconnecting" || this.status === "connecting") this.open();
  }

  /** Let go of the connection and make another: the network has gone, or is another one. */
  reconnect(): void {
    if (this.#socket) this.#lost(this.#socket, 1006, "");
  }

  /** Leave the room; the last taps go out still, and what waits for an answer is rejected. */
  close(): void {
    void this.#taps.flush();
    this.#drop();
    this.#finish(new RoomClosed());
  }

  #receive(socket: WebSocket, data: string): void {
    if (socket !== this.#socket) return;
    this.#listen();
    const got = this.#session.receive(JSON.parse(data) as ServerMessage[]);
    if (got.refused) this.#refused(got.refused);
    if (got.joined) this.#rejoined();
    for (const answer of got.answers) this.#answer(answer.id, answer);
    const changed = this.#session.book.takeChanged();
    if (changed.size) this.#emit("changed", changed);
    if (got.joined) this.#emit("joined", got.joined);
    for (const event of got.events) this.#emit(event.ev, event);
    if (got.gap) this.#lost(socket, 4002, '{"after_ms":0}');
  }

  /**
   * A browser shows neither the server's pings nor that a network is dead. After a silence the
   * server is asked for what it answers at little cost; without an answer the line is lost.
   */
  #listen(): void {
    clearTimeout(this.#silence);
    this.#silence = setTimeout(() => {
      if (this.#joined && this.#waiting.size === 0) this.send("cart.show", {}).catch(() => {});
    }, SILENT_MS);
  }

  #rejoined(): void {
    clearTimeout(this.#timer);
    this.#joined = true;
    this.#failures = 0;
    this.#say("open");
    for (const waiting of [...this.#waiting.values()]) {
      if (waiting.timer === undefined) this.#submit(waiting);
    }
  }

  #refused(error: LiveroomError): void {
    if (error.retry) return; // The close that follows tells when to come back.
    this.#drop();
    this.#finish(error);
  }

  #submit(waiting: Waiting): void {
    if (!this.#joined) return;
    if (waiting.sent) {
      this.#waiting.delete(waiting.frame.id);
      waiting.frame = this.#session.again(waiting.frame);
      this.#waiting.set(waiting.frame.id, waiting);
    }
    waiting.sent = true;
    waiting.timer = setTimeout(() => {
      if (this.#socket) this.#lost(this.#socket, 1006, "");
    }, ANSWER_WITHIN_MS);
    this.#write(waiting.frame);
  }

  #answer(id: number, answer: { ok: object } | { error: LiveroomError }): void {
    const waiting = this.#waiting.get(id);
    if (!waiting) return;
    clearTimeout(waiting.timer);
    waiting.timer = undefined;
    if ("ok" in answer) {
      this.#waiting.delete(id);
      waiting.resolve(answer.ok);
    } else if (this.#tryAgain(waiting, answer.error)) {
      const wait = waitMs(waiting.tries, answer.error.retryAfterMs ?? null);
      waiting.timer = setTimeout(() => {
        waiting.timer = undefined;
        this.#submit(waiting);
      }, wait);
    } else {
      this.#waiting.delete(id);
      waiting.reject(answer.error);
    }
  }

  #tryAgain(waiting: Waiting, error: LiveroomError): boolean {
    const worth = error instanceof Unavailable && repeatable(waiting.frame);
    return worth && ++waiting.tries <= RETRIES_MAX;
  }

  #lost(socket: WebSocket, code: number, reason: string): void {
    if (socket !== this.#socket) return;
    this.#drop();
    const rule = afterClose(code, reason);
    if (!rule.reconnect) {
      this.#finish(new RoomClosed(closeName(code)));
      return;
    }
    this.#keepWaiting((waiting) => rule.repeat && repeatable(waiting.frame));
    this.#say(this.#session.position ? "reconnecting" : "connecting");
    this.#timer = setTimeout(() => this.open(), waitMs(this.#failures++, rule.afterMs));
    this.#emit("lost", { code, reason });
  }

  /** Without a connection: what was sent and may not be sent again is answered now. */
  #keepWaiting(may: (waiting: Waiting) => boolean): void {
    for (const [id, waiting] of [...this.#waiting]) {
      clearTimeout(waiting.timer);
      waiting.timer = undefined;
      if (!waiting.sent || may(waiting)) continue;
      this.#waiting.delete(id);
      waiting.reject(new ConnectionLost());
    }
  }

  /** Let go of the socket, if there is one; nothing that it still says is heard. */
  #drop(): void {
    clearTimeout(this.#timer);
    clearTimeout(this.#silence);
    this.#joined = false;
    const socket = this.#socket;
    this.#socket = null;
    socket?.close();
  }

  #finish(why: LiveroomError): void {
    this.why = why;
    for (const waiting of this.#waiting.values()) {
      clearTimeout(waiting.timer);
      waiting.reject(why instanceof Denied ? why : new RoomClosed(why.code));
    }
    this.#waiting.clear();
    this.#say("closed");
  }

  #write(frame: CommandFrame): void {
    this.#socket?.send(JSON.stringify(frame));
  }

  #say(status: Status): void {
    if (status === this.status) return;
    this.status = status;
    this.#emit("status", status);
  }

  #emit(name: string, told: unknown): void {
    for (const listener of this.#listeners.get(name) ?? []) listener(told as never);
  }
}

/** Take a seat in a room. */
export const connect = (id: string, options: RoomOptions = {}): Room => new Room(id, options);

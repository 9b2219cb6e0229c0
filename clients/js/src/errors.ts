/**
 * Every refusal, by who must act.
 *
 *     LiveroomError
 *     ├── Refused      the person: choose otherwise
 *     ├── Invalid      the client's developer: mend the request
 *     ├── Denied       sign in, or ask for the right
 *     └── Unavailable  nobody: the same request may succeed a little later
 */
import type { WireError } from "./wire.ts";

export class LiveroomError extends Error {
  readonly code: string;
  /** Whether sending the same again may succeed. */
  readonly retry: boolean;
  readonly retryAfterMs: number | undefined;
  readonly data: Record<string, unknown>;

  constructor(error: WireError) {
    super(error.message ?? error.detail ?? error.code);
    this.code = error.code;
    this.retry = error.retry ?? false;
    this.retryAfterMs = error.retry_after_ms;
    this.data = error.data ?? {};
  }
}

export class Refused extends LiveroomError {}
export class Invalid extends LiveroomError {}
export class Denied extends LiveroomError {}
export class Unavailable extends LiveroomError {}

/** The connection broke before the answer came: whether the command was done is not known. */
export class ConnectionLost extends LiveroomError {
  constructor() {
    super({ code: "connection_lost", retry: true });
  }
}

/** The room was left, or the server does not want this connection back (4500-4999). */
export class RoomClosed extends LiveroomError {
  constructor(code = "closed") {
    super({ code });
  }
}

const FAMILIES: [typeof LiveroomError, string][] = [
  [
    Refused,
    "sold_out limit_reached not_open sale_paused hold_expired price_changed already_claimed " +
      "outbid payment_declined muted banned slow_mode blocked_words",
  ],
  [Invalid, "bad_frame unknown_command bad_argument not_found illegal_transition id_reused"],
  [Denied, "unauthenticated token_expired forbidden"],
  [Unavailable, "overloaded rate_limited rebuilding store_down shutting_down internal"],
];

/** The error of a reply, or of an HTTP answer's problem+json, in its family. */
export function fromWire(error: WireError): LiveroomError {
  const family = FAMILIES.find(([, codes]) => codes.split(" ").includes(error.code));
  return new (family?.[0] ?? LiveroomError)(error);
}

/** When to come back: the close codes, and a backoff with full jitter. Nothing here waits. */

const FIRST_MS = 500;
const LONGEST_MS = 15_000;
const FRAME_AT_FAULT = [1002, 1003, 1007, 1009];
const FINAL: Record<number, string> = {
  4500: "bad_frame",
  4501: "unauthenticated",
  4502: "banned",
  4503: "room_gone",
  4504: "replaced",
};

/** What a close code asks of the client. */
export interface AfterClose {
  reconnect: boolean;
  /** How long the server asks us to wait; `null`: our own jitter. */
  afterMs: number | null;
  /** Whether commands without an answer may be sent again. */
  repeat: boolean;
}

/** The rule for a close code; `reason` may hold `{"after_ms": n}`. */
export function afterClose(code: number, reason: string): AfterClose {
  if (code >= 4500 && code <= 4999) return { reconnect: false, afterMs: null, repeat: false };
  return { reconnect: true, afterMs: askedMs(reason), repeat: !FRAME_AT_FAULT.includes(code) };
}

/** The word for a close code that is final. */
export function closeName(code: number): string {
  return FINAL[code] ?? "closed";
}

function askedMs(reason: string): number | null {
  try {
    const asked: unknown = JSON.parse(reason)?.after_ms;
    return Number.isInteger(asked) && (asked as number) >= 0 ? (asked as number) : null;
  } catch {
    return null; // The reason is a hint; text of another kind means there is none.
  }
}

/**
 * Milliseconds to wait before try number `failures` + 1, drawn from the whole range. The
 * server's own wish is already spread over its clients, so jitter joins it only after a failure.
 */
export function waitMs(
  failures: number,
  afterMs: number | null = null,
  random = Math.random,
): number {
  const jitter = random() * Math.min(LONGEST_MS, FIRST_MS * 2 ** Math.min(failures, 16));
  return afterMs === null ? jitter : afterMs + (failures > 0 ? jitter : 0);
}

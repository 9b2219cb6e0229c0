/** The contract's examples, which the server and the Python SDK are tested on too. */
import { describe, expect, test } from "vitest";
import closes from "../../../tests/vectors/closes.json";
import contract from "../../../tests/vectors/contract.json";
import { Denied, Invalid, LiveroomError, Refused, Unavailable } from "../src/errors.ts";
import type { Product, ServerMessage } from "../src/index.ts";
import { afterClose } from "../src/reconnect.ts";
import { type Answer, Session } from "../src/session.ts";

interface Sent {
  id: number;
  cmd: string;
  data: Record<string, unknown>;
  key?: string;
}
interface Expected {
  [what: string]: unknown;
  since?: { epoch: string; seq: number };
  replies?: Record<string, { ok?: unknown; error?: Record<string, unknown> }>;
}
interface Vector {
  name: string;
  sent: Sent[];
  received: ServerMessage[][];
  expect: Expected;
}

const FAMILIES = { Refused, Invalid, Denied, Unavailable, LiveroomError };
const vectors = contract as unknown as Vector[];

function play(vector: Vector) {
  const session = new Session();
  session.position = vector.expect.since ?? null;
  const [join, ...commands] = vector.sent;
  const { token = null, name = null } = (join?.data ?? {}) as { token?: string; name?: string };
  const sent = [session.join({ token, name })];
  for (const one of commands) sent.push(session.command(one.cmd, one.data, one.key));
  const got = structuredClone(vector.received).map((frame) => session.receive(frame));
  return {
    session,
    sent,
    answers: got.flatMap((one) => one.answers),
    events: got.flatMap((one) => one.events),
    gap: got.some((one) => one.gap),
  };
}

const ids = (things: { id: string }[]) => things.map((one) => one.id);
const prices = (products: Product[]) =>
  Object.fromEntries(products.flatMap((one) => one.skus.map((sku) => [sku.id, sku.price_minor])));
const each = <T, R>(things: Record<string, T>, seen: (one: T) => R) =>
  Object.fromEntries(Object.entries(things).map(([key, one]) => [key, seen(one)]));

function known(played: ReturnType<typeof play>): Record<string, unknown> {
  const { session } = played;
  const now = session.book.now;
  return {
    events: played.events.map((event) => [event.ev, event.seq ?? null]),
    gap: played.gap,
    position: session.position,
    you: session.you?.id,
    room: now.room,
    shelf: ids(now.shelf),
    pinned: ids(now.pinned),
    prices: prices(now.shelf),
    pinned_prices: prices(now.pinned),
    stock: each(now.stock, (one) => one.left),
    messages: now.messages.map((one) => one.text),
    unshown: now.unshown,
    viewers: now.viewers,
    reactions: now.reactions,
    cart: Object.fromEntries((now.cart?.lines ?? []).map((line) => [line.sku, line.qty])),
    orders: each(now.orders, (one) => one.state),
    drops: each(now.drops, (one) => one.state),
    waiting: each(now.waiting, (one) => one.qty),
    entries: each(now.entries, (one) => one.admitted ?? null),
    notice: now.notice,
  };
}

const PARTS = new Set(["room", "prices", "pinned_prices", "stock"]);

function expectAnswer(answer: Answer | undefined, reply: { ok?: unknown; error?: object }) {
  if (!reply.error) {
    expect(answer).toHaveProperty("ok");
    if (reply.ok !== true) expect(answer).toMatchObject({ ok: reply.ok });
    return;
  }
  const { error } = answer as { error: LiveroomError };
  const { family, ...rest } = reply.error as { family?: keyof typeof FAMILIES };
  if (family) expect(error.constructor).toBe(FAMILIES[family]);
  const { code, retry, retryAfterMs: retry_after_ms, data } = error;
  expect({ code, retry, retry_after_ms, data }).toMatchObject(rest);
}

describe("the contract", () => {
  test.each(vectors.map((vector) => [vector.name, vector] as const))("%s", (_, vector) => {
    const played = play(vector);
    const seen = known(played);
    const { replies = {}, since: _since, ...expected } = vector.expect;
    for (const [what, value] of Object.entries(expected)) {
      expect(seen, what).toHaveProperty(what);
      if (PARTS.has(what)) expect(seen[what], what).toMatchObject(value as object);
      else expect(seen[what], what).toEqual(value);
    }
    for (const [id, reply] of Object.entries(replies)) {
      expectAnswer(
        played.answers.find((answer) => answer.id === Number(id)),
        reply,
      );
    }
  });

  test.each(vectors.map((vector) => [vector.name, vector] as const))("sends: %s", (_, vector) => {
    const { sent } = play(vector);
    expect(sent).toHaveLength(vector.sent.length);
    sent.forEach((frame, i) => {
      expect(frame).toMatchObject(vector.sent[i] as object);
    });
  });
});

test.each(closes)("close $code", ({ code, reason, reconnect, after_ms, repeat }) => {
  expect(afterClose(code, reason)).toEqual({ reconnect, afterMs: after_ms, repeat });
});

/** A room's orders, read page by page from a list that goes on changing. */
import type { Order } from "@liveroom/client";
import { expect, test } from "vitest";
import { Book } from "../src/live/book.ts";

const order = (n: number, state: Order["state"] = "paid"): Order => ({
  id: `o${n}`,
  state,
  room: "r1",
  lines: [{ sku: "s1", qty: 1, price_minor: 100 }],
  total_minor: 100,
  currency: "CNY",
  placed_at: n,
  pay_by: n,
});

/** A book over pages of two, and what it was told. */
function over(list: Order[]) {
  const told: string[][] = [];
  const asked: number[] = [];
  const page = async (after: string | null) => {
    const at = Number(after ?? 0);
    asked.push(at);
    return { items: list.slice(at, at + 2), next: at + 2 < list.length ? `${at + 2}` : null };
  };
  const book = new Book(page, (changed) => told.push(changed.map((one) => one.id)));
  return { book, told, asked };
}

test("a late payment behind a page of settled orders is seen", async () => {
  const list = [order(5, "cancelled"), order(4), order(3), order(2), order(1, "placed")];
  const { book, told, asked } = over(list);
  await book.read();
  expect(asked).toEqual([0, 2, 4]);
  list[4] = order(1, "paid");
  told.length = 0;
  await book.read();
  await book.read();
  expect(told).toEqual([["o1"]]);
  expect(book.orders.o1?.state).toBe("paid");
});

test("a round reads the newest page and one of the older, whatever there is", async () => {
  const { book, asked } = over(Array.from({ length: 30 }, (_, n) => order(n)));
  await book.read();
  asked.length = 0;
  for (let round = 0; round < 6; round++) await book.read();
  expect(asked.filter((at) => at === 0)).toHaveLength(6);
  expect(asked).toHaveLength(12);
  expect(Object.keys(book.orders)).toHaveLength(30);
});

test("a refund of an order that stays paid is a change; the same again is none", async () => {
  const list = [order(1)];
  const { book, told } = over(list);
  await book.read();
  const rest = { id: "r", order: "o1", payment: "p", currency: "CNY", created_at: 1 };
  list[0] = { ...order(1), refunds: [{ ...rest, state: "succeeded", amount_minor: 30 }] };
  await book.read();
  await book.read();
  expect(told).toEqual([["o1"], ["o1"]]);
});

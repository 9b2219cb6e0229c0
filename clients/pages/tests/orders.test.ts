/** What orders come to. */
import type { Order, Refund } from "@liveroom/client";
import { describe, expect, test } from "vitest";
import { takings } from "../src/live/orders.ts";

const refund = (amount_minor: number, state: Refund["state"] = "succeeded"): Refund => ({
  id: "r",
  order: "o",
  payment: "p",
  state,
  amount_minor,
  currency: "CNY",
  created_at: 1,
});

const order = (id: string, more: Partial<Order> = {}): Order => ({
  id,
  state: "paid",
  room: "r1",
  lines: [{ sku: `sku-${id}`, qty: 1, price_minor: 1000 }],
  total_minor: 1000,
  currency: "CNY",
  placed_at: 1,
  pay_by: 2,
  ...more,
});

describe("takings", () => {
  test("each currency has a sum of its own", () => {
    const orders = [order("a"), order("b", { currency: "JPY" }), order("c")];
    expect(takings(orders)).toEqual([
      { currency: "CNY", kept_minor: 2000, back_minor: 0 },
      { currency: "JPY", kept_minor: 1000, back_minor: 0 },
    ]);
  });

  test("what was given back, or is on its way, is not kept; a refund that failed is", () => {
    const orders = [
      order("part", { refunds: [refund(300), refund(100, "failed")] }),
      order("going", { state: "refund_pending", refunds: [refund(400, "pending")] }),
      order("whole", { state: "refunded", refunds: [refund(1000)] }),
      order("open", { state: "placed" }),
    ];
    expect(takings(orders)).toEqual([{ currency: "CNY", kept_minor: 1300, back_minor: 1700 }]);
  });
});

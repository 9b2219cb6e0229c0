import type { Drop } from "@liveroom/client";
import { describe, expect, test } from "vitest";
import { leftIn, soldIn, untilTurn, upcoming } from "../src/live/drops.ts";

const drop = (id: string, more: Partial<Drop> = {}): Drop => ({
  id,
  sku: "s1",
  quantity: 5,
  price_minor: 100,
  opens_at: 10_000,
  closes_at: 20_000,
  state: "scheduled",
  ...more,
});

describe("drops", () => {
  test("open ones come first, then what opens next; what has ended is not shown", () => {
    const all = [
      drop("late", { opens_at: 30_000 }),
      drop("soon"),
      drop("over", { state: "closed" }),
      drop("off", { state: "cancelled" }),
      drop("now", { state: "open" }),
    ];
    const shown = upcoming(Object.fromEntries(all.map((one) => [one.id, one])));
    expect(shown.map((one) => one.id)).toEqual(["now", "soon", "late"]);
  });

  test("a countdown shows 0 only once it is time", () => {
    expect(untilTurn(drop("d"), 9_001)).toBe(1000);
    expect(untilTurn(drop("d"), 10_000)).toBe(0);
    expect(untilTurn(drop("d"), 11_000)).toBe(0);
    expect(untilTurn(drop("d", { state: "open" }), 18_500)).toBe(2000);
  });

  test("all units are left until the stock is known", () => {
    expect(leftIn(drop("d"), {})).toBe(5);
    expect(leftIn(drop("d"), { d: { left: 0, v: 1 }, s1: { left: 9, v: 1 } })).toBe(0);
  });

  test("a drop off the shelf is nobody's", () => {
    const shelf = [
      { id: "p", shop: "s", title: "P", currency: "CNY", skus: [{ id: "s1", price_minor: 200 }] },
    ];
    expect(soldIn(drop("d"), shelf)?.product.id).toBe("p");
    expect(soldIn(drop("d", { sku: "s9" }), shelf)).toBeNull();
  });
});

/** What a card says of stock and price, from what is known of its SKUs. */
import { expect, test } from "vitest";
import { leftOf, partLeft, priceOf } from "../src/live/stock.ts";

const product = {
  id: "p1",
  shop: "shop",
  title: "Linen trousers",
  currency: "CNY",
  skus: [
    { id: "s1", price_minor: 19900 },
    { id: "s2", price_minor: 20900 },
  ],
};

test("what is left is the sum over SKUs, and nothing is said while nothing is known", () => {
  expect(leftOf(product, {})).toBeNull();
  expect(leftOf(product, { s1: { left: 3, v: 1 } })).toBe(3);
  expect(leftOf(product, { s1: { left: 3, v: 1 }, s2: { left: 0, v: 1 } })).toBe(3);
});

test("the price is the lowest, marked where there are higher ones", () => {
  expect(priceOf(product)).toEqual({ minor: 19900, from: true });
  expect(priceOf({ ...product, skus: product.skus.slice(1) })).toEqual({
    minor: 20900,
    from: false,
  });
});

test("the bar is measured against the most that was ever seen", () => {
  expect(partLeft(product, 10)).toBe(1);
  expect(partLeft(product, 4)).toBe(0.4);
  expect(partLeft(product, 20)).toBe(1);
});

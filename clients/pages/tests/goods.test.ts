/** What a SKU is called, also when it is on the shelf no more. */
import { expect, test } from "vitest";
import { Goods, nameOf } from "../src/live/goods.ts";

const product = (id: string, sizes: string[]) => ({
  id,
  shop: "shop",
  title: `The ${id}`,
  currency: "CNY",
  skus: sizes.map((name) => ({ id: `${id}-${name}`, name, price_minor: 100 })),
});

test("a SKU keeps its product after it has left the shelf; what was never seen has none", () => {
  const goods = new Goods();
  goods.see([product("bag", ["one"]), product("coat", ["S", "M"])]);
  goods.see([product("coat", ["S", "M"])]);
  expect(goods.of("bag-one")?.title).toBe("The bag");
  expect(goods.of("hat-one")).toBeUndefined();
});

test("a SKU's own name is told where there are several", () => {
  expect(nameOf(product("coat", ["S", "M"]), "coat-M")).toBe("The coat · M");
  expect(nameOf(product("bag", ["one"]), "bag-one")).toBe("The bag");
});

test("of more than anybody looks at the oldest are forgotten", () => {
  const goods = new Goods();
  for (let n = 0; n <= 1000; n++) goods.see([product(`p${n}`, ["one"])]);
  expect(goods.of("p0-one")).toBeUndefined();
  expect(goods.of("p1-one")?.title).toBe("The p1");
});

/** What can be said of a product's stock, from the stock of its SKUs. */
import type { Product, Stock } from "@liveroom/client";

/** Units a buyer could hold now over all SKUs; `null` while nothing is known. */
export function leftOf(product: Product, stock: Record<string, Stock>): number | null {
  const known = product.skus.map((sku) => stock[sku.id]?.left).filter((left) => left !== undefined);
  return known.length ? known.reduce((sum, left) => sum + left, 0) : null;
}

/** The lowest price, and whether there are higher ones. */
export function priceOf(product: Product): { minor: number; from: boolean } {
  const prices = product.skus.map((sku) => sku.price_minor);
  const minor = Math.min(...prices);
  return { minor, from: prices.some((price) => price !== minor) };
}

const most = new Map<string, number>();

/** The part of the most this page has seen that is left: a bar's length, 0 to 1. */
export function partLeft(product: Product, left: number): number {
  const before = Math.max(most.get(product.id) ?? 0, left);
  most.set(product.id, before);
  return before ? left / before : 0;
}

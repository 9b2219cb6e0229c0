/** What can be said of a drop at a moment of the server's clock. */
import type { Drop, Product, Sku, Stock } from "@liveroom/client";

/** Drops that are open or to come: open ones first, then by the time that matters. */
export function upcoming(drops: Record<string, Drop>): Drop[] {
  const time = (drop: Drop) => (drop.state === "open" ? drop.closes_at : drop.opens_at);
  return Object.values(drops)
    .filter((drop) => drop.state === "open" || drop.state === "scheduled")
    .sort((a, b) => a.state.localeCompare(b.state) || time(a) - time(b));
}

/** Units of the drop that a buyer could hold now; all of them while nothing else is known. */
export const leftIn = (drop: Drop, stock: Record<string, Stock>): number =>
  stock[drop.id]?.left ?? drop.quantity;

/** The product and SKU that a drop sells. */
export function soldIn(drop: Drop, shelf: Product[]): { product: Product; sku: Sku } | null {
  for (const product of shelf) {
    const sku = product.skus.find((one) => one.id === drop.sku);
    if (sku) return { product, sku };
  }
  return null;
}

/** Milliseconds until it opens or closes, rounded up to a second: 0 only once it is time. */
export function untilTurn(drop: Drop, now: number): number {
  const at = drop.state === "open" ? drop.closes_at : drop.opens_at;
  return Math.max(0, Math.ceil((at - now) / 1000) * 1000);
}

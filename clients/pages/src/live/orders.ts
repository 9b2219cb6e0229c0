/** What can be said of orders, and of the money of many. */
import type { Order } from "@liveroom/client";

/** States in which money has come. */
const CAPTURED = new Set<Order["state"]>(["paid", "refund_pending", "refunded"]);

/** What was given back of an order, or is on its way back. */
export const givenBack = (order: Order): number =>
  (order.refunds ?? [])
    .filter((refund) => refund.state !== "failed")
    .reduce((sum, refund) => sum + refund.amount_minor, 0);

/** What was given back of an order that is paid all the same; 0 where all or nothing was. */
export const backInPart = (order: Order): number => (order.state === "paid" ? givenBack(order) : 0);

export interface Takings {
  currency: string;
  /** What was paid and not given back. */
  kept_minor: number;
  back_minor: number;
}

/** One sum for each currency, in the order in which they came; none of them can be added. */
export function takings(orders: Order[]): Takings[] {
  const sums = new Map<string, Takings>();
  for (const order of orders) {
    if (!CAPTURED.has(order.state)) continue;
    const { currency } = order;
    const sum = sums.get(currency) ?? { currency, kept_minor: 0, back_minor: 0 };
    const back = Math.min(order.total_minor, givenBack(order));
    sum.kept_minor += order.total_minor - back;
    sum.back_minor += back;
    sums.set(currency, sum);
  }
  return [...sums.values()];
}

/**
 * The orders of a room as they are read page by page. The newest pages are read each time, as far
 * as they hold what may still change soon; of the older ones each time one, in turn, since
 * money may come late and go back later still. Nothing here decides when to read.
 */
import type { Order } from "@liveroom/client";
import { givenBack } from "./orders.ts";

const PAGES_MAX = 10;
const SETTLED = new Set<Order["state"]>(["paid", "expired", "cancelled", "refunded"]);

export interface Page {
  items: Order[];
  next: string | null;
}

const changed = (before: Order | undefined, now: Order): boolean =>
  before?.state !== now.state || givenBack(before) !== givenBack(now);

export class Book {
  orders: Record<string, Order> = {};
  #older: string | null = null;

  /** `page` reads one, newest orders first, after a cursor; `tell` hears of orders that changed. */
  constructor(
    readonly page: (after: string | null) => Promise<Page>,
    readonly tell: (changed: Order[]) => void,
  ) {}

  /** Read what is due. */
  async read(): Promise<void> {
    let after: string | null = null;
    for (let pages = 0; pages < PAGES_MAX; pages++) {
      const read: Page = await this.page(after);
      const settled = read.items.every((one) =>
        SETTLED.has(this.orders[one.id]?.state ?? "placed"),
      );
      this.#take(read);
      after = read.next;
      if (!after || settled) break;
    }
    const from = this.#older ?? after;
    if (from) {
      const read = await this.page(from);
      this.#take(read);
      this.#older = read.next;
    }
  }

  #take({ items }: Page): void {
    const news = items.filter((one) => changed(this.orders[one.id], one));
    if (!news.length) return;
    this.orders = { ...this.orders, ...Object.fromEntries(news.map((one) => [one.id, one])) };
    this.tell(news);
  }
}

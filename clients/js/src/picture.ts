/**
 * The room as this client sees it: a snapshot, with each event folded in.
 *
 * Two rules: an older value never replaces a newer one (`v`), and a field that changes becomes
 * a new object, so that a page can compare by identity. Nothing here waits.
 */
import type {
  Cart,
  Drop,
  Entry,
  EventName,
  Events,
  Message,
  Now,
  Order,
  Product,
  RoomEvent,
  RoomInfo,
  Snapshot,
  Stock,
  Wait,
} from "./wire.ts";

const MESSAGES_MAX = 200;
const ORDERS_MAX = 200;

/** What is known of a room. */
export interface Picture {
  room: RoomInfo | null;
  shelf: Product[];
  /** Oldest pin first. */
  pinned: Product[];
  drops: Record<string, Drop>;
  /** By SKU, or by drop for a drop's own stock. */
  stock: Record<string, Stock>;
  messages: Message[];
  /** Messages that the room's budget kept from being shown. */
  unshown: number;
  viewers: number;
  reactions: Record<string, number>;
  cart: Cart | null;
  orders: Record<string, Order>;
  /** The draws this member takes part in, by drop. */
  entries: Record<string, Entry>;
  /** What this member waits for, by SKU. */
  waiting: Record<string, Wait>;
  notice: string | null;
}

export type Field = keyof Picture;

export const emptyPicture = (): Picture => ({
  room: null,
  shelf: [],
  pinned: [],
  drops: {},
  stock: {},
  messages: [],
  unshown: 0,
  viewers: 0,
  reactions: {},
  cart: null,
  orders: {},
  entries: {},
  waiting: {},
  notice: null,
});

type Change = Partial<Picture>;
type Folds = { [Name in EventName]?: (now: Picture, data: Events[Name]) => Change };

const byId = <T extends { id: string }>(things: T[] = []): Record<string, T> =>
  Object.fromEntries(things.map((thing) => [thing.id, thing]));

/** The stock of drops, as a join's answer tells it. */
const stockOf = (drops: Drop[] = []): Record<string, Stock> =>
  Object.fromEntries(
    drops.flatMap(({ id, left, v }) =>
      left === undefined || v === undefined ? [] : [[id, { left, v }]],
    ),
  );

const without = (products: Product[], id: string) => products.filter((one) => one.id !== id);

const priced = (products: Product[], { sku, price_minor }: Events["price.changed"]) =>
  products.map((product) =>
    product.skus.some((one) => one.id === sku)
      ? {
          ...product,
          skus: product.skus.map((one) => (one.id === sku ? { ...one, price_minor } : one)),
        }
      : product,
  );

/** A room comes by reply and by event; an older one (`v`) is no news. */
export function withRoom(now: Picture, { room }: { room: RoomInfo }): Change {
  return now.room && room.v < now.room.v ? {} : { room };
}

const STEPS = { scheduled: 0, open: 1, closed: 2, cancelled: 2 };
const DROPS_MAX = 100;

/** A drop comes by reply and by event; what it was before is no news. */
export function withDrop(now: Picture, { drop }: { drop: Drop }): Change {
  const known = now.drops[drop.id];
  if (known && STEPS[drop.state] < STEPS[known.state]) return {};
  const drops = { ...now.drops, [drop.id]: drop };
  const [oldest] = Object.keys(drops);
  if (Object.keys(drops).length > DROPS_MAX && oldest) delete drops[oldest];
  return { drops };
}

export function withEntry(now: Picture, entry: Entry): Change {
  return { entries: { ...now.entries, [entry.drop]: { ...now.entries[entry.drop], ...entry } } };
}

/** A place on a waitlist comes by reply; one for nothing is no place. */
export function withWaiting(now: Picture, { sku, qty }: Wait): Change {
  const { [sku]: _before, ...waiting } = now.waiting;
  return { waiting: qty > 0 ? { ...waiting, [sku]: { sku, qty } } : waiting };
}

/** An order comes by reply and by event; a `placed` that arrives late is no news. */
export function withOrder(now: Picture, { order }: { order: Order }): Change {
  if (order.state === "placed" && now.orders[order.id]) return {};
  const orders = { ...now.orders, [order.id]: order };
  const [oldest] = Object.keys(orders);
  if (Object.keys(orders).length > ORDERS_MAX && oldest) delete orders[oldest];
  return { orders };
}

/**
 * A message in its place by `n`. One that comes late (its author's reply overtook it) was
 * counted as not shown, and is shown after all.
 */
export function withMessage(now: Picture, message: Message): Change {
  const { messages, unshown } = now;
  const last = messages.at(-1);
  if (!last || message.n > last.n) {
    const skipped = last ? message.n - last.n - 1 : 0;
    return { messages: [...messages, message].slice(-MESSAGES_MAX), unshown: unshown + skipped };
  }
  const place = messages.findIndex((one) => one.n >= message.n);
  if (place === 0 || messages[place]?.n === message.n) return {};
  return { messages: messages.toSpliced(place, 0, message), unshown: Math.max(0, unshown - 1) };
}

function withoutHold(now: Picture, { hold }: Events["hold.expired"]): Change {
  if (!now.cart) return {};
  const lines = now.cart.lines.filter((line) => line.sku !== hold.sku || line.drop !== hold.drop);
  const total_minor = lines.reduce((sum, line) => sum + line.qty * line.price_minor, 0);
  return { cart: { ...now.cart, lines, total_minor } };
}

const FOLDS: Folds = {
  "product.pinned": (now, { product }) => ({
    pinned: [...without(now.pinned, product.id), product],
  }),
  "product.unpinned": (now, { product }) => ({ pinned: without(now.pinned, product) }),
  "shelf.changed": (now, { shelf }) => ({
    shelf,
    pinned: now.pinned.map((pin) => shelf.find(({ id }) => id === pin.id) ?? pin),
  }),
  "price.changed": (now, data) => ({
    shelf: priced(now.shelf, data),
    pinned: priced(now.pinned, data),
  }),
  "drop.scheduled": withDrop,
  "drop.opened": withDrop,
  "drop.closed": withDrop,
  "drop.admitted": (now, { drop }) => withEntry(now, { drop: drop.id, admitted: true }),
  "message.posted": withMessage,
  "message.removed": (now, { message }) => ({
    messages: now.messages.filter((one) => one.id !== message),
  }),
  "message.highlighted": (now, { message }) => ({
    messages: now.messages.map((one) => (one.id === message.id ? message : one)),
  }),
  "room.opened": withRoom,
  "room.changed": withRoom,
  "room.closed": withRoom,
  "notice.posted": (_, { text }) => ({ notice: text }),
  "stock.changed": (now, { sku, drop, left, v }) => {
    const known = now.stock[drop ?? sku];
    return known && v <= known.v ? {} : { stock: { ...now.stock, [drop ?? sku]: { left, v } } };
  },
  "hold.expired": withoutHold,
  "waitlist.offered": (now, { sku }) => withWaiting(now, { sku, qty: 0 }),
  "order.placed": withOrder,
  "order.paid": withOrder,
  "order.expired": withOrder,
  "order.cancelled": withOrder,
  "order.refunded": withOrder,
};

/** Keeps one picture, and remembers which of its fields changed since they were last taken. */
export class PictureBook {
  now: Picture = emptyPicture();
  #changed = new Set<Field>();
  #v: { viewers?: number; reactions?: number } = {};

  /** The fields that changed since the last call. */
  takeChanged(): Set<Field> {
    const changed = this.#changed;
    this.#changed = new Set();
    return changed;
  }

  put(change: Change): void {
    for (const field of Object.keys(change) as Field[]) this.#changed.add(field);
    this.now = { ...this.now, ...change };
  }

  /** Take a snapshot: everything known before is forgotten. */
  replace(snapshot: Snapshot): void {
    const { room, shelf = [], pinned = [] } = snapshot;
    this.put({ ...emptyPicture(), room, shelf, pinned });
    this.takeNow(snapshot);
  }

  /** Take what a join answer tells of the things that are not replayed. */
  takeNow(now: Now): void {
    const known = new Set(this.now.messages.map((message) => message.id));
    const missed = (now.messages ?? []).filter((message) => !known.has(message.id));
    const messages = [...this.now.messages, ...missed].sort((a, b) => a.n - b.n);
    this.#v = {};
    this.put({
      stock: { ...this.now.stock, ...now.stock, ...stockOf(now.drops) },
      drops: byId(now.drops),
      orders: byId(now.orders),
      entries: Object.fromEntries((now.entries ?? []).map((entry) => [entry.drop, entry])),
      waiting: Object.fromEntries((now.waiting ?? []).map((one) => [one.sku, one])),
      viewers: now.viewers ?? this.now.viewers,
      reactions: now.reactions ?? {},
      cart: now.cart ?? null,
      messages: messages.slice(-MESSAGES_MAX),
    });
  }

  /** Fold one event in; an event that is not known changes nothing. */
  fold(event: RoomEvent): void {
    if (event.ev === "viewers.counted") {
      if (this.#newer("viewers", event.data.v)) this.put({ viewers: event.data.viewers });
    } else if (event.ev === "reactions.counted") {
      if (this.#newer("reactions", event.data.v)) this.put({ reactions: event.data.reactions });
    } else {
      const fold = FOLDS[event.ev] as ((now: Picture, data: unknown) => Change) | undefined;
      if (fold) this.put(fold(this.now, event.data));
    }
  }

  #newer(what: "viewers" | "reactions", v: number): boolean {
    if (v <= (this.#v[what] ?? -1)) return false;
    this.#v[what] = v;
    return true;
  }
}

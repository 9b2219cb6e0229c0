/** The shapes of the wire, v1. Times are server milliseconds, money is integer minor units. */

export interface Stream {
  kind: "hls" | "whep" | "youtube" | "twitch" | "owncast";
  url: string;
  delay_ms?: number;
}

export interface RoomInfo {
  id: string;
  title: string;
  host: string;
  state: "planned" | "live" | "closed";
  v: number;
  host_name?: string;
  /** The host's roles now: buyer, manager, clerk. */
  host_roles?: string[];
  shop?: string;
  stream?: Stream;
  opened_at?: number;
  closed_at?: number;
  paused?: boolean;
  guests?: boolean;
  members_only?: boolean;
  slow_mode_s?: number;
  chat_per_s_max?: number;
}

export interface Sku {
  id: string;
  price_minor: number;
  name?: string;
  limit_per_buyer?: number;
}

export interface Product {
  id: string;
  shop: string;
  title: string;
  currency: string;
  skus: Sku[];
  needs?: string[];
  picture?: string;
  position?: number;
  state?: "on" | "visible" | "off";
}

export interface Stock {
  left: number;
  v: number;
}

export interface Drop {
  id: string;
  sku: string;
  quantity: number;
  price_minor: number;
  opens_at: number;
  closes_at: number;
  state: "scheduled" | "open" | "closed" | "cancelled";
  limit_per_buyer?: number;
  admission?: "first" | "draw";
  /** Its stock, in a join's answer; later in `stock.changed`. */
  left?: number;
  v?: number;
  /** Of a draw: told before anybody enters; the seed and the entries' digest at the end. */
  seed_hash?: string;
  entries?: number;
  seed?: string;
  entries_digest?: string;
}

/** A member's own part in a draw; `admitted` is known once the drop has opened. */
export interface Entry {
  drop: string;
  admitted?: boolean;
}

/** A drop to be; `opens_in_ms` 0 opens it now. */
export interface NewDrop {
  sku: string;
  quantity: number;
  price_minor: number;
  opens_in_ms?: number;
  lasts_ms: number;
  limit_per_buyer?: number;
  admission?: "first" | "draw";
}

export interface Message {
  id: string;
  n: number;
  member: string;
  name: string;
  text: string;
  at: number;
}

export interface Hold {
  sku: string;
  qty: number;
  expires_at: number;
  drop?: string;
}

export interface CartLine extends Hold {
  price_minor: number;
  hold: string;
}

export interface Cart {
  lines: CartLine[];
  total_minor: number;
  currency?: string;
}

export interface OrderLine {
  sku: string;
  qty: number;
  price_minor: number;
  drop?: string;
}

export interface Refund {
  id: string;
  order: string;
  payment: string;
  state: "pending" | "succeeded" | "failed";
  amount_minor: number;
  currency: string;
  created_at: number;
  why?: string;
  lines?: { sku: string; qty: number; drop?: string; restock?: boolean }[];
}

export interface Order {
  id: string;
  state: "placed" | "closing" | "paid" | "expired" | "cancelled" | "refund_pending" | "refunded";
  room: string;
  lines: OrderLine[];
  total_minor: number;
  currency: string;
  placed_at: number;
  pay_by: number;
  refunds?: Refund[];
}

export interface Payment {
  id: string;
  order: string;
  provider: string;
  state: string;
  amount_minor: number;
  currency: string;
  client_secret?: string;
  url?: string;
}

export interface You {
  id: string;
  name: string;
  roles: string[];
}

/** A place on a SKU's waitlist: how many are ahead; a `qty` of 0 is no place. */
export interface Waiting {
  sku: string;
  qty: number;
  ahead: number;
}

/** Of what SKU this member waits for how many. */
export type Wait = Pick<Waiting, "sku" | "qty">;

/** What a line asks for; `price_minor` is the price the buyer saw. */
/** What brought the viewer here. */
export interface Source {
  kind: "note" | "share" | "search" | "follow";
  id?: string;
}

export interface LineRequest {
  sku: string;
  qty: number;
  drop?: string;
  price_minor?: number;
}

interface Nothing {
  [field: string]: never;
}

type Does<Data, Ok> = { data: Data; ok: Ok };

/** Every command: what is sent, and what its `ok` holds. */
export interface Commands {
  "token.renew": Does<{ token: string }, { you: You }>;
  "message.post": Does<{ text: string }, { message: Message }>;
  "message.remove": Does<{ message: string }, { message: { id: string } }>;
  "reaction.send": Does<{ kind: string; count: number }, Nothing>;
  "creator.follow": Does<{ creator: string }, { creator: { id: string } }>;
  "creator.unfollow": Does<{ creator: string }, { creator: { id: string } }>;
  "cart.add": Does<LineRequest & { source?: Source }, { cart: Cart }>;
  "cart.remove": Does<{ sku: string; drop?: string }, { cart: Cart }>;
  "cart.show": Does<Nothing, { cart: Cart }>;
  "waitlist.join": Does<{ sku: string; qty: number; source?: Source }, { waiting: Waiting }>;
  "waitlist.leave": Does<{ sku: string }, { waiting: Waiting }>;
  "cart.checkout": Does<{ order: string; coupon?: string }, { order: Order }>;
  "order.place": Does<
    { order: string; lines: LineRequest[]; coupon?: string; again?: boolean; source?: Source },
    { order: Order }
  >;
  "order.show": Does<{ order: string }, { order: Order }>;
  "order.cancel": Does<{ order: string }, { order: Order }>;
  "payment.start": Does<{ order: string; provider?: string }, { payment: Payment }>;
  "room.open": Does<Nothing, { room: RoomInfo }>;
  "room.close": Does<Nothing, { room: RoomInfo }>;
  "room.set": Does<Partial<RoomInfo>, { room: RoomInfo }>;
  "shelf.put": Does<
    { product: string; position?: number; state?: "on" | "visible" | "off" },
    { shelf: Product[] }
  >;
  "shelf.remove": Does<{ product: string }, { shelf: Product[] }>;
  "product.pin": Does<{ product: string }, { product: Product }>;
  "product.unpin": Does<{ product?: string }, { product?: Product }>;
  "price.set": Does<{ sku: string; price_minor: number }, { sku: Sku }>;
  "stock.adjust": Does<
    { sku: string; delta: number; why: string },
    { stock: Stock & { sku: string } }
  >;
  "stock.restock": Does<{ sku: string; qty: number }, { stock: Stock & { sku: string } }>;
  "drop.schedule": Does<NewDrop, { drop: Drop }>;
  "drop.close": Does<{ drop: string }, { drop: Drop }>;
  "drop.cancel": Does<{ drop: string }, { drop: Drop }>;
  "drop.enter": Does<{ drop: string }, { drop: Drop; entry: Entry }>;
  "sale.pause": Does<Nothing, { room: RoomInfo }>;
  "sale.resume": Does<Nothing, { room: RoomInfo }>;
  "notice.post": Does<{ text: string }, { notice: { text: string } }>;
}

type OrderEvents = Record<
  "order.placed" | "order.paid" | "order.expired" | "order.cancelled" | "order.refunded",
  { order: Order }
>;
type RoomEvents = Record<"room.opened" | "room.closed" | "room.changed", { room: RoomInfo }>;
type DropEvents = Record<
  "drop.scheduled" | "drop.opened" | "drop.closed" | "drop.admitted",
  { drop: Drop }
>;

/** Every event of a room, with its data. */
export interface Events extends OrderEvents, RoomEvents, DropEvents {
  "product.pinned": { product: Product };
  "product.unpinned": { product: string };
  "shelf.changed": { shelf: Product[] };
  "price.changed": { sku: string; price_minor: number };
  "message.posted": Message;
  "message.removed": { message: string };
  "message.highlighted": { message: Message };
  "notice.posted": { text: string };
  "stock.changed": { sku: string; drop?: string; left: number; v: number };
  "viewers.counted": { viewers: number; v: number };
  "reactions.counted": { reactions: Record<string, number>; v: number };
  "chat.sampled": { shown: number; posted: number };
  "waitlist.offered": { sku: string; qty: number; until: number };
  "hold.placed": { hold: Hold; why?: string };
  "hold.expired": { hold: Hold; why?: string };
}

export type EventName = keyof Events;

/** One event as it came: `seq` on logged events, `n` on messages, `at` in server time. */
export type RoomEvent<Name extends EventName = EventName> = {
  [Each in Name]: { ev: Each; at: number; seq?: number; n?: number; data: Events[Each] };
}[Name];

/** A place in a room's log; positions of different epochs do not compare. */
export interface Position {
  epoch: string;
  seq: number;
}

export interface Now {
  stock?: Record<string, Stock>;
  drops?: Drop[];
  viewers?: number;
  reactions?: Record<string, number>;
  cart?: Cart | null;
  orders?: Order[];
  entries?: Entry[];
  /** What this member waits for; left out where it is nothing. */
  waiting?: Wait[];
  messages?: Message[];
}

export interface Snapshot extends Now {
  room: RoomInfo;
  shelf?: Product[];
  pinned?: Product[];
}

export type Joined = Position & { you: You; time_ms: number; node: string } & (
    | { mode: "resumed"; events: RoomEvent[]; now: Now }
    | { mode: "snapshot"; snapshot: Snapshot }
  );

export interface WireError {
  code: string;
  message?: string;
  detail?: string;
  retry?: boolean;
  retry_after_ms?: number;
  data?: Record<string, unknown>;
}

export interface CommandFrame {
  id: number;
  cmd: string;
  data: object;
  key?: string;
}

export type ReplyFrame =
  | { re: number | null; ok: object }
  | { re: number | null; error: WireError };
export type ServerMessage = ReplyFrame | RoomEvent;

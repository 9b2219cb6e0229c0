/** The host's desk: who is at it, what was done last, and the sums that only a host may see. */
import { http, type LiveroomError, type Order, type Product } from "@liveroom/client";
import { computed, effect, type Signal, signal } from "@preact/signals";
import { Book, type Page } from "../live/book.ts";
import {
  type Live,
  liveRoom,
  onNoRoom,
  onToken,
  roomOfPath,
  tokenOfFragment,
} from "../live/live.ts";
import { takings } from "../live/orders.ts";
import { takeBack } from "../live/pins.ts";
import { toast } from "../parts/toasts.tsx";
import { errorWords, t } from "../words/language.ts";

const UNDO_MS = 5000;
const SUMS_EVERY_MS = 1500;
const SUMS_AT_ONCE = 4;
const ORDERS_EVERY_MS = 4000;

export const roomId = roomOfPath();
const KEPT = `liveroom.console.${roomId}`;

const given = tokenOfFragment();
if (given) sessionStorage.setItem(KEPT, given);

export const token = signal(sessionStorage.getItem(KEPT));
export const api = http("", () => token.value);
/** Why the desk was left: the words for the sign-in form. */
export const turnedAway = signal<string | null>(null);
/** The room, once somebody with a token sits down. */
export const desk: Signal<Live | null> = signal(null);

export function sitDown(value: string): void {
  sessionStorage.setItem(KEPT, value);
  token.value = value;
  turnedAway.value = null;
  const before = desk.value;
  const live = liveRoom(roomId, value);
  desk.value = live;
  before?.room.close();
  onNoRoom(live.room, () => leave(t("state.gone")));
  live.room.on("joined", () => {
    const roles = live.room.you?.roles ?? [];
    if (!roles.includes("admin") && !roles.includes(`host:${roomId}`)) leave(t("host.notHost"));
  });
  live.room.on("status", (status) => {
    if (desk.value === live && status === "closed" && live.room.why)
      leave(errorWords(live.room.why));
  });
}

function leave(why: string): void {
  sessionStorage.removeItem(KEPT);
  const live = desk.value;
  desk.value = null;
  turnedAway.value = why;
  live?.room.close();
}

// ── doing, and taking back ──

type Act = () => Promise<void> | void;

interface Done {
  undo: Act;
  until: number;
}

let last: Done | null = null;

/** Say what was done; for five seconds it can be taken back by the toast or by Z. */
function did(text: string, undo: Act): void {
  const done: Done = { undo: () => {}, until: Date.now() + UNDO_MS };
  const end = toast(text, () => {
    end();
    inTurn(done.undo);
  });
  done.undo = () => {
    end();
    if (last === done) last = null;
    return undo();
  };
  last = done;
}

/** Whether a key is meant for a field, a dialog or the browser: the desk's keys leave it alone. */
export function isForField(event: KeyboardEvent): boolean {
  const { target } = event;
  const typing = target instanceof Element && target.closest("input, select, textarea, dialog");
  return Boolean(typing || event.ctrlKey || event.metaKey || event.altKey || event.repeat);
}

/** Keys, and undoing, act one after another: each decides by what the one before brought about. */
let queue: Promise<void> = Promise.resolve();

export function inTurn(act: Act): void {
  queue = queue.then(act);
}

export function undoLast(): Promise<void> | void {
  if (last && last.until > Date.now()) return last.undo();
}

const say = (error: LiveroomError) =>
  toast(errorWords(error, { left: String(error.data.left ?? 0) }));

/** Do it, and say so where it fails. */
export const tryTo = (act: Promise<unknown>): Promise<void> =>
  act.then(
    () => {},
    (error) => {
      say(error);
    },
  );

const pinsOf = (live: Live) => live.$pinned.value.map((product) => product.id);

/** Make the pins again what they were `before`; `mine` is what was pinned since. */
async function takeBackPins(live: Live, before: string[], mine: string | null): Promise<void> {
  const steps = takeBack(pinsOf(live), before, mine);
  for (const product of steps.unpin) await live.room.send("product.unpin", { product });
  for (const product of steps.pin) await live.room.send("product.pin", { product });
}

export async function pin(live: Live, product: Product): Promise<void> {
  const before = pinsOf(live);
  await live.room.send("product.pin", { product: product.id });
  const undo = () => tryTo(takeBackPins(live, before, product.id));
  did(t("host.pinned", { title: product.title }), undo);
}

export async function unpin(live: Live, products: Product[]): Promise<void> {
  const before = pinsOf(live);
  for (const { id } of products) await live.room.send("product.unpin", { product: id });
  if (products.length) did(t("host.unpinned"), () => tryTo(takeBackPins(live, before, null)));
}

export async function pause(live: Live, paused: boolean): Promise<void> {
  await live.room.send(paused ? "sale.pause" : "sale.resume", {});
  did(t(paused ? "host.paused" : "host.resumed"), () =>
    tryTo(live.room.send(paused ? "sale.resume" : "sale.pause", {})),
  );
}

/** Comments that are about to be removed: gone from the desk at once, from the room in 5 s. */
export const leaving = signal<ReadonlySet<string>>(new Set());

export function removeComment(live: Live, message: string): void {
  const stays = () => {
    leaving.value = new Set([...leaving.value].filter((one) => one !== message));
  };
  const go = () => {
    clearTimeout(timer);
    removeEventListener("pagehide", go);
    live.room.send("message.remove", { message }).catch((error) => {
      stays();
      if (error.code !== "not_found") say(error);
    });
  };
  leaving.value = new Set([...leaving.value, message]);
  const timer = setTimeout(go, UNDO_MS);
  addEventListener("pagehide", go);
  did(t("host.removed"), () => {
    clearTimeout(timer);
    removeEventListener("pagehide", go);
    stays();
  });
}

// ── sums ──

export interface Sums {
  total: number;
  sold: number;
}

interface Ledger {
  pools: { initial: number; adjusted: number; sold: number }[];
}

/** Total and sold of each SKU, as its ledger has them; missing where the host may not see. */
export const sums = signal<Record<string, Sums>>({});

/** Sold, held and left of SKUs: what is neither sold nor on sale is held. */
export function threeParts(live: Live, skus: string[]): Sums & { held: number; left: number } {
  const parts = { total: 0, sold: 0, held: 0, left: 0 };
  for (const sku of skus) {
    const left = live.$stock.value[sku]?.left ?? 0;
    const { total, sold } = sums.value[sku] ?? { total: left, sold: 0 };
    parts.left += left;
    parts.sold += sold;
    parts.held += Math.max(0, total - sold - left);
    parts.total += Math.max(total, sold + left);
  }
  return parts;
}

/** SKUs of orders that changed: what is held becomes sold while what is left stays as it was. */
const moved = new Set<string>();

function keepSums(live: Live): () => void {
  const asked = new Map<string, number>();
  const notOurs = new Set<string>();
  const stale = () =>
    Object.entries(live.$stock.value)
      // The stock of a drop stands beside that of the SKUs, and is in its SKU's ledger.
      .filter(([id, { v }]) => !live.$drops.value[id] && (moved.has(id) || asked.get(id) !== v))
      .filter(([id]) => !notOurs.has(id))
      .slice(0, SUMS_AT_ONCE);
  const read = async (sku: string, v: number) => {
    asked.set(sku, v);
    moved.delete(sku);
    const ledger = await api.get<Ledger>(`/v1/skus/${encodeURIComponent(sku)}/ledger?limit=1`);
    const add = (of: (pool: Ledger["pools"][number]) => number) =>
      ledger.pools.reduce((sum, pool) => sum + of(pool), 0);
    const total = add((pool) => pool.initial + pool.adjusted);
    sums.value = { ...sums.value, [sku]: { total, sold: add((pool) => pool.sold) } };
  };
  const timer = setInterval(() => {
    if (document.hidden) return;
    for (const [sku, { v }] of stale()) {
      read(sku, v).catch((error: LiveroomError) => {
        if (error.retry) asked.delete(sku);
        else notOurs.add(sku);
      });
    }
  }, SUMS_EVERY_MS);
  return () => clearInterval(timer);
}

/** The room's orders by id, as far as this host may see them. */
export const orders = signal<Record<string, Order>>({});
export const taken = computed(() => takings(Object.values(orders.value)));

function keepOrders(): () => void {
  orders.value = {};
  let reading = false;
  const page = (after: string | null) => {
    const query = new URLSearchParams({ room: roomId, limit: "100", ...(after ? { after } : {}) });
    return api.get<Page>(`/v1/orders?${query}`);
  };
  const book = new Book(page, (changed) => {
    orders.value = book.orders;
    for (const line of changed.flatMap((order) => order.lines)) moved.add(line.sku);
  });
  const timer = setInterval(() => {
    if (reading || document.hidden) return;
    reading = true;
    book
      .read()
      .catch((error: LiveroomError) => {
        if (!error.retry) clearInterval(timer);
      })
      .finally(() => {
        reading = false;
      });
  }, ORDERS_EVERY_MS);
  return () => clearInterval(timer);
}

effect(() => {
  const live = desk.value;
  if (!live) return;
  const ends = [keepSums(live), keepOrders()];
  return () => {
    for (const end of ends) end();
  };
});

onToken(sitDown);
if (token.value) sitDown(token.value);

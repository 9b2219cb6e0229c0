/** What this page is doing: the room, who is watching it, and which sheet is open. */
import {
  type Cart,
  ConnectionLost,
  LiveroomError,
  type Order,
  type Product,
} from "@liveroom/client";
import { computed, effect, signal } from "@preact/signals";
import { Goods, nameOf } from "../live/goods.ts";
import { Once } from "../live/once.ts";
import { toast } from "../parts/toasts.tsx";
import { clock, errorWords, money, t } from "../words/language.ts";
import { buyer, endSeat, show, signedIn, takeKept } from "./seat.ts";

export { show };

const FOLLOWED = "liveroom.followed";

export type Tab = "shelf" | "cart" | "orders";
export type Sheet =
  | { kind: "bag"; tab: Tab }
  | { kind: "product"; id: string; sku?: string; qty?: number }
  | { kind: "order"; id: string }
  | { kind: "sign-in"; then: () => void; back: Sheet | null };

export const sheet = signal<Sheet | null>(null);
/** The bag's tab where the bag always stands (wide screens). */
export const tab = signal<Tab>("shelf");

const widely = matchMedia("(min-width: 900px)");
export const wide = signal(widely.matches);
widely.onchange = () => {
  wide.value = widely.matches;
};

export const onAir = computed(() => show.$pinned.value.at(-1));
export const open = computed(() => show.status.value === "open");
export const selling = computed(() => {
  const room = show.$room.value;
  return room?.state === "live" && !room.paused;
});
export const inBag = computed(
  () => show.$cart.value?.lines.reduce((sum, line) => sum + line.qty, 0) ?? 0,
);
export const orders = computed(() =>
  Object.values(show.$orders.value).sort((a, b) => b.placed_at - a.placed_at),
);

// A token that has ended must not lock its owner out: the show goes on as a guest. Who is one
// already sits before a room for members only, and coming back would change nothing.
show.room.on("status", (status) => {
  const code = status === "closed" ? show.room.why?.code : null;
  if (code !== "token_expired" && code !== "unauthenticated") return;
  if (!signedIn.value) return;
  endSeat();
  toast(t("you.ended"));
});

show.room.on("hold.expired", ({ data }) => {
  toast(t("bag.gone", { title: titleOf(data.hold.sku) }));
});

show.room.on("drop.admitted", () => toast(t("drop.won")));

show.room.on("hold.placed", ({ data }) => {
  const lines = show.$cart.value?.lines ?? [];
  const known = lines.some((line) => line.sku === data.hold.sku && line.qty === data.hold.qty);
  // Added on another device of the same member: the event does not tell the price.
  if (!known) readCart();
});

/** Ask for the cart; where the connection breaks meanwhile, the next join tells it. */
export function readCart(): void {
  void show.room.send("cart.show", {}).catch(() => {});
}

const holdsAny = (skus: string[]) =>
  show.$cart.value?.lines.some((line) => skus.includes(line.sku)) ?? false;

// Ordered at another tab or device: its lines are in this cart no more.
show.room.on("order.placed", ({ data }) => {
  if (holdsAny(data.order.lines.map((line) => line.sku))) readCart();
});

// A line that was removed elsewhere is told to nobody else: looked at when somebody looks here.
addEventListener("focus", () => {
  if (open.value && show.$cart.value?.lines.length) readCart();
});

/** Wait for units that come back; what is offered comes as a hold in the cart. */
export async function waitFor(sku: string, qty: number): Promise<void> {
  const { waiting } = await show.room.send("waitlist.join", { sku, qty });
  toast(t("buy.waiting", { n: waiting.ahead }));
}

export async function waitNoMore(sku: string): Promise<void> {
  await show.room.send("waitlist.leave", { sku });
}

show.room.on("waitlist.offered", ({ data }) => {
  const time = clock(data.until - show.room.now());
  toast(t("bag.offered", { n: data.qty, title: titleOf(data.sku), time }));
  // An offer runs out: where nothing else is being done, the cart with its timer is shown.
  if (wide.value) tab.value = "cart";
  else if (!sheet.value || sheet.value.kind === "product") {
    sheet.value = { kind: "bag", tab: "cart" };
  }
});

const goods = new Goods();
effect(() => goods.see([...show.$pinned.value, ...show.$shelf.value]));

/** The product of a SKU, as it is or as it was when it could last be seen. */
export const productOf = (sku: string): Product | undefined =>
  show.$shelf.value.find((one) => one.skus.some((each) => each.id === sku)) ?? goods.of(sku);

/** What a SKU is called. */
export function titleOf(sku: string): string {
  const product = productOf(sku);
  return product ? nameOf(product, sku) : t("bag.offshelf");
}

/** The words for a refusal, with the price in force where that is what changed. */
export function refusal(error: unknown): string {
  const { price_minor, sku } = (error instanceof LiveroomError ? error.data : {}) as {
    price_minor?: number;
    sku?: string;
  };
  return errorWords(error, {
    price: price_minor === undefined ? "" : money(price_minor, productOf(sku ?? "")?.currency),
  });
}

// Who signs in at one tab is not asked at the next one; what was about to be done waits for a tap.
addEventListener("storage", () => {
  if (takeKept() && sheet.value?.kind === "sign-in") sheet.value = sheet.value.back;
});

/** Do something that needs a member; a guest is asked for a name first, and is then `back`. */
export function asMember(act: () => void, back: Sheet | null = null): void {
  if (signedIn.value || takeKept()) act();
  else sheet.value = { kind: "sign-in", then: act, back };
}

const once = new Once();

/**
 * Place an order under an id of ours. Pressed again after no answer, or one that says "try
 * again", it is the same order: it may have been placed, and is not placed twice.
 */
function place(what: string, act: (order: string) => Promise<{ order: Order }>): Promise<Order> {
  const ended = (id: string) => (show.$orders.value[id]?.state ?? "placed") !== "placed";
  return once.do(`${buyer()} ${what}`, async (id) => (await act(id)).order, ended);
}

/** Buy now. */
export function buyNow(
  sku: string,
  qty: number,
  price_minor: number,
  drop?: string,
): Promise<Order> {
  const line = { sku, qty, price_minor, ...(drop && { drop }) };
  return place(JSON.stringify(line), (order) =>
    show.room.send("order.place", { order, lines: [line] }),
  );
}

/** Order what the cart holds. */
export function checkOut(cart: Cart): Promise<Order> {
  const held = cart.lines.map(({ hold, qty }) => [hold, qty]);
  return place(JSON.stringify(held), (order) => show.room.send("cart.checkout", { order }));
}

export async function addToCart(sku: string, qty: number, price_minor: number): Promise<void> {
  const { cart } = await show.room.send("cart.add", { sku, qty, price_minor });
  const line = cart.lines.find((one) => one.sku === sku);
  if (line) toast(t("buy.added", { time: clock(line.expires_at - show.room.now()) }));
}

export const followed = signal(localStorage.getItem(FOLLOWED)?.split(" ") ?? []);

export function follow(creator: string): void {
  asMember(() => {
    show.room.send("creator.follow", { creator }).then(
      () => {
        followed.value = [...new Set([...followed.value, creator])];
        localStorage.setItem(FOLLOWED, followed.value.join(" "));
      },
      (error) => toast(refusal(error)),
    );
  });
}

const HOLD = "liveroom.hold_ms";
let longestHold = Number(localStorage.getItem(HOLD)) || 0;

/** How much of a hold is still to run, 0 to 1: a hold's length is the longest ever seen. */
export function holdPart(leftMs: number): number {
  if (leftMs > longestHold) {
    longestHold = leftMs;
    localStorage.setItem(HOLD, String(Math.round(leftMs)));
  }
  return longestHold ? leftMs / longestHold : 0;
}

/** Whether a failure is worth saying: a broken connection says so by itself. */
export const worthSaying = (error: unknown): boolean => !(error instanceof ConnectionLost);

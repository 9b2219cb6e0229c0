/** How orders are paid here: with the sandbox's buttons, or where a provider's page is. */
import type { Order } from "@liveroom/client";
import { computed, signal } from "@preact/signals";
import { api } from "./seat.ts";
import { show } from "./show.ts";

const SANDBOX = "sandbox";

/** The server's providers, its default one first; `null` until they are known. */
const providers = signal<string[] | null>(null);
let asking = false;

/** Ask how orders are paid here, unless that is known. */
export function readProviders(): void {
  if (asking || providers.value) return;
  asking = true;
  api
    .get<{ items: string[] }>("/v1/payments/providers")
    .then(({ items }) => {
      providers.value = items;
    })
    .catch(() => {}) // Nobody waits for it yet: whoever opens a sheet asks again.
    .finally(() => {
      asking = false;
    });
}

/** How one pays, and becomes a buyer: `null` while it is not known. */
export const till = computed<"sandbox" | "provider" | "none" | null>(() => {
  const known = providers.value;
  if (!known) return null;
  // Where the sandbox is on, nothing costs money, whatever else is set up.
  return known.includes(SANDBOX) ? "sandbox" : known.length ? "provider" : "none";
});

/** Pay in the sandbox, or have the card declined; resolves once the server has said so. */
export async function pay(order: Order, button: "succeed" | "fail"): Promise<boolean> {
  const asked = { order: order.id, provider: SANDBOX };
  const { payment } = await show.room.send("payment.start", asked);
  await api.post(`/v1/sandbox/payments/${payment.id}/${button}`);
  const { order: after } = await show.room.send("order.show", { order: order.id });
  return after.state === "paid";
}

/** Go where the provider takes the money; false where it has no page of its own. */
export async function goPay(order: Order): Promise<boolean> {
  const { payment } = await show.room.send("payment.start", { order: order.id });
  if (!payment.url) return false;
  location.assign(payment.url);
  return true;
}

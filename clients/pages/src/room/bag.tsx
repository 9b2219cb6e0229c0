/** The bag: the shelf, the cart with what is held, and the orders. */
import type { CartLine, LiveroomError, Order } from "@liveroom/client";
import { useState } from "preact/hooks";
import { backInPart } from "../live/orders.ts";
import { Tick, Timer } from "../parts/figures.tsx";
import { Picture } from "../parts/picture.tsx";
import { toast } from "../parts/toasts.tsx";
import { clock, money, t } from "../words/language.ts";
import { BuyButton, Left, look, Price } from "./pins.tsx";
import {
  checkOut,
  holdPart,
  inBag,
  open,
  orders,
  productOf,
  readCart,
  refusal,
  sheet,
  show,
  type Tab,
  tab,
  titleOf,
  wide,
} from "./show.ts";

const TABS: Tab[] = ["shelf", "cart", "orders"];

export function showTab(next: Tab): void {
  if (wide.value) tab.value = next;
  else sheet.value = { kind: "bag", tab: next };
}

function Tabs({ now }: { now: Tab }) {
  const count = { shelf: 0, cart: inBag.value, orders: toBePaid() };
  const turn = (event: KeyboardEvent) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const next = TABS[(TABS.indexOf(now) + step + TABS.length) % TABS.length] as Tab;
    showTab(next);
    document.getElementById(`tab-${next}`)?.focus();
  };
  return (
    <div class="tabs" role="tablist" onKeyDown={turn}>
      {TABS.map((one) => (
        <button
          type="button"
          role="tab"
          key={one}
          id={`tab-${one}`}
          aria-selected={one === now}
          tabIndex={one === now ? 0 : -1}
          onClick={() => showTab(one)}
        >
          {t(`bag.${one}`)}
          {count[one] > 0 && <span class="count num">{count[one]}</span>}
        </button>
      ))}
    </div>
  );
}

const toBePaid = () => orders.value.filter((order) => order.state === "placed").length;

function Shelf() {
  const shelf = show.$shelf.value;
  const pinned = new Set(show.$pinned.value.map((product) => product.id));
  if (!shelf.length) return <p class="quiet">{t("bag.shelf.empty")}</p>;
  return (
    <ul class="rows">
      {shelf.map((product) => (
        <li key={product.id} class="row">
          <button
            type="button"
            class="face-of"
            onClick={() => look(product)}
            tabIndex={-1}
            aria-hidden="true"
          >
            <Picture product={product} />
          </button>
          <div class="what">
            {pinned.has(product.id) && <span class="live-tag quiet-tag">{t("buy.pinned")}</span>}
            <h3>{product.title}</h3>
            <Price product={product} />
            <Left product={product} />
          </div>
          <BuyButton product={product} />
        </li>
      ))}
    </ul>
  );
}

function CartRow({ line, currency }: { line: CartLine; currency: string | undefined }) {
  const left = line.expires_at - show.now.value;
  const remove = () => {
    const { sku, drop } = line;
    show.room
      .send("cart.remove", drop ? { sku, drop } : { sku })
      .catch((error) => toast(refusal(error)));
  };
  return (
    <li class="row">
      <Picture product={productOf(line.sku) ?? { id: line.sku }} />
      <div class="what">
        <h3>{titleOf(line.sku)}</h3>
        <span class="num">
          {money(line.price_minor, currency)} × {line.qty}
        </span>
        <Timer part={holdPart(left)} />
        <span class="note num">{t("bag.held", { time: clock(left) })}</span>
      </div>
      <button type="button" class="link" onClick={remove}>
        {t("bag.remove")}
      </button>
    </li>
  );
}

function Cart() {
  const cart = show.$cart.value;
  const [busy, setBusy] = useState(false);
  if (!cart?.lines.length) return <p class="quiet">{t("bag.cart.empty")}</p>;
  const checkout = async () => {
    setBusy(true);
    try {
      const order = await checkOut(cart);
      sheet.value = { kind: "order", id: order.id };
      await show.room.send("cart.show", {});
    } catch (error) {
      toast(refusal(error));
      if ((error as LiveroomError).code === "hold_expired") readCart();
    } finally {
      setBusy(false);
    }
  };
  return (
    <>
      <ul class="rows">
        {cart.lines.map((line) => (
          <CartRow key={line.hold} line={line} currency={cart.currency} />
        ))}
      </ul>
      <div class="foot">
        <button
          type="button"
          class="button buy wide"
          disabled={busy || !open.value}
          onClick={checkout}
        >
          {t("bag.checkout", { price: money(cart.total_minor, cart.currency) })}
        </button>
      </div>
    </>
  );
}

function OrderRow({ order }: { order: Order }) {
  const [first] = order.lines;
  const due = order.state === "placed";
  const left = order.pay_by - show.now.value;
  const back = backInPart(order);
  return (
    <li>
      <button
        type="button"
        class="row order"
        onClick={() => {
          sheet.value = { kind: "order", id: order.id };
        }}
      >
        <Picture product={productOf(first?.sku ?? "") ?? { id: order.id }} />
        <span class="what">
          <span class="name">{order.lines.map((line) => titleOf(line.sku)).join(", ")}</span>
          <span class="num">{money(order.total_minor, order.currency)}</span>
          {due && <span class="note num">{t("order.payby", { time: clock(left) })}</span>}
          {back > 0 && (
            <span class="note num">{t("order.back", { price: money(back, order.currency) })}</span>
          )}
        </span>
        <span class={`state ${order.state}`}>
          <Tick>{t(`order.${order.state}`)}</Tick>
        </span>
      </button>
    </li>
  );
}

function Orders() {
  if (!orders.value.length) return <p class="quiet">{t("bag.orders.empty")}</p>;
  return (
    <ul class="rows">
      {orders.value.map((order) => (
        <OrderRow key={order.id} order={order} />
      ))}
    </ul>
  );
}

export function Bag({ now }: { now: Tab }) {
  return (
    <div class="bag">
      <Tabs now={now} />
      <div class="page" role="tabpanel" aria-labelledby={`tab-${now}`} key={now}>
        {now === "shelf" ? <Shelf /> : now === "cart" ? <Cart /> : <Orders />}
      </div>
    </div>
  );
}

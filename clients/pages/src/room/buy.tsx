/** Buying in two taps: choose, then confirm the price. */
import type { Product, Sku } from "@liveroom/client";
import { useState } from "preact/hooks";
import { Tick } from "../parts/figures.tsx";
import { Picture } from "../parts/picture.tsx";
import { toast } from "../parts/toasts.tsx";
import { money, t } from "../words/language.ts";
import { Left, leftWords } from "./pins.tsx";
import {
  addToCart,
  asMember,
  buyNow,
  open,
  refusal,
  type Sheet,
  selling,
  sheet,
  show,
  waitFor,
  waitNoMore,
} from "./show.ts";

const QTY_MAX = 20;

const leftOfSku = (sku: Sku): number => show.$stock.value[sku.id]?.left ?? 0;

function Choice({
  product,
  now,
  choose,
}: {
  product: Product;
  now: Sku;
  choose: (sku: Sku) => void;
}) {
  if (product.skus.length < 2) return null;
  return (
    <fieldset class="choice">
      <legend>{t("buy.choose")}</legend>
      {product.skus.map((sku) => (
        <label key={sku.id} class={leftOfSku(sku) ? "" : "gone"}>
          <input
            type="radio"
            name="sku"
            checked={sku.id === now.id}
            onChange={() => choose(sku)}
            class="unseen"
          />
          <span>
            {sku.name ?? sku.id}
            <small class="num">{leftWords(leftOfSku(sku))}</small>
          </span>
        </label>
      ))}
    </fieldset>
  );
}

function Quantity({ qty, max, set }: { qty: number; max: number; set: (qty: number) => void }) {
  return (
    <div class="quantity">
      <span id="qty">{t("buy.qty")}</span>
      <div role="group" aria-labelledby="qty">
        <button
          type="button"
          disabled={qty <= 1}
          onClick={() => set(qty - 1)}
          aria-label={t("buy.less")}
        >
          −
        </button>
        <output class="num">{qty}</output>
        <button
          type="button"
          disabled={qty >= max}
          onClick={() => set(qty + 1)}
          aria-label={t("buy.more")}
        >
          +
        </button>
      </div>
    </div>
  );
}

type Shown = Omit<Extract<Sheet, { kind: "product" }>, "kind">;

/** `first` is the SKU that is chosen to begin with, `number` how many of it. */
export function Buy({ id, sku: first, qty: number = 1 }: Shown) {
  const product = [...show.$shelf.value, ...show.$pinned.value].find((one) => one.id === id);
  const [chosen, choose] = useState(first);
  const [wanted, want] = useState(number);
  const [busy, setBusy] = useState(false);
  const sku =
    product?.skus.find((one) => one.id === chosen) ??
    product?.skus.find((one) => leftOfSku(one) > 0) ??
    product?.skus[0];
  if (!product || !sku) return <p class="quiet">{t("bag.shelf.empty")}</p>;

  const left = leftOfSku(sku);
  const most = left || QTY_MAX; // of what is sold out one may wait for any number
  const max = Math.max(1, Math.min(most, sku.limit_per_buyer ?? QTY_MAX, QTY_MAX));
  const qty = Math.min(wanted, max);
  const price = money(sku.price_minor * qty, product.currency);
  const gone = left === 0;
  const stopped = busy || !open.value || !selling.value || product.state === "visible";
  const waits = show.$waiting.value[sku.id] !== undefined;

  // The price and the quantity are those on the button that was pressed, also after signing in.
  const act = (what: () => Promise<void>) =>
    asMember(
      async () => {
        setBusy(true);
        try {
          await what();
        } catch (error) {
          toast(refusal(error));
        } finally {
          setBusy(false);
        }
      },
      { kind: "product", id, sku: sku.id, qty },
    );
  const buy = () =>
    act(async () => {
      const order = await buyNow(sku.id, qty, sku.price_minor);
      sheet.value = { kind: "order", id: order.id };
    });
  const keep = () =>
    act(async () => {
      const mine = sheet.value;
      await addToCart(sku.id, qty, sku.price_minor);
      if (sheet.value === mine) sheet.value = null; // another opened meanwhile stays
    });

  const wait = () => act(() => (waits ? waitNoMore(sku.id) : waitFor(sku.id, qty)));

  return (
    <div class="buy-sheet">
      <div class="head">
        <Picture product={product} />
        <div class="what">
          <h2 id="sheet-title">{product.title}</h2>
          <span class="price big num">
            <Tick>{money(sku.price_minor, product.currency)}</Tick>
          </span>
          <Left product={product} />
        </div>
      </div>
      <Choice product={product} now={sku} choose={(one) => choose(one.id)} />
      {!waits && <Quantity qty={qty} max={max} set={want} />}
      {sku.limit_per_buyer && <p class="note">{t("buy.limit", { n: sku.limit_per_buyer })}</p>}
      {gone && selling.value && open.value ? (
        <div class="foot">
          <button
            type="button"
            class={`button wide ${waits ? "" : "buy"}`}
            disabled={stopped}
            aria-pressed={waits}
            onClick={wait}
          >
            {t(waits ? "buy.leave" : "buy.join")}
          </button>
        </div>
      ) : (
        <div class="foot two">
          <button type="button" class="button" disabled={gone || stopped} onClick={keep}>
            {t("buy.add")}
          </button>
          <button type="button" class="button buy" disabled={gone || stopped} onClick={buy}>
            {gone
              ? t("buy.soldout")
              : show.$room.value?.paused
                ? t("room.paused")
                : open.value
                  ? t("buy.now", { price })
                  : t("state.reconnecting")}
          </button>
        </div>
      )}
    </div>
  );
}

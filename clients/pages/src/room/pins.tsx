/** What is on air: the newest pin as a card, the others as small ones beside it. */
import type { Product } from "@liveroom/client";
import { leftOf, partLeft, priceOf } from "../live/stock.ts";
import { Bar, Tick } from "../parts/figures.tsx";
import { Picture } from "../parts/picture.tsx";
import { money, t } from "../words/language.ts";
import { open, selling, sheet, show } from "./show.ts";

const FEW = 5;

export const look = (product: Product): void => {
  sheet.value = { kind: "product", id: product.id };
};

/** What is left, in words: never a number that may be old. */
export function leftWords(left: number | null): string {
  if (left === null) return "";
  if (left === 0) return t("buy.soldout");
  return t(left <= FEW ? "buy.last" : "buy.left", { n: left });
}

/** The one button of a product: what it says is what is true now. */
export function BuyButton({ product }: { product: Product }) {
  const left = leftOf(product, show.$stock.value);
  const room = show.$room.value;
  const may = selling.value && open.value && left !== 0 && product.state !== "visible";
  const words = !open.value
    ? t("state.reconnecting")
    : left === 0 && !room?.paused
      ? t(selling.value ? "buy.wait" : "buy.soldout")
      : room?.paused
        ? t("room.paused")
        : may
          ? t("buy.buy")
          : t("buy.look");
  const stopped = (left === 0 && !selling.value) || room?.paused || !open.value;
  const paused = open.value && room?.paused;
  return (
    <button
      type="button"
      class={`button ${may ? "buy" : ""}`}
      disabled={Boolean(stopped)}
      onClick={() => look(product)}
      aria-label={`${words}: ${product.title}`}
    >
      {paused ? t("room.pausedShort") : words}
    </button>
  );
}

export function Price({ product }: { product: Product }) {
  const { minor, from } = priceOf(product);
  const price = money(minor, product.currency);
  return (
    <span class="price num">
      <Tick>{from ? t("buy.from", { price }) : price}</Tick>
    </span>
  );
}

export function Left({ product }: { product: Product }) {
  const left = leftOf(product, show.$stock.value);
  if (left === null) return null;
  return (
    <div class={`stock ${open.value ? "" : "stale"}`}>
      <Bar left={partLeft(product, left)} few={left <= FEW} />
      <span class={`num ${left <= FEW ? "few" : ""}`}>{leftWords(left)}</span>
    </div>
  );
}

function Card({ product }: { product: Product }) {
  return (
    <article class="pin" aria-label={t("buy.pinned")}>
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
        <h2>{product.title}</h2>
        <Price product={product} />
        <Left product={product} />
      </div>
      <BuyButton product={product} />
    </article>
  );
}

export function Pins() {
  const pinned = show.$pinned.value;
  const newest = pinned.at(-1);
  if (!newest) return null;
  return (
    <div class="pins">
      {pinned.length > 1 && (
        <ul class="others">
          {pinned.slice(0, -1).map((product) => (
            <li key={product.id}>
              <button type="button" class="other" onClick={() => look(product)}>
                <Picture product={product} />
                <span>
                  <span class="name">{product.title}</span>
                  <Price product={product} />
                </span>
              </button>
            </li>
          ))}
        </ul>
      )}
      <Card key={newest.id} product={newest} />
    </div>
  );
}

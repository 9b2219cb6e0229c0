/** The host's shelf: a key and a button to pin, and stock in three parts. */
import type { Product, Sku } from "@liveroom/client";
import { useState } from "preact/hooks";
import type { Live } from "../live/live.ts";
import { priceOf } from "../live/stock.ts";
import { Bar, Tick } from "../parts/figures.tsx";
import { PinMark } from "../parts/marks.tsx";
import { Picture } from "../parts/picture.tsx";
import { toast } from "../parts/toasts.tsx";
import { digitsOf, money, t } from "../words/language.ts";
import { pin, threeParts, tryTo, unpin } from "./desk.ts";

function Stock({ live, skus }: { live: Live; skus: string[] }) {
  const { total, sold, held, left } = threeParts(live, skus);
  const whole = Math.max(1, total);
  return (
    <div class="three" title={t("host.stock", { sold, held, left })}>
      <Bar sold={sold / whole} held={held / whole} left={left / whole} />
      <span class={`num ${left === 0 ? "out" : ""}`}>
        <Tick>{left === 0 ? t("buy.soldout") : t("host.left", { n: left })}</Tick>
        {(sold > 0 || held > 0) && <small>{t("host.soldHeld", { sold, held })}</small>}
      </span>
    </div>
  );
}

function SkuRow({ live, product, sku }: { live: Live; product: Product; sku: Sku }) {
  const title =
    product.skus.length > 1 ? `${product.title} · ${sku.name ?? sku.id}` : product.title;
  const whole = 10 ** digitsOf(product.currency);
  const restock = (event: SubmitEvent) => {
    event.preventDefault();
    const form = event.currentTarget as HTMLFormElement;
    const qty = Number(new FormData(form).get("qty"));
    const counted =
      qty > 0
        ? live.room.send("stock.restock", { sku: sku.id, qty })
        : live.room.send("stock.adjust", { sku: sku.id, delta: qty, why: "console" });
    tryTo(
      counted.then(() => {
        form.reset();
        toast(t(qty > 0 ? "host.restocked" : "host.taken", { n: Math.abs(qty), title }));
      }),
    );
  };
  const setPrice = (event: SubmitEvent) => {
    event.preventDefault();
    const price = Number(new FormData(event.currentTarget as HTMLFormElement).get("price"));
    const price_minor = Math.round(price * whole);
    tryTo(live.room.send("price.set", { sku: sku.id, price_minor }));
  };
  return (
    <li class="sku">
      <div class="sku-name">
        <b>{sku.name ?? t("host.price")}</b>
        <Stock live={live} skus={[sku.id]} />
      </div>
      <form onSubmit={setPrice}>
        <input
          key={sku.price_minor}
          class="field num"
          name="price"
          type="number"
          min={1 / whole}
          step={1 / whole}
          required
          defaultValue={String(sku.price_minor / whole)}
          aria-label={`${t("host.price")}: ${title}`}
        />
        <button type="submit" class="button small">
          {t("host.set")}
        </button>
      </form>
      <form onSubmit={restock}>
        <input
          class="field num"
          name="qty"
          type="number"
          min="-100000"
          max="100000"
          required
          placeholder="+10 / −1"
          aria-label={`${t("host.restock")}: ${title}`}
        />
        <button type="submit" class="button small">
          {t("host.restock")}
        </button>
      </form>
    </li>
  );
}

function Row({ live, product, place }: { live: Live; product: Product; place: number }) {
  const [open, setOpen] = useState(false);
  const pinned = live.$pinned.value.some((one) => one.id === product.id);
  const price = money(priceOf(product).minor, product.currency);
  const key = place <= 9 ? String(place) : "";
  return (
    <li class={`shelf-row ${pinned ? "pinned" : ""}`}>
      <div class="main">
        <kbd>{key}</kbd>
        <Picture product={product} />
        <div class="what">
          <h3>{product.title}</h3>
          <Stock live={live} skus={product.skus.map((sku) => sku.id)} />
        </div>
        <div class="acts">
          <button
            type="button"
            class={`button small pin-button ${pinned ? "on" : ""}`}
            aria-pressed={pinned}
            aria-keyshortcuts={key}
            onClick={() => tryTo(pinned ? unpin(live, [product]) : pin(live, product))}
          >
            <PinMark />
            {t(pinned ? "host.unpin" : "host.pin")}
          </button>
          <button
            type="button"
            class="link"
            aria-expanded={open}
            aria-label={`${price} ${t("host.details")}: ${product.title}`}
            title={t("host.details")}
            onClick={() => setOpen(!open)}
          >
            <span class="num">{price}</span>
            {open ? "▴" : "▾"}
          </button>
        </div>
      </div>
      {open && (
        <ul class="skus">
          {product.skus.map((sku) => (
            <SkuRow key={sku.id} live={live} product={product} sku={sku} />
          ))}
        </ul>
      )}
    </li>
  );
}

export function HostShelf({ live }: { live: Live }) {
  const shelf = live.$shelf.value;
  return (
    <section class="panel shelf" aria-labelledby="shelf-title">
      <h2 id="shelf-title">{t("host.shelf")}</h2>
      {shelf.length === 0 && <p class="quiet">{t("bag.shelf.empty")}</p>}
      <ul>
        {shelf.map((product, i) => (
          <Row key={product.id} live={live} product={product} place={i + 1} />
        ))}
      </ul>
      <p class="legend">
        <i class="sold" /> {t("host.sold")} <i class="held" /> {t("host.held")} <i class="left" />{" "}
        {t("host.onsale")}
      </p>
    </section>
  );
}

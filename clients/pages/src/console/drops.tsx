/** The host's drops: a form of one line to schedule, and what is open or to come. */
import type { Drop, Product } from "@liveroom/client";
import { useEffect, useRef, useState } from "preact/hooks";
import { leftIn, soldIn, untilTurn, upcoming } from "../live/drops.ts";
import type { Live } from "../live/live.ts";
import { toast } from "../parts/toasts.tsx";
import { clock, digitsOf, money, t } from "../words/language.ts";
import { isForField, tryTo } from "./desk.ts";

const SECOND_MS = 1000;
const MINUTE_MS = 60_000;
const QUANTITY = 5;
const CHEAPER = 0.8;

const skusOf = (shelf: Product[]) =>
  shelf.flatMap((product) => product.skus.map((sku) => ({ product, sku })));

const nameOf = (product: Product, sku: { id: string; name?: string }): string =>
  product.skus.length > 1 ? `${product.title} · ${sku.name ?? sku.id}` : product.title;

function Field(field: { name: string; words: string; value: number; min?: number; step?: number }) {
  const { name, words, value, min = 1, step = 1 } = field;
  return (
    <label>
      <span>{words}</span>
      <input
        class="field num"
        type="number"
        name={name}
        min={min}
        step={step}
        required
        defaultValue={String(value)}
      />
    </label>
  );
}

function Form({ live, done }: { live: Live; done: () => void }) {
  const listed = skusOf(live.$shelf.value);
  const first = live.$pinned.value.at(-1)?.skus[0]?.id ?? listed[0]?.sku.id;
  const [chosen, choose] = useState(first);
  const one = listed.find(({ sku }) => sku.id === chosen) ?? listed[0];
  if (!one) return <p class="quiet">{t("bag.shelf.empty")}</p>;
  const whole = 10 ** digitsOf(one.product.currency);
  const schedule = (event: SubmitEvent) => {
    event.preventDefault();
    const form = event.currentTarget as HTMLFormElement;
    const filled = new FormData(form);
    const number = (name: string) => Number(filled.get(name));
    const asked = {
      sku: one.sku.id,
      quantity: number("quantity"),
      price_minor: Math.round(number("price") * whole),
      opens_in_ms: Math.round(number("opens") * SECOND_MS),
      lasts_ms: Math.round(number("lasts") * MINUTE_MS),
      limit_per_buyer: number("limit"),
      admission: filled.get("draw") ? ("draw" as const) : ("first" as const),
    };
    const answered = () => form.isConnected && done(); // put away meanwhile: no longer its turn
    tryTo(live.room.send("drop.schedule", asked).then(answered));
  };
  return (
    <form class="drop-form" onSubmit={schedule}>
      <label class="wide">
        <span>{t("host.drop.sku")}</span>
        <select
          class="field"
          name="sku"
          value={one.sku.id}
          onChange={(event) => choose(event.currentTarget.value)}
        >
          {listed.map(({ product, sku }) => (
            <option key={sku.id} value={sku.id}>
              {nameOf(product, sku)}
            </option>
          ))}
        </select>
      </label>
      <Field name="quantity" words={t("host.drop.quantity")} value={QUANTITY} />
      <Field
        key={one.sku.id}
        name="price"
        words={t("host.price")}
        value={Math.floor(one.sku.price_minor * CHEAPER) / whole}
        min={1 / whole}
        step={1 / whole}
      />
      <Field name="opens" words={t("host.drop.opens")} value={0} min={0} />
      <Field name="lasts" words={t("host.drop.lasts")} value={3} min={0.5} step={0.5} />
      <Field name="limit" words={t("host.drop.limit")} value={1} />
      <label class="check">
        <input type="checkbox" name="draw" /> <span>{t("host.drop.draw")}</span>
      </label>
      <div class="two wide">
        <button type="button" class="button" onClick={done}>
          {t("host.drop.not")}
        </button>
        <button type="submit" class="button buy">
          {t("host.drop.go")}
        </button>
      </div>
    </form>
  );
}

function DropRow({ live, drop }: { live: Live; drop: Drop }) {
  const sold = soldIn(drop, live.$shelf.value);
  const opened = drop.state === "open";
  const left = leftIn(drop, live.$stock.value);
  const time = clock(untilTurn(drop, live.now.value));
  const end = () =>
    tryTo(
      live.room
        .send(opened ? "drop.close" : "drop.cancel", { drop: drop.id })
        .then(() => toast(t(opened ? "host.drop.closed" : "host.drop.cancelled"))),
    );
  const title = sold ? nameOf(sold.product, sold.sku) : drop.sku;
  return (
    <li class="drop-row">
      <span class="what">
        <b>{title}</b>
        <span class="num">
          {money(drop.price_minor, sold?.product.currency)} ·{" "}
          {t("host.drop.left", { left, quantity: drop.quantity })} ·{" "}
          {t(opened ? "drop.ends" : "drop.opens", { time })}
        </span>
      </span>
      <button
        type="button"
        class="button small"
        onClick={end}
        aria-label={`${t(opened ? "host.drop.close" : "host.drop.cancel")}: ${title}`}
      >
        {t(opened ? "host.drop.close" : "host.drop.cancel")}
      </button>
    </li>
  );
}

/** The list and its form, which the key D opens too. */
export function HostDrops({ live }: { live: Live }) {
  const box = useRef<HTMLDialogElement>(null);
  const [asking, ask] = useState(false);
  const drops = upcoming(live.$drops.value);
  const open = () => {
    ask(true);
    box.current?.showModal();
  };
  // The event comes a task after the closing: the form may have been opened again by then.
  const closed = () => {
    if (!box.current?.open) ask(false);
  };
  useEffect(() => {
    const listen = (event: KeyboardEvent) => {
      if (isForField(event) || event.key.toLowerCase() !== "d") return;
      event.preventDefault(); // the first field would get it
      open();
    };
    addEventListener("keydown", listen);
    return () => removeEventListener("keydown", listen);
  }, []);
  return (
    <section class="host-drops" aria-labelledby="drops-title">
      <h3 id="drops-title">
        {t("host.drop")}
        <button type="button" class="button small" aria-keyshortcuts="D" onClick={open}>
          {t("host.drop.new")} <kbd>D</kbd>
        </button>
      </h3>
      {drops.length > 0 && (
        <ul>
          {drops.map((drop) => (
            <DropRow key={drop.id} live={live} drop={drop} />
          ))}
        </ul>
      )}
      <dialog ref={box} class="ask" aria-labelledby="drop-title" onClose={closed}>
        <h2 id="drop-title">{t("host.drop.new")}</h2>
        {asking && <Form live={live} done={() => box.current?.close()} />}
      </dialog>
    </section>
  );
}

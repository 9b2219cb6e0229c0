/** Flash drops: a countdown that all phones share, then one button at the drop's price. */
import type { Drop, Product, Sku } from "@liveroom/client";
import { useState } from "preact/hooks";
import { leftIn, soldIn, untilTurn, upcoming } from "../live/drops.ts";
import { Tick } from "../parts/figures.tsx";
import { Picture } from "../parts/picture.tsx";
import { toast } from "../parts/toasts.tsx";
import { clock, money, t } from "../words/language.ts";
import { leftWords } from "./pins.tsx";
import { asMember, buyNow, open, refusal, selling, sheet, show } from "./show.ts";

const FEW = 5;
const SHOWN_MAX = 2;
const DAY_MS = 86_400_000;

/** `words` are said; where they are too long for a card, `short` is written. */
type Act = {
  words: string;
  short?: string;
  run: (() => Promise<unknown>) | null;
  buys: boolean;
};

async function buy(drop: Drop): Promise<void> {
  const order = await buyNow(drop.sku, 1, drop.price_minor, drop.id);
  sheet.value = { kind: "order", id: order.id };
}

/** What the one button of a drop says and does now; it does nothing where there is no `run`. */
function actOf(drop: Drop): Act {
  const entry = show.$entries.value[drop.id];
  const says = (words: string): Act => ({ words, run: null, buys: false });
  if (!open.value) return says(t("state.reconnecting"));
  if (drop.state === "scheduled") {
    if (drop.admission !== "draw") return says(t("drop.soon"));
    if (entry) return says(t("drop.entered"));
    const run = () => show.room.send("drop.enter", { drop: drop.id });
    return { words: t("drop.enter"), run, buys: false };
  }
  if (drop.admission === "draw" && !entry?.admitted) return says(t("drop.lost"));
  if (leftIn(drop, show.$stock.value) === 0) return says(t("buy.soldout"));
  if (show.$room.value?.paused) return { ...says(t("room.paused")), short: t("room.pausedShort") };
  if (!selling.value) return says(t("drop.soon"));
  return { words: t("buy.buy"), run: () => buy(drop), buys: true };
}

function Turn({ drop }: { drop: Drop }) {
  const turn = untilTurn(drop, show.now.value);
  const time = clock(turn, turn >= DAY_MS);
  return (
    <span class="turn num" role="timer" aria-live="off">
      <em class="badge">{t("drop.title")}</em>
      <span>{t(drop.state === "open" ? "drop.ends" : "drop.opens", { time })}</span>
    </span>
  );
}

/** The drop whose time runs and its price, in one line: for a sheet that covers its card. */
export function Running() {
  const [drop] = upcoming(show.$drops.value);
  const sold = drop && soldIn(drop, show.$shelf.value);
  if (!sold) return null;
  return (
    <p class="running">
      <span class="price num">{money(drop.price_minor, sold.product.currency)}</span>
      <Turn drop={drop} />
    </p>
  );
}

function DropCard({ drop, product, sku }: { drop: Drop; product: Product; sku: Sku }) {
  const [busy, setBusy] = useState(false);
  const price = money(drop.price_minor, product.currency);
  const { words, short, run, buys } = actOf(drop);
  const left = leftIn(drop, show.$stock.value);
  const opened = drop.state === "open";
  const title =
    product.skus.length > 1 ? `${product.title} · ${sku.name ?? sku.id}` : product.title;
  const press = () =>
    asMember(async () => {
      setBusy(true);
      await run?.().catch((error) => toast(refusal(error)));
      setBusy(false);
    });
  return (
    <article
      class={`pin drop ${opened ? "opened" : ""}`}
      aria-label={`${t("drop.title")}: ${title}`}
    >
      <Picture product={product} />
      <div class="what">
        <Turn drop={drop} />
        <h2>{title}</h2>
        <span class="price num">
          {price}
          {sku.price_minor > drop.price_minor && <s>{money(sku.price_minor, product.currency)}</s>}
          {opened && left > 0 && <small class={left <= FEW ? "few" : ""}>{leftWords(left)}</small>}
        </span>
      </div>
      <button
        type="button"
        class={`button ${buys ? "buy" : ""}`}
        disabled={busy || !run}
        onClick={press}
        aria-label={`${words}: ${title}, ${price}`}
      >
        <Tick>{short ?? words}</Tick>
      </button>
    </article>
  );
}

export function Drops() {
  const drops = upcoming(show.$drops.value).slice(0, SHOWN_MAX);
  return (
    <div class="pins drops">
      {drops.map((drop) => {
        const sold = soldIn(drop, show.$shelf.value);
        return sold && <DropCard key={drop.id} drop={drop} {...sold} />;
      })}
    </div>
  );
}

/** One quiet line: how many units of what is on air others took in the last seconds. */
import { signal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { t } from "../words/language.ts";
import { show } from "./show.ts";

const SHOWN_MS = 4000;

const taken = signal(0);

/** Units that went since `before`, of the SKUs that are on air. */
function gone(before: Record<string, { left: number }>): number {
  const skus = show.$pinned.value.flatMap((product) => product.skus.map((sku) => sku.id));
  const now = show.$stock.value;
  return skus.reduce((sum, sku) => {
    const was = before[sku]?.left;
    const is = now[sku]?.left;
    return was === undefined || is === undefined ? sum : sum + Math.max(0, was - is);
  }, 0);
}

export function Taken() {
  useEffect(() => {
    let before = show.$stock.value;
    let quiet: ReturnType<typeof setTimeout> | undefined;
    const end = show.$stock.subscribe((stock) => {
      const count = gone(before);
      before = stock;
      if (!count || document.hidden) return;
      taken.value += count;
      clearTimeout(quiet);
      quiet = setTimeout(() => {
        taken.value = 0;
      }, SHOWN_MS);
    });
    return () => {
      end();
      clearTimeout(quiet);
    };
  }, []);
  return (
    <p class="taken" aria-hidden="true">
      {taken.value > 0 && <span>{t("chat.taken", { n: taken.value })}</span>}
    </p>
  );
}

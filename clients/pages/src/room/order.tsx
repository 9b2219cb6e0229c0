/** One order, from "to be paid" to what became of it. */
import { useState } from "preact/hooks";
import { backInPart } from "../live/orders.ts";
import { Timer } from "../parts/figures.tsx";
import { PaidMark } from "../parts/marks.tsx";
import { toast } from "../parts/toasts.tsx";
import { clock, money, t } from "../words/language.ts";
import { goPay, pay, till } from "./paying.ts";
import { open, refusal, sheet, show, titleOf } from "./show.ts";

export function OrderSheet({ id }: { id: string }) {
  const order = show.$orders.value[id];
  const [busy, setBusy] = useState(false);
  const [failed, setFailed] = useState(false);
  const [elsewhere, setElsewhere] = useState(false);
  if (!order) return <p class="quiet">{t("state.connecting")}</p>;
  const left = order.pay_by - show.now.value;
  const price = money(order.total_minor, order.currency);
  const due = order.state === "placed";
  const back = backInPart(order);

  const press = async (button: "succeed" | "fail") => {
    setBusy(true);
    setFailed(false);
    try {
      if (till.value === "sandbox") setFailed(!(await pay(order, button)));
      else setElsewhere(!(await goPay(order)));
    } catch (error) {
      if ((error as { code?: string }).code === "payment_declined") setFailed(true);
      else toast(refusal(error));
    } finally {
      setBusy(false);
    }
  };
  const cancel = () =>
    show.room.send("order.cancel", { order: id }).catch((error) => toast(refusal(error)));

  return (
    <div class={`order-sheet ${order.state}`}>
      <div class="verdict" role="status">
        {order.state === "paid" && (
          <span class="stamp">
            <PaidMark />
          </span>
        )}
        <h2 id="sheet-title">{due ? t("order.title") : t(`order.${order.state}`)}</h2>
        {order.state === "paid" && <p class="note">{t("order.thanks")}</p>}
      </div>
      <ul class="lines">
        {order.lines.map((line) => (
          <li key={line.sku}>
            <span>
              {titleOf(line.sku)} × {line.qty}
            </span>
            <span class="num">{money(line.price_minor * line.qty, order.currency)}</span>
          </li>
        ))}
        <li class="total">
          <span>{t("bag.total")}</span>
          <span class="num">{price}</span>
        </li>
        {back > 0 && (
          <li>
            <span>{t("order.back", { price: money(back, order.currency) })}</span>
          </li>
        )}
      </ul>
      {due ? (
        <>
          <div>
            <Timer part={left / (order.pay_by - order.placed_at)} />
            <p class="note num">{t("order.payby", { time: clock(left) })}</p>
          </div>
          {failed && (
            <p class="failed" role="alert">
              {t("order.failed")}
            </p>
          )}
          {(till.value === "none" || elsewhere) && (
            <p class="note center" role="status">
              {t(elsewhere ? "order.elsewhere" : "order.nowhere")}
            </p>
          )}
          {till.value !== "none" && !elsewhere && (
            <button
              type="button"
              class="button buy wide"
              disabled={busy || !till.value || !open.value || left <= 0}
              onClick={() => press("succeed")}
            >
              {busy ? t("order.paying") : t("order.pay", { price })}
            </button>
          )}
          {till.value === "sandbox" && <p class="note center">{t("order.sandbox")}</p>}
          <div class="links">
            {till.value === "sandbox" && (
              <button type="button" class="link" disabled={busy} onClick={() => press("fail")}>
                {t("order.decline")}
              </button>
            )}
            <button type="button" class="link" disabled={busy} onClick={cancel}>
              {t("order.cancel")}
            </button>
          </div>
        </>
      ) : (
        <button
          type="button"
          class="button wide"
          onClick={() => {
            sheet.value = null;
          }}
        >
          {t("app.back")}
        </button>
      )}
    </div>
  );
}

/** The sheet from below: one at a time, closed by Escape, by the dark around it, or its cross. */
import "../words/buying.ts";
import { useEffect, useRef } from "preact/hooks";
import { CloseMark } from "../parts/marks.tsx";
import { t } from "../words/language.ts";
import { Bag } from "./bag.tsx";
import { Buy } from "./buy.tsx";
import { OrderSheet } from "./order.tsx";
import { readProviders } from "./paying.ts";
import { sheet } from "./show.ts";
import { SignIn } from "./sign-in.tsx";

export { Bag };

const close = () => {
  sheet.value = null;
};

export function Sheet() {
  const box = useRef<HTMLDialogElement>(null);
  const now = sheet.value;
  useEffect(() => {
    if (now) readProviders();
  }, [now]);
  useEffect(() => {
    if (now && !box.current?.open) box.current?.showModal();
    if (!now && box.current?.open) box.current.close();
  }, [now]);
  return (
    <dialog
      ref={box}
      class="sheet"
      aria-labelledby={now?.kind === "bag" ? `tab-${now.tab}` : "sheet-title"}
      // Not onClose: that comes a task after the dialog was closed from here, when the next
      // sheet (the order just placed) may already be the one it would take away.
      onCancel={close}
      onClick={(event) => event.target === box.current && close()}
    >
      {now && (
        <div class="inside">
          <button type="button" class="round cross" onClick={close} aria-label={t("app.close")}>
            <CloseMark />
          </button>
          {now.kind === "bag" && <Bag now={now.tab} />}
          {now.kind === "product" && <Buy key={now.id} {...now} />}
          {now.kind === "order" && <OrderSheet key={now.id} id={now.id} />}
          {now.kind === "sign-in" && <SignIn {...now} />}
        </div>
      )}
    </dialog>
  );
}

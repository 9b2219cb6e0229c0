/** Short words that come and go; each may carry one thing to do about it. */
import { signal } from "@preact/signals";
import { useLayoutEffect, useRef } from "preact/hooks";
import { t } from "../words/language.ts";

const SHOWN_MAX = 3;
const SHOWN_MS = 5000;

interface Toast {
  id: number;
  text: string;
  undo: (() => void) | undefined;
}

const shown = signal<Toast[]>([]);
let last = 0;

/** Say something for five seconds; returns how to take it back earlier. */
export function toast(text: string, undo?: () => void): () => void {
  const one: Toast = { id: ++last, text, undo };
  const end = () => {
    shown.value = shown.value.filter((other) => other.id !== one.id);
  };
  shown.value = [...shown.value, one].slice(-SHOWN_MAX);
  setTimeout(end, SHOWN_MS);
  return end;
}

export function Toasts() {
  const box = useRef<HTMLDivElement>(null);
  const count = shown.value.length;
  const newest = shown.value.at(-1)?.id;
  useLayoutEffect(() => {
    // Shown anew each time, a popover stands above a dialog that was opened after it.
    if (!box.current?.showPopover) return;
    if (box.current.matches(":popover-open")) box.current.hidePopover();
    if (count && newest) box.current.showPopover();
  }, [count, newest]);
  return (
    <div class="toasts" role="status" popover="manual" ref={box}>
      {shown.value.map(({ id, text, undo }) => (
        <div class="toast" key={id}>
          <span>{text}</span>
          {undo && (
            <button type="button" onClick={undo}>
              {t("app.undo")}
            </button>
          )}
        </div>
      ))}
    </div>
  );
}

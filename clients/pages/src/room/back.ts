/**
 * Back closes a sheet, and leaves the room only where none is open.
 *
 * While a sheet is open there is one entry of ours on top of the history, however many sheets
 * follow each other; it goes when the sheet is closed by other means. Going back ends a task
 * later: what is opened meanwhile waits for it.
 */
import { effect } from "@preact/signals";
import { sheet } from "./show.ts";

const onOurs = (): boolean => history.state?.sheet === true;

let going = false;

function settle(): void {
  if (going) return;
  const open = sheet.value !== null;
  if (open && !onOurs()) history.pushState({ sheet: true }, "");
  if (!open && onOurs()) {
    going = true;
    history.back();
  }
}

export function keepBack(): void {
  addEventListener("popstate", () => {
    const ours = going;
    going = false;
    if (!ours && !onOurs()) sheet.value = null;
    settle();
  });
  effect(settle);
}

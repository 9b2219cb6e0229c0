/** Parts that stand on every page, drawn into a real document. */
import { render } from "preact";
import { act } from "preact/test-utils";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { Bar, Timer } from "../src/parts/figures.tsx";
import { Picture } from "../src/parts/picture.tsx";
import { Toasts, toast } from "../src/parts/toasts.tsx";

let root: HTMLElement;

beforeEach(() => {
  vi.useFakeTimers();
  root = document.body.appendChild(document.createElement("div"));
});

afterEach(() => {
  render(null, root);
  root.remove();
  vi.useRealTimers();
});

test("a product without a picture, or with a missing one, is drawn", async () => {
  await act(() => render(<Picture product={{ id: "p1" }} />, root));
  expect(root.querySelector("svg")).not.toBeNull();
  await act(() => render(<Picture product={{ id: "p1", picture: "/pictures/gone.svg" }} />, root));
  expect(root.querySelector("img")?.getAttribute("src")).toBe("/pictures/gone.svg");
  await act(() => void root.querySelector("img")?.dispatchEvent(new Event("error")));
  expect(root.querySelector("svg")).not.toBeNull();
});

test("a stock bar shows the parts that are there, in their order", async () => {
  await act(() => render(<Bar sold={0.2} held={0} left={0.8} />, root));
  const parts = [...root.querySelectorAll("i")];
  expect(parts.map((part) => part.className)).toEqual(["sold", "left"]);
  expect(parts.map((part) => part.style.getPropertyValue("--part"))).toEqual(["0.2", "0.8"]);
});

test("time that has run out is an empty line, never a negative one", async () => {
  await act(() => render(<Timer part={-3} />, root));
  expect(root.querySelector("i")?.style.getPropertyValue("--part")).toBe("0");
});

test("a toast goes by itself after five seconds, and its undo is done once", async () => {
  const undo = vi.fn();
  await act(() => render(<Toasts />, root));
  await act(() => void toast("Comment removed.", undo));
  expect(root.textContent).toContain("Comment removed.");
  root.querySelector("button")?.click();
  expect(undo).toHaveBeenCalledOnce();
  await act(() => void vi.advanceTimersByTime(5000));
  expect(root.textContent).toBe("");
});

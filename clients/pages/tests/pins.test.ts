/** What the host takes back leaves the pins as they were. */
import { expect, test } from "vitest";
import { takeBack } from "../src/live/pins.ts";

const PINS_MAX = 3;

/** What is pinned after the steps, as a room does them. */
function after(now: string[], { unpin, pin }: ReturnType<typeof takeBack>): string[] {
  let pins = now.filter((one) => !unpin.includes(one));
  for (const one of pin) pins = [...pins.filter((other) => other !== one), one].slice(-PINS_MAX);
  return pins;
}

test.each([
  ["a new pin", ["a", "b"], ["a", "b", "c"], "c", ["a", "b"]],
  ["a pin that pushed one out", ["a", "b", "c"], ["b", "c", "d"], "d", ["a", "b", "c"]],
  ["a pin that was there before", ["a", "b"], ["b", "a"], "a", ["a", "b"]],
  ["the newest, pinned again", ["a", "b"], ["a", "b"], "b", ["a", "b"]],
  ["one taken down", ["a", "b", "c"], ["a", "c"], null, ["a", "b", "c"]],
  ["all taken down", ["a", "b"], [], null, ["a", "b"]],
  ["somebody else's pin meanwhile", ["a"], ["a", "c", "x"], "c", ["a", "x"]],
])("%s", (_, before, now, mine, then) => {
  expect(after(now, takeBack(now, before, mine))).toEqual(then);
});

test("nothing is done where nothing differs", () => {
  expect(takeBack(["a", "b"], ["a", "b"], "b")).toEqual({ unpin: [], pin: [] });
});

import { expect, test } from "vitest";
import { named, nines, told } from "../src/report/run.ts";

test("each further nine has the same room", () => {
  expect(nines(0)).toBeCloseTo(0);
  expect(nines(90)).toBeCloseTo(1);
  expect(nines(99.9) - nines(99)).toBeCloseTo(1);
  expect(Number.isFinite(nines(100))).toBe(true);
});

test("values and names are told for people", () => {
  expect(told(1234.5678)).toBe("1,234.568");
  expect(told(null)).toBe("–");
  expect(told("chat")).toBe("chat");
  expect(named("last_viewer_p99_ms")).toBe("last viewer p99 ms");
});

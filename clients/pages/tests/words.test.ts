/** Both languages say everything, and say it as their readers expect. */
import { afterEach, expect, test } from "vitest";
import { BUYING_WORDS } from "../src/words/buying.ts";
import { HOST_WORDS } from "../src/words/host.ts";
import { clock, compact, errorWords, language, money, t } from "../src/words/language.ts";
import { WORDS } from "../src/words/words.ts";

afterEach(() => {
  language.value = "en";
});

const ALL = Object.entries({ ...WORDS, ...BUYING_WORDS, ...HOST_WORDS });
const blanks = (text: string) => [...text.matchAll(/\{\w+\}/g)].map(String).sort();

test.each(ALL)("%s is said in both languages, with the same blanks", (_, [en, zh]) => {
  expect(en).not.toBe("");
  expect(zh).not.toBe("");
  expect(blanks(zh)).toEqual(blanks(en));
});

const SOURCES: Record<string, string> = import.meta.glob("../src/**/*.{ts,tsx}", {
  query: "?raw",
  import: "default",
  eager: true,
});

test.each([
  ["home", [WORDS]],
  ["parts", [WORDS]],
  ["room", [WORDS, BUYING_WORDS]],
  ["console", [WORDS, HOST_WORDS]],
])("what is said in %s is among the words that are loaded there", (folder, loaded) => {
  const files = Object.entries(SOURCES).filter(([path]) => path.includes(`/src/${folder}/`));
  const said = files.flatMap(([, text]) => [...text.matchAll(/\bt\(\s*"([\w.]+)"/g)]);
  expect(said.length).toBeGreaterThan(0);
  const known = Object.assign({}, ...loaded);
  expect(said.map(([, word]) => word).filter((word) => !((word as string) in known))).toEqual([]);
});

test("money is minor units beside its currency, without idle zeros", () => {
  expect(money(19900)).toBe("¥199");
  expect(money(1990)).toBe("¥19.90");
  expect(money(500, "JPY")).toBe("¥500");
  expect(money(123456, "USD")).toBe("$1,234.56");
});

test("counts are short, in the way of the language", () => {
  expect(compact(12_345)).toBe("12.3K");
  language.value = "zh";
  expect(compact(12_345)).toBe("1.2万");
});

test("time that is left never runs below nothing", () => {
  expect(clock(252_000)).toBe("4:12");
  expect(clock(-5)).toBe("0:00");
  expect(clock(2_530_000, true)).toBe("00:42:10");
});

test("a refusal has words in both languages, an unknown one keeps its own in English", () => {
  expect(errorWords({ code: "sold_out" })).toBe(t("error.sold_out"));
  expect(errorWords({ code: "moon_phase", message: "The moon is full." })).toBe(
    "The moon is full.",
  );
  language.value = "zh";
  expect(errorWords({ code: "moon_phase", message: "The moon is full." })).toBe(t("error.any"));
});

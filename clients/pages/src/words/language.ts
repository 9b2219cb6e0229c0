/** Which language is spoken, and how it says words, money, numbers and times. */
import { effect, signal } from "@preact/signals";
import type { BUYING_WORDS } from "./buying.ts";
import type { HOST_WORDS } from "./host.ts";
import { type Pair, WORDS } from "./words.ts";

export type Word = keyof typeof WORDS | keyof typeof BUYING_WORDS | keyof typeof HOST_WORDS;

const words: Record<string, Pair> = { ...WORDS };

/** Take in the words of one page. */
export function learn(more: Record<string, Pair>): void {
  Object.assign(words, more);
}

export type Language = "en" | "zh";
const KEPT = "liveroom.language";

function first(): Language {
  const kept = localStorage.getItem(KEPT);
  if (kept === "en" || kept === "zh") return kept;
  return navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en";
}

export const language = signal<Language>(first());

effect(() => {
  document.documentElement.lang = language.value === "zh" ? "zh-CN" : "en";
});

/** Change to the other language and remember it. */
export function switchLanguage(): void {
  language.value = language.value === "zh" ? "en" : "zh";
  localStorage.setItem(KEPT, language.value);
}

/** The words for a key, with `{name}` filled in. */
export function t(word: Word, fill: Record<string, string | number> = {}): string {
  const said = words[word]?.[language.value === "zh" ? 1 : 0] ?? word;
  return said.replace(/\{(\w+)\}/g, (_, name: string) => String(fill[name] ?? ""));
}

/** The words for an error's code, or its own message. */
export function errorWords(error: unknown, fill: Record<string, string> = {}): string {
  const { code, message } = error as { code?: string; message?: string };
  const word = `error.${code}`;
  if (word in words) return t(word as Word, fill);
  return language.value === "en" && message ? message : t("error.any");
}

const made = new Map<string, Intl.NumberFormat>();

function format(options: Intl.NumberFormatOptions): Intl.NumberFormat {
  const key = language.value + JSON.stringify(options);
  const found = made.get(key) ?? new Intl.NumberFormat(language.value, options);
  made.set(key, found);
  return found;
}

/** How many digits a currency's minor units take: 2 for CNY, 0 for JPY. */
export const digitsOf = (currency: string): number =>
  format({ style: "currency", currency }).resolvedOptions().maximumFractionDigits ?? 2;

/** Minor units as money: `¥199`, `¥19.90`. */
export function money(minor: number, currency = "CNY"): string {
  const style = { style: "currency", currency, currencyDisplay: "narrowSymbol" } as const;
  const digits = digitsOf(currency);
  const whole = minor % 10 ** digits === 0;
  return format({ ...style, minimumFractionDigits: whole ? 0 : digits }).format(
    minor / 10 ** digits,
  );
}

/** A count in little room: `1.2K`, `1.2万`. */
export const compact = (n: number): string =>
  format({ notation: "compact", maximumFractionDigits: 1 }).format(n);

/** A count in full: `38,210`. */
export const full = (n: number): string => format({}).format(n);

/** Milliseconds as a clock: `4:12`, `0:42:10`. */
export function clock(ms: number, hours = false): string {
  const s = Math.max(0, Math.floor(ms / 1000));
  const two = (n: number) => String(n).padStart(2, "0");
  const minutes = Math.floor(s / 60);
  if (!hours && minutes < 60) return `${minutes}:${two(s % 60)}`;
  return `${two(Math.floor(minutes / 60))}:${two(minutes % 60)}:${two(s % 60)}`;
}

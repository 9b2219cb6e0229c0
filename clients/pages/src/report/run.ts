/** A run as the load tester writes it into the page, and how its values are told. */

/** One second of a run: when, how many arrived, and how long half and 99 % of them took. */
export type Second = [at: number, count: number, p50: number | null, p99: number | null];

export interface Run {
  scenario: string;
  command: string;
  machine: string;
  parameters: Record<string, unknown>;
  figures: Record<string, unknown>;
  faults: Record<string, number>;
  notes: string[];
  correct: boolean;
  /** For each bin of latency its percentile (0 to 100) and its milliseconds, rising. */
  curve: [percent: number, ms: number][];
  seconds: Second[];
}

export function readRun(text: string): Run {
  return JSON.parse(text) as Run;
}

export function told(value: unknown): string {
  if (typeof value === "number") return value.toLocaleString("en", { maximumFractionDigits: 3 });
  return value === null || value === undefined ? "–" : String(value);
}

/** A figure's name for people: `last_viewer_p99_ms` is told as `last viewer p99 ms`. */
export function named(name: string): string {
  return name.replaceAll("_", " ");
}

/** Where a percentile stands on an axis that gives each further nine the same room. */
export function nines(percent: number): number {
  return -Math.log10(Math.max(1e-5, 1 - percent / 100));
}

/** The last minutes as small lines, against their own average; what was on air is shaded. */
import { signal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import type { Live } from "../live/live.ts";
import { full, t, type Word } from "../words/language.ts";

const EVERY_MS = 5000;
const KEPT_MAX = 72;
const LOW = 0.6;
const LOW_AFTER = 12;

interface Sample {
  watching: number;
  comments: number;
  hearts: number;
  left: number;
  pin: string | undefined;
}

type Line = "watching" | "comments" | "hearts" | "left";
const LINES: Line[] = ["watching", "comments", "hearts", "left"];

const samples = signal<Sample[]>([]);

const heartsOf = (live: Live) =>
  Object.values(live.$reactions.value).reduce((sum, n) => sum + n, 0);
const saidOf = (live: Live) => live.$messages.value.at(-1)?.n ?? 0;

function takeSamples(live: Live): () => void {
  let said = saidOf(live);
  let hearts = heartsOf(live);
  const perMinute = 60_000 / EVERY_MS;
  const take = () => {
    const saidNow = saidOf(live);
    const heartsNow = heartsOf(live);
    const sample: Sample = {
      watching: live.$viewers.value,
      comments: Math.max(0, saidNow - said) * perMinute,
      hearts: Math.max(0, heartsNow - hearts) * perMinute,
      left: Object.values(live.$stock.value).reduce((sum, stock) => sum + stock.left, 0),
      pin: live.$pinned.value.at(-1)?.id,
    };
    said = saidNow;
    hearts = heartsNow;
    samples.value = [...samples.value, sample].slice(-KEPT_MAX);
  };
  const end = live.room.on("joined", () => {
    [said, hearts] = [saidOf(live), heartsOf(live)];
    if (!samples.value.length) take();
  });
  const timer = setInterval(take, EVERY_MS);
  return () => {
    clearInterval(timer);
    end();
  };
}

const smooth = (values: number[], i: number): number => {
  const near = values.slice(Math.max(0, i - 3), i + 1);
  return near.reduce((sum, value) => sum + value, 0) / near.length;
};

function Shades({ step, start }: { step: number; start: number }) {
  const spans: { from: number; to: number }[] = [];
  let odd = false;
  samples.value.forEach((sample, i, all) => {
    if (i > 0 && sample.pin !== all[i - 1]?.pin) odd = !odd;
    if (!sample.pin || !odd) return;
    const last = spans.at(-1);
    if (last?.to === i) last.to = i + 1;
    else spans.push({ from: i, to: i + 1 });
  });
  return (
    <>
      {spans.map(({ from, to }) => (
        <rect
          key={from}
          x={start + from * step}
          width={(to - from) * step}
          y="0"
          height="48"
          class="shade"
        />
      ))}
    </>
  );
}

function Chart({ line }: { line: Line }) {
  const raw = samples.value.map((sample) => sample[line]);
  const values = raw.map((_, i) =>
    line === "left" || line === "watching" ? (raw[i] ?? 0) : smooth(raw, i),
  );
  const top = Math.max(1, ...values);
  const step = 240 / Math.max(11, values.length - 1);
  const start = 240 - (values.length - 1) * step;
  const points = values.map((value, i) => `${start + i * step},${44 - (value / top) * 38}`);
  const now = values.at(-1) ?? 0;
  const mean = values.reduce((sum, value) => sum + value, 0) / (values.length || 1);
  const low = line !== "left" && values.length >= LOW_AFTER && now < mean * LOW;
  return (
    <figure class={`chart ${low ? "low" : ""}`}>
      <figcaption>
        {t(`host.chart.${line}` as Word)}
        <b class="num">
          {full(Math.round(now))}
          {low && <em>{t("host.low")}</em>}
        </b>
      </figcaption>
      <svg viewBox="0 0 240 48" preserveAspectRatio="none" aria-hidden="true">
        <Shades step={step} start={start} />
        {points.length > 1 && (
          <>
            <path d={`M${start},48L${points.join("L")}L240,48z`} class="area" />
            <path d={`M${points.join("L")}`} class="line" />
          </>
        )}
      </svg>
    </figure>
  );
}

export function Minutes({ live }: { live: Live }) {
  useEffect(() => takeSamples(live), [live]);
  return (
    <section class="minutes" aria-label={t("host.minutes")}>
      {LINES.map((line) => (
        <Chart key={line} line={line} />
      ))}
    </section>
  );
}

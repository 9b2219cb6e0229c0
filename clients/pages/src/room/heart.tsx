/** The heart: a tap sends one, holding it sends many. */
import { useEffect, useRef } from "preact/hooks";
import { HeartMark } from "../parts/marks.tsx";
import { t } from "../words/language.ts";
import { hearts } from "./hearts.ts";
import { show } from "./show.ts";

const REPEAT_MS = 140;

let fly: (count: number) => void = () => {};
/** Our own that are counted and not told yet: they flew when they were tapped. */
let own = 0;

show.room.on("tapped", ({ count }) => {
  own += count;
});

function tap(): void {
  fly(1);
  show.room.tap();
}

export function HeartButton() {
  const held = useRef<ReturnType<typeof setInterval> | undefined>(undefined);
  const release = () => clearInterval(held.current);
  const press = (event: PointerEvent) => {
    if (event.button !== 0) return;
    release();
    tap();
    held.current = setInterval(tap, REPEAT_MS);
  };
  useEffect(() => release, []);
  return (
    <button
      type="button"
      class="round heart"
      aria-label={t("heart.send")}
      onPointerDown={press}
      onPointerUp={release}
      onPointerLeave={release}
      onPointerCancel={release}
      onContextMenu={(event) => event.preventDefault()}
      onClick={(event) => event.detail === 0 && tap()}
    >
      <HeartMark />
    </button>
  );
}

/** The air above the heart, where everybody's hearts fly. */
export function Air() {
  const canvas = useRef<HTMLCanvasElement>(null);
  useEffect(() => {
    if (!canvas.current) return;
    fly = hearts(canvas.current);
    let before: number | null = null;
    return show.$reactions.subscribe((reactions) => {
      const all = Object.values(reactions).reduce((sum, n) => sum + n, 0);
      const others = before === null ? 0 : all - before - own;
      before = all;
      own = 0;
      if (others > 0) fly(others);
    });
  }, []);
  return <canvas class="air" ref={canvas} aria-hidden="true" />;
}

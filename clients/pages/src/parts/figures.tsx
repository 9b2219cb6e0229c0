/** Small things that show a number: one that ticks, a stock bar, time that runs out. */

/** A number that shows its change. */
export const Tick = ({ children }: { children: string | number }) => (
  <span class="tick num" key={children}>
    {children}
  </span>
);

/** Stock in up to three parts, each 0 to 1. */
export function Bar({
  sold = 0,
  held = 0,
  left,
  few = false,
}: {
  sold?: number;
  held?: number;
  left: number;
  few?: boolean;
}) {
  return (
    <div class={`bar ${few ? "few" : ""}`} aria-hidden="true">
      {sold > 0 && <i class="sold" style={{ "--part": sold }} />}
      {held > 0 && <i class="held" style={{ "--part": held }} />}
      <i class="left" style={{ "--part": left }} />
    </div>
  );
}

/** A line that shrinks from whole to nothing. */
export const Timer = ({ part }: { part: number }) => (
  <div class="timer" aria-hidden="true">
    <i style={{ "--part": Math.max(0, Math.min(1, part)) }} />
  </div>
);

/** Taps, summed: those of a short while go out as one command, the next after it is answered. */

const SUM_MS = 600;
/** What one command takes; of taps beyond, while it is waited for, nobody hears. */
const COUNT_MAX = 100;

export class Taps {
  readonly #send: (kind: string, count: number) => Promise<unknown>;
  readonly #sums = new Map<string, number>();
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(send: (kind: string, count: number) => Promise<unknown>) {
    this.#send = send;
  }

  add(kind: string): void {
    this.#sums.set(kind, Math.min(COUNT_MAX, (this.#sums.get(kind) ?? 0) + 1));
    this.#timer ??= setTimeout(() => this.flush(), SUM_MS);
  }

  /** Send what there is. A tap that gets lost is no loss: nothing is thrown. */
  async flush(): Promise<void> {
    clearTimeout(this.#timer);
    const sums = [...this.#sums];
    this.#sums.clear();
    await Promise.allSettled(sums.map(([kind, count]) => this.#send(kind, count)));
    this.#timer = this.#sums.size ? setTimeout(() => this.flush(), SUM_MS) : undefined;
  }
}

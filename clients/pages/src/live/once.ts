/** Things that must not be done twice, however often a button is pressed. Nothing here waits. */
import { LiveroomError, newId, RoomClosed } from "@liveroom/client";

const KEPT_MAX = 50;

/** Whether it may have been done although it failed: no answer came, or one that says "again". */
const open = (error: unknown): boolean =>
  error instanceof RoomClosed || (error instanceof LiveroomError && error.retry);

/** Remembers the id under which a thing was asked for, until there is a last word on it. */
export class Once {
  readonly #ids = new Map<string, string>();

  /**
   * Do `act` under the id of an earlier try at the same thing (`what`), or under a new one.
   * `ended` says of an id whether it has become of no use meanwhile.
   */
  async do<T>(
    what: string,
    act: (id: string) => Promise<T>,
    ended: (id: string) => boolean = () => false,
  ): Promise<T> {
    const before = this.#ids.get(what);
    const id = before === undefined || ended(before) ? newId() : before;
    this.#ids.delete(what);
    this.#ids.set(what, id);
    const [oldest] = this.#ids.keys();
    if (this.#ids.size > KEPT_MAX && oldest !== undefined) this.#ids.delete(oldest);
    try {
      const done = await act(id);
      this.#ids.delete(what);
      return done;
    } catch (error) {
      if (!open(error)) this.#ids.delete(what);
      throw error;
    }
  }
}

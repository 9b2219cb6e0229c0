/** How pins become again what they were. Nothing here waits. */

export interface Steps {
  unpin: string[];
  /** In this order: the one that is pinned last is the newest. */
  pin: string[];
}

/**
 * The steps from `now` to `before`, oldest pin first. `mine` was pinned by what is taken back;
 * what somebody else has pinned meanwhile stays.
 */
export function takeBack(now: string[], before: string[], mine: string | null): Steps {
  const others = now.filter((one) => one !== mine && !before.includes(one));
  const wanted = [...before, ...others];
  const stays = now.filter((one) => wanted.includes(one));
  const differs = wanted.findIndex((one, at) => stays[at] !== one);
  return {
    unpin: now.filter((one) => !wanted.includes(one)),
    pin: differs < 0 ? [] : wanted.slice(differs),
  };
}

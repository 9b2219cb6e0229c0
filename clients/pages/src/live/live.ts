/** A room as signals: one for each field of the picture, so that a part redraws alone. */
import {
  connect,
  type Field,
  http,
  type Picture,
  type Room,
  type Source,
  type Status,
  type You,
} from "@liveroom/client";
import { batch, type Signal, signal } from "@preact/signals";

export type Live = {
  room: Room;
  status: Signal<Status>;
  you: Signal<You | null>;
  /** The server's clock, every second. */
  now: Signal<number>;
} & { [Each in Field as `$${Each}`]: Signal<Picture[Each]> };

/** Join a room and keep its signals; for as long as the page lives. */
export function liveRoom(id: string, token: string | null, source: Source | null = null): Live {
  const room = connect(id, { token, source });
  const live = {
    room,
    status: signal(room.status),
    you: signal(room.you),
    now: signal(room.now()),
  } as Live;
  const fields = live as unknown as Record<string, Signal<unknown>>;
  for (const field of Object.keys(room.picture) as Field[]) {
    fields[`$${field}`] = signal(room.picture[field]);
  }
  room.on("status", (status) => {
    live.status.value = status;
  });
  room.on("changed", (changed) => {
    batch(() => {
      live.you.value = room.you;
      for (const field of changed) (fields[`$${field}`] as Signal).value = room.picture[field];
    });
  });
  room.on("joined", () => {
    live.now.value = room.now();
  });
  setInterval(() => {
    if (!document.hidden) live.now.value = room.now();
  }, 1000);
  addEventListener("online", () => room.wake());
  // A socket does not notice by itself: what is shown would pass for new.
  addEventListener("offline", () => room.reconnect());
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) return;
    live.now.value = room.now();
    room.wake();
  });
  return live;
}

/** A room that does not exist is refused before the upgrade, which a browser does not tell. */
export function onNoRoom(room: Room, then: () => void): void {
  let asked = false;
  room.on("lost", () => {
    if (asked || room.position) return;
    asked = true;
    http()
      .get(`/v1/rooms/${encodeURIComponent(room.id)}`)
      .catch((error) => {
        asked = false; // Without an answer it is asked with the next try.
        if (error.code !== "not_found") return;
        room.close();
        then();
      });
  });
}

/** The room's id: the last part of the path. */
export const roomOfPath = (): string =>
  decodeURIComponent(location.pathname.split("/").filter(Boolean).at(-1) ?? "");

/** The token in the fragment, taken out of the address so that it is not shared by accident. */
export function tokenOfFragment(): string | null {
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  if (token) history.replaceState(null, "", location.pathname + location.search);
  return token;
}

/** Take each token that is put into the address of a page that is open already. */
export function onToken(take: (token: string) => void): void {
  addEventListener("hashchange", () => {
    const token = tokenOfFragment();
    if (token) take(token);
  });
}

/** What brought the viewer to this address: `?source=note.n1`, or `?source=search`. */
export function sourceOfQuery(search = location.search): Source | null {
  const given = new URLSearchParams(search).get("source") ?? "";
  const found = /^(note|share|search|follow)(?:\.([\w.-]{1,64}))?$/.exec(given);
  if (!found) return null;
  const kind = found[1] as Source["kind"];
  return found[2] ? { kind, id: found[2] } : { kind };
}

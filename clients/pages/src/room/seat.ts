/**
 * Whose seat this tab has.
 *
 * The socket and the HTTP calls of a tab are one member's: the token is kept here, and what is
 * in the browser's storage is what a tab begins with. A tab that has none takes the one that
 * another tab was given; a tab that has one keeps it, whatever the others do.
 */
import { http } from "@liveroom/client";
import { computed, signal } from "@preact/signals";
import { liveRoom, onToken, roomOfPath, sourceOfQuery, tokenOfFragment } from "../live/live.ts";

const TOKEN = "liveroom.token";

const given = tokenOfFragment();
if (given) localStorage.setItem(TOKEN, given);

const token = signal(localStorage.getItem(TOKEN));

export const show = liveRoom(roomOfPath(), token.value, sourceOfQuery());
export const api = http("", () => token.value);

/** A member has a token; a guest is asked for a name before buying. */
export const signedIn = computed(() => token.value !== null);

/** Who buys at this tab, as a key: what one asked for is not another's to ask for again. */
export const buyer = (): string => token.value ?? "";

function take(next: string | null): void {
  token.value = next;
  show.room.signIn(next);
}

onToken((next) => {
  localStorage.setItem(TOKEN, next);
  take(next);
});

/** Where this tab is a guest: become who another tab has become. */
export function takeKept(): boolean {
  const kept = localStorage.getItem(TOKEN);
  if (signedIn.value || !kept) return false;
  take(kept);
  return true;
}

/** Become a buyer of the sandbox under this name, unless this tab is a member by now. */
export async function becomeBuyer(name: string): Promise<void> {
  const { token: made } = await api.post<{ token: string }>("/v1/sandbox/tokens", { name });
  if (signedIn.value || takeKept()) return;
  localStorage.setItem(TOKEN, made);
  take(made);
}

/** The token has ended: go on with what another tab has, or as a guest. */
export function endSeat(): void {
  const kept = localStorage.getItem(TOKEN);
  const other = kept === token.value ? null : kept;
  if (!other) localStorage.removeItem(TOKEN);
  take(other);
}

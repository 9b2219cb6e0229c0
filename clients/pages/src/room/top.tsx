/** The top of the page: the host, who watches, the connection, the language. */
import { useState } from "preact/hooks";
import { Tick } from "../parts/figures.tsx";
import { EyeMark } from "../parts/marks.tsx";
import { hashOf } from "../parts/picture.tsx";
import { compact, full, switchLanguage, t } from "../words/language.ts";
import { follow, followed, show } from "./show.ts";

export function Face({ id, name }: { id: string; name: string }) {
  return (
    <span class={`face hue-${hashOf(id) % 6}`} aria-hidden="true">
      {[...name.trim()][0]?.toUpperCase() ?? "·"}
    </span>
  );
}

function Dot() {
  const [said, setSaid] = useState(false);
  const status = show.status.value;
  const words = t(`state.${status}`);
  const loud = said || status !== "open";
  return (
    <button type="button" class={`dot ${status}`} onClick={() => setSaid(!said)} aria-label={words}>
      <i />
      {loud && <span>{words}</span>}
    </button>
  );
}

export function Top() {
  const room = show.$room.value;
  const host = room?.host_name ?? room?.host ?? "…";
  const follows = room !== null && followed.value.includes(room.host);
  const viewers = show.$viewers.value;
  return (
    <header class="top">
      <div class="host">
        <Face id={room?.host ?? ""} name={host} />
        <div class="who">
          <strong>{host}</strong>
          <h1>{room?.title ?? " "}</h1>
        </div>
        {room && (
          <button
            type="button"
            class="follow"
            aria-pressed={follows}
            disabled={follows}
            onClick={() => follow(room.host)}
          >
            {t(follows ? "room.following" : "room.follow")}
          </button>
        )}
      </div>
      <div class="facts">
        <span class="pill" title={t("room.watching", { n: full(viewers) })}>
          <EyeMark />
          <Tick>{compact(viewers)}</Tick>
          <span class="unseen">{t("room.watching", { n: full(viewers) })}</span>
        </span>
        <button
          type="button"
          class="pill"
          onClick={switchLanguage}
          aria-label={t("app.language.label")}
        >
          {t("app.language")}
        </button>
        <Dot />
      </div>
    </header>
  );
}

/** The viewer page. */
import { signal } from "@preact/signals";
import { render } from "preact";
import { useEffect } from "preact/hooks";
import "../look/base.css";
import "./room.css";
import { onNoRoom } from "../live/live.ts";
import { BagMark, CloseMark } from "../parts/marks.tsx";
import { Stage } from "../parts/stage.tsx";
import { Toasts } from "../parts/toasts.tsx";
import { t } from "../words/language.ts";
import { keepBack } from "./back.ts";
import { Comments, Composer } from "./comments.tsx";
import { Drops } from "./drops.tsx";
import { Air, HeartButton } from "./heart.tsx";
import { Pins } from "./pins.tsx";
import { asMember, inBag, onAir, sheet, show, tab, wide } from "./show.ts";
import { Taken } from "./taken.tsx";
import { Top } from "./top.tsx";

const NOTICE_MS = 12_000;

const gone = signal(false);

/** The sheet and the bag: fetched once the room is on the screen, not before. */
const later = signal<typeof import("./sheet.tsx") | null>(null);
const fetchLater = async () => {
  later.value = await import("./sheet.tsx");
};

onNoRoom(show.room, () => {
  gone.value = true;
});

function Notice() {
  const text = show.$notice.value;
  const said = signalOf(text);
  if (!said) return null;
  return (
    <div class="notice" role="status">
      <span>
        <b>{t("room.notice")}</b> {said}
      </span>
      <button type="button" onClick={() => hide(said)} aria-label={t("app.close")}>
        <CloseMark />
      </button>
    </div>
  );
}

const hidden = signal<string | null>(null);
const hide = (text: string) => {
  hidden.value = text;
};
const signalOf = (text: string | null) => (text && hidden.value !== text ? text : null);
show.room.on("notice.posted", ({ data }) => {
  hidden.value = null;
  setTimeout(() => hide(data.text), NOTICE_MS);
});

const forMembers = () => show.room.why?.code === "unauthenticated";

function closedWords(): string | null {
  const code = show.room.why?.code;
  if (show.status.value !== "closed") return null;
  if (gone.value || code === "room_gone") return t("state.gone");
  if (code === "banned") return t("state.banned");
  if (code === "replaced") return t("state.replaced");
  if (forMembers()) return t("state.members");
  return t("state.closed");
}

/** What stands in the middle of the stage when there is nothing to watch. */
function Curtain() {
  const lost = closedWords();
  const state = show.$room.value?.state;
  const words =
    lost ?? (state === "closed" ? t("room.ended") : state === "planned" ? t("room.planned") : null);
  if (!words) return null;
  return (
    <div class="curtain" role="status">
      <p>{words}</p>
      {lost && !gone.value && (
        <button
          type="button"
          class="button"
          onClick={() => (forMembers() ? asMember(() => {}) : show.room.open())}
        >
          {t(forMembers() ? "state.signin" : "state.again")}
        </button>
      )}
      {(state === "closed" || gone.value) && (
        <a class="button" href="/">
          {t("app.home")}
        </a>
      )}
    </div>
  );
}

function BagButton() {
  const count = inBag.value;
  return (
    <button
      type="button"
      class="round bag-button"
      onClick={() => {
        sheet.value = { kind: "bag", tab: count ? "cart" : "shelf" };
      }}
      aria-label={`${t("bag.open")}${count ? ` (${count})` : ""}`}
    >
      <BagMark />
      {count > 0 && <span class="count num">{count}</span>}
    </button>
  );
}

function Page() {
  const title = show.$room.value?.title;
  const { Bag, Sheet } = later.value ?? {};
  useEffect(() => {
    void fetchLater();
  }, []);
  useEffect(() => {
    if (title) document.title = `${title} · liveroom`;
  }, [title]);
  return (
    <div class={`room ${wide.value ? "wide" : "narrow"}`}>
      {wide.value && (
        <aside class="side" aria-label={t("bag.open")}>
          <a class="wordmark" href="/">
            <img src={new URL("../look/mark.svg", import.meta.url).href} alt="" />
            liveroom
          </a>
          {Bag && <Bag now={tab.value} />}
        </aside>
      )}
      <main class="screen">
        <Stage stream={show.$room.value?.stream} onAir={onAir.value} />
        <Top />
        <Notice />
        <Curtain />
        <Air />
        <div class="lower">
          {!wide.value && <Comments />}
          <Taken />
          <Drops />
          <Pins />
          {!wide.value && (
            <div class="hand">
              <Composer />
              <BagButton />
              <HeartButton />
            </div>
          )}
        </div>
      </main>
      {wide.value && (
        <aside class="side talk" aria-label={t("chat.title")}>
          <h2>{t("chat.title")}</h2>
          <Comments />
          <div class="hand">
            <Composer />
            <HeartButton />
          </div>
        </aside>
      )}
      {Sheet && <Sheet />}
      <Toasts />
    </div>
  );
}

keepBack();
render(<Page />, document.getElementById("app") as HTMLElement);

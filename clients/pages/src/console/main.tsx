/** The host console: read at a glance, worked with one key. */
import { render } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import "../words/host.ts";
import "../look/base.css";
import "./console.css";
import type { Live } from "../live/live.ts";
import { Tick } from "../parts/figures.tsx";
import { CloseMark } from "../parts/marks.tsx";
import { hashOf, Picture } from "../parts/picture.tsx";
import { Stage } from "../parts/stage.tsx";
import { Toasts, toast } from "../parts/toasts.tsx";
import { clock, full, money, switchLanguage, t } from "../words/language.ts";
import {
  desk,
  inTurn,
  isForField,
  leaving,
  orders,
  pause,
  pin,
  removeComment,
  roomId,
  sitDown,
  taken,
  threeParts,
  tryTo,
  turnedAway,
  undoLast,
  unpin,
} from "./desk.ts";
import { HostDrops } from "./drops.tsx";
import { Minutes } from "./minutes.tsx";
import { HostShelf } from "./shelf.tsx";

const SHOWN_MAX = 120;

function SignIn() {
  const enter = (event: SubmitEvent) => {
    event.preventDefault();
    const value = new FormData(event.currentTarget as HTMLFormElement).get("token");
    if (typeof value === "string" && value.trim()) sitDown(value.trim());
  };
  return (
    <main class="door">
      <form class="panel" onSubmit={enter}>
        <a class="wordmark" href="/">
          <img src={new URL("../look/mark.svg", import.meta.url).href} alt="" />
          liveroom
        </a>
        <h1>
          {t("host.console")} · {roomId}
        </h1>
        <p class="note">{t("host.token.why")}</p>
        <input
          class="field"
          name="token"
          type="password"
          required
          autocomplete="off"
          aria-label={t("host.token")}
          placeholder={t("host.token")}
        />
        {turnedAway.value && (
          <p class="failed" role="alert">
            {turnedAway.value}
          </p>
        )}
        <button type="submit" class="button buy wide">
          {t("host.enter")}
        </button>
      </form>
    </main>
  );
}

const Fact = ({ value, word, note }: { value: string; word: string; note?: string }) => (
  <div class="fact">
    <dd class="num">
      <Tick>{value}</Tick>
    </dd>
    <dt>
      {word}
      {note && <em> {note}</em>}
    </dt>
  </div>
);

/** What was paid and not given back, by currency; of a room that sold nothing, nothing. */
function Paid({ currency = "CNY" }: { currency: string | undefined }) {
  const word = t("host.sales");
  if (!taken.value.length) return <Fact value={money(0, currency)} word={word} />;
  return taken.value.map(({ currency: of, kept_minor, back_minor }) => {
    const note = back_minor ? { note: t("host.back", { price: money(back_minor, of) }) } : {};
    return <Fact key={of} value={money(kept_minor, of)} word={word} {...note} />;
  });
}

function EndDialog({ live }: { live: Live }) {
  const box = useRef<HTMLDialogElement>(null);
  const end = () => {
    box.current?.close();
    tryTo(live.room.send("room.close", {}));
  };
  return (
    <>
      <button type="button" class="button small" onClick={() => box.current?.showModal()}>
        {t("host.end")}
      </button>
      <dialog ref={box} class="ask" aria-labelledby="end-title">
        <h2 id="end-title">{t("host.end.ask")}</h2>
        <p class="note">{t("host.end.why")}</p>
        <div class="two">
          <button type="button" class="button" onClick={() => box.current?.close()}>
            {t("host.stay")}
          </button>
          <button type="button" class="button buy" onClick={end}>
            {t("host.end")}
          </button>
        </div>
      </dialog>
    </>
  );
}

function Head({ live }: { live: Live }) {
  const room = live.$room.value;
  const status = live.status.value;
  const skus = live.$shelf.value.flatMap((product) => product.skus.map((sku) => sku.id));
  const on = room?.state === "live";
  const since = room?.opened_at ? (room.closed_at ?? live.now.value) - room.opened_at : 0;
  return (
    <header class="head">
      <div class="title">
        <span class={`live-tag ${on ? "" : "off"}`}>
          {t(on ? "app.live" : room?.state === "closed" ? "app.ended" : "app.soon")}
        </span>
        {room?.opened_at && <span class="since num">{clock(since, true)}</span>}
        <h1>{room?.title}</h1>
        {status !== "open" && (
          <span class="lost" role="status">
            {t(`state.${status}`)}
          </span>
        )}
      </div>
      <dl class="figures">
        <Fact value={full(live.$viewers.value)} word={t("host.watching")} />
        <Paid currency={live.$shelf.value[0]?.currency} />
        <Fact value={full(Object.keys(orders.value).length)} word={t("host.orders")} />
        <Fact value={full(threeParts(live, skus).held)} word={t("host.held")} />
      </dl>
      <div class="switches">
        <a
          class="button small"
          href={`/room/${encodeURIComponent(roomId)}`}
          target="_blank"
          rel="noopener"
        >
          {t("host.viewer")}
        </a>
        <button
          type="button"
          class="button small"
          onClick={switchLanguage}
          aria-label={t("app.language.label")}
        >
          {t("app.language")}
        </button>
        {room?.state === "planned" && (
          <button
            type="button"
            class="button small buy"
            onClick={() => tryTo(live.room.send("room.open", {}))}
          >
            {t("host.open")}
          </button>
        )}
        {on && (
          <>
            <button
              type="button"
              class={`button small ${room.paused ? "warn" : ""}`}
              aria-pressed={Boolean(room.paused)}
              aria-keyshortcuts="P"
              onClick={() => tryTo(pause(live, !room.paused))}
            >
              {t(room.paused ? "host.resume" : "host.pause")} <kbd>P</kbd>
            </button>
            <EndDialog live={live} />
          </>
        )}
      </div>
    </header>
  );
}

function NoticeForm({ live }: { live: Live }) {
  const [text, setText] = useState("");
  const post = (event: SubmitEvent) => {
    event.preventDefault();
    const words = text.trim();
    if (!words) return;
    tryTo(
      live.room.send("notice.post", { text: words }).then(() => {
        setText("");
        toast(t("host.notice.sent"));
      }),
    );
  };
  return (
    <form class="notice-form" onSubmit={post}>
      <input
        class="field"
        value={text}
        maxLength={200}
        placeholder={t("host.notice")}
        aria-label={t("host.notice")}
        onInput={(event) => setText(event.currentTarget.value)}
      />
      <button type="submit" class="button" disabled={!text.trim()}>
        {t("host.notice.send")}
      </button>
    </form>
  );
}

function OnAir({ live }: { live: Live }) {
  const pinned = live.$pinned.value;
  const newest = pinned.at(-1);
  return (
    <section class="panel onair-panel" aria-labelledby="onair-title">
      <h2 id="onair-title">
        {t("host.onair")}
        {pinned.length > 0 && (
          <button
            type="button"
            class="link"
            aria-keyshortcuts="0"
            onClick={() => tryTo(unpin(live, pinned))}
          >
            {t("host.unpinAll")} <kbd>0</kbd>
          </button>
        )}
      </h2>
      <div class="air-grid">
        <div class="preview" role="img" aria-label={t("host.preview")}>
          <Stage onAir={newest} />
          {newest && (
            <div class="mini-pin">
              <Picture product={newest} />
              <span>
                <b>{newest.title}</b>
                <span class="num">
                  {money(Math.min(...newest.skus.map((sku) => sku.price_minor)), newest.currency)}
                </span>
              </span>
            </div>
          )}
        </div>
        <div class="now">
          {newest ? (
            <ul class="pinned-list">
              {[...pinned].reverse().map((product) => {
                const { sold, held, left } = threeParts(
                  live,
                  product.skus.map((sku) => sku.id),
                );
                return (
                  <li key={product.id}>
                    <h3>{product.title}</h3>
                    <dl>
                      <Fact value={full(left)} word={t("host.onsale")} />
                      <Fact value={full(held)} word={t("host.held")} />
                      <Fact value={full(sold)} word={t("host.sold")} />
                    </dl>
                  </li>
                );
              })}
            </ul>
          ) : (
            <p class="quiet">{t("host.onair.none")}</p>
          )}
          <Minutes live={live} />
        </div>
      </div>
      <HostDrops live={live} />
      <NoticeForm live={live} />
      <p class="note keys">{t("host.keys")}</p>
    </section>
  );
}

function Talk({ live }: { live: Live }) {
  const list = useRef<HTMLDivElement>(null);
  const [follow, setFollow] = useState(true);
  const said = live.$messages.value.filter((one) => !leaving.value.has(one.id)).slice(-SHOWN_MAX);
  const last = said.at(-1)?.id;
  useEffect(() => {
    if (last && follow && list.current) list.current.scrollTop = list.current.scrollHeight;
  }, [last, follow]);
  const scrolled = () => {
    const box = list.current;
    if (box) setFollow(box.scrollHeight - box.scrollTop - box.clientHeight < 60);
  };
  return (
    <section class="panel talk" aria-labelledby="talk-title">
      <h2 id="talk-title">{t("host.comments")}</h2>
      <div class="log" ref={list} onScroll={scrolled} role="log" aria-live="off" tabIndex={0}>
        <ul>
          {said.map((one) => (
            <li key={one.id}>
              <p>
                <b class={`hue-${hashOf(one.member) % 6}`}>{one.name}</b> {one.text}
              </p>
              <button
                type="button"
                class="remove"
                onClick={() => removeComment(live, one.id)}
                aria-label={`${t("host.remove")}: ${one.name} ${one.text}`}
                title={t("host.remove")}
              >
                <CloseMark />
              </button>
            </li>
          ))}
        </ul>
      </div>
    </section>
  );
}

/** The keys of the console; none of them while somebody types. */
function onKey(live: Live, event: KeyboardEvent): void {
  if (isForField(event)) return;
  const product = /^[1-9]$/.test(event.key) ? live.$shelf.value[Number(event.key) - 1] : undefined;
  const key = event.key.toLowerCase();
  if (product) inTurn(() => tryTo(pin(live, product)));
  else if (key === "0") inTurn(() => tryTo(unpin(live, live.$pinned.value)));
  else if (key === "p" && live.$room.value?.state === "live") {
    inTurn(() => tryTo(pause(live, !live.$room.value?.paused)));
  } else if (key === "z") inTurn(undoLast);
}

function Desk({ live }: { live: Live }) {
  useEffect(() => {
    const listen = (event: KeyboardEvent) => onKey(live, event);
    addEventListener("keydown", listen);
    return () => removeEventListener("keydown", listen);
  }, [live]);
  return (
    <div class="console">
      <Head live={live} />
      <main class="desk">
        <HostShelf live={live} />
        <OnAir live={live} />
        <Talk live={live} />
      </main>
    </div>
  );
}

const Page = () => (
  <>
    {desk.value ? <Desk live={desk.value} /> : <SignIn />}
    <Toasts />
  </>
);

document.title = `${t("host.console")} · ${roomId}`;
render(<Page />, document.getElementById("app") as HTMLElement);

/** The list of rooms: live ones first. */
import { http, type Product, type RoomInfo, type Snapshot } from "@liveroom/client";
import { signal } from "@preact/signals";
import { render } from "preact";
import "../look/base.css";
import "./home.css";
import { leftOf, priceOf } from "../live/stock.ts";
import { EyeMark } from "../parts/marks.tsx";
import { Picture } from "../parts/picture.tsx";
import { Scene } from "../parts/scene.tsx";
import { compact, full, language, money, switchLanguage, t } from "../words/language.ts";

const EVERY_MS = 10_000;
const LOOKED_INTO_MAX = 12;

const api = http();
const rooms = signal<RoomInfo[] | null>(null);
const inside = signal<Record<string, Snapshot>>({});
const failed = signal(false);

/** Look into the rooms that are live or come: how many watch, and what is on air. */
async function lookInto(room: RoomInfo): Promise<void> {
  const seen = await api.get<Snapshot>(`/v1/rooms/${encodeURIComponent(room.id)}`);
  inside.value = { ...inside.value, [room.id]: seen };
}

async function read(): Promise<void> {
  try {
    const { items } = await api.get<{ items: RoomInfo[] }>("/v1/rooms");
    rooms.value = items;
    failed.value = false;
    const seen = items.filter((room) => room.state !== "closed" && room.guests !== false);
    await Promise.all(seen.slice(0, LOOKED_INTO_MAX).map(lookInto));
  } catch {
    failed.value = true; // Said on the page, and tried again with the next reading.
  }
}

function OnAirNow({ product, left }: { product: Product; left: number | null }) {
  const { minor } = priceOf(product);
  return (
    <div class="on-now">
      <span>{product.title}</span>
      <b class="num">{money(minor, product.currency)}</b>
      {left !== null && (
        <span class="num">{left ? t("buy.left", { n: left }) : t("buy.soldout")}</span>
      )}
    </div>
  );
}

function Card({ room, hero }: { room: RoomInfo; hero: boolean }) {
  const seen = inside.value[room.id];
  const onAir = seen?.pinned?.at(-1) ?? seen?.shelf?.[0];
  const live = room.state === "live";
  const word = live ? "app.live" : room.state === "closed" ? "app.ended" : "app.soon";
  return (
    <li class={hero ? "hero-place" : ""}>
      <a
        class={`card ${room.state} ${hero ? "hero" : ""}`}
        href={`/room/${encodeURIComponent(room.id)}`}
      >
        <div class="scene-box">
          <Scene />
          {onAir && (
            <div class="medal">
              <Picture product={onAir} />
            </div>
          )}
        </div>
        <div class="card-top">
          <span class={`live-tag ${live ? "" : "off"}`}>{t(word)}</span>
          {seen && (
            <span class="watch num">
              <EyeMark />
              <span aria-hidden="true">{compact(seen.viewers ?? 0)}</span>
              <span class="unseen">{t("room.watching", { n: full(seen.viewers ?? 0) })}</span>
            </span>
          )}
        </div>
        <div class="card-words">
          <h2>{room.title}</h2>
          <p>{room.host_name ?? room.host}</p>
          {hero && onAir && <OnAirNow product={onAir} left={leftOf(onAir, seen?.stock ?? {})} />}
        </div>
      </a>
    </li>
  );
}

function Page() {
  document.title = `liveroom · ${t("app.tagline")}`;
  const list = rooms.value;
  return (
    <div class="home">
      <header>
        <span class="wordmark">
          <img src={new URL("../look/mark.svg", import.meta.url).href} alt="" />
          liveroom
        </span>
        <button
          type="button"
          class="button small"
          onClick={switchLanguage}
          aria-label={t("app.language.label")}
        >
          {t("app.language")}
        </button>
      </header>
      <main lang={language.value}>
        <h1>{t("app.tagline")}</h1>
        {failed.value && (
          <p class="empty" role="alert">
            {t("app.failed")}
          </p>
        )}
        {list?.length === 0 && (
          <div class="empty">
            <p>{t("app.empty")}</p>
            <p class="note">{t("app.empty.how")}</p>
          </div>
        )}
        <ul class="cards">
          {(list ?? []).map((room, i) => (
            <Card key={room.id} room={room} hero={i === 0 && room.state === "live"} />
          ))}
        </ul>
      </main>
    </div>
  );
}

void read();
setInterval(() => {
  if (!document.hidden) void read();
}, EVERY_MS);
render(<Page />, document.getElementById("app") as HTMLElement);

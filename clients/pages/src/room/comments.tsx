/** What people say: follows the newest, unless the reader has scrolled back. */
import type { Message } from "@liveroom/client";
import { signal } from "@preact/signals";
import { useLayoutEffect, useRef, useState } from "preact/hooks";
import { SendMark } from "../parts/marks.tsx";
import { hashOf } from "../parts/picture.tsx";
import { toast } from "../parts/toasts.tsx";
import { t } from "../words/language.ts";
import { refusal, show } from "./show.ts";

const SHOWN_MAX = 100;

/** Said here and not yet answered; replaced by the message itself. */
const pending = signal<{ key: string; text: string }[]>([]);

async function say(text: string): Promise<void> {
  const key = crypto.randomUUID();
  pending.value = [...pending.value, { key, text }];
  try {
    await show.room.send("message.post", { text }, key);
  } finally {
    pending.value = pending.value.filter((one) => one.key !== key);
  }
}

const Line = ({ one, mine, host }: { one: Message; mine: boolean; host: boolean }) => (
  <li class={mine ? "mine" : ""}>
    {host && <em class="badge">{t("chat.host")}</em>}
    <b class={`hue-${hashOf(one.member) % 6}`}>{one.name}</b> {one.text}
  </li>
);

export function Comments() {
  const list = useRef<HTMLDivElement>(null);
  const [back, setBack] = useState<number | null>(null);
  const said = show.$messages.value.slice(-SHOWN_MAX);
  const you = show.you.value;
  const host = show.$room.value?.host;
  const last = said.at(-1)?.n ?? 0;

  useLayoutEffect(() => {
    if (list.current && back === null) list.current.scrollTop = list.current.scrollHeight;
  }, [last, pending.value.length, back]);

  const scrolled = () => {
    const box = list.current;
    if (!box) return;
    const down = box.scrollHeight - box.scrollTop - box.clientHeight < 40;
    setBack(down ? null : (back ?? last));
  };
  const fresh = back === null ? 0 : last - back;
  return (
    <section class="comments" aria-label={t("chat.title")}>
      <div class="log" ref={list} onScroll={scrolled} role="log" aria-live="polite" tabIndex={0}>
        <ul>
          {said.length === 0 && show.$room.value?.state === "live" && (
            <li class="quiet">{t("chat.empty")}</li>
          )}
          {said.map((one) => (
            <Line key={one.id} one={one} mine={one.member === you?.id} host={one.member === host} />
          ))}
          {pending.value.map((one) => (
            <li key={one.key} class="mine pending">
              <b>{you?.name ?? t("chat.you")}</b> {one.text}
            </li>
          ))}
        </ul>
      </div>
      {fresh > 0 && (
        <button type="button" class="fresh" onClick={() => setBack(null)}>
          ↓ {t("chat.new", { n: fresh })}
        </button>
      )}
    </section>
  );
}

export function Composer() {
  const [text, setText] = useState("");
  const closed = show.$room.value?.state === "closed";
  const send = (event: Event) => {
    event.preventDefault();
    const words = text.trim();
    if (!words) return;
    setText("");
    say(words).catch((error) => {
      setText((now) => now || words);
      toast(refusal(error));
    });
  };
  return (
    <form class="composer" onSubmit={send}>
      <input
        class="field"
        name="message"
        autocomplete="off"
        enterkeyhint="send"
        maxLength={500}
        value={text}
        disabled={closed}
        placeholder={t(closed ? "chat.ended" : "chat.say")}
        aria-label={t("chat.say")}
        onInput={(event) => setText(event.currentTarget.value)}
      />
      {text.trim() && (
        <button type="submit" class="send" aria-label={t("chat.send")}>
          <SendMark />
        </button>
      )}
    </form>
  );
}

/** A viewer becomes a buyer with one tap: a name is proposed, the sandbox gives the token. */
import { useState } from "preact/hooks";
import { toast } from "../parts/toasts.tsx";
import { language, t } from "../words/language.ts";
import { Running } from "./drops.tsx";
import { till } from "./paying.ts";
import { becomeBuyer } from "./seat.ts";
import { refusal, type Sheet, sheet } from "./show.ts";

const NAMES = {
  en: ["Mia", "Noah", "Ivy", "Leo", "Ada", "Finn", "June", "Otis"],
  zh: ["小林", "阿月", "知夏", "一诺", "南星", "乐乐", "木木", "小满"],
};

function proposed(): string {
  const names = NAMES[language.value];
  return names[Math.floor(Math.random() * names.length)] as string;
}

type Asked = Pick<Extract<Sheet, { kind: "sign-in" }>, "then" | "back">;

/** Without the sandbox a buyer comes signed in from the shop; this page knows no password. */
export function SignIn({ then, back }: Asked) {
  if (!till.value) return <p class="quiet">{t("state.connecting")}</p>;
  if (till.value === "sandbox") return <BecomeBuyer then={then} back={back} />;
  return (
    <div class="sign-in">
      <h2 id="sheet-title">{t("you.shop")}</h2>
      <p class="note">{t("you.none")}</p>
    </div>
  );
}

function BecomeBuyer({ then, back }: Asked) {
  const [name, setName] = useState(proposed);
  const [busy, setBusy] = useState(false);
  const go = async (event: Event) => {
    event.preventDefault();
    setBusy(true);
    const mine = sheet.value;
    try {
      await becomeBuyer(name.trim());
      if (sheet.value !== mine) return; // put away meanwhile: no longer wanted
      sheet.value = back; // What it was for may be refused, and is then tried another way.
      then();
    } catch (error) {
      toast(refusal(error));
      setBusy(false);
    }
  };
  return (
    <form class="sign-in" onSubmit={go}>
      <Running />
      <h2 id="sheet-title">{t("you.title")}</h2>
      <p class="note">{t("you.why")}</p>
      <input
        class="field"
        name="name"
        maxLength={40}
        required
        value={name}
        aria-label={t("you.name")}
        onInput={(event) => setName(event.currentTarget.value)}
      />
      <button type="submit" class="button buy wide" disabled={busy || !name.trim()}>
        {t("you.go", { name: name.trim() || "…" })}
      </button>
    </form>
  );
}

/** A thing that was asked for keeps its id until there is a last word on it. */
import { ConnectionLost, Refused, RoomClosed, Unavailable } from "@liveroom/client";
import { expect, test } from "vitest";
import { Once } from "../src/live/once.ts";

async function tried(once: Once, what: string, error?: Error): Promise<string> {
  let used = "";
  const act = async (id: string) => {
    used = id;
    if (error) throw error;
  };
  await once.do(what, act).catch((thrown) => expect(thrown).toBe(error));
  return used;
}

test.each([
  new ConnectionLost(),
  new RoomClosed(),
  new Unavailable({ code: "store_down", retry: true }),
])("what may have been done all the same is asked for again under its id", async (error) => {
  const once = new Once();
  const id = await tried(once, "lamp", error);
  expect(await tried(once, "lamp", error)).toBe(id);
  expect(await tried(once, "scarf", error)).not.toBe(id);
  expect(await tried(once, "lamp")).toBe(id);
  expect(await tried(once, "lamp")).not.toBe(id);
});

test("a refusal is a last word, and so is what became of it meanwhile", async () => {
  const once = new Once();
  const id = await tried(once, "lamp", new Refused({ code: "sold_out" }));
  const next = await tried(once, "lamp", new ConnectionLost());
  expect(next).not.toBe(id);
  const other = await once.do(
    "lamp",
    async (used) => used,
    (before) => before === next,
  );
  expect(other).not.toBe(next);
});

test("of more things than anybody asks for the oldest is forgotten", async () => {
  const once = new Once();
  const ids: string[] = [];
  for (let n = 0; n <= 50; n++) ids.push(await tried(once, `${n}`, new ConnectionLost()));
  expect(await tried(once, "50", new ConnectionLost())).toBe(ids[50]);
  expect(await tried(once, "0")).not.toBe(ids[0]);
});

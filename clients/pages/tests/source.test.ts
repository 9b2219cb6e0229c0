/** What the page's address says of where its viewer came from. */
import { expect, test } from "vitest";
import { sourceOfQuery } from "../src/live/live.ts";

test("a source is a kind, or a kind and an id", () => {
  expect(sourceOfQuery("?source=note.n1")).toEqual({ kind: "note", id: "n1" });
  expect(sourceOfQuery("?a=b&source=share.u-7.x_y")).toEqual({ kind: "share", id: "u-7.x_y" });
  expect(sourceOfQuery("?source=search")).toEqual({ kind: "search" });
});

test("what is none is passed over: a link that somebody mangled must not keep anyone from buying", () => {
  const mangled = [
    "",
    "?source=",
    "?source=advert.x",
    "?source=note.",
    "?source=note.a/b",
    "?source=notes",
  ];
  for (const query of [...mangled, `?source=note.${"x".repeat(65)}`]) {
    expect(sourceOfQuery(query)).toBeNull();
  }
});

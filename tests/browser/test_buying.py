"""What a buyer meets where something goes wrong, or goes another way than the shortest."""

from __future__ import annotations

import json
from typing import Any

import pytest
from playwright.sync_api import Page, expect

pytestmark = pytest.mark.browser


def look_at(page: Page, title: str) -> None:
    """Open a product of the shelf."""
    page.get_by_role("button", name="Bag").click()
    page.get_by_role("tab", name="Shelf").click()
    page.get_by_role("button", name=f"Buy: {title}").click()


def test_pressing_again_after_a_failure_buys_once(shop, open_page):
    """An order that was placed though the answer said "try again" is the one that is shown."""
    page = open_page()
    page.add_init_script("Math.random = () => 0")  # No backoff: the SDK tries at once.
    asked: list[str] = []
    ids: set[int] = set()
    away = True

    def relay(wire: Any) -> None:
        server = wire.connect_to_server()

        def up(text: str) -> None:
            frame = json.loads(text)
            if frame["cmd"] == "order.place":
                ids.add(frame["id"])
                asked.append(frame["data"]["order"])
            server.send(text)

        def down(text: str) -> None:
            error = {"code": "store_down", "message": "Try again.", "retry": True}
            said = [
                {"re": one["re"], "error": error} if away and one.get("re") in ids else one
                for one in json.loads(text)
                if not (away and one.get("ev") == "order.placed")
            ]
            wire.send(json.dumps(said))

        wire.on_message(up)
        server.on_message(down)

    page.route_web_socket("**/ws/tonight", relay)
    token = shop.token("dee")
    page.goto(f"{shop.url}/room/tonight#token={token}")
    look_at(page, "Paper table lamp")
    page.get_by_role("button", name="Buy now · ¥329").click()
    expect(page.get_by_text("Try again.")).to_be_visible()
    away = False
    page.get_by_role("button", name="Buy now · ¥329").click()
    expect(page.get_by_role("dialog")).to_contain_text("Your order")
    assert len(asked) > 1
    assert len(set(asked)) == 1
    with shop.http(token) as http:
        assert len(http.get("/v1/orders").json()["items"]) == 1

"""What a buyer meets where something goes wrong, or goes another way than the shortest."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import filled, host
from tests.live import Live

pytestmark = pytest.mark.browser


@pytest.fixture
def earnest(tmp_path: Path) -> Iterator[Live]:
    """A server with the shop, without the sandbox."""
    with filled(tmp_path, "--sandbox=false") as live:
        yield live


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


def test_without_the_sandbox_only_what_is_true_is_offered(earnest, open_page):
    """A guest is sent to the shop; an order is paid at its provider's page, if there is one."""
    guest = open_page(f"{earnest.url}/room/tonight")
    look_at(guest, "Paper table lamp")
    guest.get_by_role("button", name="Buy now · ¥329").click()
    sheet = guest.get_by_role("dialog")
    expect(sheet.get_by_role("heading", name="Sign in to buy")).to_be_visible()
    expect(sheet).not_to_contain_text("sandbox")

    page = open_page()
    providers: list[str] = []
    payment = {"id": "p1", "provider": "stripe", "state": "open", "url": f"{earnest.url}/?paying"}

    def relay(wire: Any) -> None:
        server = wire.connect_to_server()

        def up(text: str) -> None:
            frame = json.loads(text)
            if frame["cmd"] == "payment.start":
                wire.send(json.dumps([{"re": frame["id"], "ok": {"payment": payment}}]))
            else:
                server.send(text)

        wire.on_message(up)

    page.route_web_socket("**/ws/tonight", relay)
    page.route(
        "**/v1/payments/providers",
        lambda route: (
            route.fulfill(json={"items": providers, "next": None})
            if providers
            else route.continue_()
        ),
    )
    page.goto(f"{earnest.url}/room/tonight#token={earnest.token('eve')}")
    look_at(page, "Paper table lamp")
    page.get_by_role("button", name="Buy now · ¥329").click()
    sheet = page.get_by_role("dialog")
    expect(sheet).to_contain_text("No way to pay is set up here.")
    expect(sheet.get_by_role("button", name="Pay")).to_have_count(0)
    expect(sheet).not_to_contain_text("sandbox")

    providers.append("stripe")
    page.reload()
    page.get_by_role("button", name="Bag").click()
    page.get_by_role("tab", name="Orders").click()
    page.get_by_role("button", name="To be paid").click()
    expect(sheet).not_to_contain_text("declined")
    page.get_by_role("button", name="Pay ¥329").click()
    page.wait_for_url(f"{earnest.url}/?paying")


def test_back_closes_a_sheet_and_then_leaves(shop, open_page):
    """However many sheets were opened, each is closed by Back, and the next Back is the list's."""
    page = open_page(shop.url)
    page.get_by_role("link", name="Linen evening").click()
    sheet = page.get_by_role("dialog")
    look_at(page, "Paper table lamp")
    page.get_by_role("button", name="Buy now · ¥329").click()
    expect(page.get_by_label("Your name")).to_be_visible()
    page.go_back()
    expect(sheet).to_have_count(0)
    for _ in range(3):
        look_at(page, "Paper table lamp")
        page.keyboard.press("Escape")
        expect(sheet).to_have_count(0)
    page.get_by_role("button", name="Bag").click()
    page.reload()
    expect(page.get_by_role("button", name="Bag")).to_be_visible()
    assert page.url == f"{shop.url}/room/tonight"
    page.go_back()
    expect(page).to_have_url(f"{shop.url}/")


def test_a_refusal_right_after_signing_in_leaves_the_choice_open(shop, open_page):
    """What sold out while somebody signed in is said, and the sheet is there to choose again."""
    page = open_page(f"{shop.url}/room/tonight")
    asked: list[Any] = []
    page.route("**/v1/sandbox/tokens", lambda route: asked.append(route))  # noqa: PLW0108 - wants a Python function
    look_at(page, "桂花香薰蜡烛")
    page.locator(".choice label").filter(has_text="Large").click()
    page.get_by_role("button", name="One more").click()
    page.get_by_role("button", name="Buy now · ¥256").click()
    page.get_by_role("button", name="Continue as").click()
    expect(page.get_by_role("button", name="Continue as")).to_be_disabled()
    host(shop, "stock.adjust", sku="candle-1", delta=-11, why="sold elsewhere")
    asked[0].continue_()
    expect(page.get_by_text("Sold out. Somebody was faster.")).to_be_visible()
    expect(page.get_by_role("radio", name="Large")).to_be_checked()
    page.get_by_role("button", name="Buy now · ¥128").click()
    expect(page.get_by_role("dialog")).to_contain_text("桂花香薰蜡烛 · Large × 1")


def test_what_has_left_the_shelf_keeps_a_name(shop, open_page):
    """In cart and orders it is called what it was, after a reload by a word, never by its id."""
    page = open_page(f"{shop.url}/room/tonight#token={shop.token('fay')}")
    look_at(page, "Cashmere-blend cardigan")
    page.get_by_role("button", name="Add to cart").click()
    page.get_by_role("button", name="Bag (1)").click()
    host(shop, "shelf.remove", product="cardigan")
    cart = page.get_by_role("tabpanel")
    page.get_by_role("tab", name="Shelf").click()
    expect(cart).not_to_contain_text("cardigan")
    page.get_by_role("tab", name="Cart").click()
    expect(cart).to_contain_text("Cashmere-blend cardigan · S")
    page.reload()
    page.get_by_role("button", name="Bag (1)").click()
    expect(cart).to_contain_text("No longer on the shelf")
    expect(cart).not_to_contain_text("cardigan-0")
    host(shop, "shelf.put", product="cardigan")


def test_a_drop_is_readable_on_a_phone(shop, open_page):
    """Its time stays whole beside any word of its button, and in the sign-in that covers it."""
    page = open_page(f"{shop.url}/room/tonight")
    times = {"opens_in_ms": 0, "lasts_ms": 600_000, "limit_per_buyer": 1}
    host(shop, "drop.schedule", sku="cardigan-1", quantity=3, price_minor=29520, **times)
    card = page.locator(".pin.drop")
    turn = card.locator(".turn")

    def fits() -> None:
        expect(turn).to_contain_text("Ends in ")
        assert turn.evaluate("it => it.scrollWidth <= it.clientWidth")
        words, button = card.locator(".what").bounding_box(), card.locator("button").bounding_box()
        assert words["x"] + words["width"] <= button["x"]
        assert card.locator(".price").evaluate("it => it.offsetWidth <= it.parentNode.offsetWidth")

    expect(card.get_by_role("button", name="Buy")).to_be_visible()
    fits()
    host(shop, "sale.pause")
    expect(card.get_by_role("button", name="Sales are paused")).to_have_text("Paused")
    fits()
    host(shop, "sale.resume")
    card.get_by_role("button", name="Buy").click()
    sheet = page.get_by_role("dialog")
    expect(sheet).to_contain_text("One tap to buy")
    expect(sheet.get_by_role("timer")).to_contain_text("Ends in ")
    expect(sheet).to_contain_text("¥295.20")

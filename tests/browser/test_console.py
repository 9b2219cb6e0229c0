"""The host's desk: what it counts, and what it says."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import host
from tests.live import Live

pytestmark = pytest.mark.browser

DESK = {"viewport": {"width": 1280, "height": 800}, "is_mobile": False, "has_touch": False}
SUMS_WITHIN_MS = 15_000


def bought(shop: Live, buyer: str, sku: str) -> dict[str, Any]:
    """An order that is still to be paid."""
    placed = {"cmd": "order.place", "data": {"order": str(uuid4()), "lines": [_one(sku)]}}
    with shop.http(shop.token(buyer)) as http:
        order = http.post("/v1/rooms/tonight/commands", json=placed).json()["order"]
    assert order["state"] == "placed"
    return order


def paid(shop: Live, buyer: str, order: dict[str, Any]) -> None:
    """The order's sandbox payment has succeeded."""
    start = {"cmd": "payment.start", "data": {"order": order["id"]}}
    with shop.http(shop.token(buyer)) as http:
        payment = http.post("/v1/rooms/tonight/commands", json=start).json()["payment"]
        assert http.post(f"/v1/sandbox/payments/{payment['id']}/succeed").status_code == 200


def refunded(shop: Live, order: dict[str, Any], amount_minor: int) -> None:
    """Some of the order's money was given back."""
    with shop.http(shop.token("root", "admin")) as http:
        wanted = {"amount_minor": amount_minor}
        answer = http.post(f"/v1/orders/{order['id']}/refunds", json=wanted)
    assert answer.status_code == 201, answer.text


def _one(sku: str) -> dict[str, Any]:
    return {"sku": sku, "qty": 1}


def console_of(shop: Live, open_page: Any) -> Page:
    """The desk of the room, with its host at it."""
    token = shop.token("mia", "host:tonight", "merchant:lin")
    page: Page = open_page(f"{shop.url}/console/tonight#token={token}", **DESK)
    expect(page.get_by_role("heading", name="Shelf")).to_be_visible()
    return page


def test_the_desk_sums_what_was_paid_and_not_given_back(shop, open_page):
    """Each currency has a sum, refunds are taken off, and what is paid is no longer held."""
    with shop.http(shop.token("root", "admin")) as http:
        skus = [{"id": "cap-0", "price_minor": 1999, "stock": 9}]
        cap = {"id": "cap", "shop": "lin", "title": "Cap", "currency": "USD", "skus": skus}
        assert http.post("/v1/products", json=cap).status_code == 201
    host(shop, "shelf.put", product="cap")
    for sku in ("lamp-0", "cap-0"):
        order = bought(shop, "uma", sku)
        paid(shop, "uma", order)
    waits = bought(shop, "uma", "mug-0")
    console = console_of(shop, open_page)
    figures = console.locator(".figures")
    expect(figures).to_contain_text("$19.99paid", timeout=SUMS_WITHIN_MS)
    expect(figures).to_contain_text("¥329paid")
    mug = console.get_by_role("listitem").filter(has_text="月白马克杯")
    expect(mug).to_contain_text("0 sold · 1 held", timeout=SUMS_WITHIN_MS)
    paid(shop, "uma", waits)
    expect(mug).to_contain_text("1 sold · 0 held", timeout=SUMS_WITHIN_MS)
    refunded(shop, order, 999)
    expect(figures).to_contain_text("$10paid · $9.99 refunded", timeout=SUMS_WITHIN_MS)
    buyer = open_page(f"{shop.url}/room/tonight#token={shop.token('uma')}")
    buyer.get_by_role("button", name="Bag").click()
    buyer.get_by_role("tab", name="Orders").click()
    cap_order = buyer.get_by_role("listitem").filter(has_text="Cap")
    expect(cap_order).to_contain_text("$9.99 of it refunded")
    cap_order.get_by_role("button").click()
    expect(buyer.get_by_role("dialog")).to_contain_text("$9.99 of it refunded")


def test_a_host_is_told_what_is_free(shop, open_page):
    """Where more is to go than is free, the host reads how many are, not that one was too slow."""
    console = console_of(shop, open_page)
    console.get_by_role("button", name="Prices and stock: Moonlit silk scarf").click()
    form = console.get_by_label("Restock: Moonlit silk scarf")
    form.fill("-100")
    form.press("Enter")
    expect(console.get_by_text("Only 12 are free.")).to_be_visible()

"""Two tabs of one browser: each acts as who it is, and what one learns the other knows."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

pytestmark = pytest.mark.browser


def buy_now(page: Page, title: str, price: str) -> None:
    """From the shelf to the button that buys."""
    page.get_by_role("button", name="Bag").click()
    page.get_by_role("tab", name="Shelf").click()
    page.get_by_role("button", name=f"Buy: {title}").click()
    page.get_by_role("button", name=f"Buy now · {price}").click()


def test_who_signs_in_at_one_tab_is_signed_in_at_the_next(shop, open_page):
    """Both tabs are one buyer, whose orders both can pay; a link's token is of its own tab."""
    one = open_page(f"{shop.url}/room/tonight")
    two = one.context.new_page()
    two.goto(f"{shop.url}/room/tonight")
    buy_now(two, "Moonlit silk scarf", "¥259")
    expect(two.get_by_label("Your name")).to_be_visible()

    buy_now(one, "Paper table lamp", "¥329")
    one.get_by_label("Your name").fill("Anna")
    one.get_by_role("button", name="Continue as Anna").click()
    expect(one.get_by_role("dialog")).to_contain_text("Your order")
    expect(two.get_by_label("Your name")).to_have_count(0)
    two.get_by_role("button", name="Buy now · ¥259").click()
    expect(two.get_by_role("dialog")).to_contain_text("Your order")

    other = one.context.new_page()
    other.goto(f"{shop.url}/room/tonight#token={shop.token('other')}")
    buy_now(other, "Paper table lamp", "¥329")
    expect(other.get_by_role("dialog")).to_contain_text("Your order")
    for page, price in ((one, "¥329"), (two, "¥259"), (other, "¥329")):
        page.get_by_role("button", name=f"Pay {price}").click()
        expect(page.get_by_role("heading", name="Paid")).to_be_visible()


def test_a_cart_is_the_same_at_both_tabs(shop, open_page):
    """What one tab orders or removes, the other shows no more, or says so when it is tapped."""
    one = open_page(f"{shop.url}/room/tonight#token={shop.token('cara')}")
    two = one.context.new_page()
    two.goto(f"{shop.url}/room/tonight")
    bag = two.get_by_role("button", name="Bag")

    def fill() -> None:
        one.get_by_role("button", name="Bag").click()
        one.get_by_role("tab", name="Shelf").click()
        one.get_by_role("button", name="Buy: Moonlit silk scarf").click()
        one.get_by_role("button", name="Add to cart").click()
        expect(bag).to_have_accessible_name("Bag (1)")
        one.get_by_role("button", name="Bag (1)").click()

    fill()
    one.get_by_role("button", name="Check out").click()
    expect(one.get_by_role("dialog")).to_contain_text("Your order")
    expect(bag).to_have_accessible_name("Bag")
    one.keyboard.press("Escape")

    fill()
    one.get_by_role("button", name="Remove").click()
    one.keyboard.press("Escape")
    expect(bag).to_have_accessible_name("Bag (1)")
    two.evaluate("dispatchEvent(new Event('focus'))")
    expect(bag).to_have_accessible_name("Bag")

    fill()
    bag.click()
    one.get_by_role("button", name="Remove").click()
    two.get_by_role("button", name="Check out").click()
    expect(two.get_by_text(re.compile("The hold has ended"))).to_be_visible()
    expect(two.get_by_role("dialog")).to_contain_text("Your cart is empty.")


def test_a_link_with_a_token_pasted_into_an_open_tab_is_taken(shop, open_page):
    """The browser loads nothing anew for it; the page is its member's, and its address is clean."""
    page = open_page(f"{shop.url}/room/tonight")
    expect(page.get_by_role("button", name="Connected")).to_be_visible()
    page.goto(f"{shop.url}/room/tonight#token={shop.token('gil')}")
    buy_now(page, "Paper table lamp", "¥329")
    expect(page.get_by_role("dialog")).to_contain_text("Your order")
    assert page.url == f"{shop.url}/room/tonight"

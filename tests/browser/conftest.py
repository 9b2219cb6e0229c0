"""A Chromium, and a server with something to look at."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

from liveroom.web.pages import BUILT
from tests.live import Live
from tests.tools import lacks

QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
PRODUCTS = (
    ("trousers", "Wide-leg linen trousers", 19900, ("S", "M", "L")),
    ("scarf", "Moonlit silk scarf", 25900, ("One size",)),
    ("mug", "月白马克杯", 6900, ("350 ml",)),
    ("teaset", "白瓷一壶两杯 Porcelain pot", 21900, ("One size",)),
    ("lamp", "Paper table lamp", 32900, ("One size",)),
    ("candle", "桂花香薰蜡烛", 12800, ("Small", "Large")),
    ("cardigan", "Cashmere-blend cardigan", 36900, ("S", "M", "L")),
)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """A headless Chromium; LIVEROOM_CHROMIUM names another than the one on the path.

    Playwright keeps an event loop running in this thread, so it ends with the module.
    """
    found = os.environ.get("LIVEROOM_CHROMIUM") or shutil.which("chromium")
    if found is None:
        lacks("Chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=list(QUIET))
        yield browser
        browser.close()


@contextmanager
def filled(folder: Path, *flags: str) -> Iterator[Live]:
    """A server with a live room `tonight` and a shelf of products."""
    assert (BUILT / "room.html").is_file(), "the pages are not built: .ci/npm run build"
    live = Live(folder / "data", *flags)
    try:
        live.start()
        fill(live)
        yield live
    finally:
        live.close()


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A sandbox server with a live room `tonight` and a shelf of products."""
    with filled(tmp_path_factory.mktemp("browser")) as live:
        yield live


@pytest.fixture
def open_page(chromium: Browser) -> Iterator[Callable[..., Page]]:
    """Opens pages, each in a browser profile of its own; a page that fails fails the test."""
    contexts, faults = [], []

    def heard(said: ConsoleMessage) -> None:
        if said.type == "error":
            faults.append(f"{said.text} {said.location['url']}")

    def open_one(url: str = "about:blank", **options: Any) -> Page:
        context = chromium.new_context(**{"locale": "en-US", **PHONE, **options})
        context.set_default_timeout(15_000)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: faults.append(str(error)))
        # Also says what the page's own policy has refused.
        page.on("console", heard)
        page.goto(url)
        return page

    yield open_one
    for context in contexts:
        context.close()
    assert not [fault for fault in faults if "/nowhere" not in fault]


def fill(live: Live) -> None:
    """A shop, its host, a shelf, and the room `tonight`, which is live."""
    with live.http(live.token("root", "admin")) as root:

        def make(path: str, **body: Any) -> None:
            answer = root.post(path, json=body)
            assert answer.status_code == 201, answer.text

        make("/v1/shops", id="lin", name="Lin House")
        make("/v1/creators", id="mia", name="Mia Lin", roles=["buyer"])
        for product, title, price, sizes in PRODUCTS:
            skus = [
                {"id": f"{product}-{at}", "name": size, "price_minor": price, "stock": 12}
                for at, size in enumerate(sizes)
            ]
            picture = f"/pictures/{product}.svg"
            make(
                "/v1/products",
                id=product,
                shop="lin",
                title=title,
                currency="CNY",
                picture=picture,
                skus=skus,
            )
        shelf = [product for product, *_ in PRODUCTS]
        make("/v1/rooms", id="tonight", title="Linen evening", host="mia", shop="lin", shelf=shelf)
    host(live, "room.open")


def host(live: Live, cmd: str, **data: Any) -> None:
    """One command of the host's."""
    token = live.token("mia", "host:tonight", "merchant:lin")
    with live.http(token) as by_host:
        answer = by_host.post("/v1/rooms/tonight/commands", json={"cmd": cmd, "data": data})
    assert answer.status_code == 200, answer.text


def kept(name: str) -> Path:
    """Where a picture of the docs is kept."""
    return Path(__file__).parents[2] / "docs" / name

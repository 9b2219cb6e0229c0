"""One buyer at two workers at once, and buyers whose carts cross there.

In one process the batches of both would be one; here only the stores stand between them.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Iterator

import pytest

from bench.history import Recorder
from liveroom.ids import new_id
from tests.books import audited, books_agree
from tests.crowd import Viewer, staying, until, until_answered
from tests.live import Live, Said, serving
from tests.sale import ask, order

STOCK = 40
TABS = 50
LIMIT = 3
ROUNDS = 15
CROSSED = 12
SKUS = ("twice", "same", "left", "right")


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Live]:
    flags = ("--workers", "2", "--message-rate-max", "0", "--pay-within-s", "0")
    folder = tmp_path_factory.mktemp("two") / "data"
    with serving(folder, *flags, stock=STOCK, skus=SKUS) as live:
        _limit(live)
        yield live


def _limit(server: Live) -> None:
    """Put a second product on the shelf, of which each buyer may have so many."""
    with server.http(server.token("root", "admin")) as root:
        sku = {"id": "few", "price_minor": 1999, "stock": STOCK, "limit_per_buyer": LIMIT}
        product = {"id": "p2", "shop": "shop", "title": "Few", "currency": "CNY", "skus": [sku]}
        assert root.post("/v1/products", json=product).status_code == 201
        put = {"cmd": "shelf.put", "data": {"product": "p2"}}
        assert root.post("/v1/rooms/r1/commands", json=put).status_code == 200


async def _at_both(viewers: list[Viewer]) -> None:
    """Have the last of them return until not all are at the same worker."""
    last = viewers[-1]
    while len({viewer.node for viewer in viewers}) < 2:
        before = len(last.ends)
        last.cut()
        await until(lambda known=before: len(last.ends) > known and last.is_seated)


async def _put_two(buyer: Viewer) -> None:
    """Into the cart, whatever became of it before."""
    async with asyncio.timeout(10):
        await buyer.surely("cart.add", new_id(), sku="twice", qty=2)


def test_the_same_cart_is_checked_out_at_two_workers_at_once(server):
    """One of two orders has all of it, and the other is told that there is nothing to order."""
    history = Recorder()

    async def story() -> None:
        tabs = [Viewer(server, "ann"), Viewer(server, "ann")]
        async with staying(*tabs):
            await _at_both(tabs)
            for _ in range(ROUNDS):
                await _put_two(tabs[0])
                checkouts = [order(history, tab, {}, "cart.checkout") for tab in tabs]
                assert sorted(await asyncio.gather(*checkouts)) == ["hold_expired", "ok"]

    asyncio.run(asyncio.wait_for(story(), 60))
    books = books_agree(server, history.lines, {"sku:twice": STOCK})
    [pool] = books.pools
    assert pool["reserved"] == 2 * ROUNDS
    audited(server)


def test_fifty_tabs_of_one_buyer_at_two_workers(server):
    """Each orders at once: the limit holds, and one order sent by all of them is one order."""
    history = Recorder()

    async def story() -> None:
        tabs = [Viewer(server, "tabs") for _ in range(TABS)]
        line = {"sku": "few", "qty": 1}
        one = {"order": new_id(), "lines": [{"sku": "same", "qty": 1}]}
        async with staying(*tabs):
            await _at_both(tabs)
            answers = await asyncio.gather(*(order(history, tab, line) for tab in tabs))
            assert Counter(answers) == {"ok": LIMIT, "limit_reached": TABS - LIMIT}

            async def place(tab: Viewer) -> object:
                return await until_answered(lambda: ask(history, tab, "order.place", one))

            first, *others = await asyncio.gather(*map(place, tabs))
            assert others == [first] * (TABS - 1)

    asyncio.run(asyncio.wait_for(story(), 60))
    stock = {"sku:few": STOCK, "sku:same": STOCK}
    books = books_agree(server, history.lines, stock, limits={"sku:few": LIMIT})
    assert {pool["pool"]: pool["reserved"] for pool in books.pools} == {
        "sku:few": LIMIT,
        "sku:same": 1,
    }
    audited(server)


def test_carts_that_cross_at_two_workers(server):
    """Half fill their carts from the left and half from the right: no cart is sold in part."""
    history, dice = Recorder(), random.Random(8)

    async def fill(buyer: Viewer, skus: list[str]) -> bool:
        """Put one of each in the cart, or leave it empty."""
        for at, sku in enumerate(skus):
            try:
                await buyer.surely("cart.add", new_id(), sku=sku, qty=1)
            except Said as refusal:
                if refusal.code != "sold_out":
                    raise
                for held in skus[:at]:
                    await buyer.surely("cart.remove", new_id(), sku=held)
                return False
        return True

    async def buy(buyer: Viewer, skus: list[str], sold: Counter[str]) -> None:
        while sold["ok"] < STOCK:
            if await fill(buyer, skus):
                code = await order(history, buyer, {}, "cart.checkout")
                sold[code] += 1
            await asyncio.sleep(0.01 * dice.random())  # or the same two would meet for ever

    async def story() -> Counter[str]:
        buyers = [Viewer(server, f"x{number}") for number in range(CROSSED)]
        ways = [["left", "right"], ["right", "left"]]
        sold: Counter[str] = Counter()
        async with staying(*buyers):
            await _at_both(buyers)
            await asyncio.gather(
                *(buy(buyer, ways[at % 2], sold) for at, buyer in enumerate(buyers))
            )
        return sold

    assert asyncio.run(asyncio.wait_for(story(), 60)) == {"ok": STOCK}
    books = books_agree(server, history.lines, {"sku:left": STOCK, "sku:right": STOCK})
    assert [pool["reserved"] for pool in books.pools] == [STOCK, STOCK]
    both = [one for one in books.orders if one["lines"][0]["sku"] in {"left", "right"}]
    assert {tuple(line["sku"] for line in one["lines"]) for one in both} == {("left", "right")}
    audited(server)

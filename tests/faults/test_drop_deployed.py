"""Workers are replaced one after another while a flash drop is open and both its sides sell.

`LIVEROOM_FAULT_VIEWERS` says how many watch it.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from bench.checker import Books
from bench.history import Recorder
from tests.books import audited, books_agree
from tests.crowd import Viewer, agree, guests, host, staying, until
from tests.live import Live, serving
from tests.sale import order

VIEWERS = int(os.environ.get("LIVEROOM_FAULT_VIEWERS", "20"))
BUYERS = 8
STOCK = 20_000
QUANTITY = 6_000
PRICE, ORDINARY = 990, 1999
LASTS_MS = 6_000
LATE_MAX_MS = 10_000
"""How late a drop may close: what is promised after any fault, for a busy machine."""
THINKING_S = 0.01
SHOWN = "drop.scheduled", "drop.opened", "drop.closed"


@pytest.fixture
def server(tmp_path) -> Iterator[Live]:
    flags = ("--workers", "2", "--message-rate-max", "0", "--pay-within-s", "0")
    with serving(tmp_path / "data", *flags, "--drain-spread-s", "0.5", stock=STOCK) as live:
        yield live


def test_a_rolling_restart_in_the_middle_of_a_drop(server):
    """No order is lost, both pools are exact, and the drop closes on time for everybody."""
    history = Recorder()
    mia, viewers = host(server), guests(server, VIEWERS)
    buyers = [Viewer(server, f"b{number}") for number in range(BUYERS)]
    everyone = [mia, *viewers, *buyers]
    answers: Counter[str] = Counter()

    async def buy(buyer: Viewer, drop: str) -> None:
        """In the drop until it has closed, and beside it at the ordinary price."""
        code = "ok"
        while code != "not_open":
            code = await order(history, buyer, {"sku": "s1", "qty": 1, "drop": drop})
            answers[code] += 1
            answers["beside", await order(history, buyer, {"sku": "s1", "qty": 1})] += 1
            await asyncio.sleep(THINKING_S)

    async def story() -> dict[str, Any]:
        async with staying(*everyone):
            asked = {"sku": "s1", "quantity": QUANTITY, "price_minor": PRICE}
            drop = (
                await mia.do(
                    "drop.schedule",
                    opens_in_ms=0,
                    lasts_ms=LASTS_MS,
                    limit_per_buyer=QUANTITY,
                    **asked,
                )
            )["drop"]
            buying = [asyncio.create_task(buy(buyer, drop["id"])) for buyer in buyers]
            await until(lambda: answers["ok"] >= 2 * BUYERS)
            before = server.workers()
            server.send(signal.SIGHUP)
            await until(lambda: len(server.workers()) == 2 and not server.workers() & before)
            await asyncio.gather(*buying)
            await until(lambda: all(_heard(one, drop["id"]) == [*SHOWN] for one in everyone))
            await until(lambda: _left_in(server, f"drop:{drop['id']}") == 0)
        return drop

    drop = asyncio.run(asyncio.wait_for(story(), 90))
    agree(everyone)
    assert all(viewer.ends for viewer in everyone), "nobody was moved to another worker"
    assert set(answers) <= {"ok", "not_open", "sold_out", ("beside", "ok")}
    stock = {"sku:s1": STOCK, f"drop:{drop['id']}": QUANTITY}
    books = books_agree(server, history.lines, stock)
    _closes_on_time(mia, drop, books)
    _each_at_its_price(books, drop, answers)
    audited(server)


def _heard(viewer: Viewer, drop: str) -> list[str]:
    """What a viewer heard of the drop, in order."""
    events = [event for part in viewer.parts for event in part.events]
    return [one["ev"] for one in events if one["data"].get("drop", {}).get("id") == drop]


def _left_in(server: Live, pool: str) -> int:
    """What SQL has left of a pool."""
    with server.http(server.token("root", "admin")) as root:
        pools = root.get("/v1/skus/s1/ledger?limit=1").json()["pools"]
    return next(one["available"] for one in pools if one["pool"] == pool)


def _closes_on_time(viewer: Viewer, drop: dict[str, Any], books: Books) -> None:
    """Not before its time, not long after it; and nothing of it was sold once that was told."""
    [closed] = [one for part in viewer.parts for one in part.events if one["ev"] == "drop.closed"]
    assert 0 <= closed["at"] - drop["closes_at"] <= LATE_MAX_MS
    sold = [one["placed_at"] for one in books.orders if one["lines"][0].get("drop")]
    assert max(sold) <= closed["at"]


def _each_at_its_price(books: Books, drop: dict[str, Any], answers: Counter[Any]) -> None:
    """Every order is of one pool at its price; what the drop did not sell is ordinary again."""
    lines = [line for one in books.orders for line in one["lines"]]
    sold = Counter((line.get("drop"), line["price_minor"]) for line in lines)
    assert sold == {(drop["id"], PRICE): answers["ok"], (None, ORDINARY): answers["beside", "ok"]}
    pools = {pool["pool"]: pool["available"] for pool in books.pools}
    assert pools == {f"drop:{drop['id']}": 0, "sku:s1": STOCK - len(lines)}

"""Thousands of buyers at once for one unit, and for as many as they are, over two workers.

`LIVEROOM_FAULT_BUYERS` says how many they are; `make faults` sends ten thousand.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Iterator

import pytest

from bench.history import Recorder
from liveroom.ids import new_id
from tests.books import audited, books_agree
from tests.live import Live, serving
from tests.posting import Member, Poster, each, members, told

BUYERS = int(os.environ.get("LIVEROOM_FAULT_BUYERS", "2000"))
LINES = 200
"""Connections, and so requests under way at once."""
BURST_MAX_S = 60 + BUYERS / 50


@pytest.fixture(params=[1, BUYERS], ids=["one unit", "a unit each"])
def sale(request, tmp_path) -> Iterator[tuple[Live, int]]:
    flags = ("--workers", "2", "--message-rate-max", "0", "--pay-within-s", "0")
    with serving(tmp_path / "data", *flags, stock=request.param) as live:
        yield live, request.param


def test_thousands_of_buyers_at_once(sale):
    """Exactly what there is is sold, all are answered, and neither a second click nor another's id helps."""
    server, stock = sale
    history, buyers = Recorder(), members(server, BUYERS)
    orders = {buyer: {"order": new_id(), "lines": [{"sku": "s1", "qty": 1}]} for buyer in buyers}
    answers: dict[Member, str] = {}

    async def buy(poster: Poster, buyer: Member) -> None:
        answers[buyer] = await told(poster, history, buyer, "order.place", orders[buyer])

    async def try_again(poster: Poster, buyer: Member) -> None:
        """Only once all have been: a second try may hold a unit until SQL knows the order."""
        again = {**orders[buyer], "again": True}
        assert await told(poster, history, buyer, "order.place", again) == answers[buyer]
        others = (other for other, said in answers.items() if said == "ok" and other != buyer)
        if another := next(others, None):
            code = await told(poster, history, buyer, "order.place", orders[another])
            assert code == "id_reused"

    async def story() -> None:
        async with asyncio.timeout(BURST_MAX_S):
            await each(server, buyers, buy, lines=LINES)
            await each(server, buyers[1::10], try_again, lines=LINES)

    asyncio.run(story())
    expected = {"ok": stock, "sold_out": BUYERS - stock}
    assert Counter(answers.values()) == {code: n for code, n in expected.items() if n}
    books = books_agree(server, history.lines, {"sku:s1": stock}, limits={"sku:s1": 1})
    assert len(books.orders) == stock
    audited(server)

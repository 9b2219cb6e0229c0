"""The host changes prices, pauses, counts in and out, while two workers sell as fast as they can.

`LIVEROOM_FAULT_LONG`, as in `make faults`, has her do so many more times.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from bench.history import Recorder
from liveroom.ids import new_id
from tests.books import audited, books_agree
from tests.crowd import Viewer, host, staying, until, until_answered
from tests.live import Live, Said, serving
from tests.sale import ask

ROUNDS = 40 if "LIVEROOM_FAULT_LONG" in os.environ else 6
BUYERS = 12
STOCK = 20_000
RESTOCKED, COUNTED_OUT, LAST = 40, 25, 30
FIRST_PRICE = 1999


@pytest.fixture
def server(tmp_path) -> Iterator[Live]:
    flags = ("--workers", "2", "--message-rate-max", "0", "--pay-within-s", "0")
    with serving(tmp_path / "data", *flags, stock=STOCK) as live:
        yield live


class Buyer:
    """Orders one unit after another at the price it saw last, or at any."""

    def __init__(self, server: Live, number: int, history: Recorder) -> None:
        self.viewer = Viewer(server, f"b{number}")
        self.answers: Counter[str] = Counter()
        self._history = history
        self._minds = number % 2 == 0
        self._price = FIRST_PRICE

    async def buy(self, enough: asyncio.Event) -> None:
        while not enough.is_set():
            line = {"sku": "s1", "qty": 1} | ({"price_minor": self._price} if self._minds else {})
            data = {"order": new_id(), "lines": [line]}
            try:
                await until_answered(
                    lambda d=data: ask(self._history, self.viewer, "order.place", d)
                )
                self.answers["ok"] += 1
            except Said as refusal:
                self.answers[refusal.code] += 1
                if refusal.code == "price_changed":
                    self._price = refusal.error["data"]["price_minor"]


class Host:
    """What she does is on record like all else."""

    def __init__(self, server: Live, history: Recorder) -> None:
        self.viewer = host(server)
        self.counted = 0
        self.pauses: list[tuple[float, float]] = []
        self._server = server
        self._history = history

    async def do(self, cmd: str, **data: Any) -> None:
        asked = self._history.invoke(self.viewer.name, cmd, data)
        try:
            answer = await self.viewer.do(cmd, **data)
        except Said as refusal:
            self._history.refused(asked, refusal.error)
            raise
        self._history.ok(asked, answer)

    async def count(self, qty: int) -> None:
        """Count units in, or out."""
        if qty > 0:
            await self.do("stock.restock", sku="s1", qty=qty)
        else:
            await self.do("stock.adjust", sku="s1", delta=qty, why="broken")
        self.counted += qty

    async def count_out_what_is_left(self) -> None:
        """All that is free, however often buyers are quicker."""
        left = STOCK
        while left > 0:
            try:
                await self.count(-left)
            except Said as refusal:
                if refusal.code != "sold_out":
                    raise
                left = refusal.error["data"]["left"]
            else:
                return

    async def pause(self, buyers: list[Buyer]) -> None:
        """Until everybody has been refused: the books do not move meanwhile."""
        await self.do("sale.pause")
        begun, sold = time.time(), self.sold()
        before = [buyer.answers["sale_paused"] for buyer in buyers]
        await until(
            lambda: all(
                buyer.answers["sale_paused"] > known
                for buyer, known in zip(buyers, before, strict=True)
            )
        )
        assert self.sold() == sold, "something was sold in the pause"
        self.pauses.append((begun, time.time()))
        await self.do("sale.resume")

    def sold(self) -> int:
        """How many units the books have sold."""
        with self._server.http(self._server.token("root", "admin")) as root:
            [pool] = root.get("/v1/skus/s1/ledger?limit=1").json()["pools"]
        return pool["reserved"] + pool["sold"]


def test_the_host_acts_in_the_middle_of_the_burst(server):
    """No order in a pause or at a price that was not in force, and every unit counted is there."""
    history, enough = Recorder(), asyncio.Event()
    mia = Host(server, history)
    buyers = [Buyer(server, number, history) for number in range(BUYERS)]

    async def sell(orders: int) -> None:
        known = sum(buyer.answers["ok"] for buyer in buyers)
        await until(lambda: sum(buyer.answers["ok"] for buyer in buyers) >= known + orders)

    async def story() -> None:
        async with staying(mia.viewer, *(buyer.viewer for buyer in buyers)):
            buying = [asyncio.create_task(buyer.buy(enough)) for buyer in buyers]
            for at in range(ROUNDS):
                await sell(20)
                await mia.do("price.set", sku="s1", price_minor=FIRST_PRICE + 1 + at)
                await sell(20)
                await mia.count(RESTOCKED)
                await mia.count(-COUNTED_OUT)
                await mia.pause(buyers)
            await sell(20)
            await mia.count_out_what_is_left()
            await until(lambda: all(buyer.answers["sold_out"] for buyer in buyers))
            await mia.count(LAST)
            await sell(LAST)
            enough.set()
            await asyncio.gather(*buying)

    asyncio.run(asyncio.wait_for(story(), 60 + 2 * ROUNDS))
    answers = sum((buyer.answers for buyer in buyers), Counter[str]())
    assert set(answers) == {"ok", "sale_paused", "sold_out", "price_changed"}
    prices = {"sku:s1": FIRST_PRICE}
    books = books_agree(server, history.lines, {"sku:s1": STOCK}, prices=prices)
    [pool] = books.pools
    assert (pool["adjusted"], pool["available"]) == (mia.counted, 0)
    assert pool["reserved"] == len(books.orders) == answers["ok"] == STOCK + mia.counted
    _nothing_in_a_pause(books.orders, mia.pauses)
    audited(server)


def _nothing_in_a_pause(orders: list[dict[str, Any]], pauses: list[tuple[float, float]]) -> None:
    """By the clock of the machine too, on which the database's runs."""
    for begun, over in pauses:
        within = [one for one in orders if begun * 1000 < one["placed_at"] < over * 1000]
        assert not within, f"{within[:3]} in the pause from {begun} to {over}"

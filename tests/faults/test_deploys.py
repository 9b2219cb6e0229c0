"""Deploys under load: workers are replaced, or all of it is stopped and started; nothing is lost.

What is proved is told by each viewer and each buyer: how it was closed, what it saw, and what
became of every command it sent.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Any

import pytest

from bench.history import Recorder
from liveroom.ids import new_id
from tests.books import books_agree
from tests.crowd import Cut, Viewer, agree, guests, host, speak, staying, until
from tests.live import Live, Said, serving
from tests.posting import Poster, members, tell
from tests.sale import ask

VIEWERS = int(os.environ.get("LIVEROOM_FAULT_VIEWERS", "40"))
BUYERS = 6
EVENTS_PER_S = 50
STOCK = 100_000
SPREAD_MS = 1000
ENOUGH_ORDERS = 60
THINKING_S = 0.01


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Live]:
    flags = ("--workers", "2", "--message-rate-max", "0", "--drain-spread-s", str(SPREAD_MS / 1000))
    folder = tmp_path_factory.mktemp("deploys") / "data"
    with serving(folder, *flags, stock=STOCK, skus=("s1", "s2", "s3")) as live:
        yield live


Send = Callable[[dict[str, Any]], Awaitable[object]]


async def _buy(send: Send, sku: str, enough: asyncio.Event) -> None:
    """Order one unit after another; one that gets no answer is left alone, to be asked after."""
    while not enough.is_set():
        await asyncio.sleep(THINKING_S)
        try:
            await send({"order": new_id(), "lines": [{"sku": sku, "qty": 1}]})
        except Cut:
            continue
        except Said as refusal:
            if not refusal.error["retry"]:
                raise


class Day:
    """A room under load: viewers watch, the host speaks, buyers buy over both ways in."""

    def __init__(self, server: Live, sku: str) -> None:
        self.server = server
        self.sku = sku
        self.history = Recorder()
        self.mia = host(server)
        self.viewers = guests(server, VIEWERS)
        self.buyers = [Viewer(server, f"b{number}") for number in range(BUYERS)]
        self.poster = Poster(server)
        self.said: list[str] = []

    @property
    def everyone(self) -> list[Viewer]:
        return [self.mia, *self.viewers, *self.buyers]

    async def during(self, deploy: Callable[[], Any]) -> None:
        """Do it under load; the load goes on until everybody is back and buys again."""
        enough = asyncio.Event()
        [poster] = members(self.server, 1, "http")
        sends: list[Send] = [
            partial(ask, self.history, buyer, "order.place") for buyer in self.buyers
        ]
        sends.append(partial(tell, self.poster, self.history, poster, "order.place"))
        buying = [asyncio.create_task(_buy(send, self.sku, enough)) for send in sends]
        speaking = asyncio.create_task(speak(self.mia, EVENTS_PER_S, enough, texts=new_id()))
        await until(lambda: self._bought() >= ENOUGH_ORDERS)
        await deploy()
        for viewer in self.everyone:
            await until(lambda viewer=viewer: viewer.ends and viewer.is_seated)
        before = self._bought()
        await until(lambda: self._bought() >= before + ENOUGH_ORDERS)
        enough.set()
        await asyncio.gather(*buying)
        self.said = await speaking
        last = new_id()
        await self.mia.surely("notice.post", last, text=last)
        await until(lambda: all(one.texts[-1:] == [last] for one in self.everyone))

    def _bought(self) -> int:
        return sum(line.what == "ok" for line in self.history.lines)

    def settle(self) -> int:
        """Each order that was answered is there, and none that was not; how many there are."""
        self.poster.close()
        books = books_agree(self.server, self.history.lines, {f"sku:{self.sku}": STOCK})
        there = {one["id"] for one in books.orders if one["lines"][0]["sku"] == self.sku}
        oks = [line for line in self.history.lines if line.what == "ok"]
        assert there == {line.value["id"] for line in oks}, "an order was taken and not answered"
        assert len({line.client for line in oks}) == BUYERS + 1, "somebody bought nothing"
        return len(there)

    def check(self) -> None:
        """Everybody saw the one log, and was sent away with a time of its own to return at."""
        agree(self.everyone)
        for viewer in self.everyone:
            assert set(self.said) <= set(viewer.texts)
            assert len(viewer.parts) == 1, f"{viewer.name} was not resumed: {viewer.modes}"
            assert {end.code for end in viewer.ends} == {4000}, viewer.ends
        after = [end.after_ms for viewer in self.everyone for end in viewer.ends]
        assert all(0 <= each < SPREAD_MS for each in after)
        assert len(set(after)) > len(after) / 4
        assert max(after) - min(after) > SPREAD_MS / 2


def _adds_up(server: Live, sku: str, sold: int) -> None:
    """What is left is what was not sold."""
    with server.http() as http:
        assert http.get("/v1/rooms/r1").json()["stock"][sku]["left"] == STOCK - sold


def test_a_rolling_restart_loses_nothing_of_anybodys(server):
    """SIGHUP under load: viewers are closed 4000 and resume, commands taken up are answered."""

    async def story() -> int:
        day = Day(server, "s1")

        async def deploy() -> None:
            before = server.workers()
            server.send(signal.SIGHUP)
            await until(lambda: len(server.workers()) == 2 and not server.workers() & before)

        async with staying(*day.everyone):
            await day.during(deploy)
            sold = await asyncio.to_thread(day.settle)
        day.check()
        return sold

    _adds_up(server, "s1", asyncio.run(asyncio.wait_for(story(), 90)))


def test_a_planned_restart_of_everything_keeps_carts_and_logs(server):
    """SIGTERM under load exits 0; after the start carts are as they were and viewers resume."""

    async def story() -> int:
        day = Day(server, "s2")

        async def deploy() -> None:
            assert await asyncio.to_thread(server.stop) == 0
            await asyncio.to_thread(server.start)

        async with staying(*day.everyone):
            carts = [
                (await buyer.do("cart.add", sku="s3", qty=number + 1))["cart"]
                for number, buyer in enumerate(day.buyers)
            ]
            await day.during(deploy)
            for buyer, cart in zip(day.buyers, carts, strict=True):
                [was] = cart["lines"]
                [line] = (await buyer.do("cart.show"))["cart"]["lines"]
                assert (line["hold"], line["qty"]) == (was["hold"], was["qty"])
            sold = await asyncio.to_thread(day.settle)
        day.check()
        return sold

    _adds_up(server, "s2", asyncio.run(asyncio.wait_for(story(), 90)))

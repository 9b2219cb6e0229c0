"""Deploys under load: workers are replaced, or all of it is stopped and started; nothing is lost.

What is proved is told by each viewer and each buyer: how it was closed, what it saw, and what
became of every command it sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx2
import pytest

from liveroom.ids import new_id
from tests.crowd import Cut, Viewer, agree, guests, host, speak, staying, until
from tests.live import Live, Said, serving

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


Lines = list[dict[str, Any]]


@dataclass
class Orders:
    """What became of the orders that were sent."""

    answered: list[str] = field(default_factory=list)
    unanswered: list[str] = field(default_factory=list)


async def _buy(buyer: Viewer, lines: Lines, orders: Orders, enough: asyncio.Event) -> None:
    """Order one unit after another; one that gets no answer is left alone, to be asked after."""
    while not enough.is_set():
        order = new_id()
        await asyncio.sleep(THINKING_S)
        try:
            await buyer.do("order.place", order=order, lines=lines)
        except Cut:
            orders.unanswered.append(order)
        except Said as refusal:
            if not refusal.error["retry"]:
                raise
        else:
            orders.answered.append(order)


async def _post(server: Live, lines: Lines, orders: Orders, enough: asyncio.Event) -> None:
    """The same over HTTP, on a connection that is kept alive."""
    headers = {"authorization": f"Bearer {server.token('http')}"}
    async with httpx2.AsyncClient(headers=headers) as http:
        while not enough.is_set():
            order = new_id()
            await asyncio.sleep(THINKING_S)
            body = {"cmd": "order.place", "data": {"order": order, "lines": lines}}
            try:
                answer = await http.post(f"{server.url}/v1/rooms/r1/commands", json=body)
            except httpx2.ConnectError:
                await asyncio.sleep(0.05)  # no server: the order was not sent
            except httpx2.TransportError:
                orders.unanswered.append(order)
            else:
                assert answer.status_code == 200 or answer.json()["retry"], answer.text
                if answer.status_code == 200:
                    orders.answered.append(order)


class Day:
    """A room under load: viewers watch, the host speaks, buyers buy over both ways in."""

    def __init__(self, server: Live, sku: str) -> None:
        self.server = server
        self.lines = [{"sku": sku, "qty": 1}]
        self.mia = host(server)
        self.viewers = guests(server, VIEWERS)
        self.buyers = [Viewer(server, f"b{number}") for number in range(BUYERS)]
        self.orders = [Orders() for _ in self.buyers]
        self.posted = Orders()
        self.said: list[str] = []

    @property
    def everyone(self) -> list[Viewer]:
        return [self.mia, *self.viewers, *self.buyers]

    async def during(self, deploy: Callable[[], Any]) -> None:
        """Do it under load; the load goes on until everybody is back and buys again."""
        enough = asyncio.Event()
        buying = [
            asyncio.create_task(_buy(buyer, self.lines, orders, enough))
            for buyer, orders in zip(self.buyers, self.orders, strict=True)
        ]
        buying.append(asyncio.create_task(_post(self.server, self.lines, self.posted, enough)))
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
        return sum(len(orders.answered) for orders in self.orders)

    async def settle(self) -> int:
        """Each order that was answered is there, and none that was not; how many there are."""
        for buyer, orders in zip(self.buyers, self.orders, strict=True):
            for order in orders.answered:
                shown = await buyer.do("order.show", order=order)
                assert shown["order"]["state"] == "placed"
            for order in orders.unanswered:
                with contextlib.suppress(Said):
                    await buyer.do("order.show", order=order)
                    raise AssertionError(f"{order} was taken and not answered")
        return self._bought() + await self._settle_posted()

    async def _settle_posted(self) -> int:
        headers = {"authorization": f"Bearer {self.server.token('http')}"}
        async with httpx2.AsyncClient(headers=headers, base_url=self.server.url) as http:
            for orders, code in ((self.posted.answered, 200), (self.posted.unanswered, 404)):
                for order in orders:
                    assert (await http.get(f"/v1/orders/{order}")).status_code == code
        return len(self.posted.answered)

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
            sold = await day.settle()
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
            sold = await day.settle()
        day.check()
        return sold

    _adds_up(server, "s2", asyncio.run(asyncio.wait_for(story(), 90)))

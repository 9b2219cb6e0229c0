"""One SKU whose server is struck in the middle of a burst: its buyers could have come one by one.

Two workers sell it. In each window one thing fails, buyers repeat what was not answered, and
some walk away from an order without hearing what became of it. Each window ends once all is
answered and SQL and Redis agree again, so that it can be searched by itself; then all is
cancelled, and every unit must be free. Redis may promise less than there is, never more.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
from dataclasses import dataclass, field

import pytest

from bench.history import Line, Recorder, save
from liveroom.ids import new_id
from liveroom.store.scripts import Script
from tests.crowd import Cut, Viewer, staying, until, until_answered
from tests.live import Said
from tests.relayed import Place, relayed
from tests.units import is_linearizable

SEEDS = range(5 if "LIVEROOM_FAULT_LONG" in os.environ else 1)
STOCK = 15
CLIENTS = 8
CALLS = 14
STRIKES_AFTER = CLIENTS * CALLS // 3
"""How many lines of a window's history are written before something fails."""


@dataclass
class Client:
    """A buyer who takes, gives back, and now and then walks away."""

    viewer: Viewer
    dice: random.Random
    recorder: Recorder
    kept: list[str] = field(default_factory=list)
    """Orders that are there, as far as the client knows or may yet learn."""
    left: list[tuple[str, int]] = field(default_factory=list)
    """Orders it walked away from, and their units."""

    async def run(self) -> None:
        for _ in range(CALLS):
            await self.dice.choice([self._buy, self._buy, self._hold])()

    async def _buy(self) -> None:
        """Buy now; perhaps do not wait for the answer, perhaps cancel it."""
        qty, order = self.dice.randint(1, 3), new_id()
        asked = self.recorder.invoke(self.viewer.name, "take", qty)
        if self.dice.random() < 0.05:
            await self._walk_away(order, qty)
            self.recorder.info(asked)
            return
        try:
            await until_answered(lambda: self.place(order, qty))
        except Said as refusal:
            self.recorder.ok(asked, refusal.error["data"]["left"])
            return
        self.recorder.ok(asked, "ok")
        if self.dice.random() < 0.95:
            asked = self.recorder.invoke(self.viewer.name, "give", qty)
            await self.cancel(order)
            self.recorder.ok(asked, None)
        else:
            self.kept.append(order)

    async def _walk_away(self, order: str, qty: int) -> None:
        sent = asyncio.create_task(self.place(order, qty))
        await asyncio.sleep(0)  # in its first step the order is written to the socket
        self.viewer.cut()
        with contextlib.suppress(Cut, Said):
            await sent
        self.left.append((order, qty))

    async def _hold(self) -> None:
        """Into the cart and out of it. From the moment it is there it may be lost to a rebuild."""
        asked = self.recorder.invoke(self.viewer.name, "take", 1)
        key = new_id()
        try:
            cart = await self.viewer.surely("cart.add", key, sku="s1", qty=1)
        except Said as refusal:
            self.recorder.ok(asked, refusal.error["data"]["left"])
            return
        if not cart["cart"]["lines"]:  # a rebuild came between the hold and the look at the cart
            self.recorder.info(asked)
            return
        self.recorder.ok(asked, "ok")
        asked = self.recorder.invoke(self.viewer.name, "give", 1)
        await self.viewer.surely("cart.remove", new_id(), sku="s1")
        self.recorder.ok(asked, None)

    async def place(self, order: str, qty: int) -> None:
        lines = [{"sku": "s1", "qty": qty}]
        await self.viewer.do("order.place", order=order, lines=lines, again=True)

    async def cancel(self, order: str) -> None:
        """Cancel it; where an answer was lost, it may be cancelled already."""
        try:
            await self.viewer.surely("order.cancel", order=order)
        except Said as refusal:
            if refusal.code != "illegal_transition":
                raise
            shown = await self.viewer.surely("order.show", order=order)
            assert shown["order"]["state"] == "cancelled"

    async def settle(self) -> None:
        """Learn what became of the orders it walked away from, by sending them again."""
        for order, qty in self.left:
            try:
                await until_answered(lambda order=order, qty=qty: self.place(order, qty))
            except Said as refusal:
                if refusal.code != "sold_out":
                    raise
            else:
                self.kept.append(order)
        self.left.clear()

    async def give_all_back(self) -> None:
        for order in self.kept:
            await self.cancel(order)
        self.kept.clear()


def _free(place: Place) -> tuple[int, int]:
    """How many units SQL has left, and what the room shows; -1 while it cannot be told."""
    with place.server.http(place.server.token("root", "admin")) as root:
        [pool] = root.get("/v1/skus/s1/ledger?limit=1").json()["pools"]
        room = root.get("/v1/rooms/r1")
    return pool["available"], room.json()["stock"]["s1"]["left"] if room.is_success else -1


async def _quiet(place: Place) -> int:
    """What is left, once SQL and Redis say the same and the audit can look at both."""

    def agrees() -> bool:
        in_sql, shown = _free(place)
        return in_sql == shown

    await until(agrees)
    return _free(place)[0]


async def _lose_replies(place: Place) -> None:
    before = place.proxy.lost
    place.proxy.lose_replies(Script("stock_hold").sha.encode(), times=4)
    await until(lambda: place.proxy.lost >= before + 4)


async def _kill_redis(place: Place) -> None:
    os.kill(place.valkey.pid, signal.SIGKILL)


async def _empty_redis(place: Place) -> None:
    with place.redis as client:
        client.flushall()


async def _kill_a_worker(place: Place) -> None:
    killed = min(place.server.workers())
    os.kill(killed, signal.SIGKILL)
    await until(lambda: len(place.server.workers() - {killed}) == 2)


STRIKES = [_lose_replies, _kill_redis, _empty_redis, _kill_a_worker]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    flags = ("--workers", "2", "--message-rate-max", "0", "--pay-within-s", "0")
    with relayed(tmp_path_factory.mktemp("sku"), *flags, stock=STOCK) as made:
        yield made


@pytest.mark.parametrize("strike", STRIKES)
@pytest.mark.parametrize("seed", SEEDS)
def test_one_sku_is_linearizable_whatever_fails(place, strike, seed) -> None:
    """Some order of all calls explains every answer, those that nobody heard taken either way."""

    async def story() -> list[Line]:
        recorder, dice = Recorder(), random.Random(seed)
        viewers = [Viewer(place.server, f"c{number}") for number in range(CLIENTS)]
        clients = [Client(viewer, dice, recorder) for viewer in viewers]
        async with staying(*viewers):
            burst = [asyncio.create_task(client.run()) for client in clients]
            await until(lambda: len(recorder.lines) >= STRIKES_AFTER)
            await strike(place)
            await asyncio.gather(*burst)
            for client in clients:
                await client.settle()
            asked = recorder.invoke("nobody", "count", None)
            recorder.ok(asked, await _quiet(place))
            for client in clients:
                await client.give_all_back()
            assert await _quiet(place) == STOCK, "a unit was forgotten"
        return recorder.lines

    lines = asyncio.run(asyncio.wait_for(story(), 90))
    save(place.folder / f"{strike.__name__}-{seed}.jsonl", lines)
    assert sum(line.value == "ok" for line in lines) > CLIENTS, "hardly anything was sold"
    why = is_linearizable(lines, STOCK, exact=False)
    assert why is None, why
    assert place.server.audit()["ok"]

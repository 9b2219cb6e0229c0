"""One SKU under a burst looks to all its buyers as if they had come one after another.

The histories are those of two nodes; a window of about two hundred calls ends with nothing
under way, so each can be searched by itself.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass

import pytest

from bench.history import Line, Recorder
from liveroom.errors import Refused
from liveroom.store import keys
from tests.shopfloor import Floor, floor
from tests.units import is_linearizable

CLIENTS = 12
CALLS = 16
POOL = "sku:s1"


@dataclass
class Client:
    """A buyer who takes, gives back and looks, on either node."""

    name: str
    nodes: tuple[Floor, Floor]
    recorder: Recorder
    dice: random.Random

    async def run(self) -> None:
        for call in range(CALLS):
            node = self.dice.choice(self.nodes)
            await self.dice.choice([self._buy, self._buy, self._hold, self._look])(node, call)

    async def _look(self, node: Floor, _call: int) -> None:
        asked = self.recorder.invoke(self.name, "look", None)
        self.recorder.ok(asked, (await node.inventory.left([POOL]))[POOL][0])

    async def _buy(self, node: Floor, call: int) -> None:
        """Buy now, and perhaps cancel it."""
        qty, order = self.dice.randint(1, 3), f"{self.name}-{call}-{self.dice.random()}"
        asked = self.recorder.invoke(self.name, "take", qty)
        try:
            # A retry is never answered from what a node remembers of 250 ms ago.
            await node.buy(order, ("s1", qty), buyer=self.name, again=True)
        except Refused as refusal:
            self.recorder.ok(asked, refusal.data["left"])
            return
        self.recorder.ok(asked, "ok")
        if self.dice.random() < 0.7:
            asked = self.recorder.invoke(self.name, "give", qty)
            await self.dice.choice(self.nodes).orders.cancel(order, self.name)
            await self._until_told(node, order)
            self.recorder.ok(asked, None)

    async def _until_told(self, node: Floor, order: str) -> None:
        """Until the gate stands on what the cancelled order gave back.

        Cancelled means committed: Redis may promise less until the other node has told it of
        the rows before.
        """
        query = 'SELECT MAX(seq) FROM ledger WHERE "order" = :order'
        seq = await node.one(query, order=order)
        async with asyncio.timeout(30):
            while (await node.inventory.inspect())[0].gates[POOL].seq < seq:  # noqa: ASYNC110
                await asyncio.sleep(0.005)

    async def _hold(self, node: Floor, _call: int) -> None:
        """Into the cart and out of it."""
        asked = self.recorder.invoke(self.name, "take", 1)
        try:
            await node.put("s1", buyer=self.name, again=True)
        except Refused as refusal:
            self.recorder.ok(asked, refusal.data["left"])
            return
        self.recorder.ok(asked, "ok")
        asked = self.recorder.invoke(self.name, "give", 1)
        held = await node.inventory.cart(self.name, "r1")
        await node.inventory.remove([hold.id for hold in held])
        self.recorder.ok(asked, None)


@pytest.mark.parametrize("seed", range(3))
def test_a_burst_on_one_sku_is_linearizable(run, db, redis_url, seed) -> None:
    """Some order of all calls explains every answer, also how many were said to be left."""

    async def story() -> None:
        dice = random.Random(seed)
        async with floor(db, redis_url, {"s1": 9}) as one, floor(db, redis_url) as two:
            for _ in range(3):
                free = await one.left()
                recorder = Recorder()
                clients = [Client(f"c{n}", (one, two), recorder, dice) for n in range(CLIENTS)]
                await asyncio.gather(*(client.run() for client in clients))
                await two.settle_down()
                assert len(recorder.lines) >= 2 * CLIENTS * CALLS
                why = is_linearizable(recorder.lines, free)
                assert why is None, why
            await one.check()

    run(story())


def test_a_gate_that_went_back_is_found(run, db, redis_url) -> None:
    """A gate as it was before a sale promises what is sold: the search says so, also of a fault."""

    async def story() -> None:
        async with floor(db, redis_url, {"s1": 3}) as shop:
            recorder = Recorder()
            epoch = int(await shop.client.hget(keys.stock_fence(0), "epoch"))
            gates = keys.stock(0, epoch)[1]
            before = await shop.client.hget(gates, POOL)
            asked = recorder.invoke("ann", "take", 2)
            await shop.buy("o1", ("s1", 2))
            recorder.ok(asked, "ok")
            await shop.settle_down()
            assert is_linearizable(recorder.lines, 3, exact=False) is None
            await shop.client.hset(gates, POOL, before)
            asked = recorder.invoke("bob", "take", 2)
            await shop.put("s1", 2, buyer="bob")
            recorder.ok(asked, "ok")
            assert is_linearizable(recorder.lines, 3, exact=False) is not None

    run(story())


def line(call: int, what: str, op: str, value) -> Line:
    return Line(float(call), call, f"c{call}", what, op, value)


@pytest.mark.parametrize(
    ("answers", "possible"),
    [
        (["ok", 0], True),  # the unit went to one of the two
        (["ok", "ok"], False),  # oversold
        ([0, 0], False),  # refused to both
        ([0, "ok"], True),
        (["ok", 1], False),  # told of a unit that was not there
    ],
)
def test_what_cannot_be_is_seen(answers, possible) -> None:
    """Two at once for one unit: the search knows what may come of it."""
    lines = [line(call, "invoke", "take", 1) for call in range(2)]
    lines += [line(call, "ok", "take", answer) for call, answer in enumerate(answers)]
    assert (is_linearizable(lines, 1) is None) is possible


@pytest.mark.parametrize(
    ("left", "possible"), [(2, False), (1, True), (0, True), ("ok", False)], ids=str
)
def test_under_a_fault_less_may_be_promised_and_never_more(left, possible) -> None:
    """Two of three are taken; who then asks for three is told that one is left, or fewer."""
    lines = [line(0, "invoke", "take", 2), line(0, "ok", "take", "ok")]
    lines += [line(1, "invoke", "take", 3), line(1, "ok", "take", left)]
    assert (is_linearizable(lines, 3, exact=False) is None) is possible


def test_a_unit_that_came_back_may_be_had() -> None:
    """An unknown call may have happened, or not; a later look decides it."""
    lines = [
        line(0, "invoke", "take", 2),
        line(0, "info", "take", None),
        line(1, "invoke", "look", None),
        line(1, "ok", "look", 1),
    ]
    possible = [free for free in range(1, 4) if is_linearizable(lines, free) is None]
    assert possible == [1, 3]

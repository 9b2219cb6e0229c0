"""Holds that nobody checks out, over two workers of which one is killed: each ends in its time.

A hold may be seen to end two seconds before the deadline that its buyer was shown: deadlines are
moved from the clock of Redis by when its answer came, which may take that long. And ten seconds
after it: a sweep a second, five until another worker has the lease of one that died, and the
rest for a busy machine.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from bench.history import Recorder
from liveroom.ids import new_id
from tests.books import audited, books_agree
from tests.crowd import Cut, Viewer, staying, until, until_answered
from tests.deadlines import untimely
from tests.live import Live, Said, serving
from tests.sale import order

TTL_S = 5
EARLY_MS, LATE_MS = 2_000, 10_000
HOLDERS, EACH = 10, 2
STOCK = HOLDERS * EACH
LOOKS_EVERY_S = 0.1


@pytest.fixture
def server(tmp_path) -> Iterator[Live]:
    flags = ("--workers", "2", "--message-rate-max", "0", "--pay-within-s", "0")
    with serving(tmp_path / "data", *flags, "--hold-ttl-s", str(TTL_S), stock=STOCK) as live:
        yield live


class Holder(Viewer):
    """Holds units and only looks at them; what it hears of them is on record."""

    def __init__(self, server: Live, name: str, history: Recorder) -> None:
        super().__init__(server, name)
        self._history = history
        self.is_empty = False

    async def hold_and_look(self) -> None:
        """Until the cart is empty."""
        key = new_id()
        await until_answered(lambda: self._cart("cart.add", key, sku="s1", qty=EACH))
        while not self.is_empty:
            await asyncio.sleep(LOOKS_EVERY_S)
            lines = await until_answered(lambda: self._cart("cart.show"))
            self.is_empty = not lines

    async def _cart(self, cmd: str, key: str | None = None, **data: Any) -> list[dict[str, Any]]:
        asked = self._history.invoke(self.name, cmd, data)
        try:
            cart = (await self.do(cmd, key, **data))["cart"]
        except Said as refusal:
            self._history.refused(asked, refusal.error)
            raise
        except Cut:
            self._history.info(asked)
            raise
        self._history.ok(asked, cart)
        return cart["lines"]

    def take(self, frame: list[dict[str, Any]]) -> None:
        for message in frame:
            if message.get("ev") == "hold.expired":
                self._history.saw(self.name, "hold.expired", message["data"])
        super().take(frame)


def test_holds_end_in_their_time_though_a_worker_is_killed(server):
    """Nobody else has a unit before its hold's deadline, and soon after it all are sold."""
    history = Recorder()
    holders = [Holder(server, f"h{number}", history) for number in range(HOLDERS)]
    chaser = Viewer(server, "chaser")

    async def chase() -> int:
        """Buy one unit after another until there is none; how many."""
        bought = 0
        while bought < STOCK:
            bought += await order(history, chaser, {"sku": "s1", "qty": 1}) == "ok"
        return bought

    async def story() -> None:
        async with staying(*holders, chaser):
            holding = [asyncio.create_task(holder.hold_and_look()) for holder in holders]
            await until(lambda: sum(_held(history)) == STOCK)
            chasing = asyncio.create_task(chase())
            killed = min(server.workers())
            os.kill(killed, signal.SIGKILL)
            await until(lambda: len(server.workers() - {killed}) == 2)
            await asyncio.gather(*holding)
            assert await chasing == STOCK

    asyncio.run(asyncio.wait_for(story(), 60))
    within = {"early_ms": EARLY_MS, "late_ms": LATE_MS}
    assert untimely(history.lines, sku="s1", stock=STOCK, **within) == []
    books_agree(server, history.lines, {"sku:s1": STOCK})
    audited(server)


def _held(history: Recorder) -> Iterator[int]:
    """The units of every cart that was answered so far."""
    return (
        line["qty"]
        for one in history.lines
        if (one.what, one.op) == ("ok", "cart.add")
        for line in one.value["lines"]
    )

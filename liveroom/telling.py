"""What is said after a commit: Redis hears what moved, buyers hear what became of their orders.

Nothing said here can be lost for good: the gates are told again from the ledger by the
sweeper, holds that nobody ended fall due, and a buyer who missed an event finds the order in
the next snapshot.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import structlog

from liveroom.batching import Batcher
from liveroom.bookkeeping import After
from liveroom.errors import Unavailable
from liveroom.events import Event
from liveroom.faults import point
from liveroom.inventory import Inventory
from liveroom.store.backplane import Backplane

BATCH_MAX: Final = 64
WAITING_MAX: Final = 1_000

log = structlog.get_logger()


class Telling:
    """Tells of commits in order, many at once while it is busy. Placing does not wait for it."""

    def __init__(self, inventory: Inventory, backplane: Backplane) -> None:
        self._inventory = inventory
        self._backplane = backplane
        self._batcher = Batcher(self._tell, size_max=BATCH_MAX, waiting_max=WAITING_MAX)
        self._tasks: set[asyncio.Task[None]] = set()

    async def all_told(self, within_s: float | None = None) -> None:
        """Wait until everything committed so far is told, or left to the sweeper, or time is up."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=within_s)

    def tell(self, after: After) -> None:
        """Tell of this commit soon."""
        if after.told or after.news or after.ended or after.returned:
            task = asyncio.create_task(self._submit(after), name="tell")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _submit(self, after: After) -> None:
        try:
            await self._batcher.submit(after)
        except Unavailable as error:
            log.warning("orders.told_later", code=error.code)
        except Exception:
            log.exception("orders.tell_failed")

    async def _tell(self, afters: Sequence[After]) -> list[None]:
        events = [
            Event(one.name, {"order": one.order.builtin()}, after.at, to=one.buyer)
            for after in afters
            for one in after.news
        ]
        try:
            if told := [one for after in afters for one in after.told]:
                await self._inventory.tell(told)
                point("tell.told")
            if ended := [hold for after in afters for hold in after.ended]:
                await self._inventory.release(ended)
            if returned := [hold for after in afters for hold in after.returned]:
                await self._inventory.back_to_held(returned)
        finally:
            if events:
                await self._backplane.direct(events)
        return [None] * len(afters)

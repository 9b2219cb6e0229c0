"""Carts at the gates of all partitions: what is in them, and their way to an order and back.

A cart lies in as many partitions as its lines. A checkout takes it partition by partition, in
their order, and gives back what it took where one of them refuses: all of a cart or nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Final

import structlog

from liveroom.batching import Batcher
from liveroom.errors import LiveroomError, Refused, Unavailable
from liveroom.store import ledger
from liveroom.store.answered import AnsweredLines
from liveroom.store.database import Database
from liveroom.store.fences import Fences
from liveroom.store.gates import Busy, Gates, hold_id
from liveroom.store.holds import Deadlines, Hold, by_part

CARTS_MAX: Final = 256
WAITING_MAX: Final = 20_000
SPENT_MAX: Final = 8
"""So many orders may have been made of one cart that Redis has not heard of yet."""

log = structlog.get_logger()


class Carting:
    """The carts of all buyers, for one process."""

    def __init__(
        self,
        db: Database,
        gates: Gates,
        fences: Fences,
        deadlines: Deadlines,
        answered: AnsweredLines,
    ) -> None:
        self._db = db
        self._gates = gates
        self._fences = fences
        self._deadlines = deadlines
        self._answered = answered
        self._reading = Batcher(self._read, size_max=CARTS_MAX, waiting_max=WAITING_MAX)

    async def close(self) -> None:
        """Answer what was asked."""
        await self._reading.close()

    async def show(self, buyer: str, room: str) -> list[Hold]:
        """The holds in a cart that have not expired and are not being ordered, by SKU."""
        holds = await self._reading.submit(f"{room}/{buyer}")
        self._answered.keep(holds)
        return sorted(holds, key=_by_sku)

    async def to_placing(self, buyer: str, room: str, order: str | None) -> list[Hold]:
        """Everything in the cart, for one order; see `Inventory.to_placing`."""
        cart, key = f"{room}/{buyer}", order or hold_id(0)
        placing: list[Hold] = []
        for part in self._fences.partitions:
            try:
                placing += await self._take(part, cart, key)
            except LiveroomError:
                await self._give_up(placing)
                raise
        if not placing:
            raise Refused("hold_expired")
        self._answered.forget(hold.id for hold in placing)
        return sorted(placing, key=_by_sku)

    async def back_to_held(self, holds: Iterable[str]) -> None:
        """Give placing holds back to their carts; see `Inventory.back_to_held`."""
        for part, ids in by_part(holds).items():
            epoch, held = await self._fences.call(part, self._gates.give_back, ids)
            self._answered.keep(self._deadlines.holds(held, epoch))

    async def remove(self, holds: Sequence[str]) -> None:
        """Take holds out of their carts; those that are being ordered stay."""
        for part, ids in by_part(holds).items():
            await self._fences.call(part, self._gates.release, ids, state="held", void=True)
        self._answered.forget(holds)

    async def _take(self, part: int, cart: str, order: str) -> list[Hold]:
        """What the cart has in one partition.

        Another order that is taking the cart has its lines in other partitions too, or will
        have them: what it leaves is no cart of its own. What an order on record has taken is
        spent, and Redis has yet to hear of it.
        """
        spent: list[str] = []
        while True:
            epoch, held = await self._fences.call(part, self._gates.place, cart, order, spent)
            if held is None:
                raise Refused("hold_expired")
            if not isinstance(held, Busy):
                return self._deadlines.holds(held, epoch)
            placed = await self._db.read(partial(ledger.is_placed, order=held.order))
            if not placed or len(spent) == SPENT_MAX:
                raise Refused("hold_expired")
            spent.append(held.order)

    async def _give_up(self, holds: Sequence[Hold]) -> None:
        """Give up a checkout that another partition has refused.

        What a store that is away keeps as placing, the sweep returns to its cart.
        """
        try:
            await self.back_to_held([hold.id for hold in holds])
        except Unavailable as away:
            log.warning("stock.left_to_sweep", holds=len(holds), code=away.code)

    async def _read(self, carts: Sequence[str]) -> list[list[Hold]]:
        """The holds of each cart; a herd that joins asks for thousands."""
        found: list[list[Hold]] = [[] for _ in carts]
        for part in self._fences.partitions:
            epoch, held = await self._fences.call(part, self._gates.carts, carts)
            for holds, one in zip(found, held, strict=True):
                holds.extend(self._deadlines.holds(one, epoch))
        return found


def _by_sku(hold: Hold) -> tuple[str, str]:
    return hold.sku, hold.drop or ""

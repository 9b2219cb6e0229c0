"""What ends in carts by itself, by its time or by a rebuild, and the buyers who are told.

Nothing here may be relied on: a buyer who missed the event finds the cart as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from liveroom import shapes
from liveroom.clock import Clock
from liveroom.events import Event
from liveroom.hoarding import Hoarding
from liveroom.inventory import Hold, Inventory
from liveroom.store.backplane import Backplane
from liveroom.store.outline import Outline

TOLD_AT_ONCE: Final = 500


class Expiring:
    """Tells buyers of cart lines that are gone. One for each process."""

    def __init__(
        self, inventory: Inventory, backplane: Backplane, clock: Clock, hoarding: Hoarding
    ) -> None:
        self._inventory = inventory
        self._backplane = backplane
        self._clock = clock
        self._hoarding = hoarding

    async def sweep_once(self, outline: Outline | None = None) -> None:
        """End holds past their time. One node, once a second; see `Inventory.sweep_once`."""
        expired = (await self._inventory.sweep_once(outline)).expired
        await self._tell(expired)
        await self._hoarding.count(expired)

    async def check_once(self) -> None:
        """Compare the fences; who lost a line to a rebuild is told. Every node, once a second.

        A line this node answered is told by this node, whoever rebuilt.
        """
        await self._inventory.check_once()
        lost = self._inventory.lost()
        for at in range(0, len(lost), TOLD_AT_ONCE):
            told = lost[at : at + TOLD_AT_ONCE]
            await self._tell(told, why="rebuilding")
            self._inventory.told_lost(told)

    async def _tell(self, holds: Sequence[Hold], **why: str) -> None:
        at = self._clock.now_ms()
        await self._backplane.direct(
            [
                Event("hold.expired", {"hold": _line(hold).builtin(), **why}, at, to=hold.buyer)
                for hold in holds
            ]
        )


def _line(hold: Hold) -> shapes.HoldLine:
    return shapes.HoldLine(sku=hold.sku, qty=hold.qty, expires_at=hold.due, drop=hold.drop)

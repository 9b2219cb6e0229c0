"""What ends in carts by itself, by its time or by a rebuild, and the buyers who are told.

What expired may be missed: the buyer finds the cart as it is. What a rebuild ended is told to
whoever is there, and once more to whoever comes back before it would have been due, unless
Redis is lost again by then: what is to be told lies there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

import structlog

from liveroom import shapes
from liveroom.clock import Clock
from liveroom.errors import Unavailable
from liveroom.events import Event
from liveroom.hoarding import Hoarding
from liveroom.inventory import Hold, Inventory
from liveroom.store.backplane import Backplane
from liveroom.store.lost import LOOKED_FOR_S, LostLine, LostLines
from liveroom.store.outline import Outline

TOLD_AT_ONCE: Final = 500

log = structlog.get_logger(__name__)


class Expiring:
    """Tells buyers of cart lines that are gone. One for each process."""

    def __init__(
        self,
        inventory: Inventory,
        backplane: Backplane,
        clock: Clock,
        hoarding: Hoarding,
        lost: LostLines,
    ) -> None:
        self._inventory = inventory
        self._backplane = backplane
        self._clock = clock
        self._hoarding = hoarding
        self._lost = lost

    async def close(self) -> None:
        """Answer what was asked."""
        await self._lost.close()

    async def sweep_once(self, outline: Outline | None = None) -> None:
        """End holds past their time. One node, once a second; see `Inventory.sweep_once`."""
        expired = (await self._inventory.sweep_once(outline)).expired
        await self._tell(expired)
        await self._hoarding.count(expired)

    async def check_once(self) -> None:
        """Compare the fences; who lost a line to a rebuild is told. Every node, once a second.

        A line this node answered is told by this node, whoever rebuilt. It is kept before it is
        told: who comes back in between hears it twice, not never.
        """
        await self._inventory.check_once()
        lost = self._inventory.lost()
        for at in range(0, len(lost), TOLD_AT_ONCE):
            await self._lost.keep(lost[at : at + TOLD_AT_ONCE])
        if lost:
            await asyncio.sleep(LOOKED_FOR_S)  # who joins from here on is told by that
        for at in range(0, len(lost), TOLD_AT_ONCE):
            told = lost[at : at + TOLD_AT_ONCE]
            await self._tell(told, why="rebuilding")
            self._inventory.told_lost(told)

    async def missed(self, buyer: str, room: str) -> list[LostLine]:
        """What a rebuild has ended in this cart and the buyer may not know; for `tell_missed`.

        Raises:
            Unavailable: `store_down`, `overloaded`.
        """
        return await self._lost.of(buyer, room)

    async def tell_missed(
        self, buyer: str, room: str, lines: Sequence[LostLine], tell: Callable[[Event], None]
    ) -> None:
        """Tell a buyer who is back of these, but for what is in the cart again.

        Each line is told once, or once more where a store fails just then.

        Raises:
            Unavailable: `store_down`.
        """
        has = await self._in_cart(buyer, room)
        at = self._clock.now_ms()
        for line in lines:
            if (line.sku, line.drop) not in has:
                tell(_expired(_line(line), at, buyer, why="rebuilding"))
        await self._lost.told(buyer, room, lines)

    async def _in_cart(self, buyer: str, room: str) -> set[tuple[str, str | None]]:
        try:
            cart = await self._inventory.cart(buyer, room)
        except Unavailable as fault:
            log.info("cart_unread", code=fault.code)  # it is being lost again
            return set()
        return {(hold.sku, hold.drop) for hold in cart}

    async def _tell(self, holds: Sequence[Hold], **why: str) -> None:
        at = self._clock.now_ms()
        await self._backplane.direct([_expired(_line(one), at, one.buyer, **why) for one in holds])


def _expired(line: shapes.HoldLine, at: int, buyer: str, **why: str) -> Event:
    return Event("hold.expired", {"hold": line.builtin(), **why}, at, to=buyer)


def _line(hold: Hold | LostLine) -> shapes.HoldLine:
    return shapes.HoldLine(sku=hold.sku, qty=hold.qty, expires_at=hold.due, drop=hold.drop)

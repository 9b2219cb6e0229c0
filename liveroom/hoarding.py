"""Hoarding: who lets holds expire again and again waits a little before the next.

Off unless it is set. Only holds that expired count: what was removed or ordered harms nobody.
"""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from liveroom.errors import Refused
from liveroom.inventory import Hold
from liveroom.store.cooling import Cooling

log = structlog.get_logger()


class Hoarding:
    """The cool-down of all buyers; without `cooling` there is none."""

    def __init__(self, cooling: Cooling | None) -> None:
        self._cooling = cooling

    async def count(self, expired: Sequence[Hold]) -> None:
        """Count holds that have expired, each once."""
        if self._cooling is None or not expired:
            return
        begun = await self._cooling.count([(hold.buyer, hold.sku) for hold in expired])
        if begun:
            log.info("hoarding.cool_down", buyers=begun)

    async def refuse_if_cooling(self, buyer: str, skus: Sequence[str]) -> None:
        """`slow_mode` {sku} with the time to wait, while the buyer's holds must cool down."""
        if self._cooling is None:
            return
        waits = await self._cooling.left_ms(buyer, sorted(set(skus)))
        if waits:
            sku = max(waits, key=lambda one: waits[one])
            raise Refused(
                "slow_mode",
                "Your holds expired; wait a little before the next.",
                data={"sku": sku},
                retry_after_ms=waits[sku],
            )

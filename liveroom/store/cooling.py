"""How often a buyer's holds of a SKU have expired, and who must wait a little now.

Kept in Redis alone: what is lost costs nobody anything but a cool-down.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from liveroom.store import keys
from liveroom.store.scripts import Client, Script, store_errors

_COUNT: Final = Script("cool_count")


class Cooling:
    """`most` expired holds within `window_ms` begin a cool-down of `cool_ms`."""

    def __init__(self, client: Client, *, most: int, window_ms: int, cool_ms: int) -> None:
        self._client = client
        self._args = most, window_ms, cool_ms

    async def count(self, expired: Sequence[tuple[str, str]]) -> int:
        """Count expired holds, each as `(buyer, sku)`; how many cool-downs begin."""
        calls = [(keys.cooling(buyer, sku), self._args) for buyer, sku in expired]
        answers = await _COUNT.each(self._client, calls) if calls else []
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        return sum(answers)

    async def left_ms(self, buyer: str, skus: Sequence[str]) -> dict[str, int]:
        """How long the buyer must wait for each of the SKUs; only those that are cooling."""
        with store_errors():
            waits = await asyncio.gather(
                *(self._client.pttl(keys.cooling(buyer, sku)[1]) for sku in skus)
            )
        return {sku: wait for sku, wait in zip(skus, waits, strict=True) if wait > 0}

"""What gates said a moment ago: after the last unit, a storm of requests stays on the node."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from liveroom.errors import Unavailable

MEMORY_S: Final = 0.25
PROBE_AFTER_S: Final = 0.15
POOLS_MAX: Final = 10_000


class SoldOutMemory:
    """Pools whose gates said, at most 250 ms ago, that nothing is left, held or parked.

    Before that is older, one request asks the gate again; the others go on being refused, and
    wait for its answer only where it takes longer than the memory lasts.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._said: dict[str, float] = {}
        self._probes: dict[str, list[asyncio.Future[None]]] = {}

    def remember(self, pool: str) -> None:
        """The gate has just said that this pool is empty, whatever is given back."""
        if len(self._said) >= POOLS_MAX:
            self._said.clear()
        self._said[pool] = self._monotonic()

    def forget(self, pool: str) -> None:
        """The gate has said something else."""
        self._said.pop(pool, None)

    def is_empty(self, pool: str) -> bool:
        """Whether the gate said so a moment ago."""
        said = self._said.get(pool)
        return said is not None and self._monotonic() - said <= MEMORY_S

    def has_any(self) -> bool:
        """Whether there is anything to ask or to forget; mostly there is not."""
        return bool(self._said)

    def begin_probe(self, pool: str) -> bool:
        """Whether the caller must ask the gate again, and call `answered` whatever comes.

        One at a time, and a little ahead: those who come meanwhile need not wait for it.
        """
        said = self._said.get(pool)
        if said is None or pool in self._probes or self._monotonic() - said <= PROBE_AFTER_S:
            return False
        self._probes[pool] = []
        return True

    async def probed(self, pool: str) -> None:
        """Wait for the answer to somebody else's probe, where the memory is too old meanwhile.

        Raises:
            Unavailable: the store gave that probe no answer, and gives none to who waited.
        """
        while pool in self._said and pool in self._probes and not self.is_empty(pool):
            waiter = asyncio.get_running_loop().create_future()
            self._probes[pool].append(waiter)
            await waiter

    def answered(self, probed: Sequence[str], fault: Unavailable | None = None) -> None:
        """The caller's probes have ended: those who waited go on, or are told its fault.

        While a store hangs, each of them would else wait for it again, one after the other.
        """
        for pool in probed:
            for waiter in self._probes.pop(pool):
                if waiter.done():
                    continue
                if fault is None:
                    waiter.set_result(None)
                else:
                    waiter.set_exception(Unavailable(fault.code))

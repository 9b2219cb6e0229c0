"""What gates said a moment ago: after the last unit, a storm of requests stays on the node."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

MEMORY_S: Final = 0.25
POOLS_MAX: Final = 10_000


class SoldOutMemory:
    """Pools whose gates said, at most 250 ms ago, that nothing is left, held or parked.

    When that is older, one request asks the gate again and the others wait for its answer.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._said: dict[str, float] = {}
        self._probes: dict[str, asyncio.Future[None]] = {}

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

    async def ask(self, pools: Sequence[str]) -> list[str]:
        """The pools the caller must probe: call `answered` with them, whatever comes.

        Returns once none of the pools is being probed by somebody else.
        """
        mine: list[str] = []
        for pool in pools:
            if pool not in self._said or self.is_empty(pool) or pool in mine:
                continue
            probe = self._probes.get(pool)
            if probe is not None:
                await asyncio.wait([probe])
            else:
                self._probes[pool] = asyncio.get_running_loop().create_future()
                mine.append(pool)
        return mine

    def answered(self, probed: Sequence[str]) -> None:
        """The caller's probes have their answers; those who waited go on."""
        for pool in probed:
            self._probes.pop(pool).set_result(None)

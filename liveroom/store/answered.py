"""The cart lines a node has answered, so that it can tell their buyers if a rebuild ends them.

A rebuild writes empty gates: what was in carts before it is nowhere any more but here. Another
node may have ended a line meanwhile; then its buyer is told once too often, never too seldom.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from liveroom.store.gates import part_of
from liveroom.store.holds import Hold

LINES_MAX: Final = 100_000


class AnsweredLines:
    """Lines by their holds, until they are due or `forget`; the oldest give way beyond the bound.

    `now_ms` is the clock their deadlines are on.
    """

    def __init__(self, now_ms: Callable[[], int], *, lines_max: int = LINES_MAX) -> None:
        self._now_ms = now_ms
        self._lines_max = lines_max
        self._lines: dict[str, Hold] = {}

    def keep(self, lines: Iterable[Hold]) -> None:
        """Remember these as their buyers know them now."""
        self._lines |= {line.id: line for line in lines}
        self._prune()

    def forget(self, holds: Iterable[str]) -> None:
        """These are in no cart any more, or their buyers know."""
        for hold in holds:
            self._lines.pop(hold, None)

    def ended_by(self, epochs: dict[int, int]) -> list[Hold]:
        """The lines made before these fence epochs of their partitions; they stay till `forget`."""
        self._prune()
        now = self._now_ms()
        return [
            line
            for line in self._lines.values()
            if line.due > now and line.epoch < epochs.get(part_of(line.id), 0)
        ]

    def _prune(self) -> None:
        """Drop the oldest, as far as they are due; every line lives about as long as the others."""
        now = self._now_ms()
        while self._lines:
            oldest = next(iter(self._lines))
            if self._lines[oldest].due > now and len(self._lines) <= self._lines_max:
                return
            del self._lines[oldest]

"""Time: one clock, set by the database and carried by the monotonic clock.

Every time shown is on the database's clock, so that nodes whose wall clocks differ or step
agree. Correctness never rests on it (docs/inventory.md).
"""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """What the house needs to know of time; tests hand in one they move by hand."""

    def now_ms(self) -> int:
        """The time in integer milliseconds since the Unix epoch."""
        ...


class ServerClock:
    """The database's time, kept between measurements by this node's monotonic clock."""

    def __init__(self) -> None:
        self._offset_ms = time.time() * 1000 - time.monotonic() * 1000

    def set(self, database_ms: float, *, asked: float, answered: float) -> None:
        """Take the database's time, read between two monotonic moments in seconds."""
        self._offset_ms = database_ms - (asked + answered) * 500

    def now_ms(self) -> int:
        """The database's time now, as far as this node can tell."""
        return int(time.monotonic() * 1000 + self._offset_ms)


class ManualClock:
    """A clock that stands still until a test moves it."""

    def __init__(self, now_ms: int = 1_790_000_000_000) -> None:
        self._now_ms = now_ms

    def now_ms(self) -> int:
        """The time that was set."""
        return self._now_ms

    def advance(self, ms: int) -> None:
        """Let `ms` milliseconds pass."""
        self._now_ms += ms

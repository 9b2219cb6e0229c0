"""Fan-out: when a room's next flush may start, and how one frame reaches every seat.

Rules: flush at once when idle, gather while busy; a flush is cut into slices that yield to
the loop, and each write asks again whether the seat is still there. For each viewer and
flush, one comparison, one store and one write: nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from liveroom.wire.outbox import Seat

SLICE: Final = 250
GATHER_COST_FACTOR: Final = 4.0
GATHER_S: Final = 0.040
TICK_MAX_S: Final = 0.4


class Job(NamedTuple):
    """One frame and the seats that get it."""

    frame: bytes
    seats: Sequence[Seat]


class Tick:
    """How long a room gathers before its next flush.

    After a flush that cost `c` seconds the room gathers for `min(4c, 40 ms + c/2)`, at most
    `max_s`: a small room buys fewer writes with a few milliseconds, while a large one, whose
    flush is slow by itself, adds little to what its viewers wait already.
    """

    def __init__(self, max_s: float = TICK_MAX_S) -> None:
        self._max_s = max_s
        self.last_s = float("-inf")
        self.ready_s = float("-inf")

    def flushed(self, began_s: float, ended_s: float) -> None:
        """A flush took this long, with the loop's own work for it."""
        cost = ended_s - began_s
        self.last_s = ended_s
        gather = min(GATHER_COST_FACTOR * cost, GATHER_S + cost / 2, self._max_s)
        self.ready_s = ended_s + gather


class Flush:
    """The writing of one tick's frames, slice by slice.

    A seat gets its frame unless it has had beat `beat` already, or is away. `done` is
    called once, after the last slice's bytes have been handed to the kernel.
    """

    __slots__ = ("_at", "_beat", "_done", "_job", "_jobs", "_loop", "writes")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        jobs: Sequence[Job],
        beat: int,
        done: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._jobs = jobs
        self._beat = beat
        self._done = done
        self._job = 0
        self._at = 0
        self.writes = 0

    def start(self) -> None:
        """Write the first slice now, and the others as the loop comes round."""
        room = SLICE
        beat = self._beat
        while room > 0 and self._job < len(self._jobs):
            frame, seats = self._jobs[self._job]
            part = seats[self._at : self._at + room]
            for seat in part:
                if seat.beat < beat:
                    seat.beat = beat
                    seat.write(frame)
            room -= len(part)
            self._at += len(part)
            self.writes += len(part)
            if self._at >= len(seats):
                self._job += 1
                self._at = 0
        more = self._job < len(self._jobs)
        self._loop.call_soon(self.start if more else self._done)

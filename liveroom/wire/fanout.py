"""Fan-out: when a room's next flush may start, how one frame reaches every seat, or a close.

Rules: flush at once when idle, gather while busy; a flush is cut into slices, between which
the loop does what waits; each write asks again whether the seat is still there. For each
viewer and flush, one comparison, one store and one write: nothing else.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Final, NamedTuple

from liveroom.wire import codec
from liveroom.wire.direct import FLAGS, send
from liveroom.wire.outbox import Seat

SLICE: Final = 250
SLICE_S: Final = 0.002
"""A slice ends after so many writes or so long, whichever comes first."""
CHUNK: Final = 50
"""How many writes, or closes, pass between two looks at the clock."""
ROUNDS: Final = 12
"""How often the loop comes round between two slices, unless that takes longer than a slice."""
GATHER_COST_FACTOR: Final = 16.0
PERIOD_S: Final = 0.040
TICK_MAX_S: Final = 0.4

NO_RETURN: Final = 4500
"""Close codes from here on say that the client shall not come back by itself."""


class Job(NamedTuple):
    """One frame and the seats that get it."""

    frame: bytes
    seats: Sequence[Seat]


class Tick:
    """How long a room gathers before its next flush.

    After a flush that cost `c` seconds the room gathers until 40 ms after that flush began, for
    16c at most and c/2 at least, never longer than `max_s`: a small room buys fewer writes with
    a few milliseconds, while a large one, whose flush is slow by itself, adds little to what
    its viewers wait already. From a few hundred viewers on flushes begin equally often,
    whatever they cost, so that a room spread over two workers needs no more frames than on one.
    """

    def __init__(self, max_s: float = TICK_MAX_S) -> None:
        self._max_s = max_s
        self.ready_s = float("-inf")

    def flushed(self, began_s: float, ended_s: float) -> None:
        """A flush took this long, with the loop's own work for it."""
        cost = ended_s - began_s
        gather = min(GATHER_COST_FACTOR * cost, max(PERIOD_S - cost, cost / 2), self._max_s)
        self.ready_s = ended_s + gather


class Flush:
    """The writing of one tick's frames, slice by slice.

    A seat gets its frame unless it has had beat `beat` already, or is away. `done` is
    called once, after the last slice's bytes have been handed to the kernel.

    A command is many short steps, each in a turn of the loop: with one turn between two
    slices every step would wait for a slice. So the loop comes round `ROUNDS` times, but
    not for longer than the slice took: others get at most half of the time.
    """

    __slots__ = (
        "_at",
        "_beat",
        "_clock",
        "_done",
        "_job",
        "_jobs",
        "_loop",
        "_resume_s",
        "_rounds",
        "writes",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        jobs: Sequence[Job],
        beat: int,
        done: Callable[[], None],
        *,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._loop = loop
        self._jobs = jobs
        self._beat = beat
        self._done = done
        self._clock = clock
        self._job = 0
        self._at = 0
        self._rounds = 0
        self._resume_s = 0.0
        self.writes = 0

    def start(self) -> None:
        """Write the first slice now, and the others as the loop comes round."""
        began_s = now_s = self._clock()
        room = SLICE
        while room > 0 and now_s - began_s < SLICE_S and self._job < len(self._jobs):
            room -= self._write_chunk(min(room, CHUNK))
            now_s = self._clock()
        self._rounds = 0
        self._resume_s = now_s + (now_s - began_s)
        more = self._job < len(self._jobs)
        self._loop.call_soon(self._come_round if more else self._done)

    def _write_chunk(self, count: int) -> int:
        """Write to the next seats of the current job, at most `count`; how many that were."""
        frame, seats = self._jobs[self._job]
        part = seats[self._at : self._at + count]
        beat, size = self._beat, len(frame)
        for seat in part:
            if seat.beat < beat:
                seat.beat = beat
                taken = send(seat.descriptor, frame, size, FLAGS)
                if taken != size:
                    seat.send_rest(frame, taken)
        self._at += len(part)
        self.writes += len(part)
        if self._at >= len(seats):
            self._job += 1
            self._at = 0
        return len(part)

    def _come_round(self) -> None:
        self._rounds += 1
        if self._rounds >= ROUNDS or self._clock() >= self._resume_s:
            self.start()
        else:
            self._loop.call_soon(self._come_round)


async def close_all(seats: Sequence[Seat], code: int) -> None:
    """Close seats, each with a time of its own to return at; the more they are the later.

    Where the code says not to return there is no time.

    It costs as much as a flush, so others get as long after each chunk as it took.
    """
    for first in range(0, len(seats), CHUNK):
        began_s = monotonic()
        for seat in seats[first : first + CHUNK]:
            after_ms = random.randrange(100 + len(seats))
            seat.link.close(code, codec.close_reason(after_ms) if code < NO_RETURN else "")
        await asyncio.sleep(monotonic() - began_s)

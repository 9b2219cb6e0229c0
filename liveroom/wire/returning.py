"""Returning: what viewers who were away lack, read from the log where the ring is too short.

Rule: a log is read once for all who return to one position, and by few at a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final

from liveroom.events import Position
from liveroom.wire.codec import Format
from liveroom.wire.joining import RESUME_BYTES_MAX, RESUME_MAX, SNAPSHOT, Missed
from liveroom.wire.live import LiveRoom
from liveroom.wire.repair import ReadLog
from liveroom.wire.ring import Encoded

READERS_MAX: Final = 4
"""How many read logs for returners at once: each may take what answer and ring hold."""

Spawn = Callable[[Coroutine[Any, Any, Any]], asyncio.Task[Any]]


class Returning:
    """Reads logs for returners; each read is a task of its own, which `spawn` starts."""

    def __init__(self, *, log: ReadLog, spawn: Spawn, ring_bytes_max: int) -> None:
        self._log = log
        self._spawn = spawn
        self._ring_bytes_max = ring_bytes_max
        self._reading = asyncio.Semaphore(READERS_MAX)
        self._reads: dict[tuple[LiveRoom, int], asyncio.Task[list[Encoded] | None]] = {}

    async def missed(self, live: LiveRoom, since: Position | None) -> Missed | None:
        """What a returner lacks, from the ring, else the log; None when the room moved on."""
        if since is None or since.epoch != live.epoch:
            return SNAPSHOT
        if live.ring.holds(since.seq):
            return Missed.of([], since.seq, live)
        if since.seq < live.flushed - RESUME_MAX:
            return SNAPSHOT
        task = self._reads.get((live, since.seq))
        if task is None:
            task = self._reads[live, since.seq] = self._spawn(self._read(live, since))
            task.add_done_callback(lambda _: self._reads.pop((live, since.seq), None))
        read = await asyncio.shield(task)
        return SNAPSHOT if read is None else Missed.of(read, since.seq, live)

    async def _read(self, live: LiveRoom, since: Position) -> list[Encoded] | None:
        """What the log holds after `since`: read and encoded once for all who ask meanwhile.

        It ends where the ring begins. None where that is too far: of what an answer has no
        room for, the ring must hold all, and it is bounded too.
        """
        async with self._reading:
            # Whoever read before may have brought the ring as far.
            return [] if live.ring.holds(since.seq) else await self._read_pages(live, since)

    async def _read_pages(self, live: LiveRoom, since: Position) -> list[Encoded] | None:
        encoded: list[Encoded] = []
        bytes_left, at = RESUME_BYTES_MAX + self._ring_bytes_max, since
        while not encoded or at.seq < live.ring.first - 1:
            events = await self._log(live.room, at, RESUME_MAX + 1 - len(encoded))
            if events is None:
                return None
            if not events:
                break
            newer = [Encoded(event) for event in events]
            encoded += newer
            bytes_left -= sum(len(one.to(Format.JSON)) for one in newer)
            if len(encoded) > RESUME_MAX or bytes_left < 0:
                return None
            at = at._replace(seq=events[-1].seq or 0)
        live.ring.extend_back(encoded)
        return encoded

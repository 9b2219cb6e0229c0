"""Repair: what the backplane lost is read from the log, until a room stands where its log does.

Rule: the store's word decides which log is in force, never the order of arrival.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

from liveroom.errors import LiveroomError
from liveroom.events import Event, Position
from liveroom.wire.live import LiveRoom

log = logging.getLogger("liveroom.hub")

READ_MAX: Final = 1001
RETRY_S_MIN: Final = 0.05
RETRY_S_MAX: Final = 2.0
NO_LOG: Final = Position("", 0)
"""Where a room stands that has had no logged event yet."""

ReadLog = Callable[[str, Position, int], Awaitable[Sequence[Event] | None]]
ReadPositions = Callable[[list[str]], Awaitable[Mapping[str, Position]]]


class Repairs:
    """One task for each room that lacks something; `lose` is called where the log is another.

    `live` gives the room that is live under a name: a repair ends when its room is not.
    """

    def __init__(
        self,
        *,
        log: ReadLog,
        positions: ReadPositions,
        live: Callable[[str], LiveRoom | None],
        lose: Callable[[LiveRoom], None],
    ) -> None:
        self._log = log
        self._positions = positions
        self._live = live
        self._lose = lose
        self._tasks: dict[LiveRoom, asyncio.Task[None]] = {}
        self._asked: set[LiveRoom] = set()
        self._closed = False

    def start(self, live: LiveRoom) -> None:
        """Bring a room to the end of its log; asked for during a repair, it looks once more."""
        self._asked.add(live)
        if live not in self._tasks and not self._closed:
            self._tasks[live] = asyncio.create_task(self._run(live), name=f"repair {live.room}")

    def stop(self, live: LiveRoom) -> None:
        """End a room's repair; one that is losing its room right now ends by itself."""
        self._asked.discard(live)  # a task that has not begun ends without its own last step
        task = self._tasks.pop(live, None)
        if task is not None and task is not asyncio.current_task():
            task.cancel()

    async def close(self) -> None:
        """End every repair."""
        self._closed = True
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, live: LiveRoom) -> None:
        try:
            await self._fill(live)
        finally:  # here and in no callback: whoever asks from now on starts a new repair
            self._tasks.pop(live, None)
            self._asked.discard(live)

    async def _fill(self, live: LiveRoom) -> None:
        wait_s = RETRY_S_MIN
        while self._live(live.room) is live:
            self._asked.discard(live)
            try:
                if await self._filled(live) and live not in self._asked:
                    return
                wait_s = RETRY_S_MIN
            except LiveroomError as error:
                log.warning("room %s waits for its log: %s", live.room, error)
                await asyncio.sleep(wait_s * random.uniform(0.5, 1))
                wait_s = min(RETRY_S_MAX, wait_s * 2)
            except Exception:
                log.exception("room %s cannot be repaired; the next check tries again", live.room)
                return

    async def _filled(self, live: LiveRoom) -> bool:
        """Take one step towards the log's end; True once it is reached, or the log is lost."""
        had = live.position
        now = (await self._positions([live.room])).get(live.room, NO_LOG)
        if not live.follows(now.epoch) or now.seq < had.seq:
            self._lose(live)
            return True
        if now.seq <= live.ring.last:
            return True
        events = await self._log(live.room, live.position, READ_MAX)
        if events is None:
            self._lose(live)
            return True
        for event in events:
            live.take(event)
        live.beat()
        return False

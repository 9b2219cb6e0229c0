"""What a server does again and again by itself: sweeps, counts, comparisons."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from liveroom.beats import next_beat
from liveroom.errors import Unavailable

log = structlog.get_logger(__name__)

Job = Callable[[], Awaitable[object]]


class Chores:
    """Jobs that run again and again until `close`.

    A job that fails is logged and runs again at its next time: stores come and go, and no
    fault of one job may end the others. No job ever runs twice at once.
    """

    def __init__(self) -> None:
        self._tasks: list[asyncio.Task[None]] = []

    def every(self, seconds: float, name: str, job: Job) -> None:
        """Run `job` now, and at each beat of so many seconds; one that takes longer misses some."""
        self._tasks.append(asyncio.create_task(self._repeat(seconds, name, job), name=name))

    def once(self, name: str, job: Job) -> None:
        """Run `job` now, unless it is still running since it was last asked for."""
        if name not in {task.get_name() for task in self._tasks}:
            task = asyncio.create_task(self._do(name, job), name=name)
            self._tasks.append(task)
            task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[None]) -> None:
        if task in self._tasks:
            self._tasks.remove(task)

    async def close(self) -> None:
        """End every job where it stands, and wait until all have ended."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()

    async def _repeat(self, seconds: float, name: str, job: Job) -> None:
        while True:
            await self._do(name, job)
            await next_beat(seconds)

    async def _do(self, name: str, job: Job) -> None:
        try:
            await job()
        except Unavailable as fault:
            log.warning("chore_put_off", chore=name, code=fault.code)
        except Exception:
            log.exception("chore_failed", chore=name)

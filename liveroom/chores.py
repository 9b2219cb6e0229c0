"""What a server does again and again by itself: sweeps, counts, comparisons."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

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
        """Run `job` now, and again `seconds` after each end of it."""
        self._tasks.append(asyncio.create_task(self._repeat(seconds, name, job), name=name))

    async def close(self) -> None:
        """End every job where it stands, and wait until all have ended."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()

    async def _repeat(self, seconds: float, name: str, job: Job) -> None:
        while True:
            try:
                await job()
            except Unavailable as fault:
                log.warning("chore_put_off", chore=name, code=fault.code)
            except Exception:
                log.exception("chore_failed", chore=name)
            await asyncio.sleep(seconds)

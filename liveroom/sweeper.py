"""The sweeper: what must happen by itself, again and again, on one node at a time.

Each step is a function that may be repeated at any time and by anyone; the lease saves work,
correctness never rests on it. A step that fails is logged and tried again at the next sweep,
and keeps none of the others from running. Mostly there is nothing to do: one look at SQL tells
which steps have anything, and a server that nobody uses hardly works.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Final, NamedTuple

import structlog
from sqlalchemy import ColumnElement, Connection, select

from liveroom.beats import next_beat
from liveroom.errors import Unavailable
from liveroom.store.fixed import Fixed
from liveroom.store.leases import Lease

STEP_MAX_S: Final = 30.0
END_MAX_S: Final = 2.0

Run = Callable[..., Awaitable[object]]


class Step(NamedTuple):
    """What to do; `due` is true in SQL where there may be anything to do it for.

    Without it the step runs at each sweep. What `look` reads of SQL, together with what the
    others read, is given to `run`.
    """

    run: Run
    due: ColumnElement[bool] | None = None
    look: Callable[[Connection], object] | None = None


class _Seen(NamedTuple):
    """What SQL said at the beginning of a sweep."""

    idle: set[str]
    """The steps that SQL has nothing for."""
    looks: dict[str, object]


log = structlog.get_logger()


class Sweeper:
    """Runs the steps, in their order, while this node holds the lease. Started and ended once.

    Steps that may wait for somebody `outside` run beside the others, and hold none of them up:
    while they do, sweeps leave them out. One that sweeps seldom needs a lease that lasts as
    long as it waits.
    """

    def __init__(
        self,
        steps: Mapping[str, Step],
        *,
        lease: Lease,
        outside: Mapping[str, Step] | None = None,
        every_s: float = 1.0,
    ) -> None:
        self._steps = dict(steps)
        self._outside = dict(outside or {})
        self._lease = lease
        self._every_s = every_s
        named = (self._steps | self._outside).items()
        self._dues = {name: step.due for name, step in named if step.due is not None}
        self._looks = {name: step.look for name, step in named if step.look is not None}
        self._any_due = Fixed(select(*self._dues.values()))
        self._ending = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._beside: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Sweep from now on, until `close`."""
        self._task = asyncio.create_task(self._run(), name="sweeper")

    async def close(self) -> None:
        """Let the sweep under way finish, for a moment, then stop it where it stands."""
        self._ending.set()
        if tasks := [task for task in (self._task, self._beside) if task is not None]:
            _, late = await asyncio.wait(tasks, timeout=END_MAX_S)
            for task in late:
                task.cancel()
            await asyncio.wait(tasks)

    async def sweep_once(self) -> bool:
        """One sweep, if this node has the lease; whether it had. What is outside goes on."""
        seen = await self._lease.glance(self._look)
        if seen is None:
            return False
        is_free = self._beside is None or self._beside.done()
        if is_free and self._outside.keys() - seen.idle and not self._ending.is_set():
            sweep = self._sweep(self._outside, seen)
            self._beside = asyncio.create_task(sweep, name="sweeper-outside")
        await self._sweep(self._steps, seen)
        return True

    def _look(self, conn: Connection) -> _Seen:
        idle = set()
        if self._dues:
            [found] = self._any_due.all(conn)
            idle = {name for name, due in zip(self._dues, found, strict=True) if not due}
        return _Seen(idle, {name: look(conn) for name, look in self._looks.items()})

    async def _sweep(self, steps: Mapping[str, Step], seen: _Seen) -> None:
        for name, step in steps.items():
            if name not in seen.idle:
                looked = name in seen.looks
                await self._step(name, partial(step.run, seen.looks[name]) if looked else step.run)

    async def _step(self, name: str, run: Run) -> None:
        try:
            async with asyncio.timeout(STEP_MAX_S):
                await run()
        except Unavailable as error:
            log.warning("sweep.put_off", step=name, code=error.code)
        except Exception:
            log.exception("sweep.failed", step=name)

    async def _run(self) -> None:
        while not self._ending.is_set():
            try:
                await self.sweep_once()
            except Unavailable as error:
                log.warning("sweep.put_off", step="lease", code=error.code)
            except Exception:
                log.exception("sweep.failed", step="lease")
            await next_beat(self._every_s, sooner=self._ending)

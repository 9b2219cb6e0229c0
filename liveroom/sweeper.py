"""The sweeper: what must happen by itself, again and again, on one node at a time.

Each step is a function that may be repeated at any time and by anyone; the lease saves work,
correctness never rests on it. A step that fails is logged and tried again at the next sweep,
and keeps none of the others from running. Mostly there is nothing to do: one look at SQL tells
which steps have anything, and a server that nobody uses hardly works.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, NamedTuple

import structlog
from sqlalchemy import ColumnElement, Connection, select

from liveroom.errors import Unavailable
from liveroom.store.database import Database

LEASE_MS: Final = 5_000
STEP_MAX_S: Final = 30.0
END_MAX_S: Final = 2.0

Run = Callable[[], Awaitable[object]]


class Step(NamedTuple):
    """What to do; `due` is true in SQL where there may be anything to do it for.

    Without it the step runs at each sweep.
    """

    run: Run
    due: ColumnElement[bool] | None = None


log = structlog.get_logger()


class Lease:
    """What one node at a time has, as far as it has asked of late.

    Once had, a lease lasts for half its time at least: until then nobody is asked again.
    """

    def __init__(
        self, db: Database, holder: str, *, name: str = "sweeper", lasts_ms: int = LEASE_MS
    ) -> None:
        self._db = db
        self._holder = holder
        self._name = name
        self._lasts_ms = lasts_ms
        self._ours_until_s = float("-inf")

    async def is_ours(self) -> bool:
        """Whether this node has it, or could take it; raises `store_down`."""
        now_s = asyncio.get_running_loop().time()
        if now_s < self._ours_until_s:
            return True
        ours = await self._db.lease(self._name, self._holder, self._lasts_ms)
        if ours:
            self._ours_until_s = now_s + self._lasts_ms / 2000
        return ours


class Sweeper:
    """Runs the steps, in their order, while this node holds the lease. Started and ended once.

    Sweepers may share a lease; one that runs seldom needs one that lasts as long as it waits.
    """

    def __init__(
        self, db: Database, steps: Mapping[str, Step], *, lease: Lease, every_s: float = 1.0
    ) -> None:
        self._db = db
        self._steps = dict(steps)
        self._lease = lease
        self._every_s = every_s
        self._looks = {name: step.due for name, step in self._steps.items() if step.due is not None}
        self._ending = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Sweep from now on, until `close`."""
        self._task = asyncio.create_task(self._run(), name="sweeper")

    async def close(self) -> None:
        """Let the sweep under way finish, for a moment, then stop it where it stands."""
        self._ending.set()
        if self._task is not None:
            await asyncio.wait([self._task], timeout=END_MAX_S)
            self._task.cancel()
            await asyncio.wait([self._task])

    async def sweep_once(self) -> bool:
        """One sweep, if this node has the lease; whether it had."""
        if not await self._lease.is_ours():
            return False
        idle = await self._db.read(self._idle) if self._looks else set()
        for name, step in self._steps.items():
            if name not in idle:
                await self._step(name, step.run)
        return True

    def _idle(self, conn: Connection) -> set[str]:
        """The steps that SQL has nothing for."""
        found = conn.execute(select(*self._looks.values())).one()
        return {name for name, due in zip(self._looks, found, strict=True) if not due}

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
            try:
                await asyncio.wait_for(self._ending.wait(), self._every_s)
            except TimeoutError:
                continue

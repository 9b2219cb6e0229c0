"""Fences: under which epoch each stock partition sells, and how it opens again after a loss.

Order is everything: the epoch is raised in SQL first, by compare-and-set, which waits for the
places under way; then SQL is read; then Redis is opened, once, by whoever raised it. Whatever
goes wrong in between, the epoch is raised again: nothing here is ever repaired in place.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Concatenate, Final, ParamSpec, TypeVar

import structlog

from liveroom.errors import Unavailable
from liveroom.faults import point
from liveroom.ids import new_id
from liveroom.metrics import counters
from liveroom.store import ledger, partitions
from liveroom.store.database import Database
from liveroom.store.fenced import Lost, Marked, Shut
from liveroom.store.gates import Gates, Inspection

T = TypeVar("T")
P = ParamSpec("P")

MEND_WAIT_S: Final = 1.0
"""How long a call waits for stock that is being rebuilt, before it is told to try again."""
OPENING_MAX_S: Final = 1.0
"""How long whoever raised an epoch has to open it, before somebody else raises it again."""
START_MAX_S: Final = 20.0
LOAD_GATES: Final = 500
LOAD_COUNTS: Final = 2_000
FORGET_EPOCHS: Final = 8
BRINGS_MAX: Final = 3

log = structlog.get_logger()


class Fences:
    """What this node knows of the fences of all partitions."""

    def __init__(self, db: Database, gates: Gates, *, partitions: int | None) -> None:
        self._db = db
        self._gates = gates
        self._wanted = partitions
        self.partitions = range(partitions or 1)  # from the start on, as many as SQL has
        self._epochs: dict[int, int] = {}
        self._opened: dict[int, int] = {}  # the epoch this node last saw open
        self._failed: dict[int, int] = {}  # an epoch this node raised and did not open
        self._shut: dict[int, tuple[int, float]] = {}  # an epoch not open yet, and since when
        self._mending: dict[int, asyncio.Task[None]] = {}

    async def start(self) -> None:
        """Open every partition: join what sells, adopt what a planned stop left, or rebuild.

        Where another number of partitions is wanted than SQL has, every fence is raised.

        Raises:
            Unavailable: a store is away, or nobody could open a partition within 20 s.
        """
        self.partitions = range(
            await self._db.write(lambda conn: partitions.prepare(conn, self._wanted))
        )
        for part in self.partitions:
            await self._start(part)

    async def close(self) -> None:
        """End the rebuilds under way; whoever starts next raises their epochs again."""
        tasks = list(self._mending.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def planned_stop(self) -> None:
        """Leave the same mark in both stores, so that the next start keeps holds and carts.

        SQL is marked first: a live node that meets the mark in Redis takes it from SQL before
        it sells again, so no mark ever vouches for holds made after it.
        """
        for part, epoch in self._epochs.items():
            mark = new_id()
            try:
                await self._db.write(
                    partial(partitions.set_mark, part=part, epoch=epoch, mark=mark)
                )
                point("stop.marked_sql")
                await self._gates.mark(part, epoch, mark)
                point("stop.marked_redis")
            except (Shut, Unavailable) as cause:
                log.warning("stock.unmarked_stop", partition=part, why=str(cause))

    async def follow_all(self) -> None:
        """Take the epochs SQL has; every node does so once a second."""
        epochs = dict(await self._db.glance(partitions.fences))
        self.partitions = range(len(epochs))
        self._epochs |= epochs

    async def check_once(self, found_open: Mapping[int, int]) -> None:
        """Compare this node's fences with Redis, right after `follow_all`.

        What `found_open` names was found open by Redis just now, under that epoch: it need not
        be asked again. A partition that is away keeps none of the others from being mended.
        """
        fault: Unavailable | None = None
        for part in self.partitions:
            if found_open.get(part) == self._epochs[part]:
                self._opened[part] = self._epochs[part]
                continue
            try:
                await self.call(part, self._gates.left, [])
            except Unavailable as away:
                fault = away
        if fault is not None:
            raise fault

    async def call(
        self,
        part: int,
        ask: Callable[Concatenate[int, int, P], Awaitable[T]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> tuple[int, T]:
        """The partition's epoch, and what `ask(part, epoch, …)` answers under it.

        Asks once more if the fence has moved.

        Raises:
            Unavailable: `rebuilding`, or what `ask` raised.
        """
        for last in (False, True):
            epoch = self._epochs.get(part)
            if epoch is None:
                break
            try:
                answer = await ask(part, epoch, *args, **kwargs)
            except Shut as shut:
                if last:
                    break
                await self._mend(part, epoch, shut)
            else:
                self._opened[part] = epoch
                return epoch, answer
        raise Unavailable("rebuilding")

    async def bring(
        self,
        part: int,
        ask: Callable[Concatenate[int, int, P], Awaitable[object]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> None:
        """Ask what brings to the gates something that SQL has just committed.

        A rebuild that read SQL before that commit had raised the epoch before it read: where
        SQL has another epoch by now, it is brought to the gates of that one too.

        Raises:
            Unavailable: `rebuilding`, or what `ask` raised; the commit stands.
        """
        for _ in range(BRINGS_MAX):
            epoch, _answer = await self.call(part, ask, *args, **kwargs)
            if await self._follow(part) == epoch:
                return
        raise Unavailable("rebuilding")

    def epochs(self) -> dict[int, int]:
        """The epoch of each partition as this node knows it; all that is older is worth nothing."""
        return dict(self._epochs)

    async def raise_again(self, part: int) -> None:
        """Rebuild a partition whose gates cannot be right."""
        await self._mend(part, self._epochs[part], Lost("gates ahead of their ledger"))

    async def inspect(self) -> list[Inspection]:
        """Every partition as Redis has it, under the epochs SQL has. Mends nothing."""
        inspected = []
        for part, epoch in await self._db.read(partitions.fences):
            try:
                inspected.append(await self._gates.inspect(part, epoch))
            except Shut as shut:
                raise Unavailable("rebuilding") from shut
        return inspected

    # ── starting ──────────────────────────────────────────────────────────────────────────

    async def _start(self, part: int) -> None:
        until = time.monotonic() + START_MAX_S
        first = True
        while time.monotonic() < until:
            epoch = await self._follow(part)
            try:
                await self._gates.left(part, epoch, [])
                self._opened[part] = epoch
                await self._unmark(part, epoch)
                return
            except Shut as shut:
                if await self._adopt(part, epoch):
                    continue
                lost: Shut = Lost("at the start") if first else shut
                try:
                    await self._repair(part, epoch, lost)
                    first = False
                except Unavailable as again:
                    if again.code != "rebuilding":
                        raise
                    await asyncio.sleep(0.05)
        raise Unavailable("rebuilding")

    async def _follow(self, part: int) -> int:
        """Take the epoch SQL has."""
        fence = await self._db.read(lambda conn: partitions.fence(conn, part))
        self._epochs[part] = fence.epoch
        return fence.epoch

    async def _unmark(self, part: int, epoch: int) -> None:
        _, mark = await self._gates.fence(part)
        if mark is not None:
            await self._take_mark(part, epoch, mark)
            await self._gates.unmark(part, epoch, mark)

    async def _adopt(self, part: int, epoch: int) -> bool:
        """Whether a planned stop left its mark in both stores; then its holds are kept."""
        in_redis, mark = await self._gates.fence(part)
        if mark is None or in_redis != epoch or not await self._take_mark(part, epoch, mark):
            return False
        point("start.mark_taken")
        await self._gates.adopt(part, epoch, mark)
        point("start.adopted")
        log.info("stock.adopted", partition=part, epoch=epoch)
        return True

    async def _take_mark(self, part: int, epoch: int, mark: str) -> bool:
        return await self._db.write(
            lambda conn: partitions.take_mark(conn, part, epoch=epoch, mark=mark)
        )

    # ── mending ───────────────────────────────────────────────────────────────────────────

    async def _mend(self, part: int, epoch: int, why: Shut) -> None:
        """Wait a little until the partition may be asked again; one mends for all."""
        task = self._mending.get(part)
        if task is None:
            task = asyncio.create_task(self._repair(part, epoch, why), name=f"mend-{part}")
            self._mending[part] = task
            task.add_done_callback(lambda done: self._mended(part, done))
        done, _ = await asyncio.wait([task], timeout=MEND_WAIT_S)
        if not done or task.cancelled():
            raise Unavailable("rebuilding")
        task.result()

    def _mended(self, part: int, task: asyncio.Task[None]) -> None:
        del self._mending[part]
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, Unavailable):
            log.error("stock.mending_failed", partition=part, exc_info=error)

    async def _repair(self, part: int, epoch: int, why: Shut) -> None:
        """Follow SQL's epoch, take a mark away, or rebuild: whichever the cause asks for."""
        if await self._follow(part) != epoch:
            return
        if isinstance(why, Marked):
            await self._take_mark(part, epoch, why.mark)
            await self._gates.unmark(part, epoch, why.mark)
        elif self._is_ours_to_raise(part, epoch, why):
            await self._rebuild(part, epoch)
        else:
            raise Unavailable("rebuilding")

    def _is_ours_to_raise(self, part: int, epoch: int, why: Shut) -> bool:
        """Not while whoever raised this epoch may still be opening it."""
        if isinstance(why, Lost) or epoch in (self._opened.get(part), self._failed.get(part)):
            return True
        known, since = self._shut.get(part, (None, 0.0))
        if known != epoch:
            self._shut[part] = (epoch, time.monotonic())
            return False
        return time.monotonic() - since > OPENING_MAX_S

    async def _rebuild(self, part: int, seen: int) -> None:
        in_redis, _ = await self._gates.fence(part)
        to = max(seen, in_redis) + 1
        self._failed[part] = to
        raised = await self._db.write(
            lambda conn: partitions.raise_fence(conn, part, seen=seen, to=to)
        )
        if not raised:
            del self._failed[part]
            await self._follow(part)
            return
        point("rebuild.raised")
        try:
            await self._open(part, to)
        except Shut as shut:
            raise Unavailable("rebuilding") from shut
        point("rebuild.opened")
        del self._failed[part]
        self._epochs[part] = self._opened[part] = to
        counters.fences_raised += 1
        first = seen <= 1 and in_redis == 0  # a new data folder: nothing was lost
        (log.info if first else log.warning)("stock.rebuilt", partition=part, epoch=to)
        await self._forget(part, to)

    async def _open(self, part: int, epoch: int) -> None:
        rows, counts = await self._db.read(lambda conn: ledger.opening(conn, part), patient=True)
        point("rebuild.read")
        for at in range(0, max(len(rows), 1), LOAD_GATES):
            await self._gates.load(part, epoch, rows[at : at + LOAD_GATES], [])
        for at in range(0, len(counts), LOAD_COUNTS):
            await self._gates.load(part, epoch, [], counts[at : at + LOAD_COUNTS])
        point("rebuild.loaded")
        await self._gates.open(part, epoch, gates=len(rows), counts=len(counts))

    async def _forget(self, part: int, epoch: int) -> None:
        try:
            await self._gates.forget(part, range(max(1, epoch - FORGET_EPOCHS), epoch))
        except Unavailable:
            log.warning("stock.old_epochs_stay", partition=part, epoch=epoch)

"""Taking units: requests gathered into batches, the gates' answers, and what they mean.

Whatever takes units comes through here. A request over partitions takes them in their order,
and ends what it took where one of them refuses.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final

import structlog

from liveroom.batching import Batcher
from liveroom.errors import Invalid, LiveroomError, Refused, Unavailable
from liveroom.faults import point
from liveroom.store.fences import Fences
from liveroom.store.gates import Gates, Granted, NotHeld, RequestRow
from liveroom.store.holds import Deadlines, Hold, HoldRequest, by_part, by_partition, refusal
from liveroom.store.memory import SoldOutMemory
from liveroom.store.sweep import Sweep

BATCH_MAX: Final = 64
WAITING_MAX: Final = 20_000
CALLS_MAX: Final = 2
"""Calls of a partition under way: while Redis runs one, the next is packed."""
HOLD_TRIES: Final = 3

log = structlog.get_logger()

_Answer = tuple[int, Granted | NotHeld]


class Taking:
    """The way in to the gates of all partitions, for one process."""

    def __init__(
        self,
        gates: Gates,
        fences: Fences,
        sweep: Sweep,
        deadlines: Deadlines,
        memory: SoldOutMemory,
    ) -> None:
        self._gates = gates
        self._fences = fences
        self._sweep = sweep
        self._deadlines = deadlines
        self._memory = memory
        self._batchers: dict[int, Batcher[RequestRow, _Answer]] = {}

    async def close(self) -> None:
        """Answer what was asked."""
        for batcher in self._batchers.values():
            await batcher.close()

    def heard(self, changes: Iterable[tuple[str, int, int]]) -> None:
        """Take in `(pool, left, v)`: what is back is asked for again."""
        for pool, left, _ in changes:
            if left > 0:
                self._memory.forget(pool)

    async def hold(self, request: HoldRequest) -> list[Hold]:
        """All lines or none; see `Inventory.hold`."""
        if not request.again and self._memory.has_any():
            return await self._hold_unless_remembered(request)
        return await self._hold_everywhere(request)

    async def offer(self, requests: Sequence[HoldRequest]) -> list[Hold | str]:
        """A hold or the word of a refusal for each; see `Inventory.offer`."""
        rows: dict[int, list[tuple[int, RequestRow]]] = {}
        for at, request in enumerate(requests):
            [(part, row)] = by_partition(request, len(self._fences.partitions)).items()
            rows.setdefault(part, []).append((at, row))
        answers: dict[int, Hold | str] = {}
        for part, mine in sorted(rows.items()):
            batch = [row for _, row in mine]
            epoch, found = await self._fences.call(part, self._gates.offer, batch)
            for (at, row), got in zip(mine, found, strict=True):
                if isinstance(got, Granted):
                    [answers[at]] = self._deadlines.granted(got, row, epoch)
                else:
                    answers[at] = got.word
        return [answers[at] for at in range(len(requests))]

    async def give_up(self, holds: Iterable[str], *, void: bool) -> None:
        """End holds; those that are not `void` in SQL only while nobody else may place them.

        What a store that is away keeps, the sweep ends: placing holds are due in seconds.
        """
        for part, ids in by_part(holds).items():
            try:
                await self._fences.call(part, self._gates.release, ids, void=void)
            except Unavailable as away:
                log.warning("stock.left_to_sweep", partition=part, holds=len(ids), code=away.code)

    async def _hold_unless_remembered(self, request: HoldRequest) -> list[Hold]:
        probes: list[str] = []
        fault: Unavailable | None = None
        try:
            for line in request.lines:
                await self._memory.probed(line.pool)
                if self._memory.begin_probe(line.pool):
                    probes.append(line.pool)
                elif line.pool not in probes and self._memory.is_empty(line.pool):
                    raise Refused("sold_out", data={"sku": line.sku, "left": 0})
            return await self._hold_everywhere(request)
        except Unavailable as away:
            fault = away
            raise
        finally:
            self._memory.answered(probes, fault)

    async def _hold_everywhere(self, request: HoldRequest) -> list[Hold]:
        """In order of partition; a refusal ends what was taken before it."""
        rows = by_partition(request, len(self._fences.partitions))
        if len(rows) == 1:
            [(part, row)] = rows.items()
            return await self._hold_in(part, row)
        held: list[Hold] = []
        try:
            for part in sorted(rows):
                held += await self._hold_in(part, rows[part])
        except LiveroomError:
            await self.give_up([hold.id for hold in held], void=False)
            raise
        return held

    async def _hold_in(self, part: int, row: RequestRow) -> list[Hold]:
        for _ in range(HOLD_TRIES):
            epoch, answer = await self._batcher(part).submit(row)
            if isinstance(answer, Granted):
                if self._memory.has_any():
                    for line in row.lines:
                        self._memory.forget(line.pool)
                return self._deadlines.granted(answer, row, epoch)
            if answer.word == "missing":
                where = await self._sweep.open([answer.pool])
                if not where:
                    raise Invalid("not_found", "There is no such stock.")
                if where != [part]:  # the number of partitions has changed under this node
                    raise Unavailable("rebuilding")
                # The gates say the first that is missing; the others may be as new.
                await self._sweep.open([line.pool for line in row.lines])
            elif answer.word == "due":
                await self._sweep.expire(part, report=0)
            else:
                raise self._refused(answer, row)
        raise Unavailable("overloaded")

    def _refused(self, answer: NotHeld, row: RequestRow) -> LiveroomError:
        if answer.word == "sold_out" and answer.memorable:
            self._memory.remember(answer.pool)
        else:
            self._memory.forget(answer.pool)
        return refusal(answer, row)

    def _batcher(self, part: int) -> Batcher[RequestRow, _Answer]:
        if part not in self._batchers:
            self._batchers[part] = Batcher(
                self._ask(part), size_max=BATCH_MAX, waiting_max=WAITING_MAX, in_flight=CALLS_MAX
            )
        return self._batchers[part]

    def _ask(self, part: int) -> Callable[[Sequence[RequestRow]], Awaitable[list[_Answer]]]:
        async def ask(batch: Sequence[RequestRow]) -> list[_Answer]:
            point("hold.asked")
            epoch, answers = await self._fences.call(part, self._gates.hold, batch)
            return [(epoch, answer) for answer in answers]

        return ask

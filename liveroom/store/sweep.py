"""The sweep over one partition: what gates lack is told, what is past its time ends.

The ledger is the gates' outbox: whoever committed and was killed before telling is spoken for
here. Every step may run anywhere, at any time, and twice at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import structlog

from liveroom.faults import point
from liveroom.store import ledger
from liveroom.store.database import Database
from liveroom.store.fences import Fences
from liveroom.store.gates import Count, Gates, HoldRow, Left, Range, SetRow
from liveroom.store.ledger import PoolRow
from liveroom.store.outline import Outline

PAGE: Final = 500
PAGES_MAX: Final = 200
SLICE: Final = 500
"""How many gates' prices and limits are compared with SQL in one sweep."""
PASSED_OVER_MAX: Final = 4
"""How many sweeps in a row may leave gates out while the outline stays the same."""

log = structlog.get_logger()


_Asked = tuple[int | None, Outline]
"""The epoch of a partition, and the outline SQL had before its gates were asked."""


@dataclass
class _Level:
    """A partition all of whose gates were found as SQL has them."""

    asked: _Asked
    uncompared: int
    """How many of its gates are still to be compared; their turn comes sweep by sweep."""
    passed_over: int = 0


class Sweep:
    """Sweeps partitions; remembers only what saves work."""

    def __init__(self, db: Database, gates: Gates, fences: Fences) -> None:
        self._db = db
        self._gates = gates
        self._fences = fences
        self._reached: dict[str, tuple[int, int]] = {}  # pool -> (epoch, seq) the gate stood on
        self._odd: dict[str, tuple[int, int, int, bool]] = {}  # what a gate did not ask, and should
        self._unlimited: set[str] = set()  # pools whose gates had no limit when told last
        self._turns: dict[int, int] = {}
        self._level: dict[int, _Level] = {}

    # ── telling ───────────────────────────────────────────────────────────────────────────

    async def tell(self, part: int, ranges: Sequence[Range]) -> None:
        """Tell ranges of one partition, with buyers' counts where a pool may have a limit."""
        counts = await self._counts([one for one in ranges if one.pool not in self._unlimited])
        _, (limited, missing) = await self._fences.call(part, self._gates.tell, ranges, counts)
        if missing:
            await self.open(missing)
        new = self._unlimited.intersection(limited)
        self._unlimited |= {one.pool for one in ranges} - {*limited, *missing}
        if new:  # the first limit of this pool that this node hears of
            self._unlimited -= new
            counts = await self._counts([one for one in ranges if one.pool in new])
            await self._fences.call(part, self._gates.count, counts)

    async def open(self, pools: Sequence[str]) -> list[int]:
        """Make the gates of pools that are newer than the fence; the partitions SQL has them in."""
        rows = await self._db.read(lambda conn: ledger.pools(conn, pools))
        parts = sorted({row.partition for row in rows})
        for part in parts:
            gates = [ledger.gate_of(row) for row in rows if row.partition == part]
            await self._fences.call(part, self._gates.add, gates)
        return parts

    async def _counts(self, ranges: Sequence[Range]) -> list[Count]:
        return await self._db.read(lambda conn: ledger.counts_of(conn, ranges)) if ranges else []

    async def tell_lacking(
        self, part: int, *, every: bool = False, outline: Outline | None = None
    ) -> None:
        """Tell each gate what its pool's ledger has beyond it.

        `every` looks at all gates, also those this node knows to be level, and raises the
        fence where one is ahead of SQL: then one of the stores is not the other's. With an
        `outline` read just before, mostly nothing is asked while it stays the same.
        """
        asked = None if outline is None else (self._fences.epochs().get(part), outline)
        if asked is not None and self._may_pass_over(part, asked):
            return
        found = await self._db.read(partial(ledger.pools_in, part=part))
        rows = {row.pool: row for row in found}
        # Where the fence moves from here on, the next sweep finds all of them behind.
        epoch = self._fences.epochs().get(part)
        behind = [
            row.pool for row in rows.values() if self._reached.get(row.pool) != (epoch, row.seq)
        ]
        turn = self._slice(part, list(rows))
        odd = [pool for pool in self._odd if pool in rows]
        look = list(rows) if every else sorted({*behind, *turn, *odd})
        is_level = True
        for at in range(0, len(look), PAGE):
            page = look[at : at + PAGE]
            under, gates = await self._fences.call(part, self._gates.left, page)
            if missing := [pool for pool in page if pool not in gates]:
                is_level = False
                await self.open(missing)
            for pool, gate in gates.items():
                await self._level_gate(part, under, rows[pool], gate)
                if every and gate.seq > rows[pool].seq and await self._is_ahead(pool, gate.seq):
                    await self._fences.raise_again(part)
                    return
            await self._set_odd(part, [rows[pool] for pool in gates], gates)
        is_level = is_level and not any(
            pool in self._odd or self._reached.get(pool) != (epoch, row.seq)
            for pool, row in rows.items()
        )
        self._note_level(part, asked if is_level else None, len(rows), len(turn))

    def _may_pass_over(self, part: int, asked: _Asked) -> bool:
        """Whether SQL says what it said when every gate was found level; not for ever."""
        level = self._level.get(part)
        if level is None or level.asked != asked or level.uncompared > 0:
            return False
        level.passed_over += 1
        if level.passed_over <= PASSED_OVER_MAX:
            return True
        del self._level[part]  # every gate has its turn again
        return False

    def _note_level(self, part: int, asked: _Asked | None, pools: int, compared: int) -> None:
        """Remember that a partition was found level, and how many of its gates were compared."""
        level = self._level.get(part)
        if asked is None:
            self._level.pop(part, None)
        elif level is None or level.asked != asked:
            self._level[part] = _Level(asked, pools - compared)
        else:
            level.uncompared -= compared

    async def _level_gate(self, part: int, epoch: int, row: PoolRow, gate: Left) -> None:
        reached = gate.seq
        while reached < row.seq:
            lacking = await self._db.read(partial(ledger.since, pool=row.pool, seq=reached))
            if lacking is None:
                break
            await self.tell(part, [lacking])
            reached = lacking.to_seq
        self._reached[row.pool] = (epoch, reached)

    async def _is_ahead(self, pool: str, seq: int) -> bool:
        """Whether the gate stands on a ledger row that SQL does not have."""
        rows = await self._db.read(lambda conn: ledger.pools(conn, [pool]))
        return bool(rows) and rows[0].seq < seq

    async def _set_odd(self, part: int, rows: Sequence[PoolRow], gates: dict[str, Left]) -> None:
        """Set what gates ask where two sweeps in a row have found it to differ from SQL.

        One sweep alone may meet a price between its commit and its gate.
        """
        odd = [row for row in rows if _asked(row) != gates[row.pool][3:]]
        lasting = [
            SetRow(
                pool=row.pool,
                price=row.price,
                price_v=row.price_v,
                limit=row.limit,
                phase=row.phase,
                waiting=row.waiting,
            )
            for row in odd
            if self._odd.get(row.pool) == _asked(row)
        ]
        for row in rows:
            self._odd.pop(row.pool, None)
        self._odd |= {row.pool: _asked(row) for row in odd}
        if lasting:
            log.warning("stock.gates_set", partition=part, pools=[row.pool for row in lasting])
            await self._fences.call(part, self._gates.set, lasting)

    def _slice(self, part: int, pools: list[str]) -> list[str]:
        """The next pools in turn."""
        begin = self._turns.get(part, 0)
        if begin >= len(pools):
            begin = 0
        self._turns[part] = begin + SLICE
        return pools[begin : begin + SLICE]

    # ── ending ────────────────────────────────────────────────────────────────────────────

    async def expire(self, part: int, *, report: int) -> tuple[list[HoldRow], bool]:
        """End cart holds past their deadline.

        Returns:
            Those whose buyers nobody has told yet, and whether a placing hold is past due.
        """
        reported: list[HoldRow] = []
        is_stuck = False
        for _ in range(PAGES_MAX):
            _, expired = await self._fences.call(
                part, self._gates.expire, count=PAGE, report=report
            )
            reported += expired.told
            is_stuck = expired.is_stuck
            if expired.ended < PAGE and (report == 0 or len(expired.told) < report):
                break
        return reported, is_stuck

    async def end_due(self, part: int) -> tuple[list[HoldRow], list[HoldRow]]:
        """End all that is past its time: expired cart holds, and holds nobody placed.

        What SQL has as placed is told; the rest is void there before it ends here, or returns
        to its cart under a new id while its old deadline lasts.
        """
        expired, is_stuck = await self.expire(part, report=PAGE)
        void: list[HoldRow] = []
        for _ in range(PAGES_MAX if is_stuck else 0):
            _, stuck = await self._fences.call(part, self._gates.stuck, count=PAGE)
            if not stuck:
                break
            resolved = await self._db.write(partial(ledger.resolve, stuck=stuck))
            if resolved.placed:
                await self.tell(part, resolved.placed)
            point("void.committed")
            ids = [hold.id for hold in resolved.void]
            await self._fences.call(part, self._gates.give_back, ids, void=True)
            point("void.ended")
            void += resolved.void
        return expired, void

    async def prune(self) -> int:
        """Forget void holds of long ago, a page at a time; how many were forgotten."""
        pruned = 0
        for _ in range(PAGES_MAX):
            old = await self._db.read(partial(ledger.old_void, limit=PAGE))
            if old:
                await self._db.write(partial(ledger.forget_void, holds=old))
            pruned += len(old)
            if len(old) < PAGE:
                break
        return pruned


def _asked(row: PoolRow) -> tuple[int, int, int, bool]:
    """What the gate of this pool should ask."""
    return row.price, row.limit, row.phase, row.waiting

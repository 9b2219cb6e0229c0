"""What must be true of a sale: at every instant, of every refusal, and once all is quiet.

It looks past every fault: at Redis and at SQL as they are now, in no time.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Coroutine, Sequence
from typing import Any, Final

from liveroom import audit as audits
from liveroom.store import partitions
from liveroom.store.fenced import Shut
from liveroom.store.gates import Gates, GateState, HoldRow, Inspection, LineRow
from liveroom.store.memory import MEMORY_S
from liveroom.store.scripts import unpack
from tests.simulation.loop import Process
from tests.simulation.node import CLOSING_MAX_S
from tests.simulation.stores import DatabaseAtOnce, RedisAtOnce
from tests.simulation.world import BASE_MS, World

LOOK_EVERY: Final = 16
HOLD_UNITS: Final = "Hold units for a batch of requests, each all its lines or none."
END_HOLDS: Final = "End holds that serve nobody: their units are free at once."


class Watch:
    """Whoever finds something wrong here raises AssertionError, in words that name it."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._gates = Gates(RedisAtOnce(world, Process("watch")), held_ms=1, placing_ms=1)
        self._sql = sqlite3.connect(world.database._writer.url.database or "")
        self._seen_v: dict[str, int] = {}
        self._refused_s: dict[str, float] = {}
        world.looks.append(self._look)
        world.hears.append(self._hear)

    def close(self) -> None:
        """Look no more."""
        self._sql.close()

    # ── looking ───────────────────────────────────────────────────────────────────────────

    def rows(self, query: str, *given: Any) -> list[Any]:
        """Rows of SQL at this instant."""
        return self._sql.execute(query, given).fetchall()

    def value(self, query: str, *given: Any) -> Any:
        """The one value of SQL that the query finds, or None."""
        return next(iter(self.rows(query, *given)), (None,))[0]

    def inspect(self) -> dict[int, tuple[int, Inspection]]:
        """The partitions that are open under SQL's epoch now: (epoch, what Redis has)."""
        found = {}
        count = int(
            self.value("SELECT value FROM facts WHERE name = ?", partitions.PARTITIONS_FACT)
        )
        for part, epoch in self.rows(
            "SELECT partition, epoch FROM fences WHERE partition < ?", count
        ):
            try:
                found[part] = epoch, at_once(self._gates.inspect(part, epoch))
            except Shut:
                continue
        return found

    def free(self) -> dict[str, int]:
        """The units of each SKU's ordinary stock that no order has."""
        query = 'SELECT sku, initial + adjusted - reserved - sold FROM pools WHERE "drop" IS NULL'
        return dict(self.rows(query))

    def exists(self, order: str) -> bool:
        """Whether the order is there."""
        return self.value("SELECT 1 FROM orders WHERE id = ?", order) is not None

    @property
    def raised(self) -> bool:
        """Whether a fence was raised since the shop opened: then carts may be lost."""
        return bool(self.value("SELECT 1 FROM fences WHERE epoch > 2"))

    def price(self, sku: str) -> int:
        """What SQL asks for a SKU."""
        return int(self.value("SELECT price_minor FROM skus WHERE id = ?", sku))

    def _free_after(self, pool: str, seq: int) -> int:
        """What the ledger says was free after this row."""
        if seq == 0:
            return int(self.value("SELECT initial FROM pools WHERE pool = ?", pool))
        said = "SELECT available_after FROM ledger WHERE pool = ? AND seq = ?"
        return self.value(said, pool, seq)

    # ── at every instant ──────────────────────────────────────────────────────────────────

    def _look(self) -> None:
        """I3 and I11 at this instant, and that no cart holds what SQL has made void."""
        if self._world.calls % LOOK_EVERY == 3:
            self._world.keep_image()
        if self._world.calls % LOOK_EVERY:
            return
        for epoch, inspection in self.inspect().values():
            for pool, gate in inspection.gates.items():
                self._look_at(pool, epoch, gate)
            self._look_at_carts(inspection.holds)

    def _look_at(self, pool: str, epoch: int, gate: GateState) -> None:
        v = epoch * 2**32 + gate.n
        assert v >= self._seen_v.get(pool, 0), f"{pool}: v went back"
        assert gate.base >= gate.held, f"{pool}: {gate.held} held of {gate.base}"
        said = self._free_after(pool, gate.seq)
        assert gate.base == said, f"{pool}: base {gate.base}, ledger row {gate.seq} says {said}"
        self._seen_v[pool] = v

    def _look_at_carts(self, holds: Sequence[HoldRow]) -> None:
        for hold in holds:
            void = hold.state == "held" and self.value(
                "SELECT 1 FROM void_holds WHERE hold = ?", hold.id
            )
            assert not void, f"{hold.pool}: hold {hold.id} is void and back in its cart"

    # ── of every refusal ──────────────────────────────────────────────────────────────────

    def _hear(self, name: str, args: Sequence[Any], answer: Any) -> None:
        """Nobody is refused what is free, holds what others wait for, or ends what may be placed."""
        if name not in (HOLD_UNITS, END_HOLDS):
            return
        word, _, *rest = unpack(answer)
        if word != "ok":
            return
        if name == HOLD_UNITS:
            self._hear_answers(int(args[0]), unpack(args[4]), rest[0])
        else:
            sure = {hold for hold, _, void in unpack(args[2]) if void}
            self._hear_ends([row for row in map(_hold, rest[0] or ()) if row.id in sure])

    def _hear_ends(self, ended: Sequence[HoldRow]) -> None:
        for hold in ended:
            order = hold.order or hold.keys[0].partition(":")[2].rpartition("/")[0]
            is_over = (
                hold.state == "held"
                or not hold.buyer
                or self.exists(order)
                or self.value("SELECT 1 FROM void_holds WHERE hold = ?", hold.id)
            )
            assert is_over, f"{hold.pool}: hold {hold.id} of {order} has ended, and may be placed"

    def _hear_answers(self, epoch: int, requests: Sequence[Any], answers: Sequence[Any]) -> None:
        for (buyer, lines), said in zip(_asked(requests), answers, strict=True):
            if said[0] == "sold_out":
                units = next(line.qty for line in lines if line.pool == said[1])
                self._refused(said[1], units, epoch)
            elif said[0] == "ok" and buyer:
                new = {line.pool for line in lines if line.id in said}
                self._granted(new, epoch)

    def _granted(self, pools: Collection[str], epoch: int) -> None:
        for pool in sorted(pools):
            part = self.value(
                "SELECT partition FROM pools JOIN waiting USING (pool) WHERE pool = ?", pool
            )
            if part is not None:
                gate = at_once(self._gates.inspect(part, epoch)).gates[pool]
                assert not gate.waiting, f"{pool}: held while others wait"

    def _refused(self, pool: str, asked: int, epoch: int) -> None:
        self._refused_s[pool] = self._world.loop.time()
        free = self._promised(pool, epoch)
        assert free is None or free < asked, f"{pool}: false sold_out, {free} are free"

    def _promised(self, pool: str, epoch: int) -> int | None:
        """What a gate may promise of a pool: SQL's available, less live holds.

        Less, too, what came back and the gate was not told yet. None where a rebuild or those
        who wait excuse the gate.
        """
        query = """
            SELECT p.partition, p.initial + p.adjusted - p.reserved - p.sold, f.epoch
            FROM pools p JOIN fences f ON f.partition = p.partition WHERE p.pool = ?"""
        [(part, available, now_epoch)] = self.rows(query, pool)
        if now_epoch != epoch:
            return None
        inspection = at_once(self._gates.inspect(part, epoch))
        gate = inspection.gates[pool]
        if gate.waiting:
            return None
        live = sum(
            hold.qty
            for hold in inspection.holds
            if hold.pool == pool
            and not self.value(
                "SELECT 1 FROM ledger WHERE pool = ? AND hold = ? AND seq > ?",
                pool,
                hold.id,
                gate.seq,
            )
        )
        untold = """
            SELECT COALESCE(SUM(MAX(0, adjusted - reserved - sold)), 0)
            FROM ledger WHERE pool = ? AND seq > ?"""
        return int(available - live - self.value(untold, pool, gate.seq))

    def remembers(self, sku: str, since_s: float) -> bool:
        """Whether a gate of this SKU has said `sold_out` since then, or a moment before."""
        pools = [row[0] for row in self.rows("SELECT pool FROM pools WHERE sku = ?", sku)]
        return any(self._refused_s.get(pool, -1.0) >= since_s - MEMORY_S for pool in pools)

    # ── once all is quiet ─────────────────────────────────────────────────────────────────

    def unrest(self) -> str | None:
        """What is still to happen by itself, in words; None at rest."""
        for wanted, query in _UNREST:
            if row := next(iter(self.rows(query)), None):
                return f"{wanted}: {row}"
        found = self.inspect()
        for row in self.rows(_POOLS):
            if row[1] not in found:
                return f"partition {row[1]} is shut"
            _, inspection = found[row[1]]
            if inspection.holds:
                return f"held: {inspection.holds}"
            if (odd := _differs(row, inspection.gates.get(row[0]))) is not None:
                return odd
        return None

    def judge(self) -> None:
        """The audit, over gates that are open."""
        inspected = [inspection for _, inspection in self.inspect().values()]
        report = at_once(audits.audit(DatabaseAtOnce(self._world), inspected))
        assert report.ok, {name: c.failures for name, c in report.checks.items() if not c.ok}

    def late(self, since_s: float) -> str | None:
        """An order that should have ended unpaid by now, where nothing hindered since then."""
        until_s = self._world.loop.time() - CLOSING_MAX_S - LATE_S
        if until_s < since_s:
            return None
        query = "SELECT id, state FROM orders WHERE state IN ('placed', 'closing') AND pay_by < ?"
        until = BASE_MS + round(1000 * until_s)
        return next((f"{order} is {state}" for order, state in self.rows(query, until)), None)


LATE_S: Final = 10.0
"""How long after its time an order may wait while nothing hinders (P13)."""

# What is still to happen, and the rows that say so.
_UNREST: Final = (
    ("an order is open", "SELECT id, state FROM orders WHERE state IN ('placed', 'closing')"),
    ("a drop is not told", "SELECT id, state, told FROM drops WHERE told <> state"),
    ("a drop is open", "SELECT id, state FROM drops WHERE state IN ('scheduled', 'open')"),
    (
        "an ended drop has units",
        """SELECT d.id, d.state FROM drops d JOIN pools p ON p."drop" = d.id
           WHERE p.initial + p.adjusted > p.reserved + p.sold""",
    ),
    (
        "somebody waits while units are free",
        """SELECT w.pool, w.member FROM waiting w JOIN pools p ON p.pool = w.pool
           WHERE p.initial + p.adjusted > p.reserved + p.sold""",
    ),
    (
        "a list is open that nobody is in",
        """SELECT pool FROM waitlists l WHERE open
           AND NOT EXISTS (SELECT 1 FROM waiting w WHERE w.pool = l.pool)""",
    ),
    ("an event waits", "SELECT event, kind FROM payment_events WHERE applied_at IS NULL"),
    ("something is to be told outside", "SELECT id, kind FROM outbox WHERE done_at IS NULL"),
    ("a refund is pending", "SELECT id FROM refunds WHERE state = 'pending'"),
)
_POOLS: Final = """
    SELECT p.pool, p.partition, p.initial + p.adjusted - p.reserved - p.sold, p.seq,
           COALESCE(d.price_minor, s.price_minor),
           CASE WHEN p."drop" IS NULL THEN s.limit_per_buyer ELSE d.limit_per_buyer END,
           EXISTS (SELECT 1 FROM waiting w WHERE w.pool = p.pool)
    FROM pools p JOIN skus s ON s.id = p.sku LEFT JOIN drops d ON d.id = p."drop"
"""


def _differs(row: Any, gate: GateState | None) -> str | None:
    """How a gate at rest differs from its pool's row."""
    pool, _, available, seq, price, limit, waited_for = row
    if gate is None:
        return f"{pool} has no gate"
    wanted = available, seq, price, limit, bool(waited_for)
    is_so = gate.base, gate.seq, gate.price, gate.limit, gate.waiting
    return None if wanted == is_so else f"{pool}: SQL has {wanted}, the gate {is_so}"


def _asked(flat: Sequence[Any]) -> list[tuple[str, list[LineRow]]]:
    """The requests of a batch: whose each is, and its lines."""
    requests, at = [], 0
    while at < len(flat):
        buyer, count, begin = flat[at], flat[at + 3], at + 4
        at = begin + len(LineRow._fields) * count
        lines = range(begin, at, len(LineRow._fields))
        requests.append(
            (buyer, [LineRow(*flat[one : one + len(LineRow._fields)]) for one in lines])
        )
    return requests


def _hold(row: Sequence[Any]) -> HoldRow:
    return HoldRow(*row)


def at_once(work: Coroutine[Any, Any, Any]) -> Any:
    """What a coroutine returns that waits for nothing."""
    try:
        work.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("it waits")

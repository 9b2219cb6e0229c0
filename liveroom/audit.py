"""The audit: every fact of stock and money, computed again from its own records.

It changes nothing and may run beside a live server: SQL is read in one snapshot, and a gate
in Redis is compared with the ledger row it names, which never changes. The names of the
checks are those of docs/inventory.md; each failure names the pool or order and both sums.

`audit` reads all. An `Auditor` reads all once, and from then on what the ledger and the
payments have gained since: audited rows are never written again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from json import dumps
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, select, text

from liveroom import shapes
from liveroom.invariants import CHECKS, LATE_MS
from liveroom.store import tables
from liveroom.store.database import Database, now_ms
from liveroom.store.gates import GateState, Inspection

FAILURES_MAX: Final = 20
GRACE_MS: Final = 15_000
"""How long a hold may be placing past its due time: a sweep, and a lease that changes hands."""
OVERLAP_MS: Final = 60_000
"""How far back money is looked at again: a row bears the time before its commit."""
CHANGED_MAX: Final = 20_000
"""Ledger rows above which all is read instead."""


class Check(shapes.Shape):
    """One invariant: how many things were compared, and what differed (the first of them)."""

    ok: bool
    checked: int
    failures: list[str] = []  # noqa: RUF012 - msgspec copies it
    note: str | None = None


class Report(shapes.Shape):
    """Every check by its name; `ok` is whether all of them hold."""

    ok: bool
    checks: dict[str, Check]


class _Mark(NamedTuple):
    """Up to where everything was found true: when, and each pool's row."""

    at: int
    pools: dict[str, Any]


class _Changed(NamedTuple):
    """What came after a mark: I1 over it, and the orders it is about."""

    stock: Check
    orders: list[str]


async def audit(db: Database, inspected: Iterable[Inspection] | None = None) -> Report:
    """Check everything in SQL, and the gates as they were `inspected` just before.

    Without `inspected` the gates are reported as not checked.

    Raises:
        Unavailable: the database is away.
    """
    gates = None if inspected is None else list(inspected)
    return await db.read(lambda conn: _report(conn, _all(conn), gates), patient=True)


class Auditor:
    """Audits again and again, cheaply: one for each process."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._mark: _Mark | None = None
        self._one_at_a_time = asyncio.Lock()

    async def audit(self, inspected: Iterable[Inspection] | None = None) -> Report:
        """As `audit`; what an earlier one found true is not read again.

        Raises:
            Unavailable: the database is away.
        """
        gates = None if inspected is None else list(inspected)
        async with self._one_at_a_time:
            report, mark = await self._db.read(
                lambda conn: (_report(conn, self._checks(conn), gates), _mark(conn)), patient=True
            )
            if report.ok:
                self._mark = mark
        return report

    def _checks(self, conn: Connection) -> dict[str, Check]:
        changed = None if self._mark is None else _changed(conn, self._mark)
        return _all(conn) if changed is None else _some(conn, changed)


def _report(conn: Connection, checks: dict[str, Check], gates: list[Inspection] | None) -> Report:
    checks["I3"] = (
        Check(ok=True, checked=0, note="The gates were not checked.")
        if gates is None
        else _gates(conn, gates)
    )
    ok = all(check.ok for check in checks.values())
    return Report(ok=ok, checks=dict(sorted(checks.items())))


# ── all of it ─────────────────────────────────────────────────────────────────────────────


def _all(conn: Connection) -> dict[str, Check]:
    return {
        name: _verdict(_count(conn, counted), _search(conn, searches))
        for name, (counted, *searches) in CHECKS.items()
    }


def _search(
    conn: Connection, searches: Iterable[tuple[str, str]], narrowed: str = "", ids: str = "[]"
) -> list[str]:
    """Run searches that find nothing where the invariant holds; what they find, in words."""
    given = {"now": now_ms(conn), "late": LATE_MS, "ids": ids}
    failures = []
    for sentence, query in searches:
        sql = text(f"{narrowed} {query} LIMIT {FAILURES_MAX}")
        known = {name: value for name, value in given.items() if f":{name}" in sql.text}
        failures += [sentence.format(**row) for row in conn.execute(sql, known).mappings()]
    return failures


def _count(conn: Connection, counted: str) -> int:
    return int(conn.scalar(text(f"SELECT COUNT(*) FROM {counted}")) or 0)  # noqa: S608 - our own table


def _verdict(checked: int, failures: Sequence[str]) -> Check:
    return Check(ok=not failures, checked=checked, failures=list(failures[:FAILURES_MAX]))


# ── what is new ───────────────────────────────────────────────────────────────────────────

_T = tables
_OF_ORDERS = ("order_lines", "ledger", "payments")
_NARROWED = """
    WITH asked(id) AS ({ids}),
         chosen AS ({chosen}),
         orders AS (SELECT * FROM {own}orders WHERE id IN (SELECT id FROM chosen)),
         {of_orders},
         refunds AS (SELECT * FROM {own}refunds WHERE payment IN (SELECT id FROM payments)),
         payment_events AS (
             SELECT * FROM {own}payment_events WHERE payment IN (SELECT id FROM payments)),
         buyer_taken AS (
             SELECT * FROM {own}buyer_taken WHERE buyer IN (SELECT buyer FROM orders))
"""
_IDS = {
    "sqlite": "SELECT value FROM json_each(:ids)",
    "postgresql": "SELECT json_array_elements_text(CAST(:ids AS json))",
}
_ASKED = "SELECT id FROM asked"
_OF_BUYERS = """
    SELECT id FROM {own}orders WHERE buyer IN (
        SELECT buyer FROM {own}orders WHERE id IN (SELECT id FROM asked))
"""


def _mark(conn: Connection) -> _Mark:
    rows = conn.execute(select(_T.pools)).all()
    return _Mark(now_ms(conn), {row.pool: row for row in rows})


def _changed(conn: Connection, mark: _Mark) -> _Changed | None:
    """Replay the ledger from the mark on; None where it is more than `CHANGED_MAX` rows."""
    failures: list[str] = []
    orders: set[str] = set()
    read = 0
    pools = conn.execute(select(_T.pools)).all()
    for pool in pools:
        before = mark.pools.get(pool.pool)
        rows = conn.execute(
            select(_T.ledger)
            .where(_T.ledger.c.pool == pool.pool, _T.ledger.c.seq > (before.seq if before else 0))
            .order_by(_T.ledger.c.seq)
            .limit(CHANGED_MAX + 1)
        ).all()
        read += len(rows)
        if read > CHANGED_MAX:
            return None
        orders.update(row.order for row in rows if row.order is not None)
        failures += _replay(pool, before, rows)
    orders.update(_paid_since(conn, mark.at - OVERLAP_MS))
    return _Changed(_verdict(len(pools), failures), sorted(orders))


def _replay(pool: Any, before: Any, rows: Sequence[Any]) -> list[str]:
    """How the pool's row differs from what it was, and the rows that came since."""
    sums = {name: getattr(before, name) if before else 0 for name in _SUMS}
    initial = pool.initial if before is None else before.initial
    for row in rows:
        sums["seq"] += 1
        for name in ("adjusted", "reserved", "sold"):
            sums[name] += getattr(row, name)
        free = initial + sums["adjusted"] - sums["reserved"] - sums["sold"]
        if (row.seq, row.available_after) != (sums["seq"], free):
            said = f"ledger row {row.seq} says {row.available_after}"
            return [f"{pool.pool}: {said}, row {sums['seq']} leaves {free}"]
    there = {name: getattr(pool, name) for name in _SUMS}
    if sums == there and initial == pool.initial:
        return []
    return [f"{pool.pool}: its row says {there} of {pool.initial}, its ledger {sums} of {initial}"]


_SUMS: Final = ("adjusted", "reserved", "sold", "seq")


def _paid_since(conn: Connection, at: int) -> set[str]:
    payments, refunds = _T.payments.c, _T.refunds.c
    paid = conn.scalars(select(payments.order).where(payments.changed_at >= at))
    given = conn.scalars(
        select(payments.order)
        .join(_T.refunds, refunds.payment == payments.id)
        .where(refunds.changed_at >= at)
    )
    return {*paid, *given}


def _some(conn: Connection, changed: _Changed) -> dict[str, Check]:
    """Every check of the orders that changed; what is reserved is few, and read whole."""
    checks = {"I1": changed.stock}
    ids = dumps(changed.orders)
    for name, (counted, *searches) in CHECKS.items():
        match name:
            case "I1":
                continue
            case "I2":
                found = _search(conn, searches[:1])  # what was sold follows from I1 and I4
                checks[name] = _verdict(_count(conn, counted), found)
            case "I12":  # sums over minutes, which no list of orders narrows
                found = _search(conn, searches[:1])
                found += _search(conn, searches[1:], _narrowed(conn, _ASKED), ids)
                checks[name] = _verdict(_count(conn, counted), found)
            case _:
                narrowed = _narrowed(conn, _OF_BUYERS if name == "I7" else _ASKED)
                found = _search(conn, searches, narrowed, ids)
                checks[name] = _verdict(len(changed.orders), found)
    return checks


def _narrowed(conn: Connection, chosen: str) -> str:
    """The tables as the searches name them, with the rows of some orders only."""
    own = "main." if conn.dialect.name == "sqlite" else ""
    of_orders = ", ".join(
        f'{name} AS (SELECT * FROM {own}{name} WHERE "order" IN (SELECT id FROM chosen))'  # noqa: S608 - our own tables
        for name in _OF_ORDERS
    )
    return _NARROWED.format(
        ids=_IDS[conn.dialect.name],
        chosen=chosen.format(own=own),
        own=own,
        of_orders=of_orders,
    )


# ── the gates ─────────────────────────────────────────────────────────────────────────────


def _gates(conn: Connection, partitions: Iterable[Inspection]) -> Check:
    """I3: each gate stands on the ledger row it names, and its holds add up."""
    failures: list[str] = []
    checked = 0
    for partition in partitions:
        checked += len(partition.gates)
        failures += _holds_differ(partition)
        for pool, gate in sorted(partition.gates.items()):
            failures += _gate_differs(conn, pool, gate)
    return Check(ok=not failures, checked=checked, failures=failures[:FAILURES_MAX])


def _holds_differ(partition: Inspection) -> list[str]:
    holds = list(partition.holds)
    held: dict[str, int] = {}
    failures = []
    for hold in holds:
        held[hold.pool] = held.get(hold.pool, 0) + hold.qty
        if hold.state == "placing" and hold.due + GRACE_MS < partition.now_ms:
            failures.append(f"{hold.pool}: hold {hold.id} is placing since before {hold.due}")
    failures += [
        f"{pool}: the gate has {gate.held} units held, its holds have {held.get(pool, 0)}"
        for pool, gate in sorted(partition.gates.items())
        if gate.held != held.get(pool, 0)
    ]
    if partition.open_holds != len(holds):
        failures.append(f"{partition.open_holds} holds were counted, {len(holds)} are there")
    if sorted(hold.id for hold in holds) != sorted(partition.waiting):
        failures.append("the holds are not those of the expiry sets")
    return failures


def _gate_differs(conn: Connection, pool: str, gate: GateState) -> list[str]:
    row = conn.execute(text(_GATE), {"pool": pool, "seq": gate.seq}).first()
    if row is None or row.said is None:
        return [f"{pool}: the gate stands on ledger row {gate.seq}, which is not there"]
    if gate.base != row.said:
        return [f"{pool}: the gate's base is {gate.base}, ledger row {gate.seq} says {row.said}"]
    return []


_GATE: Final = """
    SELECT CASE WHEN :seq = 0 THEN p.initial ELSE l.available_after END AS said
    FROM pools p LEFT JOIN ledger l ON l.pool = p.pool AND l.seq = :seq WHERE p.pool = :pool
"""

"""The audit: every fact of stock and money, computed again from its own records.

It changes nothing and may run beside a live server: SQL is read in one snapshot, and a gate
in Redis is compared with the ledger row it names, which never changes. The names of the
checks are those of docs/inventory.md; each failure names the pool or order and both sums.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from sqlalchemy import Connection, text

from liveroom import shapes
from liveroom.store.database import Database
from liveroom.store.gates import GateState, Inspection

FAILURES_MAX: Final = 20
GRACE_MS: Final = 15_000
"""How long a hold may be placing past its due time: a sweep, and a lease that changes hands."""


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


async def audit(db: Database, inspected: Iterable[Inspection] | None = None) -> Report:
    """Check everything in SQL, and the gates as they were `inspected` just before.

    Without `inspected` the gates are reported as not checked.

    Raises:
        Unavailable: the database is away.
    """
    gates = None if inspected is None else list(inspected)
    checks = await db.read(lambda conn: _all(conn, gates), patient=True)
    return Report(ok=all(check.ok for check in checks.values()), checks=checks)


def _all(conn: Connection, gates: list[Inspection] | None) -> dict[str, Check]:
    checks = {name: _check(conn, *queries) for name, queries in _CHECKS.items()}
    checks["I3"] = (
        Check(ok=True, checked=0, note="The gates were not checked.")
        if gates is None
        else _gates(conn, gates)
    )
    return dict(sorted(checks.items()))


def _check(conn: Connection, counted: str, *searches: tuple[str, str]) -> Check:
    """Run searches that find nothing where the invariant holds."""
    failures = []
    for sentence, query in searches:
        rows = conn.execute(text(f"{query} LIMIT {FAILURES_MAX}"))
        failures += [sentence.format(**row) for row in rows.mappings()]
    checked = conn.scalar(text(f"SELECT COUNT(*) FROM {counted}"))  # noqa: S608 - our own table
    return Check(ok=not failures, checked=int(checked or 0), failures=failures[:FAILURES_MAX])


# Each check: what is counted as checked, then pairs of a sentence and a search for what differs.
_CHECKS: Final[dict[str, tuple[Any, ...]]] = {
    "I1": (
        "pools",
        (
            (
                "{pool}: adjusted {adjusted}, reserved {reserved}, sold {sold}, seq {seq};"
                " its ledger: {l_adjusted}, {l_reserved}, {l_sold}, {l_rows} rows up to {l_seq}"
            ),
            """
            SELECT p.pool, p.adjusted, p.reserved, p.sold, p.seq,
                   COALESCE(l.adjusted, 0) AS l_adjusted, COALESCE(l.reserved, 0) AS l_reserved,
                   COALESCE(l.sold, 0) AS l_sold, COALESCE(l.n, 0) AS l_rows,
                   COALESCE(l.seq, 0) AS l_seq
            FROM pools p LEFT JOIN (
                SELECT pool, SUM(adjusted) AS adjusted, SUM(reserved) AS reserved,
                       SUM(sold) AS sold, COUNT(*) AS n, MAX(seq) AS seq
                FROM ledger GROUP BY pool) l ON l.pool = p.pool
            WHERE p.adjusted <> COALESCE(l.adjusted, 0)
               OR p.reserved <> COALESCE(l.reserved, 0) OR p.sold <> COALESCE(l.sold, 0)
               OR p.seq <> COALESCE(l.seq, 0) OR p.seq <> COALESCE(l.n, 0)
            """,
        ),
        (
            "{pool}: after ledger row {seq} the rows leave {replayed}, the row says {said}",
            """
            SELECT pool, seq, replayed, said FROM (
                SELECT l.pool, l.seq, l.available_after AS said,
                       p.initial + SUM(l.adjusted - l.reserved - l.sold)
                           OVER (PARTITION BY l.pool ORDER BY l.seq) AS replayed
                FROM ledger l JOIN pools p ON p.pool = l.pool) replay
            WHERE replayed <> said OR said < 0
            """,
        ),
        (
            (
                "{pool}: initial {initial} + adjusted {adjusted} is less than"
                " reserved {reserved} + sold {sold}, or one of them is negative"
            ),
            """
            SELECT pool, initial, adjusted, reserved, sold FROM pools
            WHERE initial + adjusted < reserved + sold OR reserved < 0 OR sold < 0
            """,
        ),
        (
            "{sku}: transfer {operation} has {times} rows, which come to {units} units, not to 0",
            """
            SELECT p.sku, l.operation, COUNT(*) AS times, SUM(l.adjusted) AS units
            FROM ledger l JOIN pools p ON p.pool = l.pool
            WHERE l.kind IN ('carve', 'return') GROUP BY p.sku, l.operation
            HAVING COUNT(*) <> 2 OR SUM(l.adjusted) <> 0
            """,
        ),
        (
            "{pool}: its drop has {quantity} units, {carved} were carved out for it",
            """
            SELECT 'drop:' || d.id AS pool, d.quantity, COALESCE(l.units, 0) AS carved
            FROM drops d LEFT JOIN (
                SELECT pool, SUM(adjusted) AS units FROM ledger
                WHERE kind = 'carve' AND adjusted > 0 GROUP BY pool) l ON l.pool = 'drop:' || d.id
            WHERE d.quantity <> COALESCE(l.units, 0)
            """,
        ),
    ),
    "I2": (
        "pools",
        (
            "{pool}: reserved is {reserved}, placed and closing orders have {units}",
            """
            SELECT p.pool, p.reserved, COALESCE(o.units, 0) AS units
            FROM pools p LEFT JOIN (
                SELECT i.pool, SUM(i.qty) AS units FROM order_lines i
                JOIN orders o ON o.id = i."order" WHERE o.state IN ('placed', 'closing')
                GROUP BY i.pool) o ON o.pool = p.pool
            WHERE p.reserved <> COALESCE(o.units, 0)
            """,
        ),
        (
            "{pool}: sold is {sold}, lines with a sale less what was restocked are {units}",
            """
            SELECT p.pool, p.sold, COALESCE(o.units, 0) AS units
            FROM pools p LEFT JOIN (
                SELECT i.pool, SUM(i.qty - i.restocked) AS units FROM order_lines i
                WHERE EXISTS (SELECT 1 FROM ledger l
                              WHERE l."order" = i."order" AND l.pool = i.pool AND l.kind = 'sell')
                GROUP BY i.pool) o ON o.pool = p.pool
            WHERE p.sold <> COALESCE(o.units, 0)
            """,
        ),
    ),
    "I4": (
        "ledger",
        (
            "{pool}: order {order} has a {kind} after {prior} at ledger row {seq}",
            """
            SELECT pool, "order", seq, kind, prior FROM (
                SELECT pool, "order", seq, kind,
                       COALESCE(LAG(kind) OVER (PARTITION BY pool, "order" ORDER BY seq),
                                'nothing') AS prior
                FROM ledger WHERE "order" IS NOT NULL) steps
            WHERE NOT ((kind = 'reserve' AND prior IN ('nothing', 'release'))
                    OR (kind IN ('release', 'sell') AND prior = 'reserve')
                    OR (kind = 'restock' AND prior IN ('sell', 'restock')))
            """,
        ),
        (
            "{pool}: order {order} is {state} and has {units} units reserved, its line {qty}",
            """
            SELECT i.pool, i."order", o.state, i.qty, COALESCE(l.units, 0) AS units
            FROM order_lines i JOIN orders o ON o.id = i."order"
            LEFT JOIN (SELECT pool, "order", SUM(reserved) AS units FROM ledger
                       WHERE "order" IS NOT NULL GROUP BY pool, "order") l
                ON l.pool = i.pool AND l."order" = i."order"
            WHERE COALESCE(l.units, 0) <>
                  CASE WHEN o.state IN ('placed', 'closing') THEN i.qty ELSE 0 END
            """,
        ),
        (
            "hold {hold} was placed {times} times",
            """
            SELECT hold, COUNT(*) AS times FROM ledger
            WHERE kind = 'reserve' AND hold IS NOT NULL GROUP BY hold HAVING COUNT(*) > 1
            """,
        ),
        (
            "hold {hold} is void and was placed for order {order}",
            """
            SELECT l.hold, l."order" FROM ledger l JOIN void_holds v ON v.hold = l.hold
            WHERE l.kind = 'reserve'
            """,
        ),
        (
            "order {order} line {line}: {restocked} of {qty} restocked, or without a sale",
            """
            SELECT i."order", i.line, i.restocked, i.qty FROM order_lines i
            WHERE i.restocked > 0 AND (i.restocked > i.qty OR NOT EXISTS (
                SELECT 1 FROM ledger l
                WHERE l."order" = i."order" AND l.pool = i.pool AND l.kind = 'sell'))
            """,
        ),
    ),
    "I6": (
        "orders",
        (
            "order {id}: {lines} lines, the last is number {last}, sum {sum}; its total is {total}",
            """
            SELECT o.id, COALESCE(i.n, 0) AS lines, COALESCE(i.last, -1) AS last,
                   COALESCE(i.total, 0) AS sum, o.total_minor AS total
            FROM orders o LEFT JOIN (
                SELECT "order", COUNT(*) AS n, MAX(line) AS last, SUM(qty * price_minor) AS total
                FROM order_lines GROUP BY "order") i ON i."order" = o.id
            WHERE i.n IS NULL OR i.last + 1 <> i.n OR i.total <> o.total_minor
            """,
        ),
        (
            "order {order} line {line} has no row in the ledger for its hold {hold}",
            """
            SELECT i."order", i.line, i.hold FROM order_lines i
            WHERE NOT EXISTS (SELECT 1 FROM ledger l
                              WHERE l."order" = i."order" AND l.pool = i.pool
                                AND l.hold = i.hold AND l.kind = 'reserve')
            """,
        ),
    ),
    "I7": (
        "buyer_taken",
        (
            "{pool}: buyer {buyer} counts {units} units, the ledger has {taken}",
            """
            SELECT COALESCE(b.pool, l.pool) AS pool, COALESCE(b.buyer, l.buyer) AS buyer,
                   COALESCE(b.units, 0) AS units, COALESCE(l.units, 0) AS taken
            FROM (SELECT l.pool, o.buyer, SUM(l.reserved + l.sold) AS units
                  FROM ledger l JOIN orders o ON o.id = l."order"
                  GROUP BY l.pool, o.buyer) l
            FULL JOIN buyer_taken b ON b.pool = l.pool AND b.buyer = l.buyer
            WHERE COALESCE(b.units, 0) <> COALESCE(l.units, 0)
            """,
        ),
        (
            "{pool}: buyer {buyer} has {units} units, the limit is {allowed}",
            """
            SELECT b.pool, b.buyer, b.units, s.limit_per_buyer AS allowed
            FROM buyer_taken b JOIN pools p ON p.pool = b.pool JOIN skus s ON s.id = p.sku
            WHERE p."drop" IS NULL AND b.units > s.limit_per_buyer
            """,
        ),
        (
            "{pool}: buyer {buyer} has {units} units, the drop's limit is {allowed}",
            """
            SELECT b.pool, b.buyer, b.units, d.limit_per_buyer AS allowed
            FROM buyer_taken b JOIN pools p ON p.pool = b.pool JOIN drops d ON d.id = p."drop"
            WHERE b.units > d.limit_per_buyer
            """,
        ),
    ),
    "I8": (
        "payments",
        (
            "payment {id}: {back} was given back or is under way, {captured} was captured",
            """
            SELECT p.id, p.amount_minor AS captured, SUM(r.amount_minor) AS back
            FROM payments p JOIN refunds r ON r.payment = p.id AND r.state <> 'failed'
            GROUP BY p.id, p.amount_minor, p.state
            HAVING SUM(r.amount_minor) > p.amount_minor
                OR p.state NOT IN ('succeeded', 'refunding', 'refunded')
            """,
        ),
        (
            "order {id} is {state}: {captured} came, {back} went back, it costs {total}",
            """
            SELECT o.id, o.state, o.total_minor AS total, COALESCE(m.captured, 0) AS captured,
                   COALESCE(m.back, 0) AS back
            FROM orders o LEFT JOIN (
                SELECT p."order", SUM(p.amount_minor) AS captured,
                       SUM(COALESCE(r.back, 0)) AS back, SUM(COALESCE(r.done, 0)) AS done
                FROM payments p LEFT JOIN (
                    SELECT payment,
                        SUM(CASE WHEN state <> 'failed' THEN amount_minor ELSE 0 END) AS back,
                        SUM(CASE WHEN state = 'succeeded' THEN amount_minor ELSE 0 END) AS done
                    FROM refunds GROUP BY payment) r ON r.payment = p.id
                WHERE p.state IN ('succeeded', 'refunding', 'refunded')
                GROUP BY p."order") m ON m."order" = o.id
            WHERE (o.state IN ('placed', 'closing', 'expired', 'cancelled')
                   AND COALESCE(m.captured, 0) <> COALESCE(m.back, 0))
               OR (o.state = 'paid' AND (COALESCE(m.captured, 0) < o.total_minor
                   OR COALESCE(m.captured, 0) - COALESCE(m.back, 0) > o.total_minor))
               OR (o.state = 'refund_pending' AND COALESCE(m.captured, 0) < o.total_minor)
               OR (o.state = 'refunded' AND COALESCE(m.captured, 0) <> COALESCE(m.done, 0))
            """,
        ),
        (
            "payment {id} is {state}, but no event says what was captured",
            """
            SELECT p.id, p.state FROM payments p
            WHERE p.state IN ('succeeded', 'refunding', 'refunded') AND NOT EXISTS (
                SELECT 1 FROM payment_events e WHERE e.payment = p.id
                    AND e.kind = 'payment.succeeded' AND e.applied_at IS NOT NULL)
            """,
        ),
    ),
    "I13": (
        "orders",
        (
            "order {id} had until {pay_by}, its units were released at {at}",
            """
            SELECT o.id, o.pay_by, MIN(l.at) AS at FROM orders o
            JOIN ledger l ON l."order" = o.id AND l.kind = 'release'
            WHERE o.state = 'expired' GROUP BY o.id, o.pay_by HAVING MIN(l.at) < o.pay_by
            """,
        ),
    ),
}


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

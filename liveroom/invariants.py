"""What must be true of stock and money, as searches that find nothing where it is.

The names are those of docs/inventory.md. Each search goes over the tables as they are named
here; `audit.py` narrows them to what has changed where it does not read all.
"""

from __future__ import annotations

from typing import Any, Final

LATE_MS: Final = 60_000
"""How long after its time to pay an order may wait while a sweeper runs."""

# Each check: what is counted as checked, then pairs of a sentence and a search for what differs.
CHECKS: Final[dict[str, tuple[Any, ...]]] = {
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
            "{pool}: order {order} has {units} units sold, its line {qty} less {restocked}",
            """
            SELECT i.pool, i."order", i.qty, i.restocked, l.units
            FROM order_lines i JOIN (
                SELECT pool, "order", SUM(sold) AS units,
                       MAX(CASE WHEN kind = 'sell' THEN 1 ELSE 0 END) AS delivered
                FROM ledger WHERE "order" IS NOT NULL GROUP BY pool, "order") l
                ON l.pool = i.pool AND l."order" = i."order"
            WHERE l.units <> l.delivered * (i.qty - i.restocked)
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
                       SUM(COALESCE(r.back, 0)) AS back, SUM(COALESCE(r.done, 0)) AS done,
                       SUM(COALESCE(r.failed, 0)) AS failed
                FROM payments p LEFT JOIN (
                    SELECT payment,
                        SUM(CASE WHEN state <> 'failed' THEN amount_minor ELSE 0 END) AS back,
                        SUM(CASE WHEN state = 'succeeded' THEN amount_minor ELSE 0 END) AS done,
                        SUM(CASE WHEN state = 'failed' THEN amount_minor ELSE 0 END) AS failed
                    FROM refunds GROUP BY payment) r ON r.payment = p.id
                WHERE p.state IN ('succeeded', 'refunding', 'refunded')
                GROUP BY p."order") m ON m."order" = o.id
            WHERE (o.state IN ('placed', 'closing', 'expired', 'cancelled')
                   AND COALESCE(m.captured - m.back, 0) > COALESCE(m.failed, 0))
               OR (o.state = 'paid' AND (COALESCE(m.captured, 0) < o.total_minor
                   OR m.captured - m.back > o.total_minor + m.failed))
               OR (o.state = 'refund_pending' AND COALESCE(m.captured, 0) < o.total_minor)
               OR (o.state = 'refunded' AND COALESCE(m.captured, 0) <> COALESCE(m.done, 0))
            """,
        ),
        (
            "payment {id} is {state}, but no event says what was captured",
            """
            SELECT p.id, p.state FROM payments p LEFT JOIN (
                SELECT DISTINCT payment FROM payment_events
                WHERE kind = 'payment.succeeded' AND applied_at IS NOT NULL) e ON e.payment = p.id
            WHERE p.state IN ('succeeded', 'refunding', 'refunded') AND e.payment IS NULL
            """,
        ),
    ),
    "I12": (
        "takings",
        (
            (
                "{room}, minute {minute}, {bucket}: {orders} orders, {paid} paid, {back} back;"
                " its lines: {l_orders}, {l_paid}, {l_back}"
            ),
            """
            SELECT COALESCE(t.room, l.room) AS room, COALESCE(t.minute, l.minute) AS minute,
                   COALESCE(t.bucket, l.bucket) AS bucket,
                   COALESCE(t.orders, 0) AS orders, COALESCE(l.orders, 0) AS l_orders,
                   COALESCE(t.paid_minor, 0) AS paid, COALESCE(t.refunded_minor, 0) AS back,
                   COALESCE(l.paid, 0) AS l_paid, COALESCE(l.back, 0) AS l_back
            FROM takings t FULL JOIN (
                SELECT o.room, p.paid_at / 60000 AS minute, i.bucket, p.currency,
                       SUM(CASE WHEN i.line = 0 THEN 1 ELSE 0 END) AS orders,
                       SUM(i.qty * i.price_minor) AS paid, SUM(i.refunded_minor) AS back
                FROM payments p JOIN orders o ON o.id = p."order"
                JOIN order_lines i ON i."order" = o.id
                WHERE p.paid_at IS NOT NULL
                GROUP BY o.room, p.paid_at / 60000, i.bucket, p.currency) l
            ON l.room = t.room AND l.minute = t.minute AND l.bucket = t.bucket
                AND l.currency = t.currency
            WHERE COALESCE(t.paid_minor, 0) <> COALESCE(l.paid, 0)
               OR COALESCE(t.refunded_minor, 0) <> COALESCE(l.back, 0)
               OR COALESCE(t.orders, 0) <> COALESCE(l.orders, 0)
            """,
        ),
        (
            "order {id}: {paid} came, its lines cost {l_paid}; {back} went back, {l_back} of them",
            """
            SELECT o.id, i.paid AS l_paid, i.back AS l_back,
                   COALESCE(m.paid, 0) AS paid, COALESCE(m.back, 0) AS back
            FROM orders o JOIN (
                SELECT "order", SUM(qty * price_minor) AS paid, SUM(refunded_minor) AS back,
                       SUM(CASE WHEN refunded_minor < 0 OR refunded_minor > qty * price_minor
                                THEN 1 ELSE 0 END) AS wrong
                FROM order_lines GROUP BY "order") i ON i."order" = o.id
            LEFT JOIN (
                SELECT p."order", SUM(p.amount_minor) AS paid, SUM(COALESCE(r.done, 0)) AS back
                FROM payments p LEFT JOIN (
                    SELECT payment, SUM(amount_minor) AS done FROM refunds
                    WHERE state = 'succeeded' GROUP BY payment) r ON r.payment = p.id
                WHERE p.paid_at IS NOT NULL GROUP BY p."order") m ON m."order" = o.id
            WHERE i.back <> COALESCE(m.back, 0) OR i.paid <> COALESCE(m.paid, i.paid)
               OR i.wrong > 0
            """,
        ),
        (
            "order {id} is {state}, paid for {times} times",
            """
            SELECT o.id, o.state, COALESCE(p.times, 0) AS times FROM orders o LEFT JOIN (
                SELECT "order", COUNT(paid_at) AS times FROM payments GROUP BY "order") p
                ON p."order" = o.id
            WHERE COALESCE(p.times, 0) > 1 OR (o.state = 'paid' AND COALESCE(p.times, 0) = 0)
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
        (
            "order {id} is placed, though it had until {pay_by} and a sweeper runs at {now}",
            """
            SELECT o.id, o.pay_by, l."until" AS now FROM orders o JOIN leases l
                ON l.name = 'sweeper' AND l."until" > :now
            WHERE o.state = 'placed' AND o.pay_by < :now - :late
            """,
        ),
    ),
}

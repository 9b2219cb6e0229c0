"""Orders as CSV, a row for each line, oldest first; safe to open in a spreadsheet."""

from __future__ import annotations

import csv
from datetime import UTC, datetime
from typing import IO, Final

from sqlalchemy import Connection, func, select

from liveroom import buckets
from liveroom.money import decimal_text
from liveroom.store.tables import order_lines, orders, payments, refunds

COLUMNS: Final = (
    *("order", "room", "buyer", "state", "placed_at"),
    *("sku", "drop", "qty", "price", "line_total", "order_total", "currency"),
    *("restocked", "order_refunded", "line_refunded"),
    *("host", "host_roles", "pin", "source"),
)
ROWS_AT_ONCE: Final = 500

_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")

_REFUNDED: Final = (
    select(func.coalesce(func.sum(refunds.c.amount_minor), 0))
    .join(payments, payments.c.id == refunds.c.payment)
    .where(payments.c.order == orders.c.id, refunds.c.state == "succeeded")
    .correlate(orders)
    .scalar_subquery()
)


def write_orders(conn: Connection, out: IO[str], *, room: str | None = None) -> int:
    """Write every order line (of one room where it is named) to `out`; how many there were."""
    query = (
        select(orders, order_lines, _REFUNDED.label("refunded"))
        .join(order_lines, order_lines.c.order == orders.c.id)
        .order_by(orders.c.placed_at, orders.c.id, order_lines.c.line)
    )
    if room is not None:
        query = query.where(orders.c.room == room)
    writer = csv.writer(out)
    writer.writerow(COLUMNS)
    written = 0
    for row in conn.execution_options(yield_per=ROWS_AT_ONCE).execute(query):
        money = (row.price_minor, row.price_minor * row.qty, row.total_minor)
        placed_at = datetime.fromtimestamp(row.placed_at / 1000, UTC)
        writer.writerow(
            [
                *map(safe, (row.id, row.room, row.buyer, row.state)),
                placed_at.isoformat(timespec="milliseconds"),
                *map(safe, (row.sku, row.drop or "")),
                row.qty,
                *(decimal_text(amount, row.currency) for amount in money),
                row.currency,
                row.restocked,
                decimal_text(int(row.refunded), row.currency),
                decimal_text(row.refunded_minor, row.currency),
                *map(safe, buckets.parts(row.bucket)),
            ]
        )
        written += 1
    return written


def safe(text: str) -> str:
    """The text, kept from being a formula (OWASP: CSV injection)."""
    return f"'{text}" if text.startswith(_FORMULA) else text

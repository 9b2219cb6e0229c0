"""What orders took in and what went back, by the minute of payment and the bucket of each line.

A line takes in its price; a refund is taken off the lines as `money.taken_off` divides it, the
units that it names first. What goes back later is taken off the minute and the bucket that
took it in. Nothing here awaits.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, Row, bindparam, select, text, update

from liveroom.money import taken_off
from liveroom.store import tables

MINUTE_MS: Final = 60_000

_T = tables
_WRITE = text(
    "INSERT INTO takings (room, minute, bucket, currency, orders, paid_minor, refunded_minor)"
    " VALUES (:room, :minute, :bucket, :currency, :orders, :paid, :back)"
    " ON CONFLICT (room, minute, bucket, currency) DO UPDATE SET"
    " orders = takings.orders + excluded.orders,"
    " paid_minor = takings.paid_minor + excluded.paid_minor,"
    " refunded_minor = takings.refunded_minor + excluded.refunded_minor"
)
_GIVE_BACK = (
    update(_T.order_lines)
    .where(
        _T.order_lines.c.order == bindparam("b_order"),
        _T.order_lines.c.line == bindparam("b_line"),
    )
    .values(refunded_minor=_T.order_lines.c.refunded_minor + bindparam("b_back"))
)


class Place(NamedTuple):
    """Where takings are counted: a row of the table."""

    room: str
    minute: int
    bucket: str
    currency: str


class Taken(NamedTuple):
    """What is added to a place."""

    place: Place
    orders: int = 0
    paid: int = 0
    back: int = 0


def paid_in(order: Row[Any], paid_at: int, currency: str, lines: Iterable[Row[Any]]) -> list[Taken]:
    """What a paid order adds; the order itself counts once, where its first line does."""
    return [
        Taken(
            Place(order.room, paid_at // MINUTE_MS, line.bucket, currency),
            orders=1 if line.line == 0 else 0,
            paid=line.qty * line.price_minor,
        )
        for line in lines
    ]


def give_back(
    conn: Connection, order: Row[Any], payment: Row[Any], refund: Row[Any], lines: Sequence[Any]
) -> list[Taken]:
    """Take a refund that succeeded off the lines of a locked order; what it adds to the takings."""
    asked = select(_T.refund_lines.c.line, _T.refund_lines.c.qty)
    named = {
        row.line: row.qty
        for row in conn.execute(asked.where(_T.refund_lines.c.refund == refund.id))
    }
    left = [line.qty * line.price_minor - line.refunded_minor for line in lines]
    wanted = [named.get(line.line, 0) * line.price_minor for line in lines]
    divided = taken_off(refund.amount_minor, wanted, left)
    backs = [(line, back) for line, back in zip(lines, divided, strict=True) if back]
    conn.execute(
        _GIVE_BACK,
        [{"b_order": order.id, "b_line": line.line, "b_back": back} for line, back in backs],
    )
    minute = payment.paid_at // MINUTE_MS
    return [
        Taken(Place(order.room, minute, line.bucket, payment.currency), back=back)
        for line, back in backs
    ]


def write(conn: Connection, taken: Iterable[Taken]) -> None:
    """Add up and write, in one order of rows, so that two batches never wait in a circle."""
    sums: dict[Place, list[int]] = {}
    for one in taken:
        row = sums.setdefault(one.place, [0, 0, 0])
        row[:] = row[0] + one.orders, row[1] + one.paid, row[2] + one.back
    if sums:
        rows = sorted(sums.items())
        names = ("orders", "paid", "back")
        conn.execute(
            _WRITE,
            [place._asdict() | dict(zip(names, row, strict=True)) for place, row in rows],
        )

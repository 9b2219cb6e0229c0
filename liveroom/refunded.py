"""How a refund ends: what its provider says of it, and what order and payment are then.

Order and payment follow from all of their refunds. Each function is part of a transaction of
`captures.py`; nothing here awaits.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, func, select, update

from liveroom import takings
from liveroom.bookkeeping import (
    After,
    News,
    payments_of,
    set_orders,
    set_payment,
)
from liveroom.deciding import order_of
from liveroom.errors import ensure
from liveroom.placing import lines_of
from liveroom.refunding import CAPTURED, delivered, refunds_of
from liveroom.store import tables

_T = tables


class Ended(NamedTuple):
    """What the provider said of a refund, with the locked rows that it is for."""

    refund: str | None
    state: str
    payment: Row[Any]
    order: Row[Any]
    amount_minor: int
    currency: str


def end(conn: Connection, after: After, ended: Ended) -> None:
    """A refund has succeeded or failed; payment and order follow from all of their refunds.

    Word of another amount or currency than was asked for changes nothing, and is `differs`:
    what became of that money a human must find out at the provider.
    """
    payment, order, refunds = ended.payment, ended.order, _T.refunds.c
    mine = (refunds.id == ended.refund, refunds.payment == payment.id, refunds.state == "pending")
    refund = conn.execute(select(_T.refunds).where(*mine).with_for_update()).first()
    if refund is None:
        return
    if (ended.amount_minor, ended.currency) != (refund.amount_minor, payment.currency):
        after.differs = ended.refund
        return
    # From here on it must succeed.
    moved = update(_T.refunds).where(*mine).values(state=ended.state, changed_at=after.at)
    ensure(conn.execute(moved).rowcount == 1, "a locked refund moved")
    lines = lines_of(conn, [order.id])[order.id]
    if ended.state == "succeeded" and payment.paid_at is not None:
        after.taken += takings.give_back(conn, order, payment, refund, lines)
    left, pending = _open_sums(conn, [payment.id])
    if not pending and payment.state == "refunding":
        set_payment(conn, after.at, payment, "succeeded" if left else "refunded")
    state = _order_state(conn, order)
    if state != order.state:
        set_orders(conn, after.at, [order], state)
    if ended.state == "succeeded":
        back = refunds_of(conn, [order.id])[order.id]
        news = order_of(order, lines, state, back)
        after.news.append(News("order.refunded", order.buyer, news))


def _order_state(conn: Connection, order: Row[Any]) -> str:
    """What the order is, by all of its refunds."""
    if order.state != "refund_pending":
        return str(order.state)
    payments = payments_of(conn, [order.id])[order.id]
    left, pending = _open_sums(conn, [row.id for row in payments if row.state in CAPTURED])
    if pending or (left and not delivered(conn, order.id)):
        return "refund_pending"
    return "paid" if left else "refunded"


def _open_sums(conn: Connection, payments: Collection[str]) -> tuple[int, int]:
    """(What was captured and not given back, how many refunds are under way)."""
    captured = conn.scalar(
        select(func.coalesce(func.sum(_T.payments.c.amount_minor), 0)).where(
            _T.payments.c.id.in_(payments)
        )
    )
    rows = conn.execute(
        select(_T.refunds.c.state, _T.refunds.c.amount_minor).where(
            _T.refunds.c.payment.in_(payments)
        )
    ).all()
    back = sum(row.amount_minor for row in rows if row.state == "succeeded")
    return int(captured or 0) - back, sum(row.state == "pending" for row in rows)

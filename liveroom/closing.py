"""How an order ends unpaid: first `closing`, then, once its provider agrees, the end.

While an order is closing its stock stays its own, because money may be on its way: the
provider is asked to close the payment, and its answer decides. Each function is one
transaction for `Database.write`; nothing here awaits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from sqlalchemy import ColumnElement, Connection, Row, select, text, tuple_

from liveroom.bookkeeping import (
    LOCKED_ORDERS,
    After,
    Move,
    News,
    give_back,
    move_stock,
    payments_of,
    set_orders,
    set_payment,
)
from liveroom.deciding import order_of
from liveroom.errors import Invalid
from liveroom.placing import lines_of
from liveroom.states import move
from liveroom.store import tables
from liveroom.store.database import now_ms


class Closing(NamedTuple):
    """An order that is closing, with the payments that may still be captured."""

    order: str
    buyer: str
    since: int
    payments: list[Row[Any]]


Page = list[tuple[int, str]]
"""Orders as (pay_by, id), in that order."""

_T = tables
_UNPAID = select(_T.orders.c.pay_by, _T.orders.c.id).where(text(f"orders.{tables.UNPAID}"))
ANY_PLACED: Final = _UNPAID.where(_T.orders.c.state == "placed").exists()
ANY_CLOSING: Final = _UNPAID.where(_T.orders.c.state == "closing").exists()


def due_orders(conn: Connection, limit: int, beyond: tuple[int, str]) -> Page:
    """Placed orders whose time to pay has passed, after `beyond`."""
    orders = _T.orders.c
    return _page(conn, limit, beyond, orders.state == "placed", orders.pay_by <= now_ms(conn))


def closing_orders(conn: Connection, limit: int, beyond: tuple[int, str]) -> Page:
    """Orders that are closing, after `beyond`."""
    return _page(conn, limit, beyond, _T.orders.c.state == "closing")


def _page(
    conn: Connection, limit: int, beyond: tuple[int, str], *where: ColumnElement[bool]
) -> Page:
    orders = _T.orders.c
    pay_by, last = beyond
    rows = conn.execute(
        _UNPAID.where(*where, tuple_(orders.pay_by, orders.id) > tuple_(pay_by, last))
        .order_by(orders.pay_by, orders.id)
        .limit(limit)
    )
    return [(row.pay_by, row.id) for row in rows]


def begin_closing(conn: Connection, ids: Sequence[str], *, due_only: bool) -> list[Closing]:
    """Turn placed orders to `closing`; the stock stays theirs until the provider has answered.

    With `due_only` those whose time to pay has not passed stay as they are. Orders that are
    closing already are answered again; all others are left out.
    """
    at = now_ms(conn)
    rows = [
        row
        for row in conn.execute(LOCKED_ORDERS, {"ids": sorted(ids)})
        if row.state == "closing" or (row.state == "placed" and (row.pay_by <= at or not due_only))
    ]
    set_orders(conn, at, [row for row in rows if row.state == "placed"], "closing")
    payments = payments_of(conn, [row.id for row in rows])
    return [
        Closing(
            row.id,
            row.buyer,
            row.changed_at if row.state == "closing" else at,
            [payment for payment in payments[row.id] if payment.state == "started"],
        )
        for row in rows
    ]


def begin_cancelling(conn: Connection, order: str, buyer: str) -> list[Closing]:
    """Turn a buyer's own placed order to `closing`; begun before, it goes on.

    Another's order is `not_found`; one that is paid or ended is `illegal_transition`.
    """
    row = conn.execute(LOCKED_ORDERS, {"ids": [order]}).first()
    if row is None or row.buyer != buyer:
        raise Invalid("not_found")
    if row.state != "closing":
        move("order", row.state, "closing")
    return begin_closing(conn, [order], due_only=False)


def finish_closing(conn: Connection, ids: Sequence[str]) -> After:
    """End closing orders whose payments are closed: their units are on sale again.

    An order that began to close before it had to be paid was cancelled; all others expired.
    Orders that are no longer closing are left alone.
    """
    after = After(at=now_ms(conn))
    locked = conn.execute(LOCKED_ORDERS, {"ids": sorted(ids)}).all()
    rows = [row for row in locked if row.state == "closing"]
    lines = lines_of(conn, [row.id for row in rows])
    moves = [
        Move(line.pool, "release", row.id, reserved=-line.qty)
        for row in rows
        for line in lines[row.id]
    ]
    after.told = move_stock(conn, after.at, moves)
    give_back(conn, rows, lines)
    for row in rows:
        state = "cancelled" if row.changed_at < row.pay_by else "expired"
        set_orders(conn, after.at, [row], state)
        after.news.append(News(f"order.{state}", row.buyer, order_of(row, lines[row.id], state)))
    payments = payments_of(conn, [row.id for row in rows])
    for payment in (one for some in payments.values() for one in some if one.state == "started"):
        set_payment(conn, after.at, payment, "cancelled")
    return after

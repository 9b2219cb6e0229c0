"""Orders as they are now, one or a page of them, for those who may see them.

Each function is a look for `Database.read`; nothing here awaits.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

import msgspec
from sqlalchemy import ColumnElement, Connection, select, tuple_

from liveroom import shapes
from liveroom.deciding import order_of
from liveroom.errors import Invalid
from liveroom.placing import lines_of
from liveroom.refunding import refunds_of
from liveroom.store import tables

_T = tables


class Page(msgspec.Struct):
    """One page of orders; `next` is the cursor of the page after it, or none."""

    items: Sequence[shapes.Order]
    next: str | None


class Seen(NamedTuple):
    """Whose eyes: the buyer's own orders, and those with goods of the shops; None sees all."""

    buyer: str | None
    shops: Collection[str] = ()

    def where(self) -> list[ColumnElement[bool]]:
        """What an order must be to be seen."""
        if self.buyer is None:
            return []
        mine = _T.orders.c.buyer == self.buyer
        if not self.shops:
            return [mine]
        goods = (
            select(_T.order_lines.c.order)
            .join(_T.skus, _T.skus.c.id == _T.order_lines.c.sku)
            .join(_T.products, _T.products.c.id == _T.skus.c.product)
            .where(_T.products.c.shop.in_(list(self.shops)))
        )
        return [mine | _T.orders.c.id.in_(goods)]


def shown(conn: Connection, order: str, seen: Seen) -> shapes.Order | None:
    """The order, where it may be seen."""
    found = _find(conn, [_T.orders.c.id == order, *seen.where()], 1)
    return found[0] if found else None


def page_of(
    conn: Connection, seen: Seen, *, room: str | None, after: str | None, limit: int
) -> Page:
    """Orders, newest first; `after` is the `next` of the page before."""
    orders = _T.orders.c
    where = seen.where()
    if room is not None:
        where.append(orders.room == room)
    if after is not None:
        where.append(tuple_(orders.placed_at, orders.id) < tuple_(*_cursor(after)))
    found = _find(conn, where, limit + 1)
    last = found[limit - 1] if len(found) > limit else None
    return Page(found[:limit], f"{last.placed_at}.{last.id}" if last else None)


def _cursor(text: str) -> tuple[int, str]:
    at, _, last = text.partition(".")
    if not (at.isascii() and at.isdecimal() and len(at) < 16 and last):
        raise Invalid("bad_argument", "This cursor is none of ours.")
    return int(at), last


def _find(conn: Connection, where: Sequence[ColumnElement[bool]], limit: int) -> list[shapes.Order]:
    orders = _T.orders
    rows = conn.execute(
        select(orders)
        .where(*where)
        .order_by(orders.c.placed_at.desc(), orders.c.id.desc())
        .limit(limit)
    ).all()
    lines = lines_of(conn, [row.id for row in rows]) if rows else {}
    refunds = refunds_of(conn, list(lines))
    return [order_of(row, lines[row.id], refunds=refunds.get(row.id, ())) for row in rows]

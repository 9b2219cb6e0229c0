"""Refunds: money that goes back, and units that go on sale again or do not.

A refund belongs to one payment. It is asked for in one transaction: its row, the ledger rows
of what is restocked, the order's and the payment's state, and an outbox row by which the
provider hears of it under the refund's id. What the provider answers is an event,
by which it ends (`refunded.py`). Units that were restocked stay so when the money could not go
back: they lie on the shelf. Nothing here awaits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Annotated, Any, Final, NamedTuple

import msgspec
from sqlalchemy import Connection, Row, bindparam, func, insert, select, update

from liveroom import outbox, shapes
from liveroom.bookkeeping import (
    LOCKED_ORDERS,
    After,
    Move,
    move_stock,
    payments_of,
    set_orders,
    set_payment,
    take_off,
)
from liveroom.errors import Invalid
from liveroom.ids import Id, new_id
from liveroom.money import AMOUNT_MAX
from liveroom.placing import lines_of
from liveroom.store import tables
from liveroom.store.database import now_ms

CAPTURED: Final = frozenset({"succeeded", "refunding", "refunded"})
"""The states of a payment whose money has come; its amount is then what was captured."""


class RefundLine(msgspec.Struct, kw_only=True):
    """Units of one line that are given back; `restock` puts them on sale again."""

    sku: Id
    qty: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
    drop: Id | None = None
    restock: bool = False


class NewRefund(msgspec.Struct, kw_only=True):
    """Money to give back. Without an amount it is that of the lines; without both, all of it."""

    lines: Annotated[list[RefundLine], msgspec.Meta(max_length=100)] = []
    amount_minor: Annotated[int, msgspec.Meta(ge=1, le=AMOUNT_MAX)] | None = None
    why: Annotated[str, msgspec.Meta(max_length=500)] | None = None


class Goods(NamedTuple):
    """A line of an order: whose goods they are, and what one of them cost."""

    shop: str
    price_minor: int


class Whose(NamedTuple):
    """Whose an order is: its buyer's, its room's, and that of the shops whose goods it has.

    `goods` has its lines, each by its SKU and drop.
    """

    buyer: str
    room: str
    goods: Mapping[tuple[str, str | None], Goods]

    @property
    def shops(self) -> frozenset[str]:
        """The shops whose goods the order has."""
        return frozenset(line.shop for line in self.goods.values())

    def why_not_for(self, wanted: NewRefund, runs: Callable[[str], bool]) -> str | None:
        """Why a refund is not the matter of the shops that somebody `runs` alone, if it is not.

        Of an order over several shops that is one of lines of theirs, and of no more money
        than these cost. A line that is not in the order is nobody's, and refused as such.
        """
        if all(map(runs, self.shops)):
            return None
        named = [(line, self.goods.get((line.sku, line.drop))) for line in wanted.lines]
        cost = sum(line.qty * goods.price_minor for line, goods in named if goods is not None)
        if not named or any(goods is not None and not runs(goods.shop) for _, goods in named):
            return "Some of it is another shop's: name lines of yours."
        if wanted.amount_minor is not None and wanted.amount_minor > cost:
            return "The amount is beyond what these lines cost."
        return None


class Begun(NamedTuple):
    """A refund that was asked for, and what is to be told of it."""

    refund: shapes.Refund
    after: After


_T = tables
_IDS: Any = bindparam("ids", expanding=True)
_REFUNDS = (
    select(_T.refunds, _T.payments.c.order, _T.payments.c.currency)
    .join(_T.payments, _T.payments.c.id == _T.refunds.c.payment)
    .where(_T.payments.c.order.in_(_IDS))
    .order_by(_T.refunds.c.id)
)
_REFUND_LINES = (
    select(_T.refund_lines, _T.order_lines.c.sku, _T.order_lines.c.drop)
    .join(_T.refunds, _T.refunds.c.id == _T.refund_lines.c.refund)
    .join(_T.payments, _T.payments.c.id == _T.refunds.c.payment)
    .join(
        _T.order_lines,
        (_T.order_lines.c.order == _T.payments.c.order)
        & (_T.order_lines.c.line == _T.refund_lines.c.line),
    )
    .where(_T.refund_lines.c.refund.in_(_IDS))
    .order_by(_T.refund_lines.c.refund, _T.refund_lines.c.line)
)


# ── showing ───────────────────────────────────────────────────────────────────────────────


def refunds_of(conn: Connection, orders: Collection[str]) -> dict[str, list[shapes.Refund]]:
    """The refunds of those orders that have any, oldest first."""
    if not orders:
        return {}
    rows = conn.execute(_REFUNDS, {"ids": list(orders)}).all()
    lines: dict[str, list[shapes.RefundLine]] = {row.id: [] for row in rows}
    if rows:
        for line in conn.execute(_REFUND_LINES, {"ids": list(lines)}):
            lines[line.refund].append(_line_shape(line))
    found: dict[str, list[shapes.Refund]] = {}
    for row in rows:
        found.setdefault(row.order, []).append(_shape(row, lines[row.id]))
    return found


def whose(conn: Connection, order: str) -> Whose:
    """Whose the order is; `not_found` without one."""
    row = conn.execute(select(_T.orders).where(_T.orders.c.id == order)).first()
    if row is None:
        raise Invalid("not_found")
    lines = _T.order_lines.c
    goods = conn.execute(
        select(lines.sku, lines.drop, lines.price_minor, _T.products.c.shop)
        .join(_T.skus, _T.skus.c.id == lines.sku)
        .join(_T.products, _T.products.c.id == _T.skus.c.product)
        .where(lines.order == order)
    )
    lined = {(one.sku, one.drop): Goods(one.shop, one.price_minor) for one in goods}
    return Whose(row.buyer, row.room, lined)


def refund_of(conn: Connection, refund: str) -> Row[Any]:
    """A refund with its payment's provider, reference and currency."""
    payments = _T.payments.c
    return conn.execute(
        select(_T.refunds, payments.provider, payments.reference, payments.currency)
        .join(_T.payments, payments.id == _T.refunds.c.payment)
        .where(_T.refunds.c.id == refund)
    ).one()


def _shape(row: Any, lines: list[shapes.RefundLine], state: str | None = None) -> shapes.Refund:
    return shapes.Refund(
        id=row.id,
        order=row.order,
        payment=row.payment,
        state=state or row.state,
        amount_minor=row.amount_minor,
        currency=row.currency,
        created_at=row.created_at,
        why=row.why,
        lines=lines,
    )


def _line_shape(line: Any) -> shapes.RefundLine:
    return shapes.RefundLine(sku=line.sku, qty=line.qty, drop=line.drop, restock=line.restock)


# ── asking for one ────────────────────────────────────────────────────────────────────────


class _Chosen(NamedTuple):
    """A line of the order, and what of it is given back."""

    row: Any
    qty: int
    restock: bool


def begin(conn: Connection, order: str, wanted: NewRefund, operation: str | None) -> Begun:
    """Ask for a refund, once for each operation: the same one gets the first answer again.

    Raises:
        Invalid: `not_found`; `illegal_transition`, no money of this order is here to go back;
            `bad_argument`, it is more than there is, its data say how much; `id_reused`, the
            operation asked for something else.
    """
    row = conn.execute(LOCKED_ORDERS, {"ids": [order]}).first()
    if row is None:
        raise Invalid("not_found")
    content = _digest(order, wanted)
    if operation is not None and (known := _begun_before(conn, operation, content)):
        return Begun(known, After(at=0))
    payments = payments_of(conn, [order])[order]
    chosen = _chosen_lines(conn, row, wanted.lines)
    payment, amount = _payment_for(conn, row, payments, wanted, chosen)
    # From here on it must succeed.
    after = After(at=now_ms(conn))
    refund = add(
        conn, after.at, payment, amount, why=wanted.why, operation=operation, content=content
    )
    _write_lines(conn, refund, chosen)
    after.told = _restock(conn, after.at, row, [one for one in chosen if one.restock])
    if row.state == "paid":
        set_orders(conn, after.at, [row], "refund_pending")
    shown = refunds_of(conn, [order])[order]
    return Begun(next(one for one in shown if one.id == refund), after)


def add(
    conn: Connection,
    at: int,
    payment: Row[Any],
    amount_minor: int,
    *,
    why: str | None,
    operation: str | None = None,
    content: str | None = None,
) -> str:
    """Write down a refund of a locked, captured payment, and that its provider must hear of it."""
    if payment.state != "refunding":
        set_payment(conn, at, payment, "refunding")
    refund = {
        "id": new_id(),
        "payment": payment.id,
        "state": "pending",
        "amount_minor": amount_minor,
        "why": why,
        "operation": operation,
        "content": content,
        "created_at": at,
        "changed_at": at,
    }
    conn.execute(insert(_T.refunds), refund)
    outbox.add(conn, "refund", {"refund": refund["id"]}, at)
    return str(refund["id"])


def _digest(order: str, wanted: NewRefund) -> str:
    return hashlib.sha256(msgspec.json.encode([order, wanted])).hexdigest()


def _begun_before(conn: Connection, operation: str, content: str) -> shapes.Refund | None:
    """The first answer to this operation."""
    rows = conn.execute(
        select(_T.refunds, _T.payments.c.order, _T.payments.c.currency)
        .join(_T.payments, _T.payments.c.id == _T.refunds.c.payment)
        .where(_T.refunds.c.operation == operation)
    ).all()
    if not rows:
        return None
    if rows[0].content != content:
        raise Invalid("id_reused")
    lines = conn.execute(_REFUND_LINES, {"ids": [rows[0].id]})
    return _shape(rows[0], [_line_shape(line) for line in lines], "pending")


def _chosen_lines(conn: Connection, order: Row[Any], wanted: Sequence[RefundLine]) -> list[_Chosen]:
    """The order's lines that are meant; each has so many units left to refund and restock."""
    if not wanted:
        return []
    if order.state not in ("paid", "refund_pending") or not delivered(conn, order.id):
        raise _not_now(order)
    rows = {(row.sku, row.drop): row for row in lines_of(conn, [order.id])[order.id]}
    back = _units_back(conn, order.id)
    chosen = []
    for line in wanted:
        row = rows.pop((line.sku, line.drop), None)
        if row is None:
            raise Invalid("bad_argument", "No such line, or twice.", data={"sku": line.sku})
        left = row.qty - back.get(row.line, 0)
        if line.restock:
            left = min(left, row.qty - row.restocked)
        if line.qty > left:
            data = {"sku": line.sku, "left": left}
            raise Invalid("bad_argument", "So many units are not there to give back.", data=data)
        chosen.append(_Chosen(row, line.qty, line.restock))
    return chosen


def _units_back(conn: Connection, order: str) -> dict[int, int]:
    """How many units of each line are given back, or on their way."""
    lines = _T.refund_lines.c
    rows = conn.execute(
        select(lines.line, func.sum(lines.qty))
        .join(_T.refunds, _T.refunds.c.id == lines.refund)
        .join(_T.payments, _T.payments.c.id == _T.refunds.c.payment)
        .where(_T.payments.c.order == order, _T.refunds.c.state != "failed")
        .group_by(lines.line)
    )
    return {line: int(units) for line, units in rows}


def _payment_for(
    conn: Connection,
    order: Row[Any],
    payments: Sequence[Row[Any]],
    wanted: NewRefund,
    chosen: Sequence[_Chosen],
) -> tuple[Row[Any], int]:
    """The payment that has the money, and how much of it goes back."""
    left = {row.id: _left(conn, row) for row in payments if row.state in CAPTURED}
    best = max(left, key=lambda payment: left[payment], default=None)
    if best is None or not left[best]:
        raise _not_now(order)
    amount = wanted.amount_minor
    if amount is None:
        amount = sum(one.qty * one.row.price_minor for one in chosen) if chosen else left[best]
    if not 0 < amount <= left[best]:
        data = {"refundable_minor": left[best]}
        raise Invalid("bad_argument", "So much cannot be given back.", data=data)
    return next(row for row in payments if row.id == best), amount


def _left(conn: Connection, payment: Row[Any]) -> int:
    """What was captured and neither went back nor is on its way."""
    back = conn.scalar(
        select(func.coalesce(func.sum(_T.refunds.c.amount_minor), 0)).where(
            _T.refunds.c.payment == payment.id, _T.refunds.c.state != "failed"
        )
    )
    return int(payment.amount_minor - (back or 0))


def _not_now(order: Row[Any]) -> Invalid:
    data = {"machine": "order", "state": order.state}
    return Invalid("illegal_transition", "Nothing of this order can be given back.", data=data)


def _write_lines(conn: Connection, refund: str, chosen: Sequence[_Chosen]) -> None:
    if chosen:
        rows = [
            {"refund": refund, "line": one.row.line, "qty": one.qty, "restock": one.restock}
            for one in chosen
        ]
        conn.execute(insert(_T.refund_lines), rows)


def _restock(conn: Connection, at: int, order: Row[Any], chosen: Sequence[_Chosen]) -> list[Any]:
    """Put sold units on sale again: a ledger row a line, and off the buyer's limit."""
    if not chosen:
        return []
    moves = [Move(one.row.pool, "restock", order.id, sold=-one.qty) for one in chosen]
    told = move_stock(conn, at, moves)
    take_off(conn, [(one.row.pool, order.buyer, one.qty) for one in chosen])
    lines = _T.order_lines.c
    conn.execute(
        update(_T.order_lines)
        .where(lines.order == bindparam("b_order"), lines.line == bindparam("b_line"))
        .values(restocked=lines.restocked + bindparam("b_qty")),
        [{"b_order": order.id, "b_line": one.row.line, "b_qty": one.qty} for one in chosen],
    )
    return told


def delivered(conn: Connection, order: str) -> bool:
    """Whether the order's units were sold: a late payment without stock has none."""
    sold = select(_T.ledger.c.seq).where(_T.ledger.c.order == order, _T.ledger.c.kind == "sell")
    return conn.scalar(sold.limit(1)) is not None

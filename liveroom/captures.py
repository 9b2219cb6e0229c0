"""What providers say becomes of orders: paid, paid late, refunded.

An event counts once, whatever the order in which events arrive: its row is written in the
transaction that it changes something in. Money that came is a fact: it pays for the order,
takes stock again for an order that had ended, or goes back. Each function is one transaction
for `Database.write`; nothing here awaits.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import JSON, Connection, Row, bindparam, select, text, update

from liveroom import refunded, refunding, takings
from liveroom.bookkeeping import (
    LOCKED_ORDERS,
    After,
    Move,
    News,
    Wanted,
    lock_pools,
    move_stock,
    set_orders,
    set_payment,
)
from liveroom.deciding import order_of
from liveroom.inventory import Hold
from liveroom.payments import Webhook
from liveroom.placing import count_taken, late_refusal, lines_of, make_void
from liveroom.refunding import CAPTURED
from liveroom.store import tables
from liveroom.store.database import now_ms


class Late(Enum):
    """What a late payment may count on: nothing is known yet, or there is no stock."""

    ASK = "ask"
    REFUND = "refund"


_T = tables
_TAKE_IN = text(
    "INSERT INTO payment_events"
    " (provider, event, kind, reference, body, received_at, due_at, tries)"
    " VALUES (:provider, :event, :kind, :reference, :body, :at, :at, 0)"
    " ON CONFLICT (provider, event) DO NOTHING"
).bindparams(bindparam("body", type_=JSON))

_ORDERS_OF = (
    select(_T.payments.c.order)
    .where(_T.payments.c.reference.in_(bindparam("references", expanding=True)))
    .distinct()
)


class Saying(NamedTuple):
    """What a provider said, with what a late payment may count on."""

    said: Webhook
    late: Late | list[Hold] = Late.ASK


def take_in_all(conn: Connection, sayings: Sequence[Saying]) -> list[After]:
    """Take in a batch, in order of arrival: see `take_in`.

    All rows that captures change are locked first, in the one order, so that the batches of
    two nodes never wait for each other in a circle.
    """
    references = [one.said.reference for one in sayings]
    orders = conn.scalars(_ORDERS_OF, {"references": references}).all()
    if orders:
        conn.execute(LOCKED_ORDERS, {"ids": sorted(orders)}).all()
        lines = lines_of(conn, orders)
        lock_pools(conn, {line.pool for some in lines.values() for line in some})
    taken_in = [take_in(conn, one.said, one.late) for one in sayings]
    takings.write(conn, [one for after in taken_in for one in after.taken])
    return taken_in


def take_in(conn: Connection, said: Webhook, late: Late | list[Hold] = Late.ASK) -> After:
    """Take in what a provider said, once: the same event again changes nothing.

    `late` is asked only where the order has expired or was cancelled: without an answer the
    event stays unapplied and `After.wants` names what to hold; holds are placed and sold at
    once; `Late.REFUND` sends the money back. `After.taken` is the caller's to write.
    """
    after = After(at=now_ms(conn))
    if not _first_time(conn, said, after.at):
        return after
    found = _payment_and_order(conn, said)
    if found is None:
        after.parked = True
        return after
    payment, order = found
    match said.kind:
        case "payment.succeeded":
            _captured(_Capture(conn, after, said, payment, order), late)
        case "payment.failed":
            if payment.state == "started":
                set_payment(conn, after.at, payment, "failed")
        case "refund.succeeded" | "refund.failed":
            state = said.kind.removeprefix("refund.")
            amount = said.amount_minor, said.currency
            refunded.end(conn, after, refunded.Ended(said.refund, state, payment, order, *amount))
    applied_at = after.at if after.wants is None else None
    conn.execute(
        update(_T.payment_events)
        .where(
            _T.payment_events.c.provider == said.provider,
            _T.payment_events.c.event == said.event,
        )
        .values(applied_at=applied_at, payment=payment.id)
    )
    return after


def _first_time(conn: Connection, said: Webhook, at: int) -> bool:
    """Record the event; False if it was applied before."""
    row = {
        "provider": said.provider,
        "event": said.event,
        "kind": said.kind,
        "reference": said.reference,
        "body": msgspec.to_builtins(said),
        "at": at,
    }
    conn.execute(_TAKE_IN, row)
    events = _T.payment_events.c
    mine = (events.provider == said.provider, events.event == said.event)
    return conn.scalar(select(events.applied_at).where(*mine).with_for_update()) is None


def _payment_and_order(conn: Connection, said: Webhook) -> tuple[Row[Any], Row[Any]] | None:
    """The payment that is meant and its order, both locked, the order first."""
    payments = _T.payments.c
    where = (payments.provider == said.provider, payments.reference == said.reference)
    order = conn.scalar(select(payments.order).where(*where))
    if order is None:
        return None
    row = conn.execute(LOCKED_ORDERS, {"ids": [order]}).one()
    return conn.execute(select(_T.payments).where(*where).with_for_update()).one(), row


class _Capture(NamedTuple):
    """Money that came, with the locked rows that it is for."""

    conn: Connection
    after: After
    said: Webhook
    payment: Row[Any]
    order: Row[Any]

    def take(self) -> None:
        """The payment has succeeded; from now on its amount is what came."""
        set_payment(self.conn, self.after.at, self.payment, "succeeded")
        self.conn.execute(
            update(_T.payments)
            .where(_T.payments.c.id == self.payment.id)
            .values(amount_minor=self.said.amount_minor, currency=self.said.currency)
        )

    def take_and_send_back(self, why: str) -> None:
        """The payment has succeeded, and is refunded through the outbox with a stable key."""
        self.take()
        payment = self.conn.execute(
            select(_T.payments).where(_T.payments.c.id == self.payment.id)
        ).one()
        refunding.add(self.conn, self.after.at, payment, payment.amount_minor, why=why)

    def pay(self, lines: list[Row[Any]], moves: list[Move]) -> None:
        """The order is paid, and its units are sold."""
        self.take()
        paid_at = self.after.at
        self.conn.execute(
            update(_T.payments).where(_T.payments.c.id == self.payment.id).values(paid_at=paid_at)
        )
        self.after.taken += takings.paid_in(self.order, paid_at, self.said.currency, lines)
        self.after.told = move_stock(self.conn, self.after.at, moves)
        set_orders(self.conn, self.after.at, [self.order], "paid")
        paid = order_of(self.order, lines, "paid")
        self.after.news.append(News("order.paid", self.order.buyer, paid))


def _captured(capture: _Capture, late: Late | list[Hold]) -> None:
    said, payment, order = capture.said, capture.payment, capture.order
    if payment.state in CAPTURED:
        return
    if (said.amount_minor, said.currency) != (payment.amount_minor, payment.currency):
        capture.take_and_send_back("amount_mismatch")
    elif order.state in ("placed", "closing"):
        lines = lines_of(capture.conn, [order.id])[order.id]
        capture.pay(lines, [_sale(line) for line in lines])
    elif order.state in ("expired", "cancelled"):
        _captured_late(capture, late)
    else:  # the order was paid before: this money is not owed
        capture.take_and_send_back("second_capture")


def _captured_late(capture: _Capture, late: Late | list[Hold]) -> None:
    conn, after, order = capture.conn, capture.after, capture.order
    if late is Late.REFUND:
        capture.take_and_send_back("late_payment")
        set_orders(conn, after.at, [order], "refund_pending")
        return
    lines = lines_of(conn, [order.id])[order.id]
    if isinstance(late, Late):
        after.wants = Wanted(order.id, order.buyer, order.room, lines)
        return
    refusal = late_refusal(conn, order, late)
    if refusal is not None:
        after.broken += refusal.code == "sold_out"
        after.ended = [hold.id for hold in late]
        make_void(conn, after.at, after.ended)
        # A raised fence or a void hold says nothing of the stock: hold again.
        again = refusal.code in ("rebuilding", "hold_expired")
        _captured_late(capture, Late.ASK if again else Late.REFUND)
        return
    holds = {hold.pool: hold.id for hold in late}
    moves = []
    for line in lines:
        hold = holds[line.pool]
        moves.append(Move(line.pool, "reserve", order.id, reserved=line.qty, hold=hold))
        moves.append(_sale(line))
    _count_again(conn, order, lines, holds)
    capture.pay(lines, moves)


def _sale(line: Row[Any]) -> Move:
    return Move(line.pool, "sell", line.order, reserved=-line.qty, sold=line.qty)


def _count_again(
    conn: Connection, order: Row[Any], lines: Sequence[Row[Any]], holds: dict[str, str]
) -> None:
    """A late payment takes its units anew: they count for the buyer, under their new holds."""
    count_taken(conn, {(line.pool, order.buyer): line.qty for line in lines})
    for line in lines:
        conn.execute(
            update(_T.order_lines)
            .where(_T.order_lines.c.order == order.id, _T.order_lines.c.line == line.line)
            .values(hold=holds[line.pool])
        )

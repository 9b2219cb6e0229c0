"""How orders, payments and stock are written down: rows, each by an arrow of its table.

What the transactions of orders share (`closing.py`, `captures.py`). Rows are locked before
they are written, in one order: order rows, then pool rows, then buyers' rows, each sorted.
Nothing here awaits.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import BindParameter, Connection, Row, bindparam, insert, select, text, update

from liveroom import shapes
from liveroom.errors import ensure
from liveroom.inventory import Told
from liveroom.states import move
from liveroom.store import tables
from liveroom.takings import Taken


class News(NamedTuple):
    """A direct event to send after the commit."""

    name: str
    buyer: str
    order: shapes.Order


class Wanted(NamedTuple):
    """An expired or cancelled order that was paid after all."""

    order: str
    buyer: str
    room: str
    lines: list[Row[Any]]


class After(msgspec.Struct, kw_only=True):
    """What a committed transaction leaves to be told, and what it could not finish.

    `taken` is what it took in or gave back, for the batch to write down at once.
    `wants` is an order whose late payment needs units held for it before it can go on;
    `parked` says that the event waits for its payment to be known. `broken` counts holds that
    SQL refused for want of stock; `differs` is a refund of which the provider told otherwise.
    """

    at: int
    told: list[Told] = []
    taken: list[Taken] = []
    news: list[News] = []
    ended: list[str] = []
    returned: list[str] = []
    parked: bool = False
    broken: int = 0
    differs: str | None = None
    wants: Wanted | None = None


class Move(NamedTuple):
    """One row of the ledger to be."""

    pool: str
    kind: str
    order: str
    reserved: int = 0
    sold: int = 0
    hold: str | None = None


_T = tables
_IDS: BindParameter[Any] = bindparam("ids", expanding=True)
LOCKED_ORDERS = (
    select(_T.orders).where(_T.orders.c.id.in_(_IDS)).order_by(_T.orders.c.id).with_for_update()
)
_LOCKED_POOLS = (
    select(_T.pools).where(_T.pools.c.pool.in_(_IDS)).order_by(_T.pools.c.pool).with_for_update()
)
_PAYMENTS = (
    select(_T.payments)
    .where(_T.payments.c.order.in_(_IDS))
    .order_by(_T.payments.c.id)
    .with_for_update()
)
_SET_ORDER = (
    update(_T.orders)
    .where(_T.orders.c.id == bindparam("b_id"), _T.orders.c.state == bindparam("b_before"))
    .values(state=bindparam("b_after"), changed_at=bindparam("b_at"))
)
_SET_PAYMENT = (
    update(_T.payments)
    .where(_T.payments.c.id == bindparam("b_id"), _T.payments.c.state == bindparam("b_before"))
    .values(state=bindparam("b_after"), changed_at=bindparam("b_at"))
)
_MOVE_POOL = (
    update(_T.pools)
    .where(_T.pools.c.pool == bindparam("b_pool"), _T.pools.c.seq == bindparam("b_seq"))
    .values(
        reserved=_T.pools.c.reserved + bindparam("b_reserved"),
        sold=_T.pools.c.sold + bindparam("b_sold"),
        seq=_T.pools.c.seq + bindparam("b_rows"),
    )
)
_GIVE_BACK = text(
    "UPDATE buyer_taken SET units = units - :units WHERE pool = :pool AND buyer = :buyer"
)


def payments_of(conn: Connection, orders: Sequence[str]) -> dict[str, list[Row[Any]]]:
    """The payments of each order, locked, in order of id."""
    payments: dict[str, list[Row[Any]]] = {order: [] for order in orders}
    if orders:
        for row in conn.execute(_PAYMENTS, {"ids": orders}):
            payments[row.order].append(row)
    return payments


def set_orders(conn: Connection, at: int, rows: Iterable[Row[Any]], state: str) -> None:
    """Move locked orders by one arrow of their table."""
    for row in rows:
        change = {
            "b_id": row.id,
            "b_before": row.state,
            "b_after": move("order", row.state, state),
            "b_at": at,
        }
        ensure(conn.execute(_SET_ORDER, change).rowcount == 1, "a locked order moved")


def set_payment(conn: Connection, at: int, row: Row[Any], state: str) -> None:
    """Move a locked payment by one arrow of its table."""
    change = {
        "b_id": row.id,
        "b_before": row.state,
        "b_after": move("payment", row.state, state),
        "b_at": at,
    }
    ensure(conn.execute(_SET_PAYMENT, change).rowcount == 1, "a locked payment moved")


def lock_pools(conn: Connection, names: Iterable[str]) -> None:
    """Lock these pools' rows until the commit, in the one order."""
    conn.execute(_LOCKED_POOLS, {"ids": sorted(names)}).all()


def move_stock(conn: Connection, at: int, moves: Sequence[Move]) -> list[Told]:
    """Write ledger rows and their pools, set-wise; what Redis must hear of each pool."""
    if not moves:
        return []
    names = sorted({one.pool for one in moves})
    told, rows, changes = [], [], []
    for pool in conn.execute(_LOCKED_POOLS, {"ids": names}):
        seq, free = pool.seq, pool.initial + pool.adjusted - pool.reserved - pool.sold
        mine = [one for one in moves if one.pool == pool.pool]
        for one in mine:
            seq += 1
            free -= one.reserved + one.sold
            row = one._asdict() | {"seq": seq, "at": at, "available_after": free}
            rows.append(row)
        changes.append(
            {
                "b_pool": pool.pool,
                "b_seq": pool.seq,
                "b_reserved": sum(one.reserved for one in mine),
                "b_sold": sum(one.sold for one in mine),
                "b_rows": len(mine),
            }
        )
        ends = [one.hold for one in mine if one.hold is not None]
        told.append(
            Told(
                pool=pool.pool, from_seq=pool.seq + 1, to_seq=seq, available_after=free, holds=ends
            )
        )
    ensure(len(changes) == len(names), "an order's pool is gone")
    moved = conn.execute(_MOVE_POOL, changes).rowcount
    ensure(moved == len(changes), "a locked pool moved")
    conn.execute(insert(_T.ledger), rows)
    return told


def give_back(conn: Connection, rows: Sequence[Row[Any]], lines: dict[str, list[Row[Any]]]) -> None:
    """Take the units of ended orders off their buyers' limits."""
    take_off(conn, [(line.pool, row.buyer, line.qty) for row in rows for line in lines[row.id]])


def take_off(conn: Connection, taken: Iterable[tuple[str, str, int]]) -> None:
    """Take units off buyers' limits, as (pool, buyer, units). The pools' rows must be locked."""
    rows = [{"pool": pool, "buyer": buyer, "units": n} for pool, buyer, n in sorted(taken)]
    if rows:
        conn.execute(_GIVE_BACK, rows)

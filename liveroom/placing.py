"""Orders, placed set-wise: a batch is read under locks, decided, and written at once.

Locks are taken in one order for the whole batch (fences and rooms shared, then pools, then
buyers, each sorted), so that two batches never wait for each other in a circle. There are no
savepoints: what cannot be placed was never written. Nothing here awaits.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, bindparam, select, update

from liveroom.deciding import Books, DropRow, Known, Plan, Pool, Tally, Wish, decide, order_of
from liveroom.errors import LiveroomError, ensure
from liveroom.faults import point
from liveroom.inventory import Hold
from liveroom.store import ledger, tables
from liveroom.store.database import now_ms
from liveroom.store.rows import add_up, insert_rows, rows_among

_T = tables
_FENCES = select(_T.fences.c.partition, _T.fences.c.epoch).with_for_update(read=True)
_ROOMS = (
    select(_T.rooms.c.id, _T.rooms.c.state, _T.rooms.c.paused)
    .where(_T.rooms.c.id.in_(bindparam("ids", expanding=True)))
    .order_by(_T.rooms.c.id)
    .with_for_update(read=True)
)
_POOLS = (
    select(
        _T.pools.c.pool,
        _T.pools.c.sku,
        _T.pools.c.drop,
        _T.pools.c.partition,
        ledger.AVAILABLE.label("available"),
        _T.pools.c.seq,
        _T.skus.c.limit_per_buyer,
        _T.products.c.currency,
    )
    .join(_T.skus, _T.skus.c.id == _T.pools.c.sku)
    .join(_T.products, _T.products.c.id == _T.skus.c.product)
    .where(_T.pools.c.pool.in_(bindparam("ids", expanding=True)))
    .order_by(_T.pools.c.pool)
    .with_for_update(of=_T.pools)
)
_TAKEN = (
    select(_T.buyer_taken.c.pool, _T.buyer_taken.c.buyer, _T.buyer_taken.c.units)
    .where(
        _T.buyer_taken.c.pool.in_(bindparam("pools", expanding=True)),
        _T.buyer_taken.c.buyer.in_(bindparam("buyers", expanding=True)),
    )
    .order_by(_T.buyer_taken.c.pool, _T.buyer_taken.c.buyer)
    .with_for_update()
)
_LINES = (
    select(_T.order_lines)
    .where(_T.order_lines.c.order.in_(bindparam("ids", expanding=True)))
    .order_by(_T.order_lines.c.order, _T.order_lines.c.line)
)
_MOVE = (
    update(_T.pools)
    .where(_T.pools.c.pool == bindparam("b_pool"), _T.pools.c.seq == bindparam("b_seq"))
    .values(
        reserved=_T.pools.c.reserved + bindparam("units"), seq=_T.pools.c.seq + bindparam("rows")
    )
)


def known_orders(conn: Connection, ids: Sequence[str]) -> dict[str, Known]:
    """Those of the order ids that exist, with their first answers."""
    rows = rows_among(conn, tuple(_T.orders.c), _T.orders.c.id, ids)
    if not rows:
        return {}
    lines = lines_of(conn, [row.id for row in rows])
    return {
        row.id: Known(
            row.buyer,
            row.content,
            order_of(row, lines[row.id], "placed"),
            frozenset(line.hold for line in lines[row.id]),
        )
        for row in rows
    }


def lines_of(conn: Connection, ids: Sequence[str]) -> dict[str, list[Any]]:
    """The rows of `order_lines` of each order, in order of line."""
    lines: dict[str, list[Any]] = {order: [] for order in ids}
    for line in conn.execute(_LINES, {"ids": ids}):
        lines[line.order].append(line)
    return lines


def read_books(conn: Connection, wishes: Sequence[Wish]) -> Books:
    """Lock what the batch stands on, in the one order, and read it."""
    fences = {row.partition: row.epoch for row in conn.execute(_FENCES)}
    ids = sorted({wish.room for wish in wishes})
    rooms = {row.id: (row.state, row.paused) for row in conn.execute(_ROOMS, {"ids": ids})}
    holds = [hold for wish in wishes for hold in wish.holds]
    names = sorted({hold.pool for hold in holds})
    locked = conn.execute(_POOLS, {"ids": names}).all()
    drops = _drops(conn, [row.drop for row in locked if row.drop is not None])
    pools = {
        row.pool: Pool(
            sku=row.sku,
            partition=row.partition,
            available=row.available,
            seq=row.seq,
            limit=drops[row.drop].limit if row.drop else row.limit_per_buyer,
            currency=row.currency,
            drop=drops.get(row.drop),
        )
        for row in locked
    }
    limited = sorted(name for name, pool in pools.items() if pool.limit is not None)
    taken = {}
    if limited:
        buyers = sorted({wish.buyer for wish in wishes})
        rows = conn.execute(_TAKEN, {"pools": limited, "buyers": buyers})
        taken = {(row.pool, row.buyer): row.units for row in rows}
    return Books(
        now_ms=now_ms(conn),
        fences=fences,
        rooms=rooms,
        pools=pools,
        known=known_orders(conn, sorted({wish.order for wish in wishes})),
        void=_void_among(conn, [hold.id for hold in holds]),
        taken=taken,
    )


def _drops(conn: Connection, ids: Sequence[str]) -> dict[str, DropRow]:
    """The drops of locked pools, in a statement after the lock, so that a closing is seen."""
    if not ids:
        return {}
    drops = _T.drops.c
    query = select(drops.id, drops.room, drops.state, drops.limit_per_buyer)
    return {row.id: DropRow(*row[1:]) for row in conn.execute(query.where(drops.id.in_(ids)))}


def _void_among(conn: Connection, holds: Sequence[str]) -> set[str]:
    void = _T.void_holds.c.hold
    return {row.hold for row in rows_among(conn, [void], void, holds)}


def write_plan(conn: Connection, plan: Plan) -> None:
    """Write what was decided: every pool's row must still be as it was read."""
    make_void(conn, plan.at, plan.void)
    if not plan.orders:
        return
    moved = conn.execute(_MOVE, plan.pools).rowcount
    ensure(moved == len(plan.pools), "a locked pool moved under its batch")
    insert_rows(conn, _T.orders, plan.orders)
    insert_rows(conn, _T.order_lines, plan.lines)
    insert_rows(conn, _T.ledger, plan.ledger)
    count_taken(conn, plan.taken)


def make_void(conn: Connection, at: int, holds: Iterable[str]) -> None:
    """Refuse these holds for ever: no transaction after this one places them."""
    rows = [{"hold": hold, "at": at} for hold in holds]
    if rows:
        conn.execute(ledger.MAKE_VOID, rows)


def count_taken(conn: Connection, taken: dict[tuple[str, str], int]) -> None:
    """Count units for buyers, by (pool, buyer). The pools' rows must be locked."""
    counts = _T.buyer_taken.c
    rows = [(*pool_and_buyer, units) for pool_and_buyer, units in sorted(taken.items())]
    add_up(conn, (counts.pool, counts.buyer), counts.units, rows)


def late_refusal(conn: Connection, order: Any, holds: list[Hold]) -> LiveroomError | None:
    """Why an order that is paid late cannot have these holds; pauses do not count here."""
    wish = Wish(
        order=order.id,
        buyer=order.buyer,
        room=order.room,
        content=order.content,
        buy_now=True,
        holds=holds,
    )
    return Tally(read_books(conn, [wish])).refusal_of_stock(wish)


def place_batch(conn: Connection, wishes: Sequence[Wish], pay_within_ms: int) -> Plan:
    """One transaction of the group commit: lock, read, decide, write."""
    plan = decide(wishes, read_books(conn, wishes), pay_within_ms)
    point("order.decided")
    write_plan(conn, plan)
    point("order.written")
    return plan

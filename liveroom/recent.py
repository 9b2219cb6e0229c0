"""A buyer's recent orders in a room and what they wait for there, read for many at once.

Every member who joins is told theirs, and after a lost connection thousands join in the same
moments. So what is asked while a read is under way is read together by the next one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from sqlalchemy import Connection, func, select

from liveroom import shapes
from liveroom.batching import Batcher
from liveroom.deciding import order_of
from liveroom.placing import lines_of
from liveroom.refunding import refunds_of
from liveroom.store import tables
from liveroom.store.database import Database, now_ms
from liveroom.store.waiting import Wish, of_members

RECENT_MS: Final = 3_600_000
OF_BUYER_MAX: Final = 50
OPEN: Final = ("placed", "closing", "refund_pending")

_BATCH_MAX: Final = 256
_WAITING_MAX: Final = 20_000


class _Asked(NamedTuple):
    buyer: str
    room: str


class Own(NamedTuple):
    """What SQL knows of a buyer in a room."""

    orders: Sequence[shapes.Order]
    waits: Sequence[Wish]


class Recent:
    """Orders that are open or changed in the last hour, and places on waitlists."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._asked = Batcher(self._read, size_max=_BATCH_MAX, waiting_max=_WAITING_MAX)

    async def of_buyer(self, buyer: str, room: str) -> Own:
        """The buyer's orders in a room, newest first, at most 50, and what they wait for."""
        return await self._asked.submit(_Asked(buyer, room))

    async def close(self) -> None:
        """Answer what was asked so far."""
        await self._asked.close()

    async def _read(self, asked: Sequence[_Asked]) -> list[Own]:
        def read(conn: Connection) -> list[Own]:
            orders, waits = _of_buyers(conn, asked), of_members(conn, asked)
            return [Own(orders.get(one, ()), waits.get(one, ())) for one in asked]

        return await self._db.read(read)


def _of_buyers(conn: Connection, asked: Sequence[_Asked]) -> dict[_Asked, list[shapes.Order]]:
    """The orders of each who asked and has any; also of one buyer in another's room."""
    orders = tables.orders.c
    recent = orders.changed_at > now_ms(conn) - RECENT_MS
    newest = (orders.placed_at.desc(), orders.id.desc())
    rank = func.row_number().over(partition_by=(orders.buyer, orders.room), order_by=newest)
    ranked = (
        select(tables.orders, rank.label("rank"))
        .where(
            orders.buyer.in_({one.buyer for one in asked}),
            orders.room.in_({one.room for one in asked}),
            orders.state.in_(OPEN) | recent,
        )
        .subquery()
    )
    told = select(ranked).where(ranked.c.rank <= OF_BUYER_MAX).order_by(ranked.c.rank)
    rows = conn.execute(told).all()
    lines = lines_of(conn, [row.id for row in rows]) if rows else {}
    refunds = refunds_of(conn, [row.id for row in rows])
    found: dict[_Asked, list[shapes.Order]] = {}
    for row in rows:
        shown = order_of(row, lines[row.id], refunds=refunds.get(row.id, ()))
        found.setdefault(_Asked(row.buyer, row.room), []).append(shown)
    return found

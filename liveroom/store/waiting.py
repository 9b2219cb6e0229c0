"""Waitlists in SQL: who waits for a pool, in what order, and whether its gate must know.

Functions here run inside somebody's transaction and never await. A list's row is locked by
whoever joins and by whoever closes it, so a list never closes over somebody who joins.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any, Final, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Subquery,
    bindparam,
    case,
    delete,
    func,
    insert,
    select,
    text,
    update,
)

from liveroom.errors import Refused
from liveroom.store import tables
from liveroom.store.database import now_ms

_T = tables
ANY_OPEN: Final = select(_T.waitlists.c.pool).where(_T.waitlists.c.open).exists()
WAITING_MAX: Final = 10_000
"""How many may wait for one pool."""
HEADS_MAX: Final = 100
"""To how many of one pool units are offered at once."""
LISTED_MAX: Final = 1_000
"""How many rows of all pools are looked at together."""


class Waiter(NamedTuple):
    """One who waits: a place in a pool's list, and what was asked.

    `served`: has ordered units of the pool since, so an offer came and was taken.
    """

    pool: str
    place: int
    sku: str
    member: str
    room: str
    qty: int
    bucket: str
    served: bool


class Wish(NamedTuple):
    """Of what SKU somebody waits for how many."""

    sku: str
    qty: int


class Lists(NamedTuple):
    """Those next in open lists, and the lists nobody is in, each with its last place."""

    heads: list[Waiter]
    empty: list[tuple[str, int]]


def join(conn: Connection, *, pool: str, member: str, room: str, qty: int, bucket: str) -> int:
    """Wait for units, or for another number of them in the same place; how many are ahead.

    Raises:
        Refused: `limit_reached`: the member has all the units of this pool that a buyer may
            have, or the list is full.
    """
    conn.execute(_MAKE_LIST, {"pool": pool})
    last = conn.execute(_LOCK_LIST, {"pool": pool}).scalar_one()
    mine = (_T.waiting.c.pool == pool) & (_T.waiting.c.member == member)
    place = conn.scalar(select(_T.waiting.c.place).where(mine))
    if place is not None:
        conn.execute(update(_T.waiting).where(mine).values(qty=qty, room=room, bucket=bucket))
        return _ahead(conn, pool, place)
    ahead = _ahead(conn, pool, last + 1)
    if ahead >= WAITING_MAX or _has_all(conn, pool, member):
        raise Refused("limit_reached")
    # From here on it must succeed.
    _set_list(conn, pool, joined=last + 1, open=True)
    row = {"pool": pool, "place": last + 1, "member": member, "room": room, "qty": qty}
    conn.execute(insert(_T.waiting), row | {"bucket": bucket, "since": now_ms(conn)})
    return ahead


def leave(conn: Connection, *, pool: str, member: str) -> None:
    """Wait no more; whoever does not wait may leave too."""
    conn.execute(delete(_T.waiting).where(_T.waiting.c.pool == pool, _T.waiting.c.member == member))


def of_members(
    conn: Connection, members: Collection[tuple[str, str]]
) -> dict[tuple[str, str], list[Wish]]:
    """What each (member, room) waits for there; who waits for nothing is left out."""
    of, at = zip(*members, strict=True)
    rows = (
        select(_T.waiting.c.member, _T.waiting.c.room, _T.pools.c.sku, _T.waiting.c.qty)
        .join(_T.waitlists, _T.waitlists.c.pool == _T.waiting.c.pool)
        .join(_T.pools, _T.pools.c.pool == _T.waiting.c.pool)
        .where(
            _T.waitlists.c.open, _T.waiting.c.member.in_(set(of)), _T.waiting.c.room.in_(set(at))
        )
        .order_by(_T.pools.c.sku)
    )
    found: dict[tuple[str, str], list[Wish]] = {}
    for member, room, sku, qty in conn.execute(rows):
        found.setdefault((member, room), []).append(Wish(sku, qty))
    return found


def lists(conn: Connection, after: str = "") -> Lists:
    """What a sweep needs of open lists, in order of place.

    Where not all fit, the turn begins with the pool behind `after`, the last one seen. Who
    waits in a room that has paused its sales is passed over until it sells again.
    """
    place = func.row_number().over(partition_by=_T.waiting.c.pool, order_by=_T.waiting.c.place)
    ranked = (
        select(_T.waiting, _T.pools.c.sku, place.label("rank"))
        .join(_T.pools, _T.pools.c.pool == _T.waiting.c.pool)
        .join(_T.rooms, _T.rooms.c.id == _T.waiting.c.room)
        .where(_T.rooms.c.state == "live", ~_T.rooms.c.paused)
        .subquery()
    )
    heads = select(ranked, _ordered_since(ranked)).where(ranked.c.rank <= HEADS_MAX)
    had_its_turn = case((ranked.c.pool > after, 0), else_=1)
    heads = heads.order_by(ranked.c.rank, had_its_turn, ranked.c.pool).limit(LISTED_MAX)
    nobody = ~select(_T.waiting.c.pool).where(_T.waiting.c.pool == _T.waitlists.c.pool).exists()
    empty = select(_T.waitlists.c.pool, _T.waitlists.c.joined).where(_T.waitlists.c.open, nobody)
    return Lists(
        [_waiter(row) for row in conn.execute(heads)],
        [(row.pool, row.joined) for row in conn.execute(empty.limit(LISTED_MAX))],
    )


def over(conn: Connection) -> list[tuple[str, int]]:
    """Places of those who wait in rooms that have closed."""
    rows = (
        select(_T.waiting.c.pool, _T.waiting.c.place)
        .join(_T.rooms, _T.rooms.c.id == _T.waiting.c.room)
        .where(_T.rooms.c.state == "closed")
    )
    return [(row.pool, row.place) for row in conn.execute(rows.limit(LISTED_MAX))]


def done(conn: Connection, places: Iterable[tuple[str, int]]) -> None:
    """These wait no more."""
    rows = [{"b_pool": pool, "b_place": place} for pool, place in sorted(places)]
    if rows:
        conn.execute(_DONE, rows)


def close(conn: Connection, pool: str, joined: int) -> bool:
    """Close a list that nobody is in; false where somebody has joined since `joined`."""
    same = (_T.waitlists.c.pool == pool) & (_T.waitlists.c.joined == joined)
    return conn.execute(update(_T.waitlists).where(same).values(open=False)).rowcount == 1


def _ahead(conn: Connection, pool: str, place: int) -> int:
    before = (_T.waiting.c.pool == pool) & (_T.waiting.c.place < place)
    return conn.scalar(select(func.count()).select_from(_T.waiting).where(before)) or 0


def _has_all(conn: Connection, pool: str, member: str) -> bool:
    return conn.execute(_HAS_ALL, {"pool": pool, "member": member}).first() is not None


def _set_list(conn: Connection, pool: str, **values: Any) -> None:
    conn.execute(update(_T.waitlists).where(_T.waitlists.c.pool == pool).values(**values))


def _ordered_since(waiting: Subquery) -> ColumnElement[bool]:
    lines = _T.orders.join(_T.order_lines, _T.order_lines.c.order == _T.orders.c.id)
    mine = (
        select(_T.orders.c.id)
        .select_from(lines)
        .where(
            _T.orders.c.buyer == waiting.c.member,
            _T.orders.c.placed_at >= waiting.c.since,
            _T.order_lines.c.pool == waiting.c.pool,
        )
    )
    return mine.exists().label("served")


def _waiter(row: Row[Any]) -> Waiter:
    return Waiter(
        row.pool, row.place, row.sku, row.member, row.room, row.qty, row.bucket, bool(row.served)
    )


_MAKE_LIST = text(
    "INSERT INTO waitlists (pool, open, joined) VALUES (:pool, FALSE, 0)"
    " ON CONFLICT (pool) DO NOTHING"
)
_LOCK_LIST = (
    select(_T.waitlists.c.joined).where(_T.waitlists.c.pool == bindparam("pool")).with_for_update()
)
_DONE = delete(_T.waiting).where(
    _T.waiting.c.pool == bindparam("b_pool"), _T.waiting.c.place == bindparam("b_place")
)
_HAS_ALL = (
    select(_T.buyer_taken.c.units)
    .join(_T.pools, _T.pools.c.pool == _T.buyer_taken.c.pool)
    .join(_T.skus, _T.skus.c.id == _T.pools.c.sku)
    .where(
        _T.buyer_taken.c.pool == bindparam("pool"),
        _T.buyer_taken.c.buyer == bindparam("member"),
        _T.buyer_taken.c.units >= _T.skus.c.limit_per_buyer,
    )
)

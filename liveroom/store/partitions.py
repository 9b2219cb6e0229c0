"""The partitions of stock in SQL: how many there are, which a SKU lies in, the fence of each.

Functions here run inside somebody's transaction and never await.
"""

from __future__ import annotations

import zlib
from typing import Final, NamedTuple

from sqlalchemy import Connection, bindparam, select, text, update

from liveroom.store import tables

PARTITIONS_FACT: Final = "stock_partitions"

_T = tables
_MAKE_FENCE = text("INSERT INTO fences (partition, epoch) VALUES (:partition, 0)")
_SET_FACT = text(
    "INSERT INTO facts (name, value) VALUES (:name, :value)"
    " ON CONFLICT (name) DO UPDATE SET value = excluded.value"
)
# Built once: most of what a small statement costs is building it.
_COUNT = select(_T.facts.c.value).where(_T.facts.c.name == PARTITIONS_FACT)
_COUNT_SHARED = _COUNT.with_for_update(read=True)
_FENCES = select(
    _T.fences.c.partition, _T.fences.c.epoch, _COUNT.scalar_subquery().label("parts")
).order_by(_T.fences.c.partition)
_FENCE = select(_T.fences.c.epoch, _T.fences.c.mark).where(
    _T.fences.c.partition == bindparam("part")
)
_FENCE_SHARED = _FENCE.with_for_update(read=True)


class Fence(NamedTuple):
    """A partition's fence in SQL."""

    epoch: int
    mark: str | None


def of_sku(sku: str, parts: int) -> int:
    """The partition of a SKU and of all its drops."""
    return zlib.crc32(sku.encode()) % parts


def count(conn: Connection, *, share: bool = False) -> int:
    """In how many partitions the stock lies; `share` keeps it so until the commit."""
    return int(conn.execute(_COUNT_SHARED if share else _COUNT).scalar() or 1)


def prepare(conn: Connection, parts: int | None = None) -> int:
    """Make the fences of so many partitions, or of as many as there are; how many there are now.

    A changed count moves pools and raises every fence above all of them: a hold of before is
    worth nothing wherever its pool lies now, and no pool's `v` goes back.
    """
    epochs = {row.partition: row.epoch for row in conn.execute(select(_T.fences).with_for_update())}
    before = conn.execute(_COUNT.with_for_update()).scalar()
    parts = parts or int(before or 1)
    for part in range(parts):
        if part not in epochs:
            conn.execute(_MAKE_FENCE, {"partition": part})
    if before == str(parts):
        return parts
    conn.execute(_SET_FACT, {"name": PARTITIONS_FACT, "value": str(parts)})
    above = max(epochs.values(), default=0) + 1
    conn.execute(update(_T.fences).values(epoch=above, mark=None))
    for row in conn.execute(select(_T.pools.c.pool, _T.pools.c.sku)).all():
        moved = update(_T.pools).where(_T.pools.c.pool == row.pool)
        conn.execute(moved.values(partition=of_sku(row.sku, parts)))
    return parts


def fences(conn: Connection) -> list[tuple[int, int]]:
    """The partitions stock lies in, and the epoch of each."""
    rows = conn.execute(_FENCES).all()
    return [(row.partition, row.epoch) for row in rows if row.partition < int(row.parts or 1)]


def fence(conn: Connection, part: int, *, share: bool = False) -> Fence:
    """The partition's fence; `share` locks it against a rebuild until the commit."""
    return Fence(*conn.execute(_FENCE_SHARED if share else _FENCE, {"part": part}).one())


def raise_fence(conn: Connection, part: int, *, seen: int, to: int) -> bool:
    """Raise the epoch from `seen`; false where somebody else raised it. Waits for places."""
    raised = update(_T.fences).where(_T.fences.c.partition == part, _T.fences.c.epoch == seen)
    return conn.execute(raised.values(epoch=to, mark=None)).rowcount == 1


def set_mark(conn: Connection, part: int, *, epoch: int, mark: str | None) -> None:
    """Mark a planned stop of this epoch, or take the mark away."""
    marked = update(_T.fences).where(_T.fences.c.partition == part, _T.fences.c.epoch == epoch)
    conn.execute(marked.values(mark=mark))


def take_mark(conn: Connection, part: int, *, epoch: int, mark: str) -> bool:
    """Whether this mark was there; it is not there any more."""
    taken = update(_T.fences).where(
        _T.fences.c.partition == part, _T.fences.c.epoch == epoch, _T.fences.c.mark == mark
    )
    return conn.execute(taken.values(mark=None)).rowcount == 1

"""The outline of stock: whether anything changed that a gate should know, without reading it.

A catalog has many pools, and in most seconds nothing happens to any of them.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, case, func, select

from liveroom.store import tables
from liveroom.store.fixed import Fixed

_T = tables

Outline = tuple[int | None, ...]
"""Numbers that are others once any gate should know something.

Those of movements, prices, drops and pools only grow, so none is ever hidden. Limits and
waitlists may hide each other: two SKUs that exchange their limits.
"""

_OF_POOLS = select(func.count(), func.sum(_T.pools.c.seq)).select_from(_T.pools).subquery()
_OF_SKUS = select(
    func.sum(_T.skus.c.price_v),
    func.sum(_T.skus.c.price_minor),
    func.count(_T.skus.c.limit_per_buyer),
    func.sum(_T.skus.c.limit_per_buyer),
).subquery()
_OF_DROPS = select(
    func.count(_T.drops.c.limit_per_buyer),
    func.sum(_T.drops.c.limit_per_buyer),
    func.sum(case({"scheduled": 0, "open": 1}, value=_T.drops.c.state, else_=2)),
).subquery()
_OF_WAITLISTS = select(
    func.sum(_T.waitlists.c.joined), func.sum(case((_T.waitlists.c.open, 1), else_=0))
).subquery()
_OUTLINE: Final = Fixed(select(*_OF_POOLS.c, *_OF_SKUS.c, *_OF_DROPS.c, *_OF_WAITLISTS.c))


def read(conn: Connection) -> Outline:
    """The outline of all stock there is."""
    [numbers] = _OUTLINE.all(conn)
    return tuple(numbers)

"""A SKU's ledger as its merchant reads it: every movement, page by page, and what they come to."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from sqlalchemy import Connection, Row, select, tuple_

from liveroom.errors import Invalid
from liveroom.store import tables

_T = tables
_SUMS: Final = ("initial", "adjusted", "reserved", "sold", "seq")


class Movements(msgspec.Struct):
    """A page of a SKU's ledger, with what its pools come to: the sums that must agree."""

    sku: str
    pools: list[dict[str, Any]]
    items: list[dict[str, Any]]
    next: str | None


def page(conn: Connection, sku: str, *, after: str | None, limit: int) -> Movements:
    """A page of the ledger of a SKU's pools, in order of pool and sequence, and the sums.

    `after` is the cursor of the page before: "<pool>:<seq>".
    """
    pools = conn.execute(select(_T.pools).where(_T.pools.c.sku == sku).order_by("pool")).all()
    query = (
        select(_T.ledger)
        .join(_T.pools, _T.pools.c.pool == _T.ledger.c.pool)
        .where(_T.pools.c.sku == sku)
        .order_by(_T.ledger.c.pool, _T.ledger.c.seq)
        .limit(limit + 1)
    )
    if after is not None:
        pool, _, seq = after.rpartition(":")
        if not (seq.isascii() and seq.isdecimal() and len(seq) < 16):
            raise Invalid("bad_argument", "This is no cursor of a ledger.")
        query = query.where(tuple_(_T.ledger.c.pool, _T.ledger.c.seq) > (pool, int(seq)))
    rows = conn.execute(query).mappings().all()
    last = rows[limit - 1] if len(rows) > limit else None
    return Movements(
        sku=sku,
        pools=[_sums(row) for row in pools],
        items=[
            {name: value for name, value in row.items() if value is not None}
            for row in rows[:limit]
        ],
        next=f"{last['pool']}:{last['seq']}" if last is not None else None,
    )


def _sums(row: Row[Any]) -> dict[str, Any]:
    sums = {name: getattr(row, name) for name in _SUMS}
    free = row.initial + row.adjusted - row.reserved - row.sold
    return {"pool": row.pool, **sums, "available": free}

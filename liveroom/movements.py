"""Every movement of a SKU's stock, and the sums that must agree."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, func, select, tuple_

from liveroom.catalog import Page, cursor
from liveroom.errors import Invalid
from liveroom.store import tables
from liveroom.store.database import Database

_SUMS = ("adjusted", "reserved", "sold")


class Movements(Page):
    """A page of ledger rows, oldest first in each pool, with the sums of all pools."""

    sums: list[dict[str, Any]]


async def movements(db: Database, sku: str, *, after: str | None, limit: int) -> Movements:
    """The SKU's ledger in one snapshot; `not_found` where there is no such SKU.

    Each of `sums` tells of one pool what its row says, what its rows of the ledger add up to,
    and whether they agree: initial + adjusted = available + reserved + sold.
    """
    return await db.read(lambda conn: _page(conn, sku, after, limit))


def _page(conn: Connection, sku: str, after: str | None, limit: int) -> Movements:
    pools = conn.execute(select(tables.pools).where(tables.pools.c.sku == sku)).mappings().all()
    if not pools:
        raise Invalid("not_found", "There is no such SKU.", data={"sku": sku})
    names = sorted(pool["pool"] for pool in pools)
    ledger = tables.ledger.c
    query = select(tables.ledger).where(ledger.pool.in_(names))
    if after is not None:
        seq, pool = cursor(after)
        query = query.where(tuple_(ledger.pool, ledger.seq) > tuple_(pool, seq))
    found = conn.execute(query.order_by(ledger.pool, ledger.seq).limit(limit + 1)).mappings().all()
    rows = [{k: v for k, v in row.items() if v is not None} for row in found]
    more = len(rows) > limit
    following = f"{rows[limit - 1]['seq']}.{rows[limit - 1]['pool']}" if more else None
    return Movements(rows[:limit], following, [_sums(conn, dict(pool)) for pool in pools])


def _sums(conn: Connection, pool: dict[str, Any]) -> dict[str, Any]:
    ledger = tables.ledger.c
    adding = select(
        func.count().label("rows"),
        *(func.coalesce(func.sum(ledger[name]), 0).label(name) for name in _SUMS),
    )
    replayed = conn.execute(adding.where(ledger.pool == pool["pool"])).mappings().one()
    replay = {name: int(replayed[name]) for name in ("rows", *_SUMS)}
    available = pool["initial"] + pool["adjusted"] - pool["reserved"] - pool["sold"]
    return {
        "pool": pool["pool"],
        "initial": pool["initial"],
        **{name: pool[name] for name in _SUMS},
        "available": available,
        "seq": pool["seq"],
        "replayed": replay,
        "agree": replay == {"rows": pool["seq"], **{name: pool[name] for name in _SUMS}},
    }

"""Pools and their ledger in SQL: what is true about stock, and what Redis is told of it.

Functions here run inside somebody's transaction and never await. A ledger row is never
changed; a pool's row is its sum. Locks: fences, then pools, then buyers, each sorted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

from sqlalchemy import (
    Connection,
    bindparam,
    case,
    func,
    insert,
    select,
    text,
    update,
)

from liveroom.errors import Invalid, ensure
from liveroom.store import partitions, tables
from liveroom.store.database import now_ms
from liveroom.store.gates import Count, GateRow, HoldRow, Phase, Range, Stuck

_T = tables
TELL_ROWS_MAX: Final = 2_000
VOID_KEPT_MS: Final = 24 * 3600 * 1000
"""A transaction that may place a hold lives for seconds; the rest is for clocks that jump."""

AVAILABLE = _T.pools.c.initial + _T.pools.c.adjusted - _T.pools.c.reserved - _T.pools.c.sold
"""The units of a pool that are free, in SQL."""
_LIMIT = case(
    (_T.pools.c.drop.is_(None), _T.skus.c.limit_per_buyer), else_=_T.drops.c.limit_per_buyer
)


class PoolRow(NamedTuple):
    """Where a pool stands, and what its gate asks of a buyer; a limit of 0 is none.

    `waiting`: only offers may hold.
    """

    pool: str
    sku: str
    drop: str | None
    partition: int
    available: int
    seq: int
    price: int
    price_v: int
    limit: int
    phase: Phase
    waiting: bool


class Resolved(NamedTuple):
    """What became of placing holds past due: ranges to tell, and holds that are void now."""

    placed: list[Range]
    void: list[HoldRow]


def pool_of(sku: str, drop: str | None = None) -> str:
    """The name of a SKU's ordinary stock, or of a drop's."""
    return f"sku:{sku}" if drop is None else f"drop:{drop}"


def create_pool(conn: Connection, *, sku: str, initial: int) -> None:
    """The ordinary stock of a new SKU, in the SKU's own transaction.

    Its gate is made after the commit, by `Inventory.open_pools`, or by whoever first asks.
    """
    row = {
        "pool": pool_of(sku),
        "sku": sku,
        "partition": partitions.of_sku(sku, partitions.count(conn, share=True)),
        "initial": initial,
    }
    conn.execute(insert(_T.pools).values(row))


# ── reading ───────────────────────────────────────────────────────────────────────────────


def pools(conn: Connection, names: Iterable[str] | None = None) -> list[PoolRow]:
    """Those pools, or all, with the price and limit of their SKUs."""
    if names is None:
        return _pool_rows(conn.execute(_POOLS))
    return _pool_rows(conn.execute(_POOLS_NAMED, {"pools": list(names)}))


def pools_in(conn: Connection, part: int) -> list[PoolRow]:
    """The same for all pools of a partition."""
    return _pool_rows(conn.execute(_POOLS_IN, {"part": part}))


def _pool_rows(found: Iterable[Any]) -> list[PoolRow]:
    return [
        PoolRow._make((*asked, phase_of(state), bool(waited_for)))
        for *asked, state, waited_for in found
    ]


def phase_of(state: str | None) -> Phase:
    """What a drop's state is to its gate; ordinary stock has none."""
    if state is None:
        return Phase.ORDINARY
    return {"scheduled": Phase.SCHEDULED, "open": Phase.OPEN}.get(state, Phase.ENDED)


def opening(conn: Connection, part: int) -> tuple[list[GateRow], list[Count]]:
    """What a rebuild writes: a gate for each pool, and counts for those with a limit."""
    rows = pools_in(conn, part)
    counts = (
        select(
            _T.buyer_taken.c.pool, _T.buyer_taken.c.buyer, _T.pools.c.seq, _T.buyer_taken.c.units
        )
        .join(_T.pools, _T.pools.c.pool == _T.buyer_taken.c.pool)
        .join(_T.skus, _T.skus.c.id == _T.pools.c.sku)
        .outerjoin(_T.drops, _T.drops.c.id == _T.pools.c.drop)
        .where(_T.pools.c.partition == part, _LIMIT.is_not(None))
        .where(_T.buyer_taken.c.units > 0)
    )
    return [gate_of(row) for row in rows], [Count(*row) for row in conn.execute(counts)]


def gate_of(row: PoolRow) -> GateRow:
    """The gate of a pool that nobody holds anything of."""
    return GateRow(
        pool=row.pool,
        base=row.available,
        seq=row.seq,
        price=row.price,
        price_v=row.price_v,
        limit=row.limit or None,
        phase=row.phase,
        waiting=row.waiting,
    )


def since(conn: Connection, pool: str, seq: int) -> Range | None:
    """What a gate that stands on `seq` lacks, at most TELL_ROWS_MAX rows of it."""
    rows = conn.execute(
        select(_T.ledger.c.seq, _T.ledger.c.available_after, _T.ledger.c.hold)
        .where(_T.ledger.c.pool == pool, _T.ledger.c.seq > seq)
        .order_by(_T.ledger.c.seq)
        .limit(TELL_ROWS_MAX)
    ).all()
    return _range(pool, *rows) if rows else None


def counts_of(conn: Connection, ranges: Iterable[Range]) -> list[Count]:
    """What the buyers of the orders in these ranges have taken by now."""
    return [
        Count(*row)
        for told in ranges
        for row in conn.execute(
            _COUNTS, {"pool": told.pool, "from": told.from_seq, "to": told.to_seq}
        )
    ]


def counts_in(conn: Connection, pool: str) -> list[Count]:
    """What every buyer has taken of a pool by now."""
    query = (
        select(
            _T.buyer_taken.c.pool, _T.buyer_taken.c.buyer, _T.pools.c.seq, _T.buyer_taken.c.units
        )
        .join(_T.pools, _T.pools.c.pool == _T.buyer_taken.c.pool)
        .where(_T.buyer_taken.c.pool == pool, _T.buyer_taken.c.units > 0)
    )
    return [Count(*row) for row in conn.execute(query)]


def is_placed(conn: Connection, order: str) -> bool:
    """Whether this order is on record."""
    known = select(_T.orders.c.id).where(_T.orders.c.id == order)
    return conn.execute(known).first() is not None


def currencies(conn: Connection, skus: Iterable[str]) -> dict[str, str]:
    """The currency of each of the SKUs that exist."""
    query = (
        select(_T.skus.c.id, _T.products.c.currency)
        .join(_T.products, _T.products.c.id == _T.skus.c.product)
        .where(_T.skus.c.id.in_(list(skus)))
    )
    return {row.id: row.currency for row in conn.execute(query)}


# ── moving ────────────────────────────────────────────────────────────────────────────────


def adjust(
    conn: Connection,
    *,
    pool: str,
    units: int,
    kind: str,
    operation: str,
    why: str | None,
    hold: str | None = None,
    epoch: int = 0,
) -> Range | None:
    """Add units to a pool, or take away those that `hold` holds. Happens once an operation.

    Returns:
        The ledger row to tell, the first one where the operation was carried out before; none
        where the hold is void or of another epoch: then nothing was changed.

    Raises:
        Invalid: `not_found`, there is no such pool; `id_reused`, the operation did something
            else before.
    """
    part = conn.execute(select(_T.pools.c.partition).where(_T.pools.c.pool == pool)).scalar()
    if part is None:
        raise Invalid("not_found", "There is no such stock.", data={"pool": pool})
    now_epoch = partitions.fence(conn, part, share=True).epoch
    row = conn.execute(LOCK_POOLS, {"pools": [pool]}).one()
    before = done(conn, pool, operation, kind=kind, units=units)
    if before is not None:
        return before
    if hold is not None and (now_epoch != epoch or conn.execute(IS_VOID, {"hold": hold}).first()):
        return None
    after = row.available + units
    ensure(after >= 0, f"{pool}: a reduction is more than what is free")
    # From here on it must succeed.
    moved = update(_T.pools).where(_T.pools.c.pool == pool, _T.pools.c.seq == row.seq)
    moved = moved.values(adjusted=_T.pools.c.adjusted + units, seq=row.seq + 1)
    ensure(conn.execute(moved).rowcount == 1, f"{pool}: a locked pool moved")
    entry = {
        "pool": pool,
        "seq": row.seq + 1,
        "at": now_ms(conn),
        "kind": kind,
        "adjusted": units,
        "available_after": after,
        "hold": hold,
        "operation": operation,
        "why": why,
    }
    conn.execute(insert(_T.ledger).values(entry))
    return Range(pool, row.seq + 1, row.seq + 1, after, [hold] if hold else [])


def done(conn: Connection, pool: str, operation: str, *, kind: str, units: int) -> Range | None:
    """The ledger row of an operation that was carried out before.

    Raises:
        Invalid: `id_reused`: it did something else.
    """
    row = conn.execute(_BY_OPERATION, {"pool": pool, "operation": operation}).one_or_none()
    if row is None:
        return None
    if (row.kind, row.adjusted) != (kind, units):
        raise Invalid("id_reused")
    return _range(pool, row)


def resolve(conn: Connection, stuck: Sequence[Stuck]) -> Resolved:
    """Decide placing holds past due: what the ledger has is placed, the rest is void for ever.

    A hold that was open while its gate stood on a ledger row was placed by a later row, or
    not at all.
    """
    since: dict[str, int] = {}
    for hold, seq in stuck:
        since[hold.pool] = min(seq, since.get(hold.pool, seq))
    conn.execute(LOCK_POOLS, {"pools": sorted(since)}).all()
    rows = {
        row.hold: (pool, row)
        for pool, seq in sorted(since.items())
        for row in conn.execute(_HOLDS_SINCE, {"pool": pool, "seq": seq})
    }
    placed = [_range(*rows[hold.id]) for hold, _ in stuck if hold.id in rows]
    void = [hold for hold, _ in stuck if hold.id not in rows]
    if void:
        at = now_ms(conn)
        conn.execute(MAKE_VOID, [{"hold": hold.id, "at": at} for hold in void])
    return Resolved(placed, void)


def old_void(conn: Connection, *, limit: int) -> list[str]:
    """Void holds that no transaction can still want to place, at most `limit`."""
    old = _T.void_holds.c.at < now_ms(conn) - VOID_KEPT_MS
    return list(conn.execute(select(_T.void_holds.c.hold).where(old).limit(limit)).scalars())


def forget_void(conn: Connection, holds: Sequence[str]) -> None:
    """Delete void holds that `old_void` has named."""
    conn.execute(_T.void_holds.delete().where(_T.void_holds.c.hold.in_(holds)))


def _range(pool: str, *rows: Any) -> Range:
    holds = [row.hold for row in rows if row.hold is not None]
    return Range(pool, rows[0].seq, rows[-1].seq, rows[-1].available_after, holds)


MAKE_VOID = text(
    "INSERT INTO void_holds (hold, at) VALUES (:hold, :at) ON CONFLICT (hold) DO NOTHING"
)
"""A hold that may never be placed again; making it so twice does nothing."""
# Built once: most of what a small statement costs is building it.
_POOLS = (
    select(
        _T.pools.c.pool,
        _T.pools.c.sku,
        _T.pools.c.drop,
        _T.pools.c.partition,
        AVAILABLE,
        _T.pools.c.seq,
        func.coalesce(_T.drops.c.price_minor, _T.skus.c.price_minor),
        case((_T.pools.c.drop.is_(None), _T.skus.c.price_v), else_=0),
        func.coalesce(_LIMIT, 0),
        _T.drops.c.state,
        _T.waitlists.c.open,
    )
    .join(_T.skus, _T.skus.c.id == _T.pools.c.sku)
    .outerjoin(_T.drops, _T.drops.c.id == _T.pools.c.drop)
    .outerjoin(_T.waitlists, _T.waitlists.c.pool == _T.pools.c.pool)
)
_POOLS_NAMED = _POOLS.where(_T.pools.c.pool.in_(bindparam("pools", expanding=True)))
_POOLS_IN = _POOLS.where(_T.pools.c.partition == bindparam("part"))
LOCK_POOLS = (
    select(_T.pools.c.pool, _T.pools.c.seq, AVAILABLE.label("available"))
    .where(_T.pools.c.pool.in_(bindparam("pools", expanding=True)))
    .order_by(_T.pools.c.pool)
    .with_for_update()
)
_HOLDS_SINCE = select(_T.ledger.c.seq, _T.ledger.c.available_after, _T.ledger.c.hold).where(
    _T.ledger.c.pool == bindparam("pool"),
    _T.ledger.c.seq > bindparam("seq"),
    _T.ledger.c.hold.is_not(None),
)
_BY_OPERATION = select(_T.ledger).where(
    _T.ledger.c.pool == bindparam("pool"), _T.ledger.c.operation == bindparam("operation")
)
IS_VOID = select(_T.void_holds.c.hold).where(_T.void_holds.c.hold == bindparam("hold"))
_COUNTS = (
    select(_T.buyer_taken.c.pool, _T.buyer_taken.c.buyer, _T.pools.c.seq, _T.buyer_taken.c.units)
    .distinct()
    .select_from(_T.ledger)
    .join(_T.orders, _T.orders.c.id == _T.ledger.c.order)
    .join(_T.pools, _T.pools.c.pool == _T.ledger.c.pool)
    .join(
        _T.buyer_taken,
        (_T.buyer_taken.c.pool == _T.ledger.c.pool) & (_T.buyer_taken.c.buyer == _T.orders.c.buyer),
    )
    .where(
        _T.ledger.c.pool == bindparam("pool"),
        _T.ledger.c.seq.between(bindparam("from"), bindparam("to")),
    )
)

"""Units that move from one pool of a SKU to another: a drop is carved out, what is left returns.

Each is two ledger rows of one transaction, which cancel out over the SKU. Nothing here awaits.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, insert, select, update

from liveroom.errors import ensure
from liveroom.store import ledger, partitions, tables
from liveroom.store.database import now_ms
from liveroom.store.holds import Told

_T = tables


def move_units(
    conn: Connection,
    *,
    source: str,
    target: str,
    units: int,
    kind: str,
    hold: str,
    epoch: int,
    why: str | None = None,
) -> list[Told] | None:
    """Move units that `hold` holds at the gate of `source`. Happens once for each hold.

    Returns:
        What to tell both gates; none where the hold is void or of another epoch: then nothing
        was changed.
    """
    ensure(units > 0, "a transfer moves units")
    part = conn.execute(select(_T.pools.c.partition).where(_T.pools.c.pool == source)).scalar_one()
    now_epoch = partitions.fence(conn, part, share=True).epoch
    names = [source, target]
    rows = {row.pool: row for row in conn.execute(ledger.LOCK_POOLS, {"pools": sorted(names)})}
    ensure(len(rows) == len(names), f"{source} or {target} is gone")
    void = conn.execute(ledger.IS_VOID, {"hold": hold}).first() is not None
    if now_epoch != epoch or void:
        return None
    ensure(rows[source].available >= units, f"{source}: a transfer is more than what is free")
    # From here on it must succeed.
    entry = {"at": now_ms(conn), "kind": kind, "operation": hold, "why": why}
    return [
        _count(conn, rows[source], -units, entry | {"hold": hold}),
        _count(conn, rows[target], units, entry | {"hold": None}),
    ]


def _count(conn: Connection, row: Any, units: int, entry: dict[str, Any]) -> Told:
    """Count units in or out of a locked pool."""
    seq, after = row.seq + 1, row.available + units
    moved = update(_T.pools).where(_T.pools.c.pool == row.pool, _T.pools.c.seq == row.seq)
    moved = moved.values(adjusted=_T.pools.c.adjusted + units, seq=seq)
    ensure(conn.execute(moved).rowcount == 1, f"{row.pool}: a locked pool moved")
    counted = {"pool": row.pool, "seq": seq, "adjusted": units, "available_after": after}
    conn.execute(insert(_T.ledger), entry | counted)
    holds = [entry["hold"]] if entry["hold"] is not None else []
    return Told(pool=row.pool, from_seq=seq, to_seq=seq, available_after=after, holds=holds)

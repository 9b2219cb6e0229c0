"""Flash drops in SQL: each arrow of their table is one transaction here.

Locks as everywhere (fences, rooms, pools), a drop's own row before them. Functions here run
inside somebody's transaction and never await.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

import msgspec
from sqlalchemy import Connection, Row, insert, select, text, update

from liveroom import drawing, shapes
from liveroom.errors import Invalid, Refused, ensure
from liveroom.inventory import Hold, Told
from liveroom.states import move
from liveroom.store import ledger, partitions, tables
from liveroom.store.database import now_ms
from liveroom.store.fixed import Fixed
from liveroom.store.transfers import move_units

DROPS_MAX: Final = 20
"""How many drops of a room may be scheduled or open at once."""
DUE_MAX: Final = 100
LIVE: Final = ("scheduled", "open")

_T = tables
_UNTOLD = select(_T.drops.c.id).where(text("told <> state"))
_ENDED_WITH_UNITS = (
    select(_T.drops)
    .join(_T.pools, _T.pools.c.drop == _T.drops.c.id)
    .where(text(f"pools.{tables.DROP_FREE}"), _T.drops.c.state.not_in(LIVE))
)
_KEPT = (
    select(
        _T.drops.c.id,
        _T.drops.c.state,
        _T.drops.c.opens_at,
        _T.drops.c.closes_at,
        _T.rooms.c.state,
    )
    .join(_T.rooms, _T.rooms.c.id == _T.drops.c.room)
    .where(text(f"drops.{tables.DROP_LIVE}"))
)
_ALL_KEPT = Fixed(_KEPT)
ANY_TO_MEND: Final = _UNTOLD.exists() | _ENDED_WITH_UNITS.exists()


class NewDrop(msgspec.Struct, frozen=True, kw_only=True):
    """A drop that a host wants: so many units of a SKU at a price, from then, so long."""

    room: str
    sku: str
    quantity: int
    price_minor: int
    opens_in_ms: int
    lasts_ms: int
    limit_per_buyer: int | None = None
    admission: str = "first"


class Carved(NamedTuple):
    """A new drop, and what to tell the gates."""

    drop: Row[Any]
    told: list[Told]


class Due(NamedTuple):
    """A drop whose time has come, and for which state."""

    drop: str
    state: str


def drop_of(row: Row[Any], state: str | None = None) -> shapes.Drop:
    """The drop of a row, as it was in an earlier `state` where one is given."""
    now = row.state if state is None else state
    drawn, ended = row.admission == "draw", now == "closed"
    return shapes.Drop(
        id=row.id,
        sku=row.sku,
        quantity=row.quantity,
        price_minor=row.price_minor,
        opens_at=row.opens_at,
        closes_at=row.closes_at,
        state=now,
        limit_per_buyer=row.limit_per_buyer,
        admission=row.admission,
        seed_hash=drawing.seed_hash(row.seed) if drawn else None,
        seed=row.seed if drawn and ended else None,
        entries=row.entries if drawn and now in ("open", "closed") else None,
        entries_digest=row.entries_digest if drawn and ended else None,
    )


# ── looking ───────────────────────────────────────────────────────────────────────────────


def find(conn: Connection, drop: str, room: str | None = None) -> Row[Any]:
    """The drop, of this room where one is given, or `not_found`."""
    row = conn.execute(select(_T.drops).where(_T.drops.c.id == drop)).first()
    if row is None or room not in (None, row.room):
        raise Invalid("not_found", "There is no such drop.", data={"drop": drop})
    return row


def of_rooms(conn: Connection, rooms: Iterable[str]) -> list[Row[Any]]:
    """The drops of these rooms that are scheduled or open, in order of opening."""
    drops = _T.drops.c
    query = select(_T.drops).where(drops.room.in_(list(rooms)), drops.state.in_(LIVE))
    return list(conn.execute(query.order_by(drops.opens_at, drops.id)))


def facts(conn: Connection, ids: Iterable[str]) -> dict[str, Row[Any]]:
    """Those of the drops that there are."""
    query = select(_T.drops).where(_T.drops.c.id.in_(list(ids)))
    return {row.id: row for row in conn.execute(query)}


def due(conn: Connection, drop: str | None = None) -> tuple[list[Due], int | None]:
    """Drops (or that drop) whose time has come, and how many ms are left until the next one's.

    What a closed room has left is due at once.
    """
    if drop is None:
        rows = _ALL_KEPT.all(conn)
    else:
        rows = list(conn.execute(_KEPT.where(_T.drops.c.id == drop)))
    at = now_ms(conn) if rows else 0
    found: list[Due] = []
    waits: list[int] = []
    for one, state, opens_at, closes_at, room in rows:
        time = opens_at if state == "scheduled" else closes_at
        if room == "closed":
            found.append(Due(one, "cancelled" if state == "scheduled" else "closed"))
        elif time <= at:
            found.append(Due(one, "open" if state == "scheduled" else "closed"))
        else:
            waits.append(time - at)
    return found[:DUE_MAX], min(waits, default=None)


def untold(conn: Connection) -> list[str]:
    """Drops whose gate or room may not know of their state."""
    return list(conn.scalars(_UNTOLD.limit(DUE_MAX)))


def ended_with_units(conn: Connection) -> list[Row[Any]]:
    """Drops that have ended and have units that no order has."""
    return list(conn.execute(_ENDED_WITH_UNITS.limit(DUE_MAX)))


# ── the arrows ────────────────────────────────────────────────────────────────────────────


def refuse_unless_fit(conn: Connection, new: NewDrop, *, lock: bool = False) -> None:
    """`not_open` in a closed room, `not_found` off its shelf, `bad_argument` if it has enough.

    `lock` keeps the room as it is until the commit.
    """
    room = select(_T.rooms.c.state).where(_T.rooms.c.id == new.room)
    state = conn.scalar(room.with_for_update(read=True) if lock else room)
    if state is None:
        raise Invalid("not_found", "There is no such room.", data={"room": new.room})
    if state == "closed":
        raise Refused("not_open", "This room has closed.")
    shelf = select(_T.shelf.c.state).join(_T.skus, _T.skus.c.product == _T.shelf.c.product)
    if conn.scalar(shelf.where(_T.shelf.c.room == new.room, _T.skus.c.id == new.sku)) is None:
        raise Invalid("not_found", "It is not on this shelf.", data={"sku": new.sku})
    if len(of_rooms(conn, [new.room])) >= DROPS_MAX:
        raise Invalid("bad_argument", f"A room has at most {DROPS_MAX} drops at once.")


def first_of(conn: Connection, new: NewDrop, operation: str) -> Row[Any] | None:
    """The drop that this operation has scheduled before.

    Raises:
        Invalid: `id_reused`: it was another drop.
    """
    row = conn.execute(select(_T.drops).where(_T.drops.c.operation == operation)).first()
    if row is None:
        return None
    asked = (new.room, new.sku, new.quantity, new.price_minor, new.limit_per_buyer, new.admission)
    was = (row.room, row.sku, row.quantity, row.price_minor, row.limit_per_buyer, row.admission)
    if asked != was:
        raise Invalid("id_reused")
    return row


def carve(
    conn: Connection, new: NewDrop, *, drop: str, hold: Hold, operation: str
) -> Carved | None:
    """A scheduled drop, with the held units in a pool of its own. Once for each operation.

    None where the hold is void or of another epoch: then nothing was changed.

    Raises:
        Refused, Invalid: see `refuse_unless_fit` and `first_of`.
    """
    source = ledger.pool_of(new.sku)
    pools = _T.pools.c
    part = conn.execute(select(pools.partition).where(pools.pool == source)).scalar_one()
    partitions.fence(conn, part, share=True)
    refuse_unless_fit(conn, new, lock=True)
    conn.execute(ledger.LOCK_POOLS, {"pools": [source]}).all()
    first = first_of(conn, new, operation)
    if first is not None:
        return Carved(first, [])
    at = now_ms(conn)
    opens_at = at + new.opens_in_ms
    row: dict[str, Any] = {"id": drop, "room": new.room, "sku": new.sku, "state": "scheduled"}
    row |= {"quantity": new.quantity, "price_minor": new.price_minor, "told": ""}
    row |= {"limit_per_buyer": new.limit_per_buyer, "admission": new.admission}
    row |= {"seed": drawing.new_seed() if new.admission == "draw" else None, "entries": 0}
    row |= {"opens_at": opens_at, "closes_at": opens_at + new.lasts_ms, "operation": operation}
    conn.execute(insert(_T.drops), row | {"created_at": at, "changed_at": at})
    target = ledger.pool_of(new.sku, drop)
    pool = {"pool": target, "sku": new.sku, "drop": drop, "partition": part, "initial": 0}
    conn.execute(insert(_T.pools), pool)
    told = move_units(
        conn,
        source=source,
        target=target,
        units=new.quantity,
        kind="carve",
        hold=hold.id,
        epoch=hold.epoch,
        why=drop,
    )
    if told is None:
        conn.execute(_T.pools.delete().where(pools.pool == target))
        conn.execute(_T.drops.delete().where(_T.drops.c.id == drop))
        return None
    return Carved(find(conn, drop), told)


def change(conn: Connection, wanted: Due, *, room: str | None = None, early: bool = False) -> bool:
    """Move a drop to the wanted state; whether it did.

    A move whose time has not come changes nothing, unless it comes `early`, by hand, in the
    drop's own `room`.

    Raises:
        Invalid: by hand only: `not_found`, `illegal_transition`.
    """
    drops = _T.drops.c
    locked = select(_T.drops).where(drops.id == wanted.drop).with_for_update()
    row = conn.execute(locked).first()
    if early and (row is None or row.room != room):
        raise Invalid("not_found", "There is no such drop.", data={"drop": wanted.drop})
    if row is None:
        return False
    if early:
        move("drop", row.state, wanted.state)
    elif wanted not in due(conn, row.id)[0]:
        return False
    # From here on it must succeed.
    at = now_ms(conn)
    values: dict[str, Any] = {"state": move("drop", row.state, wanted.state), "changed_at": at}
    if wanted.state == "open" and row.seed is not None:
        values["entries"], values["entries_digest"] = drawing.draw(
            conn, row.id, row.seed, row.quantity
        )
    if wanted.state == "closed":
        values["closes_at"] = min(row.closes_at, at)
        # Waits for the orders under way: after this commit none is bought in the drop.
        conn.execute(ledger.LOCK_POOLS, {"pools": [ledger.pool_of(row.sku, row.id)]}).all()
    moved = update(_T.drops).where(drops.id == row.id, drops.state == row.state).values(values)
    ensure(conn.execute(moved).rowcount == 1, "a locked drop moved")
    return True


def note_told(conn: Connection, drop: str, state: str) -> None:
    """Gate and room know of this state, unless the drop has moved on."""
    drops = _T.drops.c
    told = update(_T.drops).where(drops.id == drop, drops.state == state)
    conn.execute(told.values(told=state))

"""Rooms and their shelves as SQL has them: functions inside somebody's transaction.

A shelf is written whole. `v` grows with each change of a room or its shelf; whoever changes
one locks the room's row first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec
from sqlalchemy import Connection, Row, case, delete, insert, select, tuple_, update

from liveroom import shapes
from liveroom.buckets import Source, stamp
from liveroom.catalog import Page, products_by_id
from liveroom.errors import Invalid
from liveroom.store import tables
from liveroom.store.database import Database


class OnSale(NamedTuple):
    """What a room sells now, with what its sales are owed to.

    `selling` has for each SKU of the shelf whether it is `on` or `visible`, `pins` for each
    that is pinned the position of its pin.
    """

    room: shapes.Room
    selling: Mapping[str, str]
    pins: Mapping[str, str]

    def bucket(self, sku: str, source: Source | None) -> str:
        """The bucket of what is held of this SKU now."""
        return stamp(self.room.host, self.room.host_roles, self.pins.get(sku, ""), source)


class Facts(msgspec.Struct):
    """A room and its shelf (what is `off` left out) as SQL had them at one moment.

    `pinned` has for each product, oldest pin first, the seq of the event that pinned it, or 0.
    """

    room: shapes.Room
    shelf: list[shapes.Product]
    pinned: dict[str, int]
    pinned_epoch: str | None

    @property
    def selling(self) -> dict[str, str]:
        """For each SKU of the shelf whether it is `on` or `visible`."""
        return {sku.id: product.state or "on" for product in self.shelf for sku in product.skus}

    @property
    def pins(self) -> dict[str, str]:
        """For each SKU of the shelf that is pinned, the position of its pin."""
        return {
            sku.id: f"{self.pinned_epoch}:{self.pinned[product.id]}"
            for product in self.shelf
            if self.pinned.get(product.id)
            for sku in product.skus
        }

    @property
    def on_sale(self) -> OnSale:
        """What the room sells, by these facts."""
        return OnSale(self.room, self.selling, self.pins)


def facts(conn: Connection, room: str) -> Facts:
    """The room, its visible shelf and its pins in one snapshot, or `not_found`."""
    row = _row(conn, room)
    entries = [entry for entry in entries_of(conn, room) if entry[1] != "off"]
    products = products_by_id(conn, [product for product, _ in entries])
    shelf = [
        msgspec.structs.replace(products[product], position=position, state=state)
        for position, (product, state) in enumerate(entries, start=1)
    ]
    at = row.pinned_at or {}
    pinned = {product: at.get(product, 0) for product in row.pinned}
    return Facts(_shape(conn, row), shelf, pinned, row.pinned_epoch)


def _row(conn: Connection, room: str) -> Row[Any]:
    row = conn.execute(select(tables.rooms).where(tables.rooms.c.id == room)).first()
    if row is None:
        raise Invalid("not_found", "There is no such room.", data={"room": room})
    return row


def locked(db: Database, conn: Connection, room: str) -> Row[Any]:
    """The room's row, locked until the commit, or `not_found`."""
    row = conn.execute(db.lock(select(tables.rooms).where(tables.rooms.c.id == room))).first()
    if row is None:
        raise Invalid("not_found", "There is no such room.", data={"room": room})
    return row


def change(conn: Connection, row: Row[Any], **values: Any) -> shapes.Room:
    """Write `values` with the room's next `v`; the room as it is then."""
    named = update(tables.rooms).where(tables.rooms.c.id == row.id)
    conn.execute(named.values(**values, v=row.v + 1))
    return show(conn, row.id)


def show(conn: Connection, room: str) -> shapes.Room:
    """The room, or `not_found`."""
    return _shape(conn, _row(conn, room))


def _shape(conn: Connection, row: Row[Any]) -> shapes.Room:
    return _shaped(row, _hosts(conn, [row.host]))


class _Host(NamedTuple):
    """What a room tells of its host."""

    name: str | None
    roles: list[str]


def _shaped(row: Row[Any], hosts: dict[str, _Host]) -> shapes.Room:
    host = hosts.get(row.host, _Host(None, []))
    return shapes.Room(
        id=row.id,
        title=row.title,
        host=row.host,
        host_name=host.name,
        host_roles=host.roles,
        shop=row.shop,
        state=row.state,
        v=row.v,
        stream=None if row.stream is None else shapes.Stream(**row.stream),
        opened_at=row.opened_at,
        closed_at=row.closed_at,
        paused=row.paused,
        **row.settings,
    )


def _hosts(conn: Connection, ids: Sequence[str]) -> dict[str, _Host]:
    """Those of the hosts who are creators, with the roles they hold now, sorted."""
    creators, held = tables.creators, tables.creator_roles
    now = (held.c.creator == creators.c.id) & held.c.until.is_(None)
    query = select(creators.c.id, creators.c.name, held.c.role).outerjoin(held, now)
    found: dict[str, _Host] = {}
    for row in conn.execute(query.where(creators.c.id.in_(ids)).order_by(held.c.role)):
        host = found.setdefault(row.id, _Host(row.name, []))
        if row.role is not None:
            host.roles.append(row.role)
    return found


def exists(conn: Connection, table: Any, row_id: str) -> bool:
    """Whether the table has a row of that id."""
    return conn.scalar(select(table.c.id).where(table.c.id == row_id)) is not None


def entries_of(conn: Connection, room: str) -> list[tuple[str, str]]:
    """The products of a shelf in order, each with its state."""
    shelf = tables.shelf
    entries = select(shelf.c.product, shelf.c.state).where(shelf.c.room == room)
    found = conn.execute(entries.order_by(shelf.c.position))
    return [(product, state) for product, state in found]


def write_shelf(conn: Connection, room: str, entries: Sequence[tuple[str, str]]) -> None:
    """Write the whole shelf anew, in this order."""
    conn.execute(delete(tables.shelf).where(tables.shelf.c.room == room))
    rows = [
        {"room": room, "product": product, "position": position, "state": state}
        for position, (product, state) in enumerate(entries, start=1)
    ]
    if rows:
        conn.execute(insert(tables.shelf), rows)


def rooms_of(conn: Connection, host: str) -> list[str]:
    """The host's rooms that have not closed, sorted."""
    rooms = tables.rooms.c
    mine = select(rooms.id).where(rooms.host == host, rooms.state != "closed")
    return list(conn.scalars(mine.order_by(rooms.id)))


def rooms_showing(conn: Connection, sku: str) -> list[str]:
    """The rooms not closed whose shelf has the product of the SKU, whatever its state there."""
    shelf, skus, rooms = tables.shelf, tables.skus, tables.rooms
    showing = select(shelf.c.room).join(skus, skus.c.product == shelf.c.product)
    open_ones = showing.join(rooms, rooms.c.id == shelf.c.room).where(rooms.c.state != "closed")
    return list(conn.scalars(open_ones.where(skus.c.id == sku)))


def untold_prices(conn: Connection, sku: str, told: dict[str, int]) -> list[tuple[Facts, int]]:
    """The open rooms that show the SKU and were not told the price in force."""
    price = conn.scalar(select(tables.skus.c.price_minor).where(tables.skus.c.id == sku))
    if price is None:
        return []
    rooms = [room for room in rooms_showing(conn, sku) if told.get(room) != price]
    return [(facts(conn, room), price) for room in rooms]


_RANK: Final = {"live": 0, "planned": 1, "closed": 2}


def page_of(conn: Connection, state: str | None, after: str | None, limit: int) -> Page:
    """A page of rooms: live, planned, closed, each newest first; `after` is a page's `next`."""
    table = tables.rooms
    rank = case(_RANK, value=table.c.state, else_=3)
    query = select(table, rank.label("rank"))
    if state is not None:
        query = query.where(table.c.state == state)
    if after is not None:
        query = query.where(_beyond(rank, after))
    ordered = query.order_by(rank, table.c.created_at.desc(), table.c.id.desc())
    rows = conn.execute(ordered.limit(limit + 1)).all()
    hosts = _hosts(conn, [row.host for row in rows])
    last = rows[limit - 1] if len(rows) > limit else None
    following = f"{last.rank}.{last.created_at}.{last.id}" if last else None
    return Page([_shaped(row, hosts) for row in rows[:limit]], following)


def _beyond(rank: Any, after: str) -> Any:
    parts = after.split(".", 2)
    if len(parts) < 3 or not all(p.isdecimal() and p.isascii() and len(p) < 16 for p in parts[:2]):
        raise Invalid("bad_argument", "This cursor is none of ours.")
    table, at = tables.rooms, (int(parts[1]), parts[2])
    same = (rank == int(parts[0])) & (tuple_(table.c.created_at, table.c.id) < tuple_(*at))
    return (rank > int(parts[0])) | same

"""Creators, the roles they hold for a time, their notes and their fans.

A role (buyer, manager, clerk) is dated and never overwritten: changing roles ends rows and
begins others, so that notes, fans and sales keep the role of their day.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec
from sqlalchemy import Connection, RowMapping, delete, func, insert, select, update

from liveroom import shapes
from liveroom.catalog import SHOWN, Name, Page, Tags, Title, insert_new, page
from liveroom.errors import Invalid
from liveroom.ids import Id, new_id
from liveroom.store import tables
from liveroom.store.database import Database, now_ms

Role = Literal["buyer", "manager", "clerk"]
Roles = Annotated[list[Role], msgspec.Meta(max_length=3)]
Text = Annotated[str, msgspec.Meta(min_length=1, max_length=10_000, pattern=SHOWN)]
Products = Annotated[list[Id], msgspec.Meta(max_length=50)]


class NewCreator(msgspec.Struct, kw_only=True):
    """The body that creates a creator."""

    name: Name
    id: Id | None = None
    roles: Roles = []


class CreatorChange(msgspec.Struct, kw_only=True):
    """The body that changes a creator; `roles` are those held from now on."""

    name: Name | None = None
    roles: Roles | None = None


class NewNote(msgspec.Struct, kw_only=True):
    """The body that writes a note."""

    creator: Id
    title: Title
    text: Text
    id: Id | None = None
    products: Products = []
    needs: Tags = []


class NoteChange(msgspec.Struct, kw_only=True):
    """The body that changes a note."""

    title: Title | None = None
    text: Text | None = None
    products: Products | None = None
    needs: Tags | None = None


class Creators:
    """The creators' rows. Nothing here knows of rooms or of who is asking."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def create(self, new: NewCreator) -> shapes.Creator:
        """A new creator with roles from now on; `id_reused` when the id is taken."""
        creator_id = new.id or new_id()

        def write(conn: Connection) -> shapes.Creator:
            at = now_ms(conn)
            row = {"id": creator_id, "name": new.name, "created_at": at}
            insert_new(conn, tables.creators, row)
            _hold_roles(conn, creator_id, new.roles, at)
            _grow_rooms(conn, creator_id)
            return _creator(conn, creator_id)

        return await self._db.write(write)

    async def change(self, creator_id: str, change: CreatorChange) -> shapes.Creator:
        """The creator as changed, or `not_found`. Roles left out of `roles` end now.

        The `v` of the creator's open rooms grows with it; `Rooms.host_changed` tells them.
        """

        def write(conn: Connection) -> shapes.Creator:
            _creator(conn, creator_id)
            if change.name is not None:
                named = update(tables.creators).where(tables.creators.c.id == creator_id)
                conn.execute(named.values(name=change.name))
            if change.roles is not None:
                _hold_roles(conn, creator_id, change.roles, now_ms(conn))
            _grow_rooms(conn, creator_id)
            return _creator(conn, creator_id)

        return await self._db.write(write)

    async def show(self, creator_id: str) -> shapes.Creator:
        """The creator, or `not_found`."""
        return await self._db.read(lambda conn: _creator(conn, creator_id))

    async def creators(self, *, after: str | None, limit: int) -> Page:
        """All creators, newest first."""
        return await self._db.read(
            lambda conn: page(
                conn,
                select(tables.creators),
                tables.creators,
                after=after,
                limit=limit,
                make=lambda rows: _creators(conn, rows),
            )
        )

    async def follow(self, creator_id: str, member: str) -> shapes.Creator:
        """Make `member` a fan, once however often asked; the creator as it is then."""

        def write(conn: Connection) -> shapes.Creator:
            _creator(conn, creator_id)
            fans = tables.follows
            mine = (fans.c.creator == creator_id) & (fans.c.member == member)
            if conn.scalar(select(fans.c.since).where(mine)) is None:
                row = {"creator": creator_id, "member": member, "since": now_ms(conn)}
                conn.execute(insert(fans).values(**row))
            return _creator(conn, creator_id)

        return await self._db.write(write)

    async def unfollow(self, creator_id: str, member: str) -> shapes.Creator:
        """Make `member` a fan no more, once however often asked; the creator as it is then."""

        def write(conn: Connection) -> shapes.Creator:
            _creator(conn, creator_id)
            fans = tables.follows
            mine = (fans.c.creator == creator_id) & (fans.c.member == member)
            conn.execute(delete(fans).where(mine))
            return _creator(conn, creator_id)

        return await self._db.write(write)

    async def write_note(self, new: NewNote) -> shapes.Note:
        """A new note; `not_found` without its creator, `id_reused` when the id is taken."""
        note_id = new.id or new_id()

        def write(conn: Connection) -> shapes.Note:
            _creator(conn, new.creator)
            row = msgspec.to_builtins(new) | {"id": note_id, "created_at": now_ms(conn)}
            insert_new(conn, tables.notes, row)
            return _note(conn, note_id)

        return await self._db.write(write)

    async def change_note(self, note_id: str, change: NoteChange) -> shapes.Note:
        """The note as changed, or `not_found`."""
        values = {
            name: value for name, value in msgspec.to_builtins(change).items() if value is not None
        }

        def write(conn: Connection) -> shapes.Note:
            if values:
                conn.execute(
                    update(tables.notes).where(tables.notes.c.id == note_id).values(**values)
                )
            return _note(conn, note_id)

        return await self._db.write(write)

    async def note(self, note_id: str) -> shapes.Note:
        """The note, or `not_found`."""
        return await self._db.read(lambda conn: _note(conn, note_id))

    async def notes(self, *, creator: str | None, after: str | None, limit: int) -> Page:
        """Notes, newest first; of one creator where `creator` is given."""
        query = select(tables.notes)
        if creator is not None:
            query = query.where(tables.notes.c.creator == creator)
        return await self._db.read(
            lambda conn: page(
                conn,
                query,
                tables.notes,
                after=after,
                limit=limit,
                make=lambda rows: [shapes.Note(**row) for row in rows],
            )
        )


def _hold_roles(conn: Connection, creator_id: str, roles: Sequence[str], at: int) -> None:
    held = tables.creator_roles
    open_rows = (held.c.creator == creator_id) & held.c.until.is_(None)
    now = set(conn.scalars(select(held.c.role).where(open_rows)))
    if ended := now - set(roles):
        conn.execute(update(held).where(open_rows & held.c.role.in_(ended)).values(until=at))
    for role in sorted(set(roles) - now):
        # A role taken up again in the millisecond it ended goes on.
        again = (held.c.creator == creator_id) & (held.c.role == role) & (held.c.since == at)
        if conn.execute(update(held).where(again).values(until=None)).rowcount == 0:
            conn.execute(insert(held).values(creator=creator_id, role=role, since=at))


def _grow_rooms(conn: Connection, host: str) -> None:
    """Open rooms show their host: locked in order, as whoever changes several of them does."""
    rooms = tables.rooms.c
    mine = select(rooms.id).where(rooms.host == host, rooms.state != "closed")
    ids = conn.scalars(mine.order_by(rooms.id).with_for_update()).all()
    conn.execute(update(tables.rooms).where(rooms.id.in_(ids)).values(v=rooms.v + 1))


def _creator(conn: Connection, creator_id: str) -> shapes.Creator:
    found = conn.execute(select(tables.creators).where(tables.creators.c.id == creator_id))
    row = found.mappings().first()
    if row is None:
        raise Invalid("not_found", "There is no such creator.", data={"creator": creator_id})
    return _creators(conn, [row])[0]


def _creators(conn: Connection, rows: Sequence[RowMapping]) -> list[shapes.Creator]:
    ids = [row["id"] for row in rows]
    held, fans = tables.creator_roles, tables.follows
    roles: dict[str, list[str]] = {creator_id: [] for creator_id in ids}
    open_roles = select(held).where(held.c.creator.in_(ids) & held.c.until.is_(None))
    for role in conn.execute(open_roles.order_by(held.c.role)):
        roles[role.creator].append(role.role)
    counted = select(fans.c.creator, func.count().label("fans")).where(fans.c.creator.in_(ids))
    grouped = conn.execute(counted.group_by(fans.c.creator))
    followers = {row.creator: row.fans for row in grouped}
    return [
        shapes.Creator(**row, roles=roles[row["id"]], followers=followers.get(row["id"], 0))
        for row in rows
    ]


def _note(conn: Connection, note_id: str) -> shapes.Note:
    found = conn.execute(select(tables.notes).where(tables.notes.c.id == note_id))
    row = found.mappings().first()
    if row is None:
        raise Invalid("not_found", "There is no such note.", data={"note": note_id})
    return shapes.Note(**row)

"""A live room: its rows, its shelf, what is said and shown in it.

SQL first, then the log: a change is committed with the room's next `v`, and told with its
fields under that `v`, so that two nodes that tell in the other order still end alike. What a
crash kept from being told is told by `reconcile`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal

import msgspec
import structlog
from sqlalchemy import Connection, select, update

from liveroom import shapes, shelves, states
from liveroom.auth import Member
from liveroom.catalog import Page, Title, insert_new, one_product
from liveroom.clock import Clock
from liveroom.errors import Invalid, Refused, Unavailable
from liveroom.events import Event
from liveroom.ids import Id, new_id
from liveroom.money import Price
from liveroom.store import tables
from liveroom.store.backplane import Backplane, Item, removal
from liveroom.store.database import Database, now_ms

SHELF_MAX: Final = 200

Url = Annotated[str, msgspec.Meta(pattern=r"^https?://[^\s\x00]+$", max_length=2000)]
Seconds = Annotated[int, msgspec.Meta(ge=0, le=3600)]
Rate = Annotated[int, msgspec.Meta(ge=0, le=100_000)]

log = structlog.get_logger(__name__)


class NewStream(msgspec.Struct, kw_only=True):
    """Where the video is."""

    kind: Literal["hls", "whep", "youtube", "twitch", "owncast"]
    url: Url
    delay_ms: Annotated[int, msgspec.Meta(ge=0, le=120_000)] | None = None


class NewRoom(msgspec.Struct, kw_only=True):
    """The body that creates a room; its shelf starts with every product `on`."""

    title: Title
    host: Id
    id: Id | None = None
    shop: Id | None = None
    stream: NewStream | None = None
    shelf: Annotated[list[Id], msgspec.Meta(max_length=SHELF_MAX)] = []


class RoomChange(msgspec.Struct, kw_only=True):
    """What `room.set` and PATCH may change; what is left out stays."""

    title: Title | msgspec.UnsetType = msgspec.UNSET
    stream: NewStream | msgspec.UnsetType | None = msgspec.UNSET
    slow_mode_s: Seconds | msgspec.UnsetType = msgspec.UNSET
    chat_per_s_max: Rate | msgspec.UnsetType = msgspec.UNSET
    members_only: bool | msgspec.UnsetType = msgspec.UNSET
    guests: bool | msgspec.UnsetType = msgspec.UNSET


class Rooms:
    """The rooms' rows and their events. Who may do what is not asked here."""

    def __init__(self, db: Database, backplane: Backplane, clock: Clock) -> None:
        self._db = db
        self._backplane = backplane
        self._clock = clock

    # ── reading ───────────────────────────────────────────────────────────────────────────

    async def facts(self, room: str) -> shelves.Facts:
        """The room, its shelf and its pins, or `not_found`."""
        return await self._db.read(lambda conn: shelves.facts(conn, room))

    async def show(self, room: str) -> shapes.Room:
        """The room, or `not_found`."""
        return await self._db.read(lambda conn: shelves.show(conn, room))

    async def rooms(self, *, state: str | None, after: str | None, limit: int) -> Page:
        """Rooms: live ones first, then planned, then closed, each newest first."""
        return await self._db.read(lambda conn: shelves.page_of(conn, state, after, limit))

    async def versions(self, rooms: Sequence[str]) -> dict[str, int]:
        """The `v` of each of `rooms` that exists."""
        query = select(tables.rooms.c.id, tables.rooms.c.v).where(tables.rooms.c.id.in_(rooms))
        return await self._db.glance(lambda conn: {row.id: row.v for row in conn.execute(query)})

    # ── the room itself ───────────────────────────────────────────────────────────────────

    async def create(self, new: NewRoom) -> shapes.Room:
        """A planned room; `id_reused` when the id is taken, `not_found` without its parts."""
        room_id = new.id or new_id()
        stream = None if new.stream is None else msgspec.to_builtins(new.stream)

        def write(conn: Connection) -> shapes.Room:
            if new.shop is not None and not shelves.exists(conn, tables.shops, new.shop):
                raise Invalid("not_found", "There is no such shop.", data={"shop": new.shop})
            row: dict[str, Any] = {
                "id": room_id,
                "title": new.title,
                "host": new.host,
                "shop": new.shop,
            }
            row |= {"state": "planned", "paused": False, "stream": stream, "settings": {}, "v": 1}
            row |= {"pinned": [], "pinned_seq": 0, "created_at": now_ms(conn)}
            insert_new(conn, tables.rooms, row)
            for product in new.shelf:
                one_product(conn, product)
            shelves.write_shelf(
                conn, room_id, [(product, "on") for product in dict.fromkeys(new.shelf)]
            )
            return shelves.show(conn, room_id)

        return await self._db.write(write)

    async def open(self, room: str) -> shapes.Room:
        """Make a planned room live; `illegal_transition` from any other state."""
        return await self._move(room, "live", "opened_at", "room.opened")

    async def close(self, room: str) -> shapes.Room:
        """Close a live room for good; payments of its orders go on."""
        return await self._move(room, "closed", "closed_at", "room.closed")

    async def set(self, room: str, change: RoomChange) -> shapes.Room:
        """The room with `change` made; what is left out stays. `v` grows where anything changes."""
        given = {
            name: value
            for name, value in msgspec.structs.asdict(change).items()
            if value is not msgspec.UNSET
        }
        values: dict[str, Any] = {
            name: given.pop(name) for name in ("title", "stream") if name in given
        }
        if values.get("stream") is not None:
            values["stream"] = msgspec.to_builtins(values["stream"])

        def write(conn: Connection) -> shapes.Room:
            row = shelves.locked(self._db, conn, room)
            new = {**values, "settings": row.settings | given}
            if all(getattr(row, name) == value for name, value in new.items()):
                return shelves.show(conn, room)
            return shelves.change(conn, row, **new)

        return await self._told("room.changed", await self._db.write(write))

    async def pause(self, room: str, *, paused: bool) -> shapes.Room:
        """Stop or go on selling: after the answer no order of the room is placed while paused."""

        def write(conn: Connection) -> shapes.Room:
            row = shelves.locked(self._db, conn, room)
            return (
                shelves.show(conn, room)
                if row.paused == paused
                else shelves.change(conn, row, paused=paused)
            )

        return await self._told("room.changed", await self._db.write(write))

    async def _move(self, room: str, state: str, at: str, event: str) -> shapes.Room:
        def write(conn: Connection) -> shapes.Room:
            row = shelves.locked(self._db, conn, room)
            after = states.move("room", row.state, state)
            return shelves.change(conn, row, **{"state": after, at: now_ms(conn)})

        return await self._told(event, await self._db.write(write))

    async def _told(self, event: str, room: shapes.Room) -> shapes.Room:
        data = {"room": room.builtin()}
        await self._tell(room.id, event, data, set={"room": (room.v, data["room"])})
        return room

    # ── the shelf ─────────────────────────────────────────────────────────────────────────

    async def put(
        self, room: str, product: str, *, position: int | None, state: str | None
    ) -> list[shapes.Product]:
        """Put a product on the shelf, or move it there; the shelf as viewers see it then.

        `position` counts from 1; without it a new product goes last and an old one stays.
        """

        def write(conn: Connection) -> shelves.Facts:
            row = shelves.locked(self._db, conn, room)
            one_product(conn, product)
            entries = shelves.entries_of(conn, room)
            old = next((i for i, entry in enumerate(entries) if entry[0] == product), None)
            was = "on" if old is None else entries.pop(old)[1]
            place = position - 1 if position is not None else len(entries) if old is None else old
            entries.insert(place, (product, state or was))
            if len(entries) > SHELF_MAX:
                raise Invalid("bad_argument", f"A shelf holds at most {SHELF_MAX} products.")
            shelves.write_shelf(conn, room, entries)
            shelves.change(conn, row)
            return shelves.facts(conn, room)

        return await self._shelved(await self._db.write(write), gone=product)

    async def take(self, room: str, product: str) -> list[shapes.Product]:
        """Take a product off the shelf, and its pin with it; the shelf as viewers see it then."""

        def write(conn: Connection) -> shelves.Facts:
            row = shelves.locked(self._db, conn, room)
            entries = shelves.entries_of(conn, room)
            if all(entry[0] != product for entry in entries):
                raise Invalid("not_found", "It is not on this shelf.", data={"product": product})
            shelves.write_shelf(conn, room, [entry for entry in entries if entry[0] != product])
            shelves.change(conn, row)
            return shelves.facts(conn, room)

        return await self._shelved(await self._db.write(write), gone=product)

    async def set_price(self, sku: str, price_minor: Price) -> shapes.Sku:
        """Commit a SKU's price; `tell_price` follows, once the gate has it too."""

        def write(conn: Connection) -> shapes.Sku:
            # Rooms first and sorted: a shelf and a price must not wait for each other.
            for room in sorted(shelves.rooms_showing(conn, sku)):
                shelves.change(conn, shelves.locked(self._db, conn, room))
            named = update(tables.skus).where(tables.skus.c.id == sku)
            price = {"price_minor": price_minor, "price_v": tables.skus.c.price_v + 1}
            if conn.execute(named.values(price)).rowcount == 0:
                raise Invalid("not_found", "There is no such SKU.", data={"sku": sku})
            row = conn.execute(select(tables.skus).where(tables.skus.c.id == sku)).one()
            return shapes.Sku(
                id=sku,
                price_minor=row.price_minor,
                name=row.name,
                limit_per_buyer=row.limit_per_buyer,
            )

        return await self._db.write(write)

    async def tell_price(self, sku: str) -> None:
        """Tell every room whose shelf shows the SKU its price.

        Two who tell at once may leave in the wrong order; each reads again after telling, so
        the last word is the price in force.
        """
        told: dict[str, int] = {}
        while untold := await self._db.read(lambda conn: shelves.untold_prices(conn, sku, told)):
            for known, price_minor in untold:
                told[known.room.id] = price_minor
                shelf = [product.builtin() for product in known.shelf]
                data = {"sku": sku, "price_minor": price_minor, "v": known.room.v}
                fields = {"shelf": (known.room.v, shelf)}
                await self._tell(known.room.id, "price.changed", data, set=fields)

    async def _shelved(self, known: shelves.Facts, gone: str | None = None) -> list[shapes.Product]:
        """Tell the shelf; `gone` is the product whose pin goes with it, unless it is shown."""
        room, shelf = known.room, [product.builtin() for product in known.shelf]
        unpin = None if gone in {product.id for product in known.shelf} else gone
        fields = {"shelf": (room.v, shelf), "room": (room.v, room.builtin())}
        data = {"shelf": shelf, "v": room.v}
        await self._tell(room.id, "shelf.changed", data, set=fields, unpin=unpin)
        if unpin in known.pinned:
            await self.note_pins(room.id)
        return known.shelf

    # ── what is shown and said ────────────────────────────────────────────────────────────

    async def pin(self, room: str, product: str) -> shapes.Product:
        """Show a product of the shelf to everybody; the oldest of three leaves for a fourth.

        A shelf or a price may change, and be told, before the pin is: it is read again after
        telling, so the last word is the product as it is now, or that it is not shown.
        """
        shown, told = await self._on_shelf(room, product), None
        while shown != told:
            event = Event("product.pinned", {"product": shown.builtin()}, self._clock.now_ms())
            await self._backplane.publish(room, Item(event=event, pin=product))
            told = shown
            try:
                shown = await self._on_shelf(room, product)
            except Invalid:
                await self._take_down(room, product)
                raise
        await self.note_pins(room)
        return shown

    async def _on_shelf(self, room: str, product: str) -> shapes.Product:
        known = await self.facts(room)
        shown = next((p for p in known.shelf if p.id == product), None)
        if shown is None:
            raise Invalid("not_found", "It is not on this shelf.", data={"product": product})
        return shown

    async def unpin(self, room: str, product: str) -> None:
        """Take a pin down; `not_found` if it is not up."""
        event = Event("product.unpinned", {"product": product}, self._clock.now_ms())
        await self._backplane.publish(room, Item(event=event, unpin=product))
        await self.note_pins(room)

    async def unpin_all(self, room: str) -> None:
        """Take all pins down."""
        for product in (await self._backplane.room_state(room)).pinned:
            await self._take_down(room, product)

    async def _take_down(self, room: str, product: str) -> None:
        """Take a pin down, unless somebody else has done so meanwhile."""
        try:
            await self.unpin(room, product)
        except Invalid as gone:
            if gone.code != "not_found":
                raise

    async def note_pins(self, room: str) -> None:
        """Write the pins to SQL as the log has them now, for the day the log is lost."""
        state = await self._backplane.room_state(room)
        row = tables.rooms
        older = (row.c.pinned_epoch != state.position.epoch) | row.c.pinned_epoch.is_(None)
        newer = update(row).where(row.c.id == room, older | (row.c.pinned_seq < state.position.seq))
        values = {"pinned": list(state.pinned), "pinned_at": state.pinned}
        values |= {"pinned_epoch": state.position.epoch}
        statement = newer.values(**values, pinned_seq=state.position.seq)
        await self._db.write(lambda conn: conn.execute(statement).rowcount)

    async def notice(self, room: str, text: str) -> None:
        """Announce `text` to everybody in the room."""
        await self._publish(room, "notice.posted", {"text": text})

    async def say(self, room: str, member: Member, text: str, operation: str) -> dict[str, Any]:
        """The message as everybody gets it, with its id and its `n`; once for each `operation`."""
        at = self._clock.now_ms()
        data = {"member": member.id, "name": member.name, "text": text, "at": at}
        (event,) = await self._backplane.publish(
            room, Item(Event("message.posted", data, at), once=operation)
        )
        return event.data

    async def said(self, room: str, message: str) -> dict[str, Any] | None:
        """A message of the room, or None where it is not kept any more.

        `not_found` where it was removed, or never was.
        """
        return await self._backplane.message(room, message)

    async def unsay(self, room: str, message: str) -> None:
        """Take a message from every screen and from the history, once; `not_found` if it is gone.

        Also one that is not kept any more: it may be on screens.
        """
        event = Event("message.removed", {"message": message}, self._clock.now_ms())
        await self._backplane.publish(
            room, Item(event=event, remove=message, once=removal(message))
        )

    async def host_changed(self, host: str) -> None:
        """Tell the open rooms of a creator the name and roles of now, where that can be told."""
        try:
            for room in await self._db.read(lambda conn: shelves.rooms_of(conn, host)):
                await self._told("room.changed", await self.show(room))
        except Unavailable as fault:
            # As in `_tell`: what changed is committed, and each node compares.
            log.warning("rooms_untold", host=host, event_name="room.changed", code=fault.code)

    async def tell_shelves(self, rooms: Sequence[str]) -> None:
        """Tell each of the rooms what is on its shelf now, where that can be told now."""
        try:
            for room in rooms:
                await self._shelved(await self.facts(room))
        except Unavailable as fault:
            # As in `_tell`: what changed is committed, and each node compares.
            log.warning("rooms_untold", rooms=rooms, event_name="shelf.changed", code=fault.code)

    async def reconcile(self, room: str) -> None:
        """Tell the room and its shelf as SQL has them, after a crash between commit and word."""
        pinned = (await self._backplane.room_state(room)).pinned  # before what may be pinned
        known = await self.facts(room)
        await self._told("room.changed", known.room)
        await self._shelved(known)
        for product in set(pinned) - {product.id for product in known.shelf}:
            await self._take_down(room, product)

    async def _publish(self, room: str, event: str, data: dict[str, Any]) -> list[Event]:
        item = Item(event=Event(event, data, self._clock.now_ms()))
        return await self._backplane.publish(room, item)

    async def _tell(self, room: str, event: str, data: dict[str, Any], **fields: Any) -> None:
        """Tell what is committed already: with Redis away it is true all the same."""
        item = Item(event=Event(event, data, self._clock.now_ms()), **fields)
        try:
            await self._backplane.publish(room, item)
        except Unavailable as fault:
            # Each node compares `v` with SQL every few seconds and calls `reconcile`.
            log.warning("room_untold", room=room, event_name=event, code=fault.code)


def refuse_unless_selling(room: shapes.Room) -> None:
    """`not_open` or `sale_paused`, unless the room sells now."""
    if room.state != "live":
        raise Refused("not_open")
    if room.paused:
        raise Refused("sale_paused")

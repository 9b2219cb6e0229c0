"""The rooms this node shows now: their pictures, and what the node sums up for them.

A picture begins when the hub first needs the room and ends when the last viewer has left.
Stock comes in for SKUs and goes out to the rooms whose shelf shows them; taps and viewers
are counted here and cross Redis at most once a beat, whatever the crowd does.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Protocol

import structlog

from liveroom import shapes
from liveroom.clock import Clock
from liveroom.counting import Taps, Viewers
from liveroom.errors import LiveroomError, Unavailable
from liveroom.events import Event
from liveroom.picture import Picture
from liveroom.rooms import Rooms
from liveroom.shelves import Facts, OnSale
from liveroom.store.backplane import Backplane

BEAT_S: Final = 1.0
"""How often `beat` should be called: taps and viewers are at most this old."""
COMPARE_BEATS: Final = 5
"""How many beats pass between two looks at what was told already: stock, and rooms in SQL."""

log = structlog.get_logger(__name__)

Left = Callable[[Sequence[str]], Awaitable[Mapping[str, tuple[int, int]]]]
Drops = Callable[[str], Awaitable[Sequence[shapes.Drop]]]


class Audience(Protocol):
    """What the hub lends: who watches, and a way to all of them."""

    def state(self, room: str, event: Event) -> None:
        """Pass a state event to the room's viewers on this node."""
        ...

    def viewers(self, room: str) -> int:
        """How many watch the room on this node."""
        ...

    def turn_out(self, room: str, who: Callable[[Any], bool]) -> None:
        """End the seats of the room's members whom `who` names; they must sign in."""
        ...


class OnAir:
    """The node's rooms.

    `left` reads what the gates of pools have left, and their `v`; `drops` the scheduled and
    open drops of a room.
    """

    def __init__(
        self,
        rooms: Rooms,
        backplane: Backplane,
        clock: Clock,
        *,
        node: str,
        left: Left,
        drops: Drops,
    ) -> None:
        self._rooms = rooms
        self._backplane = backplane
        self._clock = clock
        self._left = left
        self._drops = drops
        self._audience: Audience | None = None
        self._pictures: dict[str, Picture] = {}
        self._newer: dict[str, Facts] = {}
        self._shown: dict[str, dict[str, dict[str, str]]] = {}  # the pools a room shows
        self._showing: dict[str, set[str]] = {}  # the rooms that show a pool
        self._pools: dict[str, dict[str, str]] = {}  # how events name it
        self._unread: set[str] = set()  # pools that a room shows without a number yet
        self._taps = Taps(backplane, clock, self._kinds)
        self._viewers = Viewers(backplane, node)
        self._beats = 0

    def attach(self, audience: Audience) -> None:
        """Take the hub, which needs `picture` before it can be lent."""
        self._audience = audience

    # ── pictures ──────────────────────────────────────────────────────────────────────────

    async def picture(self, room: str) -> Picture:
        """A fresh picture that is kept up to date from now on; `not_found` without a room."""
        picture = await self.draw(room)
        picture.on_shelf, picture.on_room = self._index, self._keep_guests_out
        self._pictures[room] = picture
        self._index(picture)
        return picture

    async def draw(self, room: str) -> Picture:
        """The room as SQL, the log and the gates have it now; `not_found` without a room."""
        known = await self._rooms.facts(room)
        state = await self._backplane.room_state(room)
        if known.pinned and known.pinned_epoch != state.position.epoch:
            await self._pin_again(known)
            state = await self._backplane.room_state(room)
        drops = await self._drops(room)  # after the log: what is told of them comes to the picture
        picture = Picture(
            position=state.position,
            n=state.n,
            room=known.room.builtin(),
            shelf=[product.builtin() for product in known.shelf],
            pinned=state.pinned,
            messages=state.messages,
            viewers=state.viewers,
            reactions=state.reactions,
            drops=[drop.builtin() for drop in drops],
        )
        for event in await self._stock_events(picture.pools):
            picture.apply(event)
        return picture

    def forget(self, room: str) -> None:
        """Drop the picture of a room that nobody watches here any more."""
        self._pictures.pop(room, None)
        self._newer.pop(room, None)
        self._show(room, {})

    def shown(self, room: str) -> Picture | None:
        """The room's picture, while somebody watches it here."""
        return self._pictures.get(room)

    async def on_sale(self, room: str) -> OnSale:
        """What the room sells now, and by what it is shown.

        Cheap for a room on air, from SQL for others; `not_found` where there is none.
        """
        picture = self._pictures.get(room)
        if picture is None:
            return (await self._rooms.facts(room)).on_sale
        newer = self._newer_than(picture, room)
        if newer is not None:
            return OnSale(newer.room, newer.selling, picture.pins)
        return OnSale(picture.shape, picture.selling, picture.pins)

    def draws(self, room: str) -> list[str]:
        """The drops of a room on air that are drawn for."""
        picture = self._pictures.get(room)
        drops = picture.drops.values() if picture else ()
        return [drop["id"] for drop in drops if drop.get("admission") == "draw"]

    async def room(self, room: str) -> shapes.Room:
        """The room: cheap for one on air, from SQL for others; `not_found` where there is none."""
        picture = self._pictures.get(room)
        if picture is None:
            return await self._rooms.show(room)
        newer = self._newer_than(picture, room)
        return newer.room if newer else picture.shape

    async def reread(self, room: str) -> None:
        """Judge commands by the room as SQL has it now, until its picture has come as far.

        A picture moves when a flush begins: without this, who opened the room or resumed its
        sales could be told for a tick that nothing had changed.
        """
        if room not in self._pictures:
            return
        try:
            self._newer[room] = await self._rooms.facts(room)
        except Unavailable as fault:
            # The change is made all the same, and the picture follows with its event.
            log.info("room_unread", room=room, code=fault.code)

    def _newer_than(self, picture: Picture, room: str) -> Facts | None:
        newer = self._newer.get(room)
        if newer is not None and newer.room.v <= picture.v:
            del self._newer[room]
            return None
        return newer

    async def _pin_again(self, known: Facts) -> None:
        """The log was lost and begun anew: bring back the pins that SQL remembers."""
        shelf = {product.id: product for product in known.shelf}
        for product in known.pinned:
            if product in shelf:
                await self._rooms.pin(known.room.id, product)

    # ── stock ─────────────────────────────────────────────────────────────────────────────

    def stock_changed(self, changes: Iterable[tuple[str, int, int]]) -> None:
        """Pass `(pool, left, v)` on to every room here that shows the SKU or drop."""
        for pool, left, v in changes:
            named = self._pools.get(pool, {})
            for room in list(self._showing.get(pool, ())):  # what is passed on may change it
                data = {**named, "left": left, "v": v}
                self._pass_on(room, Event("stock.changed", data, self._clock.now_ms()))

    async def _stock_events(self, pools: Mapping[str, dict[str, str]]) -> list[Event]:
        try:
            found = await self._left(list(pools))
        except Unavailable as fault:
            # A room without numbers is better than no room; the next beat asks again.
            log.info("stock_unread", code=fault.code)
            return []
        at = self._clock.now_ms()
        return [
            Event("stock.changed", {**pools[pool], "left": left, "v": v}, at)
            for pool, (left, v) in found.items()
        ]

    def _pass_on(self, room: str, event: Event) -> None:
        if self._audience is not None:
            self._audience.state(room, event)

    def _index(self, picture: Picture) -> None:
        room = picture.room["id"]
        if self._pictures.get(room) is picture:
            self._show(room, picture.pools)

    def _show(self, room: str, pools: dict[str, dict[str, str]]) -> None:
        """Note what a room shows now; it costs what this room shows, however many others do."""
        before = self._shown.pop(room, {}).keys()
        for pool in before - pools.keys():
            self._showing[pool].discard(room)
            if not self._showing[pool]:
                del self._showing[pool], self._pools[pool]
                self._unread.discard(pool)
        self._unread |= pools.keys() - before
        for pool, named in pools.items():
            self._showing.setdefault(pool, set()).add(room)
            self._pools[pool] = named
        if pools:
            self._shown[room] = pools

    # ── who may watch ─────────────────────────────────────────────────────────────────────

    def _keep_guests_out(self, picture: Picture) -> None:
        """Guests who sit in a room that is for members now hear nothing more of it."""
        if self._audience is not None and not picture.shape.guests:
            self._audience.turn_out(picture.room["id"], lambda member: member.guest)

    # ── after a cut subscription ──────────────────────────────────────────────────────────

    async def catch_up(self) -> None:
        """Read again what rooms here count and show of stock: its messages may have been lost.

        Raises:
            Unavailable: `store_down`; what is told from then on is told as ever.
        """
        self._viewers.tell_all_again()
        await self._read_stock(self._pools)
        for room in list(self._pictures):
            state = await self._backplane.room_state(room)
            at = self._clock.now_ms()
            for name, (value, v) in (("viewers", state.viewers), ("reactions", state.reactions)):
                if v:
                    self._pass_on(room, Event(f"{name}.counted", {name: value, "v": v}, at))

    # ── the beat ──────────────────────────────────────────────────────────────────────────

    async def tap(self, room: str, kind: str, count: int) -> None:
        """Add to the taps of a kind; they are told with the next beat.

        A room knows 32 kinds: one more is `bad_argument`.
        """
        await self._taps.add(room, kind, count)

    async def _kinds(self, room: str) -> Iterable[str]:
        picture = self._pictures.get(room)
        if picture is not None:
            return picture.reactions
        return (await self._backplane.room_state(room)).reactions[0]

    async def beat(self) -> None:
        """Tell taps and viewers, read stock that is new here; at times compare all that is shown.

        Each part's failure is logged and its own: a beat never stops the next.
        """
        self._beats += 1
        compares = self._beats % COMPARE_BEATS == 0 and bool(self._pictures)
        if compares:
            await self._each("compare", self._compare())
        await self._each("taps", self._taps.tell())
        await self._each("viewers", self._tell_viewers())
        await self._each("stock", self._read_stock(self._pools if compares else self._unread))

    async def end(self) -> None:
        """Tell the last taps, and that nobody watches here: a planned stop leaves nothing behind.

        What cannot be told is logged; the viewers told before lapse by themselves.
        """
        await self._each("taps", self._taps.tell())
        await self._each("viewers", self._viewers.tell(dict.fromkeys(self._pictures, 0)))

    async def _each(self, part: str, work: Awaitable[None]) -> None:
        try:
            await work
        except LiveroomError as fault:
            log.warning("beat_failed", part=part, code=fault.code)

    async def _tell_viewers(self) -> None:
        if self._audience is not None:
            audience = self._audience
            await self._viewers.tell({room: audience.viewers(room) for room in self._pictures})

    async def _read_stock(self, pools: Iterable[str]) -> None:
        for event in await self._stock_events({pool: self._pools[pool] for pool in pools}):
            drop = event.data.get("drop")
            pool = f"sku:{event.data['sku']}" if drop is None else f"drop:{drop}"
            self._unread.discard(pool)
            for room in list(self._showing.get(pool, ())):
                if not self._pictures[room].knows_stock(event.data):
                    self._pass_on(room, event)

    async def _compare(self) -> None:
        versions = await self._rooms.versions(list(self._pictures))
        for room, v in versions.items():
            picture = self._pictures.get(room)
            if picture is not None and picture.v < v:
                await self._each("compare", self._rooms.reconcile(room))

"""Flash drops: a quantity of one SKU at a price, for a time.

Time is the database's. SQL moves first, by compare-and-set; then the gate is told, then the
room. Whoever comes late finds nothing to do, and what a crash left undone `mend_once` does:
`told` names the last state that gate and room are known to know.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

import structlog
from sqlalchemy import Row

from liveroom import carving, drawing, shapes
from liveroom.batching import Batcher
from liveroom.beats import next_beat
from liveroom.carving import Due, NewDrop, drop_of
from liveroom.clock import Clock
from liveroom.drawing import Entry
from liveroom.errors import Invalid, LiveroomError, Refused, Unavailable
from liveroom.events import Event
from liveroom.faults import point
from liveroom.ids import new_id
from liveroom.inventory import HoldLineRequest, HoldRequest, Inventory
from liveroom.store import ledger
from liveroom.store.backplane import Backplane, Item
from liveroom.store.database import Database
from liveroom.store.transfers import move_units

__all__ = ["NewDrop", "Promotions"]

LOOK_EVERY_S: Final = 1.0
"""How long a drop that another node has scheduled may be unknown to this one."""
BATCH_MAX: Final = 256
WAITING_MAX: Final = 20_000
KNOWN_MAX: Final = 10_000
TOLD_AT_ONCE: Final = 500
_EVENTS: Final = {"scheduled": "drop.scheduled", "open": "drop.opened"}
_PATHS: Final = {
    "scheduled": ("scheduled",),
    "open": ("scheduled", "open"),
    "closed": ("scheduled", "open", "closed"),
    "cancelled": ("scheduled", "cancelled"),
}

log = structlog.get_logger()


class _Terms(NamedTuple):
    """What never changes about a drop."""

    room: str
    sku: str
    admission: str


class Promotions:
    """The drops of all rooms. Who may schedule, and whose goods, is not asked here."""

    def __init__(
        self, db: Database, inventory: Inventory, backplane: Backplane, clock: Clock
    ) -> None:
        self._db = db
        self._inventory = inventory
        self._backplane = backplane
        self._clock = clock
        self._terms: dict[str, _Terms] = {}
        self._looked_up = Batcher(self._look_up, size_max=BATCH_MAX, waiting_max=WAITING_MAX)
        self._entries = Batcher(self._enter, size_max=BATCH_MAX, waiting_max=WAITING_MAX)
        self._luck = Batcher(self._read_luck, size_max=BATCH_MAX, waiting_max=WAITING_MAX)
        self._sooner = asyncio.Event()
        self._keeping: asyncio.Task[None] | None = None

    # ── the life of the service ───────────────────────────────────────────────────────────

    def start(self) -> None:
        """Open and close drops when their time comes, until `close_down`."""
        self._keeping = asyncio.create_task(self._keep_time(), name="drops")

    async def close_down(self) -> None:
        """End keeping time, and answer what was asked."""
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.wait([self._keeping])
        for batcher in (self._looked_up, self._entries, self._luck):
            await batcher.close()

    async def _keep_time(self) -> None:
        while True:
            self._sooner.clear()
            within_s = LOOK_EVERY_S
            try:
                within_s = await self.keep_time()
            except Unavailable as fault:
                log.warning("drops.put_off", code=fault.code)
            except Exception:
                log.exception("drops.failed")
            await next_beat(LOOK_EVERY_S, within_s=within_s, sooner=self._sooner)

    async def keep_time(self) -> float:
        """Open and close what is due; in how many seconds to look again, at most one.

        Every node does so at the same time: one of them finds the drop as it was.
        """
        due, next_ms = await self._db.glance(carving.due)
        wait_s = LOOK_EVERY_S if next_ms is None else min(LOOK_EVERY_S, next_ms / 1000)
        for one in due:
            try:
                await self._move(one)
                wait_s = 0  # what has just opened may close soon
            except Unavailable:
                raise
            except Exception:
                log.exception("drops.failed", drop=one.drop)
        return wait_s

    def look_now(self) -> None:
        """Look for what is due at once: a room has closed, say."""
        self._sooner.set()

    async def mend_once(self) -> None:
        """Tell what gates and rooms may not know, return what ended drops have. Any node."""
        for drop in await self._db.read(carving.untold):
            await self._mend(drop, self._follow(drop))
        for row in await self._db.read(carving.ended_with_units):
            await self._mend(row.id, self._give_back(row))

    async def _mend(self, drop: str, work: Any) -> None:
        try:
            await work
        except LiveroomError as fault:
            log.warning("drops.put_off", drop=drop, code=fault.code)

    # ── the host's ────────────────────────────────────────────────────────────────────────

    async def schedule(self, new: NewDrop, operation: str) -> shapes.Drop:
        """Set units aside for a drop; open at once where `opens_in_ms` is 0.

        The same operation does so once, and answers the drop as it is then.

        Raises:
            Refused: sold_out {sku, left}: more than is free; not_open: the room has closed.
            Invalid: not_found, bad_argument (the room has enough drops), id_reused.
            Unavailable: rebuilding, store_down, overloaded.
        """
        first = await self._db.read(lambda conn: carving.first_of(conn, new, operation))
        drop = first.id if first is not None else await self._carve(new, operation)
        await self._follow(drop)
        if new.opens_in_ms == 0:
            await self._move(Due(drop, "open"))
        self._sooner.set()
        return await self.show(drop)

    async def _carve(self, new: NewDrop, operation: str) -> str:
        await self._db.read(lambda conn: carving.refuse_unless_fit(conn, new))
        pool, drop = ledger.pool_of(new.sku), new_id()
        line = HoldLineRequest(pool=pool, sku=new.sku, qty=new.quantity)
        request = HoldRequest(
            buyer="", room="", key=f"carve:{operation}", lines=[line], kind="placing", again=True
        )
        [hold] = await self._inventory.hold(request)
        point("drop.held")
        carved = await self._db.write(
            partial(carving.carve, new=new, drop=drop, hold=hold, operation=operation)
        )
        if carved is None:
            await self._inventory.release([hold.id])
            raise Unavailable("rebuilding")
        point("drop.carved")
        await self._inventory.tell(carved.told)
        return str(carved.drop.id)

    async def close(self, room: str, drop: str) -> shapes.Drop:
        """Close an open drop before its time; what is left is ordinary stock again.

        Raises:
            Invalid: not_found; illegal_transition unless it is open.
        """
        return await self._by_hand(room, Due(drop, "closed"))

    async def cancel(self, room: str, drop: str) -> shapes.Drop:
        """Call off a drop that has not opened; its units are ordinary stock again.

        Raises:
            Invalid: not_found; illegal_transition unless it is scheduled.
        """
        return await self._by_hand(room, Due(drop, "cancelled"))

    async def _by_hand(self, room: str, wanted: Due) -> shapes.Drop:
        await self._db.write(partial(carving.change, wanted=wanted, room=room, early=True))
        await self._follow(wanted.drop)
        return await self.show(wanted.drop)

    # ── the viewers' ──────────────────────────────────────────────────────────────────────

    async def show(self, drop: str) -> shapes.Drop:
        """The drop as it is now, or `not_found`."""
        return drop_of(await self._db.read(lambda conn: carving.find(conn, drop)))

    async def of_room(self, room: str) -> list[shapes.Drop]:
        """The room's drops that are scheduled or open, in order of opening."""
        rows = await self._db.read(lambda conn: carving.of_rooms(conn, [room]))
        return [drop_of(row) for row in rows]

    async def enter(self, room: str, drop: str, member: str) -> shapes.Drop:
        """Take part in a draw, once, however often it is asked.

        Raises:
            Refused: not_open: it has opened, or was called off; limit_reached: it is full.
            Invalid: not_found; bad_argument where there is no draw.
        """
        terms = await self._looked_up.submit(drop)
        if terms is None or terms.room != room:
            raise Invalid("not_found", "There is no such drop.", data={"drop": drop})
        if terms.admission != "draw":
            raise Invalid("bad_argument", "This drop has no draw: first come, first served.")
        entry = Entry(drop, member)
        if await self._entries.submit(entry) != "scheduled":
            raise Refused("not_open", "This draw takes no more entries.", data={"drop": drop})
        if await self._luck.submit(entry) is None:
            raise Refused("limit_reached", "This draw is full.", data={"drop": drop})
        return await self.show(drop)

    async def entries_of(self, member: str, drops: Iterable[str]) -> list[shapes.Entry]:
        """In which of these draws the member takes part, and with what luck."""
        asked = [Entry(drop, member) for drop in drops]
        found = await asyncio.gather(*map(self._luck.submit, asked))
        return [one for one in found if one is not None]

    async def refuse_unless_offered(
        self, room: str, member: str, lines: Sequence[tuple[str, str]]
    ) -> None:
        """Refuse (sku, drop) that this room has no drop of, or whose draw left the member out.

        Whether a drop is open is for its gate to say, and for SQL.

        Raises:
            Invalid: not_found {sku, drop}.
            Refused: not_open {sku, drop}: this member is not admitted.
        """
        for sku, drop in lines:
            about = {"sku": sku, "drop": drop}
            terms = self._terms.get(drop) or await self._looked_up.submit(drop)
            if terms is None or (terms.room, terms.sku) != (room, sku):
                raise Invalid("not_found", "There is no such drop of it here.", data=about)
            if terms.admission == "draw":
                entry = await self._luck.submit(Entry(drop, member))
                if entry is None or not entry.admitted:
                    raise Refused("not_open", "Only who was drawn may buy.", data=about)

    async def _look_up(self, drops: Sequence[str]) -> list[_Terms | None]:
        rows = await self._db.read(lambda conn: carving.facts(conn, set(drops)))
        if len(self._terms) > KNOWN_MAX:
            self._terms.clear()
        for row in rows.values():
            self._terms[row.id] = _Terms(row.room, row.sku, row.admission)
        return [self._terms.get(drop) for drop in drops]

    async def _enter(self, entries: Sequence[Entry]) -> list[str | None]:
        states = await self._db.write(lambda conn: drawing.enter(conn, entries))
        return [states.get(entry.drop) for entry in entries]

    async def _read_luck(self, asked: Sequence[Entry]) -> list[shapes.Entry | None]:
        found = await self._db.read(lambda conn: drawing.luck(conn, set(asked)))
        return [
            shapes.Entry(drop=one.drop, admitted=found[one]) if one in found else None
            for one in asked
        ]

    # ── moving on ─────────────────────────────────────────────────────────────────────────

    async def _move(self, wanted: Due) -> None:
        """Move a drop whose time has come, and let gate and room follow."""
        if await self._db.write(partial(carving.change, wanted=wanted)):
            point("drop.moved")
            await self._follow(wanted.drop)

    async def _follow(self, drop: str) -> None:
        """Bring gate and room to where SQL is. May be repeated, and by several at once."""
        row = await self._db.read(lambda conn: carving.find(conn, drop))
        await self._inventory.set_phase(row.sku, row.id, ledger.phase_of(row.state))
        point("drop.gate_set")
        await self._say(row)
        if row.state in ("closed", "cancelled"):
            await self._give_back(row)
        if row.told != row.state:
            await self._db.write(lambda conn: carving.note_told(conn, row.id, row.state))

    async def _say(self, row: Row[Any]) -> None:
        """The events that the room may not have had, each once whoever tells it."""
        path, at = _PATHS[row.state], self._clock.now_ms()
        for state in path[path.index(row.told) + 1 if row.told else 0 :]:
            told = drop_of(row, state).builtin()
            event = Event(_EVENTS.get(state, "drop.closed"), {"drop": told}, at)
            await self._backplane.publish(
                row.room, Item(event=event, once=f"drop:{row.id}:{state}")
            )
            point("drop.said")
            if state == "open" and row.admission == "draw":
                await self._tell_admitted(row)

    async def _tell_admitted(self, row: Row[Any]) -> None:
        members = await self._db.read(lambda conn: drawing.admitted(conn, row.id))
        told, at = {"drop": drop_of(row).builtin()}, self._clock.now_ms()
        for first in range(0, len(members), TOLD_AT_ONCE):
            some = members[first : first + TOLD_AT_ONCE]
            await self._backplane.direct(
                [Event("drop.admitted", told, at, to=member) for member in some]
            )

    async def _give_back(self, row: Row[Any]) -> None:
        """Return what an ended drop has free to ordinary stock, once for each hold of it."""
        pool = ledger.pool_of(row.sku, row.id)
        left = (await self._inventory.left([pool]))[pool][0]
        if left <= 0:
            return
        line = HoldLineRequest(pool=pool, sku=row.sku, drop=row.id, qty=left)
        request = HoldRequest(
            buyer="", room="", key=f"return:{new_id()}", lines=[line], kind="placing", again=True
        )
        try:
            [hold] = await self._inventory.hold(request)
        except Refused:  # another node returns them
            return
        point("drop.return_held")
        told = await self._db.write(
            partial(
                move_units,
                source=pool,
                target=ledger.pool_of(row.sku),
                units=left,
                kind="return",
                hold=hold.id,
                epoch=hold.epoch,
                why=row.id,
            )
        )
        point("drop.returned")
        if told is None:
            await self._inventory.release([hold.id])
        else:
            await self._inventory.tell(told)

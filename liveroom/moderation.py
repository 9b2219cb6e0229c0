"""Keeping order: what may be said, and acts that are logged with who did them.

What may be said is decided by pure functions; `Moderation` carries out acts and writes each
into a log that is only ever added to.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Final

from sqlalchemy import Connection, insert

from liveroom import shapes, text
from liveroom.auth import Member
from liveroom.clock import Clock
from liveroom.errors import Denied, Invalid, Refused
from liveroom.ids import new_id
from liveroom.rooms import Rooms
from liveroom.store import tables
from liveroom.store.database import Database, now_ms

SPOKEN_MAX: Final = 20_000
"""Of how many members, at most, a node remembers when they last spoke."""


def fit_text(said: str) -> str:
    """What everybody will read; `bad_argument` when nothing is left, or too much."""
    fit = text.clean(said)
    if not fit or len(fit) > text.MESSAGE_MAX:
        raise Invalid("bad_argument", f"A message has 1 to {text.MESSAGE_MAX} characters.")
    return fit


def refuse_unless_may_watch(room: shapes.Room, member: Member) -> None:
    """`unauthenticated` for a guest where none may watch."""
    if member.guest and not room.guests:
        raise Denied("unauthenticated", "Only members may watch this room.")


def refuse_unless_may_speak(room: shapes.Room, member: Member) -> None:
    """`not_open` in a closed room; `unauthenticated` for a guest where guests may not talk."""
    if member.guest and (room.members_only or not room.guests):
        raise Denied("unauthenticated", "Only members may talk here.")
    if room.state == "closed":
        raise Refused("not_open")


class SlowMode:
    """When each member last spoke in a room, as far as this node has seen."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._spoken: OrderedDict[tuple[str, str], tuple[int, str]] = OrderedDict()

    def take_turn(self, room: shapes.Room, member: Member, operation: str) -> None:
        """Note that the member speaks now, or `slow_mode` with the time still to wait.

        The last turn stays its operation's own: what may not have been said, because a store
        was away, is repeated without waiting. Nothing is given back, since it may have been.
        """
        if room.slow_mode_s == 0 or member.moderates(room.id):
            return
        key, now = (room.id, member.id), self._clock.now_ms()
        spoken, by = self._spoken.get(key, (-(10**15), ""))
        wait_ms = spoken + room.slow_mode_s * 1000 - now
        if wait_ms > 0 and by != operation:
            raise Refused("slow_mode", retry_after_ms=wait_ms)
        self._spoken[key] = now, operation
        self._spoken.move_to_end(key)
        while len(self._spoken) > SPOKEN_MAX:
            self._spoken.popitem(last=False)


class Moderation:
    """Acts of moderators."""

    def __init__(self, db: Database, rooms: Rooms) -> None:
        self._db = db
        self._rooms = rooms

    async def remove_message(self, room: str, message: str, *, by: Member) -> None:
        """Take a message from every screen and from history, and log it; `not_found` if gone.

        Of one that is not kept any more the log has its id alone.
        """
        said = await self._rooms.said(room, message) or {}
        row: dict[str, Any] = {"id": new_id(), "room": room, "by": by.id, "act": "message.remove"}
        row |= {"message": message, "member": said.get("member"), "text": said.get("text")}

        def write(conn: Connection) -> None:
            conn.execute(insert(tables.moderation_log).values(**row, at=now_ms(conn)))

        # The log first: an act that fails after it is only logged twice when it is repeated.
        await self._db.write(write)
        await self._rooms.unsay(room, message)

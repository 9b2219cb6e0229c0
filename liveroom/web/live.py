"""HTTP for rooms: create, list, show, change; commands; logged events; the event stream."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from liveroom import moderation, rooms
from liveroom.arguments import fitting
from liveroom.commands import Commands, Services
from liveroom.errors import Denied, Invalid
from liveroom.events import Position
from liveroom.web.answers import answer
from liveroom.web.rates import Rates
from liveroom.web.reading import body, caller, json_object, member, paging, path_id

EVENTS_MAX: Final = 1000


class CommandBody(msgspec.Struct, kw_only=True):
    """The body that carries a command over HTTP."""

    cmd: str
    data: dict[str, Any] = {}


class Live:
    """The routes under `/v1/rooms`."""

    def __init__(self, services: Services, commands: Commands, rates: Rates) -> None:
        self._services = services
        self._commands = commands
        self._rates = rates

    def routes(self) -> list[Route]:
        """The routes, for the app."""
        return [
            Route("/v1/rooms", self.list_rooms, methods=["GET"]),
            Route("/v1/rooms", self.create_room, methods=["POST"]),
            Route("/v1/rooms/{room}", self.show_room, methods=["GET"]),
            Route("/v1/rooms/{room}", self.change_room, methods=["PATCH"]),
            Route("/v1/rooms/{room}/commands", self.run_command, methods=["POST"]),
            Route("/v1/rooms/{room}/events", self.read_events, methods=["GET"]),
        ]

    async def list_rooms(self, request: Request) -> Response:
        """Rooms, live ones first; `?state=` for planned, live or closed ones."""
        after, limit = paging(request)
        state = request.query_params.get("state")
        return answer(await self._services.rooms.rooms(state=state, after=after, limit=limit))

    async def create_room(self, request: Request) -> Response:
        """A planned room: by an admin, or a merchant for the own shop."""
        by = await member(request, self._services.auth)
        if not (by.admin or by.shops):
            raise Denied("forbidden")
        new = await body(request, rooms.NewRoom)
        if not (by.admin or (new.shop is not None and by.runs(new.shop))):
            raise Denied("forbidden")
        return answer(await self._services.rooms.create(new), 201)

    async def show_room(self, request: Request) -> Response:
        """The room, and beside its own fields the snapshot a joiner gets."""
        room = path_id(request, "room")
        await self._ensure_may_watch(request, room)
        picture = self._services.onair.shown(room) or await self._services.onair.draw(room)
        position = {"epoch": picture.epoch, "seq": picture.seq}
        time = {"time_ms": self._services.clock.now_ms(), "node": self._services.node}
        return answer({**picture.room, **position, **time, **picture.snapshot()})

    async def change_room(self, request: Request) -> Response:
        """The room's settings, by its host: the same as `room.set`."""
        by = await member(request, self._services.auth)
        room, data = path_id(request, "room"), await json_object(request)
        changed = await self._commands.run(room, by, "room.set", data)
        return answer(changed["room"])

    async def run_command(self, request: Request) -> Response:
        """Any command of the table, with the `ok` object as the answer."""
        by = await caller(request, self._services.auth)
        self._rates.take(request, by)
        sent = await json_object(request)
        try:
            command = fitting(sent, CommandBody)
        except Invalid as fault:
            raise Invalid("bad_frame", fault.message) from None
        if command.cmd == "room.join":
            raise Invalid("illegal_transition", "A seat is taken at /ws/{room} or /stream.")
        key = request.headers.get("idempotency-key")
        room = path_id(request, "room")
        return answer(await self._commands.run(room, by, command.cmd, command.data, key))

    async def read_events(self, request: Request) -> Response:
        """Logged events after `?since=<epoch>:<seq>`, at most 1,000 or a MiB; `next` continues.

        A position the log does not reach back to is `not_found`: take the snapshot.
        """
        room = path_id(request, "room")
        await self._ensure_may_watch(request, room)
        since = parse_since(request.query_params.get("since"))
        if since is None:
            raise Invalid("bad_argument", "`since` is <epoch>:<seq>.")
        backplane = self._services.backplane
        events = await backplane.read(room, since, EVENTS_MAX)
        if events is None:
            raise Invalid("not_found", "The log does not reach back to there; take the snapshot.")
        last = since._replace(seq=events[-1].seq or 0) if events else since
        position = f"{last.epoch}:{last.seq}"
        end = (await backplane.position([room]))[room]
        return answer(
            {
                "items": [event.on_wire() for event in events],
                "next": position if end != last else None,
                "position": position,
            }
        )

    async def _ensure_may_watch(self, request: Request, room: str) -> None:
        """`not_found`; where guests may not watch, who asks must be a member."""
        known = await self._services.onair.room(room)
        if not known.guests:
            by = await caller(request, self._services.auth)
            moderation.refuse_unless_may_watch(known, by)


def parse_since(text: str | None) -> Position | None:
    """`<epoch>:<seq>` as a position; none where there is none; else `bad_argument`."""
    if not text:
        return None
    epoch, colon, seq = text.rpartition(":")
    if not (colon and 0 < len(epoch) <= 64 and seq.isascii() and seq.isdecimal()) or len(seq) > 16:
        raise Invalid("bad_argument", "`since` is <epoch>:<seq>.")
    return Position(epoch, int(seq))

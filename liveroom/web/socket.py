"""`/ws/{room}`: one connection's conversation, from the handshake to its last command.

The route answers the handshake and leaves a conversation on the protocol's link; ASGI is done
with by then. The link gives the conversation one message after another, so that commands of
a connection run one by one and are answered in order, and a viewer who only watches costs
no task.
"""

from __future__ import annotations

import asyncio
import time
from time import monotonic
from typing import Any, Final

import structlog
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket

from liveroom.arguments import Join, fitting
from liveroom.auth import Member
from liveroom.commands import COMMANDS, Commands, Services
from liveroom.errors import Invalid, LiveroomError, Unavailable
from liveroom.events import Position
from liveroom.ids import is_id
from liveroom.metrics import counters
from liveroom.web.answers import internal, problem
from liveroom.web.seats import close_when_expired, member_of, take_seat
from liveroom.wire.codec import Command, Format, choose_format
from liveroom.wire.hub import Hub
from liveroom.wire.outbox import Line, Seat
from liveroom.wire.protocol import LINK
from liveroom.wire.session import (
    JOIN_TIMEOUT,
    JOIN_WITHIN_S,
    Session,
    close_code_of_join,
)

RENEW: Final = "token.renew"

log = structlog.get_logger(__name__)


class Socket:
    """The WebSocket route."""

    def __init__(
        self, services: Services, hub: Hub, commands: Commands, *, message_rate_max: float
    ) -> None:
        self.services = services
        self.hub = hub
        self.commands = commands
        self.message_rate_max = message_rate_max

    def routes(self) -> list[WebSocketRoute]:
        """The route, for the app."""
        return [WebSocketRoute("/ws/{room:path}", self.serve)]

    async def serve(self, websocket: WebSocket) -> None:
        """Refuse over HTTP, or accept and leave a conversation on the link."""
        room, fmt = websocket.path_params["room"], choose_format(websocket.scope["subprotocols"])
        try:
            await self._ensure_room(room, fmt)
        except LiveroomError as refusal:
            await websocket.send_denial_response(problem(refusal))
            return
        except Exception:
            log.exception("handshake_failed", room=room)
            await websocket.send_denial_response(internal())
            return
        offered = websocket.scope["subprotocols"]
        await websocket.accept(subprotocol=str(fmt) if offered and fmt else None)
        link: Line = websocket.scope["extensions"][LINK]
        link.converse(_Conversation(self, room=room, link=link, fmt=fmt or Format.JSON))

    async def _ensure_room(self, room: str, fmt: Format | None) -> None:
        if fmt is None:
            raise Invalid("bad_frame", "Offer liveroom.v1.json or liveroom.v1.msgpack.")
        if not is_id(room):
            raise Invalid("not_found")
        await self.services.onair.room(room)


class _Conversation:
    """One accepted connection; thousands of them only wait, so it is kept small."""

    __slots__ = ("_format", "_link", "_room", "_route", "_seat", "_session", "_timer")

    def __init__(self, route: Socket, *, room: str, link: Line, fmt: Format) -> None:
        self._route = route
        self._room = room
        self._link = link
        self._format = fmt
        self._session = Session(fmt, message_rate_max=route.message_rate_max)
        self._seat: Seat | None = None
        loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = loop.call_later(
            JOIN_WITHIN_S, link.close, JOIN_TIMEOUT
        )

    async def take(self, message: str | bytes) -> None:
        """Do what a frame asks, and answer it."""
        step = self._session.receive(message, monotonic())
        if step.answer is not None:
            self._write(step.answer)
        if step.close is not None:
            self._link.close(step.close)
        if step.command is not None and self._session.joined:
            self._write(await self._run(step.command))
        elif step.command is not None:
            await self._join(step.command)

    def on_end(self) -> None:
        """Give the seat back."""
        self._set_timer(None)
        if self._seat is not None:
            self._route.hub.leave(self._seat)

    def _set_timer(self, timer: asyncio.TimerHandle | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = timer

    async def _join(self, command: Command) -> None:
        try:
            asked = fitting(command.data, Join)
            member = await member_of(self._route.services, asked.token, asked.name)
            since = Position(asked.since.epoch, asked.since.seq) if asked.since else None
            self._seat = await take_seat(
                self._route.services,
                self._route.hub,
                self._room,
                self._link,
                self._format,
                member=member,
                re=command.id,
                since=since,
            )
        except Exception as fault:  # noqa: BLE001 - told as `internal` and logged by `_refusal`
            refusal = self._refusal(command, fault)
            self._link.write_frame(self._session.refuse(command, refusal))
            code = close_code_of_join(refusal)
            if code is not None:
                self._link.close(code)
            return
        self._session.joined = True
        self._set_timer(close_when_expired(self._route.services, member, self._link))

    async def _run(self, command: Command) -> bytes:
        began = time.perf_counter()
        try:
            return self._session.answer(command, await self._done(command))
        except Exception as fault:  # noqa: BLE001 - told as `internal` and logged by `_refusal`
            return self._session.refuse(command, self._refusal(command, fault))
        finally:
            counters.command_seconds.observe(time.perf_counter() - began)
            counters.count("commands", command.cmd if command.cmd in COMMANDS else "unknown")

    async def _done(self, command: Command) -> dict[str, Any]:
        seat = self._seat
        if seat is None or not isinstance(seat.member, Member):
            raise Unavailable("internal")
        answer = await self._route.commands.run(
            self._room, seat.member, command.cmd, command.data, command.key
        )
        if command.cmd == RENEW:
            seat.member = member = await self._route.services.auth.read(command.data["token"])
            seat.set_audience(crew=member.moderates(self._room))
            self._set_timer(close_when_expired(self._route.services, member, self._link))
        return answer

    def _refusal(self, command: Command, fault: Exception) -> LiveroomError:
        if not isinstance(fault, LiveroomError):
            log.error("command_failed", cmd=command.cmd[:64], room=self._room, exc_info=fault)
            fault = Unavailable("internal")
        counters.count("refusals", fault.code)
        return fault

    def _write(self, frame: bytes) -> None:
        if self._seat is not None:
            self._seat.send_frame(frame)
        else:
            self._link.write_frame(frame)

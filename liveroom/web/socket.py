"""`/ws/{room}`: one connection's conversation, from the handshake to its last command.

After accept nothing goes through ASGI `send`: every byte goes through the protocol's link,
since one frame is written to all viewers as it is. Commands of a connection run one after
another and are answered in order.
"""

from __future__ import annotations

import asyncio
import time
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
from liveroom.wire.outbox import Link, Seat
from liveroom.wire.session import (
    JOIN_TIMEOUT,
    JOIN_WITHIN_S,
    Session,
    close_code_of_join,
)

LINK: Final = "liveroom.link"

log = structlog.get_logger(__name__)


class Socket:
    """The WebSocket route."""

    def __init__(
        self, services: Services, hub: Hub, commands: Commands, *, message_rate_max: float
    ) -> None:
        self._services = services
        self._hub = hub
        self._commands = commands
        self._message_rate_max = message_rate_max

    def routes(self) -> list[WebSocketRoute]:
        """The route, for the app."""
        return [WebSocketRoute("/ws/{room}", self.serve)]

    async def serve(self, websocket: WebSocket) -> None:
        """Refuse over HTTP, or hold the conversation until either side ends it."""
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
        link: Link = websocket.scope["extensions"][LINK]
        conversation = _Conversation(
            self._services,
            self._hub,
            self._commands,
            room=room,
            link=link,
            fmt=fmt or Format.JSON,
            message_rate_max=self._message_rate_max,
        )
        await conversation.hold(websocket)

    async def _ensure_room(self, room: str, fmt: Format | None) -> None:
        if fmt is None:
            raise Invalid("bad_frame", "Offer liveroom.v1.json or liveroom.v1.msgpack.")
        if not is_id(room):
            raise Invalid("not_found")
        await self._services.onair.room(room)


class _Conversation:
    """One accepted connection."""

    def __init__(
        self,
        services: Services,
        hub: Hub,
        commands: Commands,
        *,
        room: str,
        link: Link,
        fmt: Format,
        message_rate_max: float,
    ) -> None:
        self._services = services
        self._hub = hub
        self._commands = commands
        self._room = room
        self._link = link
        self._format = fmt
        self._session = Session(fmt, message_rate_max=message_rate_max)
        self._seat: Seat | None = None
        self._loop = asyncio.get_running_loop()
        self._timers: list[asyncio.TimerHandle] = []

    async def hold(self, websocket: WebSocket) -> None:
        """Read frames and answer them until the connection ends."""
        join_timer = self._loop.call_later(JOIN_WITHIN_S, self._link.close, JOIN_TIMEOUT)
        self._timers.append(join_timer)
        try:
            while (message := await websocket.receive())["type"] == "websocket.receive":
                text = message.get("text")
                await self._take(text if text is not None else message["bytes"])
                if self._session.joined:
                    join_timer.cancel()
        finally:
            for timer in self._timers:
                timer.cancel()
            if self._seat is not None:
                self._hub.leave(self._seat)

    async def _take(self, frame: str | bytes) -> None:
        step = self._session.receive(frame, self._loop.time())
        if step.answer is not None:
            self._write(step.answer)
        if step.close is not None:
            self._link.close(step.close)
        if step.command is not None and self._session.joined:
            self._write(await self._run(step.command))
        elif step.command is not None:
            await self._join(step.command)

    async def _join(self, command: Command) -> None:
        try:
            asked = fitting(command.data, Join)
            member = await member_of(self._services, asked.token, asked.name)
            since = Position(asked.since.epoch, asked.since.seq) if asked.since else None
            self._seat = await take_seat(
                self._services,
                self._hub,
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
        timer = close_when_expired(self._services, member, self._link)
        if timer is not None:
            self._timers.append(timer)

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
        return await self._commands.run(
            self._room, seat.member, command.cmd, command.data, command.key
        )

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

"""uvicorn's two protocols, as this house needs them: bounded, and with a way for shared frames.

Rules: the viewer leaves its room before any close frame is written, on every path; nothing
is written after a close frame; a connection that must end is aborted when it does not end
by itself; reading is paused while writing is paused.

The application finds the connection in `scope["extensions"]["liveroom.link"]`. After accept
it receives through ASGI and sends through the link only (ASGI `send` waits for ever on a
paused transport).
"""

from __future__ import annotations

import asyncio
import email.utils
import functools
from collections.abc import Callable
from http import HTTPStatus
from time import monotonic
from typing import Any, Final, cast

from uvicorn._types import ASGIReceiveEvent
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState
from websockets.exceptions import PayloadTooBig, ProtocolError
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol

from liveroom.wire.codec import close_reason
from liveroom.wire.door import Door, Limits, Refusal
from liveroom.wire.outbox import Owner

FRAME_BYTES_MAX: Final = 64 * 1024
LINK: Final = "liveroom.link"

SHUTDOWN: Final = 4000
NO_PONG: Final = 4004
INVALID_TEXT: Final = 1007
REFUSED_WITHIN_S: Final = 1.0

_RECEIVED_MAX: Final = 16
_DATA: Final = (Opcode.TEXT, Opcode.BINARY)


def _answer(refusal: Refusal) -> bytes:
    body = refusal.text.encode()
    lines = [
        f"HTTP/1.1 {refusal.status} {HTTPStatus(refusal.status).phrase}",
        f"date: {email.utils.formatdate(usegmt=True)}",
        "content-type: text/plain; charset=utf-8",
        f"content-length: {len(body)}",
        "connection: close",
    ]
    if refusal.retry_after_s is not None:
        lines.append(f"retry-after: {refusal.retry_after_s}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def _address(transport: asyncio.BaseTransport) -> str:
    peer = transport.get_extra_info("peername")
    return str(peer[0]) if isinstance(peer, tuple) and peer else ""


def _say_last(transport: asyncio.Transport, data: bytes) -> None:
    """Send the last bytes and end our half: closing with unread input could undo them (RST)."""
    transport.write(data)
    if transport.can_write_eof():
        transport.write_eof()
    else:
        transport.close()


class RoomHttp(HttpToolsProtocol):
    """HTTP with a deadline and a size for headers, caps on connections, and a judged upgrade."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        door: Door,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._door = door
        self._peer = ""
        self._refusal: Refusal | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._header_bytes = 0
        self._answered = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Count the connection, and give its headers a deadline."""
        super().connection_made(transport)
        self._peer = _address(transport)
        self._refusal = self._door.enter(self._peer)
        if self._refusal is not None and self._door.is_flooded(self._peer):
            transport.abort()
            return
        self._await_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        """Give the connection's place back."""
        self._stop_deadline()
        self._door.leave(self._peer)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Feed the parser, within the bound on a request's headers."""
        if self._answered:
            return
        if self._deadline is not None:
            self._header_bytes += len(data)
            if self._header_bytes > self._door.limits.header_bytes_max:
                self._refuse(self._refusal or Refusal(431, "The request's headers are too large."))
                return
        super().data_received(data)

    def on_message_begin(self) -> None:
        """A request begins: its headers have a deadline."""
        super().on_message_begin()
        self._await_headers()

    def on_headers_complete(self) -> None:
        """Refuse where the door said so, else start the request."""
        if self._refusal is not None:
            return
        self._stop_deadline()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """The body of a refused request is not read."""
        if self._refusal is None:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Answer a refused request once it is whole, so that its sender reads the answer."""
        if self._refusal is None:
            super().on_message_complete()
        else:
            self._refuse(self._refusal)

    def handle_websocket_upgrade(self) -> None:
        """Hand the connection to the WebSocket protocol, unless the door refuses it."""
        refusal = self._refusal or self._door.judge(self.headers)
        if refusal is not None:
            self._refuse(refusal)
            return
        super().handle_websocket_upgrade()

    def _await_headers(self) -> None:
        if self._deadline is None:
            self._header_bytes = 0
            within_s = self._door.limits.header_timeout_s
            self._deadline = self.loop.call_later(within_s, self._too_late)

    def _stop_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_late(self) -> None:
        self._deadline = None
        self._refuse(self._refusal or Refusal(408, "The request's headers took too long."))

    def _refuse(self, refusal: Refusal) -> None:
        if self._answered or self.transport.is_closing():
            return
        self._answered = True
        self._stop_deadline()
        _say_last(self.transport, _answer(refusal))
        self._deadline = self.loop.call_later(REFUSED_WITHIN_S, self.transport.abort)


class _Frames(ServerProtocol):
    """The sans-I/O WebSocket, which counts fragments and control frames as they are parsed."""

    def __init__(self, limits: Limits, *, max_size: int, logger: Any) -> None:
        super().__init__(max_size=max_size, logger=logger)
        self._limits = limits
        self._fragments = 0
        self._controls = 0
        self._second_s = 0.0

    def recv_frame(self, frame: Frame) -> None:
        """Refuse one frame too many before it costs anything more."""
        if frame.opcode in _DATA:
            self._fragments = 1
        elif frame.opcode is Opcode.CONT:
            self._fragments += 1
            if self._fragments > self._limits.fragments_max:
                raise PayloadTooBig(self._fragments, self._limits.fragments_max)
        elif frame.opcode is not Opcode.CLOSE:
            self._count_control()
        super().recv_frame(frame)

    def _count_control(self) -> None:
        now_s = monotonic()
        if now_s - self._second_s >= 1:
            self._second_s, self._controls = now_s, 0
        self._controls += 1
        if self._controls > self._limits.control_frames_per_s_max:
            raise ProtocolError("too many control frames")


class RoomSocket(WebSocketsSansIOProtocol):
    """One WebSocket connection, and the link through which frames are written to it."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        door: Door,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.conn = _Frames(door.limits, max_size=config.ws_max_size, logger=self.conn.logger)
        self.owner: Owner | None = None
        self.paused = False
        self._door = door
        self._peer = ""
        self._busy = False
        self._leaving = False
        self._abort_timer: asyncio.TimerHandle | None = None

    # --- the link

    @property
    def buffered(self) -> int:
        """Bytes that wait in this process to be sent."""
        return self.transport.get_write_buffer_size()

    @property
    def write(self) -> Callable[[bytes], None]:
        """The transport's own write, without any check."""
        return self.transport.write

    def write_frame(self, frame: bytes) -> None:
        """Send a whole server frame; dropped once a close frame was sent."""
        if not self.close_sent and not self.transport.is_closing():
            self.transport.write(frame)

    def close(self, code: int, reason: str = "") -> None:
        """Leave the room, send a close frame, and be gone within 5 s.

        A code that asks the client to return (4000-4499) says after how long, at random.
        """
        self._leave()
        if self.close_sent or self.transport.is_closing():
            return
        if not self.handshake_complete or self.conn.state is not State.OPEN:
            self.transport.abort()
            return
        if not reason and 4000 <= code < 4500:
            reason = close_reason(self._door.after_ms())
        self.stop_keepalive()
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})
        self.conn.send_close(code, reason)
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self._pace_reading()
        within_s = self._door.limits.close_within_s
        self.close_timer = self.loop.call_later(within_s, self.transport.abort)

    def _leave(self) -> None:
        owner, self.owner = self.owner, None
        if owner is not None:
            owner.on_lost()

    def _end_soon(self) -> None:
        """Abort a closing connection whose peer does not take what is still to be sent."""
        if self.disconnected:
            return
        if self._abort_timer is not None:
            self._abort_timer.cancel()
        within_s = self._door.limits.close_within_s
        self._abort_timer = self.loop.call_later(within_s, self.transport.abort)

    # --- the transport's callbacks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection over from HTTP, with its water marks."""
        super().connection_made(transport)
        self._peer = _address(transport)
        limits = self._door.limits
        self.transport.set_write_buffer_limits(high=limits.high_water, low=limits.low_water)

    def connection_lost(self, exc: Exception | None) -> None:
        """Leave the room, and give the connection's place back."""
        self._leave()
        if self._abort_timer is not None:
            self._abort_timer.cancel()
        self._door.leave(self._peer)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Feed the parser; a request that is no handshake gets its answer and is closed."""
        if self.conn.parser_exc is not None:
            return
        super().data_received(data)
        if not self.handshake_initiated and not self.transport.is_closing():
            self.transport.write(b"".join(self.conn.data_to_send()))
            self.transport.close()

    def eof_received(self) -> None:
        """The peer sends no more: the transport closes, in a bounded time."""
        self._leave()
        self._end_soon()

    def pause_writing(self) -> None:
        """The peer is slow: tell the owner, and read no more of it."""
        super().pause_writing()
        self.paused = True
        self._pace_reading()
        if self.owner is not None:
            self.owner.on_pause()

    def resume_writing(self) -> None:
        """The peer has caught up with what was sent."""
        super().resume_writing()
        self.paused = False
        self._pace_reading()
        if self.owner is not None:
            self.owner.on_resume()

    def _pace_reading(self) -> None:
        """Read while the application keeps up and the peer takes its answers."""
        full = self.paused or self._leaving or self.queue.qsize() >= _RECEIVED_MAX
        pause = full and not self.close_sent
        if pause == self.read_paused or self.transport.is_closing():
            return
        self.read_paused = pause
        if pause:
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()

    # --- what arrives

    def send_receive_event_to_app(self) -> None:
        """Queue one whole message for the application."""
        data = self.frames[0] if len(self.frames) == 1 else b"".join(self.frames)
        self.frames = []
        if self.close_sent or self._leaving:
            return
        if self.curr_msg_data_type != "text":
            self.queue.put_nowait({"type": "websocket.receive", "bytes": bytes(data)})
        else:
            try:
                text = data.decode()
            except UnicodeDecodeError:
                self._leave()
                self.conn.fail(INVALID_TEXT, "invalid UTF-8")
                self.handle_parser_exception()
                return
            self.queue.put_nowait({"type": "websocket.receive", "text": text})
        self._pace_reading()

    async def receive(self) -> ASGIReceiveEvent:
        """The next message; while the server shuts down, the end of the conversation."""
        self._busy = False
        if self._leaving and not self.close_sent:
            self.close(SHUTDOWN)
        message = await self.queue.get()
        self._busy = message["type"] == "websocket.receive"
        self._pace_reading()
        return message

    async def run_asgi(self) -> None:
        """Run the application with this connection in its scope."""
        extensions = cast("dict[str, Any]", self.scope["extensions"])
        extensions[LINK] = self
        try:
            await super().run_asgi()
        finally:
            self._leave()
            self._end_soon()

    def handle_ping(self) -> None:
        """Answer a ping, unless a close frame was sent already."""
        if self.close_sent:
            self.conn.data_to_send()
        else:
            super().handle_ping()

    def handle_close(self, event: Frame) -> None:
        """The peer closes, or answers our close."""
        self._leave()
        super().handle_close(event)
        self._end_soon()

    def handle_parser_exception(self) -> None:
        """The peer broke the protocol: say so, end our half, and read no more of what it says."""
        self._leave()
        sent = self.conn.close_sent
        if sent is None or self.close_sent:
            self.transport.close()
        else:
            self.close_sent = True
            self.stop_keepalive()
            end = {"type": "websocket.disconnect", "code": sent.code, "reason": sent.reason}
            self.queue.put_nowait(cast("ASGIReceiveEvent", end))
            self._pace_reading()
            self.close_timer = self.loop.call_later(
                self._door.limits.close_within_s, self.transport.abort
            )
            _say_last(self.transport, b"".join(self.conn.data_to_send()))

    def keepalive_timeout(self) -> None:
        """A ping had no pong in time."""
        self.pong_timer = None
        self.pending_ping_payload = None
        self.close(NO_PONG)

    # --- the end of the server

    def shutdown(self) -> None:
        """Let the running command finish, then close 4000 with this viewer's own `after_ms`."""
        self._leaving = True
        if not self.handshake_complete:
            if not self.transport.is_closing():
                self.transport.write(_answer(Refusal(503, "The server is about to stop.", 1)))
                self.transport.close()
        elif self._busy and not self.close_sent:
            self._pace_reading()
            within_s = self._door.limits.command_within_s
            self._abort_timer = self.loop.call_later(within_s, self.close, SHUTDOWN)
        else:
            self.close(SHUTDOWN)


def protocols(door: Door) -> tuple[Callable[..., RoomHttp], Callable[..., RoomSocket]]:
    """The two protocols of one door, for uvicorn's `http` and `ws`; they can be pickled."""
    return functools.partial(RoomHttp, door=door), functools.partial(RoomSocket, door=door)

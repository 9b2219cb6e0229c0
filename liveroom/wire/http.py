"""uvicorn's HTTP protocol, as this house needs it: bounded, and with a judged upgrade.

Rules: headers have a deadline and a size; who is refused reads why; HTTP is parsed once, and
nothing of it stays once a connection is a WebSocket.
"""

from __future__ import annotations

import asyncio
import fcntl
import socket
import struct
import termios
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import unquote

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from liveroom.wire.door import Door, Refusal
from liveroom.wire.upgrade import judge, refusal_answer

if TYPE_CHECKING:
    from liveroom.wire.protocol import RoomSocket

REFUSED_WITHIN_S: Final = 1.0
CUT: Final = "liveroom.cut"
"""Where a request finds, in its scope's extensions, what ends its connection at once."""
_NO_LINGER: Final = struct.pack("ii", 1, 0)


def _address(transport: asyncio.BaseTransport) -> str:
    peer = transport.get_extra_info("peername")
    return str(peer[0]) if isinstance(peer, tuple) and peer else ""


def say_last(transport: asyncio.Transport, data: bytes) -> None:
    """Send the last bytes and end our half: closing with unread input could undo them (RST)."""
    transport.write(data)
    if transport.can_write_eof():
        transport.write_eof()
    else:
        transport.close()


def cut(transport: asyncio.Transport) -> None:
    """End a connection at once; what its peer did not take is forgotten, with a reset.

    Without it the kernel would keep a full send buffer for minutes, for a peer that reads none.
    """
    sock = transport.get_extra_info("socket")
    waiting = fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4))
    if any(waiting):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
    transport.abort()


def _cut_open(transport: asyncio.Transport) -> None:
    if not transport.is_closing():
        cut(transport)


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
        self._address = ""
        self._refusal: Refusal | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._head_bytes = 0  # that came since there was a body, or headers ended
        self._answered = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Count the connection, and give its headers a deadline."""
        super().connection_made(transport)
        self._peer = self._address = _address(transport)
        self._refusal = self._door.enter(self._peer)
        if self._refusal is not None and self._door.is_flooded(self._peer):
            transport.abort()
            return
        self._await_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        """Give the connection's place back."""
        self._stop_deadline()
        self._door.leave(self._address)
        super().connection_lost(exc)
        self._let_go()

    def data_received(self, data: bytes) -> None:
        """Feed the parser in pieces that what is no body has room for: a body may come along.

        What of a piece belongs to the next request, or stands behind the last byte of a body,
        is not counted: there the bound is just under twice `header_bytes_max`.
        """
        most = self._door.limits.header_bytes_max
        while data and not (self._answered or self.transport.is_closing() or self.parser is None):
            if self._head_bytes == most:
                self._too_large()
                return
            room = most - self._head_bytes
            piece, data = data[:room], data[room:]
            self._head_bytes += len(piece)
            super().data_received(piece)

    def on_message_begin(self) -> None:
        """A request begins: its headers have a deadline."""
        super().on_message_begin()
        cast("dict[str, Any]", self.scope)["extensions"] = {
            # Not a method of ours: the scope would keep this object, and this one the scope.
            CUT: partial(_cut_open, self.transport)
        }
        self._await_headers()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header; a trailer is passed over, since nobody here reads any."""
        if self._deadline is not None:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Refuse where the door said so, else start the request."""
        behind = self._door.address_behind(self._peer, self.headers)
        if behind is not None and behind != self._address:
            self._refusal = self._door.move(self._address, behind)
            self._address = behind
        if self._refusal is not None:
            return
        self._stop_deadline()
        self._head_bytes = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """The body of a refused request is not read."""
        if self._refusal is None:
            self._head_bytes = 0
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Answer a refused request once it is whole, so that its sender reads the answer."""
        if self._refusal is None:
            super().on_message_complete()
        else:
            self._refuse(self._refusal)

    def handle_websocket_upgrade(self) -> None:
        """Hand the connection to the WebSocket protocol, unless the door refuses it."""
        scope = cast("dict[str, Any]", self.scope)
        judged: bytes | Refusal = (
            self._refusal
            or self._door.judge(self.headers)
            or judge(scope["method"], scope["http_version"], self.headers)
        )
        if isinstance(judged, Refusal):
            self._refuse(judged)
            return
        self.connections.discard(self)
        made = cast("Callable[..., RoomSocket]", self.ws_protocol_class)
        socket = made(self.config, self.server_state, self.app_state, self.loop)
        socket.upgrade(self.transport, self._websocket_scope(), judged, self._address)
        self.transport.set_protocol(socket)
        self._let_go()

    def _websocket_scope(self) -> dict[str, Any]:
        raw_path, _, query = self.url.partition(b"?")
        offered = [value for name, value in self.headers if name == b"sec-websocket-protocol"]
        names = b",".join(offered).decode("latin-1").split(",")
        path = self.root_path + unquote(raw_path.decode("ascii", "replace"))
        return dict(self.scope) | {
            "type": "websocket",
            "scheme": "wss" if self.scheme == "https" else "ws",
            "path": path,
            "raw_path": self.root_path.encode() + raw_path,
            "query_string": query,
            "subprotocols": [name.strip() for name in names if name.strip()],
            "extensions": {"websocket.http.response": {}},
        }

    def _await_headers(self) -> None:
        if self._deadline is None:
            self._head_bytes = 0
            within_s = self._door.limits.header_timeout_s
            self._deadline = self.loop.call_later(within_s, self._too_late)

    def _stop_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _let_go(self) -> None:
        """Forget who knows this object: it goes at once then, and not when cycles are sought."""
        self.parser = None  # type: ignore[assignment]
        self.cycle = None  # type: ignore[assignment]
        self.pipeline.clear()

    def _too_late(self) -> None:
        self._deadline = None
        self._refuse(
            self._refusal or Refusal(408, "bad_frame", "The request's headers took too long.")
        )

    def _too_large(self) -> None:
        """Refuse headers that are too large; who goes on so behind them is cut, answered or not.

        That are trailers, or what stands beside a chunk: the parser would gather it without end.
        """
        if self._deadline is None:
            cut(self.transport)
        else:
            text = "The request's headers are too large."
            self._refuse(self._refusal or Refusal(431, "bad_frame", text))

    def _refuse(self, refusal: Refusal) -> None:
        if self._answered or self.transport.is_closing():
            return
        self._answered = True
        self._stop_deadline()
        say_last(self.transport, refusal_answer(refusal))
        self._deadline = self.loop.call_later(REFUSED_WITHIN_S, cut, self.transport)

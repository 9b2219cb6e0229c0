"""The WebSocket handshake: judged, carried through the application, answered (RFC 6455, 4.2).

HTTP has been parsed by then, once. The application accepts or refuses over ASGI as ever; it
receives nothing but the connect and the end, since messages go to the conversation it leaves
on the link. What a handshake needs is forgotten when the application returns.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import email.utils
import hashlib
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from http import HTTPStatus
from typing import Any, Final, Protocol

import msgspec

from liveroom import errors
from liveroom.wire.door import Refusal

log = logging.getLogger("liveroom.wire")

Headers = Sequence[tuple[bytes, bytes]]
Message = dict[str, Any]
App = Callable[
    [Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]],
    Awaitable[None],
]

_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_VERSION: Final = b"13"


class Upgraded(Protocol):
    """The connection, as a handshake sees it."""

    def accept(self, answer: bytes) -> None:
        """Send the 101; frames follow."""

    def refuse(self, answer: bytes) -> None:
        """Send another answer, and end."""

    def settle(self) -> None:
        """The application has returned."""


def judge(method: str, version: str, headers: Headers) -> bytes | Refusal:
    """The `Sec-WebSocket-Accept` of a handshake, or why it is none."""
    keys = [value for name, value in headers if name == b"sec-websocket-key"]
    versions = [value for name, value in headers if name == b"sec-websocket-version"]
    if method != "GET" or version != "1.1":
        return Refusal(400, "bad_frame", "A WebSocket handshake is a GET of HTTP/1.1.")
    if versions != [_VERSION]:
        return Refusal(426, "bad_frame", "WebSocket version 13 is spoken here.")
    try:
        known = len(keys) == 1 and len(base64.b64decode(keys[0], validate=True)) == 16
    except binascii.Error:
        known = False
    if not known:
        return Refusal(400, "bad_frame", "Sec-WebSocket-Key must be 16 bytes in base64.")
    return base64.b64encode(hashlib.sha1(keys[0] + _GUID, usedforsecurity=False).digest())


def refusal_answer(refusal: Refusal) -> bytes:
    """The HTTP answer that tells a refusal as problem+json and ends the connection."""
    headers = [(b"content-type", errors.PROBLEM.encode())]
    wire: dict[str, Any] = {"code": refusal.code, "message": refusal.text}
    wire["retry"] = refusal.code in errors.UNAVAILABLE
    if refusal.retry_after_s is not None:
        wire["retry_after_ms"] = refusal.retry_after_s * 1000
    if refusal.retry_after_s is not None:
        headers.append((b"retry-after", str(refusal.retry_after_s).encode()))
    if refusal.status == HTTPStatus.UPGRADE_REQUIRED:
        headers.append((b"sec-websocket-version", _VERSION))
    body = msgspec.json.encode(errors.problem(refusal.status, wire))
    return _answer(refusal.status, headers, body)


def _answer(status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> bytes:
    own = {
        b"date": email.utils.formatdate(usegmt=True).encode(),
        b"content-length": str(len(body)).encode(),
        b"connection": b"close",
    }
    told = [(name, value) for name, value in headers if name.lower() not in own]
    return _head(status, [*own.items(), *told]) + body


def _head(status: int, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}".encode()]
    lines += [name + b": " + value for name, value in headers]
    return b"\r\n".join([*lines, b"", b""])


class Upgrade:
    """One handshake on its way through the application."""

    __slots__ = ("_accept", "_answered", "_ended", "_refusal", "_scope", "_socket", "_told")

    def __init__(self, socket: Upgraded, scope: Message, accept: bytes) -> None:
        self._socket = socket
        self._scope = scope
        self._accept = accept
        self._answered = False
        self._told = False
        self._refusal: tuple[int, list[tuple[bytes, bytes]], bytes] | None = None
        self._ended = asyncio.Event()

    async def run(self, app: App) -> None:
        """Let the application answer; 500 where it does not."""
        try:
            await app(self._scope, self._receive, self._send)
        except Exception:
            log.exception("the application failed in a handshake")
        finally:
            if not self._answered:
                self._socket.refuse(refusal_answer(Refusal(500, "internal", "The server failed.")))
            self._socket.settle()

    def on_end(self) -> None:
        """The connection is closing or gone."""
        self._ended.set()

    async def _receive(self) -> Message:
        if not self._told:
            self._told = True
            return {"type": "websocket.connect"}
        await self._ended.wait()
        return {"type": "websocket.disconnect", "code": 1006}

    async def _send(self, message: Message) -> None:
        kind = message["type"]
        if self._answered:
            raise RuntimeError(f"{kind}: after accept, frames go through the link.")
        if kind == "websocket.accept":
            self._answered = True
            self._socket.accept(self._switch(message))
        elif kind == "websocket.http.response.start":
            self._refusal = (message["status"], list(message.get("headers", ())), b"")
        elif kind == "websocket.http.response.body":
            self._take_body(message)
        else:
            self._answered = True
            self._socket.refuse(refusal_answer(Refusal(403, "forbidden", "This seat is refused.")))

    def _take_body(self, message: Message) -> None:
        status, headers, body = self._refusal or (500, [], b"")
        body += message.get("body", b"")
        if message.get("more_body"):
            self._refusal = (status, headers, body)
            return
        self._answered = True
        self._socket.refuse(_answer(status, headers, body))

    def _switch(self, message: Message) -> bytes:
        headers = [
            (b"upgrade", b"websocket"),
            (b"connection", b"Upgrade"),
            (b"sec-websocket-accept", self._accept),
            *message.get("headers", ()),
        ]
        if message.get("subprotocol"):
            headers.append((b"sec-websocket-protocol", message["subprotocol"].encode()))
        return _head(101, headers)

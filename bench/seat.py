"""A WebSocket client cheap enough not to be what is measured.

It reads frames without looking inside and masks with zeros (RFC 6455 asks for a mask, not for
a good one), so that a thousand of them cost a fraction of what serving them costs.
"""

from __future__ import annotations

import asyncio
import base64
import functools
import json
import os
import re
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import urlsplit

OnFrame = Callable[["Seat", bytes], None]
OnJoined = Callable[["Seat", dict[str, Any]], None]

RETURNS_MAX: Final = 50
"""How often who is told 503 comes again."""

_RETRY: Final = re.compile(r"retry-after: (\d+)", re.IGNORECASE)


class Seat(asyncio.Protocol):
    """One connection to a room; every data frame's payload goes to `on_frame`."""

    __slots__ = (
        "_buffer", "_opened", "_request", "closed", "count", "expected", "number", "on_frame",
        "transport", "waiting",
    )  # fmt: skip

    def __init__(self, request: bytes, number: int) -> None:
        self._request = request
        self._buffer = b""
        self._opened = False
        self.number = number
        self.on_frame: OnFrame = _ignore
        self.transport: asyncio.Transport | None = None
        self.waiting: asyncio.Future[Any] | None = asyncio.get_running_loop().create_future()
        self.closed: str | None = None
        self.expected = 0
        self.count = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the upgrade."""
        self.transport = transport  # type: ignore[assignment]
        transport.write(self._request)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        """Cut the bytes into frames."""
        if self._buffer:
            data = self._buffer + data
        at = 0 if self._opened else self._open(data)
        if at < 0:
            self._buffer = data
            return
        size = len(data)
        while size - at >= 2:
            length, start = data[at + 1], at + 2
            if length == 126:
                length, start = int.from_bytes(data[at + 2 : at + 4], "big"), at + 4
            elif length == 127:
                length, start = int.from_bytes(data[at + 2 : at + 10], "big"), at + 10
            if size < start + length:
                break
            opcode = data[at] & 15
            at = start + length
            if opcode <= 2:
                self.on_frame(self, data[start:at])
            else:
                self._control(opcode, data[start:at])
        self._buffer = data[at:] if at < size else b""

    def connection_lost(self, fault: Exception | None) -> None:
        """Remember why."""
        self.transport = None
        self.closed = self.closed or f"lost: {fault}"
        if self.waiting is not None and not self.waiting.done():
            self.waiting.set_exception(ConnectionError(self.closed))

    def send(self, payload: bytes) -> None:
        """Send one text frame."""
        size = len(payload)
        short = size < 126
        head = bytes((0x81, 0x80 | size)) if short else b"\x81\xfe" + size.to_bytes(2, "big")
        if self.transport is not None:
            self.transport.write(head + b"\0\0\0\0" + payload)

    def close(self) -> None:
        """Cut the connection; a ping that was read with the last bytes gets no answer."""
        if self.transport is not None:
            self.transport.abort()
            self.transport = None

    def _open(self, data: bytes) -> int:
        end = data.find(b"\r\n\r\n")
        if end < 0:
            return -1
        if not data.startswith(b"HTTP/1.1 101"):
            self.closed = data[:200].decode(errors="replace")
            self.close()
            return -1
        self._opened = True
        self._set(None)
        return end + 4

    def _control(self, opcode: int, payload: bytes) -> None:
        if opcode == 9 and self.transport is not None:
            self.transport.write(bytes((0x8A, 0x80 | len(payload))) + b"\0\0\0\0" + payload)
        elif opcode == 8:
            self.closed = f"closed {int.from_bytes(payload[:2], 'big')} {payload[2:]!r}"
            if self.transport is not None:
                code = payload[:2] or b"\x03\xe8"
                self.transport.write(b"\x88\x82\0\0\0\0" + code)
                self.transport.close()

    def _set(self, value: Any) -> None:
        if self.waiting is not None and not self.waiting.done():
            self.waiting.set_result(value)


def retry_after_s(said: str) -> int | None:
    """In how many seconds to come again, where the upgrade was refused for now with 503."""
    found = _RETRY.search(said) if said.startswith("HTTP/1.1 503") else None
    return None if found is None else int(found[1])


async def connect(
    url: str,
    path: str,
    number: int,
    *,
    protocol: str | None = None,
    on_frame: OnFrame | None = None,
) -> Seat:
    """A seat whose upgrade was accepted; `on_frame` misses no frame. Raises ConnectionError."""
    address = urlsplit(url)
    key = base64.b64encode(os.urandom(16)).decode()
    offer = "" if protocol is None else f"Sec-WebSocket-Protocol: {protocol}\r\n"
    request = (
        f"GET {path} HTTP/1.1\r\nHost: {address.netloc}\r\nUpgrade: websocket\r\n"
        f"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n"
        f"{offer}\r\n"
    ).encode()

    def seat() -> Seat:
        made = Seat(request, number)
        made.on_frame = on_frame or _ignore
        return made

    _, made = await asyncio.get_running_loop().create_connection(
        seat, address.hostname or "", address.port or 80
    )
    assert made.waiting is not None
    await made.waiting
    return made


async def join(
    url: str,
    room: str,
    number: int,
    token: str | None = None,
    *,
    since: dict[str, Any] | None = None,
    on_joined: OnJoined | None = None,
) -> tuple[Seat, dict[str, Any]]:
    """A seat that has joined, and the `ok` of its join.

    `on_joined` is called with both before any frame that follows the answer. Raises
    `ConnectionError` with what the server said.
    """
    seat = await connect(url, f"/ws/{room}", number, protocol="liveroom.v1.json")
    answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
    seat.waiting = answer
    seat.on_frame = functools.partial(_take_answer, on_joined)
    data = {"token": token, "since": since}
    data = {name: value for name, value in data.items() if value is not None}
    seat.send(json.dumps({"id": 0, "cmd": "room.join", "data": data}).encode())
    return seat, await answer


def _take_answer(on_joined: OnJoined | None, seat: Seat, payload: bytes) -> None:
    message = json.loads(payload)[0]
    assert seat.waiting is not None
    seat.on_frame = _ignore
    if "ok" in message:
        if on_joined is not None:
            on_joined(seat, message["ok"])
        seat.waiting.set_result(message["ok"])
    else:
        seat.waiting.set_exception(ConnectionError(json.dumps(message)))
    seat.waiting = None


def _ignore(_seat: Seat, _payload: bytes) -> None:
    """Frames nobody waits for."""

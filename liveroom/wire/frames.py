"""A client's WebSocket frames, cut from bytes and put together to messages (RFC 6455).

Sans I/O: bytes in, messages out. What breaks the protocol or its bounds raises `Broken` and
ends the conversation; nothing is kept that no limit bounds, and a connection between two
messages keeps nothing at all.
"""

from __future__ import annotations

from enum import IntEnum
from time import monotonic
from typing import Final, NamedTuple

PROTOCOL_ERROR: Final = 1002
INVALID_TEXT: Final = 1007
TOO_BIG: Final = 1009

CONTROL_BYTES_MAX: Final = 125
REASON_BYTES_MAX: Final = 123


class Opcode(IntEnum):
    """The kinds of frame (section 5.2)."""

    CONT = 0
    TEXT = 1
    BINARY = 2
    CLOSE = 8
    PING = 9
    PONG = 10


_KNOWN: Final = frozenset(Opcode)
_CLOSE_CODES: Final = frozenset({1000, 1001, 1002, 1003, *range(1007, 1015)})


class Broken(Exception):
    """The peer broke the protocol; the code and the reason to close with."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class Frame(NamedTuple):
    """One frame as it came in, unmasked; `size` is what it took on the wire."""

    opcode: int
    fin: bool
    payload: bytes
    size: int


class Frames:
    """The receiving half of one connection.

    Args:
        message_bytes_max: Bytes of one message; more is refused at the frame's head.
        fragments_max: Frames of one message.
        control_frames_per_s_max: Pings and pongs a second.
    """

    __slots__ = (
        "_buffer",
        "_bytes_max",
        "_controls",
        "_controls_max",
        "_fragments_max",
        "_needed",
        "_opcode",
        "_parts",
        "_second_s",
        "_size",
    )

    def __init__(
        self, *, message_bytes_max: int, fragments_max: int, control_frames_per_s_max: int
    ) -> None:
        self._bytes_max = message_bytes_max
        self._fragments_max = fragments_max
        self._controls_max = control_frames_per_s_max
        self._buffer: bytearray | None = None
        self._needed = 0
        self._opcode = 0
        self._parts: list[bytes] | None = None
        self._size = 0
        self._controls = 0
        self._second_s = 0.0

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """The whole messages and control frames that end in `data`, by opcode, in order.

        Raises `Broken`; what came whole before it in the same bytes is dropped with it.
        """
        if self._buffer is not None:
            self._buffer += data
            if len(self._buffer) < self._needed:
                return []
            data, self._buffer = bytes(self._buffer), None
        found: list[tuple[int, bytes]] = []
        at = 0
        while (frame := self._cut(data, at)) is not None:
            at += frame.size
            self._take(frame, found)
        if at < len(data):
            self._buffer = bytearray(data[at:])
        return found

    def _cut(self, data: bytes, at: int) -> Frame | None:
        """The frame that begins at `at`; None, and what it needs noted, while it is not whole."""
        there = len(data) - at
        if there < 2:
            return self._lack(2)
        opcode, fin = self._read_head(data[at], data[at + 1])
        length, head = data[at + 1] & 0x7F, 6
        if length >= 126:
            wide = 2 if length == 126 else 8
            head += wide
            if there < 2 + wide:
                return self._lack(2 + wide)
            length = int.from_bytes(data[at + 2 : at + 2 + wide], "big")
        if opcode <= Opcode.BINARY and self._size + length > self._bytes_max:
            raise Broken(TOO_BIG, f"a message holds at most {self._bytes_max} bytes")
        size = head + length
        if there < size:
            return self._lack(size)
        body = at + head
        payload = unmasked(data[body : at + size], data[body - 4 : body])
        return Frame(opcode, fin, payload, size)

    def _lack(self, needed: int) -> Frame | None:
        self._needed = needed
        return None

    def _read_head(self, first: int, second: int) -> tuple[int, bool]:
        opcode, fin = first & 0x0F, bool(first & 0x80)
        if first & 0x70:
            raise Broken(PROTOCOL_ERROR, "reserved bits must be 0")
        if opcode not in _KNOWN:
            raise Broken(PROTOCOL_ERROR, "unknown opcode")
        if not second & 0x80:
            raise Broken(PROTOCOL_ERROR, "frames of clients are masked")
        if opcode >= Opcode.CLOSE:
            if not fin or second & 0x7F > CONTROL_BYTES_MAX:
                raise Broken(PROTOCOL_ERROR, "a control frame is whole and at most 125 bytes")
        elif (opcode == Opcode.CONT) is (self._parts is None):
            raise Broken(PROTOCOL_ERROR, "a fragment out of place")
        return opcode, fin

    def _take(self, frame: Frame, found: list[tuple[int, bytes]]) -> None:
        opcode, fin, payload, _ = frame
        if opcode >= Opcode.CLOSE:
            if opcode != Opcode.CLOSE:
                self._count_control()
            found.append((opcode, payload))
        elif fin and self._parts is None:
            found.append((opcode, payload))
        else:
            self._gather(frame)
            if fin and self._parts is not None:
                found.append((self._opcode, b"".join(self._parts)))
                self._parts, self._size = None, 0

    def _gather(self, frame: Frame) -> None:
        if self._parts is None:
            self._opcode, self._parts = frame.opcode, []
        self._parts.append(frame.payload)
        self._size += len(frame.payload)
        if len(self._parts) > self._fragments_max:
            raise Broken(TOO_BIG, f"a message has at most {self._fragments_max} fragments")

    def _count_control(self) -> None:
        now_s = monotonic()
        if now_s - self._second_s >= 1:
            self._second_s, self._controls = now_s, 0
        self._controls += 1
        if self._controls > self._controls_max:
            raise Broken(PROTOCOL_ERROR, "too many control frames")


def unmasked(payload: bytes, mask: bytes) -> bytes:
    """The payload under its four mask bytes (section 5.3)."""
    size = len(payload)
    if mask == b"\0\0\0\0":
        return payload
    key = int.from_bytes((mask * (size // 4 + 1))[:size], "little")
    return (int.from_bytes(payload, "little") ^ key).to_bytes(size, "little")


def control_frame(opcode: Opcode, payload: bytes) -> bytes:
    """A server's control frame, whole."""
    return bytes((0x80 | opcode, len(payload))) + payload


def close_frame(code: int, reason: str = "") -> bytes:
    """A server's close frame, whole; a reason too long for one is cut."""
    text = reason.encode()[:REASON_BYTES_MAX].decode(errors="ignore").encode()
    return control_frame(Opcode.CLOSE, code.to_bytes(2, "big") + text)


def answer_to_close(payload: bytes) -> bytes:
    """The close frame that answers a peer's: its own code, or what is wrong with it."""
    if not payload:
        return control_frame(Opcode.CLOSE, b"")
    code = int.from_bytes(payload[:2], "big")
    if len(payload) == 1 or not (code in _CLOSE_CODES or 3000 <= code < 5000):
        return close_frame(PROTOCOL_ERROR, "invalid close code")
    try:
        payload[2:].decode()
    except UnicodeDecodeError:
        return close_frame(INVALID_TEXT, "invalid UTF-8")
    return control_frame(Opcode.CLOSE, payload)

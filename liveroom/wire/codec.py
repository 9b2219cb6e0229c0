"""Frames to commands, messages to frames: the two wire formats of protocol v1.

Nothing here awaits, and nothing here knows what a command means. Server frames are built by
hand, because one frame is written to every viewer of a room as it is (RFC 6455, section
5.2: a server does not mask).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, Final, NamedTuple

import msgpack  # type: ignore[import-untyped]
import msgspec
import orjson

from liveroom.errors import Invalid, LiveroomError

COMMAND_BYTES_MAX: Final = 16 * 1024
KEY_LENGTH_MAX: Final = 64


class Format(StrEnum):
    """A wire format, named by its WebSocket subprotocol.

    `STREAM` is JSON in server-sent events, for where WebSocket is blocked.
    """

    JSON = "liveroom.v1.json"
    MSGPACK = "liveroom.v1.msgpack"
    STREAM = "stream"


SUBPROTOCOLS: Final = (Format.JSON, Format.MSGPACK)
_BY_NAME: Final = {str(fmt): fmt for fmt in SUBPROTOCOLS}


def choose_format(offered: Sequence[str]) -> Format | None:
    """The first offered format we know; JSON when none is offered, None when none is known."""
    if not offered:
        return Format.JSON
    return next((_BY_NAME[name] for name in offered if name in _BY_NAME), None)


class Command(msgspec.Struct, frozen=True, gc=False):
    """One command of a client. `content` digests command and data, as sent."""

    id: int
    cmd: str
    data: dict[str, Any]
    key: str | None
    content: bytes


class BadFrame(Invalid):
    """A frame that is no command; `re` is its id where that could be read."""

    def __init__(self, why: str, re: int | None = None) -> None:
        super().__init__("bad_frame", why)
        self.re = re


def decode_command(frame: str | bytes, fmt: Format) -> Command:
    """The command in a frame, whose data is plain values only.

    Raises `BadFrame` for what is no `{id, cmd, data}` or is over 16 KiB. A doubled key
    counts once, with its last value.
    """
    value = _load(frame, fmt)
    if not isinstance(value, dict):
        raise BadFrame("A frame must be an object.")
    re = value.get("id")
    if not isinstance(re, int) or isinstance(re, bool):
        raise BadFrame("`id` must be an integer.")
    if _bytes_of(frame) > COMMAND_BYTES_MAX:
        raise BadFrame("A frame holds at most 16 KiB.", re)
    cmd, data, key = value.get("cmd"), value.get("data"), value.get("key")
    if not isinstance(cmd, str):
        raise BadFrame("`cmd` must be text.", re)
    if not isinstance(data, dict):
        raise BadFrame("`data` must be an object.", re)
    if key is not None and not (isinstance(key, str) and 1 <= len(key) <= KEY_LENGTH_MAX):
        raise BadFrame("`key` must be text of 1 to 64 characters.", re)
    return Command(re, cmd, data, key, _content(cmd, data, re))


def _load(frame: str | bytes, fmt: Format) -> Any:
    try:
        if fmt is Format.MSGPACK:
            if isinstance(frame, str):
                raise BadFrame("This connection speaks msgpack, in binary frames.")
            return msgpack.unpackb(frame)
        if isinstance(frame, bytes):
            raise BadFrame("This connection speaks JSON, in text frames.")
        return orjson.loads(frame)
    except (ValueError, TypeError, RecursionError) as error:
        raise BadFrame("The frame cannot be read.") from error


def _bytes_of(frame: str | bytes) -> int:
    if isinstance(frame, bytes) or frame.isascii():
        return len(frame)
    return len(frame.encode())


def _content(cmd: str, data: dict[str, Any], re: int) -> bytes:
    try:
        plain = orjson.dumps([cmd, data], option=orjson.OPT_SORT_KEYS)
    except TypeError as error:  # bytes, timestamps, too deep: no JSON has them
        raise BadFrame("`data` must hold plain values.", re) from error
    return hashlib.blake2b(plain, digest_size=16).digest()


def encode(message: Any, fmt: Format) -> bytes:
    """One message (or any plain value), encoded without its frame."""
    if fmt is Format.MSGPACK:
        return msgpack.packb(message)  # type: ignore[no-any-return]
    return orjson.dumps(message)


def decode(data: bytes | str, fmt: Format) -> Any:
    """The plain value in `data`; raises `ValueError` for what is not in the format."""
    return msgpack.unpackb(data) if fmt is Format.MSGPACK else orjson.loads(data)


def join(parts: Sequence[bytes], fmt: Format) -> bytes:
    """The array of messages that are encoded already."""
    if fmt is Format.MSGPACK:
        return _head(len(parts), 0x90, 0xDC) + b"".join(parts)
    return b"[" + b",".join(parts) + b"]"


def frame(payload: bytes, fmt: Format) -> bytes:
    """The whole unfragmented server frame around `payload`: the bytes every viewer gets."""
    if fmt is Format.STREAM:
        return b"data: " + payload + b"\n\n"
    first = b"\x82" if fmt is Format.MSGPACK else b"\x81"
    size = len(payload)
    if size < 126:
        return first + size.to_bytes(1, "big") + payload
    if size < 65536:
        return first + b"\x7e" + size.to_bytes(2, "big") + payload
    return first + b"\x7f" + size.to_bytes(8, "big") + payload


class Fields(NamedTuple):
    """Encoded members of a map without its brackets, to be put together with others.

    A snapshot is encoded once for everyone; only what is the member's own is encoded anew.
    """

    members: int
    body: bytes


def fields(plain: Mapping[str, Any], fmt: Format) -> Fields:
    """The members of a plain map, encoded."""
    encoded = encode(plain, fmt)
    if fmt is Format.MSGPACK:
        return Fields(len(plain), encoded[len(_head(len(plain), 0x80, 0xDE)) :])
    return Fields(len(plain), encoded[1:-1])


def field(name: str, value: bytes, fmt: Format) -> Fields:
    """One member whose value is encoded already."""
    between = b"" if fmt is Format.MSGPACK else b":"
    return Fields(1, encode(name, fmt) + between + value)


def put_together(parts: Sequence[Fields], fmt: Format) -> bytes:
    """The map of all these members, encoded."""
    bodies = [part.body for part in parts if part.members]
    if fmt is Format.MSGPACK:
        return _head(sum(part.members for part in parts), 0x80, 0xDE) + b"".join(bodies)
    return b"{" + b",".join(bodies) + b"}"


def reply_encoded(re: int, ok: bytes, fmt: Format) -> bytes:
    """The reply to command `re` whose `ok` is encoded already, without its frame."""
    return put_together([fields({"re": re}, fmt), field("ok", ok, fmt)], fmt)


def reply_ok(re: int, ok: Any, fmt: Format) -> bytes:
    """The frame that answers command `re` with what it did."""
    return frame(join([encode({"re": re, "ok": ok}, fmt)], fmt), fmt)


def reply_error(re: int | None, error: LiveroomError, fmt: Format) -> bytes:
    """The frame that answers command `re` with its refusal."""
    return frame(join([encode({"re": re, "error": error.on_wire()}, fmt)], fmt), fmt)


def close_reason(after_ms: int) -> str:
    """The reason of a close frame that asks the client to return after a while."""
    return orjson.dumps({"after_ms": after_ms}).decode()


def closed_event(code: int, reason: str) -> bytes:
    """The same to readers of server-sent events, who know `after_ms` as the reconnection time.

    Who knows only events without a type passes it over, as the standard has it.
    """
    retry = b"retry: %d\n" % orjson.loads(reason)["after_ms"] if reason else b""
    return b'%sevent: closed\ndata: {"code":%d}\n\n' % (retry, code)


def _head(count: int, small: int, large: int) -> bytes:
    """The msgpack head of an array (0x90, 0xDC) or a map (0x80, 0xDE) of `count`."""
    if count < 16:
        return (small | count).to_bytes(1, "big")
    if count < 65536:
        return large.to_bytes(1, "big") + count.to_bytes(2, "big")
    return (large + 1).to_bytes(1, "big") + count.to_bytes(4, "big")

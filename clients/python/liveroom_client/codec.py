"""Frames as bytes: JSON and msgpack, chosen by the WebSocket subprotocol."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgpack  # type: ignore[import-untyped]
import orjson


class Format(StrEnum):
    """A wire format; its value is the subprotocol that asks for it."""

    JSON = "liveroom.v1.json"
    MSGPACK = "liveroom.v1.msgpack"


def encode(command: dict[str, Any], format: Format) -> str | bytes:  # noqa: A002
    """One command as a frame: text for JSON, binary for msgpack."""
    if format is Format.JSON:
        return orjson.dumps(command).decode()
    return msgpack.packb(command)  # type: ignore[no-any-return]


def decode(frame: bytes, format: Format) -> list[dict[str, Any]]:  # noqa: A002
    """The messages of a server's frame, in order.

    Raises:
        ValueError: the frame is no array of messages.
    """
    if format is Format.JSON:
        messages = orjson.loads(frame)
    else:
        try:
            messages = msgpack.unpackb(frame)
        except (msgpack.UnpackException, TypeError) as fault:
            raise ValueError("The frame is no msgpack.") from fault
    if not isinstance(messages, list) or not all(isinstance(one, dict) for one in messages):
        raise ValueError("The frame is no array of messages.")
    return messages

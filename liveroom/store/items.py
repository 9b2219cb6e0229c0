"""What a room publishes, and how it crosses Lua.

An event's data cross as packed text that no script opens, since Lua's cmsgpack cannot tell an
empty list from an empty map and has no null. What a script itself adds stands beside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from liveroom.errors import error
from liveroom.events import Event, Position
from liveroom.store.scripts import pack, unpack, unpack_raw

VIEWERS_TTL_S: Final = 7
ONCE_S: Final = 24 * 3600


class Item(msgspec.Struct):
    """One thing to publish in a room.

    `event` may be a logged, chat or state event. With `react` or `watch` its data are made
    by the store. `pin` puts a product last on the pinned list, whose oldest leaves over three
    with an event of its own; `unpin` takes one off: for a product.unpinned event it must be
    pinned (`not_found`), for any other the store adds that event where it was. `set` keeps
    versioned fields, `{name: (v, value)}`: the higher v stays, and where the event's data has
    that name it tells the newest. `remove` is a message's id (`not_found` if gone). `once` is
    an operation's id: within `once_s` the same one is published once, and gets the first
    answer.
    """

    event: Event
    pin: str | None = None
    unpin: str | None = None
    set: dict[str, tuple[int, Any]] | None = None
    remove: str | None = None
    react: dict[str, int] | None = None
    watch: tuple[str, int] | None = None  # node, viewers on it
    once: str | None = None
    once_s: int = ONCE_S


class Batch(msgspec.Struct):
    """What subscribers get: events of one room in the order of the log."""

    room: str
    epoch: str
    events: list[Event]


class RoomState(NamedTuple):
    """A room as the store knows it, in one step. A pair's second half is its `v`.

    `pinned` has for each product, oldest pin first, the seq of the event that pinned it; 0
    where that is not known.
    """

    position: Position
    n: int
    fields: dict[str, tuple[int, Any]]
    pinned: dict[str, int]
    messages: list[dict[str, Any]]
    reactions: tuple[dict[str, int], int]
    viewers: tuple[int, int]


def as_told(item: Item, once: list[str]) -> dict[str, Any]:
    """The item as room_publish.lua reads it: e blob, c class, set {name: {v, value, tell}}."""
    event, fields = item.event, item.set or {}
    delivery = event.delivery
    data = {name: value for name, value in event.data.items() if name not in fields}
    told: dict[str, Any] = {"c": delivery.value}
    if item.react is not None:
        told["react"] = item.react
    elif item.watch is not None:
        node, viewers = item.watch
        told["watch"] = {"node": node, "viewers": viewers, "ttl_s": VIEWERS_TTL_S}
    else:
        told["e"] = as_blob(event, data)
    if fields:
        told["set"] = {
            name: {"v": v, "value": pack(value), "tell": name in event.data}
            for name, (v, value) in fields.items()
        }
    if item.pin is not None:
        told["pin"] = item.pin
    if item.unpin is not None:
        told["unpin"], told["must"] = item.unpin, event.name == "product.unpinned"
    if item.remove is not None:
        told["remove"] = item.remove
    if item.once is not None:
        once.append(item.once)
        told["once"], told["once_s"] = len(once), item.once_s
    return told


def as_blob(event: Event, data: dict[str, Any]) -> bytes:
    """The event as Lua carries it: `[name, at, data]` packed."""
    return pack([event.name, event.at, data])


def answers_of(reply: Any, count: int) -> list[list[Event] | Exception]:
    """What a call of room_publish.lua answered to each of `count` items."""
    if isinstance(reply, Exception):
        return [reply] * count
    return [
        error(row.decode()) if isinstance(row, bytes) else events_of(row[0].decode(), row[1])
        for row in unpack_raw(reply)
    ]


def events_of(epoch: str, rows: Iterable[dict[bytes, Any]]) -> list[Event]:
    """The events of a batch, as room_publish.lua tells them."""
    return [
        event_of(row[b"e"], epoch=epoch, seq=row.get(b"s"), n=row.get(b"n"), newest=row.get(b"f"))
        for row in rows
    ]


def event_of(
    blob: bytes,
    *,
    epoch: str = "",
    seq: int | None = None,
    n: int | None = None,
    newest: dict[bytes, bytes] | None = None,
) -> Event:
    """One event: its packed half, and what the script added beside it."""
    name, at, data = unpack(blob)
    for field, value in (newest or {}).items():
        data[field.decode()] = unpack(value)
    if n is not None:
        data |= {"id": f"{epoch}-{n}", "n": n}
    return Event(name, data, at, seq=seq, n=n)


def direct_of(to: str, blob: bytes) -> Event:
    """One event for one member."""
    name, at, data = unpack(blob)
    return Event(name, data, at, to=to)


def logged_of(entry: bytes, row: list[bytes]) -> Event:
    """One entry of a room's events stream."""
    parts = pairs(row)
    newest = {name[2:]: value for name, value in parts.items() if name.startswith(b"f:")}
    return event_of(parts[b"e"], seq=int(entry.partition(b"-")[0]), newest=newest)


def message_of(entry: bytes, row: list[bytes]) -> Event:
    """One entry of a room's messages stream."""
    parts = pairs(row)
    return event_of(parts[b"e"], epoch=parts[b"epoch"].decode(), n=int(entry.partition(b"-")[0]))


def pairs(flat: Sequence[bytes]) -> dict[bytes, bytes]:
    """A flat list of names and values, as Redis tells hashes and stream entries."""
    return dict(zip(flat[::2], flat[1::2], strict=True))

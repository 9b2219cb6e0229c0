"""Every name in Redis, in one place. No script builds a key.

The hash tag is the partition: all keys of a room, and the channel its events leave on, lie in
one slot, so that one script may touch them and Redis Cluster needs no other names.
"""

from __future__ import annotations

import zlib
from typing import Final

ROOM_PARTITIONS: Final = 64
"""How many channels rooms share. It is part of the names: changing it begins every log anew."""


def partition(room: str) -> int:
    """The partition of a room: the same on every node and in every release."""
    return zlib.crc32(room.encode()) % ROOM_PARTITIONS


def partition_run(part: int) -> str:
    """A hash: the run id of the server the partition's logs belong to, and their generation."""
    return f"lr:{{r{part:02d}}}:run"


def room_channel(part: int) -> str:
    """Where the events of a partition's rooms leave (sharded pub/sub)."""
    return f"lr:{{r{part:02d}}}:channel"


def _room(room: str, what: str) -> str:
    return f"lr:{{r{partition(room):02d}}}:{room}:{what}"


def room_log(room: str) -> str:
    """A hash: epoch, seq and n of the log, pinned products and where, versioned fields."""
    return _room(room, "log")


def room_events(room: str) -> str:
    """A stream: the last logged events; the id of an entry is `<seq>-0`."""
    return _room(room, "events")


def room_messages(room: str) -> str:
    """A stream: the last messages; the id of an entry is `<n>-0`."""
    return _room(room, "messages")


def room_reactions(room: str) -> str:
    """A hash: how often each kind of reaction was sent."""
    return _room(room, "reactions")


def room_viewers(room: str) -> str:
    """A hash: viewers of each node, with the time the count lapses."""
    return _room(room, "viewers")


def room_once(room: str, operation: str) -> str:
    """A string: what was published for this operation, so that it is published once."""
    return _room(room, f"once:{operation}")


def direct_channel() -> str:
    """Where events for single members leave; every node listens."""
    return "lr:{direct}:channel"


STOCK_KEYS: Final = (
    "gates",  # a hash: each pool's gate; "#" counts the open holds of the partition
    "holds",  # a hash: each open hold by its id
    "known",  # a hash: "<request key>/<pool>" to the id of its open hold
    "due",  # a sorted set: holds in carts by their deadline
    "placing",  # a sorted set: holds being placed by the time they must be
    "taken",  # a hash: "<pool>/<buyer>" to the units of orders that count for a limit
    "holding",  # a hash: "<pool>/<buyer>" to the units of open holds that count for a limit
    "parked",  # a hash: each pool's ledger ranges that came too early
    "carts",  # a hash: "<room>/<buyer>" to the ids of the holds in that cart
    "ended",  # a list: expired holds whose buyers have not been told
)


def stock_fence(part: int) -> str:
    """A hash: fence epoch and run id under which the partition sells; a planned stop's mark."""
    return f"lr:{{s{part}}}:fence"


def stock(part: int, epoch: int) -> tuple[str, ...]:
    """The keys of every stock script: the fence, then `STOCK_KEYS` of this fence epoch."""
    tag = f"lr:{{s{part}}}:{epoch}"
    return (stock_fence(part), *(f"{tag}:{what}" for what in STOCK_KEYS))


def stock_channel(part: int) -> str:
    """Where a stock partition tells what is left; every node listens."""
    return f"lr:{{s{part}}}:channel"


def cooling(buyer: str, sku: str) -> tuple[str, str]:
    """Two strings: a buyer's expired holds of a SKU, counted; and, while it is there, a wait."""
    tag = f"lr:{{cool:{buyer}:{sku}}}"
    return f"{tag}:expired", f"{tag}:wait"


LOST: Final = "lr:lost"
"""A set that is there while any of the keys below may be."""


def lost(room: str, buyer: str) -> str:
    """A set: lines of a buyer's cart in a room that a rebuild has ended and nobody has told."""
    return f"lr:lost:{room}/{buyer}"


def first_answer(member: str, key: str) -> str:
    """A string: the first answer to a member's command with this idempotency key."""
    return f"lr:answer:{member}:{key}"

"""Every event and its delivery class: the wire schema of what the server says by itself.

A service makes an `Event`; the store gives logged events their `seq` and messages their
`n`; the hub carries it by its class:

    logged  every viewer of the room, once, in order; resumable
    chat    in order, thinned above the room's budget
    state   the latest value for each key
    direct  one member's connections, in whatever room they are
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Final, NamedTuple

import msgspec

from liveroom import shapes


class Delivery(StrEnum):
    """The promise made for an event."""

    LOGGED = "logged"
    CHAT = "chat"
    STATE = "state"
    DIRECT = "direct"


class Event(msgspec.Struct, omit_defaults=True):
    """One event of a room, as it travels between services, store and hub.

    `data` holds plain values only. `seq` is set on logged events once they are in the log,
    `n` on messages; `to` names the member of a direct event.
    """

    name: str
    data: dict[str, Any]
    at: int
    seq: int | None = None
    n: int | None = None
    to: str | None = None

    @property
    def delivery(self) -> Delivery:
        """The class the table gives this event; addressed to one member, it is direct."""
        return Delivery.DIRECT if self.to is not None else EVENTS[self.name].delivery

    @property
    def key(self) -> str:
        """For state events: what a later value replaces."""
        data = self.data
        return f"{self.name}:{data.get('drop') or data.get('sku') or data.get('auction') or ''}"

    def on_wire(self) -> dict[str, Any]:
        """The message of a server frame: `{ev, seq?, n?, at, data}`."""
        wire: dict[str, Any] = {"ev": self.name}
        if self.seq is not None:
            wire["seq"] = self.seq
        if self.n is not None:
            wire["n"] = self.n
        wire["at"] = self.at
        wire["data"] = self.data
        return wire


class Position(NamedTuple):
    """A place in a room's log. Positions of different epochs do not compare."""

    epoch: str
    seq: int


class _Data(msgspec.Struct, omit_defaults=True, kw_only=True):
    """The data of an event."""


class ProductPinned(_Data):  # noqa: D101 - each class below is the data its name says
    product: shapes.Product


class ProductUnpinned(_Data):  # noqa: D101
    product: str


class ShelfChanged(_Data):  # noqa: D101
    shelf: list[shapes.Product]
    v: int = 0  # the room's, which grows with its shelf


class PriceChanged(_Data):  # noqa: D101
    sku: str
    price_minor: int
    v: int = 0  # the room's, which grows with its prices


class DropChanged(_Data):  # noqa: D101
    drop: shapes.Drop


class MessageRemoved(_Data):  # noqa: D101
    message: str


class MessageHighlighted(_Data):  # noqa: D101
    message: shapes.Message


class MemberRestricted(_Data):  # noqa: D101
    member: str
    until: int | None = None
    why: str | None = None


class RoomChanged(_Data):  # noqa: D101
    room: shapes.Room


class NoticePosted(_Data):  # noqa: D101
    text: str


class StockChanged(_Data):  # noqa: D101
    sku: str
    left: int
    v: int
    drop: str | None = None


class ViewersCounted(_Data):  # noqa: D101
    viewers: int
    v: int


class ReactionsCounted(_Data):  # noqa: D101
    reactions: dict[str, int]
    v: int


class ChatSampled(_Data):  # noqa: D101
    shown: int
    posted: int


class HoldChanged(_Data):  # noqa: D101
    hold: shapes.HoldLine
    why: str | None = None


class WaitlistOffered(_Data):  # noqa: D101
    sku: str
    qty: int
    until: int


class OrderChanged(_Data):  # noqa: D101
    order: shapes.Order


class Spec(NamedTuple):
    """What is fixed about one event."""

    delivery: Delivery
    data: type[msgspec.Struct]


LOGGED, CHAT, STATE, DIRECT = Delivery

EVENTS: Final[dict[str, Spec]] = {
    "product.pinned": Spec(LOGGED, ProductPinned),
    "product.unpinned": Spec(LOGGED, ProductUnpinned),
    "shelf.changed": Spec(LOGGED, ShelfChanged),
    "price.changed": Spec(LOGGED, PriceChanged),
    "drop.scheduled": Spec(LOGGED, DropChanged),
    "drop.opened": Spec(LOGGED, DropChanged),
    "drop.closed": Spec(LOGGED, DropChanged),
    "message.removed": Spec(LOGGED, MessageRemoved),
    "message.highlighted": Spec(LOGGED, MessageHighlighted),
    "member.muted": Spec(LOGGED, MemberRestricted),
    "member.banned": Spec(LOGGED, MemberRestricted),
    "room.opened": Spec(LOGGED, RoomChanged),
    "room.closed": Spec(LOGGED, RoomChanged),
    "room.changed": Spec(LOGGED, RoomChanged),
    "notice.posted": Spec(LOGGED, NoticePosted),
    "message.posted": Spec(CHAT, shapes.Message),
    "stock.changed": Spec(STATE, StockChanged),
    "viewers.counted": Spec(STATE, ViewersCounted),
    "reactions.counted": Spec(STATE, ReactionsCounted),
    "chat.sampled": Spec(STATE, ChatSampled),
    "hold.placed": Spec(DIRECT, HoldChanged),
    "hold.expired": Spec(DIRECT, HoldChanged),
    "waitlist.offered": Spec(DIRECT, WaitlistOffered),
    "order.placed": Spec(DIRECT, OrderChanged),
    "order.paid": Spec(DIRECT, OrderChanged),
    "order.expired": Spec(DIRECT, OrderChanged),
    "order.cancelled": Spec(DIRECT, OrderChanged),
    "order.refunded": Spec(DIRECT, OrderChanged),
    "drop.admitted": Spec(DIRECT, DropChanged),
}

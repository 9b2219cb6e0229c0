"""What a command is: a row of the table, a call on its way, and the services it may use."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

import msgspec

from liveroom.auth import Auth, Member
from liveroom.cart import Carts
from liveroom.catalog import Catalog
from liveroom.clock import Clock
from liveroom.creators import Creators
from liveroom.expiring import Expiring
from liveroom.hoarding import Hoarding
from liveroom.inventory import Inventory
from liveroom.moderation import Moderation, SlowMode
from liveroom.onair import OnAir
from liveroom.orders import Orders
from liveroom.payments import Payments
from liveroom.promotions import Promotions
from liveroom.rooms import Rooms
from liveroom.store.backplane import Backplane
from liveroom.store.database import Database
from liveroom.waitlist import Waitlist


@dataclass(frozen=True, kw_only=True)
class Services:
    """Everything the house can do, built once by the server."""

    node: str
    clock: Clock
    db: Database
    backplane: Backplane
    auth: Auth
    catalog: Catalog
    creators: Creators
    rooms: Rooms
    onair: OnAir
    moderation: Moderation
    slow_mode: SlowMode
    inventory: Inventory
    carts: Carts
    orders: Orders
    payments: Payments
    promotions: Promotions
    waitlist: Waitlist
    hoarding: Hoarding
    expiring: Expiring


class Who(StrEnum):
    """Who may send a command."""

    ANYONE = "anyone"
    MEMBER = "member"
    MODERATOR = "moderator"
    HOST = "host"


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """One command on its way: `args` has passed its type.

    `content` names what was sent, where that may come again; `operation` makes what it does
    happen once, and is empty where the order's id does.
    """

    services: Services
    room: str
    member: Member
    cmd: str
    args: Any
    content: str
    key: str | None
    operation: str


Run = Callable[[Call], Awaitable[dict[str, Any]]]


class Command(NamedTuple):
    """One row of the table."""

    args: type[msgspec.Struct]
    who: Who
    run: Run
    by_order_id: bool = False

"""The things of the wire: rooms, products, orders and what else replies and events hold.

One source for what clients get, for OpenAPI, AsyncAPI and the TypeScript types. Fields that
are not known are left out. Times are integer milliseconds on the server's clock, money is
integer minor units beside a currency.
"""

from __future__ import annotations

from typing import Any

import msgspec


class Shape(msgspec.Struct, omit_defaults=True, kw_only=True):
    """A thing of the wire; what equals its default is left out."""

    def builtin(self) -> dict[str, Any]:
        """The shape as plain dicts and lists, for any codec."""
        return msgspec.to_builtins(self)  # type: ignore[no-any-return]


class Stream(Shape):
    """Where the video is: `kind` is hls, whep, youtube, twitch or owncast."""

    kind: str
    url: str
    delay_ms: int | None = None


class Room(Shape):
    """A room as everyone sees it, its host with the roles of now. `v` grows with each change."""

    id: str
    title: str
    host: str
    state: str
    v: int
    host_name: str | None = None
    host_roles: list[str] = []
    shop: str | None = None
    stream: Stream | None = None
    opened_at: int | None = None
    closed_at: int | None = None
    paused: bool = False
    guests: bool = True
    members_only: bool = False
    slow_mode_s: int = 0
    chat_per_s_max: int = 0


class Sku(Shape):
    """One buyable variant of a product."""

    id: str
    price_minor: int
    name: str | None = None
    limit_per_buyer: int | None = None


class Product(Shape):
    """A product with its SKUs; on a shelf also with its place there (`state`: on or visible)."""

    id: str
    shop: str
    title: str
    currency: str
    skus: list[Sku]
    needs: list[str] = []
    picture: str | None = None
    position: int | None = None
    state: str | None = None


class Stock(Shape):
    """What a buyer could hold now; `v` orders the values of one SKU or drop."""

    left: int
    v: int


class Drop(Shape):
    """A flash sale: a quantity of one SKU at a price, for a time.

    `left` and `v` are its stock, in a join's answer only. A draw has `seed_hash` from the
    beginning, `entries` (their number) from its opening, `seed` and `entries_digest` once it
    has closed.
    """

    id: str
    sku: str
    quantity: int
    price_minor: int
    opens_at: int
    closes_at: int
    state: str
    limit_per_buyer: int | None = None
    admission: str = "first"
    left: int | None = None
    v: int | None = None
    seed_hash: str | None = None
    entries: int | None = None
    seed: str | None = None
    entries_digest: str | None = None


class Entry(Shape):
    """A member's own part in a draw; `admitted` is known once the drop has opened."""

    drop: str
    admitted: bool | None = None


class Waiting(Shape):
    """A place on the waitlist of a SKU; a `qty` of 0 is none."""

    sku: str
    qty: int
    ahead: int


class Message(Shape):
    """What somebody said; `n` counts every message of the room's log."""

    id: str
    n: int
    member: str
    name: str
    text: str
    at: int


class HoldLine(Shape):
    """Units that are a buyer's own until `expires_at`, as events tell it."""

    sku: str
    qty: int
    expires_at: int
    drop: str | None = None


class CartLine(Shape):
    """One line of a cart, backed by one hold."""

    sku: str
    qty: int
    price_minor: int
    hold: str
    expires_at: int
    drop: str | None = None


class Cart(Shape):
    """A buyer's cart in one room. Empty, its currency is left out."""

    lines: list[CartLine]
    total_minor: int
    currency: str | None = None


class OrderLine(Shape):
    """One line of an order, at the price of its hold."""

    sku: str
    qty: int
    price_minor: int
    drop: str | None = None


class RefundLine(Shape):
    """Units of an order's line that were given back; `restock`: they are on sale again."""

    sku: str
    qty: int
    drop: str | None = None
    restock: bool = False


class Refund(Shape):
    """Money that goes back: `pending`, then `succeeded` or `failed`."""

    id: str
    order: str
    payment: str
    state: str
    amount_minor: int
    currency: str
    created_at: int
    why: str | None = None
    lines: list[RefundLine] = []


class Order(Shape):
    """An order. Its first answer always says `placed`; `order.show` tells the state now."""

    id: str
    state: str
    room: str
    lines: list[OrderLine]
    total_minor: int
    currency: str
    placed_at: int
    pay_by: int
    refunds: list[Refund] = []


class Payment(Shape):
    """One attempt to pay an order."""

    id: str
    order: str
    provider: str
    state: str
    amount_minor: int
    currency: str
    client_secret: str | None = None
    url: str | None = None


class You(Shape):
    """Who the server takes this connection for."""

    id: str
    name: str
    roles: list[str]


class Shop(Shape):
    """A merchant's shop."""

    id: str
    name: str
    created_at: int


class Creator(Shape):
    """A creator with the roles held now (buyer, manager, clerk) and the number of fans."""

    id: str
    name: str
    created_at: int
    roles: list[str] = []
    followers: int = 0


class Note(Shape):
    """What a creator wrote, with the products and needs it is about."""

    id: str
    creator: str
    title: str
    text: str
    created_at: int
    products: list[str] = []
    needs: list[str] = []

"""The data of every command: what fits, and nothing of what it does.

One source for the check at the door, for OpenAPI and for AsyncAPI. A field that is not known
is passed over, so that clients may be newer than the server.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

import msgspec

from liveroom.buckets import Source
from liveroom.errors import Invalid
from liveroom.ids import Id
from liveroom.money import Price

QTY_MAX = 1000
LINES_MAX = 50
STOCK_MAX = 10**9
DROP_MS_MAX = 30 * 24 * 3600 * 1000

Qty = Annotated[int, msgspec.Meta(ge=1, le=QTY_MAX)]
Units = Annotated[int, msgspec.Meta(ge=1, le=STOCK_MAX)]
Said = Annotated[str, msgspec.Meta(min_length=1, max_length=2000)]
Kind = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9_]{1,16}$")]
ShelfPlace = Annotated[int, msgspec.Meta(ge=1, le=1000)]
Count = Annotated[int, msgspec.Meta(ge=1, le=100)]
Delta = Annotated[int, msgspec.Meta(ge=-STOCK_MAX, le=STOCK_MAX)]
Why = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
KEY_MAX = 64


T = TypeVar("T")


def fitting(data: Any, kind: type[T]) -> T:
    """`data` as a `kind`, or `bad_argument` with where it does not fit."""
    try:
        return msgspec.convert(data, kind, strict=True)
    except msgspec.ValidationError as fault:
        raise Invalid("bad_argument", f"The data does not fit: {fault}") from None


class _Arguments(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The data of one command."""


class Nothing(_Arguments):
    """No data is needed."""


class Since(_Arguments):
    """A position the client has everything up to."""

    epoch: Annotated[str, msgspec.Meta(max_length=64)]
    seq: Annotated[int, msgspec.Meta(ge=0, le=2**53)]


class Join(_Arguments):
    """Take a seat: with a token as a member, without one as a guest."""

    token: str | None = None
    since: Since | None = None
    name: Annotated[str, msgspec.Meta(max_length=200)] | None = None


class Renew(_Arguments):
    """A newer token of the same member."""

    token: Annotated[str, msgspec.Meta(min_length=1, max_length=8192)]


class Text(_Arguments):
    """Something to be said to the room."""

    text: Said


class Message(_Arguments):
    """A message, by its id."""

    message: Annotated[str, msgspec.Meta(min_length=1, max_length=100)]


class Reaction(_Arguments):
    """Taps of one kind, summed by the client."""

    kind: Kind
    count: Count = 1


class Creator(_Arguments):
    """A creator, by id."""

    creator: Id


class Product(_Arguments):
    """A product, by id."""

    product: Id


class MaybeProduct(_Arguments):
    """A product, by id; without it, all that are pinned."""

    product: Id | None = None


class ShelfPut(_Arguments):
    """A product and its place on the shelf, counted from 1."""

    product: Id
    position: ShelfPlace | None = None
    state: Literal["on", "visible", "off"] | None = None


class PriceSet(_Arguments):
    """A SKU's new price."""

    sku: Id
    price_minor: Price


class Restock(_Arguments):
    """Units that came in."""

    sku: Id
    qty: Units


class Adjust(_Arguments):
    """Units counted in or out (below 0), and why; 0 changes nothing and does not fit."""

    sku: Id
    delta: Delta
    why: Why


class DropSchedule(_Arguments):
    """A flash drop: units set aside of a SKU's stock, at a price, from then, for so long."""

    sku: Id
    quantity: Units
    price_minor: Price
    lasts_ms: Annotated[int, msgspec.Meta(ge=1, le=DROP_MS_MAX)]
    opens_in_ms: Annotated[int, msgspec.Meta(ge=0, le=DROP_MS_MAX)] = 0
    limit_per_buyer: Units | None = None
    admission: Literal["first", "draw"] = "first"


class Drop(_Arguments):
    """A flash drop, by id."""

    drop: Id


class CartAdd(_Arguments):
    """Units to hold; `price_minor` is the price the buyer saw, `source` what brought the buyer."""

    sku: Id
    qty: Qty
    drop: Id | None = None
    price_minor: Price | None = None
    source: Source | None = None


class CartRemove(_Arguments):
    """A line of the cart, by its SKU and drop."""

    sku: Id
    drop: Id | None = None


class WaitlistJoin(_Arguments):
    """Units to wait for; `source` is what brought the buyer."""

    sku: Id
    qty: Qty
    source: Source | None = None


class Sku(_Arguments):
    """A SKU, by id."""

    sku: Id


class Checkout(_Arguments):
    """The order that the cart becomes, under an id made by the client."""

    order: Id
    coupon: Id | None = None


class Line(_Arguments):
    """One line of a buy-now order; `price_minor` is the price the buyer saw."""

    sku: Id
    qty: Qty
    drop: Id | None = None
    price_minor: Price | None = None


class OrderPlace(_Arguments):
    """An order, bought now, under an id made by the client. `again` marks a retry.

    `source` is what brought the buyer.
    """

    order: Id
    lines: Annotated[list[Line], msgspec.Meta(min_length=1, max_length=LINES_MAX)]
    coupon: Id | None = None
    again: bool = False
    source: Source | None = None


class Order(_Arguments):
    """An order, by id."""

    order: Id


class Pay(_Arguments):
    """An order to pay, and with whom."""

    order: Id
    provider: Id | None = None

"""The room as this client sees it: a snapshot, with each event folded in.

Rule: an older value never replaces a newer one (`v`). Nothing here awaits.
"""

# ruff: noqa: SLF001 - the table at the end names the class's own methods

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

MESSAGES_MAX: Final = 200
ORDERS_MAX: Final = 200
DROPS_MAX: Final = 100
_STEPS: Final = {"scheduled": 0, "open": 1, "closed": 2, "cancelled": 2}

Thing = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Event:
    """One event of the room, as the server told it.

    `seq` is set on logged events, `n` on messages; `at` is server time in milliseconds.
    Names that begin with `local.` are made by this client: `local.joined` (`{mode}`),
    `local.lost` (`{code, reason}`) and `local.lagged` (`{missed}`).
    """

    name: str
    data: Thing
    at: int
    seq: int | None = None
    n: int | None = None


@dataclass(slots=True)
class Picture:
    """What is known of the room now; read it at any time, never write to it."""

    room: Thing = field(default_factory=dict)
    shelf: list[Thing] = field(default_factory=list)
    pinned: list[Thing] = field(default_factory=list)
    drops: dict[str, Thing] = field(default_factory=dict)
    stock: dict[str, Thing] = field(default_factory=dict)
    """`{"left", "v"}` by SKU, or by drop for the stock of a drop."""
    messages: list[Thing] = field(default_factory=list)
    unshown: int = 0
    """Messages that the room's chat budget kept from being shown."""
    viewers: int = 0
    reactions: dict[str, int] = field(default_factory=dict)
    coupons: list[Thing] = field(default_factory=list)
    auction: Thing | None = None
    cart: Thing | None = None
    orders: dict[str, Thing] = field(default_factory=dict)
    entries: dict[str, Thing] = field(default_factory=dict)
    """The draws this member takes part in, by drop: `{"drop", "admitted"?}`."""
    waiting: dict[str, Thing] = field(default_factory=dict)
    """What this member waits for, by SKU: `{"sku", "qty"}`."""
    notice: str | None = None
    _v: dict[str, int] = field(default_factory=dict)

    def replace(self, snapshot: Thing) -> None:
        """Take a snapshot: everything known before is forgotten."""
        self.room = snapshot.get("room") or {}
        self.shelf = list(snapshot.get("shelf") or ())
        self.pinned = list(snapshot.get("pinned") or ())
        self.coupons = list(snapshot.get("coupons") or ())
        self.messages = []
        self.unshown = 0
        self.notice = None
        self.drops, self.stock, self.orders, self._v = {}, {}, {}, {}
        self.take_now(snapshot)

    def take_now(self, now: Thing) -> None:
        """Take what a join answer tells of the things that are not replayed."""
        self.stock.update(now.get("stock") or {})
        self.drops = {drop["id"]: drop for drop in now.get("drops") or ()}
        self.entries = {entry["drop"]: entry for entry in now.get("entries") or ()}
        self.waiting = {one["sku"]: one for one in now.get("waiting") or ()}
        for drop in self.drops.values():
            if "left" in drop:
                self.stock[drop["id"]] = {"left": drop["left"], "v": drop["v"]}
        self.orders = {order["id"]: order for order in now.get("orders") or ()}
        self.viewers = now.get("viewers", self.viewers)
        self.reactions = now.get("reactions") or {}
        self.auction = now.get("auction")
        self.cart = now.get("cart")
        self._v.clear()
        known = {message["id"] for message in self.messages}
        missed = [one for one in now.get("messages") or () if one["id"] not in known]
        self.messages = sorted([*self.messages, *missed], key=lambda one: one["n"])[-MESSAGES_MAX:]

    def fold(self, event: Event) -> None:
        """Fold one event in; events that are not known change nothing."""
        change = _FOLDS.get(event.name)
        if change is not None:
            change(self, event.data)

    def product(self, product: str) -> Thing | None:
        """The product with this id on the shelf or pinned."""
        return next((p for p in [*self.shelf, *self.pinned] if p["id"] == product), None)

    def left(self, sku: str) -> int | None:
        """How many units of a SKU (or drop) a buyer could hold now, if that is known."""
        stock = self.stock.get(sku)
        return None if stock is None else int(stock["left"])

    def _newer(self, key: str, v: int) -> bool:
        if v <= self._v.get(key, -1):
            return False
        self._v[key] = v
        return True

    def _pinned(self, data: Thing) -> None:
        product = data["product"]
        others = [one for one in self.pinned if one["id"] != product["id"]]
        self.pinned = [*others, product]

    def _unpinned(self, data: Thing) -> None:
        self.pinned = [one for one in self.pinned if one["id"] != data["product"]]

    def _shelf(self, data: Thing) -> None:
        self.shelf = list(data["shelf"])
        by_id = {product["id"]: product for product in self.shelf}
        self.pinned = [by_id.get(product["id"], product) for product in self.pinned]

    def _price(self, data: Thing) -> None:
        for product in [*self.shelf, *self.pinned]:
            for sku in product["skus"]:
                if sku["id"] == data["sku"]:
                    sku["price_minor"] = data["price_minor"]

    def _drop(self, data: Thing) -> None:
        drop = data["drop"]
        known = self.drops.get(drop["id"])
        if known is None or _STEPS[drop["state"]] >= _STEPS[known["state"]]:
            self.drops[drop["id"]] = drop
        while len(self.drops) > DROPS_MAX:
            del self.drops[next(iter(self.drops))]

    def _admitted(self, data: Thing) -> None:
        drop = data["drop"]["id"]
        self.entries[drop] = {"drop": drop, "admitted": True}

    def _offered(self, data: Thing) -> None:
        self.waiting.pop(data["sku"], None)

    def _posted(self, message: Thing) -> None:
        if self.messages and message["n"] <= self.messages[-1]["n"]:
            return
        if self.messages:
            self.unshown += message["n"] - self.messages[-1]["n"] - 1
        self.messages.append(message)
        del self.messages[:-MESSAGES_MAX]

    def _removed(self, data: Thing) -> None:
        self.messages = [one for one in self.messages if one["id"] != data["message"]]

    def _highlighted(self, data: Thing) -> None:
        better = data["message"]
        self.messages = [better if one["id"] == better["id"] else one for one in self.messages]

    def _room(self, data: Thing) -> None:
        self.room = data["room"]

    def _notice(self, data: Thing) -> None:
        self.notice = data["text"]

    def _stock(self, data: Thing) -> None:
        key = data.get("drop") or data["sku"]
        if data["v"] > self.stock.get(key, {"v": -1})["v"]:
            self.stock[key] = {"left": data["left"], "v": data["v"]}

    def _viewers(self, data: Thing) -> None:
        if self._newer("viewers", data["v"]):
            self.viewers = data["viewers"]

    def _reactions(self, data: Thing) -> None:
        if self._newer("reactions", data["v"]):
            self.reactions = data["reactions"]

    def _auction(self, data: Thing) -> None:
        self.auction = data.get("auction", data)

    def _hold_expired(self, data: Thing) -> None:
        if self.cart is None:
            return
        gone = (data["hold"]["sku"], data["hold"].get("drop"))
        lines = [one for one in self.cart["lines"] if (one["sku"], one.get("drop")) != gone]
        total = sum(one["qty"] * one["price_minor"] for one in lines)
        self.cart = {**self.cart, "lines": lines, "total_minor": total}

    def _order(self, data: Thing) -> None:
        order = data["order"]
        self.orders[order["id"]] = order
        while len(self.orders) > ORDERS_MAX:
            del self.orders[next(iter(self.orders))]


_FOLDS: Final[dict[str, Callable[[Picture, Thing], None]]] = {
    "product.pinned": Picture._pinned,
    "product.unpinned": Picture._unpinned,
    "shelf.changed": Picture._shelf,
    "price.changed": Picture._price,
    **dict.fromkeys(("drop.scheduled", "drop.opened", "drop.closed"), Picture._drop),
    "drop.admitted": Picture._admitted,
    "message.posted": Picture._posted,
    "message.removed": Picture._removed,
    "message.highlighted": Picture._highlighted,
    **dict.fromkeys(("room.opened", "room.changed", "room.closed"), Picture._room),
    "notice.posted": Picture._notice,
    "stock.changed": Picture._stock,
    "viewers.counted": Picture._viewers,
    "reactions.counted": Picture._reactions,
    **dict.fromkeys(("auction.started", "auction.bid", "auction.closed"), Picture._auction),
    "hold.expired": Picture._hold_expired,
    "waitlist.offered": Picture._offered,
    **dict.fromkeys(
        tuple(f"order.{what}" for what in ("placed", "paid", "expired", "cancelled", "refunded")),
        Picture._order,
    ),
}

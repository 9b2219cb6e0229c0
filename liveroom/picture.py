"""A room as one node shows it: folded from a start and every event since.

Nothing here awaits. A picture only moves forward: a logged event by its `seq`, a state event
by its `v`, so that applying one twice or late changes nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import msgspec

from liveroom import shapes
from liveroom.events import Event, Position

MESSAGES_MAX: Final = 50
MESSAGES_NOW: Final = 20

Thing = dict[str, Any]


class Picture:
    """What a joiner of the room is shown, own things aside.

    `pinned` has for each product the seq of the event that pinned it, or 0. `on_shelf` is
    called with the picture whenever the SKUs or drops it shows may have changed, `on_room`
    whenever the room itself has.
    """

    def __init__(
        self,
        *,
        position: Position,
        n: int,
        room: Thing,
        shelf: Iterable[Thing],
        pinned: Mapping[str, int],
        messages: Iterable[Thing],
        viewers: tuple[int, int] = (0, 0),
        reactions: tuple[dict[str, int], int] = ({}, 0),
        drops: Iterable[Thing] = (),
        on_shelf: Callable[[Picture], None] | None = None,
        on_room: Callable[[Picture], None] | None = None,
    ) -> None:
        self.epoch, self.seq = position
        self.n = n
        self.room = room
        self.shelf = list(shelf)
        by_id = {product["id"]: product for product in self.shelf}
        self.pinned = [by_id[product] for product in pinned if product in by_id]
        self.messages: deque[Thing] = deque(messages, maxlen=MESSAGES_MAX)
        self.stock: dict[str, Thing] = {}
        self.drops = {drop["id"]: drop for drop in drops}
        self.viewers, self._viewers_v = viewers
        self.reactions, self._reactions_v = reactions
        self.on_shelf, self.on_room = on_shelf, on_room
        self._shape: shapes.Room | None = None
        self._selling: dict[str, str] | None = None
        self._pinned_at = dict(pinned)
        self._pins: dict[str, str] | None = None

    @property
    def v(self) -> int:
        """The version of the room's rows this picture shows."""
        return int(self.room["v"])

    @property
    def chat_per_s_max(self) -> int:
        """How many messages a second the room shows; 0 shows all."""
        return int(self.room.get("chat_per_s_max", 0))

    @property
    def shape(self) -> shapes.Room:
        """The room as its type."""
        if self._shape is None:
            self._shape = msgspec.convert(self.room, shapes.Room)
        return self._shape

    @property
    def selling(self) -> dict[str, str]:
        """For each SKU of the shelf whether it is `on` or `visible`."""
        if self._selling is None:
            self._selling = {s["id"]: p.get("state", "on") for p in self.shelf for s in p["skus"]}
        return self._selling

    @property
    def pins(self) -> dict[str, str]:
        """For each SKU that is pinned the position of its pin, unless that is not known."""
        if self._pins is None:
            self._pins = {
                sku["id"]: f"{self.epoch}:{self._pinned_at[product['id']]}"
                for product in self.pinned
                if self._pinned_at.get(product["id"])
                for sku in product["skus"]
            }
        return self._pins

    @property
    def skus(self) -> set[str]:
        """The SKUs the shelf shows."""
        return {sku["id"] for product in self.shelf for sku in product["skus"]}

    @property
    def pools(self) -> dict[str, Thing]:
        """The pools whose stock the room shows, each as events name it: `{sku, drop?}`."""
        shown = {f"sku:{sku}": {"sku": sku} for sku in self.skus}
        for drop in self.drops.values():
            shown[f"drop:{drop['id']}"] = {"sku": drop["sku"], "drop": drop["id"]}
        return shown

    def knows_stock(self, data: Thing) -> bool:
        """Whether the picture has this stock, or a newer one."""
        if "drop" in data:
            known = self.drops.get(data["drop"], {})
        else:
            known = self.stock.get(data["sku"], {})
        return bool(known.get("v", -1) >= data["v"])

    def apply(self, event: Event) -> None:
        """Fold one event in; one that is not newer than the picture changes nothing."""
        if event.seq is not None:
            if event.seq <= self.seq:
                return
            self.seq = event.seq
        fold = _FOLDS.get(event.name)
        if fold is not None:
            fold(self, event.data)

    def snapshot(self) -> dict[str, Any]:
        """The snapshot of `room.join`, own things aside."""
        return {
            "room": self.room,
            "shelf": list(self.shelf),
            "pinned": list(self.pinned),
            "coupons": [],
            "messages": list(self.messages),
            **self._state(),
        }

    def now(self) -> dict[str, Any]:
        """What is not replayed to one who resumes, own things aside."""
        return {"messages": list(self.messages)[-MESSAGES_NOW:], **self._state()}

    def _state(self) -> dict[str, Any]:
        return {
            "stock": dict(self.stock),
            "drops": sorted(self.drops.values(), key=_by_opening),
            "viewers": self.viewers,
            "reactions": dict(self.reactions),
            "auction": None,
        }

    def _room(self, data: Thing) -> None:
        if data["room"]["v"] >= self.room["v"]:
            self.room, self._shape = data["room"], None
            if self.on_room is not None:
                self.on_room(self)

    def _grown(self, data: Thing) -> None:
        if data.get("v", 0) > self.v:
            self.room, self._shape = self.room | {"v": data["v"]}, None

    def _shelf(self, data: Thing) -> None:
        self._grown(data)
        self.shelf, self._selling = data["shelf"], None
        by_id = {product["id"]: product for product in self.shelf}
        self.pinned = [by_id.get(product["id"], product) for product in self.pinned]
        self._pins = None
        shown = self.skus
        self.stock = {sku: stock for sku, stock in self.stock.items() if sku in shown}
        if self.on_shelf is not None:
            self.on_shelf(self)

    def _price(self, data: Thing) -> None:
        self._grown(data)

        # New objects: the old ones may be on their way to a joiner.
        def priced(product: Thing) -> Thing:
            if all(sku["id"] != data["sku"] for sku in product["skus"]):
                return product
            skus = [
                sku | {"price_minor": data["price_minor"]} if sku["id"] == data["sku"] else sku
                for sku in product["skus"]
            ]
            return product | {"skus": skus}

        self.shelf = [priced(product) for product in self.shelf]
        self.pinned = [priced(product) for product in self.pinned]

    def _pin(self, data: Thing) -> None:
        product = data["product"]
        self.pinned = [pin for pin in self.pinned if pin["id"] != product["id"]] + [product]
        self._pinned_at[product["id"]], self._pins = self.seq, None

    def _unpin(self, data: Thing) -> None:
        self.pinned = [pin for pin in self.pinned if pin["id"] != data["product"]]
        self._pinned_at.pop(data["product"], None)
        self._pins = None

    def _say(self, data: Thing) -> None:
        if data["n"] > self.n:
            self.n = data["n"]
            self.messages.append(data)

    def _unsay(self, data: Thing) -> None:
        kept = (message for message in self.messages if message["id"] != data["message"])
        self.messages = deque(kept, maxlen=MESSAGES_MAX)

    def _drop(self, data: Thing) -> None:
        drop = data["drop"]
        known = self.drops.get(drop["id"])
        if known is not None and _STEPS[drop["state"]] < _STEPS[known["state"]]:
            return
        if drop["state"] in ("scheduled", "open"):
            self.drops[drop["id"]] = (known or {}) | drop
        else:
            self.drops.pop(drop["id"], None)
        if self.on_shelf is not None:
            self.on_shelf(self)

    def _stock(self, data: Thing) -> None:
        stock = {"left": data["left"], "v": data["v"]}
        if "drop" not in data:
            if data["v"] >= self.stock.get(data["sku"], data)["v"]:
                self.stock[data["sku"]] = stock
        elif data["drop"] in self.drops:
            drop = self.drops[data["drop"]]
            if data["v"] >= drop.get("v", 0):
                self.drops[data["drop"]] = drop | stock

    def _viewers(self, data: Thing) -> None:
        if data["v"] >= self._viewers_v:
            self.viewers, self._viewers_v = data["viewers"], data["v"]

    def _reactions(self, data: Thing) -> None:
        if data["v"] >= self._reactions_v:
            self.reactions, self._reactions_v = data["reactions"], data["v"]


_STEPS: Final = {"scheduled": 0, "open": 1, "closed": 2, "cancelled": 2}


def _by_opening(drop: Thing) -> tuple[int, str]:
    return drop["opens_at"], drop["id"]


_FOLDS: Final[dict[str, Callable[[Picture, Thing], None]]] = {
    "room.opened": Picture._room,  # noqa: SLF001 - the table of its own methods
    "room.closed": Picture._room,  # noqa: SLF001
    "room.changed": Picture._room,  # noqa: SLF001
    "shelf.changed": Picture._shelf,  # noqa: SLF001
    "price.changed": Picture._price,  # noqa: SLF001
    "product.pinned": Picture._pin,  # noqa: SLF001
    "product.unpinned": Picture._unpin,  # noqa: SLF001
    "message.posted": Picture._say,  # noqa: SLF001
    "message.removed": Picture._unsay,  # noqa: SLF001
    "drop.scheduled": Picture._drop,  # noqa: SLF001
    "drop.opened": Picture._drop,  # noqa: SLF001
    "drop.closed": Picture._drop,  # noqa: SLF001
    "stock.changed": Picture._stock,  # noqa: SLF001
    "viewers.counted": Picture._viewers,  # noqa: SLF001
    "reactions.counted": Picture._reactions,  # noqa: SLF001
}

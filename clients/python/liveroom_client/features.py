"""The things of a room as objects: `room.cart.add(...)` for the command `cart.add`.

Each method sends one command and hands back the noun of its answer; everything a command may
refuse is raised as its error. What is not here goes through `room.command(...)`.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

from liveroom_client.errors import LiveroomError
from liveroom_client.reconnect import Backoff
from liveroom_client.session import new_id

ORDER_TRIES_FOR_S: Final = 15.0
TAPS_SUMMED_S: Final = 0.6
TAPS_MAX: Final = 100
"""What one command takes; of taps beyond, while it is waited for, nobody hears."""
LAST_TAPS_WITHIN_S: Final = 1.0

Thing = dict[str, Any]
Send = Callable[..., Awaitable[Thing]]


class Feature:
    """A part of a room that sends commands through it."""

    def __init__(self, send: Send) -> None:
        self._send = send


class Messages(Feature):
    """What is said in the room."""

    async def post(self, text: str) -> Thing:
        """Say something; the message with its id and `n`."""
        return (await self._send("message.post", text=text))["message"]  # type: ignore[no-any-return]

    async def remove(self, message: str) -> None:
        """Take a message from the screens and the history (moderators, the host)."""
        await self._send("message.remove", message=message)


class Reactions(Feature):
    """Hearts and the like."""

    def __init__(self, send: Send) -> None:
        super().__init__(send)
        self._taps: dict[str, int] = {}
        self._telling: asyncio.Task[None] | None = None

    async def send(self, kind: str = "heart", count: int = 1) -> None:
        """Send `count` reactions of one kind. Never repeated when the connection breaks."""
        await self._send("reaction.send", kind=kind, count=count)

    def tap(self, kind: str = "heart") -> None:
        """React once, for a button that is tapped fast; waits for nothing and raises nothing.

        The taps of 0.6 s go out as one command, the next ones once it is answered, at most 100
        of a kind in each; the last ones go out as the room is closed.
        """
        self._taps[kind] = min(TAPS_MAX, self._taps.get(kind, 0) + 1)
        if self._telling is None or self._telling.done():
            self._telling = asyncio.create_task(self._tell())

    async def finish(self, *, send: bool = True) -> None:
        """Send the last taps, which `Room.close` does; an answer is waited for a second."""
        if self._telling is not None:
            self._telling.cancel()
        if not send:
            self._taps.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_TAPS_WITHIN_S):
                await self._flush()

    async def _tell(self) -> None:
        while self._taps:
            await asyncio.sleep(TAPS_SUMMED_S)
            await self._flush()

    async def _flush(self) -> None:
        taps, self._taps = self._taps, {}
        # A tap that gets lost is no loss.
        await asyncio.gather(*(self.send(*one) for one in taps.items()), return_exceptions=True)


class Cart(Feature):
    """This buyer's cart in the room; each line holds its units until `expires_at`."""

    async def add(self, sku: str, qty: int = 1, **more: Any) -> Thing:
        """Hold units and put them in the cart. `more`: `drop`, `price_minor` as seen."""
        return (await self._send("cart.add", sku=sku, qty=qty, **more))["cart"]  # type: ignore[no-any-return]

    async def remove(self, sku: str, **more: Any) -> Thing:
        """Give the units of a line back."""
        return (await self._send("cart.remove", sku=sku, **more))["cart"]  # type: ignore[no-any-return]

    async def show(self) -> Thing:
        """The cart now."""
        return (await self._send("cart.show"))["cart"]  # type: ignore[no-any-return]

    async def checkout(self, order: str | None = None) -> Thing:
        """Turn the whole cart into one order, all or none."""
        return await _until_answered(self._send, "cart.checkout", order=order or new_id())


class Waitlist(Feature):
    """Waiting for what is sold out; an offer comes as `waitlist.offered` and is in the cart."""

    async def join(self, sku: str, qty: int = 1) -> Thing:
        """Wait for units: the place, with how many are `ahead`."""
        return (await self._send("waitlist.join", sku=sku, qty=qty))["waiting"]  # type: ignore[no-any-return]

    async def leave(self, sku: str) -> Thing:
        """Wait no more."""
        return (await self._send("waitlist.leave", sku=sku))["waiting"]  # type: ignore[no-any-return]


class Orders(Feature):
    """This buyer's orders."""

    async def place(
        self, lines: Iterable[Thing], *, order: str | None = None, again: bool = False
    ) -> Thing:
        """Buy now, all lines or none: `[{"sku", "qty", "drop"?, "price_minor"?}]`.

        The order's id is made here unless given, and stays the same through every retry, so
        that there is at most one order. Refusals are raised; `Unavailable` and
        `ConnectionLost` only after 15 s of trying.
        """
        data: Thing = {"order": order or new_id(), "lines": list(lines)}
        if again:
            data["again"] = True
        return await _until_answered(self._send, "order.place", **data)

    async def show(self, order: str) -> Thing:
        """The order as it is now."""
        return (await self._send("order.show", order=order))["order"]  # type: ignore[no-any-return]

    async def cancel(self, order: str) -> Thing:
        """Cancel an order that is not paid."""
        return (await self._send("order.cancel", order=order))["order"]  # type: ignore[no-any-return]


class Drops(Feature):
    """Flash drops, for their buyers; `room.orders.place` and `room.cart.add` take `drop`."""

    async def enter(self, drop: str) -> Thing:
        """Take part in a draw; entering again changes nothing."""
        return (await self._send("drop.enter", drop=drop))["drop"]  # type: ignore[no-any-return]


class Payments(Feature):
    """Paying for orders."""

    async def start(self, order: str, provider: str | None = None) -> Thing:
        """Start a payment; it is done when `order.paid` comes."""
        data = {"order": order} if provider is None else {"order": order, "provider": provider}
        return (await self._send("payment.start", **data))["payment"]  # type: ignore[no-any-return]


class Host(Feature):
    """What the host of the room does."""

    async def open(self) -> Thing:
        """Go live."""
        return await self._send("room.open")

    async def close(self) -> Thing:
        """End the show."""
        return await self._send("room.close")

    async def pin(self, product: str) -> Thing:
        """Show a product on every screen; the oldest of three pins leaves for a fourth."""
        return await self._send("product.pin", product=product)

    async def unpin(self, product: str | None = None) -> Thing:
        """Take down one pinned product, or all of them."""
        return await self._send(
            "product.unpin", **({} if product is None else {"product": product})
        )

    async def notice(self, text: str) -> Thing:
        """Announce something to everybody."""
        return await self._send("notice.post", text=text)

    async def restock(self, sku: str, qty: int) -> Thing:
        """Add units to a SKU's stock."""
        return await self._send("stock.restock", sku=sku, qty=qty)

    async def schedule_drop(
        self, sku: str, quantity: int, price_minor: int, *, lasts_ms: int, **more: Any
    ) -> Thing:
        """Set units aside for a flash drop; it opens now unless `more` has `opens_in_ms`.

        `more` also: `limit_per_buyer`, `admission` ("first" or "draw").
        """
        data: Thing = {"sku": sku, "quantity": quantity, "price_minor": price_minor}
        data |= {"lasts_ms": lasts_ms, "opens_in_ms": 0}
        return (await self._send("drop.schedule", **(data | more)))["drop"]  # type: ignore[no-any-return]

    async def close_drop(self, drop: str) -> Thing:
        """Close an open drop; what is left of it is ordinary stock again."""
        return (await self._send("drop.close", drop=drop))["drop"]  # type: ignore[no-any-return]

    async def cancel_drop(self, drop: str) -> Thing:
        """Call off a drop that has not opened."""
        return (await self._send("drop.cancel", drop=drop))["drop"]  # type: ignore[no-any-return]

    async def adjust(self, sku: str, delta: int, why: str) -> Thing:
        """Count units in, or out (below 0); more than is free is refused as `sold_out`."""
        return await self._send("stock.adjust", sku=sku, delta=delta, why=why)


async def _until_answered(send: Send, cmd: str, **data: Any) -> Thing:
    """Send until it is accepted or refused; the order's id makes each try the same order."""
    deadline = time.monotonic() + ORDER_TRIES_FOR_S
    backoff = Backoff(first_s=0.1, longest_s=3.0)
    while True:
        try:
            return (await send(cmd, **data))["order"]  # type: ignore[no-any-return]
        except LiveroomError as error:
            wait = backoff.next_s(error.retry_after_ms)
            if not error.retry or time.monotonic() + wait > deadline:
                raise
            await asyncio.sleep(wait)

"""Buyers of a simulated sale: carts, orders, drops, waitlists, payments."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

from liveroom.inventory import Hold, HoldLineRequest, HoldRequest
from liveroom.orders import LineRequest
from liveroom.store.ledger import pool_of
from tests.simulation.bank import reference_of
from tests.simulation.crowd import Crowd
from tests.simulation.node import Node
from tests.simulation.shop import ROOM

LINES: Final = (
    {"s1": 1},
    {"s1": 1},
    {"s1": 2},
    {"s2": 1},
    {"s1": 1, "s2": 1},
    {"s1": 1, "s7": 1},
    {"s1": 1, "s2": 1, "s7": 1},
)


class Buyers:
    """The crowd's buyers. Those whose numbers are alike modulo 4 are one person."""

    def __init__(self, crowd: Crowd, rush_s: float) -> None:
        self._crowd = crowd
        self._rng = crowd.rng
        self._rush_s = rush_s

    async def come(self, number: int, way: str) -> None:
        """One who buys in some way, and may wait, pay or cancel."""
        await asyncio.sleep(self._rng.uniform(0.0, self._rush_s))
        match way:
            case "buys":
                await self._buys(number)
            case "fills a cart":
                await self._fills_a_cart(number)
            case "waits":
                await self._waits(number)
            case "buys in a drop":
                await self._buys_in_a_drop(number)

    # ── buying now ────────────────────────────────────────────────────────────────────────

    async def buy(
        self, number: int, lines: dict[str, int], *, patience: int = 6, name: str = ""
    ) -> Any:
        """Buy now, at the price that is shown; the answer, or None."""
        shown = {sku: self._crowd.watch.price(sku) for sku in lines}
        bucket = f"mia///share.b{number % 4}"
        asked = [
            LineRequest(sku=s, qty=q, price_minor=shown[s], bucket=bucket) for s, q in lines.items()
        ]
        answer = await self._place(number, asked, patience=patience, name=name)
        for line in answer.lines if answer is not None else ():
            assert line.price_minor == shown[line.sku], f"o{number}: not the price that was shown"
        return answer

    async def _place(
        self, number: int, lines: list[LineRequest], *, patience: int, name: str = ""
    ) -> Any:
        buyer, order = name or f"b{number % 4}", f"o{number}"
        tries = iter(range(10_000))

        async def ask(node: Node) -> Any:
            if drops := [(line.sku, line.drop) for line in lines if line.drop is not None]:
                await node.promotions.refuse_unless_offered(ROOM, buyer, drops)
            return await node.orders.place(
                order=order, buyer=buyer, room=ROOM, lines=lines, content="c", again=next(tries) > 0
            )

        return await self._crowd.order(order, ask, patience=patience)

    async def _buys(self, number: int) -> None:
        lines = self._rng.choice(LINES)
        tabs = [self.buy(number, lines)]
        if self._rng.random() < 0.3:
            tabs.append(self.buy(number, lines))
        [answer, *_] = await asyncio.gather(*tabs)
        if answer is not None and self._rng.random() < 0.8:
            await asyncio.sleep(self._rng.uniform(0.0, 1.2))
            await self._ends(number)

    async def _buys_in_a_drop(self, number: int) -> None:
        """May enter its draw, if it has one, and orders as it opens or as it closes."""
        found: list[Any] = []
        for _ in range(10):
            found = self._crowd.watch.rows(
                "SELECT id, sku, admission, opens_at, closes_at FROM drops"
                " WHERE state IN ('scheduled', 'open') ORDER BY id"
            )
            if found:
                break
            await asyncio.sleep(0.2)
        else:
            return await self._buys(number)
        drop, sku, admission, *times = self._rng.choice(found)
        if admission == "draw" and self._rng.random() < 0.6:
            member = f"b{number % 4}"
            await self._crowd.attempt(lambda node: node.promotions.enter(ROOM, drop, member))
        in_s = (self._rng.choice(times) - self._crowd.world.sql_ms()) / 1000
        await asyncio.sleep(max(0.0, in_s + self._rng.uniform(-0.5, 0.3)))
        if self._rng.random() < 0.2:
            return await self._fills_a_cart(number, {(sku, drop): 1, (sku, None): 1})
        lines = [LineRequest(sku=sku, drop=drop, qty=1)]
        if self._rng.random() < 0.2:
            lines.append(LineRequest(sku=sku, qty=1))
        answer = await self._place(number, lines, patience=4)
        if answer is not None:
            [(opened, state, changed)] = self._crowd.watch.rows(
                "SELECT opens_at, state, changed_at FROM drops WHERE id = ?", drop
            )
            assert opened <= answer.placed_at, f"o{number} was sold before its drop had opened"
            is_in_time = state != "closed" or answer.placed_at <= changed
            assert is_in_time, f"o{number} was sold after its drop had closed"
            await self._ends(number)
        return None

    # ── carts ─────────────────────────────────────────────────────────────────────────────

    async def _fills_a_cart(
        self, number: int, lines: dict[tuple[str, str | None], int] | None = None
    ) -> None:
        """Put units in a cart, think, and order them; perhaps from two tabs at once."""
        if lines is None:
            lines = {(sku, None): qty for sku, qty in self._rng.choice(LINES).items()}
        own = self._rng.random() < 0.7
        buyer = f"c{number}" if own else f"b{number % 4}"
        held: list[Hold] = []
        until = self._crowd.world.sql_ms() + round(self._crowd.hold_ttl_s * 1000)
        for (sku, drop), qty in lines.items():
            bucket = f"mia//e:{number}/"
            line = HoldLineRequest(
                pool=pool_of(sku, drop), sku=sku, drop=drop, qty=qty, bucket=bucket
            )
            held += await self._crowd.attempt(partial(self._hold, number, buyer, line)) or ()
        await asyncio.sleep(self._rng.choice([0.5, 1.2]) * self._rng.random())
        if held or self._rng.random() < 0.2:
            whole = held if own and len(held) == len(lines) else []
            await self._checks_out(number, buyer, whole, until=until)

    @staticmethod
    async def _hold(number: int, buyer: str, line: HoldLineRequest, node: Node) -> Any:
        if line.drop is not None:
            await node.promotions.refuse_unless_offered(ROOM, buyer, [(line.sku, line.drop)])
        key = f"k{number}{line.pool}"
        request = HoldRequest(buyer=buyer, room=ROOM, key=key, lines=[line], kind="held")
        return await node.inventory.hold(request)

    async def _checks_out(
        self, number: int, buyer: str, whole: Sequence[Hold] = (), *, until: int = 0
    ) -> None:
        """Order a cart; `whole` is all of it, where nobody else can have touched it.

        None of it can have expired before `until`.
        """
        order = f"o{number}"

        def ask(node: Node, order: str = order) -> Any:
            return node.orders.checkout(order=order, buyer=buyer, room=ROOM, content="c")

        tabs = [self._crowd.order(order, ask, patience=5)]
        if self._rng.random() < 0.4:
            tabs.append(self._crowd.order(order, ask, patience=5))
        if self._rng.random() < 0.4:
            other = f"{order}x"
            tabs.append(self._crowd.order(other, partial(ask, order=other), patience=2))
        answers = [one for one in await asyncio.gather(*tabs) if one is not None]
        orders = {one.id for one in answers}
        if whole and answers:
            assert len(orders) == 1, f"one cart of {buyer} became {sorted(orders)}"
            if answers[0].placed_at < until and not self._crowd.watch.raised:
                _assert_whole(answers[0], whole)
        if orders == {order} and self._rng.random() < 0.5:
            await self._ends(number, buyer)

    # ── waiting ───────────────────────────────────────────────────────────────────────────

    async def _waits(self, number: int) -> None:
        """Join the list of what is sold out; take the offer, decline it, leave, or sleep."""
        member, qty = f"w{number}", self._rng.choice([1, 1, 2])
        place = await self._crowd.insist(
            lambda node: node.waitlist.join(
                member=member, room=ROOM, sku="s1", qty=qty, bucket="mia///"
            ),
            tries=3,
        )
        if place is None:
            return await self._buys(number)
        if self._rng.random() < 0.2:
            await asyncio.sleep(self._rng.uniform(0.0, 1.0))
            await self._crowd.attempt(lambda node: node.waitlist.leave(member=member, sku="s1"))
            return None
        for _ in range(8):
            await asyncio.sleep(self._rng.uniform(0.1, 0.5))
            holds = await self._crowd.attempt(lambda node: node.inventory.cart(member, ROOM))
            if holds:
                break
        else:
            return None
        if self._rng.random() < 0.3:
            ids = [hold.id for hold in holds]
            await self._crowd.attempt(lambda node: node.inventory.remove(ids))
        elif self._rng.random() < 0.7:
            await self._checks_out(number, member)
        return None

    # ── paying ────────────────────────────────────────────────────────────────────────────

    async def _ends(self, number: int, buyer: str = "") -> None:
        """Cancel, or pay; perhaps more than once, and both at once."""
        buyer, order = buyer or f"b{number % 4}", f"o{number}"

        async def pays() -> None:
            ask = partial(self._starts, order, buyer)
            payment = await self._crowd.attempt(ask)
            if payment is None:
                return
            reference = reference_of(payment.id)
            if self._rng.random() < 0.2:
                return  # walks away from the bank's page
            if self._rng.random() < 0.2:
                await self._crowd.bank.decline(reference)
                await asyncio.sleep(self._rng.uniform(0.0, 0.6))
                if again := await self._crowd.attempt(ask):
                    await self._crowd.bank.pay(reference_of(again.id))
            await asyncio.sleep(self._rng.choice([0.5, 2.0]) * self._rng.random())
            await self._crowd.bank.pay(reference)

        async def cancels() -> None:
            await self._crowd.attempt(lambda node: node.orders.cancel(order, buyer))

        ways = [
            [pays],
            [pays],
            [pays],
            [cancels],
            [cancels, cancels],
            [pays, cancels],
            [pays, pays],
        ]
        for way in self._rng.choice(ways):
            twice = self._rng.random() < 0.3
            await asyncio.gather(way(), way() if twice else asyncio.sleep(0))

    @staticmethod
    async def _starts(order: str, buyer: str, node: Node) -> Any:
        return await node.payments.start(order=order, buyer=buyer)


def _assert_whole(order: Any, holds: Sequence[Hold]) -> None:
    ordered = {(line.sku, line.drop): line.qty for line in order.lines}
    held = {(hold.sku, hold.drop): hold.qty for hold in holds}
    assert ordered == held, f"{order.id} has {ordered}, not the whole cart {held}"

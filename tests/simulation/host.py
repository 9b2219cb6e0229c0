"""The host of a simulated sale, and the merchant who gives money back."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, Final

from sqlalchemy import update

from liveroom.commands.staging import price_set
from liveroom.promotions import NewDrop
from liveroom.refunding import NewRefund, RefundLine
from liveroom.store import tables
from tests.simulation.crowd import Crowd
from tests.simulation.node import Node
from tests.simulation.shop import ROOM

DEEDS_MAX: Final = 8


class Host:
    """Restocks, counts out, changes prices, pauses, opens drops and refunds while all buy."""

    def __init__(self, crowd: Crowd, sale_s: float) -> None:
        self._crowd = crowd
        self._rng = crowd.rng
        self._sale_s = sale_s

    async def run(self, deeds: Sequence[str]) -> None:
        """A few of these deeds, one after another; what is not answered is asked again."""
        for number in range(self._rng.randint(2, DEEDS_MAX)):
            await asyncio.sleep(self._rng.uniform(0.0, self._sale_s / 4))
            match self._rng.choice(deeds):
                case "restocks":
                    await self._restocks(number)
                case "counts out":
                    await self._counts_out(number)
                case "asks more":
                    await self._asks_more(number)
                case "pauses":
                    await self._pauses()
                case "opens a drop":
                    await self._opens_a_drop(number)
                case "ends a drop":
                    await self._ends_a_drop()
                case "refunds":
                    await self._refunds(number)

    # ── stock and prices ──────────────────────────────────────────────────────────────────

    async def _restocks(self, number: int) -> None:
        await self._crowd.insist(
            lambda node: node.inventory.restock("s1", 1, f"op{number}", "host"), tries=3
        )

    async def _counts_out(self, number: int) -> None:
        await self._crowd.insist(
            lambda node: node.inventory.adjust("s1", -1, f"op{number}", "host", "broken"), tries=3
        )

    async def _asks_more(self, number: int) -> None:
        """A new price; perhaps two at once, from two hosts."""
        prices = [200 + 10 * number, 201 + 10 * number]
        answers = await asyncio.gather(*map(self._sets_price, prices))
        if None in answers:
            return
        for _, inspection in self._crowd.watch.inspect().values():
            if gate := inspection.gates.get("sku:s1"):
                asked = self._crowd.watch.price("s1")
                # A price of before that is committed only now is brought by the sweep.
                assert asked not in prices or gate.price == asked, (
                    f"the gate asks {gate.price}, SQL {asked}"
                )

    async def _sets_price(self, price: int) -> Any:
        async def set_it(node: Node) -> Any:
            services = SimpleNamespace(rooms=node.rooms, inventory=node.inventory)
            args = SimpleNamespace(sku="s1", price_minor=price)
            call: Any = SimpleNamespace(services=services, args=args, room=ROOM)
            return await price_set(call)

        return await self._crowd.attempt(set_it)

    async def _pauses(self) -> None:
        for paused in (True, False):
            change = update(tables.rooms).values(paused=paused)
            await self._crowd.attempt(
                lambda node, change=change: node.db.write(
                    lambda conn: conn.execute(change) and None
                )
            )
            await asyncio.sleep(0.5)

    # ── drops ─────────────────────────────────────────────────────────────────────────────

    async def _opens_a_drop(self, number: int) -> None:
        draw = self._rng.random() < 0.6
        new = NewDrop(
            room=ROOM,
            sku=self._rng.choice(["s1", "s1", "s2"]),
            quantity=1 if draw else self._rng.randint(1, 2),
            price_minor=50,
            opens_in_ms=900 if draw else self._rng.choice([0, 600, 900]),
            lasts_ms=self._rng.choice([400, 1500]),
            limit_per_buyer=self._rng.choice([None, 1]),
            admission="draw" if draw else "first",
        )
        await self._crowd.insist(lambda node: node.promotions.schedule(new, f"d{number}"), tries=4)

    async def _ends_a_drop(self) -> None:
        found = self._crowd.watch.rows("SELECT id, state FROM drops ORDER BY id")
        if not found:
            return
        drop, state = self._rng.choice(found)
        if state == "scheduled":
            await self._crowd.attempt(lambda node: node.promotions.cancel(ROOM, drop))
        else:
            await self._crowd.attempt(lambda node: node.promotions.close(ROOM, drop))

    # ── refunds ───────────────────────────────────────────────────────────────────────────

    async def _refunds(self, number: int) -> None:
        """Give back a paid order, whole or in part, with its goods or without."""
        found = self._crowd.watch.rows(
            'SELECT o.id, l.sku, l."drop", l.qty FROM orders o JOIN order_lines l ON l."order" = o.id'
            " WHERE o.state IN ('paid', 'refund_pending') ORDER BY o.id, l.line"
        )
        if not found:
            return
        order, sku, drop, qty = self._rng.choice(found)
        line = RefundLine(
            sku=sku,
            drop=drop,
            qty=self._rng.randint(1, qty),
            restock=self._rng.random() < 0.5,
        )
        wanted = self._rng.choice(
            [NewRefund(), NewRefund(lines=[line]), NewRefund(lines=[line], amount_minor=10)]
        )
        asks = [self._gives_back(order, wanted, f"r{number}") for _ in range(2)]
        answers = [one for one in await asyncio.gather(*asks) if one is not None]
        assert all(one == answers[0] for one in answers), f"refund r{number} was answered two ways"

    async def _gives_back(self, order: str, wanted: NewRefund, operation: str) -> Any:
        return await self._crowd.insist(
            lambda node: node.orders.give_back(order, wanted, operation=operation), tries=3
        )

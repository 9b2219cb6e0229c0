"""A sale in a world, from beginning to end: crowd, quiet, the last units, the reckoning."""

from __future__ import annotations

import asyncio
from typing import Final, NamedTuple

from sqlalchemy import update

from liveroom.store import tables
from tests.simulation.bank import SILENT_S, Bank
from tests.simulation.buyers import Buyers
from tests.simulation.crowd import Crowd
from tests.simulation.host import Host
from tests.simulation.reckoning import reckon, tell_again
from tests.simulation.shop import SKUS, open_shop
from tests.simulation.watch import Watch
from tests.simulation.world import World

SALE_S: Final = 3.0
QUIET_MAX_S: Final = 60.0
"""How long after the last fault everything must be as it should, without anybody's help."""


class Focus(NamedTuple):
    """What a sale is mostly about: how buyers buy, what the host does, and of how much stock."""

    ways: tuple[str, ...]
    deeds: tuple[str, ...]
    stock: tuple[int, int] = (1, 4)


FOCUSES: Final = {
    "everything": Focus(
        ("buys", "buys", "fills a cart", "waits", "buys in a drop"),
        ("restocks", "counts out", "asks more", "pauses", "opens a drop", "ends a drop", "refunds"),
        stock=(2, 5),
    ),
    "stock": Focus(
        ("buys", "buys", "fills a cart"), ("restocks", "counts out", "asks more", "pauses")
    ),
    "prices": Focus(("buys", "buys", "fills a cart"), ("asks more",), stock=(3, 6)),
    "carts": Focus(("fills a cart",), ("restocks", "pauses"), stock=(2, 5)),
    "drops": Focus(
        ("buys in a drop", "buys in a drop", "fills a cart"),
        ("opens a drop", "opens a drop", "ends a drop"),
        stock=(4, 7),
    ),
    "waiting": Focus(
        ("buys", "waits", "waits"), ("restocks", "counts out", "refunds"), stock=(1, 2)
    ),
    "money": Focus(("buys",), ("refunds", "refunds", "restocks"), stock=(4, 7)),
}


class Sale:
    """Everything that happens under one seed."""

    def __init__(self, world: World, *, focus: str | None = None) -> None:
        self._world = world
        self._rng = rng = world.rng
        self._focus = FOCUSES[focus or rng.choice(sorted(FOCUSES))]
        self._partitions = rng.choice([1, 2, 3, 3])
        self._stock = {sku: rng.randint(*self._focus.stock) for sku in SKUS}
        self._limit = rng.choice([None, None, 1, 2])
        self._bank = Bank(world)
        self._watch = Watch(world)
        self._crowd = Crowd(world, self._watch, self._bank, hold_ttl_s=rng.choice([1.0, 1.0, 4.0]))
        rush_s = rng.choice([0.05, 0.5, SALE_S / 2])
        self._buyers = Buyers(self._crowd, rush_s)
        self._host = Host(self._crowd, SALE_S)

    async def run(self) -> None:
        """The sale, then quiet; then whatever is left is bought, and everything must add up."""
        open_shop(self._world, parts=self._partitions, stock=self._stock, limit=self._limit)
        others = [
            asyncio.ensure_future(self._crowd.keep_nodes()),
            asyncio.ensure_future(self._bank.speak(self._hear)),
        ]
        try:
            everything = asyncio.ensure_future(self._everything())
            await asyncio.wait({everything, *others}, return_when=asyncio.FIRST_COMPLETED)
            if self._world.wrong is not None:
                raise self._world.wrong
            for one in (everything, *others):
                if one.done():
                    one.result()
        finally:
            for one in others:
                one.cancel()
            self._watch.close()

    async def _everything(self) -> None:
        ways = self._rng.choices(self._focus.ways, k=self._rng.randint(5, 14))
        silent = self._rng.random() < 0.5
        if silent:
            self._world.loop.call_later(self._rng.uniform(0.0, 4.0), self._bank.fall_silent)
        crowd = [self._buyers.come(number, way) for number, way in enumerate(ways)]
        await asyncio.gather(self._host.run(self._focus.deeds), *crowd)
        self._world.calm_down()
        self._unpause()
        await self._quiet()
        await self._sell_out()
        await self._quiet()
        self._watch.judge()
        for order in self._crowd.acked:
            assert self._watch.exists(order), f"{order} was told ok and is lost"
        broken = self._crowd.broken + sum(one.counters.broken_holds for one in self._crowd.nodes)
        assert not broken, f"{broken} holds of the present fence were broken"
        reckon(self._watch, self._bank)
        await tell_again(self._crowd, self._watch)

    async def _hear(self, said: object) -> None:
        await self._crowd.ask(lambda node: node.orders.settle(said))

    def _unpause(self) -> None:
        change = update(tables.rooms).values(paused=False)
        self._world.database._write(lambda conn: conn.execute(change) and None, lambda: None)

    async def _quiet(self) -> None:
        """Wait for everything to come to rest by itself: nobody helps."""
        began = self._world.loop.time()
        while (unrest := self._watch.unrest()) is not None or not self._bank.has_said_all:
            if self._world.wrong is not None:
                raise self._world.wrong
            late = self._watch.late(began)
            assert late is None, f"too late: {late}"
            now = self._world.loop.time()
            assert now < began + QUIET_MAX_S, (
                f"not at rest: {unrest or 'the bank has not been heard'}"
            )
            if now > began + SILENT_S:
                self._bank.is_silent = False
            await asyncio.sleep(0.25)

    async def _sell_out(self) -> None:
        """Demand beyond the stock: every unit must be had."""
        for number in range(1000, 1030):
            free = {sku: units for sku, units in self._watch.free().items() if units}
            if not free:
                return
            sku, units = next(iter(free.items()))
            qty = min(units, self._limit or units) if sku == "s1" else units
            await self._buyers.buy(number, {sku: qty}, patience=3, name=f"last{number}")
        raise AssertionError(f"not sold: {free}, {self._watch.inspect()}")

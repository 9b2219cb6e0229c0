"""One process of the house in a world, as far as it sells."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from liveroom.errors import LiveroomError
from liveroom.expiring import Expiring
from liveroom.hoarding import Hoarding
from liveroom.inventory import Inventory
from liveroom.metrics import Counters
from liveroom.orders import Orders
from liveroom.outbox import Outbox
from liveroom.payments import Payments
from liveroom.promotions import Promotions
from liveroom.rooms import Rooms
from liveroom.store import outline, scripts
from liveroom.store.backplane import Backplane
from liveroom.store.leases import Lease
from liveroom.store.lost import LostLines
from liveroom.sweeper import Step, Sweeper
from liveroom.waitlist import Waitlist
from tests.simulation.bank import Bank, Provider
from tests.simulation.loop import Gone, Process
from tests.simulation.stores import RedisAtOnce, SimDatabase, SimRedis
from tests.simulation.world import World

PLACING_MS: Final = 500
PAY_WITHIN_S: Final = 2.0
CLOSING_MAX_S: Final = 1.0
CHORES_S: Final = 1.0

_NOBODY_LISTENS = scripts.connect("unix:///nowhere")  # never connected


class Clock:
    """The house's clock in a world: it goes with the database's."""

    def __init__(self, world: World) -> None:
        self._world = world

    def now_ms(self) -> int:
        return self._world.sql_ms()


class Node:
    """One process: its services, and the chores it does again and again by itself."""

    def __init__(self, world: World, name: str, bank: Bank, *, hold_ttl_s: float) -> None:
        self._world = world
        self._rng = world.rng
        self.process = Process(name)
        self.db = db = SimDatabase(world, self.process)
        self.counters = Counters()
        client, clock = SimRedis(world, self.process), Clock(world)
        backplane = Backplane(client, _NOBODY_LISTENS, clock)
        self.inventory = inventory = Inventory(
            db,
            client,
            clock,
            hold_ttl_s=hold_ttl_s,
            placing_ms=PLACING_MS,
            monotonic=world.loop.time,
        )
        self.payments = Payments(db, [Provider(world, self.process, bank)])
        self.orders = Orders(
            db,
            inventory,
            self.payments,
            backplane,
            self.counters,
            pay_within_s=PAY_WITHIN_S,
            closing_max_s=CLOSING_MAX_S,
        )
        self.promotions = Promotions(db, inventory, backplane, clock)
        self.rooms = Rooms(db, backplane, clock)
        self.waitlist = Waitlist(db, inventory, backplane, clock)
        lost = LostLines(RedisAtOnce(world, self.process), clock)  # nobody comes back to hear it
        self._expiring = Expiring(inventory, backplane, clock, Hoarding(None), lost)

        async def sweep_holds() -> None:
            await self._expiring.sweep_once(await db.glance(outline.read))

        steps = {
            "holds": sweep_holds,
            "waitlist": self.waitlist.sweep_once,
            "orders": self.orders.expire_once,
            "closing": self.orders.end_closing_once,
            "captures": self.orders.settle_waiting_once,
            "drops": self.promotions.mend_once,
            "outbox": Outbox(db, {"refund": self.orders.refund}).run_once,
        }
        self._steps = list(steps.values())
        self._sweeper = Sweeper(
            {each: Step(run) for each, run in steps.items()}
            | {"holds": Step(self._expiring.sweep_once, look=outline.read)},
            lease=Lease(db, name),
        )
        self._chores: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Open the stock, and begin the chores."""
        await self.inventory.start()
        jobs = self._sweep, self._expiring.check_once, self.promotions.keep_time
        self._chores = [self.process.begin(self._again_and_again(job)) for job in jobs]

    def end(self) -> None:
        """The process is dead."""
        self.process.died.set()
        for chore in self._chores:
            chore.cancel()

    async def _sweep(self) -> None:
        """Under the lease mostly; any step may also run anywhere, at any time."""
        if self._rng.random() < 0.7:
            await self._sweeper.sweep_once()
        else:
            await self._rng.choice(self._steps)()

    async def _again_and_again(self, job: Callable[[], Awaitable[object]]) -> None:
        while True:
            await asyncio.sleep(self._rng.uniform(0.0, 2 * CHORES_S))
            try:
                await self.process.do(job(), until_wait=self._world.waits_given_up())
            except (Gone, LiveroomError):  # a server logs it, and tries again
                continue

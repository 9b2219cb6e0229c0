"""A shop floor for tests of selling: real stores, one live room, a few SKUs, everything wired."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import structlog
from sqlalchemy import insert, select, text, update

from liveroom.arguments import fitting
from liveroom.audit import audit
from liveroom.cart import Carts
from liveroom.clock import ServerClock
from liveroom.deciding import Wish
from liveroom.events import Event
from liveroom.ids import new_id
from liveroom.inventory import Hold, HoldLineRequest, HoldRequest, Inventory
from liveroom.metrics import Counters
from liveroom.orders import LineRequest, Orders
from liveroom.outbox import Outbox
from liveroom.payments import Payments, Sandbox
from liveroom.placing import place_batch
from liveroom.promotions import Promotions
from liveroom.refunding import NewRefund
from liveroom.store import ledger, partitions, scripts, tables
from liveroom.store.backplane import Backplane
from liveroom.store.database import Database
from liveroom.waitlist import Waitlist

SECRET = b"a secret of the tests"

# Tracebacks as plain text: structlog's own would render every local variable, for seconds.
structlog.configure(
    processors=[
        structlog.processors.add_log_level,
        structlog.processors.format_exc_info,
        structlog.processors.JSONRenderer(),
    ]
)


def stock_a_shop(conn, stock: dict[str, int], limits: dict[str, int]) -> None:
    """One shop, one product with these SKUs at 250 cents, one live room."""
    partitions.prepare(conn, 1)
    conn.execute(insert(tables.shops), {"id": "shop", "name": "Shop", "created_at": 0})
    product = {"id": "p1", "shop": "shop", "title": "P", "currency": "EUR", "needs": []}
    conn.execute(insert(tables.products), product | {"created_at": 0})
    for position, (sku, units) in enumerate(stock.items()):
        row = {"id": sku, "product": "p1", "position": position, "price_minor": 250}
        conn.execute(insert(tables.skus), row | {"limit_per_buyer": limits.get(sku)})
        ledger.create_pool(conn, sku=sku, initial=units)
    room = {"id": "r1", "title": "R", "host": "h", "state": "live", "paused": False, "v": 1}
    conn.execute(
        insert(tables.rooms),
        room | {"settings": {}, "pinned": [], "pinned_seq": 0, "created_at": 0},
    )
    entry = {"room": "r1", "product": "p1", "position": 1, "state": "on"}
    conn.execute(insert(tables.shelf), entry)


class Floor:
    """Everything that sells, on one database and one Redis."""

    def __init__(
        self,
        db: Database,
        redis_url: str,
        *,
        closing_max_s: float,
        close_max_s: float,
        ttl_s: float,
        provider: type[Sandbox] = Sandbox,
        **stock: Any,
    ) -> None:
        self.db = db
        self.clock = ServerClock()
        self.client = scripts.connect(redis_url)
        self.listening = scripts.connect(redis_url)
        self.backplane = Backplane(self.client, self.listening, self.clock)
        self.inventory = Inventory(db, self.client, self.clock, hold_ttl_s=ttl_s, **stock)
        self.carts = Carts(db, self.inventory)
        self.sandbox = provider([SECRET], self.clock)
        self.payments = Payments(db, [self.sandbox])
        self.counters = Counters()
        self.orders = Orders(
            db,
            self.inventory,
            self.payments,
            self.backplane,
            self.counters,
            pay_within_s=60,
            closing_max_s=closing_max_s,
            close_max_s=close_max_s,
        )
        self.promotions = Promotions(db, self.inventory, self.backplane, self.clock)
        self.waitlist = Waitlist(db, self.inventory, self.backplane, self.clock)
        self.outbox = Outbox(db, {"refund": self.orders.refund})
        self.heard: list[Event] = []
        self.heard_more = asyncio.Condition()

    # ── buying ────────────────────────────────────────────────────────────────────────────

    async def buy(self, order: str, *lines: tuple[str, int], buyer: str = "ann", **but):
        """Buy now; the order."""
        asked = [LineRequest(sku=sku, qty=qty) for sku, qty in lines or [("s1", 1)]]
        content = f"{buyer} {lines}"
        given = {"order": order, "buyer": buyer, "room": "r1", "lines": asked, "content": content}
        return await self.orders.place(**(given | but))

    async def put(self, sku: str, qty: int = 1, *, buyer: str = "ann", again: bool = False) -> None:
        """Put units in the buyer's cart."""
        line = HoldLineRequest(pool=f"sku:{sku}", sku=sku, qty=qty)
        await self.inventory.hold(
            HoldRequest(
                buyer=buyer, room="r1", key=new_id(), lines=[line], kind="held", again=again
            )
        )

    async def place_held(self, order: str, holds: list[Hold]) -> None:
        """Place holds that were taken by hand."""
        wish = Wish(
            order=order,
            buyer=holds[0].buyer,
            room="r1",
            content=order,
            buy_now=True,
            holds=holds,
        )
        plan = await self.db.write(lambda conn: place_batch(conn, [wish], 60_000))
        answer = plan.answers[0]
        if isinstance(answer, Exception):
            raise answer

    async def checkout(self, order: str, *, buyer: str = "ann", content: str = "checkout"):
        """Order what is in the cart."""
        return await self.orders.checkout(order=order, buyer=buyer, room="r1", content=content)

    async def pay(self, order: str, *, buyer: str = "ann") -> str:
        """Start a payment and press the sandbox's pay button; the payment."""
        payment = await self.orders_payment(order, buyer=buyer)
        await self.press(payment)
        return payment

    async def orders_payment(self, order: str, *, buyer: str = "ann") -> str:
        """Start a payment, or find the open one."""
        return (await self.payments.start(order=order, buyer=buyer)).id

    async def press(self, payment: str, *, fail: bool = False) -> None:
        """The sandbox's button, with its webhook handed to the handler."""
        button = self.payments.fail if fail else self.payments.succeed
        await self.orders.settle(self.payments.verify("sandbox", *await button(payment)))

    async def give_back(self, order: str, *lines: dict, operation: str | None = None, **but):
        """Ask for a refund of the order; the refund."""
        wanted = fitting({"lines": list(lines), **but}, NewRefund)
        return await self.orders.give_back(order, wanted, operation=operation)

    # ── looking ───────────────────────────────────────────────────────────────────────────

    async def settle_down(self) -> None:
        """Wait until what was committed is told."""
        await self.orders.close()

    async def left(self, sku: str = "s1") -> int:
        """What could be held now."""
        await self.settle_down()
        return (await self.inventory.left([f"sku:{sku}"]))[f"sku:{sku}"][0]

    async def state(self, order: str) -> str:
        """The order's state now."""
        return (await self.orders.show(order, None)).state

    async def one(self, query: str, **values):
        """The first value that SQL answers."""
        return await self.db.read(lambda conn: conn.execute(text(query), values).scalar())

    async def rows(self, table):
        """All rows of a table."""
        return await self.db.read(lambda conn: list(conn.execute(select(table))))

    async def hears(self, name: str, order: str) -> Event:
        """The direct event of this name about this order, once it has come."""
        return await self.hears_one(name, lambda event: event.data["order"]["id"] == order)

    async def hears_one(self, name: str, fits: Callable[[Event], bool]) -> Event:
        """The first direct event of this name that fits, once it has come."""

        def found() -> Event | None:
            return next((e for e in self.heard if e.name == name and fits(e)), None)

        async with asyncio.timeout(5), self.heard_more:
            await self.heard_more.wait_for(found)
        event = found()
        assert event is not None
        return event

    async def check(self) -> None:
        """Everything told, no hold left, every invariant holds."""
        await self.settle_down()
        report = await audit(self.db, await self.inventory.inspect())
        assert report.ok, report
        assert not self.counters.broken_holds

    # ── what a test does to the world ─────────────────────────────────────────────────────

    async def set_room(self, **values) -> None:
        """Change the room's row, as the rooms service would."""
        await self.change(update(tables.rooms).values(**values))

    async def expire(self) -> None:
        """End all orders whose time to pay has passed."""
        await self.orders.expire_once()
        await self.orders.end_closing_once()

    async def overdue(self, *orders: str) -> None:
        """Let the time to pay of these orders pass."""
        await self.change(
            update(tables.orders)
            .where(tables.orders.c.id.in_(orders))
            .values(pay_by=tables.orders.c.placed_at)
        )

    async def change(self, statement) -> None:
        """Carry out one statement."""
        await self.db.write(lambda conn: conn.execute(statement) and None)

    def _hear(self, events: list[Event]) -> None:
        async def hear() -> None:
            async with self.heard_more:
                self.heard += events
                self.heard_more.notify_all()

        self._hearing = asyncio.ensure_future(hear())

    async def open(self) -> None:
        """Open the stock and listen."""
        await self.inventory.start()
        await self.backplane.start(
            lambda _batch: None,
            self._hear,
            lambda _stock: None,
            lambda: None,
            stock_partitions=self.inventory.partitions,
        )

    async def close(self) -> None:
        """Close what was opened."""
        await self.promotions.close_down()
        await self.orders.close()
        await self.inventory.close()
        await self.backplane.close()
        await self.client.aclose()
        await self.listening.aclose()


@asynccontextmanager
async def floor(
    db: Database,
    redis_url: str,
    stock: dict[str, int] | None = None,
    *,
    limits: dict[str, int] | None = None,
    closing_max_s: float = 60,
    close_max_s: float = 10,
    ttl_s: float = 600,
    **more: Any,
) -> AsyncIterator[Floor]:
    """A shop floor with this stock; without stock, one more node on what is there already.

    `more` is the `provider`, and how the inventory is made: `partitions`, `placing_ms`.
    """
    if stock is not None:
        await db.write(lambda conn: stock_a_shop(conn, stock, limits or {}))
    waits = {"closing_max_s": closing_max_s, "close_max_s": close_max_s}
    one = Floor(db, redis_url, ttl_s=ttl_s, **waits, **more)
    await one.open()
    try:
        yield one
    finally:
        await one.close()

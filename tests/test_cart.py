"""Carts on real stores: lines that are holds, in one currency, one hold for each pool."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest
from shopfloor import stock_a_shop

from liveroom.cart import Carts
from liveroom.clock import ServerClock
from liveroom.errors import LiveroomError
from liveroom.inventory import Inventory
from liveroom.store import ledger, scripts, tables


@asynccontextmanager
async def carts(db, redis_url, hold_ttl_s=60):
    """Carts over s1 (5 units at 250 cents), s2 (5 units, 2 for each buyer) and yen (in JPY)."""

    def stock(conn) -> None:
        stock_a_shop(conn, {"s1": 5, "s2": 5}, {"s2": 2})
        product = {"id": "p2", "shop": "shop", "title": "P", "currency": "JPY", "needs": []}
        conn.execute(tables.products.insert(), product | {"created_at": 0})
        row = {"id": "yen", "product": "p2", "position": 0, "price_minor": 9}
        conn.execute(tables.skus.insert(), row)
        ledger.create_pool(conn, sku="yen", initial=5)

    await db.write(stock)
    client = scripts.connect(redis_url)
    inventory = Inventory(db, client, ServerClock(), hold_ttl_s=hold_ttl_s)
    await inventory.start()
    yield Basket(Carts(db, inventory), inventory)
    await inventory.close()
    await client.aclose()


class Basket:
    """Carts, said shortly."""

    def __init__(self, all_carts: Carts, inventory: Inventory) -> None:
        self.carts = all_carts
        self.inventory = inventory
        self.operations = 0

    async def add(self, sku, qty=1, *, buyer="ann", price=None, operation=None, bucket="mia///"):
        self.operations += 1
        return await self.carts.add(
            buyer=buyer,
            room="r1",
            sku=sku,
            qty=qty,
            drop=None,
            price_minor=price,
            bucket=bucket,
            operation=operation or f"op{self.operations}",
        )

    async def code(self, *args, **kwargs) -> str:
        with pytest.raises(LiveroomError) as refusal:
            await self.add(*args, **kwargs)
        return refusal.value.code

    async def left(self, sku) -> int:
        pool = f"sku:{sku}"
        return (await self.inventory.left([pool]))[pool][0]


def test_adding_again_adds_to_the_line(run, db, redis_url) -> None:
    """One line for each SKU, with one hold and one deadline."""

    async def story() -> None:
        async with carts(db, redis_url) as basket:
            before = await basket.add("s1", 1)
            await basket.add("s2", 1)
            after = await basket.add("s1", 2)
            assert [(line.sku, line.qty) for line in after.lines] == [("s1", 3), ("s2", 1)]
            assert (after.total_minor, after.currency) == (1000, "EUR")
            assert after.lines[0].hold == before.lines[0].hold
            assert after.lines[0].expires_at == before.lines[0].expires_at
            assert await basket.left("s1") == 2

    run(story())


def test_the_same_operation_adds_once(run, db, redis_url) -> None:
    """A repeated cart.add with the same key changes nothing more."""

    async def story() -> None:
        async with carts(db, redis_url) as basket:
            first = await basket.add("s1", 2, operation="key")
            assert await basket.add("s1", 2, operation="key") == first

    run(story())


def test_removing_a_line_puts_its_units_on_sale(run, db, redis_url) -> None:
    """The rest of the cart stays; a line that is not there is nothing to remove."""

    async def story() -> None:
        async with carts(db, redis_url) as basket:
            await basket.add("s1", 2)
            await basket.add("s2", 1)
            for _ in range(2):
                cart = await basket.carts.remove(buyer="ann", room="r1", sku="s1")
                assert [line.sku for line in cart.lines] == ["s2"]
            assert await basket.left("s1") == 5
            empty = await basket.carts.remove(buyer="ann", room="r1", sku="s2")
            assert empty.builtin() == {"lines": [], "total_minor": 0}

    run(story())


def test_refusals_leave_the_cart_alone(run, db, redis_url) -> None:
    """Too many, over the limit, another price, another currency, no such SKU."""

    async def story() -> None:
        async with carts(db, redis_url) as basket:
            cart = await basket.add("s1", 2)
            assert await basket.code("s1", 4) == "sold_out"
            assert await basket.code("s2", 3) == "limit_reached"
            assert await basket.code("s2", 1, price=1) == "price_changed"
            assert await basket.code("yen", 1) == "bad_argument"
            assert await basket.code("nope", 1) == "not_found"
            assert await basket.carts.show("ann", "r1") == cart

    run(story())


def test_carts_are_for_one_buyer_in_one_room(run, db, redis_url) -> None:
    """Nobody sees another's cart, nor a cart of another room."""

    async def story() -> None:
        async with carts(db, redis_url) as basket:
            await basket.add("s1", 1)
            assert (await basket.carts.show("bob", "r1")).lines == []
            assert (await basket.carts.show("ann", "r2")).lines == []

    run(story())


def test_many_tabs_of_one_buyer_stay_within_limit_and_stock(run, db, redis_url) -> None:
    """Fifty parallel adds for one buyer take the limit, and no more."""

    async def story() -> None:
        async with carts(db, redis_url) as basket:
            adds = [basket.add("s2", 1) for _ in range(50)]
            outcomes = await asyncio.gather(*adds, return_exceptions=True)
            refused = [one.code for one in outcomes if isinstance(one, LiveroomError)]
            assert refused == ["limit_reached"] * 48
            [line] = (await basket.carts.show("ann", "r1")).lines
            assert (line.qty, await basket.left("s2")) == (2, 3)

    run(story())


def test_an_expired_line_is_not_shown(run, db, redis_url) -> None:
    """A line is there until its deadline, not until somebody swept it."""

    async def story() -> None:
        async with carts(db, redis_url, hold_ttl_s=0) as basket:
            assert (await basket.add("s1", 1)).lines == []

    run(story())


def test_what_is_being_ordered_cannot_be_removed(run, db, redis_url) -> None:
    """A checkout under way owns its holds; a refused one gives them back."""

    async def story() -> None:
        async with carts(db, redis_url) as basket:
            cart = await basket.add("s1", 2)
            holds = await basket.inventory.to_placing("ann", "r1", "o1")
            await basket.carts.remove(buyer="ann", room="r1", sku="s1")
            await basket.inventory.remove([hold.id for hold in holds])
            await basket.inventory.back_to_held([hold.id for hold in holds])
            assert await basket.carts.show("ann", "r1") == cart

    run(story())


def test_a_line_that_a_rebuild_took_at_once_is_not_answered_ok(run, db, redis_url):
    """Redis forgets between the hold and the look at the cart: that is `rebuilding`, not empty."""

    class Forgetful(Carts):
        async def show(self, buyer, room):
            client = scripts.connect(redis_url)
            await client.flushall()
            await client.aclose()
            return await super().show(buyer, room)

    async def story():
        async with carts(db, redis_url) as basket:
            basket.carts = Forgetful(db, basket.inventory)
            assert await basket.code("s1") == "rebuilding"
            basket.carts = Carts(db, basket.inventory)
            assert len((await basket.add("s1")).lines) == 1

    run(story())

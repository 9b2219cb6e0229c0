"""What other shops got wrong, each a test named after what went wrong, on two nodes at once.

On SQLite and on PostgreSQL: a lock that is not taken shows on the second only.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from contextlib import AsyncExitStack

import pytest
from sqlalchemy import update

from liveroom.errors import LiveroomError, Unavailable
from liveroom.refunding import NewRefund, RefundLine
from liveroom.settings import limit_ms
from liveroom.store import tables
from liveroom.store.database import Database
from tests.shopfloor import Floor, floor


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def databases(request, _empty_schema, tmp_path) -> Iterator[list[Database]]:
    """The same database, as two nodes see it."""
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres_url")
        pair = [Database(url), Database(url)]
        pair[0].upgrade()
    else:
        path = tmp_path / "two.db"
        shutil.copy(_empty_schema, path)
        lock = tmp_path / "two.lock"
        pair = [Database(f"sqlite:///{path}", lock_path=lock) for _ in range(2)]
    yield pair
    for one in pair:
        asyncio.run(one.close())


@pytest.fixture
def told(run, databases, redis_url):
    """Tells a story to two nodes that sell the same stock; every sum must agree at its end."""

    def tell(story, stock: dict[str, int], **more) -> None:
        async def whole() -> None:
            async with AsyncExitStack() as stack:
                one = await stack.enter_async_context(floor(databases[0], redis_url, stock, **more))
                two = await stack.enter_async_context(floor(databases[1], redis_url, **more))
                await story(one, two)
                await two.settle_down()
                await one.inventory.sweep_once()
                await one.check()

        run(whole())

    return tell


async def said(call) -> str:
    """The state of the order, or the code of the refusal; a full or slow store is asked again."""
    try:
        return (await call).state
    except LiveroomError as refusal:
        return refusal.code


async def insist(shop: Floor, order: str, *lines: tuple[str, int], buyer: str) -> str:
    """As clients do: what is away is asked for again."""
    for _ in range(50):
        answer = await said(shop.buy(order, *lines, buyer=buyer, again=True))
        if answer not in ("store_down", "rebuilding", "overloaded"):
            return answer
    raise AssertionError("away fifty times")


def test_the_same_sku_on_two_lines_was_checked_against_one_number(told) -> None:
    """Three and three of five: each line alone would fit."""

    async def story(one: Floor, _two: Floor) -> None:
        assert await said(one.buy("o1", ("s1", 3), ("s1", 3))) == "sold_out"
        assert await said(one.buy("o2", ("s1", 3), ("s1", 2))) == "placed"
        assert await one.left() == 0

    told(story, {"s1": 5})


def test_many_carts_had_the_last_unit(told) -> None:
    """Twenty carts on two nodes want one unit: one has it, and it alone becomes an order."""

    async def put(shop: Floor, buyer: str) -> str:
        try:
            await shop.put("s1", buyer=buyer)
        except LiveroomError as refusal:
            return refusal.code
        return (await shop.checkout(f"o-{buyer}", buyer=buyer)).state

    async def story(one: Floor, two: Floor) -> None:
        answers = await asyncio.gather(*(put((one, two)[n % 2], f"b{n}") for n in range(20)))
        assert sorted(answers) == ["placed"] + ["sold_out"] * 19

    told(story, {"s1": 1})


def test_stock_was_checked_and_then_written_unlocked(told) -> None:
    """Sixty buyers on two nodes, thirty units, two SKUs in both orders of lines."""

    async def story(one: Floor, two: Floor) -> None:
        lines = [("s1", 1), ("s2", 1)]
        asked = [
            insist((one, two)[n % 2], f"o{n}", *(lines if n % 3 else lines[::-1]), buyer=f"b{n}")
            for n in range(60)
        ]
        answers = await asyncio.gather(*asked)
        assert answers.count("placed") == 30
        assert await one.left("s1") == await one.left("s2") == 0

    told(story, {"s1": 30, "s2": 30})


def test_a_lock_was_skipped_where_one_unit_is_wanted(told) -> None:
    """One unit at a time, one buyer, many tabs on two nodes: the limit is the limit."""

    async def story(one: Floor, two: Floor) -> None:
        tabs = (insist((one, two)[n % 2], f"o{n}", ("s1", 1), buyer="ann") for n in range(30))
        answers = await asyncio.gather(*tabs)
        assert sorted(set(answers)) == ["limit_reached", "placed"]
        assert answers.count("placed") == 2

    told(story, {"s1": 50}, limits={"s1": 2})


def test_stock_went_below_zero_and_was_never_added_back(told) -> None:
    """A hundred who are refused take nothing with them."""

    async def story(one: Floor, two: Floor) -> None:
        asked = (said((one, two)[n % 2].buy(f"o{n}", ("s1", 4), buyer=f"b{n}")) for n in range(100))
        assert set(await asyncio.gather(*asked)) == {"sold_out"}
        assert await one.left() == 3
        assert await insist(one, "last", ("s1", 3), buyer="zoe") == "placed"

    told(story, {"s1": 3})


def test_expiry_was_kept_in_redis_alone(told) -> None:
    """Redis forgets everything: what was not paid in time is on sale again all the same."""

    async def story(one: Floor, two: Floor) -> None:
        await one.buy("o1", ("s1", 2))
        await one.settle_down()
        await one.client.flushall()
        await one.overdue("o1")
        await two.expire()
        assert await one.state("o1") == "expired"
        assert await insist(two, "o2", ("s1", 2), buyer="bob") == "placed"

    told(story, {"s1": 2})


def test_a_cancelled_order_was_restocked_twice(told) -> None:
    """Cancelled on both nodes while the sweepers of both let it expire: two units come back."""

    async def end(shop: Floor) -> None:
        await asyncio.gather(shop.expire(), shop.orders.cancel("o1", "ann"))

    async def story(one: Floor, two: Floor) -> None:
        await one.buy("o1", ("s1", 2))
        await one.overdue("o1")
        ended = await asyncio.gather(*(end(shop) for shop in (one, two)), return_exceptions=True)
        assert all(error is None or isinstance(error, LiveroomError) for error in ended), ended
        await one.expire()
        assert await one.state("o1") in ("cancelled", "expired")
        await two.settle_down()
        assert await one.left() == 5
        assert await one.one("SELECT COUNT(*) FROM ledger WHERE kind = 'release'") == 1

    told(story, {"s1": 5})


def test_a_late_webhook_sold_a_refunded_order_again(told) -> None:
    """The same capture, told again after the money went back, sells nothing."""

    async def story(one: Floor, two: Floor) -> None:
        await one.buy("o1", ("s1", 2))
        payment = await one.pay("o1")
        back = NewRefund(lines=[RefundLine(sku="s1", qty=2, restock=True)])
        await two.orders.give_back("o1", back)
        assert await two.outbox.run_once() == 1
        assert await one.state("o1") == "refunded"
        for shop in (one, two):
            await shop.press(payment)
        assert await one.state("o1") == "refunded"
        await two.settle_down()
        assert await one.left() == 5

    told(story, {"s1": 5})


def test_one_paid_for_what_was_gone_and_was_left_alone(told) -> None:
    """Money that comes when the stock is gone goes back, and its buyer is told."""

    async def story(one: Floor, two: Floor) -> None:
        await one.buy("o1", ("s1", 2))
        payment = await one.orders_payment("o1")
        await one.orders.cancel("o1", "ann")
        assert await insist(two, "o2", ("s1", 1), buyer="bob") == "placed"
        await one.press(payment)
        assert await one.state("o1") == "refund_pending"
        assert await one.outbox.run_once() == 1
        assert await one.state("o1") == "refunded"
        await one.hears("order.refunded", "o1")

    told(story, {"s1": 2})


def test_one_order_was_paid_three_times(told) -> None:
    """Started from three tabs there is one payment, and whatever else is captured goes back."""

    async def start(shop: Floor) -> str | None:
        try:
            return await shop.orders_payment("o1")
        except Unavailable:
            return None

    async def story(one: Floor, two: Floor) -> None:
        await one.buy("o1")
        started = await asyncio.gather(*(start(shop) for shop in (one, two, one)))
        [payment] = {name for name in started if name is not None}
        await asyncio.gather(*(one.press(payment) for _ in range(3)))
        assert await one.state("o1") == "paid"
        assert await one.one("SELECT COUNT(*) FROM payments") == 1
        assert await one.one("SELECT COUNT(*) FROM refunds") == 0

    told(story, {"s1": 5})


def test_one_bad_order_stopped_the_expiry_of_all(told) -> None:
    """What is broken stays, is tried again, and holds up nobody."""

    async def story(one: Floor, _two: Floor) -> None:
        for n in range(4):
            await one.buy(f"o{n}", buyer=f"b{n}")
        lines = tables.order_lines
        bad = update(lines).where(lines.c.order == "o0")
        await one.change(bad.values(qty=99))
        await one.overdue("o0", "o1", "o2", "o3")
        await one.expire()
        states = [await one.state(f"o{n}") for n in range(4)]
        assert states == ["closing", "expired", "expired", "expired"]
        await one.change(bad.values(qty=1))
        await one.expire()
        assert await one.state("o0") == "expired"

    told(story, {"s1": 9})


def test_a_repair_overwrote_live_counters(told) -> None:
    """Sweeps, comparisons and audits beside a sale leave every hold and number as they are."""

    async def tend(shop: Floor) -> None:
        for _ in range(10):
            await shop.inventory.check_once()
            await shop.inventory.sweep_once()

    async def story(one: Floor, two: Floor) -> None:
        await one.put("s1", 3, buyer="cat")
        selling = (insist((one, two)[n % 2], f"o{n}", buyer=f"b{n}") for n in range(20))
        answers, *_ = await asyncio.gather(asyncio.gather(*selling), tend(one), tend(two))
        assert answers == ["placed"] * 20
        await two.settle_down()
        assert await one.left() == 30 - 20 - 3
        assert (await one.checkout("cart", buyer="cat")).lines[0].qty == 3

    told(story, {"s1": 30})


def test_days_were_computed_as_minutes(told) -> None:
    """A day is 86,400 s, for what is in a cart and for what is to be paid."""
    assert limit_ms(86_400) == 24 * 60 * 60 * 1000

    async def story(one: Floor, _two: Floor) -> None:
        await one.put("s1")
        [held] = await one.inventory.cart("ann", "r1")
        assert held.due - one.clock.now_ms() > 23 * 60 * 60 * 1000
        order = await one.buy("o1", buyer="bob")
        assert order.pay_by - order.placed_at == 60_000
        await one.inventory.sweep_once()
        await one.expire()
        assert len(await one.inventory.cart("ann", "r1")) == 1
        assert await one.state("o1") == "placed"

    told(story, {"s1": 2}, ttl_s=86_400)

"""Orders on PostgreSQL: two nodes with writers of their own, whose batches really overlap."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Iterator
from functools import partial

import msgspec
import pytest
from shopfloor import floor
from sqlalchemy import text

from liveroom.errors import LiveroomError, Unavailable
from liveroom.store.database import Database

pytestmark = pytest.mark.postgres


@pytest.fixture
def nodes(postgres_url: str) -> Iterator[tuple[Database, Database]]:
    """The same PostgreSQL database, as two nodes see it."""
    first, second = Database(postgres_url), Database(postgres_url)
    first.upgrade()
    yield first, second
    asyncio.run(first.close())
    asyncio.run(second.close())


async def outcome(call) -> str:
    try:
        return (await call).state
    except LiveroomError as refusal:
        return refusal.code


async def insist(call) -> None:
    """As providers and sweepers do: what was `store_down` is tried again."""
    for _ in range(50):
        try:
            await call()
        except Unavailable:
            continue
        return
    raise AssertionError("unavailable fifty times")


def test_a_crossed_burst_of_two_nodes(run, nodes, redis_url) -> None:
    """Carts over four SKUs in any order, far more than there is: all sold, nothing oversold."""

    async def story() -> None:
        stock = {f"s{n}": 40 for n in range(4)}
        async with floor(nodes[0], redis_url, stock) as one, floor(nodes[1], redis_url) as two:
            dice = random.Random(7)
            asked = []
            for n in range(300):
                lines = [(sku, 1) for sku in dice.sample(sorted(stock), k=dice.choice((1, 2, 3)))]
                asked.append(outcome((one, two)[n % 2].buy(f"o{n}", *lines, buyer=f"b{n}")))
            assert set(Counter(await asyncio.gather(*asked))) == {"placed", "sold_out"}
            single = [outcome(one.buy(f"x{n}", (f"s{n % 4}", 1), buyer="x")) for n in range(160)]
            await asyncio.gather(*single)
            await two.settle_down()
            assert [await one.left(sku) for sku in stock] == [0, 0, 0, 0]
            reserved = await one.db.read(
                lambda conn: list(conn.scalars(text("SELECT reserved FROM pools")))
            )
            assert reserved == [40] * 4
            await one.check()

    run(story())


def test_the_same_order_on_two_nodes(run, nodes, redis_url) -> None:
    """Twenty parallel requests of one id get one answer."""

    async def story() -> None:
        async with floor(nodes[0], redis_url, {"s1": 9}) as one, floor(nodes[1], redis_url) as two:
            answers = await asyncio.gather(*((one, two)[n % 2].buy("o1") for n in range(20)))
            assert len({msgspec.json.encode(answer) for answer in answers}) == 1
            await two.settle_down()
            assert await one.left() == 8
            await one.check()

    run(story())


def test_sweeper_against_webhook(run, nodes, redis_url) -> None:
    """Expiry on one node and the webhook on the other, many times: each order ends rightly."""

    async def story() -> None:
        async with floor(nodes[0], redis_url, {"s1": 60}) as one, floor(nodes[1], redis_url) as two:
            orders = [f"o{n}" for n in range(20)]
            payments = []
            for order in orders:
                await one.buy(order, buyer=order)
                payments.append(await one.orders_payment(order, buyer=order))
            await one.overdue(*orders)
            dice = random.Random(3)
            presses = [partial(two.press, payment) for payment in payments for _ in range(2)]
            dice.shuffle(presses)
            sweeps = [one.expire, two.expire]
            await asyncio.gather(*(insist(call) for call in sweeps + presses))
            await two.settle_down()
            await one.orders.settle_waiting_once()
            assert Counter([await one.state(order) for order in orders]) == {"paid": 20}
            assert await one.left() == 40
            await one.check()

    run(story())


def test_a_late_payment_and_its_refund(run, nodes, redis_url) -> None:
    """With stock the order is paid after all; without, the money goes back."""

    async def story() -> None:
        async with floor(nodes[0], redis_url, {"s1": 1}) as shop:
            payments = {}
            for order in ("o1", "o2"):
                await shop.buy(order, buyer=order)
                payments[order] = await shop.orders_payment(order, buyer=order)
                await shop.overdue(order)
                await shop.expire()
                await shop.settle_down()
            await asyncio.gather(*(shop.press(one) for one in payments.values()))
            await shop.settle_down()
            states = sorted([await shop.state("o1"), await shop.state("o2")])
            assert states == ["paid", "refund_pending"]
            assert await shop.outbox.run_once() == 1
            states = sorted([await shop.state("o1"), await shop.state("o2")])
            assert states == ["paid", "refunded"]
            await shop.check()

    run(story())

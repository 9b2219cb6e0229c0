"""Flash drops on PostgreSQL: buyers, hosts and sweepers of two nodes that really overlap."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator

import pytest
from shopfloor import Floor, floor
from sqlalchemy import update

from liveroom.errors import LiveroomError
from liveroom.orders import LineRequest
from liveroom.promotions import NewDrop
from liveroom.store import tables
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


def wanted(**but) -> NewDrop:
    """Ten units of s1 at 100 cents, two to each buyer, open at once."""
    asked = {"room": "r1", "sku": "s1", "quantity": 10, "price_minor": 100, "opens_in_ms": 0}
    return NewDrop(**asked | {"lasts_ms": 600_000, "limit_per_buyer": 2} | but)


async def outcome(call) -> str:
    """A refusal's code, or `ok`."""
    try:
        await call
    except LiveroomError as refusal:
        return refusal.code
    return "ok"


def buy(one: Floor, drop: str | None, order: str, buyer: str):
    """One unit, of the drop or of ordinary stock."""
    line = LineRequest(sku="s1", qty=1, drop=drop)
    return outcome(one.buy(order, lines=[line], buyer=buyer, content=order))


def test_a_drop_that_closes_in_the_burst(run, nodes, redis_url) -> None:
    """Both nodes sell and close it at once, beside ordinary sales: every unit is somewhere."""

    async def story() -> None:
        first, second = nodes
        async with floor(first, redis_url, {"s1": 40}) as one, floor(second, redis_url) as two:
            both = (one, two)
            asked = [both[n % 2].promotions.schedule(wanted(), "op") for n in range(6)]
            drops = {drop.id for drop in await asyncio.gather(*asked)}
            [drop] = drops
            row = tables.drops

            async def close(node: Floor) -> None:
                await one.change(update(row).values(closes_at=row.c.opens_at))
                await node.promotions.keep_time()
                await node.promotions.mend_once()

            burst = [buy(both[n % 2], drop, f"d{n}", f"b{n % 20}") for n in range(40)]
            burst += [buy(both[n % 2], None, f"o{n}", f"b{n}") for n in range(40)]
            *answers, _, _ = await asyncio.gather(*burst, close(one), close(two))
            assert set(Counter(answers)) <= {"ok", "sold_out", "not_open", "limit_reached"}
            for node in both:
                await node.settle_down()
                await node.promotions.mend_once()
            sold = answers.count("ok")
            assert await one.left() == 40 - sold
            assert await one.one("SELECT SUM(initial + adjusted) FROM pools") == 40
            assert await one.one("SELECT state FROM drops") == "closed"
            await one.check()

    run(story())


def test_two_hosts_carve_the_same_stock(run, nodes, redis_url) -> None:
    """Of many drops of ten units, as many are scheduled as there is stock for."""

    async def story() -> None:
        first, second = nodes
        async with floor(first, redis_url, {"s1": 45}) as one, floor(second, redis_url) as two:
            both = (one, two)
            asked = [outcome(both[n % 2].promotions.schedule(wanted(), f"op{n}")) for n in range(8)]
            assert Counter(await asyncio.gather(*asked)) == {"ok": 4, "sold_out": 4}
            await two.settle_down()
            assert await one.left() == 5
            await one.check()

    run(story())


def test_a_draw_entered_while_it_opens(run, nodes, redis_url) -> None:
    """Whoever was answered `ok` is in the draw; whoever came later was told so."""

    async def story() -> None:
        first, second = nodes
        async with floor(first, redis_url, {"s1": 40}) as one, floor(second, redis_url) as two:
            both, row = (one, two), tables.drops
            later = wanted(opens_in_ms=60_000, admission="draw")
            drop = (await one.promotions.schedule(later, "op")).id
            await one.change(update(row).values(opens_at=row.c.created_at))
            entering = [
                outcome(both[n % 2].promotions.enter("r1", drop, f"m{n}")) for n in range(60)
            ]
            *answers, _, _ = await asyncio.gather(
                *entering, one.promotions.keep_time(), two.promotions.keep_time()
            )
            assert set(answers) <= {"ok", "not_open"}
            assert await one.one("SELECT entries FROM drops") == answers.count("ok")
            assert await one.one("SELECT COUNT(*) FROM drop_entries") == answers.count("ok")
            admitted = await one.one("SELECT COUNT(*) FROM drop_entries WHERE place IS NOT NULL")
            assert admitted == min(10, answers.count("ok"))

    run(story())

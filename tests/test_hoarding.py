"""Buyers who hold and never pay: stock comes back by itself, and they may be made to wait."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from house import ANN, BO, COOL_MS, House
from shopfloor import floor

from liveroom.auth import Member
from liveroom.errors import LiveroomError, Refused
from liveroom.ids import new_id
from liveroom.inventory import HoldLineRequest, HoldRequest

HOARDERS = 1000


async def eventually(fact: Callable[[], Awaitable[object]]) -> None:
    async with asyncio.timeout(20):
        while not await fact():  # noqa: ASYNC110 - time passes in Redis
            await asyncio.sleep(0.02)


async def code_of(work) -> str:
    try:
        await work
    except LiveroomError as refusal:
        return refusal.code
    return "ok"


async def let_expire(h: House, member: Member) -> None:
    """A line in the cart that expires, and is swept away."""
    await h.do(member, "cart.add", sku="a", qty=1)

    async def is_free() -> bool:
        await h.expiring.sweep_once()
        return (await h.inventory.left(["sku:a"]))["sku:a"][0] == 5

    await eventually(is_free)


def test_a_thousand_that_never_pay_hold_stock_for_one_ttl(run, db, redis_url):
    """Every unit is in a cart of somebody who never pays; after one TTL all are on sale again."""

    async def story():
        async with floor(db, redis_url, {"s1": HOARDERS}, ttl_s=2) as shop:
            line = HoldLineRequest(pool="sku:s1", sku="s1", qty=1)
            holds = await asyncio.gather(
                *(
                    shop.inventory.hold(
                        HoldRequest(
                            buyer=f"h{n}", room="r1", key=new_id(), lines=[line], kind="held"
                        )
                    )
                    for n in range(HOARDERS)
                )
            )
            assert len(holds) == HOARDERS
            assert await shop.left() == 0
            expired = set()

            async def is_free() -> bool:
                expired.update(hold.id for hold in (await shop.inventory.sweep_once()).expired)
                return await shop.left() == HOARDERS

            await eventually(is_free)
            assert expired == {hold.id for [hold] in holds}
            await shop.buy("o1", ("s1", HOARDERS))
            await shop.check()

    run(story())


def test_who_lets_holds_expire_waits_before_the_next(run, db, redis_url):
    """The second expired hold of a SKU begins the wait: for this buyer, this SKU, and that long."""

    async def story():
        async with House(db, redis_url, hold_ttl_s=0.05, hoarded_max=2) as h:
            await let_expire(h, ANN)
            await let_expire(h, ANN)
            wish = {"order": new_id(), "lines": [{"sku": "b", "qty": 1}, {"sku": "a", "qty": 1}]}
            for cmd, data in (("cart.add", {"sku": "a", "qty": 1}), ("order.place", wish)):
                with pytest.raises(Refused) as refused:
                    await h.do(ANN, cmd, **data)
                assert (refused.value.code, refused.value.retry) == ("slow_mode", True)
                assert refused.value.data == {"sku": "a"}
                assert 0 < refused.value.retry_after_ms <= COOL_MS
            assert await code_of(h.do(BO, "cart.add", sku="a", qty=1)) == "ok"
            assert await code_of(h.do(ANN, "cart.add", sku="b", qty=1)) == "ok"

            async def may_again() -> bool:
                return await code_of(h.do(ANN, "order.place", **wish)) != "slow_mode"

            await eventually(may_again)

    run(story())


def test_only_expired_holds_count(run, db, redis_url):
    """What is given back or ordered is nobody's harm, however often; off, nothing counts."""

    async def story():
        async with House(db, redis_url, hoarded_max=1) as h:
            for _ in range(3):
                await h.do(ANN, "cart.add", sku="a", qty=1)
                await h.do(ANN, "cart.remove", sku="a")
            await h.do(ANN, "cart.add", sku="a", qty=1)
            await h.do(ANN, "cart.checkout", order=new_id())
            await h.expiring.sweep_once()
            assert await code_of(h.do(ANN, "cart.add", sku="a", qty=1)) == "ok"

    run(story())


def test_the_cool_down_is_off_unless_it_is_set(run, db, redis_url):
    """By default holds may expire without end."""

    async def story():
        async with House(db, redis_url, hold_ttl_s=0.05) as h:
            for _ in range(3):
                await let_expire(h, ANN)
            assert await code_of(h.do(ANN, "cart.add", sku="a", qty=1)) == "ok"

    run(story())

"""The waitlist: what comes back goes to who is next, whoever dies in between."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest
from shopfloor import Floor, floor

from liveroom.errors import LiveroomError, Refused
from liveroom.store import tables, waiting

SKU, POOL = "s1", "sku:s1"


async def code_of(work) -> str:
    try:
        await work
    except LiveroomError as refusal:
        return refusal.code
    return "ok"


async def wait_for(shop: Floor, buyer: str, qty: int = 1, *, sku: str = SKU) -> int:
    """Join the list; how many are ahead."""
    joined = await shop.waitlist.join(
        member=buyer, room="r1", sku=sku, qty=qty, bucket="mia///share"
    )
    assert (joined.sku, joined.qty) == (sku, qty)
    return joined.ahead


async def has(shop: Floor, buyer: str) -> int:
    """Units in the buyer's cart."""
    return sum(line.qty for line in (await shop.carts.show(buyer, "r1")).lines)


async def give_back(shop: Floor, buyer: str) -> None:
    await shop.carts.remove(buyer=buyer, room="r1", sku=SKU)


async def offered(shop: Floor, buyer: str) -> tuple[int, int]:
    """The units and the deadline of the buyer's first offer, once it was told."""
    event = await shop.hears_one("waitlist.offered", lambda one: one.to == buyer)
    assert event.data["sku"] == SKU
    return event.data["qty"], event.data["until"]


def test_what_comes_back_is_for_those_who_wait_alone(run, db, redis_url):
    """From the step that frees them on, nobody but the next gets units; then they are for all."""

    async def story() -> None:
        async with floor(db, redis_url, {SKU: 5}) as shop:
            await shop.put(SKU, 5)
            assert await wait_for(shop, "bob", 2) == 0
            assert await wait_for(shop, "cyd", 2) == 1
            await give_back(shop, "ann")
            # No sweep has come by yet.
            assert await shop.left() == 0
            with pytest.raises(Refused) as refused:
                await shop.put(SKU, 1, buyer="eve")
            assert refused.value.data == {"sku": SKU, "left": 0}
            assert await code_of(shop.buy("o1", (SKU, 1), buyer="eve")) == "sold_out"
            assert await code_of(shop.put(SKU, 1, buyer="bob")) == "sold_out"

            assert await shop.waitlist.sweep_once() == 2
            assert [await has(shop, who) for who in ("bob", "cyd", "eve")] == [2, 2, 0]
            [line] = (await shop.carts.show("bob", "r1")).lines
            assert await offered(shop, "bob") == (2, line.expires_at)
            assert await shop.left() == 1
            await shop.put(SKU, 1, buyer="eve")
            await shop.checkout("o1", buyer="bob")
            assert await shop.waitlist.sweep_once() == 0
            await shop.check()

    run(story())


def test_an_offer_not_taken_goes_to_the_next(run, db, redis_url):
    """Declined or expired: the next in line, in the order in which they came."""

    async def story() -> None:
        async with floor(db, redis_url, {SKU: 1}, ttl_s=0.3) as shop:
            await shop.put(SKU)
            for buyer in ("bob", "cyd", "eve"):
                await wait_for(shop, buyer)
            await give_back(shop, "ann")
            await shop.waitlist.sweep_once()
            assert await has(shop, "bob") == 1
            await give_back(shop, "bob")  # declined
            await shop.waitlist.sweep_once()
            assert [await has(shop, who) for who in ("bob", "eve")] == [0, 0]
            await offered(shop, "cyd")
            async with asyncio.timeout(10):  # cyd's offer expires
                while not await shop.waitlist.sweep_once():
                    await shop.inventory.sweep_once()
                    await asyncio.sleep(0.02)
            await offered(shop, "eve")
            assert await has(shop, "cyd") == 0
            async with asyncio.timeout(10):  # and eve's: nobody waits any more
                while await shop.left() == 0:
                    await shop.inventory.sweep_once()
                    await shop.waitlist.sweep_once()
                    await asyncio.sleep(0.02)
            await shop.put(SKU, buyer="fay")
            await shop.check()

    run(story())


def test_restocked_units_serve_the_list_first(run, db, redis_url):
    """Each gets what was asked, the last what is there, and what is over is for all."""

    async def story() -> None:
        async with floor(db, redis_url, {SKU: 1}) as shop:
            await shop.buy("o1", (SKU, 1))
            await shop.settle_down()
            for buyer in ("bob", "cyd", "eve"):
                await wait_for(shop, buyer, 2)
            await shop.inventory.restock(SKU, 5, "r1", "host")
            assert await shop.left() == 0
            assert await shop.waitlist.sweep_once() == 3
            assert [await has(shop, who) for who in ("bob", "cyd", "eve")] == [2, 2, 1]
            assert (await offered(shop, "eve"))[0] == 1
            await shop.inventory.restock(SKU, 4, "r2", "host")
            assert await shop.left() == 4
            await shop.check()

    run(story())


def test_nobody_waits_while_enough_are_left(run, db, redis_url):
    """Whoever can hold what is wanted is told so; who wants more than is left may wait."""

    async def story() -> None:
        async with floor(db, redis_url, {SKU: 3}) as shop:
            with pytest.raises(Refused) as refused:
                await wait_for(shop, "bob", 3)
            assert (refused.value.code, refused.value.data) == ("not_open", {"sku": SKU, "left": 3})
            assert await wait_for(shop, "bob", 4) == 0
            await shop.waitlist.sweep_once()
            assert await has(shop, "bob") == 3
            await shop.check()

    run(story())


def test_a_place_is_kept_and_may_be_given_up(run, db, redis_url):
    """Asking again changes the number, not the place; who leaves is offered nothing."""

    async def story() -> None:
        async with floor(db, redis_url, {SKU: 2}) as shop:
            await shop.put(SKU, 2)
            assert await wait_for(shop, "bob", 1) == 0
            assert await wait_for(shop, "cyd", 1) == 1
            assert await wait_for(shop, "bob", 2) == 0
            assert await wait_for(shop, "cyd", 1) == 1
            for _ in range(2):
                gone = await shop.waitlist.leave(member="bob", sku=SKU)
                assert gone.qty == 0
            await give_back(shop, "ann")
            await shop.waitlist.sweep_once()
            assert [await has(shop, who) for who in ("bob", "cyd")] == [0, 1]
            assert await shop.left() == 1
            await shop.check()

    run(story())


def test_a_limit_holds_for_offers_too(run, db, redis_url):
    """Offered is what the limit leaves; whoever has all of it cannot wait."""

    async def story() -> None:
        async with floor(db, redis_url, {SKU: 6}, limits={SKU: 3}) as shop:
            await shop.buy("o1", (SKU, 1), buyer="bob")
            await shop.buy("o2", (SKU, 3), buyer="eve")
            await shop.put(SKU, 2)
            await shop.settle_down()
            await wait_for(shop, "bob", 3)
            assert await code_of(wait_for(shop, "eve", 1)) == "limit_reached"
            await wait_for(shop, "ann", 1)
            await shop.inventory.restock(SKU, 9, "r1", "host")
            await shop.waitlist.sweep_once()
            assert await has(shop, "bob") == 2
            assert await has(shop, "ann") == 3
            assert await shop.rows(tables.waiting) == []
            await shop.check()

    run(story())


def test_the_host_counts_out_what_waits(run, db, redis_url):
    """A reduction takes free units also while somebody waits for them: they are the host's."""

    async def story() -> None:
        async with floor(db, redis_url, {SKU: 2}) as shop:
            await shop.put(SKU, 2)
            await wait_for(shop, "bob", 2)
            await give_back(shop, "ann")
            await shop.inventory.adjust(SKU, -1, "a1", "host", "broken")
            await shop.waitlist.sweep_once()
            assert await has(shop, "bob") == 1
            await shop.check()

    run(story())


def test_a_closed_room_keeps_nobody_waiting(run, db, redis_url):
    """In a paused room one waits on; when it closes the list is over and units are for all."""

    async def story() -> None:
        async with floor(db, redis_url, {SKU: 1}) as shop:
            await shop.put(SKU)
            await wait_for(shop, "bob")
            await give_back(shop, "ann")
            await shop.set_room(paused=True)
            assert await shop.waitlist.sweep_once() == 0
            assert await shop.left() == 0
            await shop.set_room(paused=False, state="closed")
            assert await shop.waitlist.sweep_once() == 0
            assert await shop.left() == 1
            assert await has(shop, "bob") == 0

    run(story())


# ── whoever dies in between ───────────────────────────────────────────────────────────────────


def test_a_rebuilt_gate_knows_that_somebody_waits(run, db, redis_url):
    """The flag comes back from SQL with the gate, before anybody can hold."""

    async def story() -> None:
        async with floor(db, redis_url, {SKU: 2}) as shop:
            await shop.put(SKU, 2)
            await wait_for(shop, "bob", 2)
            await shop.client.flushall()
            assert await shop.left() == 0
            assert await code_of(shop.put(SKU, buyer="eve")) == "sold_out"
            assert await shop.waitlist.sweep_once() == 1
            assert await has(shop, "bob") == 2
            await shop.check()

    run(story())


def test_each_of_many_lists_has_its_turn(run, db, redis_url, monkeypatch):
    """More lists than one look takes, the first of them sold out for good: the last is served."""
    monkeypatch.setattr(waiting, "LISTED_MAX", 2)
    skus = [f"s{number}" for number in range(1, 6)]

    async def story() -> None:
        async with floor(db, redis_url, dict.fromkeys(skus, 0)) as shop:
            for sku in skus:
                for buyer in ("bob", "cyd"):
                    await wait_for(shop, buyer, sku=sku)
            await shop.inventory.restock("s5", 3, "r1", "host")
            assert await shop.left("s5") == 0
            served = [await shop.waitlist.sweep_once() for _ in range(8)]
            assert (sum(served), await has(shop, "bob"), await has(shop, "cyd")) == (2, 1, 1)
            assert await shop.left("s5") == 1
            await shop.check()

    run(story())


def test_killed_after_joining_the_flag_is_set_by_the_sweep(run, db, redis_url):
    """In SQL and not at the gate yet: the next sweep offers, and from then on offers alone hold."""

    async def story() -> None:
        async with floor(db, redis_url, {SKU: 3}) as shop:
            await shop.put(SKU, 3)
            for member in ("bob", "cyd"):
                wish = {"pool": POOL, "member": member, "room": "r1", "qty": 2, "bucket": "mia///"}
                await db.write(partial(waiting.join, **wish))
            assert await shop.waitlist.sweep_once() == 0
            await give_back(shop, "ann")
            assert await code_of(shop.put(SKU, buyer="eve")) == "sold_out"
            await shop.waitlist.sweep_once()
            assert [await has(shop, who) for who in ("bob", "cyd")] == [2, 1]
            await shop.check()

    run(story())


def test_killed_after_offering_the_offer_is_the_same_again(run, db, redis_url):
    """Held and not written down: the next sweep tells the same offer, and makes no second one."""

    async def story() -> None:
        async with floor(db, redis_url, {SKU: 4}) as shop:
            await shop.put(SKU, 4)
            await wait_for(shop, "bob", 2)
            await give_back(shop, "ann")
            rows = await shop.rows(tables.waiting)
            await shop.waitlist.sweep_once()
            [line] = (await shop.carts.show("bob", "r1")).lines
            # As if the process had died before it could write down that bob was served.
            await shop.change(tables.waiting.insert().values(rows[0]._asdict()))
            await shop.change(tables.waitlists.update().values(open=True))
            await shop.waitlist.sweep_once()
            assert (await shop.carts.show("bob", "r1")).lines == [line]
            assert await shop.left() == 2
            assert await shop.rows(tables.waiting) == []
            await shop.check()

    run(story())


def test_killed_while_closing_the_list_is_closed_later(run, db, redis_url):
    """The gate lets all hold, SQL says that it must not: the next sweep closes the list."""

    async def story() -> None:
        async with floor(db, redis_url, {SKU: 1}) as shop:
            await shop.put(SKU)
            await wait_for(shop, "bob")
            await shop.waitlist.leave(member="bob", sku=SKU)
            await shop.inventory.set_waiting(SKU, waiting=False)  # and killed
            await shop.waitlist.sweep_once()
            assert [row.open for row in await shop.rows(tables.waitlists)] == [False]
            await give_back(shop, "ann")
            assert await shop.left() == 1

    run(story())


def test_a_list_never_closes_over_who_joins(run, db, redis_url):
    """A list that was read as empty stays open for whoever has joined since."""

    async def story() -> None:
        async with floor(db, redis_url, {SKU: 1}) as shop:
            await shop.put(SKU)
            await wait_for(shop, "bob")
            await shop.waitlist.leave(member="bob", sku=SKU)
            [(pool, joined)] = (await db.read(waiting.lists)).empty
            await wait_for(shop, "cyd")
            await give_back(shop, "ann")
            # What the sweep does with a list it has read as empty a moment ago:
            await shop.waitlist._close(pool, joined)
            assert await shop.left() == 0
            await shop.waitlist.sweep_once()
            assert await has(shop, "cyd") == 1

    run(story())


def test_two_sweeps_at_once_offer_once(run, db, redis_url):
    """A lease that changes hands may have two sweeping: each in the line gets one offer."""

    async def story() -> None:
        async with floor(db, redis_url, {SKU: 9}) as shop, floor(db, redis_url) as other:
            await shop.put(SKU, 9)
            buyers = [f"b{number}" for number in range(12)]
            for buyer in buyers:
                await wait_for(shop, buyer)
            await give_back(shop, "ann")
            sweeps = [one.waitlist.sweep_once() for one in (shop, other) for _ in range(3)]
            await asyncio.gather(*sweeps)
            assert [await has(other, buyer) for buyer in buyers] == [1] * 9 + [0] * 3
            assert await shop.left() == 0
            await shop.check()

    run(story())


def test_killed_after_telling_who_has_bought_is_offered_no_more(run, db, redis_url):
    """Offered and told, not written down, and bought meanwhile: served is served."""

    async def story() -> None:
        async with floor(db, redis_url, {SKU: 4}) as shop:
            await shop.put(SKU, 4)
            await wait_for(shop, "bob", 2)
            await give_back(shop, "ann")
            rows = await shop.rows(tables.waiting)
            await shop.waitlist.sweep_once()
            await shop.change(tables.waiting.insert().values(rows[0]._asdict()))
            await shop.change(tables.waitlists.update().values(open=True))
            await shop.checkout("o1", buyer="bob")
            await shop.settle_down()
            await shop.waitlist.sweep_once()
            assert await has(shop, "bob") == 0
            assert await shop.left() == 2
            assert await shop.rows(tables.waiting) == []
            await shop.check()

    run(story())

"""Cart lines that end by themselves: by their time, or by a rebuild; their buyers hear of it."""

from __future__ import annotations

import asyncio

from house import ANN, BO, House
from test_socket import Phone

from liveroom.clock import ManualClock
from liveroom.store import keys, ledger, partitions, scripts
from liveroom.store.answered import AnsweredLines
from liveroom.store.holds import Hold
from liveroom.store.lost import KEPT_MAX, LOOKED_FOR_S, LostLines


async def seated(house, member):
    """A phone of this member, joined."""
    phone = Phone(house)
    token = house.token(member)["authorization"].removeprefix("Bearer ")
    phone.cmd(1, "room.join", token=token)
    assert "ok" in await phone.reply(1)
    return phone


async def told(phone, events=1):
    """The first hold.expired events, once that many have come."""
    async with asyncio.timeout(10):
        while True:
            heard = [one["data"] for one in phone.heard() if one.get("ev") == "hold.expired"]
            if len(heard) >= events:
                return heard
            await asyncio.sleep(0.005)


def test_a_wiped_redis_tells_whose_carts_are_lost(run, db, redis_url):
    """What was in carts is told to its buyers once; what was removed or ordered is not."""

    async def story():
        async with House(db, redis_url) as house:
            ann, bo = await seated(house, ANN), await seated(house, BO)
            for member, sku in ((ANN, "a"), (ANN, "b"), (BO, "a"), (BO, "c")):
                cart = (await house.do(member, "cart.add", sku=sku, qty=1))["cart"]
            await house.do(ANN, "cart.remove", sku="b")
            await house.do(BO, "cart.checkout", order="o1")
            [line] = (await house.do(ANN, "cart.add", sku="a", qty=2))["cart"]["lines"]
            await house.services.orders.close()

            await house.clients[0].flushall()
            await house.expiring.check_once()
            await house.expiring.check_once()
            assert await told(ann) == [
                {
                    "hold": {"sku": "a", "qty": 3, "expires_at": line["expires_at"]},
                    "why": "rebuilding",
                }
            ]
            assert (await house.do(ANN, "cart.show"))["cart"]["lines"] == []
            assert len(cart["lines"]) == 2
            await house.do(BO, "cart.add", sku="c", qty=1)
            await house.clients[0].flushall()
            await house.expiring.check_once()
            assert [one["hold"]["sku"] for one in await told(bo)] == ["c"]
            assert len(await told(ann)) == 1
            for phone in (ann, bo):
                await phone.leave()

    run(story())


def test_who_was_away_when_it_was_told_hears_it_at_the_return(run, db, redis_url):
    """The seat goes with the room's log, often before the loss is found: nobody is passed over.

    What is in the cart again by then is not told as gone; what was told is not told again.
    """

    async def story():
        async with House(db, redis_url) as house:
            ann = await seated(house, ANN)
            [line] = (await house.do(ANN, "cart.add", sku="a", qty=2))["cart"]["lines"]
            await house.do(ANN, "cart.add", sku="b", qty=1)
            await ann.leave()
            await house.clients[0].flushall()
            await house.expiring.check_once()
            await house.do(ANN, "cart.add", sku="b", qty=1)
            assert house.inventory.lost() == []

            ann = await seated(house, ANN)
            hold = {"sku": "a", "qty": 2, "expires_at": line["expires_at"]}
            assert await told(ann) == [{"hold": hold, "why": "rebuilding"}]
            await ann.leave()
            await house.do(ANN, "cart.remove", sku="b")
            ann = await seated(house, ANN)
            ann.cmd(2, "cart.show")
            await ann.reply(2)
            assert await told(ann, events=0) == []
            await ann.leave()

    run(story())


def test_lost_lines_are_kept_once_until_they_are_due(run, redis_url):
    """Giving them again keeps them once; a cart keeps a bounded number; all go with their time."""

    async def story():
        client, clock = scripts.connect(redis_url), ManualClock()
        lost = LostLines(client, clock)
        now = clock.now_ms()
        lines = [hold(n, due=now + 5_000) for n in (1, 2)]
        await lost.keep([*lines, hold(3, due=now)])
        await lost.keep(lines)
        kept = await lost.of("ann", "r1")
        assert [line.hold for line in kept] == ["0.1", "0.2"]
        assert await lost.of("ann", "r2") == []
        await lost.told("ann", "r1", kept[:1])
        assert await lost.of("ann", "r1") == kept[1:]
        assert 0 < await client.pttl(keys.lost("r1", "ann")) <= 5_000
        await lost.keep([hold(n, due=now + 5_000) for n in range(KEPT_MAX + 9)])
        assert len(await lost.of("ann", "r1")) == KEPT_MAX
        clock.advance(5_000)
        assert await lost.of("ann", "r1") == []
        await client.aclose()

    run(story())


def test_where_nothing_is_lost_a_herd_costs_two_looks_a_second(run, redis_url):
    """A look is believed for a moment, and not longer than those who keep lines wait to tell."""

    async def story():
        now_s = [100.0]
        client, clock = scripts.connect(redis_url), ManualClock()
        lost = LostLines(client, clock, monotonic=lambda: now_s[0])
        await client.config_resetstat()
        for _ in range(2):
            asked = [lost.of(f"u{n}", "r1") for n in range(50)]
            assert await asyncio.gather(*asked) == [[]] * 50
        assert await lost.of("ann", "r1") == []
        assert (await client.info("commandstats"))["cmdstat_exists"]["calls"] == 1
        await LostLines(client, clock).keep([hold(1, due=clock.now_ms() + 5_000)])
        assert await lost.of("ann", "r1") == []
        now_s[0] += LOOKED_FOR_S
        assert [line.hold for line in await lost.of("ann", "r1")] == ["0.1"]
        await client.aclose()

    run(story())


def test_every_node_tells_the_buyers_it_answered(run, db, redis_url):
    """A rebuild by another node is seen by the epoch, and told by the node that knows the line."""

    async def story():
        async with House(db, redis_url) as house:
            ann = await seated(house, ANN)
            await house.do(ANN, "cart.add", sku="a", qty=1)
            fence = await db.read(lambda conn: partitions.fence(conn, 0))
            seen, to = fence.epoch, fence.epoch + 1
            await db.write(lambda conn: partitions.raise_fence(conn, 0, seen=seen, to=to))
            gates = house.inventory._gates
            rows, counts = await db.read(lambda conn: ledger.opening(conn, 0))
            await gates.load(0, to, rows, counts)
            await gates.open(0, to, gates=len(rows), counts=len(counts))
            await house.expiring.check_once()
            assert [one["why"] for one in await told(ann)] == ["rebuilding"]
            await ann.leave()

    run(story())


def test_a_refused_checkout_leaves_its_lines_to_be_told(run, db, redis_url):
    """What went back to the cart is in the cart again, also for a rebuild after it."""

    async def story():
        async with House(db, redis_url) as house:
            await house.do(ANN, "cart.add", sku="a", qty=1)
            holds = await house.inventory.to_placing("u1", "r1", "o1")
            assert house.inventory._answered.ended_by({0: 99}) == []
            await house.inventory.back_to_held([hold.id for hold in holds])
            assert [hold.qty for hold in house.inventory._answered.ended_by({0: 99})] == [1]

    run(story())


def hold(number, *, due=100, epoch=1):
    return Hold(
        id=f"0.{number}",
        pool="sku:a",
        sku="a",
        buyer="ann",
        room="r1",
        qty=1,
        price_minor=1,
        state="held",
        due=due,
        epoch=epoch,
    )


def test_lines_are_forgotten_when_due_and_beyond_the_bound():
    """Memory ends with the deadline, and the oldest give way."""
    now = [0]
    lines = AnsweredLines(lambda: now[0], lines_max=2)
    lines.keep([hold(1), hold(2), hold(3, due=200), hold(4, epoch=2, due=200)])
    assert [line.id for line in lines.ended_by({0: 2})] == ["0.3"]
    lines.keep([hold(5, due=150)])
    now[0] = 150
    assert lines.ended_by({0: 3})[0].id == "0.4"
    assert len(lines.ended_by({0: 3})) == 1
    lines.forget(["0.4", "0.9"])
    assert lines.ended_by({0: 3}) == []

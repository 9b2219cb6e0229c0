"""How holds end in Redis: release, return, expiry; and what is left to SQL."""

from __future__ import annotations

import asyncio

import msgpack
import pytest
from gatehouse import EPOCH, Gatehouse, inside, request

from liveroom.store.fenced import Lost
from liveroom.store.gates import HoldRow


class BrokenGatehouse(Gatehouse):
    """A partition that is broken on purpose."""

    async def __aexit__(self, *_: object) -> None:
        await self.client.aclose()


# state of the hold, whether another attempt was handed it too, call, does it end
RELEASE = {
    "unconditional": ("placing", False, {}, True),
    "unconditional, held": ("held", False, {}, True),
    "a cart's removal of a held one": ("held", False, {"state": "held", "void": True}, True),
    "a cart's removal of a placing one": ("placing", False, {"state": "held", "void": True}, False),
    "another attempt has it": ("placing", True, {"void": False}, False),
    "another attempt has it, but it is void": ("placing", True, {"void": True}, True),
}


@pytest.mark.parametrize("situation", RELEASE)
def test_release(redis_url, situation):
    """A hold ends only where nobody can place it any more."""
    kind, shared, call, ends = RELEASE[situation]

    async def story(house):
        row = request("k1", ("a", 2), kind=kind)
        holds = await house.take(row)
        if shared:
            await house.take(request("k1", ("a", 2), kind=kind))
        ended = await house.gates.release(0, EPOCH, holds, **call)
        assert [hold.id for hold in ended] == (holds if ends else [])
        assert (await house.left())["a"] == (5 if ends else 3)
        assert await house.gates.release(0, EPOCH, holds, **call) == []

    inside(redis_url, story)


def test_a_refused_checkout_gets_its_cart_back(redis_url):
    """Returned holds keep their ids and their deadlines."""

    async def story(house):
        await house.take(request("c1", ("a", 2), kind="held"))
        before = (await house.gates.cart(0, EPOCH, "r/ann")).holds
        placing = (await house.gates.place(0, EPOCH, "r/ann", "o1")).holds
        returned = await house.gates.give_back(0, EPOCH, [hold.id for hold in placing])
        assert returned.holds == before
        assert (await house.gates.cart(0, EPOCH, "r/ann")).holds == before
        assert await house.gates.place(0, EPOCH, "r/ann", "o2")

    inside(redis_url, story)


def test_what_another_attempt_was_handed_is_not_returned(redis_url):
    """It may still be placed: only SQL can say, and then it returns under a new id."""

    async def story(house):
        await house.take(request("c1", ("a", 2), kind="held"))
        [hold] = (await house.gates.place(0, EPOCH, "r/ann", "o1")).holds
        await house.gates.place(0, EPOCH, "r/ann", "o1")
        assert (await house.gates.give_back(0, EPOCH, [hold.id])).holds == []
        [back] = (await house.gates.give_back(0, EPOCH, [hold.id], void=True)).holds
        assert back.id != hold.id
        assert (back.state, back.qty, back.due) == ("held", 2, hold.till)
        # The cart's operation knows it under its new id.
        assert await house.take(request("c1", ("a", 2), kind="held")) == [back.id]

    inside(redis_url, story)


def test_what_is_past_its_time_is_not_returned(redis_url):
    """A sweep may have made it void in SQL by now: it returns when the sweep says so."""

    async def story(house):
        await house.take(request("c1", ("a", 2), kind="held"))
        [hold] = (await house.hasty.place(0, EPOCH, "r/ann", "o1")).holds
        assert (await house.gates.give_back(0, EPOCH, [hold.id])).holds == []
        [back] = (await house.gates.give_back(0, EPOCH, [hold.id], void=True)).holds
        assert (back.state, back.qty, back.due) == ("held", 2, hold.till)

    inside(redis_url, story)


def test_a_return_after_the_old_deadline_is_an_expiry(redis_url):
    """A TTL is set once: what is over its time ends, and its buyer is told."""

    async def story(house):
        await house.take(request("c1", ("a", 2), kind="held"))
        [hold] = (await house.gates.place(0, EPOCH, "r/ann", "o1")).holds
        hurried = hold.till - 100_000
        raw = await house.client.hget(f"lr:{{s0}}:{EPOCH}:holds", hold.id)
        row = HoldRow(*msgpack.unpackb(raw))._replace(till=hurried)
        await house.client.hset(f"lr:{{s0}}:{EPOCH}:holds", hold.id, msgpack.packb(row))
        assert (await house.gates.give_back(0, EPOCH, [hold.id])).holds == []
        expired = await house.gates.expire(0, EPOCH, count=10, report=10)
        assert [one.id for one in expired.told] == [hold.id]
        assert (await house.left())["a"] == 5

    inside(redis_url, story)


def test_a_returned_buy_now_hold_ends(redis_url):
    """It has no cart to return to."""

    async def story(house):
        holds = await house.take(request("o1", ("a", 2)))
        assert (await house.gates.give_back(0, EPOCH, holds)).holds == []
        assert (await house.left())["a"] == 5

    inside(redis_url, story)


def test_expiry_ends_held_ones_and_reports_each_once(redis_url):
    """Only cart holds past their deadline end; whoever asks for a report gets each of them once."""

    async def story(house):
        due = [
            (await house.take(request(f"c{n}", ("a", 1), kind="held", buyer=f"u{n}"), hasty=True))[
                0
            ]
            for n in range(3)
        ]
        await house.take(request("c9", ("a", 1), kind="held"))
        await house.take(request("o1", ("b", 1)), hasty=True)
        ended, told, _ = await house.gates.expire(0, EPOCH, count=2, report=0)
        assert (ended, told) == (2, [])
        ended, told, _ = await house.gates.expire(0, EPOCH, count=10, report=2)
        assert (ended, len(told)) == (1, 2)
        ended, rest, _ = await house.gates.expire(0, EPOCH, count=10, report=10)
        assert ended == 0
        assert sorted(hold.id for hold in told + rest) == sorted(due)
        assert await house.left() == {"a": 4, "b": 1, "c": 0}

    inside(redis_url, story)


def test_placing_past_due_is_left_to_sql(redis_url):
    """Redis tells of it, with the ledger row its gate stands on, and ends nothing by itself."""

    async def story(house):
        await house.take(request("o2", ("a", 1)))
        assert not (await house.gates.expire(0, EPOCH, count=10, report=0)).is_stuck
        [hold] = await house.take(request("o1", ("a", 1)), hasty=True)
        assert (await house.gates.expire(0, EPOCH, count=10, report=0)).is_stuck
        [stuck] = await house.gates.stuck(0, EPOCH, count=10)
        assert (stuck.hold.id, stuck.seq) == (hold, 10)
        assert (await house.left())["a"] == 3

    inside(redis_url, story)


@pytest.mark.parametrize("lost", ["gates", "holds", "due", "placing"])
def test_a_lost_key_is_noticed(redis_url, lost):
    """Where one of a partition's keys is gone, the sweep says so instead of sweeping."""

    async def told():
        async with BrokenGatehouse(redis_url) as house:
            await house.take(request("c1", ("a", 1), kind="held"))
            await house.take(request("o1", ("a", 1)))
            await house.client.delete(f"lr:{{s0}}:{EPOCH}:{lost}")
            with pytest.raises(Lost):
                await house.gates.expire(0, EPOCH, count=10, report=0)

    asyncio.run(told())


# what is asked of a partition without its key of holds, and of one without its gates
UNANSWERABLE = {
    "cart": ("holds", lambda gates, _hold: gates.carts(0, EPOCH, ["r/ann"])),
    "place": ("holds", lambda gates, _hold: gates.place(0, EPOCH, "r/ann", "o1")),
    "stuck": ("holds", lambda gates, _hold: gates.stuck(0, EPOCH, count=10)),
    "stuck without gates": ("gates", lambda gates, _hold: gates.stuck(0, EPOCH, count=10)),
    "release": ("gates", lambda gates, hold: gates.release(0, EPOCH, [hold])),
    "return": ("gates", lambda gates, hold: gates.give_back(0, EPOCH, [hold], void=True)),
}


@pytest.mark.parametrize("situation", UNANSWERABLE)
def test_what_needs_a_lost_key_says_so(redis_url, situation):
    """A script that finds a hold's other half gone answers `lost`, and is no fault of ours."""
    lost, ask = UNANSWERABLE[situation]

    async def told():
        async with BrokenGatehouse(redis_url) as house:
            await house.take(request("c1", ("a", 1), kind="held"))
            [hold] = await house.take(request("o1", ("a", 1)), hasty=True)
            await house.client.delete(f"lr:{{s0}}:{EPOCH}:{lost}")
            with pytest.raises(Lost):
                await ask(house.gates, hold)

    asyncio.run(told())


def test_holds_of_an_older_release_go_on_without_a_bucket(redis_url):
    """A planned stop keeps them over an upgrade: they grow, are placed, return and end."""

    async def story(house):
        holds = f"lr:{{s0}}:{EPOCH}:holds"
        for key in ("c1", "o1"):
            [hold] = await house.take(
                request(key, ("a", 1), kind="held" if key == "c1" else "placing")
            )
            row = msgpack.unpackb(await house.client.hget(holds, hold))
            await house.client.hset(holds, hold, msgpack.packb(row[:-1]))
        [cart] = (await house.gates.cart(0, EPOCH, "r/ann")).holds
        assert cart.bucket is False
        await house.take(request("c2", ("a", 1), kind="held"))
        [answer] = await house.hold(request("o1", ("a", 1)))
        assert [grant.bucket for grant in answer.grants] == [False]
        [placing] = (await house.gates.place(0, EPOCH, "r/ann", "o2")).holds
        assert (placing.qty, placing.bucket) == (2, False)
        [back] = (await house.gates.give_back(0, EPOCH, [placing.id])).holds
        assert (back.state, back.bucket) == ("held", False)
        ended = await house.gates.release(0, EPOCH, [back.id])
        assert [one.bucket for one in ended] == [False]

    inside(redis_url, story)

"""stock_hold.lua and stock_place.lua by tables: before, call, word, after."""

from __future__ import annotations

import pytest
from gatehouse import EPOCH, inside, request, words

from liveroom.store.fenced import Marked, Shut
from liveroom.store.gates import Busy, GateRow, SetRow

# before: requests that were granted; call: one batch; its words; what is left of a and b then
TABLE = {
    "enough": ([], [request("o1", ("a", 5))], ["ok"], (0, 2)),
    "one too many": ([], [request("o1", ("a", 6))], ["sold_out"], (5, 2)),
    "none left": ([request("o1", ("a", 5))], [request("o2", ("a", 1))], ["sold_out"], (0, 2)),
    "never had any": ([], [request("o1", ("c", 1))], ["sold_out"], (5, 2)),
    "all lines": ([], [request("o1", ("a", 2), ("b", 1))], ["ok"], (3, 1)),
    "all lines or none": ([], [request("o1", ("a", 2), ("c", 1))], ["sold_out"], (5, 2)),
    "in order of arrival": (
        [],
        [request("o1", ("a", 3)), request("o2", ("a", 3)), request("o3", ("a", 2))],
        ["ok", "sold_out", "ok"],
        (0, 2),
    ),
    "a refusal binds nothing": (
        [],
        [request("o1", ("a", 9)), request("o1", ("a", 1))],
        ["sold_out", "ok"],
        (4, 2),
    ),
    "the same key twice in a batch": (
        [],
        [request("o1", ("a", 2)), request("o1", ("a", 2))],
        ["ok", "ok"],
        (3, 2),
    ),
    "the same key again": ([request("o1", ("a", 2))], [request("o1", ("a", 2))], ["ok"], (3, 2)),
    "the same key, sold out meanwhile": (
        [request("o1", ("a", 2)), request("o2", ("a", 3))],
        [request("o1", ("a", 2))],
        ["ok"],
        (0, 2),
    ),
    "the same key for more": (
        [request("o1", ("a", 2))],
        [request("o1", ("a", 3))],
        ["id_reused"],
        (3, 2),
    ),
    "the same key of another buyer": (
        [request("o1", ("a", 2))],
        [request("o1", ("a", 2), buyer="bob")],
        ["id_reused"],
        (3, 2),
    ),
    "over the limit at once": ([], [request("o1", ("b", 2))], ["limit_reached"], (5, 2)),
    "over the limit with an open hold": (
        [request("o1", ("b", 1))],
        [request("o2", ("b", 1)), request("o3", ("b", 1), buyer="bob")],
        ["limit_reached", "ok"],
        (5, 0),
    ),
    "the limit comes before the number": (
        [],
        [request("o1", ("b", 9))],
        ["limit_reached"],
        (5, 2),
    ),
    "the house has no limit": ([], [request("o1", ("b", 2), buyer="")], ["ok"], (5, 0)),
    "the price seen": ([], [request("o1", ("a", 1, 100))], ["ok"], (4, 2)),
    "another price seen": ([], [request("o1", ("a", 1, 99))], ["price_changed"], (5, 2)),
    "the price comes before the number": (
        [],
        [request("o1", ("a", 9, 99))],
        ["price_changed"],
        (5, 2),
    ),
    "no such gate": ([], [request("o1", ("a", 1), ("z", 1))], ["missing"], (5, 2)),
    "a cart's line grows": (
        [request("c1", ("a", 1), kind="held")],
        [request("c2", ("a", 2), kind="held")],
        ["ok"],
        (2, 2),
    ),
    "a cart's operation again": (
        [request("c1", ("a", 1), kind="held"), request("c2", ("a", 2), kind="held")],
        [request("c2", ("a", 2), kind="held"), request("c1", ("a", 1), kind="held")],
        ["ok", "ok"],
        (2, 2),
    ),
    "a cart's line grows beyond the limit": (
        [request("c1", ("b", 1), kind="held")],
        [request("c2", ("b", 1), kind="held")],
        ["limit_reached"],
        (5, 1),
    ),
}


@pytest.mark.parametrize("situation", TABLE)
def test_hold(redis_url, situation):
    """Refusals come in the fixed order, and a refused request changes nothing."""
    before, call, expected, after = TABLE[situation]

    async def story(house):
        for row in before:
            await house.take(row)
        assert words(await house.hold(*call)) == expected
        left = await house.left()
        assert (left["a"], left["b"]) == after

    inside(redis_url, story)


def test_a_known_key_answers_its_own_hold(redis_url):
    """A repeated key gets the hold it has, not a new one."""

    async def story(house):
        first = await house.take(request("o1", ("a", 1), ("b", 1)))
        assert await house.take(request("o1", ("a", 1), ("b", 1))) == first

    inside(redis_url, story)


def test_a_key_is_forgotten_when_its_hold_ends(redis_url):
    """After the end of its hold the same key holds anew, under a new id."""

    async def story(house):
        first = await house.take(request("o1", ("a", 1)))
        await house.gates.release(0, EPOCH, first)
        assert await house.take(request("o1", ("a", 2))) != first
        assert (await house.left())["a"] == 3

    inside(redis_url, story)


def test_the_lines_of_a_cart_are_one_hold_each(redis_url):
    """Adding a pool again grows its hold and keeps its deadline."""

    async def story(house):
        [first] = await house.take(request("c1", ("a", 1), kind="held"))
        [before] = (await house.gates.cart(0, EPOCH, "r/ann")).holds
        [again] = await house.take(request("c2", ("a", 2), kind="held"))
        [after] = (await house.gates.cart(0, EPOCH, "r/ann")).holds
        assert (first, after.qty, after.due) == (again, 3, before.due)

    inside(redis_url, story)


def test_a_cart_keeps_its_price(redis_url):
    """A line whose price has changed does not grow at the old price, nor change in silence."""

    async def story(house):
        await house.take(request("c1", ("a", 1), kind="held"))
        await house.gates.set(0, EPOCH, [SetRow(pool="a", price=150)])
        [refusal] = await house.hold(request("c2", ("a", 1), kind="held"))
        assert (refusal.word, refusal.number) == ("price_changed", 150)

    inside(redis_url, story)


def test_an_older_price_never_replaces_a_newer_one(redis_url):
    """Whoever was slow on the way from SQL finds the price of a later commit, and leaves it."""

    async def story(house):
        await house.gates.set(0, EPOCH, [SetRow(pool="a", price=150, price_v=2)])
        await house.gates.set(0, EPOCH, [SetRow(pool="a", price=120, price_v=1)])
        await house.gates.set(0, EPOCH, [SetRow(pool="a", limit=3)])
        assert (await house.gates.left(0, EPOCH, ["a"]))["a"].price == 150
        await house.gates.set(0, EPOCH, [SetRow(pool="a", price=100, price_v=3)])
        assert (await house.gates.left(0, EPOCH, ["a"]))["a"].price == 100

    inside(redis_url, story)


def test_a_due_line_is_not_grown(redis_url):
    """A cart's hold past its deadline must expire first, so that its TTL is set once."""

    async def story(house):
        await house.take(request("c1", ("a", 1), kind="held"), hasty=True)
        again = await house.hold(
            request("c2", ("a", 1), kind="held"), request("c1", ("a", 1), kind="held")
        )
        assert words(again) == ["due", "due"]
        await house.gates.expire(0, EPOCH, count=10, report=0)
        await house.take(request("c2", ("a", 1), kind="held"))

    inside(redis_url, story)


def test_v_grows_with_every_change_and_only_then(redis_url):
    """V = fence epoch × 2^32 + n, and a refusal counts nothing."""

    async def story(house):
        assert await house.v("a") == EPOCH * 2**32
        [hold] = await house.take(request("o1", ("a", 1)))
        assert await house.v("a") == EPOCH * 2**32 + 1
        await house.hold(request("o2", ("a", 9)))
        assert await house.v("a") == EPOCH * 2**32 + 1
        await house.gates.release(0, EPOCH, [hold])
        assert await house.v("a") == EPOCH * 2**32 + 2

    inside(redis_url, story)


def test_only_an_empty_gate_may_be_remembered(redis_url):
    """sold_out is memorable where nothing is left, held or parked."""

    async def story(house):
        [never] = await house.hold(request("o1", ("c", 1)))
        await house.take(request("o2", ("a", 5)))
        [held] = await house.hold(request("o3", ("a", 1)))
        assert (never.memorable, held.memorable) == (True, False)

    inside(redis_url, story)


def test_checkout_takes_the_whole_cart_once(redis_url):
    """All holds turn placing for one order; it may ask again, another order is told."""

    async def story(house):
        await house.take(request("c1", ("a", 1), kind="held"))
        await house.take(request("c2", ("b", 1), kind="held"))
        first = await house.gates.place(0, EPOCH, "r/ann", "o1")
        again = await house.gates.place(0, EPOCH, "r/ann", "o1")
        assert await house.gates.place(0, EPOCH, "r/ann", "o2") == Busy("o1")
        assert sorted(h.id for h in first.holds) == sorted(h.id for h in again.holds)
        assert {h.state for h in first.holds} == {"placing"}
        assert (await house.gates.cart(0, EPOCH, "r/ann")).holds == []
        [busy] = await house.hold(request("c3", ("a", 1), kind="held"))
        assert busy.word == "busy"

    inside(redis_url, story)


def test_checkout_takes_no_line_that_came_while_another_order_takes_the_cart(redis_url):
    """Nothing changes: what was added since is in the cart, and the first order has the rest."""

    async def story(house):
        await house.take(request("c1", ("a", 1), kind="held"))
        [first] = (await house.gates.place(0, EPOCH, "r/ann", "o1")).holds
        await house.take(request("c2", ("b", 1), kind="held"))
        assert await house.gates.place(0, EPOCH, "r/ann", "o2") == Busy("o1")
        assert [h.pool for h in (await house.gates.cart(0, EPOCH, "r/ann")).holds] == ["b"]
        assert (await house.gates.place(0, EPOCH, "r/ann", "o1")).holds[0].id == first.id
        # Once o1 is on record its lines are spent, whether Redis has heard of it or not.
        assert [
            h.pool for h in (await house.gates.place(0, EPOCH, "r/ann", "o2", ["o1"])).holds
        ] == ["b"]

    inside(redis_url, story)


def test_checkout_refuses_a_cart_with_a_due_line(redis_url):
    """A checkout counts only if all its holds are unexpired; nothing changes otherwise."""

    async def story(house):
        await house.take(request("c1", ("b", 1), kind="held"))
        await house.take(request("c2", ("a", 1), kind="held"), hasty=True)
        assert await house.gates.place(0, EPOCH, "r/ann", "o1") is None
        assert [h.pool for h in (await house.gates.cart(0, EPOCH, "r/ann")).holds] == ["b"]

    inside(redis_url, story)


def test_nothing_is_held_under_another_epoch(redis_url):
    """A script of another epoch, older or newer, changes nothing."""

    async def story(house):
        for epoch in (EPOCH - 1, EPOCH + 1):
            with pytest.raises(Shut):
                await house.gates.hold(0, epoch, [request("o1", ("a", 1))])
        assert (await house.left())["a"] == 5

    inside(redis_url, story)


def test_nothing_is_held_or_placed_after_a_planned_stop(redis_url):
    """A mark vouches for everything before it, so nothing may follow it."""

    async def story(house):
        await house.take(request("c1", ("a", 1), kind="held"))
        await house.gates.mark(0, EPOCH, "m1")
        with pytest.raises(Marked, match="m1"):
            await house.hold(request("o1", ("a", 1)))
        with pytest.raises(Marked):
            await house.gates.place(0, EPOCH, "r/ann", "o1")
        await house.gates.unmark(0, EPOCH, "another")
        with pytest.raises(Marked):
            await house.hold(request("o1", ("a", 1)))
        await house.gates.unmark(0, EPOCH, "m1")
        await house.take(request("o1", ("a", 1)))

    inside(redis_url, story)


def test_a_long_batch_is_one_call(redis_url):
    """A batch with more values than Lua can unpack at once is written whole."""

    async def story(house):
        pools = [f"p{n}" for n in range(3_000)]
        gates = [GateRow(pool=pool, base=1, seq=0, price=1) for pool in pools]
        for at in range(0, len(gates), 1000):
            await house.gates.add(0, EPOCH, gates[at : at + 1000])
        await house.take(request("o1", *((pool, 1) for pool in pools), buyer=""))

    inside(redis_url, story)


def test_a_hold_keeps_its_first_bucket(redis_url):
    """What grows, and what its own key asks for again, stays owed to what it was made for."""

    async def story(house):
        for key, qty in (("c1", 1), ("c2", 2)):
            wanted = request(key, ("a", qty), kind="held", bucket=f"mia///note.{key}")
            [answer] = await house.hold(wanted)
            assert [grant.bucket for grant in answer.grants] == ["mia///note.c1"]
        [hold] = (await house.gates.place(0, EPOCH, "r/ann", "o1")).holds
        assert (hold.qty, hold.bucket) == (3, "mia///note.c1")
        for bucket in ("mia///search", "mia///follow"):
            [answer] = await house.hold(request("o2", ("a", 1), bucket=bucket))
            assert [grant.bucket for grant in answer.grants] == ["mia///search"]

    inside(redis_url, story)

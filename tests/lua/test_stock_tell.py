"""stock_tell.lua and stock_count.lua: gates follow the ledger, in any order, any number of times."""

from __future__ import annotations

import itertools

import pytest
from gatehouse import EPOCH, inside, request, words

from liveroom.store.gates import Count, Range

# Pool a stands on row 10 with 5 units. Three holds of one unit each: h[0], h[1], h[2].
# call: (from, to, available_after, holds ended); after: (base − held, seq)
TABLE = {
    "the next row": ([(11, 11, 4, [0])], (2, 11)),
    "a row already told": ([(10, 10, 9, [0])], (3, 10)),
    "an old range that reaches further": ([(9, 11, 4, [0])], (2, 11)),
    "a row too early is parked": ([(12, 12, 3, [1])], (2, 10)),
    "a parked row follows": ([(12, 12, 3, [1]), (11, 11, 4, [0])], (2, 12)),
    "several parked rows follow": (
        [(13, 13, 2, [2]), (12, 12, 3, [1]), (11, 11, 4, [0])],
        (2, 13),
    ),
    "the same row twice": ([(11, 11, 4, [0]), (11, 11, 4, [0])], (2, 11)),
    "a parked row twice": ([(12, 12, 3, [1]), (12, 12, 3, [1]), (11, 11, 4, [0])], (2, 12)),
    "units come back": ([(11, 11, 9, [])], (6, 11)),
    "a hold nobody knows": ([(11, 11, 4, [9])], (1, 11)),
}


@pytest.mark.parametrize("situation", TABLE)
def test_tell(redis_url, situation):
    """A range moves the gate only where it follows what the gate knows."""
    calls, after = TABLE[situation]

    async def story(house):
        holds = [(await house.take(request(f"o{n}", ("a", 1))))[0] for n in range(3)]
        holds += ["0.gone"] * 7
        for first, last, free, ended in calls:
            told = Range("a", first, last, free, [holds[n] for n in ended])
            await house.gates.tell(0, EPOCH, [told])
        gate = (await house.gates.left(0, EPOCH, ["a"]))["a"]
        assert (gate.left, gate.seq) == after

    inside(redis_url, story)


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_any_order_ends_the_same(redis_url, order):
    """Four rows told in any order, then all again: the gate stands where the ledger does."""

    async def story(house):
        holds = [(await house.take(request(f"o{n}", ("a", 1))))[0] for n in range(3)]
        rows = [Range("a", 11 + n, 11 + n, 4 - n, [holds[n]]) for n in range(3)]
        rows.append(Range("a", 14, 14, 5, []))
        for n in order:
            await house.gates.tell(0, EPOCH, [rows[n]])
        await house.gates.tell(0, EPOCH, rows)
        gate = (await house.gates.left(0, EPOCH, ["a"]))["a"]
        assert (gate.left, gate.seq) == (5, 14)

    inside(redis_url, story)


def test_parked_ranges_are_bounded(redis_url):
    """What does not fit is not parked; the ledger tells it again."""

    async def story(house):
        for n in range(300):
            await house.gates.tell(0, EPOCH, [Range("a", 20 + n, 20 + n, 1, [])])
        await house.gates.tell(0, EPOCH, [Range("a", 11, 19, 1, [])])
        assert (await house.gates.left(0, EPOCH, ["a"]))["a"].seq == 19 + 256
        assert await house.gates.tell(0, EPOCH, [Range("a", 11, 319, 4, [])]) == ([], [])
        assert (await house.left())["a"] == 4

    inside(redis_url, story)


def test_tell_names_pools_with_a_limit_and_those_without_a_gate(redis_url):
    """Who has a limit must be counted; who has no gate must be given one."""

    async def story(house):
        ranges = [Range("b", 21, 21, 2, []), Range("z", 1, 1, 2, []), Range("a", 11, 11, 5, [])]
        assert await house.gates.tell(0, EPOCH, ranges) == (["b"], ["z"])

    inside(redis_url, story)


def test_counts_come_with_the_end_of_their_holds(redis_url):
    """What was ordered counts for the limit from the step in which its hold ends."""

    async def story(house):
        [hold] = await house.take(request("o1", ("b", 1)))
        told = [Range("b", 21, 21, 1, [hold])]
        await house.gates.tell(0, EPOCH, told, [Count("b", "ann", 21, 1)])
        assert words(await house.hold(request("o2", ("b", 1)))) == ["limit_reached"]
        await house.gates.tell(0, EPOCH, told, [Count("b", "ann", 20, 0)])
        assert words(await house.hold(request("o2", ("b", 1)))) == ["limit_reached"]

    inside(redis_url, story)


def test_an_older_count_never_replaces_a_newer_one(redis_url):
    """What a buyer has taken is as SQL said at the latest place of the ledger."""

    async def story(house):
        await house.gates.count(0, EPOCH, [Count("b", "ann", 22, 1)])
        await house.gates.count(0, EPOCH, [Count("b", "ann", 21, 0)])
        assert words(await house.hold(request("o1", ("b", 1)))) == ["limit_reached"]
        await house.gates.count(0, EPOCH, [Count("b", "ann", 23, 0)])
        assert words(await house.hold(request("o1", ("b", 1)))) == ["ok"]

    inside(redis_url, story)

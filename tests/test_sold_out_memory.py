"""What a node remembers of empty gates: how long, who asks again, and who waits for it."""

from __future__ import annotations

import asyncio

import pytest

from liveroom.errors import Unavailable
from liveroom.store.memory import MEMORY_S, PROBE_AFTER_S, SoldOutMemory


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_a_pool_is_remembered_as_empty_for_250_ms() -> None:
    """What the gate said is believed so long and no longer, and not over news."""
    clock = Clock()
    memory = SoldOutMemory(clock)
    assert not memory.is_empty("a")
    memory.remember("a")
    clock.now_s += MEMORY_S - 0.01
    assert memory.is_empty("a")
    clock.now_s += 0.02
    assert not memory.is_empty("a")
    memory.remember("a")
    memory.forget("a")
    assert not memory.is_empty("a")
    assert not memory.has_any()


def test_one_asks_again_before_the_memory_ends() -> None:
    """Only one, only where something is remembered, and not while it is fresh."""
    clock = Clock()
    memory = SoldOutMemory(clock)
    assert not memory.begin_probe("a")
    memory.remember("a")
    assert not memory.begin_probe("a")
    clock.now_s += PROBE_AFTER_S + 0.01
    assert memory.begin_probe("a")
    assert not memory.begin_probe("a")
    assert memory.is_empty("a")
    memory.answered(["a"])
    assert memory.begin_probe("a")


def test_who_comes_after_the_memory_has_ended_waits_for_the_probe() -> None:
    """A waiter that is cancelled takes nobody along."""

    async def story() -> None:
        clock = Clock()
        memory = SoldOutMemory(clock)
        memory.remember("a")
        clock.now_s += PROBE_AFTER_S + 0.01
        assert memory.begin_probe("a")
        await memory.probed("a")
        clock.now_s += MEMORY_S
        waiters = [asyncio.create_task(memory.probed("a")) for _ in range(3)]
        await asyncio.sleep(0)
        waiters[0].cancel()
        await asyncio.sleep(0)
        assert [waiter.done() for waiter in waiters] == [True, False, False]
        memory.remember("a")
        memory.answered(["a"])
        async with asyncio.timeout(5):
            await asyncio.gather(*waiters[1:])

    asyncio.run(story())


def test_who_waited_for_a_probe_that_found_the_store_away_is_told_so() -> None:
    """Each of them would else find it out by itself, one after the other."""

    async def story() -> None:
        clock = Clock()
        memory = SoldOutMemory(clock)
        memory.remember("a")
        clock.now_s += MEMORY_S + 0.01
        assert memory.begin_probe("a")
        waiters = [asyncio.create_task(memory.probed("a")) for _ in range(3)]
        await asyncio.sleep(0)
        waiters[0].cancel()
        await asyncio.sleep(0)
        memory.answered(["a"], Unavailable("store_down"))
        for waiter in waiters[1:]:
            with pytest.raises(Unavailable, match="store is away"):
                await waiter
        assert memory.begin_probe("a")

    asyncio.run(story())

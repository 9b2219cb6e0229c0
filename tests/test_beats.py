"""Beats: what a process does again and again wakes together, and never twice at once."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Coroutine
from itertools import pairwise
from typing import Any

import pytest
import uvloop
from sqlalchemy import event

from liveroom.beats import next_beat
from liveroom.chores import Chores, Job
from tests.simulation.loop import Loop

Run = Callable[[Coroutine[Any, Any, Any]], Any]


@pytest.fixture
def run_leaping() -> Run:
    """Runs a coroutine in virtual time, which leaps to whatever happens next."""

    def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
        with asyncio.Runner(loop_factory=Loop) as runner:
            return runner.run(coroutine)

    return run


def now_s() -> float:
    return asyncio.get_running_loop().time()


def moment() -> int:
    """Now, in whole milliseconds."""
    return round(now_s() * 1000)


def test_what_has_a_beat_wakes_together(run_leaping) -> None:
    """However long each takes and whenever it began: jobs of two seconds wake with those of one."""

    async def story() -> None:
        woken: dict[float, list[int]] = defaultdict(list)

        async def again_and_again(every_s: float, takes_s: float) -> None:
            while True:
                await next_beat(every_s)
                woken[takes_s].append(moment())
                await asyncio.sleep(takes_s)

        tasks = []
        for every_s, takes_s in ((1, 0), (1, 0.0123), (1, 0.987), (2, 0.3), (10, 0.1)):
            tasks.append(asyncio.create_task(again_and_again(every_s, takes_s)))
            await asyncio.sleep(0.0771)
        await asyncio.sleep(60)
        for task in tasks:
            task.cancel()
        every_second = set(woken[0])
        assert all(set(moments) <= every_second for moments in woken.values())
        apart = {
            takes_s: {later - earlier for earlier, later in pairwise(moments)}
            for takes_s, moments in woken.items()
        }
        assert apart == {0: {1000}, 0.0123: {1000}, 0.987: {1000}, 0.3: {2000}, 0.1: {10_000}}

    run_leaping(story())


def test_a_chore_that_takes_longer_misses_beats(run_leaping) -> None:
    """It begins at beats only, and never while it still runs."""

    async def story() -> None:
        began, running = [], 0

        async def slow() -> None:
            nonlocal running
            running += 1
            assert running == 1
            began.append(moment())
            await asyncio.sleep(2.5)
            running -= 1

        chores = Chores()
        chores.every(1, "slow", slow)
        await asyncio.sleep(20)
        await chores.close()
        at_once, *others = began
        assert at_once == 0
        assert {later - earlier for earlier, later in pairwise(others)} == {3000}

    run_leaping(story())


def test_one_woken_just_before_its_beat_is_not_woken_at_it_again(run_leaping) -> None:
    """Timers keep whole milliseconds and may come a little early."""

    async def story() -> None:
        await next_beat(1)
        beat_s = now_s()
        await asyncio.sleep(0.9996)
        await next_beat(1)
        assert now_s() == pytest.approx(beat_s + 2, abs=0.001)

    run_leaping(story())


def test_a_wait_ends_sooner(run_leaping) -> None:
    """By what is set, at once; by its own bound where no beat comes before."""

    async def story() -> None:
        await next_beat(3600)  # so that the next one is far
        began_s, sooner = now_s(), asyncio.Event()
        await next_beat(3600, within_s=0.25, sooner=sooner)
        assert now_s() == pytest.approx(began_s + 0.25)
        asyncio.get_running_loop().call_later(0.5, sooner.set)
        await next_beat(3600, within_s=1800, sooner=sooner)
        assert now_s() == pytest.approx(began_s + 0.75)
        await next_beat(3600, sooner=sooner)
        assert now_s() == pytest.approx(began_s + 0.75)
        sooner.clear()
        await next_beat(3600, within_s=7200, sooner=sooner)
        assert now_s() == pytest.approx(began_s + 3600)

    run_leaping(story())


def test_what_chores_of_a_beat_ask_is_one_read(db) -> None:
    """On the server's own kind of loop: their glances leave together, beat by beat."""

    async def story() -> None:
        reads: list[object] = []
        seen: list[int] = []  # by which read each was answered
        together = asyncio.Event()

        def job(takes_s: float) -> Job:
            async def ask() -> None:
                seen.append(await db.glance(lambda _conn: len(reads)))
                if Counter(Counter(seen[-12:]).values()) == {3: 4}:
                    together.set()
                await asyncio.sleep(takes_s)

            return ask

        event.listen(db._reader, "begin", reads.append)
        chores = Chores()
        for takes_s in (0, 0.003, 0.01):
            chores.every(0.1, "ask", job(takes_s))
            await asyncio.sleep(0.001)  # the first ones come apart
        async with asyncio.timeout(30):
            await together.wait()
        await chores.close()

    uvloop.run(story())

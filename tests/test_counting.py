"""Counting on a node: no answered tap is lost or told twice, and an idle room costs little."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from redis.exceptions import ResponseError

from liveroom.clock import ManualClock
from liveroom.counting import AGAIN_BEATS, Taps, Viewers
from liveroom.errors import Unavailable
from liveroom.metrics import counters
from liveroom.store import keys, scripts
from liveroom.store.backplane import Backplane
from liveroom.store.scripts import Script
from tests.proxy import proxy


@asynccontextmanager
async def listening_not(url: str) -> AsyncIterator[Backplane]:
    """A backplane that publishes and hears nothing."""
    client = scripts.connect(url)
    plane = Backplane(client, client, ManualClock())
    yield plane
    await plane.close()
    await client.aclose()


async def no_kinds(_room: str) -> list[str]:
    return []


async def hearts(plane: Backplane) -> int:
    return (await plane.room_state("r1")).reactions[0].get("heart", 0)


def test_taps_whose_telling_failed_are_told_later_and_once(run, redis_url, tmp_path):
    """A reply was lost after the store had counted: the taps before and since count once each."""
    at = tmp_path / "relay.sock"

    async def story() -> None:
        async with listening_not(f"unix://{at}") as plane:
            taps = Taps(plane, ManualClock(), no_kinds)
            await taps.add("r1", "heart", 3)
            relay.lose_replies(Script("room_publish").sha.encode())
            with pytest.raises(Unavailable):
                await taps.tell()
            assert relay.lost == 1
            assert await hearts(plane) == 3, "the store had counted them"
            await taps.add("r1", "heart", 4)
            await taps.tell()
            await taps.tell()
            assert await hearts(plane) == 7

    with proxy(at, Path(redis_url.removeprefix("unix://"))) as relay:
        run(_load_script(redis_url))  # so that a call by its digest is the one that counts
        run(story())


async def _load_script(url: str) -> None:
    async with listening_not(url) as plane:
        await Viewers(plane, "n1").tell({"r2": 0})


def test_taps_wait_while_the_store_is_away(run, redis_url, tmp_path):
    """What was answered while nothing could be told is told when it can be."""
    at = tmp_path / "relay.sock"

    async def story() -> None:
        async with listening_not(f"unix://{at}") as plane:
            taps = Taps(plane, ManualClock(), no_kinds)
            for _ in range(3):
                await taps.add("r1", "heart", 1)
                await taps.add("r2", "heart", 1)
                with pytest.raises(Unavailable):
                    await taps.tell()
            relay.turn_to(there)
            await taps.tell()
            assert await hearts(plane) == 3
            assert (await plane.room_state("r2")).reactions[0] == {"heart": 3}

    there = Path(redis_url.removeprefix("unix://"))
    with proxy(at, tmp_path / "nobody.sock") as relay:
        run(story())


def test_a_beat_while_a_tap_waits_for_the_rooms_kinds(run, redis_url):
    """A beat that takes the taps meanwhile takes none of them out of the sum."""

    async def story() -> None:
        read, asked = asyncio.Event(), asyncio.Event()

        async def slow_kinds(_room: str) -> list[str]:
            asked.set()
            await read.wait()
            return []

        async with listening_not(redis_url) as plane:
            taps = Taps(plane, ManualClock(), slow_kinds)
            first = asyncio.create_task(taps.add("r1", "heart", 1))
            second = asyncio.create_task(taps.add("r1", "star", 1))
            await asked.wait()
            await taps.tell()
            read.set()
            await asyncio.gather(first, second)
            await taps.tell()
            assert (await plane.room_state("r1")).reactions[0] == {"heart": 1, "star": 1}

    run(story())


def test_viewers_who_stay_the_same_are_told_now_and_then(run, redis_url):
    """An idle room is told of once in four beats, an empty one once, a change with the next beat."""

    async def story() -> None:
        async with listening_not(redis_url) as plane:
            viewers = Viewers(plane, "n1")

            async def calls(beats: int, **watching: int) -> int:
                before = counters.publish_batches
                for _ in range(beats):
                    await viewers.tell(watching)
                return counters.publish_batches - before

            assert await calls(2 * AGAIN_BEATS, r1=7, r2=0) == 3
            assert await calls(1, r1=8, r2=0) == 1
            assert await calls(AGAIN_BEATS - 1, r1=8, r2=0) == 0
            assert (await plane.room_state("r1")).viewers[0] == 8
            viewers.tell_all_again()
            assert await calls(2, r1=8, r2=0) == 2

    run(story())


def test_a_dead_nodes_viewers_lapse_in_an_idle_room(run, redis_url):
    """Where nothing changes here, the count of a node that died is still taken off."""

    async def story() -> None:
        async with listening_not(redis_url) as plane:
            viewers = Viewers(plane, "n1")
            await plane.count_viewers("r1", "dead", 4)
            await viewers.tell({"r1": 7})
            assert (await plane.room_state("r1")).viewers[0] == 11
            client = scripts.connect(redis_url)
            await client.hset(keys.room_viewers("r1"), "dead", "4:1")  # it lapsed long ago
            await client.aclose()
            for _ in range(AGAIN_BEATS):
                await viewers.tell({"r1": 7})
            assert (await plane.room_state("r1")).viewers[0] == 7

    run(story())


def test_a_failure_of_one_room_keeps_no_other_waiting(run, redis_url):
    """A count that could not be told is due again with the next beat."""

    async def story() -> None:
        async with listening_not(redis_url) as plane:
            viewers = Viewers(plane, "n1")
            client = scripts.connect(redis_url)
            await client.set(keys.room_viewers("r1"), "of another type")
            with pytest.raises(ResponseError, match="WRONGTYPE"):
                await viewers.tell({"r1": 1, "r2": 2})
            assert (await plane.room_state("r2")).viewers[0] == 2
            await client.delete(keys.room_viewers("r1"))
            await client.aclose()
            await viewers.tell({"r1": 1, "r2": 2})
            assert (await plane.room_state("r1")).viewers[0] == 1

    run(story())

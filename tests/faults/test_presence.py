"""Counts over two workers: viewers and taps are summed, and a worker that goes takes its own along."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from liveroom.store import keys
from tests.crowd import Viewer, guests, staying, until
from tests.live import Live, serving

VIEWERS = 24
TAPS = 40
LAPSE_MAX_S = 30


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Live]:
    flags = ("--workers", "2", "--message-rate-max", "0", "--drain-spread-s", "0.2")
    with serving(tmp_path_factory.mktemp("presence") / "data", *flags) as live:
        yield live


def _counted(viewers: list[Viewer], count: int) -> bool:
    return all(
        one.is_seated and one.state["viewers.counted"]["viewers"] == count for one in viewers
    )


def _taps(viewer: Viewer, kind: str) -> int:
    return viewer.state["reactions.counted"]["reactions"].get(kind, 0)


def _nodes_counted(server: Live) -> set[str]:
    """The nodes whose viewers are in the sum."""
    with redis.Redis.from_url((server.data / "redis.url").read_text()) as client:
        return {node.decode() for node in client.hkeys(keys.room_viewers("r1"))}


async def _replace_workers(server: Live) -> None:
    before = server.workers()
    server.send(signal.SIGHUP)
    await until(lambda: len(server.workers()) == 2 and not server.workers() & before)


async def _on_both(viewers: list[Viewer]) -> None:
    """Cut viewers until both workers have some: who takes a connection is the kernel's choice."""
    await until(lambda: all(one.is_seated for one in viewers))
    while len(Counter(one.node for one in viewers)) < 2:
        joins = len(viewers[0].modes)
        viewers[0].cut()
        await until(lambda joins=joins: len(viewers[0].modes) > joins)


def test_viewers_are_summed_over_workers_whatever_becomes_of_them(server):
    """The sum is right at first, right after a rolling restart, and after a killed worker's lapse."""

    async def story() -> None:
        viewers = guests(server, VIEWERS)
        async with staying(*viewers):
            await _on_both(viewers)
            await until(lambda: _counted(viewers, VIEWERS))

            old = {one.node for one in viewers}
            assert _nodes_counted(server) == old
            await _replace_workers(server)
            # The old workers have taken their counts along: nothing is left to lapse.
            assert not _nodes_counted(server) & old
            await until(lambda: _counted(viewers, VIEWERS))

            await _on_both(viewers)
            killed = min(server.workers())
            os.kill(killed, signal.SIGKILL)
            await until(lambda: len(server.workers() - {killed}) == 2)
            await until(lambda: _counted(viewers, VIEWERS), LAPSE_MAX_S)

    asyncio.run(asyncio.wait_for(story(), 90))


def test_taps_are_summed_over_workers_and_outlive_a_deploy(server):
    """Every tap that was answered counts, also those of the moment before a worker drained."""

    async def story() -> None:
        viewers = guests(server, VIEWERS)
        async with staying(*viewers):
            await _on_both(viewers)

            async def tap(viewer: Viewer) -> None:
                for _ in range(TAPS):
                    await viewer.do("reaction.send", kind="heart", count=1)

            await asyncio.gather(*(tap(viewer) for viewer in viewers))
            before = server.workers()
            server.send(signal.SIGHUP)
            await until(lambda: len(server.workers()) == 2 and not server.workers() & before)
            await until(lambda: all(one.is_seated for one in viewers))
            hearts = {"heart": VIEWERS * TAPS}
            await until(
                lambda: all(
                    one.state["reactions.counted"]["reactions"] == hearts for one in viewers
                )
            )

    asyncio.run(asyncio.wait_for(story(), 60))


def test_nobody_is_ever_sent_a_list_of_viewers(server):
    """What a viewer is told of the others is a number, in the picture and in every frame."""

    async def story() -> list[Any]:
        watching = Viewer(server, "nosy")
        watching.keeps_frames = True
        others = [Viewer(server, f"member-{number}") for number in range(10)]
        async with staying(watching, *others):
            await until(lambda: _counted([watching], 11))
            others[0].cut()
            await others[1].do("reaction.send", kind="star", count=3)
            await until(lambda: _taps(watching, "star") == 3)
            await until(lambda: len(others[0].modes) == 2)
            return watching.frames

    told = str(asyncio.run(asyncio.wait_for(story(), 60)))
    assert "nosy" in told
    assert "member-" not in told
    with server.http() as http:
        assert "member-" not in http.get("/v1/rooms/r1").text

"""Redis is emptied under a room full of viewers: each sees one log after another, and each whole."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
import redis

from liveroom.wire.outbox import POSITION_LOST
from tests.crowd import Viewer, agree, guests, host, speak, staying, until
from tests.live import Live, serving

VIEWERS = 40
EVENTS_PER_S = 50
FLUSHES = 3
SAID_BETWEEN = 25


@pytest.fixture
def server(tmp_path) -> Iterator[Live]:
    flags = ("--workers", "2", "--message-rate-max", "0")
    with serving(tmp_path / "data", *flags) as live:
        yield live


def _flush(server: Live) -> None:
    with redis.Redis.from_url((server.data / "redis.url").read_text()) as client:
        client.flushall()


def _all_in_a_new_log(viewers: list[Viewer], known: set[str]) -> bool:
    epochs = {one.part.epoch for one in viewers}
    return len(epochs) == 1 and not epochs & known and all(one.is_seated for one in viewers)


def test_every_viewer_is_told_that_the_log_is_another(server):
    """No event is missed, doubled or mixed in from another log; between two logs is a snapshot.

    Whatever was said and answered once everybody was in a new log, everybody saw.
    """

    async def story() -> None:
        mia, viewers, enough = host(server), guests(server, VIEWERS), asyncio.Event()
        said: list[str] = []
        settled: set[str] = set()
        async with staying(mia, *viewers):
            speaking = asyncio.create_task(speak(mia, EVENTS_PER_S, enough, answered=said))
            everyone = [mia, *viewers]
            for _ in range(FLUSHES):
                known = {part.epoch for one in everyone for part in one.parts}
                await asyncio.to_thread(_flush, server)
                await until(lambda known=known: _all_in_a_new_log(everyone, known))
                begun = len(said) + 1  # the one under way may belong to the log before
                await until(lambda end=begun + SAID_BETWEEN: len(said) >= end)
                settled.update(said[begun : begun + SAID_BETWEEN])
                await until(lambda: all(settled.issubset(one.texts) for one in everyone))
            enough.set()
            await speaking
            await mia.surely("notice.post", "the end", text="the end")
            await until(lambda: all(one.texts[-1:] == ["the end"] for one in everyone))

        agree(everyone)
        logs = [part.epoch for part in mia.parts]
        assert len(set(logs)) == len(logs) == FLUSHES + 1
        for one in viewers:
            assert [part.epoch for part in one.parts] == logs, one.name
            # Who returns to a worker that has not noticed yet resumes, and is told once more.
            assert one.modes.count("snapshot") == FLUSHES + 1, one.name
            assert {end.code for end in one.ends} == {POSITION_LOST}, one.name
            assert all(end.after_ms >= 0 for end in one.ends)

    asyncio.run(asyncio.wait_for(story(), 120))

"""Viewers are cut off at random while workers are restarted: nobody misses or doubles an event.

`LIVEROOM_FAULT_S` says for how long, `LIVEROOM_FAULT_SEED` who is cut when; `make faults` runs
a minute of it.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Iterator

import pytest

from tests.crowd import Viewer, agree, guests, host, speak, staying, until
from tests.live import Live, serving

VIEWERS = 200
EVENTS_PER_S = 100
CUTS_PER_S = 40
SEED = int(os.environ.get("LIVEROOM_FAULT_SEED", "7"))
SECONDS = float(os.environ.get("LIVEROOM_FAULT_S", "3"))


@pytest.fixture
def server(tmp_path) -> Iterator[Live]:
    flags = ("--workers", "2", "--message-rate-max", "0", "--drain-spread-s", "1")
    with serving(tmp_path / "data", *flags) as live:
        yield live


async def _cut(viewers: list[Viewer], chance: random.Random, enough: asyncio.Event) -> None:
    """Cut one viewer after another, wherever it stands: in a handshake, a join, a frame."""
    while not enough.is_set():
        chance.choice(viewers).cut()
        await asyncio.sleep(chance.expovariate(CUTS_PER_S))


async def _restart(server: Live) -> None:
    """Replace both workers by SIGHUP, then kill one of the new ones."""
    before = server.workers()
    assert len(before) == 2
    server.send(signal.SIGHUP)
    await until(lambda: len(server.workers()) == 2 and not server.workers() & before)
    killed = min(server.workers())
    os.kill(killed, signal.SIGKILL)
    await until(lambda: len(server.workers() - {killed}) == 2)


def test_cut_viewers_see_every_event_once_and_in_order(server):
    """200 viewers, 100 events a second, a rolling restart and a killed worker: all see one log."""
    chance = random.Random(SEED)

    async def story() -> None:
        loop, enough, quiet = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()
        mia, viewers = host(server), guests(server, VIEWERS)
        async with staying(mia, *viewers):
            begun = loop.time()
            speaking = asyncio.create_task(speak(mia, EVENTS_PER_S, enough))
            cutting = asyncio.create_task(_cut(viewers, chance, quiet))
            await _restart(server)
            await asyncio.sleep(max(0.0, begun + SECONDS - loop.time()))
            quiet.set()
            enough.set()
            await cutting
            said = await speaking
            await mia.surely("notice.post", "the end", text="the end")
            await until(lambda: all(one.texts[-1:] == ["the end"] for one in (mia, *viewers)))

        agree([mia, *viewers])
        for viewer in viewers:
            assert set(said) <= set(viewer.texts), f"{viewer.name} missed what was answered"
            assert viewer.modes[0] == "snapshot"
            assert set(viewer.modes[1:]) == {"resumed"}, f"{viewer.name}: {viewer.modes}"

    asyncio.run(asyncio.wait_for(story(), SECONDS + 90))

"""Viewers are cut off at random while workers are restarted: nobody misses or doubles an event.

Every other viewer speaks msgpack, and above the logged events there is more chat than its budget
shows. A run is a minute, here as in `make faults`; it counts in events and cuts, not in time, so
that a slow machine does no less. `LIVEROOM_FAULT_SEED` says who is cut when.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.crowd import LOST, Viewer, agree, guests, host, speak, staying, until
from tests.live import Live, serving

VIEWERS = 200
SPEAKERS = 4
EVENTS_PER_S = 100
TALKERS = 5
CHAT_PER_S = 50
CHAT_SHOWN_PER_S = 10
CUTS_PER_S = 40
SEED = int(os.environ.get("LIVEROOM_FAULT_SEED", "7"))
SECONDS = 60
EVENTS = EVENTS_PER_S * SECONDS
CUTS = CUTS_PER_S * SECONDS
WITHIN_S = 4 * SECONDS + 90


@pytest.fixture
def server(tmp_path) -> Iterator[Live]:
    flags = ("--workers", "2", "--message-rate-max", "0", "--drain-spread-s", "1")
    with serving(tmp_path / "data", *flags) as live:
        yield live


class Run:
    """The crowd, and how far a run of it has come."""

    def __init__(self, server: Live) -> None:
        self.server = server
        self.hosts = [Viewer(server, f"host{at}", "host:r1") for at in range(SPEAKERS)]
        self.viewers = guests(server, VIEWERS)
        self.said: list[str] = []
        self.chatted: list[str] = []
        self.cuts: Counter[str] = Counter()
        self._enough = asyncio.Event()
        self._chance = random.Random(SEED)

    async def going_on(self) -> None:
        """Speak, talk and cut until it is enough."""
        async with asyncio.TaskGroup() as group:
            for at, one in enumerate(self.hosts):
                rate = EVENTS_PER_S / SPEAKERS
                group.create_task(speak(one, rate, self._enough, f"{at} says ", answered=self.said))
            for one in self.viewers[:TALKERS]:
                rate, talk = CHAT_PER_S / TALKERS, f"{one.name} talks "
                group.create_task(
                    speak(one, rate, self._enough, talk, cmd="message.post", answered=self.chatted)
                )
            group.create_task(self._cut())

    async def _cut(self) -> None:
        """Cut one viewer after another, wherever it stands: in a handshake, a join, a frame."""
        while not self._enough.is_set():
            one = self._chance.choice(self.viewers)
            self.cuts[one.name] += one.cut()
            await asyncio.sleep(self._chance.expovariate(CUTS_PER_S))

    async def come_to(self, part: float) -> None:
        """Wait until so much of the run's events and cuts is behind us."""
        await until(lambda: len(self.said) >= part * EVENTS, WITHIN_S)
        await until(lambda: self.cuts.total() >= part * CUTS, WITHIN_S)

    async def more(self) -> None:
        """Wait until as much again has happened as in a quarter of the run."""
        said, cuts = len(self.said) + EVENTS / 4, self.cuts.total() + CUTS / 4
        await until(lambda: len(self.said) >= said and self.cuts.total() >= cuts, WITHIN_S)

    def end(self) -> None:
        """It is enough."""
        self._enough.set()

    async def replace_workers(self) -> None:
        """Replace both by SIGHUP, one after the other."""
        before = self.server.workers()
        assert len(before) == 2
        self.server.send(signal.SIGHUP)
        await until(lambda: len(self.server.workers()) == 2 and not self.server.workers() & before)

    async def kill_a_worker(self) -> None:
        """Kill one of the two, which is replaced."""
        killed = min(self.server.workers())
        os.kill(killed, signal.SIGKILL)
        await until(lambda: len(self.server.workers() - {killed}) == 2)


def test_cut_viewers_see_every_event_once_and_in_order(server):
    """200 viewers, a minute of 100 events a second, a rolling restart, a killed worker: one log."""

    async def story() -> Run:
        run, mia = Run(server), host(server)
        async with staying(mia, *run.hosts, *run.viewers):
            await mia.do("room.set", chat_per_s_max=CHAT_SHOWN_PER_S)
            going = asyncio.create_task(run.going_on())
            await run.come_to(0.25)
            await run.replace_workers()
            await run.more()
            await run.kill_a_worker()
            await run.more()
            await run.come_to(1)
            run.end()
            await going
            await mia.surely("notice.post", "the end", text="the end")
            everyone = [mia, *run.hosts, *run.viewers]
            await until(lambda: all(one.texts[-1:] == ["the end"] for one in everyone))
        agree(everyone)
        return run

    run = asyncio.run(asyncio.wait_for(story(), WITHIN_S))
    assert len(run.said) >= EVENTS
    assert sum(one.ends.count((LOST, "")) for one in run.viewers) >= run.cuts.total() >= CUTS
    assert len(+run.cuts) >= min(VIEWERS, CUTS) / 3, "the cuts hit all sorts of viewers"
    for viewer in run.viewers:
        assert set(run.said) <= set(viewer.texts), f"{viewer.name} missed what was answered"
        assert viewer.modes[0] == "snapshot"
        assert set(viewer.modes[1:]) == {"resumed"}, f"{viewer.name}: {viewer.modes}"
        assert sum(map(len, viewer.chats)) < len(run.chatted), "chat is over its budget"
    assert any("chat.sampled" in viewer.state for viewer in run.viewers)

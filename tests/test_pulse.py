"""The pulse asks everyone once in an interval, and stops when nobody is there."""

import asyncio
import itertools
import socket
import time

import pytest
import uvloop

from liveroom.wire.pulse import SLOTS, Pulse


class One:
    def __init__(self, fault=None):
        self.beats = 0
        self.fault = fault

    def on_beat(self):
        self.beats += 1
        if self.fault is not None:
            raise self.fault


async def until(fact):
    async with asyncio.timeout(10):
        while not fact():  # noqa: ASYNC110 - timers tell nobody
            await asyncio.sleep(0)


def test_each_has_its_turn_once_an_interval(run):
    """Whoever joins first is asked first; who left is asked no more, and no timer stays."""

    async def story():
        loop = asyncio.get_running_loop()
        pulse = Pulse(loop, SLOTS * 0.001)
        ann, bob = One(), One()
        ann_at, bob_at = pulse.add(ann), pulse.add(bob)
        await until(lambda: bob.beats >= 3)
        assert ann.beats in {bob.beats, bob.beats + 1}
        pulse.remove(ann, ann_at)
        pulse.remove(ann, ann_at)
        told = ann.beats
        await until(lambda: bob.beats >= 5)
        assert ann.beats == told
        pulse.remove(bob, bob_at)
        await until(lambda: pulse._timer is None)

    run(story())


def test_the_fault_of_one_is_its_own(run, caplog):
    """It is logged, and all others are asked as ever."""

    async def story():
        pulse = Pulse(asyncio.get_running_loop(), SLOTS * 0.001)
        ann, bob = One(ValueError("broken")), One()
        places = pulse.add(ann), pulse.add(bob)
        await until(lambda: min(ann.beats, bob.beats) >= 3)
        for one, place in zip((ann, bob), places, strict=True):
            pulse.remove(one, place)
        await until(lambda: pulse._timer is None)

    run(story())
    assert caplog.messages[:3] == ["a connection could not be asked"] * 3


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("intervals", [1.005, 1.5])
def test_what_came_while_the_loop_stood_still_is_read_before_anybody_is_asked(run, intervals):
    """A callback takes an interval, right after a ping: the pong that waits by then is heard."""
    interval_s = 0.64

    class Peer(asyncio.Protocol):
        asked, silent = False, 0

        def connection_made(self, transport):
            self.transport = transport

        def data_received(self, data):
            if data == b"stop":
                time.sleep(intervals * interval_s)
            else:
                self.asked = False

        def on_beat(self):
            self.silent += self.asked
            self.asked = True
            self.transport.write(b"ping")

    def answer(theirs):
        for turn in range(4):
            assert theirs.recv(4) == b"ping"
            if turn == 1:
                theirs.sendall(b"stop")
                time.sleep(interval_s / 4)
            theirs.sendall(b"pong")

    async def story():
        loop = asyncio.get_running_loop()
        pulse = Pulse(loop, interval_s)
        ours, theirs = socket.socketpair()
        with theirs:
            _, peer = await loop.create_connection(Peer, sock=ours)
            place = pulse.add(peer)
            await asyncio.to_thread(answer, theirs)
            assert peer.silent == 0
            pulse.remove(peer, place)
            peer.transport.close()

    run(asyncio.wait_for(story(), 30))


class Standing:
    """A loop whose time the test moves: timers that came due meanwhile run late, one by one."""

    def __init__(self):
        self.now_s = 0.0
        self.timers = []

    def time(self):
        return self.now_s

    def call_later(self, after_s, call, *args):
        return self.call_at(self.now_s + after_s, call, *args)

    def call_soon(self, call, *args):
        return self.call_at(self.now_s, call, *args)

    def call_at(self, at_s, call, *args):
        self.timers.append((at_s, call, args))
        return self

    def run_to(self, end_s):
        while due := sorted(
            (one for one in self.timers if one[0] <= end_s), key=lambda one: one[0]
        ):
            self.timers.remove(due[0])
            at_s, call, args = due[0]
            self.now_s = max(self.now_s, at_s)
            call(*args)
        self.now_s = end_s


def test_a_process_that_stood_still_asks_nobody_twice_at_once():
    """After a pause of several intervals there is an interval for the pong, as ever."""
    loop = Standing()
    pulse = Pulse(loop, SLOTS)  # a second for each slot

    class Timed(One):
        def on_beat(self):
            asked_s[self].append(loop.now_s)

    asked_s = {Timed(): [] for _ in range(20)}
    for seat in asked_s:
        pulse.add(seat)
        loop.run_to(loop.now_s + 1.5)
    loop.run_to(SLOTS + 10)
    loop.now_s += 3 * SLOTS
    loop.run_to(10 * SLOTS)
    woken_s = SLOTS + 10 + 3 * SLOTS
    for asked in asked_s.values():
        assert not any(woken_s <= at_s < woken_s + 1 for at_s in asked), "its pong is not read yet"
        gaps = [after - before for before, after in itertools.pairwise(asked)]
        assert len(gaps) >= 5
        assert min(gaps) >= SLOTS - 1

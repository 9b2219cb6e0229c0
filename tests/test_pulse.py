"""The pulse asks everyone once in an interval, and stops when nobody is there."""

import asyncio

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

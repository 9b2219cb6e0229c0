"""The pulse asks everyone once in an interval, and stops when nobody is there."""

import asyncio

from liveroom.wire.pulse import SLOTS, Pulse


class One:
    def __init__(self):
        self.beats = 0

    def on_beat(self):
        self.beats += 1


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

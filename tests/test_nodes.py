"""Several nodes on one store: everybody hears everything once, whatever is cut meanwhile."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from liveroom.clock import ManualClock
from liveroom.events import Event
from liveroom.metrics import counters
from liveroom.store.items import Item
from liveroom.store.valkey import EmbeddedValkey
from tests.nodes import nodes, publish, until, watching


@pytest.mark.parametrize("count", [2, 3])
def test_cut_subscriptions_miss_nothing(redis_url, run, count):
    """Subscriptions are killed again and again while every node publishes."""

    async def story():
        async with nodes(redis_url, count) as among, watching(among, ["a", "b"]) as seated:
            for _ in range(8):
                await among[0].client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
                await asyncio.gather(
                    *(publish(node, room) for room in seated for node in among for _ in range(5))
                )
            for viewers in seated.values():
                end = 40 * count
                await until(lambda v=viewers, s=end: all(x.seqs[-1:] == [s] for x in v))
                assert all(viewer.whole for viewer in viewers)
                assert all(viewer.told_to_return == 0 for viewer in viewers)
            assert all(node.resets for node in among)

    run(story())


def test_the_last_message_before_silence_is_not_lost(redis_url, run):
    """What was said while nobody could hear it is read from the log, with nothing after it."""

    async def story():
        async with nodes(redis_url, 2) as among, watching(among, ["a"]) as seated:
            for seq in range(1, 6):
                await among[0].client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
                await publish(among[0], "a")
                await until(lambda s=seq: all(v.seqs == list(range(1, s + 1)) for v in seated["a"]))

    run(story())


def test_a_killed_store_is_never_passed_over_in_silence(tmp_path, run):
    """Its log may have been rolled back: viewers are told to return, to a log that is whole."""
    server = EmbeddedValkey(tmp_path)
    url = server.start()

    async def story():
        async with nodes(url, 2) as among, watching(among, ["a"]) as seated:
            viewers = seated["a"]
            for _ in range(2):
                await publish(among[0], "a")
                await until(lambda: all(viewer.seqs for viewer in viewers))
                before = viewers[0].epoch
                assert server.pid is not None
                os.kill(server.pid, signal.SIGKILL)
                await asyncio.gather(*(publish(node, "a") for node in among for _ in range(5)))
                await until(lambda b=before: all(v.epoch not in {"", b} for v in viewers))
                last = (await publish(among[1], "a")).seq
                await until(lambda s=last: all(viewer.seqs[-1:] == [s] for viewer in viewers))
                assert all(viewer.whole for viewer in viewers)
                assert viewers[0].epoch == viewers[1].epoch
            assert all(viewer.told_to_return >= 2 for viewer in viewers)

    try:
        run(story())
    finally:
        server.stop()


@pytest.mark.parametrize(("ago_ms", "lag_s"), [(250, 0.25), (0, 0.0), (-250, 0.0)])
def test_each_batch_says_how_long_it_was_under_way(redis_url, run, ago_ms, lag_s):
    """Each node that hears a batch counts its lag once; another node's clock makes none negative."""
    clock, lag = ManualClock(), counters.publish_lag_seconds

    async def story():
        total, counts = lag.total, list(lag.counts)
        async with nodes(redis_url, 2, clock) as among, watching(among, ["a"]) as seated:
            notice = Event("notice.posted", {"text": "x"}, clock.now_ms() - ago_ms)
            await among[0].plane.publish("a", Item(notice))
            await until(lambda: all(viewer.seqs == [1] for viewer in seated["a"]))
        return lag.total - total, [now - was for now, was in zip(lag.counts, counts, strict=True)]

    total, counts = run(story())
    assert total == pytest.approx(2 * lag_s)
    bound = next(at for at, bound in enumerate(lag.bounds) if lag_s <= bound)
    assert counts == [2 if at == bound else 0 for at in range(len(counts))]

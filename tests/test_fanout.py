"""Lanes, ring, tick and flush: what a room may thin, and how one frame reaches every seat."""

from __future__ import annotations

import asyncio
from itertools import cycle

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tape import Store, Tape, Who, join, until

from liveroom.errors import InvariantBroken
from liveroom.events import Event, Position
from liveroom.wire.codec import Format
from liveroom.wire.fanout import CHUNK, ROUNDS, SLICE, SLICE_S, Flush, Job, Tick
from liveroom.wire.hub import Hub
from liveroom.wire.lanes import (
    CHAT_FRAME_BYTES_MAX,
    CHAT_FRAME_MAX,
    CHAT_WAITING_MAX,
    STATE_FRAME_BYTES_MAX,
    ChatLane,
    StateLane,
)
from liveroom.wire.live import FRAME_BYTES_MAX
from liveroom.wire.outbox import (
    AWAY,
    FRAME_BYTES_USUAL,
    HIGH_WATER,
    OUTBOX_BYTES_MAX,
    Seat,
    StreamLink,
)
from liveroom.wire.ring import Encoded, Ring


def says(n: int, member: str) -> Encoded:
    return Encoded(Event("message.posted", {"id": f"e-{n}", "member": member}, 1, n=n))


def noticed(seq: int) -> Encoded:
    return Encoded(Event("notice.posted", {"text": "x" * 10}, 1, seq=seq))


def counted(v: int, name: str = "stock.changed", sku: str = "s1") -> Encoded:
    return Encoded(Event(name, {"sku": sku, "v": v}, 1))


# --- chat


def test_without_a_budget_everyone_sees_everything():
    """A budget of 0 shows all, over as many ticks as its frames need."""
    lane = ChatLane()
    for n in range(1, 1001):
        lane.add(says(n, f"m{n % 7}"))
    seen: list[int] = []
    while lane.ready_in_s(0, 0.0) is not None:
        crew, viewers = lane.take(0, 0.0)
        assert crew == viewers
        assert 0 < len(viewers) <= CHAT_FRAME_MAX
        seen += [one.event.n for one in viewers]
    assert seen == [*range(1, 1001)]
    assert (lane.posted, lane.shown) == (1000, 1000)


def test_above_the_budget_authors_take_turns():
    """One message an author in turn: a flooder does not drown the others."""
    lane = ChatLane()
    lane.take(4, 0.0)
    for n in range(1, 101):
        lane.add(says(n, "flooder"))
    for n, member in enumerate("abc", start=101):
        lane.add(says(n, member))
    crew, viewers = lane.take(4, 1.0)
    assert len(crew) == 103
    assert [one.event.data["member"] for one in viewers] == ["flooder", "a", "b", "c"]
    assert [one.event.n for one in viewers] == sorted(one.event.n for one in viewers)


def test_authors_shown_longest_ago_come_first():
    """Over several ticks everyone has a turn."""
    lane, seen, n = ChatLane(), [], 0
    for second in range(1, 6):
        for member in "abcdefghij":
            n += 1
            lane.add(says(n, member))
        seen += [one.event.data["member"] for one in lane.take(2, float(second))[1]]
    assert sorted(seen) == list("abcdefghij")


def test_a_message_waits_until_the_budget_has_room_for_it():
    """A budget of 2 a second shows the next message half a second later, not never."""
    lane = ChatLane()
    lane.take(2, 0.0)
    for n in (1, 2, 3):
        lane.add(says(n, "a"))
        lane.take(2, 1.0)
    assert lane.ready_in_s(2, 1.0) == pytest.approx(0.5)
    assert [one.event.n for one in lane.take(2, 1.5)[1]] == [3]
    assert lane.ready_in_s(2, 9.0) is None


def test_a_removed_message_is_not_shown_later():
    """What was taken back while it waited is not shown."""
    lane = ChatLane()
    lane.add(says(1, "a"))
    lane.remove("e-1")
    assert lane.take(0, 0.0) == ([], [])


@settings(max_examples=100, deadline=None)
@given(
    budget=st.integers(1, 50),
    ticks=st.lists(st.tuples(st.integers(0, 30), st.floats(0.0, 0.5)), max_size=30),
)
def test_no_second_shows_more_than_the_budget(budget, ticks):
    """At most one second's worth at once, and the budget in the long run."""
    lane, now_s, n, shown = ChatLane(), 0.0, 0, []
    lane.take(budget, now_s)
    for count, after_s in ticks:
        for _ in range(count):
            n += 1
            lane.add(says(n, f"m{n % 5}"))
        now_s += after_s
        crew, viewers = lane.take(budget, now_s)
        assert len(crew) == count
        shown += [one.event.n for one in viewers]
    assert shown == sorted(set(shown))
    assert len(shown) <= budget * (now_s + 1) + 1


def test_a_frame_of_chat_is_bounded():
    """A flood leaves in frames of a bounded size, and what waits is bounded too."""
    lane = ChatLane()
    for n in range(1, 10_001):
        lane.add(says(n, f"m{n}"))
    crew, viewers = lane.take(0, 0.0)
    assert len(crew) == len(viewers) == CHAT_FRAME_MAX
    left = 0
    while lane.crew_waiting:
        left += len(lane.take(0, 0.0)[1])
    assert left == CHAT_WAITING_MAX - CHAT_FRAME_MAX


def test_long_messages_are_shared_out_over_frames():
    """A frame of chat is bounded in bytes too; what has no room waits for the next."""
    lane = ChatLane()
    for n in range(1, 201):
        data = {"id": f"e-{n}", "member": f"m{n}", "text": "裤" * 500}
        lane.add(Encoded(Event("message.posted", data, 1, n=n)))
    crew, viewers = [], []
    while lane.crew_waiting:
        for seen, shown in zip((crew, viewers), lane.take(0, 0.0), strict=True):
            assert 0 < sum(len(one.to(Format.JSON)) for one in shown) <= CHAT_FRAME_BYTES_MAX
            seen += [one.event.n for one in shown]
    assert crew == viewers == [*range(1, 201)]


# --- state


def test_the_latest_value_of_each_key_leaves():
    """Older values are skipped; a later `v` is never replaced by an older one."""
    lane = StateLane()
    assert [lane.put(counted(v)) for v in (2, 1, 2, 3)] == [True, False, False, True]
    lane.put(counted(1, sku="s2"))
    assert [(one.event.data["sku"], one.event.data["v"]) for one in lane.take()] == [
        ("s1", 3),
        ("s2", 1),
    ]
    assert lane.take() == []


def test_what_changed_since_a_mark_is_known():
    """A viewer who was away is told the latest of what changed meanwhile."""
    lane = StateLane()
    lane.put(counted(1, sku="a"))
    lane.put(counted(1, sku="b"))
    mark = lane.mark
    lane.put(counted(2, sku="a"))
    lane.put(counted(3, sku="a"))
    newer = [(one.event.data["sku"], one.event.data["v"]) for _, one in lane.since(mark)]
    assert newer == [("a", 3)]
    assert lane.since(lane.mark) == []


def test_what_a_frame_of_state_has_no_room_for_waits():
    """It leaves with the next ones, and counts as changed after this one for who is away."""
    lane = StateLane()
    for number in range(1000):
        lane.put(counted(1, sku=f"sku-{number}"))
    told: list[str] = []
    while lane.wait_s() is not None:
        mark = lane.mark
        frame = lane.take()
        assert 0 < sum(len(one.to(Format.JSON)) for one in frame) <= STATE_FRAME_BYTES_MAX
        told += [one.event.data["sku"] for one in frame]
        later = {one.event.data["sku"] for _, one in lane.since(mark)}
        assert later == {f"sku-{number}" for number in range(1000)} - set(told)
        assert lane.wait_s() == (0.0 if later else None), "the rest is late already"
    assert told == [f"sku-{number}" for number in range(1000)]


def test_state_waits_for_company_but_never_a_second():
    """Stock causes a flush after 200 ms, counts later, both within a second."""
    lane = StateLane()
    assert lane.wait_s() is None
    lane.put(counted(1, "viewers.counted"))
    slow = lane.wait_s()
    lane.put(counted(1))
    quick = lane.wait_s()
    assert slow is not None
    assert quick is not None
    assert quick < slow < 1


# --- the ring


@settings(max_examples=100, deadline=None)
@given(start=st.integers(0, 5), count=st.integers(0, 40), size=st.integers(1, 20))
def test_a_ring_gives_what_it_holds_and_no_more(start, count, size):
    """Every position it holds is followed by every later event, in order."""
    ring = Ring(start, events_max=size, bytes_max=10**6)
    for seq in range(start + 1, start + count + 1):
        ring.append(noticed(seq))
    for seq in range(start + count + 2):
        if ring.holds(seq):
            later = [one.event.seq for one in ring.after(seq)]
            assert later == [*range(seq + 1, start + count + 1)]
        else:
            assert seq < start + count - size or seq > start + count or seq < start


def test_a_ring_is_bounded_by_bytes_too():
    """Large events leave it earlier."""
    ring = Ring(0, events_max=100, bytes_max=1000)
    for seq in range(1, 51):
        ring.append(noticed(seq))
    assert 0 < len(ring.after(ring.first - 1)) < 50


def test_a_ring_grows_backwards_by_what_follows():
    """Older events join where they end just before the first."""
    ring = Ring(10, events_max=8, bytes_max=10**6)
    ring.append(noticed(11))
    ring.extend_back([noticed(seq) for seq in range(3, 12)])
    assert (ring.first, len(ring.after(ring.first - 1))) == (4, 8)
    ring.extend_back([noticed(1)])
    assert ring.first == 4


def test_a_gap_never_enters_the_ring():
    """What does not follow is a fault of ours."""
    with pytest.raises(InvariantBroken):
        Ring(0, events_max=8, bytes_max=10**6).append(noticed(2))


# --- the tick and the flush


def test_a_tick_gathers_for_as_long_as_flushes_cost():
    """Idle, at once; then a few times the last cost, bounded whatever it was."""
    tick = Tick(max_s=0.3)
    assert tick.ready_s < 0
    waits = []
    for cost in (0.0, 0.001, 0.01, 0.1, 5.0):
        tick.flushed(10.0, 10.0 + cost)
        waits.append(tick.ready_s - (10.0 + cost))
    assert waits == pytest.approx(sorted(waits))
    assert waits[0] == 0
    assert waits[-1] == pytest.approx(0.3)


def test_half_a_room_on_each_of_two_workers_gathers_as_long():
    """Otherwise every worker would write frames as often as its share of the room is small."""
    tick, periods = Tick(), []
    for cost in (0.005, 0.010):
        tick.flushed(10.0, 10.0 + cost)
        periods.append(tick.ready_s - 10.0)
    half, whole = periods
    assert half > 0.8 * whole


def seats(count: int) -> list[Seat]:
    made = [Seat(Tape(), Format.STREAM, member=Who(f"m{i}")) for i in range(count)]
    for seat in made:
        seat.beat = 0
    return made


class Ticking:
    """A clock that moves by `step_s` with each look at it, or when it is told to."""

    def __init__(self, step_s: float) -> None:
        self.now_s = 0.0
        self.step_s = step_s

    def __call__(self) -> float:
        self.now_s += self.step_s
        return self.now_s


def test_a_flush_writes_in_slices_and_asks_again_who_is_there(run):
    """A seat that leaves between two slices gets nothing; the others get the same bytes."""

    async def story():
        done = asyncio.Event()
        there = seats(SLICE * 2 + 50)
        flush = Flush(
            asyncio.get_running_loop(),
            [Job(b"one", there[: SLICE + 10]), Job(b"two", there[SLICE + 10 :])],
            1,
            done.set,
            clock=Ticking(0),
        )
        flush.start()
        assert [len(seat.link.frames) for seat in there[:SLICE]] == [1] * SLICE
        assert not any(seat.link.frames for seat in there[SLICE:])
        there[-1].beat = AWAY
        there[-2].beat = 1
        await done.wait()
        assert [seat.link.frames for seat in there[SLICE : SLICE + 10]] == [[b"one"]] * 10
        assert [seat.link.frames for seat in there[SLICE + 10 : -2]] == [[b"two"]] * (SLICE + 38)
        assert there[-1].link.frames == there[-2].link.frames == []

    run(story())


def written(there: list[Seat]) -> int:
    return sum(len(seat.link.frames) for seat in there)


def test_a_slice_ends_by_time_too(run):
    """Where writes are slow, a slice has fewer of them."""

    async def story():
        done = asyncio.Event()
        there = seats(SLICE)
        clock = Ticking(SLICE_S)
        Flush(asyncio.get_running_loop(), [Job(b"f", there)], 1, done.set, clock=clock).start()
        assert written(there) == CHUNK
        await done.wait()
        assert written(there) == SLICE

    run(story())


def test_between_two_slices_a_command_takes_many_steps(run):
    """What waits does not get one step a slice, but as many as the loop comes round."""

    async def story():
        loop, done, seen = asyncio.get_running_loop(), asyncio.Event(), []
        there, clock = seats(SLICE * 4), Ticking(1e-6)
        for seat in there:
            seat.link.write = lambda *said, write=seat.link.write: (clock(), write(*said))
        Flush(loop, [Job(b"f", there)], 1, done.set, clock=clock).start()
        while not done.is_set():
            seen.append(written(there))
            await asyncio.sleep(0)
        assert [seen.count(SLICE * slices) for slices in (1, 2, 3)] == [ROUNDS] * 3

    run(story())


def test_steps_that_take_long_do_not_hold_a_flush_up(run):
    """Others get no more time between two slices than a slice took."""

    async def story():
        loop, done, seen = asyncio.get_running_loop(), asyncio.Event(), []
        there, clock = seats(SLICE * 3), Ticking(1e-5)
        Flush(loop, [Job(b"f", there)], 1, done.set, clock=clock).start()
        while not done.is_set():
            seen.append(written(there))
            clock.now_s += SLICE_S
            await asyncio.sleep(0)
        assert [seen.count(SLICE * slices) for slices in (1, 2)] == [1, 1]

    run(story())


def test_a_large_room_does_not_hold_up_another(run):
    """A small room's viewers have their event while a large room's flush has just begun."""

    async def story():
        store = Store()
        hub = store.hub()
        large = [await join(hub, f"m{i}", room="large") for i in range(SLICE * 3)]
        small = [await join(hub, f"s{i}", room="small") for i in range(3)]
        hub.deliver("large", "e1", [store.says("a")])
        hub.deliver("small", "e1", [store.says("b")])
        assert [tape.ns for tape in small] == [[2]] * 3
        assert sum(len(tape.ns) for tape in large) <= SLICE
        await hub.close()

    run(story())


def test_viewers_and_crew_share_frames_of_their_own(run):
    """One frame for each wire format and audience: the very same bytes to all."""

    async def story():
        store = Store(budget=1)
        hub = store.hub()
        ann, bob = await join(hub), await join(hub, "bob")
        host = await join(hub, "host", crew=True)
        hub.deliver("r1", "e1", [store.notice(), *(store.says(f"m{i}") for i in range(9))])
        await until(lambda: host.ns == [*range(1, 10)])
        assert ann.frames[-1] is bob.frames[-1]
        assert ann.ns == [1]
        await hub.close()

    run(story())


def test_every_format_and_audience_is_told_the_same_in_one_flush(run):
    """JSON, msgpack and event streams, viewers and crew: one frame for each, the same for its seats."""

    async def story():
        store = Store(budget=1)
        hub = store.hub()
        seated = {
            (fmt, crew): [await join(hub, f"{fmt}{i}", tape=Tape(fmt), crew=crew) for i in range(2)]
            for crew in (False, True)
            for fmt in Format
        }
        slow = [tapes[0] for tapes in seated.values()]
        hub.deliver("r1", "e1", [store.notice("夜"), store.stock(5), *map(store.says, "abc")])
        for (_, crew), (one, other) in seated.items():
            assert one.frames[-1] is other.frames[-1]
            assert (one.seqs, one.stock) == ([1], {"s1": 5})
            assert one.ns == ([1, 2, 3] if crew else [1])
            assert one.events == seated[Format.JSON, crew][0].events
        for tape in slow:
            tape.pause()
        hub.deliver("r1", "e1", [store.notice("later"), store.stock(4)])
        await until(lambda: hub.picture("r1").seq == 2)
        for tape in slow:
            tape.resume()
        for one, other in seated.values():
            assert (one.seqs, one.stock) == (other.seqs, other.stock) == ([1, 2], {"s1": 4})
        hub.direct(Event("order.placed", {"order": {}}, 1, to=f"{Format.MSGPACK}1"))
        heard = [
            tape for tapes in seated.values() for tape in tapes if "order.placed" in tape.names
        ]
        assert {tape.format for tape in heard} == {Format.MSGPACK}
        await hub.close()

    run(story())


def test_busy_rooms_gather_many_events_in_a_frame(run):
    """What arrives while a flush runs leaves in the next one, together."""

    async def story():
        store = Store()
        hub = store.hub()
        tapes = [await join(hub, f"m{i}") for i in range(SLICE + 1)]
        for _ in range(100):
            hub.deliver("r1", "e1", [store.notice()])
        await until(lambda: tapes[-1].seqs == [*range(1, 101)])
        assert len(tapes[-1].frames) < 10
        assert hub.counts.events_delivered == 100 * len(tapes)
        await hub.close()

    run(story())


def test_a_seat_that_pauses_and_returns_within_a_flush_gets_its_frame_once(run):
    """A returner during a flush is not written twice."""

    async def story():
        store = Store()
        hub = store.hub()
        tapes = [await join(hub, f"m{i}") for i in range(SLICE * 2)]
        last = tapes[-1]
        hub.deliver("r1", "e1", [store.notice(), store.says("a")])
        assert last.seqs == []
        last.pause()
        last.resume()
        assert last.seqs == [1]
        await until(lambda: not hub._rooms["r1"]._flush)
        assert last.seqs == [1]
        hub.deliver("r1", "e1", [store.notice()])
        await until(lambda: last.seqs == [1, 2])
        await hub.close()

    run(story())


def test_one_who_joins_while_a_message_waits_misses_nothing(run):
    """Over the budget a message waits: who joins meanwhile still gets each flush, but not it."""

    async def story():
        store = Store(budget=5)
        hub = store.hub()
        ann = await join(hub)
        hub.deliver("r1", "e1", [store.says("a") for _ in range(5)])
        hub.deliver("r1", "e1", [store.says("a")])
        await until(lambda: hub.picture("r1").n == 6)
        bob = await join(hub, "bob")
        assert bob.ok["snapshot"]["n"] == 6
        hub.deliver("r1", "e1", [store.notice(), store.stock(5)])
        await until(lambda: ann.seqs == bob.seqs == [1])
        assert ann.stock == bob.stock == {"s1": 5}
        assert ann.ns == [*range(1, 6)], "the sixth waits"
        await until(lambda: ann.ns[-1] == 6)
        hub.deliver("r1", "e1", [store.says("a")])
        await until(lambda: ann.ns[-1] == 7)
        assert bob.ns == [7]
        await hub.close()

    run(story())


def test_one_who_comes_to_the_crew_is_shown_all_from_then_on(run):
    """Also what waits for the viewers, at once; what they were never shown stays unshown."""

    async def story():
        store = Store(budget=5)
        hub = store.hub()
        ann, host = await join(hub), await join(hub, "host", crew=True)
        hub.deliver("r1", "e1", [store.says("a") for _ in range(8)])
        await until(lambda: host.ns == [*range(1, 9)])
        assert ann.ns == [*range(1, 6)]
        hub.deliver("r1", "e1", [store.says("a")])
        await until(lambda: hub.picture("r1").n == 9)
        ann.owner.set_audience(crew=True)
        await until(lambda: ann.ns == [*range(1, 6), 9])
        hub.deliver("r1", "e1", [store.says("a") for _ in range(20)])
        await until(lambda: ann.ns == [*range(1, 6), *range(9, 30)])
        await hub.close()

    run(story())


def test_one_who_leaves_the_crew_is_shown_the_sample_from_then_on(run):
    """What waits for the viewers it has seen, and sees once."""

    async def story():
        store = Store(budget=5)
        hub = store.hub()
        ann, host = await join(hub), await join(hub, "host", crew=True)
        hub.deliver("r1", "e1", [store.says("a") for _ in range(5)])
        hub.deliver("r1", "e1", [store.says("a")])
        await until(lambda: host.ns == [*range(1, 7)])
        host.owner.set_audience(crew=False)
        await until(lambda: ann.ns == [*range(1, 7)])
        hub.deliver("r1", "e1", [store.says("a") for _ in range(20)])
        await until(lambda: ann.ns[-1] > 6)
        assert host.ns == ann.ns
        assert len(ann.ns) < 20
        await hub.close()

    run(story())


def test_a_change_of_audience_waits_for_the_end_of_a_flush(run):
    """A frame that is on its way to the viewers comes before what the crew alone was told."""

    async def story():
        store = Store(budget=1)
        hub = store.hub()
        crowd = [await join(hub, f"m{number}") for number in range(SLICE)]
        ann = await join(hub)
        hub.deliver("r1", "e1", [store.says("a")])
        await until(lambda: ann.ns == [1])
        hub.deliver("r1", "e1", [store.notice(), store.says("b")])
        while not crowd[0].seqs:  # noqa: ASYNC110 - to look between two slices
            await asyncio.sleep(0)
        assert ann.seqs == [], "the flush has a second slice"
        ann.owner.set_audience(crew=True)
        assert ann.ns == [1]
        await until(lambda: ann.ns == [1, 2])
        assert ann.seqs == [1]
        await hub.close()

    run(story())


def test_one_who_is_ahead_of_this_node_misses_neither_chat_nor_state(run):
    """Who comes with a position this node has not reached is told all the rest of a flush."""

    async def story():
        store = Store()
        hub = store.hub()
        ann = await join(hub)
        late = store.notice()
        bob = await join(hub, "bob", since=store.position)
        hub.deliver("r1", "e1", [store.says("a"), store.stock(5)])
        await until(lambda: ann.ns == bob.ns == [1])
        await until(lambda: ann.stock == bob.stock == {"s1": 5})
        hub.deliver("r1", "e1", [late, store.notice()])
        await until(lambda: ann.seqs == [1, 2])
        await until(lambda: bob.seqs == [2])
        await hub.close()

    run(story())


class Audience:
    """Viewers of one room, some of whom come and go, and what each of them must see."""

    def __init__(self, hub: Hub, store: Store) -> None:
        self.hub = hub
        self.store = store
        self.starts: dict[Tape, int] = {}
        self.steady: list[Tape] = []  # never slow
        self.moving = Tape()
        self._formats = cycle(Format)

    async def begin(self) -> None:
        """Enough viewers for a flush of two slices, the moving one among the last written to."""
        for number in range(SLICE):
            await self.join(f"m{number}")
        await self.move()
        await self.join("last")

    async def join(self, name: str = "late", since: Position | None = None) -> None:
        """One who comes and stays."""
        self.steady.append(await self._seated(name, since))

    async def move(self) -> None:
        """The moving one leaves, and comes again as another."""
        self.starts.pop(self.moving, None)
        self.moving.close(1000)
        self.moving = await self._seated("moving")

    async def _seated(self, name: str, since: Position | None = None) -> Tape:
        tape = await join(self.hub, name, since=since, tape=Tape(next(self._formats)))
        told = [event["seq"] for event in tape.ok.get("events", ())]
        self.starts[tape] = tape.ok["seq"]
        assert since is None or [*range(since.seq + 1, tape.ok["seq"] + 1)] == told
        return tape

    async def step(self, step: str) -> None:
        """Let one thing happen."""
        store, moving = self.store, self.moving
        if step == "lose":
            store.notice()
        elif step in {"notice", "says", "stock"}:
            event = store.stock(len(self.starts)) if step == "stock" else getattr(store, step)(step)
            self.hub.deliver("r1", "e1", [event])
        elif step == "pause" and not moving.paused:
            moving.pause()
        elif step == "resume" and moving.paused:
            moving.resume()
        elif step in {"crew", "viewer"}:
            self.moving.owner.set_audience(crew=step == "crew")
        elif step == "leave":
            await self.move()
        elif step == "join":
            await self.join()
        elif step == "return":
            await self.join(since=store.position)
        else:
            await asyncio.sleep(0)

    async def end(self) -> None:
        """Whatever was lost is read from the log; then everybody has seen what they must."""
        if self.moving.paused:
            self.moving.resume()
        await self.hub.check()
        self.hub.deliver("r1", "e1", [self.store.stock(-1), self.store.notice()])
        last = len(self.store.logged)
        for tape, start in self.starts.items():
            wanted = [*range(start + 1, last + 1)]
            await until(lambda tape=tape, wanted=wanted: tape.seqs == wanted)
            assert tape.stock == {"s1": -1}
            assert tape.ns == sorted(set(tape.ns))
        await until(self._agree_on_chat)

    def _agree_on_chat(self) -> bool:
        shown = self.steady[0].ns  # who was there from the start
        return all(
            tape.ns == [n for n in shown if n > (tape.ok.get("snapshot") or tape.ok["now"])["n"]]
            for tape in self.steady
        )


STEPS = ["notice", "says", "stock", "pause", "resume", "leave", "join", "return", "turn", "lose"]
STEPS += ["crew", "viewer"]


@settings(max_examples=100, deadline=None)
@given(budget=st.sampled_from([0, 1, 3]), steps=st.lists(st.sampled_from(STEPS), max_size=40))
@example(budget=1, steps=["says", "turn", "turn", "says", "turn", "join", "notice"])
@example(budget=1, steps=["says", "says", "turn", "crew", "says", "turn", "viewer", "says"])
@example(budget=0, steps=["lose", "return", "says", "stock", "turn"])
def test_whatever_happens_every_viewer_sees_every_logged_event_once(budget, steps):
    """Pauses, returns, losses, roles, waiting chat and slices in any order: each sequence is complete.

    Of chat, all who are never slow see the same; and the latest stock reaches everybody.
    """

    async def story():
        store = Store(budget=budget)
        hub = store.hub(linger_s=60)
        audience = Audience(hub, store)
        await audience.begin()
        for step in steps:
            await audience.step(step)
        await audience.end()
        await hub.close()

    asyncio.run(story())


# --- the link of an event stream


def test_a_stream_that_is_not_read_is_closed(run):
    """A body that nobody takes holds a bounded number of bytes, and at its end why it ended."""

    async def story():
        link = StreamLink()
        seat = Seat(link, Format.STREAM, member=Who("ann"), outbox_bytes_max=1000)
        seat.send_frame(b"x" * 900)
        seat.send_frame(b"x" * 900)
        why = b'event: closed\ndata: {"code":4001}\n\n'
        assert (link.closed, link.buffered) == (True, len(why))
        assert [frame async for frame in link] == [why]

    run(story())


def test_a_large_answer_is_no_licence_to_buffer(run):
    """An answer of any size may wait; beside it the limit is what it was, and drained it is gone."""

    async def story():
        link = StreamLink()
        seat = Seat(link, Format.STREAM, member=Who("ann"), outbox_bytes_max=HIGH_WATER + 1000)
        seat.answer(b"x" * HIGH_WATER * 10)
        seat.send_frame(b"x" * HIGH_WATER)
        assert not link.closed
        frames = aiter(link)
        for _ in range(2):
            await anext(frames)
        waiting = asyncio.ensure_future(anext(frames))
        await asyncio.sleep(0)
        assert (link.paused, link.buffered) == (False, 0)
        seat.send_frame(b"x" * HIGH_WATER)
        assert not link.closed
        seat.send_frame(b"x" * 1001)
        assert link.closed
        waiting.cancel()

    run(story())


def test_one_large_event_is_no_slow_viewer(run):
    """A shelf of any size may wait, told to all or to one; beside it the limit is what it was."""
    assert FRAME_BYTES_USUAL == FRAME_BYTES_MAX + CHAT_FRAME_BYTES_MAX + STATE_FRAME_BYTES_MAX

    async def story():
        large = b"x" * 3 * OUTBOX_BYTES_MAX
        for tell in (Seat.send_frame, lambda seat, frame: seat.send_rest(frame, -1)):
            link = StreamLink()
            seat = Seat(link, Format.STREAM, member=Who("ann"))
            tell(seat, large)
            seat.send_frame(b"x" * (OUTBOX_BYTES_MAX - FRAME_BYTES_USUAL))
            assert not link.closed
            seat.send_frame(b"x")
            assert link.closed

    run(story())


def test_a_stream_pauses_and_resumes_like_a_socket(run):
    """Water marks hold for event streams too."""

    async def story():
        store = Store()
        hub = store.hub()
        link = StreamLink()
        await hub.join(
            "r1",
            Seat(link, Format.STREAM, member=Who("ann")),
            re=0,
            since=None,
            you={},
            own=lambda: asyncio.sleep(0, {}),
        )
        link.write_frame(b"x" * 70_000)
        assert link.paused
        hub.deliver("r1", "e1", [store.notice("later")])
        got = []
        async for frame in link:
            got.append(frame)
            if b"later" in frame:
                break
        assert len(got) == 3
        assert not link.paused
        link.close(4000)
        await hub.close()

    run(story())

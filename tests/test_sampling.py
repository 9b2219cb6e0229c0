"""What viewers are told of the chat they are not shown, on a clock that only moves when all is done."""

from __future__ import annotations

import asyncio
import selectors
from itertools import pairwise
from typing import Any, Final

from tape import Store, Tape, Who

from liveroom.events import Event
from liveroom.wire.lanes import CHAT_WAITING_MAX, STATE_WAIT_S
from liveroom.wire.live import Counts, LiveRoom
from liveroom.wire.outbox import Seat
from liveroom.wire.sampling import SAMPLED_EVERY_S

BUDGET = 2
POSTED_PER_S = 10


class Skipping(selectors.DefaultSelector):  # type: ignore[misc, valid-type]
    """Waits for nothing: it moves the time on by as long as it was to wait, and a turn's time."""

    TURN_S: Final = 1e-6
    now_s = 0.0

    def select(self, timeout: float | None = None) -> Any:
        assert timeout is not None, "nothing is left to be done"
        self.now_s += timeout + self.TURN_S
        return super().select(0)


class SkippingLoop(asyncio.SelectorEventLoop):
    """An event loop whose timers come in their order and at their time, and at once."""

    def __init__(self) -> None:
        self._skipping = Skipping()
        super().__init__(self._skipping)

    def time(self) -> float:
        return self._skipping.now_s


class Told(Tape):
    """A viewer, who knows when it was told what."""

    def __init__(self) -> None:
        super().__init__()
        self.at_s: list[float] = []

    def write(self, frame: bytes, taken: int = 0) -> None:
        super().write(frame, taken)
        self.at_s.append(asyncio.get_running_loop().time())

    write_frame = write

    def sampled(self) -> list[tuple[float, int, int]]:
        """When it was told that chat is sampled, and how many of how many were shown."""
        told = []
        for at_s, frame in zip(self.at_s, self.frames, strict=True):
            only = Tape()
            only.frames = [frame]
            told += [
                (at_s, one["data"]["shown"], one["data"]["posted"])
                for one in only.events
                if one["ev"] == "chat.sampled"
            ]
        return told


def a_room(loop: asyncio.AbstractEventLoop, picture: Any) -> LiveRoom:
    """A live room on the loop's own clock."""
    return LiveRoom(
        "r1",
        picture,
        loop=loop,
        counts=Counts(),
        now_ms=lambda: 0,
        tick_max_s=0.4,
        ring_max=10,
        ring_bytes_max=1000,
        clock=loop.time,
    )


def flooded(seconds: int, *, quiet_s: float, budget: int = BUDGET, shown: int = 0) -> Told:
    """A viewer of a room in which ten people talk at once for so long, and then nobody.

    Before that so many messages were shown, all there were.
    """

    async def story() -> Told:
        loop, store = asyncio.get_running_loop(), Store(budget=budget)
        picture = await store.picture("r1")
        live = a_room(loop, picture)
        ann = Told()
        live.sit(Seat(ann, ann.format, member=Who("ann")), 0)
        picture.chat_per_s_max = 0
        for number in range(shown):
            live.take(store.says(f"m{number % 10}"))
            live.beat()
            await asyncio.sleep(1 / POSTED_PER_S)
        picture.chat_per_s_max = budget
        for number in range(seconds * POSTED_PER_S):
            live.take(store.says(f"m{number % 10}"))
            live.beat()
            await asyncio.sleep(1 / POSTED_PER_S)
        await asyncio.sleep(quiet_s)
        live.close()
        return ann

    with asyncio.Runner(loop_factory=SkippingLoop) as runner:
        return runner.run(story())


def test_state_does_not_ride_on_chat_that_viewers_are_not_shown():
    """What only the crew is shown gives viewers no frame: stock goes with theirs, or when due."""

    async def story() -> Told:
        loop, store = asyncio.get_running_loop(), Store(budget=1)
        live = a_room(loop, await store.picture("r1"))
        ann, host = Told(), Told()
        live.sit(Seat(ann, ann.format, member=Who("ann")), 0)
        live.sit(Seat(host, host.format, member=Who("host"), crew=True), 0)
        for number in range(1000):
            live.take(store.says(f"m{number % 10}"))
            live.take(Event("stock.changed", {"sku": "s1", "left": number, "v": number}, 0))
            live.beat()
            await asyncio.sleep(0.01)
        await asyncio.sleep(STATE_WAIT_S * 2)
        live.close()
        assert len(host.ns) == 1000
        for told in (ann, host):
            lefts = [one["data"]["left"] for one in told.events if one["ev"] == "stock.changed"]
            assert lefts == sorted(lefts)
            assert lefts[-1] == 999
        return ann

    with asyncio.Runner(loop_factory=SkippingLoop) as runner:
        ann = runner.run(story())
    chat = {at_s for at_s, frame in zip(ann.at_s, ann.frames, strict=True) if b"message" in frame}
    between = [after - before for before, after in pairwise(ann.at_s) if after not in chat]
    assert 10 <= len(chat) <= 12
    assert len(between) >= 40
    assert min(between) >= STATE_WAIT_S * 0.99


def test_what_a_flood_without_a_budget_pushes_out_is_told():
    """All is shown, as much as frames hold; of what waits too long the oldest are left out."""

    async def story() -> Told:
        loop, store = asyncio.get_running_loop(), Store(budget=0)
        live = a_room(loop, await store.picture("r1"))
        ann = Told()
        live.sit(Seat(ann, ann.format, member=Who("ann")), 0)
        for number in range(2 * CHAT_WAITING_MAX):
            live.take(store.says(f"m{number % 10}"))
        live.beat()
        await asyncio.sleep(10)
        live.close()
        return ann

    with asyncio.Runner(loop_factory=SkippingLoop) as runner:
        ann = runner.run(story())
    assert len(ann.ns) == CHAT_WAITING_MAX
    told = ann.sampled()
    assert sum(posted - shown for _, shown, posted in told) == CHAT_WAITING_MAX


def test_while_chat_is_sampled_it_is_said_once_a_second():
    """Not more often, and at most the wait of state later, for as long as messages are left out."""
    times = [at_s for at_s, _, _ in flooded(20, quiet_s=0).sampled()]
    assert len(times) >= 15
    for before, after in pairwise(times):
        assert after - before >= SAMPLED_EVERY_S - STATE_WAIT_S
        assert after - before <= SAMPLED_EVERY_S + 2 * STATE_WAIT_S


def test_what_is_told_adds_up_to_what_was_said_and_seen():
    """Each message is counted once as posted; as shown those that this viewer saw."""
    ann = flooded(20, quiet_s=10)
    told = ann.sampled()
    assert all(0 <= shown < posted for _, shown, posted in told)
    assert all(shown <= 2 * BUDGET for _, shown, _ in told)
    # Those that came before the first was left out are no part of any sampling.
    assert 0 <= 20 * POSTED_PER_S - sum(posted for _, _, posted in told) <= BUDGET
    assert len(ann.ns) - 2 * BUDGET <= sum(shown for _, shown, _ in told) <= len(ann.ns)


def test_what_was_shown_before_is_not_told_as_sampled():
    """A room that had no budget, and is given one: the first count is of a second, as all are."""
    (_, shown, posted), *_ = flooded(5, quiet_s=5, shown=100).sampled()
    assert shown <= 2 * BUDGET
    assert posted <= 2 * POSTED_PER_S


def test_nothing_is_said_of_sampling_where_all_is_shown():
    """Without a budget, or below it, there is nothing to tell; and it ends with the flood."""
    assert flooded(5, quiet_s=5, budget=0).sampled() == []
    assert flooded(5, quiet_s=5, budget=POSTED_PER_S).sampled() == []
    assert flooded(5, quiet_s=60).sampled()[-1][0] <= 5 + SAMPLED_EVERY_S + 2 * STATE_WAIT_S

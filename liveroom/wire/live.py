"""One room on this node: its seats, its ring, its lanes, and the beat that joins them.

Rules: the picture, the ring's flushed end and every seat's position move together, when a
flush starts; a seat's position is where its own last frame ended; nothing here awaits.

A joiner stands at the flushed end. While it knows more already (its position, or a message
of its snapshot that still waits for the viewers), its frames are its own.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable
from time import monotonic
from typing import Any, Final, Protocol

from liveroom.events import Delivery, Event, Position
from liveroom.wire import codec
from liveroom.wire.codec import Fields, Format
from liveroom.wire.fanout import Flush, Job, Tick
from liveroom.wire.lanes import ChatLane, StateLane
from liveroom.wire.outbox import AWAY, POSITION_LOST, Seat
from liveroom.wire.ring import Encoded, Ring, fit
from liveroom.wire.sampling import Sampling

log = logging.getLogger("liveroom.hub")

FRAME_BYTES_MAX: Final = 64 * 1024
CATCH_UP_MAX: Final = 50
"""How many logged events one frame of a catch-up holds at most."""


class Picture(Protocol):
    """A room folded from its events, as a joiner is shown it.

    `apply` takes events in order and must leave older state (`v`) alone; `seq` moves also where
    it raises. `n` is the last message folded in (0: none).
    """

    @property
    def epoch(self) -> str:
        """The epoch of the log it was folded from."""

    @property
    def seq(self) -> int:
        """The last logged event folded in."""

    @property
    def n(self) -> int:
        """The last message folded in."""

    @property
    def chat_per_s_max(self) -> int:
        """The room's chat budget; 0 shows all."""

    def apply(self, event: Event) -> None:
        """Fold one event in."""

    def snapshot(self) -> dict[str, Any]:
        """What a `snapshot` answer holds, without what is the member's own."""

    def now(self) -> dict[str, Any]:
        """What a `resumed` answer holds as `now`, without what is the member's own."""


class Counts:
    """What the hub has done since it started, read by the metrics at scrape."""

    def __init__(self) -> None:
        self.flushes = 0
        self.frames_written = 0
        self.events_delivered = 0
        self.paused = 0
        self.caught_up = 0
        self.positions_lost = 0
        self.gaps = 0
        self.resets = 0
        self.resumed = 0
        self.snapshots = 0


class LiveRoom:
    """A room that has a seat on this node, from the moment its picture is here."""

    def __init__(
        self,
        room: str,
        picture: Picture,
        *,
        loop: asyncio.AbstractEventLoop,
        counts: Counts,
        now_ms: Callable[[], int],
        tick_max_s: float,
        ring_max: int,
        ring_bytes_max: int,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.room = room
        self.picture = picture
        self.epoch = picture.epoch
        self.ring = Ring(picture.seq, events_max=ring_max, bytes_max=ring_bytes_max)
        self.flushed = picture.seq
        self.n = picture.n
        self.seats: dict[Seat, None] = {}
        self.closed = False
        self._n_flushed = picture.n
        self._before = picture.seq
        self._mark = 0
        self._mark_before = 0
        self._beat = 0
        self._fast: dict[tuple[Format, bool], dict[Seat, None]] = defaultdict(dict)
        self._fresh: dict[Seat, None] = {}
        self._moving: dict[Seat, bool] = {}
        self._waiting: list[Encoded] = []
        self._chat = ChatLane()
        self._sampling = Sampling(loop, self._chat, self._tell_sampled)
        self._state = StateLane()
        self._tick = Tick(tick_max_s)
        self._loop = loop
        self._counts = counts
        self._now_ms = now_ms
        self._clock = clock
        self._flush: Flush | None = None
        self._began_s = 0.0
        self._shown_s = float("-inf")
        self._wake: asyncio.TimerHandle | None = None
        self._wake_s = 0.0
        self._cached: dict[tuple[str, Format], Fields] = {}

    @property
    def position(self) -> Position:
        """The last logged event received here, flushed or not."""
        return Position(self.epoch, self.ring.last)

    def follows(self, epoch: str) -> bool:
        """Whether events of this epoch continue this room; a room without a log takes any."""
        if not self.epoch and self.ring.last == 0:
            self.epoch = epoch
        return self.epoch == epoch

    def take(self, event: Event) -> bool:
        """Take one event; False when a logged one does not follow the last (a gap)."""
        delivery = event.delivery
        if delivery is Delivery.LOGGED:
            return self._take_logged(event)
        if delivery is Delivery.CHAT:
            self._take_chat(event)
        elif delivery is Delivery.STATE:
            self._state.put(Encoded(event))
        return True

    def _take_logged(self, event: Event) -> bool:
        seq = event.seq or 0
        if seq != self.ring.last + 1:
            return seq <= self.ring.last
        encoded = Encoded(event)
        self.ring.append(encoded)
        self._waiting.append(encoded)
        if event.name == "message.removed":
            self._chat.remove(event.data["message"])
        return True

    def _take_chat(self, event: Event) -> None:
        n = event.n or 0
        if n > self.n:
            self.n = n
            self._chat.add(Encoded(event))

    def beat(self) -> None:
        """Flush now if the tick allows it, else at the time it will."""
        if self._flush is not None or self.closed:
            return
        now_s = self._clock()
        due_s = self._due_s(now_s)
        if self._wake is not None:
            if due_s is not None and self._wake_s <= due_s:
                return
            self._wake.cancel()
            self._wake = None
        if due_s is None:
            return
        if due_s <= now_s:
            self._start(now_s)
        else:
            self._wake_s = due_s
            self._wake = self._loop.call_later(due_s - now_s, self._woken)

    def _woken(self) -> None:
        self._wake = None
        self.beat()

    def _due_s(self, now_s: float) -> float | None:
        """When the next flush may start; None while nothing waits for one."""
        due: list[float] = []
        if self._waiting or self._chat.crew_waiting:
            due.append(now_s)
        chat_s = self._chat.ready_in_s(self.picture.chat_per_s_max, now_s)
        if chat_s is not None:
            due.append(now_s + chat_s)
        state_s = self._state_due_s()
        if state_s is not None:
            due.append(state_s)
        return max(min(due), self._tick.ready_s) if due else None

    def _state_due_s(self) -> float | None:
        """When waiting state starts a flush of its own; None while none waits."""
        wait_s = self._state.wait_s()
        return None if wait_s is None else self._shown_s + wait_s

    def _start(self, now_s: float) -> None:
        """Fix what this beat carries and who gets it, and write the first slice."""
        logged = self._next_logged()
        crew, viewers = self._chat.take(self.picture.chat_per_s_max, now_s)
        state = self._next_state(now_s, has_company=bool(viewers or logged))
        for encoded in (*crew, *logged, *state):
            self._fold(encoded.event)
        self._cached.clear()
        self._before = self.flushed
        if logged:
            self.flushed = logged[-1].event.seq or self.flushed
        if crew:
            self._n_flushed = crew[-1].event.n or self._n_flushed
        self._sampling.watch(has_budget=self.picture.chat_per_s_max > 0)
        self._beat += 1
        jobs = self._jobs((viewers + logged, crew + logged), state)
        self._began_s = now_s
        self._flush = Flush(self._loop, jobs, self._beat, self._flushed, clock=self._clock)
        self._flush.start()

    def _fold(self, event: Event) -> None:
        """Fold an event into the picture; one that this node cannot read is told all the same.

        A newer node may have logged it, and to drop the flush would be a gap that nobody sees.
        The picture stays without it: until a later event says the same thing anew, or the room
        is read from the store again, whoever joins here is shown what was before, while those
        who were here have the event itself.
        """
        try:
            self.picture.apply(event)
        except Exception:
            log.exception("room %s is shown without %s (seq %s)", self.room, event.name, event.seq)

    def _next_logged(self) -> list[Encoded]:
        """The logged events of this beat: a bounded frame, so that a viewer's buffer is too."""
        count = fit(self._waiting, FRAME_BYTES_MAX)
        logged, self._waiting = self._waiting[:count], self._waiting[count:]
        return logged

    def _next_state(self, now_s: float, *, has_company: bool) -> list[Encoded]:
        """The state of this beat: none where viewers would get a frame for it before it is due.

        A beat that shows chat to the crew alone is such a one, and comes as often as anybody
        talks.
        """
        self._mark_before = self._mark
        due_s = self._state_due_s()
        if not has_company and (due_s is None or now_s < due_s):
            return []
        self._mark = self._state.mark
        self._shown_s = now_s
        return self._state.take()

    def _jobs(self, shown: tuple[list[Encoded], list[Encoded]], state: list[Encoded]) -> list[Job]:
        jobs: list[Job] = []
        for (fmt, crew), seats in self._fast.items():
            items = shown[crew] + state
            if items and seats:
                jobs.append(Job(_frame(items, fmt), list(seats)))
                self._counts.events_delivered += len(items) * len(seats)
        fresh, self._fresh = self._fresh, {}
        for seat in fresh:
            own = [item for item in shown[seat.crew] if _is_new(item, seat)] + state
            if own:
                jobs.append(Job(_frame(own, seat.format), [seat]))
                self._counts.events_delivered += len(own)
            self._enter(seat, self._beat - 1)
        return jobs

    def _flushed(self) -> None:
        if self._flush is not None:
            self._counts.flushes += 1
            self._counts.frames_written += self._flush.writes
        self._flush = None
        moving, self._moving = self._moving, {}
        for seat, crew in moving.items():
            self.set_audience(seat, crew=crew)
        self._tick.flushed(self._began_s, self._clock())
        self.beat()

    # --- seats

    def sit(self, seat: Seat, seq: int) -> None:
        """Give a joiner live events from position `seq` on.

        What follows it up to the flushed end is sent first, as the seat takes it.
        """
        seat.live = self
        seat.seq = seq
        seat.n = self._n_flushed
        seat.mark = self._mark
        self.seats[seat] = None
        if seat.link.paused:
            return
        if seq < self.flushed:
            self.resume(seat)
        else:
            self._enter(seat, self._beat)

    def stand(self, seat: Seat) -> None:
        """Take a seat away; nothing is written to it any more."""
        seat.live = None
        self.seats.pop(seat, None)
        self._moving.pop(seat, None)
        self._exit(seat)

    def set_audience(self, seat: Seat, *, crew: bool) -> None:
        """Show a seat all chat from now on, or the sample: no message twice, none left out.

        What still waits for the viewers was told to the crew before: one who comes to the crew
        is told it now, as much as a frame holds; one who leaves it is not told it again.
        """
        if self._flush is not None:  # its frame of this flush may be on its way: after that
            self._moving[seat] = crew
            return
        if crew == seat.crew:
            return
        beat, had = seat.beat, seat.n
        self._exit(seat)
        seat.crew, seat.n = crew, max(had, self._n_flushed)
        if beat == AWAY:  # chat is not kept for a slow one
            return
        self._enter(seat, beat)
        missed = self._chat.waiting(had, self._n_flushed) if crew else []
        del missed[fit(missed, FRAME_BYTES_MAX) :]
        if missed:
            seat.send([one.to(seat.format) for one in missed])

    def pause(self, seat: Seat) -> None:
        """A seat is slow: flushes pass it over, and it stays where its last frame ended."""
        if seat.beat == AWAY:
            return
        seat.seq = max(seat.seq, self.flushed if seat.beat == self._beat else self._before)
        seat.mark = self._mark_before
        self._exit(seat)
        self._counts.paused += 1

    def resume(self, seat: Seat) -> None:
        """A seat has drained: send what it missed, frame by frame, and let it back in."""
        if seat.beat == AWAY and self._tell_missed(seat) and self._tell_newer(seat):
            self._counts.caught_up += 1
            self._enter(seat, self._beat)

    def _tell_missed(self, seat: Seat) -> bool:
        """Send the logged events that a seat lacks; False while it cannot take them all."""
        while seat.seq < self.flushed:
            if not self.ring.holds(seat.seq):
                self._counts.positions_lost += 1
                seat.link.close(POSITION_LOST)
                return False
            until = min(self.flushed, seat.seq + CATCH_UP_MAX)
            missed = self.ring.after(seat.seq, until=until)
            del missed[fit(missed, FRAME_BYTES_MAX) :]
            seat.seq += len(missed)
            seat.send([one.to(seat.format) for one in missed])
            if seat.closed or seat.link.paused:
                return False
        return True

    def _tell_newer(self, seat: Seat) -> bool:
        """Send the state that changed since a seat's mark; False while it cannot take it all."""
        while newer := self._state.since(seat.mark):
            del newer[fit([state for _, state in newer], FRAME_BYTES_MAX) :]
            seat.mark = newer[-1][0]
            told = [state for _, state in newer if state.event.name != "chat.sampled"]
            if told:
                seat.send([state.to(seat.format) for state in told])
            if seat.closed or seat.link.paused:
                return False
        return True

    def _enter(self, seat: Seat, beat: int) -> None:
        """Let a seat that has had `beat` have every later one: a frame of its own, or all's."""
        seat.beat = beat
        oldest = None if seat.crew else self._chat.oldest_n
        if seat.seq > self.flushed or (oldest is not None and oldest <= seat.n):
            self._fresh[seat] = None
        else:
            self._fast[seat.format, seat.crew][seat] = None

    def _exit(self, seat: Seat) -> None:
        seat.beat = AWAY
        self._fresh.pop(seat, None)
        self._fast[seat.format, seat.crew].pop(seat, None)

    # --- what a joiner is told

    def common(self, part: str, fmt: Format) -> Fields:
        """The picture's `snapshot` or `now` at the flushed end, encoded once for everyone."""
        known = self._cached.get((part, fmt))
        if known is None:
            plain = self.picture.snapshot() if part == "snapshot" else self.picture.now()
            known = self._cached[part, fmt] = codec.fields(plain, fmt)
        return known

    # --- sampling and the end

    def _tell_sampled(self, shown: int, posted: int) -> None:
        data = {"shown": shown, "posted": posted}
        self._state.put(Encoded(Event("chat.sampled", data, self._now_ms())))
        self.beat()

    def close(self) -> None:
        """End the beat; the seats are the hub's to close."""
        self.closed = True
        self._sampling.close()
        if self._wake is not None:
            self._wake.cancel()


def _is_new(item: Encoded, seat: Seat) -> bool:
    event = item.event
    return (event.seq or 0) > seat.seq if event.n is None else event.n > seat.n


def _frame(items: list[Encoded], fmt: Format) -> bytes:
    return codec.frame(codec.join([item.to(fmt) for item in items], fmt), fmt)

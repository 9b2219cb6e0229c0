"""The hub: every room that has a viewer on this node, and every seat in it.

Rules: a room is opened once however many wait for it; a seat's answer is written before its
first live event, without a wait between; what does not follow is asked of the log, and what
the log cannot tell closes the room's viewers with 4002, so that no gap is silent.

The hub is handed functions for all it needs; it knows neither stores nor services.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

from liveroom.clock import Clock
from liveroom.errors import LiveroomError, Unavailable
from liveroom.events import Delivery, Event, Position
from liveroom.wire import codec
from liveroom.wire.codec import Format
from liveroom.wire.fanout import TICK_MAX_S, close_all
from liveroom.wire.joining import Missed, join_ok
from liveroom.wire.live import Counts, LiveRoom, Picture
from liveroom.wire.outbox import POSITION_LOST, REPLACED, Seat
from liveroom.wire.repair import NO_LOG, ReadLog, ReadPositions, Repairs
from liveroom.wire.returning import Returning
from liveroom.wire.session import UNAUTHENTICATED

log = logging.getLogger("liveroom.hub")

EARLY_MAX: Final = 2000
LINGER_S: Final = 10.0
CHECK_EVERY_S: Final = 2.0

Own = Callable[[], Awaitable[Mapping[str, Any]]]


class _Opening:
    """A room on its way: those who wait for it, and what arrived meanwhile."""

    def __init__(self, task: asyncio.Task[LiveRoom]) -> None:
        self.task = task
        self.early: deque[tuple[str | None, Event]] = deque(maxlen=EARLY_MAX)


class Hub:
    """Carries events to seats, and seats into rooms.

    Args:
        log: The next logged events after a position, at most so many and none only at the
            end; None when they are not all there, the epoch is another, or the position is
            ahead of the log.
        picture: The room as a joiner sees it, folded at its own `epoch` and `seq`.
        positions: Where the logs of these rooms are now; rooms without a log are left out.
        subscribe: Called before a room's picture is read; batches arrive from then on.
        unsubscribe: Called once a room has had no seat for a while.
        clock: The server's time, for `time_ms` and for what the hub says by itself.
        node: This node's name, told to joiners.
        member_seats_max: Seats of one member on this node; beyond it the oldest is closed
            4504. 0 means no limit.
    """

    def __init__(
        self,
        *,
        log: ReadLog,
        picture: Callable[[str], Awaitable[Picture]],
        positions: ReadPositions,
        subscribe: Callable[[str], Awaitable[None]],
        unsubscribe: Callable[[str], Awaitable[None]],
        clock: Clock,
        node: str = "",
        tick_max_s: float = TICK_MAX_S,
        ring_max: int = 2000,
        ring_bytes_max: int = 4 * 1024 * 1024,
        member_seats_max: int = 0,
        linger_s: float = LINGER_S,
    ) -> None:
        self.counts = Counts()
        self._picture = picture
        self._positions = positions
        self._subscribe = subscribe
        self._unsubscribe = unsubscribe
        self._clock = clock
        self._node = node
        self._tick_max_s = tick_max_s
        self._ring_max = ring_max
        self._ring_bytes_max = ring_bytes_max
        self._member_seats_max = member_seats_max
        self._linger_s = linger_s
        self._rooms: dict[str, LiveRoom] = {}
        self._opening: dict[str, _Opening] = {}
        self._members: dict[str, tuple[Seat, ...]] = {}
        self._repairs = Repairs(log=log, positions=positions, live=self._rooms.get, lose=self._lose)
        self._returning = Returning(log=log, spawn=self._spawn, ring_bytes_max=ring_bytes_max)
        self._lingering: dict[str, asyncio.TimerHandle] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closed = False

    # --- joining and leaving

    async def join(
        self, room: str, seat: Seat, *, re: int, since: Position | None, you: Any, own: Own
    ) -> str:
        """Answer room.join `re` on this seat and let it into the room.

        Writes the reply itself, so that live events follow it without gap or repeat, and
        returns its mode, `resumed` or `snapshot`. `you` is told as it is; `own()` gives what
        is the member's alone, which is added to the snapshot or to `now`. Direct events from
        here on wait behind the answer. Raises what `picture`, `log` or `own` raise; the seat
        is then in no room and may join again.
        """
        self._seat_member(seat)
        try:
            mine = await own()
            live, missed = await self._find(room, since)
        except BaseException:
            self.leave(seat)
            raise
        seq = live.flushed if missed.events is None else missed.seq
        head = {
            "you": you,
            "epoch": live.epoch,
            "seq": seq,
            "time_ms": self._clock.now_ms(),
            "node": self._node,
            "mode": missed.mode,
        }
        ok = join_ok(head, live, mine, missed, seat.format)
        seat.answer(codec.reply_encoded(re, ok, seat.format))
        early, seat.early = seat.early or [], None
        for frame in early:
            seat.send_frame(frame)
        if seat.closed:
            self.leave(seat)
            return "closed"
        self._cancel_linger(room)
        live.sit(seat, seq)
        self.counts.resumed += missed.events is not None
        self.counts.snapshots += missed.events is None
        return missed.mode

    async def _find(self, room: str, since: Position | None) -> tuple[LiveRoom, Missed]:
        """The live room and what a returner lacks; nothing moves between the two and a reply."""
        for _ in range(3):
            live = await self._open(room)
            missed = await self._returning.missed(live, since)
            if missed is not None and self._rooms.get(room) is live:
                return live, missed
        raise Unavailable("overloaded")

    def leave(self, seat: Seat) -> None:
        """Take a seat out of its room and its member's list; harmless when it is in none."""
        live = seat.live
        if live is not None:
            live.stand(seat)
            if not live.seats and self._rooms.get(live.room) is live:
                self._linger(live.room)
        seat.early = None
        seat.on_leave = None
        left = tuple(one for one in self._members.get(seat.member.id, ()) if one is not seat)
        if left:
            self._members[seat.member.id] = left
        else:
            self._members.pop(seat.member.id, None)

    def turn_out(self, room: str, who: Callable[[Any], bool]) -> None:
        """Close 4501 a room's seats whose member `who` names; from now on they hear nothing."""
        live = self._rooms.get(room)
        seats = [seat for seat in live.seats if who(seat.member)] if live is not None else []
        for seat in seats:
            self.leave(seat)
        if seats:
            self._spawn(close_all(seats, UNAUTHENTICATED))

    def _seat_member(self, seat: Seat) -> None:
        others = self._members.get(seat.member.id, ())
        seat.on_leave = self.leave
        seat.early = []
        self._members[seat.member.id] = (*others, seat)
        if self._member_seats_max and len(others) >= self._member_seats_max:
            others[0].link.close(REPLACED)

    # --- rooms

    async def _open(self, room: str) -> LiveRoom:
        live = self._rooms.get(room)
        if live is not None:
            return live
        self._refuse_if_closed()
        opening = self._opening.get(room)
        if opening is None:
            opening = self._opening[room] = _Opening(self._spawn(self._load(room)))
        return await asyncio.shield(opening.task)

    async def _load(self, room: str) -> LiveRoom:
        try:
            picture = await self._subscribed_picture(room)
        except BaseException:
            self._opening.pop(room, None)
            raise
        live = LiveRoom(
            room,
            picture,
            loop=asyncio.get_running_loop(),
            counts=self.counts,
            now_ms=self._clock.now_ms,
            tick_max_s=self._tick_max_s,
            ring_max=self._ring_max,
            ring_bytes_max=self._ring_bytes_max,
        )
        opening = self._opening.pop(room)
        self._rooms[room] = live
        self._linger(room)
        for epoch, event in opening.early:
            self._take(live, live.epoch if epoch is None else epoch, [event])
        live.beat()
        return live

    async def _subscribed_picture(self, room: str) -> Picture:
        await self._subscribe(room)
        try:
            picture = await self._picture(room)
            self._refuse_if_closed()
        except BaseException:
            self._spawn(self._unsubscribe(room))
            raise
        return picture

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise Unavailable("shutting_down")

    def _linger(self, room: str) -> None:
        loop = asyncio.get_running_loop()
        self._cancel_linger(room)
        self._lingering[room] = loop.call_later(self._linger_s, self._forget, room)

    def _cancel_linger(self, room: str) -> None:
        timer = self._lingering.pop(room, None)
        if timer is not None:
            timer.cancel()

    def _forget(self, room: str) -> None:
        """A room without seats for a while is kept here no longer."""
        self._lingering.pop(room, None)
        live = self._rooms.get(room)
        if live is not None and not live.seats:
            self._drop(live)

    def _drop(self, live: LiveRoom) -> None:
        del self._rooms[live.room]
        self._cancel_linger(live.room)
        live.close()
        self._repairs.stop(live)
        self._spawn(self._unsubscribe(live.room))

    def rooms(self) -> list[str]:
        """The rooms that are live on this node."""
        return list(self._rooms)

    def viewers(self, room: str) -> int:
        """How many seats this room has on this node."""
        live = self._rooms.get(room)
        return len(live.seats) if live is not None else 0

    def picture(self, room: str) -> Picture | None:
        """The room as this node has it, at its flushed position; None when it is not live."""
        live = self._rooms.get(room)
        return live.picture if live is not None else None

    # --- events

    def deliver(self, room: str, epoch: str, events: Sequence[Event]) -> None:
        """Take a batch from the backplane, in the order it was published."""
        live = self._rooms.get(room)
        if live is not None:
            self._take(live, epoch, events)
            live.beat()
            return
        opening = self._opening.get(room)
        if opening is not None:
            opening.early.extend((epoch, event) for event in events)

    def _take(self, live: LiveRoom, epoch: str, events: Sequence[Event]) -> None:
        if not live.follows(epoch):
            self._repairs.start(live)
            return
        for event in events:
            if event.delivery is Delivery.DIRECT:
                self.direct(event)
            elif not live.take(event):
                self.counts.gaps += 1
                self._repairs.start(live)

    def state(self, room: str, event: Event) -> None:
        """Take a state event that did not come through the room's own channel."""
        live = self._rooms.get(room)
        if live is not None:
            live.take(event)
            live.beat()
            return
        opening = self._opening.get(room)
        if opening is not None:
            opening.early.append((None, event))

    def is_seated(self, member: str) -> bool:
        """Whether the member has a seat on this node."""
        return member in self._members

    def direct(self, event: Event) -> None:
        """Send a direct event to its member's seats on this node, at once."""
        frames: dict[Format, bytes] = {}
        for seat in self._members.get(event.to or "", ()):
            fmt = seat.format
            if fmt not in frames:
                frames[fmt] = codec.frame(
                    codec.join([codec.encode(event.on_wire(), fmt)], fmt), fmt
                )
            seat.direct(frames[fmt])

    # --- gaps

    def reset(self) -> None:
        """The subscription was cut: compare every room with its log, once the store answers."""
        self._spawn(self._check_all())

    async def _check_all(self) -> None:
        try:
            await self.check()
        except LiveroomError as error:
            log.warning("positions cannot be compared: %s", error)
            for live in list(self._rooms.values()):
                self._repairs.start(live)

    async def check(self) -> None:
        """Compare every live room's position with its log's, in one call.

        Call it every `CHECK_EVERY_S`: a lost message is found, not waited for. Raises what
        `positions` raises.
        """
        before = {room: live.position for room, live in self._rooms.items()}
        if not before:
            return
        now = await self._positions(list(before))
        for room, had in before.items():
            live, found = self._rooms.get(room), now.get(room, NO_LOG)
            if live is None or live.epoch != had.epoch:
                continue
            if found.epoch != had.epoch or not had.seq <= found.seq <= live.ring.last:
                self._repairs.start(live)

    def _lose(self, live: LiveRoom) -> None:
        """The log is another one: every viewer returns for a snapshot, spread over time."""
        if self._rooms.get(live.room) is not live:
            return
        self.counts.resets += 1
        log.warning("the log of room %s is another one; its viewers return", live.room)
        self._drop(live)
        self._spawn(close_all(list(live.seats), POSITION_LOST))

    # --- tasks

    def _spawn(self, work: Awaitable[Any]) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._spawned)
        return task

    def _spawned(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            level = logging.WARNING if isinstance(error, LiveroomError) else logging.ERROR
            log.log(level, "hub: %s", error, exc_info=error if level == logging.ERROR else None)

    async def close(self) -> None:
        """End every task and timer and forget every room; the connections are closed elsewhere."""
        self._closed = True
        await self._repairs.close()
        for live in list(self._rooms.values()):
            for seat in list(live.seats):
                self.leave(seat)
            self._drop(live)
        # More than once: a room that was being opened unsubscribes when that has failed.
        while waiting := [task for task in self._tasks if task is not asyncio.current_task()]:
            _, late = await asyncio.wait(waiting, timeout=2.0)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

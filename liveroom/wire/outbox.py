"""The outbox: one viewer's seat, and how its connection is written to.

Rules: nothing awaits, nothing is written after a close, and a seat leaves its room before
the close frame is written. Flow control rides on the transport's own pause and resume
callbacks; a seat that is past the hard limit is closed, never buffered for.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

from liveroom.errors import LiveroomError
from liveroom.wire import codec, direct
from liveroom.wire.codec import Format

if TYPE_CHECKING:
    from liveroom.wire.live import LiveRoom

SLOW_CONSUMER: Final = 4001
POSITION_LOST: Final = 4002
REPLACED: Final = 4504

AWAY: Final = 1 << 62
"""The beat of a seat that a flush passes over: it is behind, closed, or not in the room yet."""

HIGH_WATER: Final = 64 * 1024
LOW_WATER: Final = 16 * 1024
"""A link is slow above the one and has caught up below the other."""
OUTBOX_BYTES_MAX: Final = 256 * 1024
FRAME_BYTES_USUAL: Final = 160 * 1024
"""What a frame of the room holds at most, but for one event that is larger by itself."""


class Owner(Protocol):
    """Who is told how a link fares."""

    def on_pause(self) -> None:
        """The link's buffer is above the high-water mark."""

    def on_resume(self) -> None:
        """The link's buffer is below the low-water mark again."""

    def on_queue(self, descriptor: int) -> None:
        """Bytes wait in the link, or none do any more: its descriptor is another one."""

    def on_lost(self) -> None:
        """The link is about to be closed, or is gone. Told once, before any close frame."""


class Link(Protocol):
    """One connection that carries frames."""

    owner: Owner | None

    @property
    def buffered(self) -> int:
        """Bytes that wait in this process to be sent."""

    @property
    def paused(self) -> bool:
        """Whether the buffer is above its high-water mark."""

    @property
    def descriptor(self) -> int:
        """Where `direct.send` may send what is written next; `NOWHERE` while bytes wait here."""

    def write(self, data: bytes, taken: int = 0) -> None:
        """Send without asking whether the link is closing: a flush knows who is still there.

        Of these bytes the kernel has `taken` so many already.
        """

    def write_frame(self, frame: bytes) -> None:
        """Send a whole frame; dropped once the link is closing."""

    def close(self, code: int, reason: str = "") -> None:
        """Tell the owner, send a close frame, and end within 5 s. Repeating it is harmless.

        A code from 4000 to 4499 without a reason gets one with a random `after_ms`.
        """


class Conversation(Protocol):
    """Who hears what a connection's peer says."""

    async def take(self, message: str | bytes) -> None:
        """One message; the next one comes once this has returned."""

    def on_end(self) -> None:
        """The connection is closing or gone, and no message is being taken. Told once."""


class Line(Link, Protocol):
    """A link whose peer talks back."""

    def converse(self, conversation: Conversation) -> None:
        """Give it every message from now on, those that wait already first."""


class Member(Protocol):
    """Whose seat it is."""

    @property
    def id(self) -> str:
        """The member's id; guests have one of their own."""


class Seat:
    """One connection's seat in one room.

    `crew` seats see every chat message; the others see the room's sample. `member` is
    opaque here but for its id.
    """

    __slots__ = (
        "beat",
        "closed",
        "crew",
        "descriptor",
        "early",
        "excused_bytes",
        "format",
        "link",
        "live",
        "mark",
        "member",
        "n",
        "on_leave",
        "outbox_bytes_max",
        "seq",
    )

    def __init__(
        self,
        link: Link,
        fmt: Format,
        *,
        member: Member,
        crew: bool = False,
        outbox_bytes_max: int = OUTBOX_BYTES_MAX,
    ) -> None:
        self.link = link
        self.format = fmt
        self.member = member
        self.crew = crew
        self.outbox_bytes_max = outbox_bytes_max
        self.excused_bytes = 0
        self.closed = False
        self.live: LiveRoom | None = None
        self.on_leave: Callable[[Seat], None] | None = None
        self.beat = AWAY
        self.seq = 0
        self.n = 0
        self.mark = 0
        self.early: list[bytes] | None = None
        self.descriptor = link.descriptor
        link.owner = self

    def send_rest(self, frame: bytes, taken: int) -> None:
        """Send what the kernel has not taken of a flush's frame, of which it took so much."""
        self.link.write(frame, max(0, taken))
        if len(frame) > FRAME_BYTES_USUAL:
            self._excuse(len(frame) - FRAME_BYTES_USUAL)

    def send_frame(self, frame: bytes) -> None:
        """Send a frame that is this viewer's alone: a reply, a direct event, a catch-up.

        Closes the connection 4001 when more than `outbox_bytes_max` wait to be sent, not
        counting, until they have drained, the answer to its join and what a frame has that is
        larger than usual: a large shelf is no slow viewer.
        """
        if self.closed:
            return
        self.link.write_frame(frame)
        if len(frame) > FRAME_BYTES_USUAL:
            self._excuse(len(frame) - FRAME_BYTES_USUAL)
        if self.link.buffered > self.outbox_bytes_max + self.excused_bytes:
            self.link.close(SLOW_CONSUMER)

    def _excuse(self, size: int) -> None:
        """Let so many bytes wait beside the limit, until what waits now has drained."""
        if size > self.excused_bytes and self.link.paused:
            self.excused_bytes = size

    def answer(self, reply: bytes) -> None:
        """Send the answer to the join, whatever its size: a large room is not a slow viewer."""
        if self.closed:
            return
        self.link.write_frame(codec.frame(codec.join([reply], self.format), self.format))
        self._excuse(self.link.buffered)

    def send(self, parts: Sequence[bytes]) -> None:
        """Send encoded messages as one frame of this viewer's own."""
        self.send_frame(codec.frame(codec.join(parts, self.format), self.format))

    def direct(self, frame: bytes) -> None:
        """Send a direct event now, or behind the join's answer while that is being made."""
        if self.early is None:
            self.send_frame(frame)
        elif len(self.early) < 1000:
            self.early.append(frame)
        else:
            self.link.close(SLOW_CONSUMER)

    def reply_ok(self, re: int, ok: Any) -> None:
        """Answer command `re` with what it did."""
        self.send_frame(codec.reply_ok(re, ok, self.format))

    def reply_error(self, re: int | None, error: LiveroomError) -> None:
        """Answer command `re` with its refusal."""
        self.send_frame(codec.reply_error(re, error, self.format))

    def set_audience(self, *, crew: bool) -> None:
        """Show all chat from now on, or what the viewers are shown."""
        if self.live is not None:
            self.live.set_audience(self, crew=crew)

    def on_pause(self) -> None:
        """The link is slow: leave the fast set, keep the position."""
        if self.live is not None:
            self.live.pause(self)

    def on_resume(self) -> None:
        """The link has drained: catch up from the ring."""
        self.excused_bytes = 0
        if self.live is not None:
            self.live.resume(self)

    def on_queue(self, descriptor: int) -> None:
        """Send shared frames there from now on, or through the link."""
        self.descriptor = descriptor

    def on_lost(self) -> None:
        """Leave the room; nothing is written for this seat any more."""
        self.closed = True
        self.beat = AWAY
        self.descriptor = direct.NOWHERE
        if self.on_leave is not None:
            self.on_leave(self)


class StreamLink:
    """A link for an HTTP response that streams: frames wait here until the body takes them.

    Iterating yields frames until the link is closed. It has the water marks of a socket, so
    that what waits here is bounded by its seat and by its room, as it is there. `taken`
    counts the frames that the body took: while it stands still and some wait, nobody reads.
    """

    descriptor: Final = direct.NOWHERE

    def __init__(self) -> None:
        self.owner: Owner | None = None
        self.closed = False
        self.paused = False
        self.buffered = 0
        self.taken = 0
        self._frames: deque[bytes] = deque()
        self._ready = asyncio.Event()

    def write(self, data: bytes, taken: int = 0) -> None:
        """The same as `write_frame`: there is no faster way here."""
        self.write_frame(data[taken:])

    def write_frame(self, frame: bytes) -> None:
        """Queue a frame; dropped once the link is closed."""
        if self.closed:
            return
        self._frames.append(frame)
        self.buffered += len(frame)
        self._ready.set()
        if self.buffered > HIGH_WATER and not self.paused:
            self.paused = True
            if self.owner is not None:
                self.owner.on_pause()

    def close(self, code: int, reason: str = "") -> None:
        """End the stream; what waits is dropped, since the client resumes elsewhere.

        The last that is told is the code, and when to return where the reason has it.
        """
        if self.closed:
            return
        self.closed = True
        owner, self.owner = self.owner, None
        if owner is not None:
            owner.on_lost()
        self._frames.clear()
        last = codec.closed_event(code, reason)
        self._frames.append(last)
        self.buffered = len(last)
        self._ready.set()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            await self._ready.wait()
            while self._frames:
                frame = self._frames.popleft()
                self.buffered -= len(frame)
                self.taken += 1
                yield frame
                self._drained()
            if self.closed:
                return
            self._ready.clear()

    def _drained(self) -> None:
        if self.paused and self.buffered < LOW_WATER and self.owner is not None:
            self.paused = False
            self.owner.on_resume()

"""One WebSocket connection: bounded, without a task of its own, and a way for shared frames.

Rules: the viewer leaves its room before any close frame is written, on every path; nothing
is written after a close frame; a connection that must end is aborted when it does not end
by itself; reading is paused while writing is paused; between two messages nothing is kept
but this object, its parser and what the conversation keeps.

The application finds the connection in `scope["extensions"]["liveroom.link"]`, accepts, and
leaves a conversation there, which is given one message after another. A task runs while
there is one, and not a moment longer: most viewers only watch.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections import deque
from collections.abc import Callable
from typing import Any, Final, cast

from uvicorn.config import Config
from uvicorn.server import ServerState

from liveroom.metrics import counters
from liveroom.wire import direct
from liveroom.wire.codec import close_reason
from liveroom.wire.door import Door, Refusal
from liveroom.wire.frames import (
    INVALID_TEXT,
    Broken,
    Frames,
    Opcode,
    answer_to_close,
    close_frame,
    control_frame,
)
from liveroom.wire.http import RoomHttp, cut, say_last
from liveroom.wire.outbox import Conversation, Owner
from liveroom.wire.pulse import Pulse
from liveroom.wire.upgrade import Upgrade, refusal_answer

log = logging.getLogger("liveroom.wire")

MESSAGE_BYTES_MAX: Final = 64 * 1024
LINK: Final = "liveroom.link"

INTERNAL: Final = 1011
SHUTDOWN: Final = 4000
NO_PONG: Final = 4004

_RECEIVED_MAX: Final = 16
"""Messages that wait before the peer is read no more; one read may bring more than these."""
_TAKEN_LEAST: Final = 16 * 1024
"""A peer that takes so many waiting bytes between two pings is slow, not gone."""
_PING: Final = control_frame(Opcode.PING, b"here")


class RoomSocket(asyncio.Protocol):
    """One WebSocket connection, and the link through which frames are written to it.

    Any pong tells that the peer is there; it need not be the last ping's.
    """

    __slots__ = (
        "_address",
        "_config",
        "_connections",
        "_conversation",
        "_descriptor",
        "_door",
        "_frames",
        "_gone",
        "_handed",
        "_leaving",
        "_loop",
        "_open",
        "_place",
        "_queued",
        "_read_paused",
        "_received",
        "_task",
        "_tasks",
        "_timer",
        "_unanswered",
        "_upgrade",
        "close_sent",
        "owner",
        "paused",
        "transport",
    )

    transport: asyncio.Transport

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],  # noqa: ARG002 - it is in the scope already
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        door: Door,
    ) -> None:
        self.owner: Owner | None = None
        self.paused = False
        self.close_sent = False
        self._config = config
        self._connections = cast("set[RoomSocket]", server_state.connections)
        self._tasks = server_state.tasks
        self._loop = _loop or asyncio.get_running_loop()
        self._door = door
        self._address = ""
        self._frames: Frames | None = Frames(
            message_bytes_max=config.ws_max_size,
            fragments_max=door.limits.fragments_max,
            control_frames_per_s_max=door.limits.control_frames_per_s_max,
        )
        self._upgrade: Upgrade | None = None
        self._conversation: Conversation | None = None
        self._received: deque[str | bytes] | None = None
        self._task: asyncio.Task[None] | None = None
        self._open = False
        self._gone = False
        self._leaving = False
        self._unanswered: int | None = None  # bytes that stand before the last ping
        self._handed = 0  # bytes that waited when its turn came last, and those since
        self._place = -1
        self._descriptor = direct.NOWHERE
        self._queued = True
        self._read_paused = False
        self._timer: asyncio.TimerHandle | None = None

    # --- the handshake

    def upgrade(
        self, transport: asyncio.Transport, scope: dict[str, Any], accept: bytes, address: str
    ) -> None:
        """Take the connection over from HTTP and ask the application."""
        self.transport = transport
        self._connections.add(self)
        self._address = address
        limits = self._door.limits
        transport.set_write_buffer_limits(high=limits.high_water, low=limits.low_water)
        scope["extensions"][LINK] = self
        self._upgrade = Upgrade(self, scope, accept)
        self._keep(self._loop.create_task(self._upgrade.run(self._config.loaded_app)))

    def accept(self, answer: bytes) -> None:
        """Send the 101; frames follow."""
        if self._gone or self.transport.is_closing():
            return
        self._open = True
        self._descriptor = direct.descriptor(self.transport)
        self.transport.write(answer)
        pulse = self._door.pulse
        interval_s = self._config.ws_ping_interval
        if pulse is None and interval_s:
            pulse = self._door.pulse = Pulse(self._loop, interval_s)
        if pulse is not None:
            self._place = pulse.add(self)

    def refuse(self, answer: bytes) -> None:
        """Send another answer, and end."""
        if not self.transport.is_closing():
            self.transport.write(answer)
            self.transport.close()
        self._leave()

    def settle(self) -> None:
        """The application has returned; without a conversation nobody would ever listen."""
        self._upgrade = None
        if self._conversation is None and not self._gone:
            self.close(INTERNAL)

    def _keep(self, task: asyncio.Task[None]) -> asyncio.Task[None]:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # --- the link

    @property
    def buffered(self) -> int:
        """Bytes that wait in this process to be sent."""
        return self.transport.get_write_buffer_size()

    @property
    def descriptor(self) -> int:
        """Where bytes may be sent at once: `direct.NOWHERE` while others wait before them."""
        return direct.NOWHERE if self._queued else self._descriptor

    def write(self, data: bytes, taken: int = 0) -> None:
        """Send, at once where nothing waits; what the kernel does not take waits here.

        Whoever waits for the same bytes shares them: a large frame is in memory once.
        """
        if self._queued and not (self.buffered or self.transport.is_closing()):
            # A transport that was cut off has thrown away what waited: nothing may follow it.
            self._queue(waits=False)
        size = len(data)
        if not taken and not self._queued:
            taken = max(0, direct.send(self._descriptor, data, size, direct.FLAGS))
        if taken < size:
            self._handed += size - taken
            self._queue(waits=True)
            self.transport.write(memoryview(data)[taken:] if taken else data)

    def _queue(self, *, waits: bool) -> None:
        self._queued = waits
        if self.owner is not None:
            self.owner.on_queue(self.descriptor)

    def write_frame(self, frame: bytes) -> None:
        """Send a whole server frame; dropped once a close frame was sent."""
        if not self.close_sent and not self.transport.is_closing():
            self.write(frame)

    def close(self, code: int, reason: str = "") -> None:
        """Leave the room, send a close frame, and be gone within 5 s.

        A code that asks the client to return (4000-4499) says after how long, at random.
        Messages that wait are dropped: they would never be answered.
        """
        self._received = None
        self._leave()
        if self.close_sent or self.transport.is_closing():
            return
        if not self._open:
            self.transport.abort()
            return
        if not reason and 4000 <= code < 4500:
            reason = close_reason(self._door.after_ms())
        self.close_sent = True
        counters.count("closes", str(code))
        self.write(close_frame(code, reason))
        self._pace_reading()
        self._end_soon()

    def converse(self, conversation: Conversation) -> None:
        """Give it every message from now on, those that wait already first."""
        self._conversation = conversation
        if self._gone:
            self._leave()
        elif self._received:
            self._begin()

    def _leave(self) -> None:
        """Tell everyone that it is over: the seat at once, the conversation after its message."""
        self._gone = True
        if self._place >= 0 and self._door.pulse is not None:
            self._door.pulse.remove(self, self._place)
        owner, self.owner = self.owner, None
        if owner is not None:
            owner.on_lost()
        if self._upgrade is not None:
            self._upgrade.on_end()
        if self._task is None and self._conversation is not None:
            conversation, self._conversation = self._conversation, None
            conversation.on_end()

    def _end_soon(self) -> None:
        """Cut a closing connection whose peer does not take what is still to be sent.

        Once: what the peer says after a close frame of ours gives it no more time.
        """
        if self._timer is not None:
            self._timer.cancel()
        within_s = self._door.limits.close_within_s
        self._timer = self._loop.call_later(within_s, cut, self.transport)

    # --- the transport's callbacks

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - how it ended is all one
        """Leave the room, and give the connection's place back."""
        self._leave()
        self._descriptor = direct.NOWHERE  # the number will soon be another connection's
        if self._timer is not None:
            self._timer.cancel()
        self._connections.discard(self)
        self._door.leave(self._address)

    def data_received(self, data: bytes) -> None:
        """Cut the bytes into frames, and take each."""
        if self._frames is None:
            return
        try:
            for opcode, payload in self._frames.feed(data):
                self._take(opcode, payload)
        except Broken as broken:
            self._fail(broken)

    def eof_received(self) -> None:
        """The peer sends no more: the transport closes, in a bounded time."""
        self._leave()
        if not self.close_sent:
            self._end_soon()

    def pause_writing(self) -> None:
        """The peer is slow: tell the owner, and read no more of it, its pong included."""
        self.paused = True
        self._pace_reading()
        if self.owner is not None:
            self.owner.on_pause()

    def resume_writing(self) -> None:
        """The peer has caught up with what was sent."""
        self.paused = False
        self._pace_reading()
        if self.owner is not None:
            self.owner.on_resume()

    def _pace_reading(self) -> None:
        """Read while the application keeps up and the peer takes its answers."""
        waiting = self._received is not None and len(self._received) >= _RECEIVED_MAX
        pause = (self.paused or self._leaving or waiting) and not self.close_sent
        if pause == self._read_paused or self.transport.is_closing():
            return
        self._read_paused = pause
        if pause:
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()

    # --- what arrives

    def _take(self, opcode: int, payload: bytes) -> None:
        if opcode == Opcode.CLOSE:
            self._take_close(payload)
        elif self.close_sent:
            return
        elif opcode == Opcode.PONG:
            self._unanswered = None
        elif opcode == Opcode.PING:
            if self._open:
                self.write_frame(control_frame(Opcode.PONG, payload))
        elif not self._leaving:
            self._take_message(opcode, payload)

    def _take_message(self, opcode: int, payload: bytes) -> None:
        message: str | bytes = payload
        if opcode == Opcode.TEXT:
            try:
                message = payload.decode()
            except UnicodeDecodeError:
                raise Broken(INVALID_TEXT, "invalid UTF-8") from None
        if self._received is None:
            self._received = deque()
        self._received.append(message)
        if self._conversation is not None and self._task is None:
            self._begin()
        self._pace_reading()

    def _begin(self) -> None:
        self._task = self._keep(self._loop.create_task(self._run()))

    async def _run(self) -> None:
        """Give the conversation one message after another, until none waits."""
        conversation = self._conversation
        try:
            while conversation is not None and self._received:
                message = self._received.popleft()
                self._pace_reading()
                await conversation.take(message)
        except Exception:
            log.exception("a conversation failed")
            self.close(INTERNAL)
        finally:
            self._task = self._received = None
            if self._leaving:
                self.close(SHUTDOWN)
            elif self._gone:
                self._leave()

    def _take_close(self, payload: bytes) -> None:
        """The peer closes, or answers our close."""
        self._leave()
        if self.transport.is_closing():
            return
        if not self.close_sent:
            self._end_soon()
            if self._open:
                self.close_sent = True
                self.write(answer_to_close(payload))
        self.transport.close()

    def _fail(self, broken: Broken) -> None:
        """The peer broke the protocol: say so, end our half, and read no more of what it says."""
        self._received = self._frames = None
        self._leave()
        if self.transport.is_closing():
            return
        if self.close_sent or not self._open:
            self.transport.close()
            return
        self.close_sent = True
        counters.count("closes", str(broken.code))
        self._pace_reading()
        self._end_soon()
        say_last(self.transport, close_frame(broken.code, broken.reason))

    def on_beat(self) -> None:
        """Ping, or end where the last ping had no pong.

        A ping stands behind what waited before it, and a pong is not read while the peer is
        slow: one that takes of what waits, 16 KiB at least in an interval, is there.
        """
        waits = self.buffered
        taken = self._handed - waits
        if self._unanswered is None:
            self.write_frame(_PING)
            self._unanswered = waits
        elif (self._unanswered or self.paused) and taken >= min(self._handed, _TAKEN_LEAST):
            self._unanswered = max(0, self._unanswered - taken)
        else:
            self.close(NO_PONG)
        self._handed = self.buffered

    # --- the end of the server

    def shutdown(self) -> None:
        """Let the running command finish, then close 4000 with this viewer's own `after_ms`."""
        self._leaving = True
        if not self._open:
            self.refuse(
                refusal_answer(Refusal(503, "shutting_down", "The server is about to stop.", 1))
            )
        elif self._task is None:
            self.close(SHUTDOWN)
        elif not self.close_sent:
            if self._received is not None:
                self._received.clear()
            self._pace_reading()
            if self._timer is None:  # else it is ending already
                within_s = self._door.limits.command_within_s
                self._timer = self._loop.call_later(within_s, self.close, SHUTDOWN)


def protocols(door: Door) -> tuple[Callable[..., RoomHttp], Callable[..., RoomSocket]]:
    """The two protocols of one door, for uvicorn's `http` and `ws`; they can be pickled."""
    return functools.partial(RoomHttp, door=door), functools.partial(RoomSocket, door=door)

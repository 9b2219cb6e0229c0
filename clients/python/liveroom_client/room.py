"""A room over its WebSocket: one task owns the connection and brings it back.

Rules: commands wait for a connection and keep their ids and keys; what was sent and not
answered goes out again after a reconnect when repeating it is safe, and is `ConnectionLost`
otherwise. The task ends with `close()`, or with a close code that is final.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import random
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import quote, urlsplit, urlunsplit
from weakref import WeakSet

from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as open_socket
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.typing import Subprotocol

from liveroom_client import features
from liveroom_client.codec import Format, decode, encode
from liveroom_client.errors import ConnectionLost, Denied, LiveroomError, RoomClosed, from_wire
from liveroom_client.picture import Event, Picture
from liveroom_client.reconnect import Backoff, after_close, close_name
from liveroom_client.session import Command, Position, Received, Session
from liveroom_client.streams import QUEUE_MAX, EventStream

FRAME_BYTES_MAX: Final = 16 * 1024 * 1024
PENDING_MAX: Final = 1000
HELD_AFTER_S: Final = 5.0
"""A connection that lasted this long counts as good: the next wait is short again."""

Token = str | Callable[[], str | Awaitable[str]] | None


class Room:
    """One seat in one room.

    Made by `connect`; `async with` opens and closes it. `state` is the room now, `events()`
    what happens in it, `command()` and the feature objects what this member does.
    """

    def __init__(
        self,
        url: str,
        room: str,
        token: Token = None,
        name: str | None = None,
        *,
        source: dict[str, str] | None = None,
        format: Format = Format.JSON,  # noqa: A002
        command_timeout_s: float = 10.0,
        open_timeout_s: float = 10.0,
    ) -> None:
        self.url = _socket_url(url, room)
        self.room = room
        self._token = token
        self._name = name
        self._format = format
        self._command_timeout_s = command_timeout_s
        self._open_timeout_s = open_timeout_s
        self._session = Session(source)
        self._socket: ClientConnection | None = None
        self._pending: dict[int, tuple[Command, asyncio.Future[dict[str, Any]]]] = {}
        self._streams: WeakSet[EventStream] = WeakSet()
        self._joined: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._over = False
        self._fault: LiveroomError | None = None
        self.messages = features.Messages(self.command)
        self.reactions = features.Reactions(self.command)
        self.cart = features.Cart(self.command)
        self.waitlist = features.Waitlist(self.command)
        self.orders = features.Orders(self.command)
        self.payments = features.Payments(self.command)
        self.drops = features.Drops(self.command)
        self.host = features.Host(self.command)

    @property
    def state(self) -> Picture:
        """The room as it is known now."""
        return self._session.state

    @property
    def you(self) -> dict[str, Any]:
        """Who the server takes this connection for: `{id, name, roles}`."""
        return self._session.you

    @property
    def position(self) -> Position | None:
        """The last logged event seen."""
        return self._session.position

    @property
    def connected(self) -> bool:
        """Whether the room is joined at this moment."""
        return self._socket is not None

    async def open(self) -> Self:
        """Connect and join.

        Raises:
            LiveroomError: the join was refused, or did not succeed within `open_timeout_s`.
        """
        self._joined = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._run(), name=f"liveroom {self.room}")
        try:
            await asyncio.wait_for(asyncio.shield(self._joined), self._open_timeout_s)
        except TimeoutError:
            await self.close()
            raise ConnectionLost(f"{self.url} did not answer in time.") from None
        except BaseException:
            await self.close()
            raise
        return self

    async def close(self) -> None:
        """Leave the room once the last taps are sent; what has no answer is `ConnectionLost`."""
        try:
            await self.reactions.finish(send=self.connected)
        finally:
            await self._leave()

    async def _leave(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        self._end(None)

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    def events(self, queue_max: int = QUEUE_MAX) -> EventStream:
        """The events from now on, as an async iterator; made before `open()`, all of them."""
        stream = EventStream(queue_max)
        if self._over:
            stream.end(self._fault)
        self._streams.add(stream)
        return stream

    async def command(self, cmd: str, *, key: str | None = None, **data: Any) -> dict[str, Any]:
        """Send one command and wait for its `ok`.

        While the connection is away the command waits for it. `key` makes it safe to repeat
        (one is made where needed).

        Raises:
            LiveroomError: the server's refusal.
            ConnectionLost: no answer within `command_timeout_s`; it may have been done.
        """
        if self._task is None:
            raise self._fault or ConnectionLost("The room is not connected.")
        if len(self._pending) >= PENDING_MAX:
            raise ConnectionLost("Too many commands wait for an answer.")
        command = self._session.command(cmd, data, key)
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._pending[command.id] = (command, answer)
        try:
            async with asyncio.timeout(self._command_timeout_s):
                if self._socket is not None:
                    await self._send(self._socket, command)
                return await answer
        except TimeoutError:
            raise ConnectionLost("No answer came in time.") from None
        finally:
            self._pending.pop(command.id, None)

    async def _send(self, socket: ClientConnection, command: Command) -> None:
        # A socket that is gone takes nothing: the owner task sends again or gives up.
        with contextlib.suppress(ConnectionClosed):
            await socket.send(encode(command.on_wire(), self._format))

    async def _run(self) -> None:
        backoff = Backoff()
        try:
            while True:
                after_ms = await self._connection(backoff)
                await asyncio.sleep(backoff.next_s(after_ms))
        except LiveroomError as fault:
            self._task = None
            self._end(fault)
        except Exception as fault:
            # A fault of this client: nobody may wait for ever on a task that is gone.
            self._task = None
            self._end(LiveroomError("client_fault", repr(fault)))
            raise

    async def _connection(self, backoff: Backoff) -> int | None:
        """One connection from its opening to its end; how long the server asks us to wait."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            socket = await self._open_socket()
        except InvalidStatus as refusal:
            return _refused_upgrade(refusal)
        except (OSError, TimeoutError, InvalidHandshake, ConnectionClosed):
            return None
        try:
            refused = await self._read(socket)
            if refused is not None:
                return self._refused_join(refused)
        except ConnectionClosed as end:
            return self._closed(end)
        finally:
            self._socket = None
            if loop.time() - began > HELD_AFTER_S:
                backoff.reset()
            await socket.close()
        # The session asked to resume: at once, it is not the server's trouble.
        self._give_up(repeat=True)
        return 0

    async def _open_socket(self) -> ClientConnection:
        return await open_socket(
            self.url,
            subprotocols=[Subprotocol(self._format.value)],
            compression=None,
            max_size=FRAME_BYTES_MAX,
            ping_interval=20,
            ping_timeout=20,
            close_timeout=2,
        )

    async def _read(self, socket: ClientConnection) -> LiveroomError | None:
        """Join and read until the socket ends, a gap shows, or the join is refused."""
        await self._send(socket, self._session.join(await self._fresh_token(), self._name))
        while True:
            frame = await socket.recv(decode=False)
            try:
                messages = decode(frame, self._format)
            except ValueError:
                await socket.close(1007)
                return None
            received = self._session.receive(messages)
            if received.refused is not None:
                return received.refused
            await self._take(socket, received)
            if received.gap:
                return None

    async def _take(self, socket: ClientConnection, received: Received) -> None:
        for answered, answer in received.answers.items():
            self._answer(answered, answer)
        if received.joined is not None:
            self._socket = socket
            waiting = [command for command, _ in self._pending.values()]
            self._tell(Event("local.joined", {"mode": received.joined}, 0))
        for event in received.events:
            self._tell(event)
        if received.joined is not None:
            for command in waiting:
                await self._send(socket, command)
            if self._joined is not None and not self._joined.done():
                self._joined.set_result(None)

    def _answer(self, command: int, answer: dict[str, Any] | LiveroomError) -> None:
        _, future = self._pending.get(command, (None, None))
        if future is None or future.done():
            return
        if isinstance(answer, LiveroomError):
            future.set_exception(answer)
        else:
            future.set_result(answer)

    def _refused_join(self, refused: LiveroomError) -> int | None:
        fresh = callable(self._token) and refused.code == "token_expired"
        if not refused.retry and not fresh:
            raise refused
        return refused.retry_after_ms

    def _closed(self, end: ConnectionClosed) -> int | None:
        code = end.rcvd.code if end.rcvd is not None else 1006
        reason = end.rcvd.reason if end.rcvd is not None else ""
        rule = after_close(code, reason)
        if not rule.reconnect:
            raise RoomClosed(close_name(code), reason)
        self._give_up(repeat=rule.repeat)
        self._tell(Event("local.lost", {"code": code, "reason": reason}, 0))
        return rule.after_ms

    def _give_up(self, *, repeat: bool) -> None:
        """Fail the commands that must not be sent again."""
        for command, answer in self._pending.values():
            if not (repeat and command.repeatable) and not answer.done():
                answer.set_exception(ConnectionLost())

    def _tell(self, event: Event) -> None:
        for stream in list(self._streams):
            stream.put(event)

    def _end(self, fault: LiveroomError | None) -> None:
        if self._over:
            return
        self._over = True
        self._fault = fault
        self._socket = None
        if self._joined is not None and not self._joined.done():
            if fault is not None:
                self._joined.set_exception(fault)
            else:
                self._joined.cancel()
        for _, answer in self._pending.values():
            if not answer.done():
                answer.set_exception(fault or ConnectionLost())
        for stream in list(self._streams):
            stream.end(fault)

    async def _fresh_token(self) -> str | None:
        if not callable(self._token):
            return self._token
        token = self._token()
        return await token if inspect.isawaitable(token) else token


def connect(
    url: str,
    room: str,
    token: Token = None,
    name: str | None = None,
    **options: Any,
) -> Room:
    """A seat in a room, for `async with`: `connect("http://localhost:8000", "r1")`.

    Args:
        url: the server, `http(s)://` or `ws(s)://`.
        room: the room's id.
        token: a JWT, or a function that makes one (asked again at every connection). None: a
            guest, who may watch and, where the room allows, talk.
        name: how a guest wants to be called.
        options: `source`, what brought the viewer here (`{"kind": "note", "id": "n1"}`; also
            share, search, follow), told with all that is bought; `format`,
            `command_timeout_s`, `open_timeout_s`.
    """
    return Room(url, room, token, name, **options)


def _socket_url(url: str, room: str) -> str:
    parts = urlsplit(url)
    scheme = {"http": "ws", "https": "wss"}.get(parts.scheme, parts.scheme)
    path = f"{parts.path.rstrip('/')}/ws/{quote(room, safe='')}"
    return urlunsplit((scheme, parts.netloc, path, "", ""))


def _refused_upgrade(refusal: InvalidStatus) -> int | None:
    """How long to wait after an upgrade that was refused; raises when it is refused for good."""
    response = refusal.response
    if response.status_code in (429, 503):
        after = response.headers.get("Retry-After", "")
        return int(float(after) * 1000 * random.uniform(0.5, 1.5)) if after.isdecimal() else None
    if response.status_code >= 500:
        return None
    code = {404: "not_found", 401: "unauthenticated", 403: "forbidden"}.get(response.status_code)
    error = from_wire({"code": code or "bad_argument", "message": f"HTTP {response.status_code}"})
    raise error if code != "forbidden" else Denied("forbidden", "The Origin is not allowed.")

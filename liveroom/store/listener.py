"""Listening: sharded channels in, whole messages out, over lines that connect by themselves.

A line is one connection to one server: to the only one, or to each master of a cluster.
Messages published while a line was down, or while a channel was moving, are lost; so once
every channel of that line is confirmed again, `on_reset` says that what was heard must be
compared with the store. A line that has gone silent is asked with PING and given up without
an answer, after 15 s at most.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Collection
from typing import Any, Final, Protocol

import redis.exceptions
import structlog

from liveroom.errors import Unavailable
from liveroom.metrics import counters
from liveroom.store.connection import Connection, packed

log = structlog.get_logger(__name__)

CONFIRM_MAX_S: Final = 1.5
SILENT_MAX_S: Final = 5.0
RECONNECT_DELAY_S: Final = (0.05, 1.0)
REFRESH_EVERY_S: Final = 5.0
UNHEARD_WAIT_S: Final = 0.25


class Ways(Protocol):
    """Where channels are to be heard."""

    def home(self, channel: str) -> str | None:
        """The server to hear the channel from; None where there is none now."""
        ...

    def connection(self, home: str) -> Any:
        """A new connection to this server, not connected."""
        ...

    async def refresh(self) -> None:
        """Find out again who is whose home."""
        ...


class OneServer:
    """The ways of a Redis that is one server; its client is of `scripts.connect`."""

    def __init__(self, client: Any) -> None:
        self._pool = client.connection_pool

    def home(self, _channel: str) -> str | None:
        """The server."""
        return "redis"

    def connection(self, _home: str) -> Any:
        """A new connection to it."""
        return self._pool.make_connection()

    async def refresh(self) -> None:
        """Nothing: there is nowhere else."""


class Listener:
    """Hears the channels it was told to until `close`.

    Args:
        ways: where channels are to be heard.
        heed: called with each message's channel and payload, in order. It must not raise;
            what it raises is logged, and the next message goes on.
        on_reset: called once all channels that were cut off are heard again.
    """

    def __init__(
        self, ways: Ways, *, heed: Callable[[str, bytes], None], on_reset: Callable[[], None]
    ) -> None:
        self._ways = ways
        self._heed = heed
        self._on_reset = on_reset
        self._wanted: set[str] = set()
        self._confirmed: set[str] = set()
        self._waiting: dict[str, asyncio.Future[None]] = {}
        self._homes: dict[str, str] = {}
        self._lines: dict[str, _Line] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._cut: set[str] = set()  # channels that were heard, and are not now
        self._resets_due: set[str] = set()  # homes some of whose cut channels are heard again
        self._unsettled = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self, channels: Collection[str]) -> None:
        """Connect, and hear `channels` from now on.

        Raises:
            Unavailable: `store_down` when they are not confirmed within 1.5 s.
        """
        await self._refresh()
        self._task = asyncio.create_task(self._settle(), name="backplane-listener")
        for channel in channels:
            await self.add(channel)

    async def add(self, channel: str) -> None:
        """Hear a channel: every message published after this returns will come.

        Raises:
            Unavailable: `store_down` when it is not confirmed within 1.5 s. It stays wanted,
                and will be heard as soon as it can be, until it is removed.
        """
        self._wanted.add(channel)
        if channel in self._confirmed:
            return
        confirmed = self._waiting.get(channel)
        if confirmed is None:
            confirmed = self._waiting[channel] = asyncio.get_running_loop().create_future()
            await self._ask(channel)
            if channel not in self._homes:
                self._unsettled.set()
        try:
            async with asyncio.timeout(CONFIRM_MAX_S):
                await asyncio.shield(confirmed)
        except TimeoutError:
            raise Unavailable("store_down") from None

    async def remove(self, channel: str) -> None:
        """Hear a channel no more. Messages on their way may still come."""
        self._wanted.discard(channel)
        self._confirmed.discard(channel)
        self._cut.discard(channel)
        self._waiting.pop(channel, None)
        home = self._homes.pop(channel, "")
        self._tell_reset(home)
        if (line := self._lines.get(home)) is not None:
            line.say("SUNSUBSCRIBE", channel)

    async def close(self) -> None:
        """End the connections and their tasks."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        for home in list(self._lines):
            self._give_up(home)
        await asyncio.gather(*self._ending, return_exceptions=True)

    # ── homes ─────────────────────────────────────────────────────────────────────────────

    async def _ask(self, channel: str) -> None:
        """Subscribe at the channel's home; where it has moved, leave the old one."""
        home, before = self._ways.home(channel), self._homes.get(channel)
        if home is None:
            return
        self._homes[channel] = home
        if before is not None and before != home:
            self._cut_off(channel)
            if (left := self._lines.get(before)) is not None:
                left.say("SUNSUBSCRIBE", channel)
        line = self._lines.get(home)
        if line is None:
            self._lines[home] = _Line(home, self)
        else:
            line.say("SSUBSCRIBE", channel)

    async def _settle(self) -> None:
        """Keep every channel at its home; look again soon while one of them is not heard."""
        loop = asyncio.get_running_loop()
        look_at_s = loop.time() + SILENT_MAX_S
        while True:
            unheard = bool(self._wanted - self._confirmed)
            wait_s = UNHEARD_WAIT_S if unheard else REFRESH_EVERY_S
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._unsettled.wait()
            self._unsettled.clear()
            try:
                if loop.time() >= look_at_s:
                    look_at_s = loop.time() + SILENT_MAX_S
                    for line in list(self._lines.values()):
                        line.look()
                await self._refresh()
                await self._ask_again()
            except Unavailable as away:
                log.info("listener cannot ask for homes", code=away.code)
            except Exception:
                log.exception("listener could not look")  # and looks again: nobody else would
            await asyncio.sleep(RECONNECT_DELAY_S[0])

    async def _ask_again(self) -> None:
        for channel in sorted(self._wanted):
            moved = self._homes.get(channel) != self._ways.home(channel)
            if channel in self._wanted and (moved or channel not in self._confirmed):
                await self._ask(channel)
        for home in set(self._lines) - set(self._homes.values()):
            self._give_up(home)

    def _give_up(self, home: str) -> None:
        """End the line there. Nothing waits here: a channel that comes now gets a new line."""
        ending = self._lines.pop(home).end()
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)

    async def _refresh(self) -> None:
        try:
            await self._ways.refresh()
        except (redis.exceptions.RedisError, OSError) as fault:
            raise Unavailable("store_down") from fault

    def _cut_off(self, channel: str) -> None:
        """The channel is not heard for now: what it says meanwhile is lost."""
        if channel in self._confirmed:
            self._confirmed.discard(channel)
            self._cut.add(channel)

    # ── what lines tell ───────────────────────────────────────────────────────────────────

    def channels_of(self, home: str) -> list[str]:
        """The channels to be heard there."""
        return sorted(channel for channel, at in self._homes.items() if at == home)

    def connection(self, home: str) -> Any:
        """A new connection to this server."""
        return self._ways.connection(home)

    def lost(self, home: str) -> None:
        """The line there is down."""
        for channel in self.channels_of(home):
            self._cut_off(channel)
        self._unsettled.set()

    def moved(self) -> None:
        """A server says that a channel's home is elsewhere."""
        self._unsettled.set()

    def take(self, line: _Line, reply: Any) -> None:
        """Take what a server says on a line; one that was given up says nothing any more."""
        home = line.home
        if not isinstance(reply, list) or self._lines.get(home) is not line:
            return  # the answer to PING, or a late word
        kind, channel = reply[0], reply[1].decode()
        if kind == b"smessage":
            try:
                self._heed(channel, reply[2])
            except Exception:
                log.exception("a backplane message could not be taken", channel=channel)
        elif self._homes.get(channel) != home:
            return  # an answer of a home it has left
        elif kind == b"ssubscribe":
            self._confirm(channel)
        elif kind == b"sunsubscribe":
            self._cut_off(channel)  # unasked: its slot has left this server
            self._unsettled.set()

    def _confirm(self, channel: str) -> None:
        self._confirmed.add(channel)
        waiting = self._waiting.pop(channel, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(None)
        if channel in self._cut:
            self._cut.discard(channel)
            self._resets_due.add(self._homes[channel])
            self._tell_reset(self._homes[channel])

    def _tell_reset(self, home: str) -> None:
        """Once for all channels there, when the last of them is heard again."""
        still = any(self._homes.get(channel) == home for channel in self._cut)
        if home in self._resets_due and not still:
            self._resets_due.discard(home)
            self._on_reset()


class _Line:
    """One connection to one server, made anew until `end`."""

    def __init__(self, home: str, listener: Listener) -> None:
        self.home = home
        self._listener = listener
        self._connection: Connection | None = None
        self._said = 0
        self._seen = -1
        self._asked = False
        self._task = asyncio.create_task(self._keep(), name=f"backplane-line {home}")

    def say(self, *command: str) -> None:
        """Send, where there is a connection; where there is none, connecting says it all."""
        if self._connection is not None:
            self._connection.say(packed(*command))

    def look(self) -> None:
        """Ask a line that has said nothing since the last look; cut it if it was asked then.

        Once for all that it says, and not a timer for each message.
        """
        if self._connection is None or self._said != self._seen:
            self._seen, self._asked = self._said, False
        elif not self._asked:
            self._asked = True
            self.say("PING")
        else:
            log.warning("listener's line is silent", server=self.home)
            self._connection.end()

    def end(self) -> asyncio.Task[None]:
        """Hear no more; the task is done once the connection is cut."""
        self._task.cancel()
        return self._task

    async def _keep(self) -> None:
        shortest, longest = RECONNECT_DELAY_S
        delay = shortest
        while True:
            try:
                async with asyncio.timeout(CONFIRM_MAX_S):
                    made = self._listener.connection(self.home)
                    self._connection = await Connection.to(made, hear=self._take)
                delay = shortest
                cause = await self._listen(self._connection)
                log.warning("listener lost its connection", server=self.home, error=repr(cause))
            except (redis.exceptions.RedisError, OSError) as error:
                log.warning("listener cannot connect", server=self.home, error=repr(error))
            except Exception:
                log.exception("listener failed", server=self.home)
            self._listener.lost(self.home)
            counters.backplane_reconnects += 1
            await asyncio.sleep(delay * random.uniform(0.5, 1.0))
            delay = min(delay * 2, longest)

    async def _listen(self, connection: Connection) -> Exception | None:
        """Hear until the connection is lost; for what cause it was."""
        try:
            for channel in self._listener.channels_of(self.home):
                # One command for each: in a cluster one command may not span slots.
                connection.say(packed("SSUBSCRIBE", channel))
            return await connection.lost
        finally:
            self._connection = None
            connection.end()

    def _take(self, reply: Any) -> None:
        self._said += 1
        if isinstance(reply, redis.exceptions.MovedError):
            self._listener.moved()
        elif not isinstance(reply, Exception):
            self._listener.take(self, reply)
        elif self._connection is not None:
            log.warning("listener was refused", server=self.home, error=str(reply))
            self._connection.end()

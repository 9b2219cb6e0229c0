"""One listening connection: sharded channels in, whole messages out, reconnected by itself.

Messages published while the connection was down are lost, so after each reconnection, once
every channel is confirmed, `on_reset` says that what was heard must be compared with the
store. A connection that has gone silent is asked with PING and given up without an answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Collection
from typing import Any, Final

import redis.exceptions
import structlog
from redis.asyncio import Redis

from liveroom.errors import Unavailable
from liveroom.metrics import counters

log = structlog.get_logger(__name__)

CONFIRM_MAX_S: Final = 1.5
SILENT_MAX_S: Final = 5.0
RECONNECT_DELAY_S: Final = (0.05, 1.0)


class Listener:
    """Hears the channels it was told to until `close`.

    Args:
        client: a client made by `scripts.connect_subscriber`; its pool makes the connection.
        heed: called with each message's channel and payload, in order. It must not raise;
            what it raises is logged, and the next message goes on.
        on_reset: called after each reconnection.
    """

    def __init__(
        self,
        client: Redis,
        *,
        heed: Callable[[str, bytes], None],
        on_reset: Callable[[], None],
    ) -> None:
        self._pool: Any = client.connection_pool
        self._heed = heed
        self._on_reset = on_reset
        self._wanted: set[str] = set()
        self._confirmed: set[str] = set()
        self._waiting: dict[str, asyncio.Future[None]] = {}
        self._connection: Any = None
        self._task: asyncio.Task[None] | None = None
        self._resetting = False

    async def start(self, channels: Collection[str]) -> None:
        """Connect, and hear `channels` from now on.

        Raises:
            Unavailable: `store_down` when they are not confirmed within 1.5 s.
        """
        self._task = asyncio.create_task(self._keep(), name="backplane-listener")
        for channel in channels:
            await self.add(channel)

    async def add(self, channel: str) -> None:
        """Hear a channel: every message published after this returns will come.

        Raises:
            Unavailable: `store_down` when it is not confirmed within 1.5 s. It stays wanted,
                and will be heard after the next reconnection, until it is removed.
        """
        self._wanted.add(channel)
        if channel in self._confirmed:
            return
        confirmed = self._waiting.get(channel)
        if confirmed is None:
            confirmed = self._waiting[channel] = asyncio.get_running_loop().create_future()
            await self._say("SSUBSCRIBE", channel)
        try:
            async with asyncio.timeout(CONFIRM_MAX_S):
                await asyncio.shield(confirmed)
        except TimeoutError:
            raise Unavailable("store_down") from None

    async def remove(self, channel: str) -> None:
        """Hear a channel no more. Messages on their way may still come."""
        self._wanted.discard(channel)
        self._confirmed.discard(channel)
        self._waiting.pop(channel, None)
        await self._say("SUNSUBSCRIBE", channel)

    async def close(self) -> None:
        """End the connection and its task."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def _say(self, *command: str) -> None:
        """Send, where there is a connection; where there is none, connecting says it all."""
        connection = self._connection
        if connection is None:
            return
        try:
            await connection.send_command(*command, check_health=False)
        except (redis.exceptions.RedisError, OSError) as error:
            # The reading task meets the same end and connects anew with what is wanted.
            log.info("listener could not send", error=str(error))

    async def _keep(self) -> None:
        shortest, longest = RECONNECT_DELAY_S
        delay = shortest
        while True:
            connection = self._pool.make_connection()
            try:
                await connection.connect()
                delay = shortest
                await self._listen(connection)
            except (redis.exceptions.RedisError, OSError) as error:
                log.warning("listener lost its connection", error=str(error))
            finally:
                self._connection = None
                self._confirmed.clear()
                self._resetting = True
                await connection.disconnect(nowait=True)
            counters.backplane_reconnects += 1
            await asyncio.sleep(delay * random.uniform(0.5, 1.0))
            delay = min(delay * 2, longest)

    async def _listen(self, connection: Any) -> None:
        self._connection = connection
        if self._wanted:
            await self._say_each(connection, sorted(self._wanted))
        asked = False
        while True:
            try:
                reply = await connection.read_response(
                    timeout=SILENT_MAX_S, disconnect_on_error=False, push_request=True
                )
            except (TimeoutError, redis.exceptions.TimeoutError):
                if asked:
                    raise
                asked = True
                await connection.send_command("PING", check_health=False)
                continue
            asked = False
            self._take(reply)

    async def _say_each(self, connection: Any, channels: list[str]) -> None:
        # One command for each: on Redis Cluster one command may not span slots.
        for channel in channels:
            await connection.send_command("SSUBSCRIBE", channel, check_health=False)

    def _take(self, reply: Any) -> None:
        if not isinstance(reply, list):
            return  # the answer to PING
        kind = reply[0]
        if kind == b"smessage":
            channel = reply[1].decode()
            try:
                self._heed(channel, reply[2])
            except Exception:
                log.exception("a backplane message could not be taken", channel=channel)
        elif kind == b"ssubscribe":
            self._confirm(reply[1].decode())

    def _confirm(self, channel: str) -> None:
        if channel not in self._wanted:
            return
        self._confirmed.add(channel)
        waiting = self._waiting.pop(channel, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(None)
        if self._resetting and self._confirmed >= self._wanted:
            self._resetting = False
            self._on_reset()

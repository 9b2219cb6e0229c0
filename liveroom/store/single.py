"""One Redis server: commands over connections of the library, by a short way of our own.

The library's own way from a command to its connection and back passes two locks, a retry
object, events and records, and times each step: more than the command itself costs, where
few are sent and all of that is cold. So a connection is taken from the idle ones here, and
one timeout holds for the whole command.

Nothing is sent twice. A connection whose answer was not read to its end is closed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final, Self, cast

from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ResponseError

ANSWER_MAX_S: Final = 1.5
CONNECTIONS_MAX: Final = 32


class Single(Redis):
    """A client of one Redis: 1.5 s for each command, waiting for its turn included."""

    @classmethod
    def at(cls, url: str) -> Self:
        """The server at `redis://`, `rediss://` or `unix://`; connections are made as needed."""
        pool: ConnectionPool = ConnectionPool.from_url(
            url,
            socket_timeout=None,  # commands have a timeout of their own, listeners may wait
            socket_connect_timeout=ANSWER_MAX_S,
            retry=Retry(NoBackoff(), 0),
            protocol=2,
        )
        return cast("Self", cls.from_pool(pool))

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._turns = asyncio.Semaphore(CONNECTIONS_MAX)
        self._made: set[AbstractConnection] = set()
        self._idle: list[AbstractConnection] = []

    async def aclose(self, *args: Any, **kwargs: Any) -> None:
        """Close every connection, also under commands that wait for their answer."""
        ends = (connection.disconnect() for connection in self._made)
        await asyncio.gather(*ends, return_exceptions=True)  # one that hangs is given up
        await super().aclose(*args, **kwargs)

    async def execute_command(self, *words: Any, **options: Any) -> Any:
        """What the server answers to one command.

        Raises:
            ResponseError: the server refuses it.
            ConnectionError: it cannot be reached, or left before it answered.
            TimeoutError: there was no turn or no answer within 1.5 s.
        """
        (answer,) = await self._round_trip([words])
        if isinstance(answer, ResponseError):
            raise answer
        options.pop("keys", None)  # for the library's cache
        callback = self.response_callbacks.get(words[0])
        return answer if callback is None else callback(answer, **options)

    async def answers(self, commands: Sequence[tuple[str, Sequence[Any]]]) -> list[Any]:
        """An answer or a `ResponseError` for each `(key, command)`, in one round trip.

        Raises:
            ConnectionError: the server cannot be reached, or left before all were answered.
            TimeoutError: there was no turn or not every answer within 1.5 s.
        """
        return await self._round_trip([words for _, words in commands])

    async def _round_trip(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        async with asyncio.timeout(ANSWER_MAX_S), self._turns:
            connection = self._idle.pop() if self._idle else self._make()
            try:
                if connection.is_connected and await _is_spoilt(connection):
                    await connection.disconnect(nowait=True)
                if not connection.is_connected:
                    await connection.connect()  # type: ignore[no-untyped-call]
                packed = connection.pack_commands(commands)
                await connection.send_packed_command(packed, check_health=False)
                answers = [await _answer(connection) for _ in commands]
            except BaseException:
                self._made.discard(connection)
                await connection.disconnect(nowait=True)
                raise
            self._idle.append(connection)
            return answers

    def _make(self) -> AbstractConnection:
        pool: Any = self.connection_pool  # the library has no types for this
        made: AbstractConnection = pool.make_connection()
        self._made.add(made)
        return made


def is_closed(connection: Any) -> bool:
    """Whether the transport under a connection is closed, which the library does not look at.

    After a reset there is no end to read; who writes is told with a RuntimeError.
    """
    return bool(connection._writer.transport.is_closing())  # noqa: SLF001 - it has no name for it


async def _is_spoilt(connection: AbstractConnection) -> bool:
    """Whether it was cut while it lay idle, or the server has said what nobody asked."""
    return is_closed(connection) or await connection.can_read()


async def _answer(connection: AbstractConnection) -> Any:
    try:
        return await connection.read_response()
    except ResponseError as refusal:
        return refusal

"""One Redis server: commands over connections made by the library, by a short way of our own.

The library's own way from a command to its connection passes two locks, a retry object, events
and records, and times each step: more than the command itself costs, where few are sent and
all of that is cold. So a connection is taken from the idle ones here, and one timeout holds
for the whole command.

Nothing is sent twice. A connection whose answer was not read to its end is closed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final, Self, cast

from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as LostError
from redis.exceptions import ResponseError

from liveroom.store.connection import Connection, packed

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
        self._made: set[Connection] = set()
        self._idle: list[Connection] = []
        self._closed = False

    async def aclose(self, *args: Any, **kwargs: Any) -> None:
        """Close every connection, also under commands that wait for their answer, for good."""
        self._closed = True
        made = list(self._made)
        for connection in made:
            self._end(connection)
        await asyncio.gather(*(connection.lost for connection in made))
        await super().aclose(*args, **kwargs)

    async def execute_command(self, *words: Any, **options: Any) -> Any:
        """What the server answers to one command.

        Raises:
            ResponseError: the server refuses it.
            ConnectionError: it cannot be reached, left before it answered, or serves nobody now.
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
        if not commands:
            return []
        sent = b"".join([packed(*words) for words in commands])
        until_s = asyncio.get_running_loop().time() + ANSWER_MAX_S
        if self._turns.locked():  # a timeout costs more than the turn, where there is one
            async with asyncio.timeout_at(until_s):
                await self._turns.acquire()
        else:
            await self._turns.acquire()
        try:
            connection = self._take() or await self._make(until_s)
            try:
                answers = await connection.ask(sent, len(commands), until_s)
            except BaseException:
                self._end(connection)
                raise
            self._idle.append(connection)
            return answers
        finally:
            self._turns.release()

    def _take(self) -> Connection | None:
        """One that lies idle, and was not cut there."""
        while self._idle:
            connection = self._idle.pop()
            if not connection.closed:
                return connection
            self._end(connection)
        return None

    async def _make(self, until_s: float) -> Connection:
        pool: Any = self.connection_pool  # the library has no types for this
        if self._closed:
            raise LostError("the client is closed")
        async with asyncio.timeout_at(until_s):
            made = await Connection.to(pool.make_connection())
        if self._closed:  # meanwhile: nobody else would end it
            made.end()
            raise LostError("the client is closed")
        self._made.add(made)
        return made

    def _end(self, connection: Connection) -> None:
        self._made.discard(connection)
        connection.end()

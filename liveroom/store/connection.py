"""One connection to Redis: the library makes it ready, and from then on its bytes come here.

Names, TLS, AUTH and SELECT are the library's. Its own way from a command to the answer packs
word by word, passes a stream and wakes a task for each piece that arrives, which costs more
than the command itself where few are sent and all of that is cold. So a connection that is
ready gets another protocol: hiredis packs and reads, and an answer is there as it arrives.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from hiredis import Reader, pack_command
from redis.asyncio.connection import AbstractConnection, DefaultParser
from redis.exceptions import ConnectionError as LostError
from redis.exceptions import DataError, InvalidResponse

_NOTHING: Final = object()
"""What the reader has until a reply is whole."""


def packed(name: str, *words: Any) -> bytes:
    """A command as it goes over the wire.

    Words are text, bytes or numbers; `DataError` for any other.
    """
    try:
        return bytes(pack_command((*name.split(), *words)))
    except TypeError as wrong:
        kinds = ", ".join(type(word).__name__ for word in words)
        raise DataError(f"{name} of {kinds}: {wrong}") from wrong


class Connection(asyncio.Protocol):
    """A connection that is ready, for commands one after another or for what is heard on it.

    With `hear` every reply is given to it as it arrives; where it raises, the connection ends.
    `lost` is done once the connection is gone, and has the cause where there is one.
    """

    def __init__(
        self, made: AbstractConnection, *, hear: Callable[[Any], None] | None = None
    ) -> None:
        self._made = made  # else the library's stream would close the transport when it goes
        writer: Any = made._writer  # noqa: SLF001 - it has no name for it
        self._transport: asyncio.Transport = writer.transport
        self._reader = Reader(
            protocolError=InvalidResponse,
            replyError=DefaultParser.parse_error,
            notEnoughData=_NOTHING,
        )
        self._hear = hear or self._answer
        self._loop = asyncio.get_running_loop()
        self._fault: Exception | None = None
        self._left = 0
        self._answers: list[Any] = []
        self._answered: asyncio.Future[list[Any]] | None = None
        self.lost: asyncio.Future[Exception | None] = self._loop.create_future()

    @classmethod
    async def to(
        cls, made: AbstractConnection, *, hear: Callable[[Any], None] | None = None
    ) -> Connection:
        """Connect, by the library's settings, and take over.

        Raises:
            RedisError, OSError: the server cannot be reached or lets nobody in.
        """
        try:
            await made.connect()  # type: ignore[no-untyped-call]
            is_closed = await made.can_read()  # or has said what nobody asked
        except BaseException:
            await made.disconnect(nowait=True)
            raise
        taken = cls(made, hear=hear)
        taken._transport.set_protocol(taken)
        if is_closed:
            taken.end()
            raise LostError("closed while connecting")
        return taken

    @property
    def closed(self) -> bool:
        """Whether nothing can be asked here any more."""
        return self._transport.is_closing()

    def say(self, command: bytes) -> None:
        """Send what nobody waits for the answer of; nothing once it is closed."""
        if not self.closed:
            self._transport.write(command)

    async def ask(self, commands: bytes, count: int, until_s: float) -> list[Any]:
        """The `count` answers to these packed commands; refusals are among them.

        Raises:
            ConnectionError: it was lost before all were answered, or the server serves nobody
                here now (its answer is of that kind: LOADING, NOAUTH).
            TimeoutError: not all were there at `until_s` by the loop's clock.

        Whoever does not get all answers ends the connection: they may still come.
        """
        if self.closed:
            raise LostError("the connection is closed")
        answered: asyncio.Future[list[Any]] = self._loop.create_future()
        self._answered = answered
        self._left, self._answers = count, []
        timer = self._loop.call_at(until_s, _give_up, answered)
        try:
            self._transport.write(commands)
            return await answered
        finally:
            timer.cancel()
            self._answered = None

    def end(self) -> None:
        """Cut it, whatever is unsent; whoever waits hears of it in the loop's next turn."""
        self._transport.abort()
        self._made._close()  # type: ignore[no-untyped-call]  # noqa: SLF001 - its own way awaits

    # --- the transport's callbacks

    def data_received(self, data: bytes) -> None:
        """Cut the bytes into replies, and hand each on."""
        try:
            self._reader.feed(data)
            while (reply := self._reader.gets()) is not _NOTHING:
                self._hear(reply)
        except Exception as broken:  # noqa: BLE001 - told to whoever waits, and by `lost`
            self._fault = broken
            self.end()

    def connection_lost(self, exc: Exception | None) -> None:
        """Whoever waits hears of it."""
        self.end()
        if self._answered is not None and not self._answered.done():
            lost = LostError("the connection was lost")
            lost.__cause__ = self._fault or exc
            self._answered.set_exception(lost)
        if not self.lost.done():
            self.lost.set_result(self._fault or exc)

    def _answer(self, reply: Any) -> None:
        answered = self._answered
        if answered is None or answered.done():  # nobody asked: what else it says is not trusted
            self.end()
            return
        if isinstance(reply, LostError):  # by the library's kinds: LOADING, NOAUTH, too many
            answered.set_exception(reply)
            self.end()
            return
        self._answers.append(reply)
        self._left -= 1
        if not self._left:
            answered.set_result(self._answers)


def _give_up(answered: asyncio.Future[list[Any]]) -> None:
    if not answered.done():
        answered.set_exception(TimeoutError())

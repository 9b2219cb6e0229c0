"""Many clients over few HTTP connections, cheap enough that the server is what works.

A connection is kept alive and carries one request at a time, whoever asks; each request has a
token of its own, so ten thousand buyers need no ten thousand sockets.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

import orjson

from bench.history import Recorder
from tests.crowd import RETRY_S, Cut, until_answered
from tests.live import Live, Said

T = TypeVar("T")


class Answer(NamedTuple):
    """The status of an answer, and what it holds."""

    status: int
    body: Any


class Line(asyncio.Protocol):
    """One raw HTTP/1.1 connection; `answer` is done with the whole answer, or raises Cut."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[Answer] | None = None
        self.is_open = True
        self._rest = b""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def connection_lost(self, _exc: Exception | None) -> None:
        self.is_open = False
        if self.answer is not None and not self.answer.done():
            self.answer.set_exception(Cut())

    def data_received(self, data: bytes) -> None:
        self._rest += data
        head, end, rest = self._rest.partition(b"\r\n\r\n")
        if not end:
            return
        names = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        if len(rest) < (size := int(names[b"content-length"])):
            return
        self._rest = rest[size:]
        if names.get(b"connection") == b"close":
            self.is_open = False
        assert self.answer is not None
        if not self.answer.done():
            self.answer.set_result(Answer(int(head[9:12]), orjson.loads(rest[:size])))


class Poster:
    """One who posts over a connection of its own, and connects anew whenever that was cut."""

    def __init__(self, server: Live) -> None:
        self._server = server
        self._line: Line | None = None

    async def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        """The answer to one request; Cut where none came, or there was no server."""
        line = await self._connected()
        line.answer = asyncio.get_running_loop().create_future()
        named = {"host": "liveroom", "content-length": str(len(body)), **headers}
        head = "".join(f"{name}: {value}\r\n" for name, value in named.items())
        line.transport.write(f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + body)
        return await line.answer

    async def command(self, token: str, cmd: str, data: dict[str, Any]) -> Answer:
        """The answer to a command in the room."""
        headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
        body = orjson.dumps({"cmd": cmd, "data": data})
        return await self.post("/v1/rooms/r1/commands", body, headers)

    def close(self) -> None:
        """Hang up."""
        if self._line is not None:
            self._line.transport.abort()

    async def _connected(self) -> Line:
        if self._line is None or not self._line.is_open:
            there = urlsplit(self._server.url)
            try:
                _, self._line = await asyncio.get_running_loop().create_connection(
                    Line, there.hostname, there.port
                )
            except OSError:
                await asyncio.sleep(RETRY_S)
                raise Cut from None
        return self._line


async def each(
    server: Live, jobs: Iterable[T], do: Callable[[Poster, T], Awaitable[None]], *, lines: int
) -> None:
    """Do every job, in order, over so many connections at once."""
    waiting = iter(jobs)
    posters = [Poster(server) for _ in range(lines)]

    async def work(poster: Poster) -> None:
        for job in waiting:
            await do(poster, job)

    try:
        async with asyncio.TaskGroup() as group:
            for poster in posters:
                group.create_task(work(poster))
    finally:
        for poster in posters:
            poster.close()


class Member(NamedTuple):
    """Who asks, and by what the server knows."""

    name: str
    token: str


def members(server: Live, count: int, name: str = "b") -> list[Member]:
    """So many members, each with a token."""
    return [Member(f"{name}{number}", server.token(f"{name}{number}")) for number in range(count)]


async def tell(
    poster: Poster, history: Recorder, member: Member, cmd: str, data: dict[str, Any]
) -> dict[str, Any]:
    """Send an order once, on record; the order as answered."""
    asked = history.invoke(member.name, cmd, data)
    try:
        answer = await poster.command(member.token, cmd, data)
    except (Cut, asyncio.CancelledError):
        history.info(asked)
        raise
    if answer.status != 200:
        history.refused(asked, answer.body)
        raise Said(answer.body)
    history.ok(asked, answer.body["order"])
    return answer.body["order"]


async def told(
    poster: Poster, history: Recorder, member: Member, cmd: str, data: dict[str, Any]
) -> str:
    """What an order comes to, repeated until it is answered: `ok`, or the code of a refusal."""
    try:
        await until_answered(lambda: tell(poster, history, member, cmd, data))
    except Said as refusal:
        return refusal.code
    return "ok"

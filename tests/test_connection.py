"""One connection to Redis: whatever the server says or does, each command has its own answer."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop
from redis.exceptions import ConnectionError as LostError
from redis.exceptions import InvalidResponse, NoScriptError, ResponseError
from test_direct import certificate

from liveroom.store.connection import Connection, packed
from liveroom.store.listener import OneServer
from liveroom.store.single import Single

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(serve: Serve, **options: Any) -> AsyncIterator[int]:
    """A server of the test's own; its port. It ends once everybody it served has left."""
    served: set[asyncio.Task[None]] = set()

    async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        except ConnectionError:
            pass  # a client that was cut: it has left
        finally:
            writer.close()

    def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.add(asyncio.ensure_future(serve_one(reader, writer)))

    server = await asyncio.start_server(begin, "127.0.0.1", 0, **options)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await asyncio.gather(*served)
        await asyncio.sleep(0)


def saying(*answers: bytes) -> Serve:
    """A server that greets as Redis does, and answers each PING with the next of these."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        left = list(answers)
        while words := await reader.read(65536):
            writer.write(b"+OK\r\n" * words.count(b"SETINFO"))
            for _ in range(words.count(b"PING")):
                writer.write(left.pop(0) if left else b"+PONG\r\n")

    return serve


async def connected(client: Single, **options: Any) -> Connection:
    return await Connection.to(client.connection_pool.make_connection(), **options)


async def asked(connection: Connection) -> list[Any]:
    until_s = asyncio.get_running_loop().time() + 10
    return await connection.ask(packed("PING"), 1, until_s)


@pytest.fixture(params=[asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Coroutine[Any, Any, None]], None]:
    """Both loops there may be: each has transports of its own."""

    async def bounded(story: Coroutine[Any, Any, None]) -> None:
        async with asyncio.timeout(30):
            await story

    return lambda story: request.param(bounded(story))


def test_answers_come_in_pieces_and_refusals_are_told_apart(run):
    """A reply is whole once its last byte is there; a refusal is one of the library's kinds."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while words := await reader.read(65536):
            writer.write(b"+OK\r\n" * words.count(b"SETINFO"))
            if b"PING" in words:
                for byte in b"*2\r\n$3\r\none\r\n:2\r\n-NOSCRIPT none here\r\n-ERR no\r\n":
                    writer.write(bytes((byte,)))
                    await writer.drain()

    async def story() -> None:
        async with serving(serve) as port:
            client = Single.at(f"redis://127.0.0.1:{port}")
            connection = await connected(client)
            until_s = asyncio.get_running_loop().time() + 10
            whole, unknown, no = await connection.ask(packed("PING"), 3, until_s)
            assert whole == [b"one", 2]
            assert type(unknown) is NoScriptError
            assert type(no) is ResponseError
            connection.end()
            await connection.lost
            await client.aclose()

    run(story())


@pytest.mark.parametrize("words", [b"?what\r\n", b"$-7\r\n", b"*9999999999999999999\r\n"])
def test_what_is_no_redis_loses_the_connection_and_not_the_client(run, words):
    """Whoever waits is told that it was lost; the next command has another connection."""

    async def story() -> None:
        async with serving(saying(words)) as port:
            client = Single.at(f"redis://127.0.0.1:{port}")
            connection = await connected(client)
            with pytest.raises(LostError):
                await asked(connection)
            assert connection.closed
            assert isinstance(await connection.lost, InvalidResponse)
            with pytest.raises(LostError):
                await asked(connection)
            with pytest.raises(LostError):
                await client.ping()
            await client.aclose()

    run(story())


@pytest.mark.parametrize("words", [b"", b"*2\r\n$3\r\none\r\n"], ids=["nothing", "half of it"])
def test_a_server_that_leaves_is_told_to_whoever_waits(run, words):
    """At once, and not when the time for an answer is over."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while b"PING" not in (sent := await reader.read(65536)):
            writer.write(b"+OK\r\n" * sent.count(b"SETINFO"))
        writer.write(words)

    async def story() -> None:
        async with serving(serve) as port:
            client = Single.at(f"redis://127.0.0.1:{port}")
            with pytest.raises(LostError):
                await asked(await connected(client))
            with pytest.raises(LostError):
                await client.ping()
            await client.aclose()

    run(story())


def test_what_nobody_asked_is_nobodys_answer(run):
    """Two replies to one command: the second ends the connection, for it is out of step."""

    async def story() -> None:
        async with serving(saying(b"+PONG\r\n+MINE\r\n")) as port:
            client = Single.at(f"redis://127.0.0.1:{port}")
            assert await client.ping() is True
            assert [await client.ping() for _ in range(3)] == [True, True, True]
            await client.aclose()

            connection = await connected(client)
            assert await asked(connection) == [b"PONG"]
            await connection.lost
            with pytest.raises(LostError):
                await asked(connection)

    run(story())


@pytest.mark.parametrize("words", ["LOADING it reads its file", "NOAUTH first say who you are"])
def test_a_server_that_serves_nobody_now_is_no_answer(run, words):
    """Its refusal is one of the connection, for one command and for several."""

    async def story() -> None:
        async with serving(saying(*[f"-{words}\r\n".encode()] * 9)) as port:
            client = Single.at(f"redis://127.0.0.1:{port}")
            with pytest.raises(LostError):
                await client.ping()
            with pytest.raises(LostError):
                await client.answers([("a", ("PING",)), ("b", ("PING",))])
            assert await client.answers([]) == []
            await client.aclose()

    run(story())


def test_a_client_that_is_closed_while_it_connects_leaves_nothing(redis_url, run):
    """Whoever still connects is told, and the server keeps no connection of it."""

    async def story() -> None:
        client, watcher = Single.at(redis_url), Single.at(redis_url)
        before = len(await watcher.client_list())
        pings = [asyncio.create_task(client.ping()) for _ in range(40)]
        await asyncio.sleep(0)
        await client.aclose()
        told = await asyncio.gather(*pings, return_exceptions=True)
        assert all(isinstance(one, LostError) for one in told), told
        async with asyncio.timeout(10):
            while len(await watcher.client_list()) > before:
                pass
        await watcher.aclose()

    run(story())


def test_who_gives_up_is_not_answered_later(run):
    """After the time that there was for an answer, the answer is late for good."""

    async def story() -> None:
        async with serving(saying(b"")) as port:
            client = Single.at(f"redis://127.0.0.1:{port}")
            connection = await connected(client)
            with pytest.raises(TimeoutError):
                await connection.ask(packed("PING"), 1, asyncio.get_running_loop().time())
            connection.end()
            connection.say(packed("PING"))  # nothing comes of it
            await connection.lost
            await client.aclose()
            with pytest.raises(LostError, match="client is closed"):
                await client.ping()

    run(story())


def test_a_password_and_a_database_are_the_librarys(redis_url, run):
    """What the URL says of who comes and where to is done before anything is asked."""

    async def story() -> None:
        client, first = Single.at(f"{redis_url}?db=3"), Single.at(redis_url)
        await client.set("here", "3")
        assert await first.get("here") is None
        wrong = Single.at(f"{redis_url}?username=nobody&password=wrong")
        with pytest.raises(LostError, match="invalid username-password"):
            await wrong.ping()
        for each in (client, first, wrong):
            await each.aclose()

    run(story())


def test_through_tls(redis_url, run, tmp_path):
    """Commands and what is heard come through an encrypted line as through any other."""
    certificate(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    relays: set[asyncio.Task[None]] = set()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back, on = await asyncio.open_unix_connection(redis_url.removeprefix("unix://"))
        relays.add(asyncio.ensure_future(copy(back, writer)))
        await copy(reader, on)

    async def copy(come: asyncio.StreamReader, go: asyncio.StreamWriter) -> None:
        try:
            while data := await come.read(65536):
                go.write(data)
                await go.drain()
        except ConnectionError:
            pass  # the other side is gone: so are we
        finally:
            go.close()

    async def story() -> None:
        async with serving(relay, ssl=context) as port:
            client = Single.at(f"rediss://localhost:{port}?ssl_ca_certs={Path(tmp_path)}/cert.pem")
            large = b"x" * 1_000_000
            await client.set("large", large)
            assert await client.get("large") == large
            heard: list[Any] = []
            made = OneServer(client).connection("")
            ear = await Connection.to(made, hear=heard.append)
            ear.say(packed("SSUBSCRIBE", "channel"))
            while not heard:  # noqa: ASYNC110 - the callback tells
                await asyncio.sleep(0.001)
            await client.execute_command("SPUBLISH", "channel", "hello")
            while len(heard) < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            assert heard[1] == [b"smessage", b"channel", b"hello"]
            ear.end()
            await ear.lost
            await client.aclose()
        await asyncio.gather(*relays)

    run(story())

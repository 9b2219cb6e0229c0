"""Commands to one Redis: each gets its own answer, over connections that are bounded."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct

import pytest
from redis.exceptions import DataError, ResponseError

from liveroom.store.single import CONNECTIONS_MAX, Single


async def connections(watcher: Single) -> int:
    """How many there are, the watcher's own left out."""
    return len(await watcher.client_list()) - 1


def test_many_at_once_share_a_bounded_number_of_connections(redis_url, run):
    """Each of 500 commands is answered what was asked, over 32 connections."""

    async def story() -> None:
        client, watcher = Single.at(redis_url), Single.at(redis_url)
        before = await connections(watcher)
        asked = [f"{number}".encode() for number in range(500)]
        assert await asyncio.gather(*(client.echo(text) for text in asked)) == asked
        assert await connections(watcher) - before == CONNECTIONS_MAX
        await client.aclose()
        assert await connections(watcher) == before
        await watcher.aclose()

    run(story())


def test_a_refused_command_keeps_its_connection(redis_url, run):
    """What was answered to its end leaves the connection as good as new."""

    async def story() -> None:
        client = Single.at(redis_url)
        number = await client.client_id()
        for _ in range(3):
            with pytest.raises(ResponseError):
                await client.execute_command("EVAL", "return redis.error_reply('no')", 0)
        with pytest.raises(ResponseError):
            await client.incr("text", "not a number")
        assert await client.client_id() == number
        await client.aclose()

    run(story())


def test_answers_of_a_round_trip_stand_alone(redis_url, run):
    """One answer for each command, in order; a refusal is among them and is not raised."""

    async def story() -> None:
        client = Single.at(redis_url)
        await client.set("text", "words")
        first, refusal, last = await client.answers(
            [("a", ("ECHO", "one")), ("text", ("INCR", "text")), ("b", ("ECHO", "two"))]
        )
        assert (first, last) == (b"one", b"two")
        assert isinstance(refusal, ResponseError)
        await client.aclose()

    run(story())


def test_an_answer_that_nobody_waited_for_is_nobody_elses(redis_url, run):
    """A command that was given up takes its connection with it, with what is still to come."""

    async def story() -> None:
        client, watcher = Single.at(redis_url), Single.at(redis_url)
        number = await client.client_id()
        before = await connections(watcher)
        waits = asyncio.create_task(client.blpop(["list"], timeout=0))
        async with asyncio.timeout(10):
            while not any(one["cmd"] == "blpop" for one in await watcher.client_list()):
                pass
        waits.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waits
        await watcher.rpush("list", "late")
        assert await client.echo("mine") == b"mine"
        assert await client.client_id() != number
        assert await connections(watcher) == before
        await client.aclose()
        await watcher.aclose()

    run(story())


def test_what_cannot_be_sent_is_refused_and_leaks_nothing(redis_url, run):
    """An argument of no known kind is refused before anything is sent."""

    async def story() -> None:
        client, watcher = Single.at(redis_url), Single.at(redis_url)
        before = await connections(watcher)
        for _ in range(CONNECTIONS_MAX + 1):
            with pytest.raises(DataError, match="must be str, int, float or bytes"):
                await client.set("key", object())
        assert await client.echo("mine") == b"mine"
        assert await connections(watcher) == before + 1  # by the echo
        await client.aclose()
        await watcher.aclose()

    run(story())


def test_no_turn_in_time_is_a_timeout(redis_url, run):
    """Who waits for a connection longer than a command may take is told so."""

    async def story() -> None:
        client, watcher = Single.at(redis_url), Single.at(redis_url)
        waits = [
            asyncio.create_task(client.blpop([f"list{at}"], timeout=0))
            for at in range(CONNECTIONS_MAX + 3)
        ]
        outcomes = await asyncio.gather(*waits, return_exceptions=True)
        assert all(isinstance(one, TimeoutError) for one in outcomes)
        assert await client.echo("again") == b"again"
        await client.aclose()
        await watcher.aclose()

    run(story())


def test_idle_connections_that_were_reset_are_not_used(run):
    """A firewall or a failover resets what lies idle: no command fails of it."""

    async def story() -> None:
        lines: list[asyncio.StreamWriter] = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            lines.append(writer)
            with contextlib.suppress(ConnectionError):
                while words := await reader.read(65536):
                    writer.write(b"+OK\r\n" * words.count(b"CLIENT"))
                    writer.write(b"+PONG\r\n" * words.count(b"PING"))
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        client = Single.at(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        await asyncio.gather(*(client.ping() for _ in range(10)))
        assert len(lines) == 10
        for line in lines:
            sock = line.transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            line.transport.abort()
        while not all(one.closed for one in client._idle):  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(0)
        assert [await client.ping() for _ in range(12)] == [True] * 12
        await client.aclose()
        server.close()

    run(story())

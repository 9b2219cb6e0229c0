"""Listening to several servers: whatever comes and goes among them, no wanted channel is deaf."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from proxy import Proxy, proxy
from redis.asyncio import Redis
from tape import until

from liveroom.errors import InvariantBroken, Unavailable
from liveroom.store import listener, scripts
from liveroom.store.listener import Listener


class Homes:
    """Channels live where the test says; every home is the one Valkey, on a line of its own."""

    def __init__(self, client: Redis) -> None:
        self._pool = client.connection_pool
        self.of: dict[str, str] = {}

    def home(self, channel: str) -> str | None:
        return self.of.get(channel)

    def connection(self, _home: str) -> Any:
        return self._pool.make_connection()

    async def refresh(self) -> None:
        """Nothing: the test says it."""


class Ear:
    """A listener, and what it heard."""

    def __init__(self, url: str) -> None:
        self.client = scripts.connect(url)
        self.listening = scripts.connect(url)
        self.homes = Homes(self.listening)
        self.heard: list[tuple[str, bytes]] = []
        self.resets = 0
        self.failing = 0
        self.listener = Listener(self.homes, heed=self._heed, on_reset=self._reset)

    def _heed(self, channel: str, payload: bytes) -> None:
        self.heard.append((channel, payload))

    def _reset(self) -> None:
        self.resets += 1
        if self.failing:
            self.failing -= 1
            raise InvariantBroken("as a test wants it")

    async def say(self, channel: str, text: str) -> None:
        await self.client.execute_command("SPUBLISH", channel, text)


@asynccontextmanager
async def listening(url: str, **homes: str) -> AsyncIterator[Ear]:
    """A listener to these channels."""
    ear = Ear(url)
    ear.homes.of = homes
    await ear.listener.start(list(homes))
    try:
        yield ear
    finally:
        await ear.listener.close()
        await ear.client.aclose()
        await ear.listening.aclose()


async def given_up(ear: Ear) -> None:
    """Wait until no line is kept: those that were hang up in this turn of the loop."""
    async with asyncio.timeout(10):
        while ear.listener._lines:  # noqa: ASYNC110 - the turn counts, and no event tells
            await asyncio.sleep(0)


def test_a_channel_that_comes_while_its_server_is_given_up_is_heard(redis_url, run):
    """Of two lines that are not needed any more, each is needed again before it has hung up."""

    async def story() -> None:
        async with listening(redis_url, one="a", two="b") as ear:
            for channel in ("one", "two"):
                await ear.listener.remove(channel)
            ear.listener.moved()
            await given_up(ear)
            for channel in ("one", "two"):
                await ear.listener.add(channel)
            for channel in ("one", "two"):
                await ear.say(channel, "hello")
            await until(lambda: sorted(ear.heard) == [("one", b"hello"), ("two", b"hello")])

    run(story())


def test_a_fault_of_our_own_silences_no_channel(run, redis_url):
    """Where the callback for lost messages fails, it is logged, and channels are heard again."""

    async def story() -> None:
        async with listening(redis_url, one="a") as ear:
            ear.failing = 1
            await ear.client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
            await until(lambda: ear.failing == 0)
            await until(lambda: "one" in ear.listener._confirmed)
            await ear.say("one", "hello")
            await until(lambda: ear.heard == [("one", b"hello")])

    run(story())


def test_a_line_that_was_given_up_says_nothing_more(redis_url, run):
    """Its late answers confirm nothing, and what it still hears is not heard twice."""

    async def story() -> None:
        async with listening(redis_url, one="a") as ear:
            old = ear.listener._lines["a"]
            await ear.listener.remove("one")
            ear.listener.moved()
            await given_up(ear)
            await ear.listener.add("one")
            ear.listener.take(old, [b"smessage", b"one", b"again"])
            ear.listener.take(old, [b"sunsubscribe", b"one", 0])
            await ear.say("one", "hello")
            await until(lambda: ear.heard)
            assert ear.heard == [("one", b"hello")]
            assert ear.resets == 0, "it was never cut off"

    run(story())


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line is silent after a hundredth of a second."""
    monkeypatch.setattr(listener, "SILENT_MAX_S", 0.01)
    monkeypatch.setattr(listener, "REFRESH_EVERY_S", 0.01)


@pytest.mark.usefixtures("impatient")
def test_a_silent_line_is_asked_and_kept_while_it_answers(redis_url, run):
    """Where nothing is published for long, nothing is cut either."""

    async def story() -> None:
        async with listening(redis_url, one="a") as ear:
            await ear.client.config_resetstat()

            async def asked() -> int:
                told = (await ear.client.info("commandstats")).get("cmdstat_ping", {"calls": 0})
                return told["calls"]

            async with asyncio.timeout(20):
                while await asked() < 5:
                    pass
            await ear.say("one", "hello")
            await until(lambda: ear.heard == [("one", b"hello")])
            assert ear.resets == 0

    run(story())


@pytest.mark.usefixtures("impatient")
def test_a_line_that_does_not_answer_is_cut_and_made_anew(valkey, tmp_path, run):
    """A server that is there and says nothing: once it is heard again, what was missed is told."""
    at = tmp_path / "relay.sock"

    async def story(relay: Proxy) -> None:
        async with listening(f"unix://{at}", one="a") as ear:
            relay.stall()
            ear.homes.of["two"] = "a"
            with pytest.raises(Unavailable):  # who comes meanwhile makes no second line
                await ear.listener.add("two")
            await until(lambda: "one" not in ear.listener._confirmed)
            relay.flow()
            await until(lambda: "one" in ear.listener._confirmed)
            await until(lambda: ear.resets)
            await ear.say("one", "hello")
            await until(lambda: ear.heard == [("one", b"hello")])
            await until(lambda: ear.listener._confirmed == {"one", "two"})
            line = ear.listener._lines["a"]
            direct = scripts.connect(valkey)
            listeners = await direct.client_list(_type="pubsub")
            await direct.aclose()
            assert [int(one["ssub"]) for one in listeners] == [2]
            assert line._connection is not None

    with proxy(at, Path(valkey.removeprefix("unix://"))) as relay:
        run(story(relay))

"""The clients of both stores, as one process of a world has them."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from typing import Any

from redis import exceptions

from liveroom.errors import Unavailable
from liveroom.store.database import CommitUnknown, Database
from tests.simulation.loop import Process
from tests.simulation.world import CALL_FAULTS, REDIS_FAULTS, World


class SimRedis:
    """The client of one process, as far as selling calls it. Nothing is retried."""

    def __init__(self, world: World, process: Process) -> None:
        self._world = world
        self._process = process
        self._sources: dict[str, str] = {}

    async def _evaluate(self, source: str, count: int, *args: Any) -> Any:
        self._sources[hashlib.sha1(source.encode()).hexdigest()] = source
        name = source.partition("\n")[0].removeprefix("-- ")
        return await self._call(name, lambda: self._world.eval(name, source, count, args))

    async def hmget(self, key: str, fields: list[str]) -> Any:
        return await self._call("fence?", lambda: self._world.valkey.hmget(key, fields))

    async def unlink(self, *names: str) -> Any:
        return await self._call("forget", lambda: self._world.valkey.unlink(*names))

    async def execute_command(self, *words: Any) -> Any:
        """Scripts; and WAITAOF and SPUBLISH: nobody listens, nothing is lost but by a fault."""
        if words[0] == "EVAL":
            return await self._evaluate(*words[1:])
        if words[0] == "EVALSHA":
            if words[1] not in self._sources:
                raise exceptions.NoScriptError
            return await self._evaluate(self._sources[words[1]], *words[2:])
        return await self._call(str(words[0]), lambda: 0)

    async def _call(self, what: str, run: Callable[[], Any]) -> Any:
        return await self._world.call(
            self._process,
            what,
            run,
            CALL_FAULTS + REDIS_FAULTS,
            refused=lambda: exceptions.ConnectionError("refused"),
            unknown=lambda: exceptions.TimeoutError("no reply"),
        )


class RedisAtOnce(SimRedis):
    """For those who look on: nothing befalls their calls, and no time passes."""

    async def _call(self, _what: str, run: Callable[[], Any]) -> Any:
        return run()

    async def answers(self, commands: Sequence[tuple[str, Sequence[Any]]]) -> list[Any]:
        """Calls of scripts, in one round trip."""
        calls = [self.execute_command(*words) for _key, words in commands]
        return await asyncio.gather(*calls, return_exceptions=True)


class SimDatabase(Database):
    """The database as one process sees it: the real transactions, each in one step."""

    def __init__(self, world: World, process: Process) -> None:
        self.__dict__.update(world.database.__dict__)
        self._world = world
        self._process = process

    async def write(self, fn: Callable[[Any], Any]) -> Any:
        return await self._world.call(
            self._process,
            f"write {_name(fn)}",
            lambda: self._write(fn, lambda: None),
            CALL_FAULTS,
            refused=lambda: Unavailable("store_down"),
            unknown=CommitUnknown,
        )

    async def read(self, fn: Callable[[Any], Any], *, patient: bool = False) -> Any:
        return await self._world.call(
            self._process,
            f"read {_name(fn)}",
            lambda: self._read(fn, lambda: None, patient=patient),
            ("refused", "lost", "killed before", "killed after", "paused"),
            refused=lambda: Unavailable("store_down"),
            unknown=lambda: Unavailable("store_down"),
        )

    async def glance(self, fn: Callable[[Any], Any]) -> Any:
        return await self.read(fn)


class DatabaseAtOnce(Database):
    """The same for those who look on."""

    def __init__(self, world: World) -> None:
        self.__dict__.update(world.database.__dict__)

    async def read(self, fn: Callable[[Any], Any], *, patient: bool = False) -> Any:
        return self._read(fn, lambda: None, patient=patient)

    async def glance(self, fn: Callable[[Any], Any]) -> Any:
        return await self.read(fn)


def _name(fn: Any) -> str:
    fn = getattr(fn, "func", fn)
    return str(getattr(fn, "__qualname__", fn))

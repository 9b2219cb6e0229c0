"""A world under one seed: virtual time, stores that fail, processes that are killed.

The house's own code runs here as it is, on a real Valkey and a real SQLite file. What the
seed decides is when each call reaches a store, what befalls it, and which process dies. A
call to a store is carried out in one step of the loop, so a seed gives the same run again.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import selectors
from collections.abc import Callable, Sequence
from typing import Any, Final

import redis
from redis import exceptions

from liveroom.errors import Unavailable
from liveroom.store.database import CommitUnknown, Database

BASE_MS: Final = 1_790_000_000_000
CALL_FAULTS: Final = ("refused", "lost", "late", "killed before", "killed after")
REDIS_FAULTS: Final = ("restarted", "flushed", "rolled back")
THEMES: Final = {  # what goes wrong under a seed, how often a call is slow
    "everything": (CALL_FAULTS + REDIS_FAULTS, 0.05),
    "Redis comes and goes": (REDIS_FAULTS, 0.15),
    "replies are lost": (("lost", "late"), 0.10),
    "processes are killed": (("killed before", "killed after"), 0.05),
    "all is slow": (("late", "restarted", "flushed"), 0.30),
}

# What a server asks again and again: most calls are these, and most faults should be elsewhere.
_IDLE: Final = ("read ", "What is left", "End the holds of carts", "The placing holds", "SPUBLISH")


class Stuck(Exception):
    """Everybody waits and nothing is left to happen."""


class _Leap(selectors.DefaultSelector):
    """Waits for nothing: time leaps to what happens next."""

    now_s = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise Stuck
        self.now_s += max(timeout, 0.0)
        return []


class Loop(asyncio.SelectorEventLoop):
    """An event loop in virtual time."""

    def __init__(self) -> None:
        self._leap = _Leap()
        super().__init__(self._leap)

    def time(self) -> float:
        return self._leap.now_s


class Gone(Exception):
    """The process that was asked has been killed."""


class Process:
    """One process: whatever it awaits of a store after its death never returns."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.died = asyncio.Event()

    async def do(self, work: Any) -> Any:
        """What the process answers; `Gone` where it dies first."""
        if self.died.is_set():
            work.close()
            raise Gone
        task = asyncio.ensure_future(work)
        dying = asyncio.ensure_future(self.died.wait())
        await asyncio.wait({task, dying}, return_when=asyncio.FIRST_COMPLETED)
        dying.cancel()
        if not task.done():
            raise Gone
        return task.result()


class World:
    """Both stores, what may still go wrong, and how much time has passed."""

    def __init__(
        self,
        seed: int,
        valkey: redis.Redis,
        database: Database,
        *,
        faults: int,
        theme: str | None = None,
        lua: Sequence[tuple[str, str]] = (),
    ) -> None:
        self.rng = random.Random(seed)
        self.valkey = valkey
        self.database = database
        self.faults_left = faults
        self.lua = lua
        self.loop = asyncio.get_event_loop()
        self.faults, self.slow = THEMES[theme or self.rng.choice(sorted(THEMES))]
        self.redis_skew_ms = self.rng.choice([0, 0, -600_000, 600_000])
        self.run = 1
        self.calls = 0
        self.trace: list[str] = []
        self.looks: list[Callable[[], None]] = []
        self._images: list[dict[bytes, bytes]] = []
        self._scripts: dict[str, str] = {}

    # ── time ──────────────────────────────────────────────────────────────────────────────

    def sql_ms(self) -> int:
        """The clock of the database."""
        return BASE_MS + round(self.loop.time() * 1000)

    def redis_ms(self) -> int:
        """The clock of Redis, which may be ten minutes off."""
        return self.sql_ms() + self.redis_skew_ms

    # ── calls ─────────────────────────────────────────────────────────────────────────────

    async def call(
        self,
        process: Process,
        what: str,
        run: Callable[[], Any],
        faults: tuple[str, ...],
        *,
        refused: Callable[[], Exception],
        unknown: Callable[[], Exception],
    ) -> Any:
        """Carry out `run` for a process, or let something befall it."""
        await self._reach(process, self._hurry(what))
        self.calls += 1
        fault = self._fault(what, faults)
        self.trace.append(f"{self.loop.time():.4f} {process.name} {what} {fault}".rstrip())
        match fault:
            case "refused":
                raise refused()
            case "killed before":
                await self.kill(process)
            case "late":
                self.loop.call_later(self.rng.uniform(0.05, 1.4), self._carry_out_late, run)
                raise unknown()
            case "restarted" | "flushed" | "rolled back":
                self._befall_redis(fault)
        answer, error = None, None
        try:
            answer = run()
        except Exception as raised:  # noqa: BLE001 - handed to the caller after its way back
            error = raised
        for look in self.looks:
            look()
        if fault == "lost":
            await asyncio.sleep(self.rng.uniform(0.0, 0.05))
            raise unknown()
        if fault == "killed after":
            await self.kill(process)
        await self._reach(process, self.slow)
        if error is not None:
            raise error
        return answer

    async def kill(self, process: Process) -> None:
        """The process ends here and now; this never returns."""
        process.died.set()
        await self.loop.create_future()

    def _hurry(self, what: str) -> float:
        """How often this call is slow: commits and what is told of them meet others there."""
        return max(self.slow, 0.2) if what.startswith(("write ", "Tell gates")) else self.slow

    async def _reach(self, process: Process, slow: float) -> None:
        late = self.rng.random() < slow
        await asyncio.sleep(self.rng.uniform(0.2, 1.0) if late else self.rng.uniform(0.0, 0.01))
        if process.died.is_set():
            await self.loop.create_future()

    def _fault(self, what: str, faults: tuple[str, ...]) -> str:
        often = 0.005 if what.startswith(_IDLE) else 0.10
        if self.faults_left == 0 or self.rng.random() >= often:
            return ""
        possible = [fault for fault in self.faults if fault in faults]
        if not possible:
            return ""
        self.faults_left -= 1
        return self.rng.choice(possible)

    def _carry_out_late(self, run: Callable[[], Any]) -> None:
        self.trace.append(f"{self.loop.time():.4f} late")
        try:
            run()
        except Exception as error:  # noqa: BLE001 - nobody waits for it any more
            self.trace.append(f"late: {error!r}")

    # ── Redis ─────────────────────────────────────────────────────────────────────────────

    def keep_image(self) -> None:
        """What a restart may roll back to: Redis as it is now."""
        names = self.valkey.keys("*")
        self._images.append({name: self.valkey.dump(name) for name in names})

    def _befall_redis(self, fault: str) -> None:
        image = self.rng.choice(self._images) if self._images else {}
        self.valkey.flushdb()
        if fault == "rolled back":
            for name, dumped in image.items():
                self.valkey.restore(name, 0, dumped)
        if fault != "flushed":
            self.run += 1

    def eval(self, source: str, keys_count: int, args: tuple[Any, ...]) -> Any:
        """Run a script, with the clock and the run id of this world."""
        ms = self.redis_ms()
        more = (f"{self.run:040x}", ms // 1000, ms % 1000 * 1000)
        sha = self._scripts.get(source) or self._adapt(source)
        return self.valkey.evalsha(sha, keys_count, *args, *more)

    def _adapt(self, source: str) -> str:
        text = source.replace("redis.call('TIME')", "{ARGV[#ARGV - 1], ARGV[#ARGV]}")
        text = text.replace("redis.call('INFO', 'server')", "'run_id:' .. ARGV[#ARGV - 2]")
        for old, new in self.lua:
            text = text.replace(old, new)
        self._scripts[source] = sha = hashlib.sha1(text.encode()).hexdigest()
        if not self.valkey.script_exists(sha)[0]:
            self.valkey.script_load(text)
        return sha


class SimRedis:
    """The client of one process, as far as selling calls it. Nothing is retried."""

    def __init__(self, world: World, process: Process) -> None:
        self._world = world
        self._process = process
        self._sources: dict[str, str] = {}

    async def evalsha(self, sha: str, count: int, *args: Any) -> Any:
        if sha not in self._sources:
            raise exceptions.NoScriptError
        return await self.eval(self._sources[sha], count, *args)

    async def eval(self, source: str, count: int, *args: Any) -> Any:
        self._sources[hashlib.sha1(source.encode()).hexdigest()] = source
        name = source.partition("\n")[0].removeprefix("-- ")
        return await self._call(name, lambda: self._world.eval(source, count, args))

    async def hmget(self, key: str, fields: list[str]) -> Any:
        return await self._call("fence?", lambda: self._world.valkey.hmget(key, fields))

    async def info(self, section: str) -> Any:
        run = {"run_id": f"{self._world.run:040x}"}
        return await self._call("fit?", lambda: self._world.valkey.info(section) | run)

    async def unlink(self, *names: str) -> Any:
        return await self._call("forget", lambda: self._world.valkey.unlink(*names))

    async def execute_command(self, *words: Any) -> Any:
        """WAITAOF and SPUBLISH: nobody listens, and nothing is lost but by a fault."""
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


class AtOnce(Database):
    """The same of the database."""

    def __init__(self, world: World) -> None:
        self.__dict__.update(world.database.__dict__)

    async def read(self, fn: Callable[[Any], Any], *, patient: bool = False) -> Any:
        return self._read(fn, lambda: None, patient=patient)


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
            ("refused", "lost", "killed before", "killed after"),
            refused=lambda: Unavailable("store_down"),
            unknown=lambda: Unavailable("store_down"),
        )


def _name(fn: Any) -> str:
    fn = getattr(fn, "func", fn)
    return str(getattr(fn, "__qualname__", fn))

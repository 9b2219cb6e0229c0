"""A world under one seed: what befalls each call to a store, and which process it befalls.

The house's own code runs here as it is, on a real Valkey and a real SQLite file. What the
seed decides is when each call reaches a store, what befalls it, and which process dies or
stops. A call to a store is carried out in one step of the loop, so a seed gives the same run
again.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Callable, Sequence
from contextvars import Context
from typing import Any, Final, NamedTuple, cast

import redis

from liveroom.store.database import Database
from tests.simulation.loop import Loop, Process

BASE_MS: Final = 1_790_000_000_000
CALL_FAULTS: Final = ("refused", "lost", "late", "killed before", "killed after", "paused")
REDIS_FAULTS: Final = ("restarted", "flushed", "rolled back")
GIVEN_UP: Final = "given up"
"""The fault of a request: whoever asked is gone before it is answered, and it is cancelled."""


class Theme(NamedTuple):
    """What goes wrong under a seed, and how often a call is slow."""

    faults: tuple[str, ...]
    slow: float


THEMES: Final = {
    "everything": Theme((*CALL_FAULTS, *REDIS_FAULTS, GIVEN_UP), 0.05),
    "Redis comes and goes": Theme(REDIS_FAULTS, 0.15),
    "replies are lost": Theme(("lost", "late"), 0.10),
    "processes are killed": Theme(("killed before", "killed after"), 0.05),
    "processes stop for a while": Theme(("paused", "paused", "restarted"), 0.10),
    "requests are given up": Theme((GIVEN_UP, "late"), 0.10),
    "all is slow": Theme(("late", "restarted", "flushed"), 0.30),
}

# Where a fault tells most: what changes something. All else is asked again and again.
_CHANGES: Final = (
    "write ",
    "bank: ",
    "Hold units",
    "Offer units",
    "Turn the unexpired",
    "Give placing",
    "End holds",
    "Tell gates",
    "Set what",
)

# What meets others where it is slow: commits, what is told of them, holds that change hands.
_MEETING: Final = ("write ", "Tell gates", "Give placing")

Hear = Callable[[str, Sequence[Any], Any], None]


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
        self.loop = cast("Loop", asyncio.get_event_loop())
        self.faults, self.slow = THEMES[theme or self.rng.choice(sorted(THEMES))]
        self.redis_skew_ms = self.rng.choice([0, 0, -600_000, 600_000])
        self.run = 1
        self.calls = 0
        self.wrong: AssertionError | None = None
        self.trace: list[str] = []
        self.looks: list[Callable[[], None]] = []
        self.hears: list[Hear] = []
        self._lua = lua
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
        try:
            await self._reach(process, self._hurry(what))
        except asyncio.CancelledError:
            if not process.died.is_set() and self.rng.random() < 0.5:
                self._carry_out_later(run, 0.05)  # it was on its way
            raise
        self.calls += 1
        fault = self._fault(what, faults)
        self.trace.append(f"{self.loop.time():.4f} {process.name} {what} {fault}".rstrip())
        await self._befall_before(fault, process, run, refused, unknown)
        answer, error = None, None
        try:
            answer = run()
        except Exception as raised:  # noqa: BLE001 - handed to the caller after its way back
            error = raised
        for look in self.looks:
            self.found(look)
        await self._befall_after(fault, process, unknown)
        await self._return(process)
        if error is not None:
            raise error
        return answer

    async def _befall_before(
        self,
        fault: str,
        process: Process,
        run: Callable[[], Any],
        refused: Callable[[], Exception],
        unknown: Callable[[], Exception],
    ) -> None:
        match fault:
            case "refused":
                raise refused()
            case "killed before":
                await self.kill(process)
            case "late":
                self._carry_out_later(run, 1.4)
                raise unknown()
            case "restarted" | "flushed" | "rolled back":
                self._befall_redis(fault)

    async def _befall_after(
        self, fault: str, process: Process, unknown: Callable[[], Exception]
    ) -> None:
        match fault:
            case "lost":
                await asyncio.sleep(self.rng.uniform(0.0, 0.05))
                raise unknown()
            case "killed after":
                await self.kill(process)
            case "paused":
                self._pause(process)

    def found(self, look: Callable[..., None], *args: Any) -> None:
        """Let somebody look; what is wrong is the world's, and no fault of any call."""
        try:
            look(*args)
        except AssertionError as wrong:
            self.wrong = self.wrong or wrong

    async def kill(self, process: Process) -> None:
        """The process ends here and now; this never returns."""
        process.died.set()
        await self.loop.create_future()

    def calm_down(self) -> None:
        """Nothing goes wrong from now on, and calls are quick."""
        self.faults_left, self.slow = 0, 0.0

    def waits_given_up(self) -> int | None:
        """At which of its waits a request is given up; none: it is answered."""
        if GIVEN_UP not in self.faults or not self.faults_left or self.rng.random() >= 0.15:
            return None
        self.faults_left -= 1
        wait = self.rng.randrange(12)
        self.trace.append(f"{self.loop.time():.4f} {GIVEN_UP} at wait {wait}")
        return wait

    def _pause(self, process: Process) -> None:
        """For longer than a hold may be placing; perhaps for longer than a sweeper's lease."""
        pause_s = self.rng.choice([self.rng.uniform(0.6, 1.3), self.rng.uniform(1.3, 6.0)])
        self.loop.pause(process, self.loop.time() + pause_s)

    def _hurry(self, what: str) -> float:
        """How often this call is slow."""
        return max(self.slow, 0.2) if what.startswith(_MEETING) else self.slow

    async def _reach(self, process: Process, slow: float) -> None:
        late = self.rng.random() < slow
        await asyncio.sleep(self.rng.uniform(0.2, 1.0) if late else self.rng.uniform(0.0, 0.01))
        if process.died.is_set():
            await self.loop.create_future()

    async def _return(self, process: Process) -> None:
        if self.rng.random() < self.slow:
            await asyncio.sleep(self.rng.uniform(0.2, 1.0))
        if process.died.is_set():
            await self.loop.create_future()

    def _fault(self, what: str, faults: tuple[str, ...]) -> str:
        often = 0.12 if what.startswith(_CHANGES) else 0.01
        if self.faults_left == 0 or self.rng.random() >= often:
            return ""
        possible = [fault for fault in self.faults if fault in faults]
        if not possible:
            return ""
        self.faults_left -= 1
        return self.rng.choice(possible)

    def _carry_out_later(self, run: Callable[[], Any], within_s: float) -> None:
        late_s = self.rng.uniform(0.0, within_s)
        self.loop.call_later(late_s, self._carry_out, run, context=Context())

    def _carry_out(self, run: Callable[[], Any]) -> None:
        self.trace.append(f"{self.loop.time():.4f} late")
        try:
            run()
        except Exception as error:  # noqa: BLE001 - nobody waits for it any more
            self.trace.append(f"late: {error!r}")

    # ── Redis ─────────────────────────────────────────────────────────────────────────────

    def keep_image(self) -> None:
        """What a restart may roll back to: Redis as it is now."""
        if "rolled back" not in self.faults or not self.faults_left:
            return
        names = self.valkey.keys("*")
        with self.valkey.pipeline(transaction=False) as dumps:
            for name in names:
                dumps.dump(name)
            self._images.append(dict(zip(names, dumps.execute(), strict=True)))

    def _befall_redis(self, fault: str) -> None:
        image = self.rng.choice(self._images) if self._images else {}
        self.valkey.flushdb()
        if fault == "rolled back":
            for name, dumped in image.items():
                self.valkey.restore(name, 0, dumped)
        if fault != "flushed":
            self.run += 1

    def eval(self, name: str, source: str, keys_count: int, args: tuple[Any, ...]) -> Any:
        """Run a script, with the clock and the run id of this world."""
        ms = self.redis_ms()
        more = (f"{self.run:040x}", ms // 1000, ms % 1000 * 1000)
        sha = self._scripts.get(source) or self._adapt(source)
        answer = self.valkey.evalsha(sha, keys_count, *args, *more)
        for hear in self.hears:
            self.found(hear, name, args[keys_count:], answer)
        return answer

    def _adapt(self, source: str) -> str:
        text = source.replace("redis.call('TIME')", "({ARGV[#ARGV - 1], ARGV[#ARGV]})")
        text = text.replace("redis.call('INFO', 'server')", "('run_id:' .. ARGV[#ARGV - 2])")
        for old, new in self._lua:
            text = text.replace(old, new)
        self._scripts[source] = sha = hashlib.sha1(text.encode()).hexdigest()
        if not self.valkey.script_exists(sha)[0]:
            self.valkey.script_load(text)
        return sha

"""Runs of the simulated sale: one for each seed."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import sys
import traceback
from collections.abc import Sequence
from contextlib import ExitStack
from types import SimpleNamespace
from typing import NamedTuple
from unittest import mock

import redis
import structlog

from liveroom import batching
from liveroom.store import fences
from liveroom.store.database import Database
from tests.simulation.sale import Sale
from tests.simulation.world import Loop, Stuck, World

FAULTS_MAX = 9


class Outcome(NamedTuple):
    """What came of a seed: what was wrong, if anything, and all calls to stores in order."""

    seed: int
    wrong: str | None
    trace: list[str]


def simulate(
    seed: int,
    valkey: redis.Redis,
    database: Database,
    *,
    lua: Sequence[tuple[str, str]] = (),
    theme: str | None = None,
) -> Outcome:
    """One run of a sale under this seed; what goes wrong in it is the seed's, or of the theme."""
    loop = Loop()
    asyncio.set_event_loop(loop)
    loop.set_exception_handler(lambda _loop, _context: None)  # the dead leave futures behind
    world = World(
        seed,
        valkey,
        database,
        faults=FAULTS_MAX if theme else seed % (FAULTS_MAX + 1),
        theme=theme,
        lua=lua,
    )
    numbers = itertools.count()

    def number() -> str:
        return f"i{next(numbers):06d}"

    clock = SimpleNamespace(monotonic=loop.time)
    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(fences, "time", clock))
        stack.enter_context(mock.patch.object(batching, "monotonic", loop.time))
        for module in [one for name, one in sys.modules.items() if name.startswith("liveroom.")]:
            if hasattr(module, "new_id"):
                made = mock.patch.object(module, "new_id", number)
                stack.enter_context(made)
        _set_sql_clock(database, world)
        stack.enter_context(structlog.testing.capture_logs())
        try:
            loop.run_until_complete(asyncio.wait_for(Sale(world).run(), 600))
            wrong = None
        except Exception:  # noqa: BLE001 - whatever it is, it is what the seed has found
            wrong = traceback.format_exc()
        finally:
            _end(loop)
    return Outcome(seed, wrong, world.trace)


def _set_sql_clock(database: Database, world: World) -> None:
    """SQLite asks its julianday: give it the world's."""
    for engine in (database._writer, database._reader):
        with engine.connect() as conn:
            raw = conn.connection.driver_connection
            raw.create_function("julianday", 1, lambda _: world.sql_ms() / 86_400_000 + 2_440_587.5)


def _end(loop: Loop) -> None:
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    with contextlib.suppress(Stuck):  # a killed process that waits in its `finally` never ends
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
    loop.close()
    asyncio.set_event_loop(None)

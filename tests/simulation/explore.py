"""Runs of the simulated sale: one for each seed."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import sys
import traceback
from collections.abc import Iterator, MutableMapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest import mock

import redis
import structlog
from sqlalchemy import event

from liveroom import batching, drawing
from liveroom.errors import LiveroomError
from liveroom.store import fences
from liveroom.store.database import Database
from tests.simulation.loop import Loop, Stuck, is_dead
from tests.simulation.sale import Sale
from tests.simulation.world import World

FAULTS_MAX = 9


class Outcome(NamedTuple):
    """What came of a seed: what was wrong, if anything, and all calls to stores in order."""

    seed: int
    wrong: str | None
    trace: list[str]


def hurried(path: Path) -> Database:
    """A SQLite database that does not wait for its disk: power is not cut in these worlds."""
    database = Database(f"sqlite:///{path}")

    def hurry(connection: Any, _record: Any) -> None:
        connection.execute("PRAGMA synchronous = OFF").close()

    for engine in (database._writer, database._reader):
        event.listen(engine, "connect", hurry)
    return database


def simulate(
    seed: int,
    valkey: redis.Redis,
    database: Database,
    *,
    lua: Sequence[tuple[str, str]] = (),
    theme: str | None = None,
    focus: str | None = None,
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
    with ExitStack() as stack:
        for patch in _of_this_world(world):
            stack.enter_context(patch)
        _set_sql_clock(database, world)
        stack.enter_context(_heeded_logs(world))
        try:
            sale = Sale(world, focus=focus)
            loop.run_until_complete(asyncio.wait_for(sale.run(), 600))
            wrong = None
        except Exception:  # noqa: BLE001 - whatever it is, it is what the seed has found
            wrong = traceback.format_exc()
        finally:
            _end(loop)
    return Outcome(seed, wrong, world.trace)


def _of_this_world(world: World) -> Iterator[Any]:
    """Its time for everybody who looks at a clock, its ids and seeds for whoever makes some."""
    numbers = itertools.count()
    yield mock.patch.object(fences, "time", SimpleNamespace(monotonic=world.loop.time))
    yield mock.patch.object(batching, "monotonic", world.loop.time)

    def number() -> str:
        return f"i{next(numbers):06d}"

    def new_seed() -> str:
        return f"{world.rng.getrandbits(256):064x}"

    yield mock.patch.object(drawing, "new_seed", new_seed)
    for module in [one for name, one in sys.modules.items() if name.startswith("liveroom.")]:
        if hasattr(module, "new_id"):
            yield mock.patch.object(module, "new_id", number)


def _set_sql_clock(database: Database, world: World) -> None:
    """SQLite asks its julianday: give it the world's."""
    for engine in (database._writer, database._reader):
        with engine.connect() as conn:
            raw = conn.connection.driver_connection
            raw.create_function("julianday", 1, lambda _: world.sql_ms() / 86_400_000 + 2_440_587.5)


@contextmanager
def _heeded_logs(world: World) -> Iterator[None]:
    """Nothing is printed; what is logged as a fault of ours is one."""

    def heed(_logger: Any, method: str, entry: MutableMapping[str, Any]) -> None:
        cause = entry.get("exc_info")
        cause = sys.exc_info()[1] if cause is True else cause
        is_fault = method in ("error", "exception") and not isinstance(cause, LiveroomError)
        if is_fault and not is_dead():
            said = "".join(traceback.format_exception(cause)) if cause else ""
            wrong = AssertionError(f"logged as a fault: {entry['event']}\n{said}")
            world.wrong = world.wrong or wrong
        raise structlog.DropEvent

    processors = structlog.get_config()["processors"]
    before = processors.copy()
    processors[:] = [heed]
    try:
        yield
    finally:
        processors[:] = before


def _end(loop: Loop) -> None:
    """End all tasks, also those that wait for a store in their `finally`."""
    while tasks := asyncio.all_tasks(loop):
        for task in tasks:
            task.cancel()
        with contextlib.suppress(Stuck):
            loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
    loop.close()
    asyncio.set_event_loop(None)

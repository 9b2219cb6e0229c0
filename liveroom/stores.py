"""The stores, opened as the settings say, and what is done with them before and after serving.

One process makes them ready before the first worker starts, and leaves its marks after the
last one has gone; audits and exports open them beside a live server.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, NamedTuple

import structlog

from liveroom import audit as audits
from liveroom import exports
from liveroom.clock import ServerClock
from liveroom.errors import Unavailable
from liveroom.inventory import Inventory
from liveroom.settings import BadSetting, Settings, limit_ms
from liveroom.store import partitions, runs, scripts
from liveroom.store.backplane import Backplane
from liveroom.store.cooling import Cooling
from liveroom.store.database import Database
from liveroom.store.gates import Inspection

log = structlog.get_logger(__name__)


class Stores(NamedTuple):
    """The two stores, opened, and the time by which both are read.

    `listening` is a client of its own for the backplane's lines, which look at a cluster anew
    in their own time.
    """

    database: Database
    client: scripts.Client
    listening: scripts.Client
    clock: ServerClock

    async def close(self) -> None:
        """Close every connection to either store."""
        await self.listening.aclose()
        await self.client.aclose()
        await self.database.close()


def upgrade(settings: Settings) -> None:
    """Bring the tables up to this release; `BadSetting` where the database cannot be used."""
    database = open_database(settings)
    with _named("--database-url"):
        database.upgrade()
    asyncio.run(database.close())


async def check(settings: Settings) -> None:
    """Bring the tables up to this release, and see that both stores may be used.

    Takes nothing over: whatever is wrong here leaves what a planned stop left as it is.
    Raises `BadSetting` with the name of the setting that must change.
    """
    async with opened(settings) as stores:
        with _named("--database-url"):
            stores.database.upgrade()
        with _named("--redis-url"):
            await scripts.check_policy(stores.client)


async def prepare(settings: Settings) -> None:
    """Make stock and the rooms' logs ready before the port opens, once both stores are checked.

    What a planned stop left is taken over; otherwise stock is rebuilt from SQL. Raises
    `store_down` where a store has gone away since.
    """
    async with opened(settings) as stores:
        await measure(stores)
        inventory = stock_of(settings, stores)
        left = await stores.database.write(runs.take)
        await inventory.start()
        await inventory.close()
        fence = await stores.database.read(lambda conn: partitions.fence(conn, 0))
        if left is not None and left.fence == fence.epoch:
            await backplane_of(stores).adopt(left.run)


async def leave_marks(settings: Settings) -> None:
    """Leave the stock and the rooms' logs to the next start; nothing serves any more."""
    async with opened(settings) as stores:
        try:
            inventory = stock_of(settings, stores)
            await inventory.start()
            run = await scripts.run_id(stores.client)
            fence = await stores.database.read(lambda conn: partitions.fence(conn, 0))
            await inventory.planned_stop()
            left = runs.Left(run=run, fence=fence.epoch)
            await stores.database.write(lambda conn: runs.leave(conn, left))
        except Unavailable as away:
            log.warning("stopped_without_marks", code=away.code)


async def audit(settings: Settings) -> dict[str, Any]:
    """The report of every sum; without a Redis that answers, SQL is checked alone."""
    _must_exist(settings)
    redis_url = settings.redis_url
    if redis_url is None and settings.running_redis.is_file():
        redis_url = settings.running_redis.read_text()
    if redis_url is None:
        database = open_database(settings)
        try:
            return (await audits.audit(database)).builtin()
        finally:
            await database.close()
    async with opened(replace(settings, redis_url=redis_url)) as stores:
        inspected = await inspection(stock_of(settings, stores))
        return (await audits.audit(stores.database, inspected)).builtin()


async def inspection(inventory: Inventory) -> list[Inspection] | None:
    """The gates as they are now; none where Redis does not say, which the report tells."""
    with suppress(Unavailable):
        return await inventory.inspect()
    return None


async def export_orders(settings: Settings, room: str | None, out: IO[str]) -> int:
    """Write orders as CSV (see `exports`); how many lines there were."""
    _must_exist(settings)
    database = open_database(settings)
    try:
        return await database.read(
            lambda conn: exports.write_orders(conn, out, room=room), patient=True
        )
    finally:
        await database.close()


def _must_exist(settings: Settings) -> None:
    """Refuse to make an empty database where one is to be read."""
    path = settings.database().removeprefix("sqlite:///")
    if path.startswith("/") and not Path(path).is_file():
        raise BadSetting(f"--data: there is no database at {path}")


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Stores]:
    """The stores of a process that serves nobody, closed in the end."""
    stores = stores_of(settings)
    try:
        yield stores
    finally:
        await stores.close()


def stores_of(settings: Settings) -> Stores:
    """The stores of these settings; connections are made as they are needed."""
    clients = _client(settings), _client(settings)
    return Stores(open_database(settings), *clients, ServerClock())


def open_database(settings: Settings) -> Database:
    """The database of these settings, not connected; SQLite's folder is made.

    Raises `BadSetting` where there can be none.
    """
    try:
        settings.data.mkdir(mode=0o700, parents=True, exist_ok=True)
        return Database(settings.database(), lock_path=settings.data / "sqlite.lock")
    except OSError as fault:
        raise BadSetting(f"--data: {fault}") from fault
    except ValueError as fault:
        raise BadSetting(f"--database-url: {fault}") from fault


def _client(settings: Settings) -> scripts.Client:
    try:
        return scripts.connect(settings.redis_url or "")
    except ValueError as fault:
        raise BadSetting(f"--redis-url: {fault}") from fault


@contextmanager
def _named(setting: str) -> Iterator[None]:
    """Have a store that cannot be used refused by the name of its setting, with the cause."""
    try:
        yield
    except scripts.StoreUnfit as unfit:
        raise BadSetting(f"{setting}: {unfit}") from unfit
    except Unavailable as away:
        cause = getattr(away.__cause__, "orig", away.__cause__)  # the driver's own words
        words = str(cause or "").strip() or "no answer in time"
        raise BadSetting(f"{setting}: it cannot be used: {words.splitlines()[0]}") from away


def stock_of(settings: Settings, stores: Stores) -> Inventory:
    """The stock in these stores, not started."""
    hold_ttl_s = limit_ms(settings.hold_ttl_s) / 1000
    return Inventory(
        stores.database,
        stores.client,
        stores.clock,
        hold_ttl_s=hold_ttl_s,
        partitions=settings.stock_partitions,
    )


def cooling_of(settings: Settings, stores: Stores) -> Cooling | None:
    """The cool-down after expired holds; none where none is set."""
    if not settings.hoarding_expired_max:
        return None
    return Cooling(
        stores.client,
        most=settings.hoarding_expired_max,
        window_ms=limit_ms(settings.hoarding_window_s),
        cool_ms=limit_ms(settings.hoarding_wait_s),
    )


def backplane_of(stores: Stores) -> Backplane:
    """The backplane over this Redis, not started."""
    return Backplane(stores.client, stores.listening, stores.clock)


async def measure(stores: Stores) -> None:
    """Set the clock by the database's."""
    asked = time.monotonic()
    database_ms = await stores.database.now_ms()
    stores.clock.set(database_ms, asked=asked, answered=time.monotonic())

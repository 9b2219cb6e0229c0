"""Real stores for every test: one embedded Valkey a session, a fresh database a test."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from redis.asyncio import Redis
from sqlalchemy import text

from liveroom.clock import ManualClock
from liveroom.store import scripts, tables
from liveroom.store.backplane import Backplane
from liveroom.store.database import Database
from liveroom.store.valkey import EmbeddedValkey
from tests.tools import Postgres

T = TypeVar("T")


@pytest.fixture
def run() -> Callable[[Coroutine[Any, Any, T]], T]:
    """Runs a coroutine on an event loop of its own, for at most 30 s."""

    async def bounded(coroutine: Coroutine[Any, Any, T]) -> T:
        async with asyncio.timeout(30):
            return await coroutine

    return lambda coroutine: asyncio.run(bounded(coroutine))


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of one embedded Valkey, shared by all tests of the session."""
    server = EmbeddedValkey(tmp_path_factory.mktemp("store"))
    yield server.start()
    server.stop()


@pytest.fixture
def redis_url(valkey: str) -> str:
    """The URL of an empty Redis."""

    async def flush() -> None:
        client = scripts.connect(valkey)
        await client.flushall()
        await client.aclose()

    asyncio.run(flush())
    return valkey


@pytest.fixture
def manual_backplane() -> Callable[[Redis], Backplane]:
    """Makes a backplane on a clock that stands still; it publishes and reads, but hears nothing."""
    return lambda client: Backplane(client, client, ManualClock())


@pytest.fixture(scope="session")
def _empty_schema(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with every table and no row; each test copies it."""
    path = tmp_path_factory.mktemp("schema") / "liveroom.db"
    database = Database(f"sqlite:///{path}")
    database.upgrade()
    asyncio.run(database.close())
    return path


@pytest.fixture
def db(_empty_schema: Path, tmp_path: Path) -> Iterator[Database]:
    """A fresh SQLite database of the present schema."""
    path = tmp_path / "liveroom.db"
    shutil.copy(_empty_schema, path)
    database = Database(f"sqlite:///{path}", lock_path=tmp_path / "sqlite.lock")
    yield database
    asyncio.run(database.close())


@pytest.fixture(scope="session")
def _postgres_cluster() -> Iterator[Postgres]:
    """A PostgreSQL cluster of its own; skipped where it is not installed."""
    cluster = Postgres("fsync=off")
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.close()


@pytest.fixture
def postgres_url(_postgres_cluster: Postgres) -> str:
    """The URL of a new, empty PostgreSQL database."""
    return _postgres_cluster.fresh()


@pytest.fixture(scope="session")
def _postgres_books(_postgres_cluster: Postgres) -> str:
    """The URL of a PostgreSQL database with every table, made once."""
    url = _postgres_cluster.fresh("liveroom_books")
    database = Database(url)
    database.upgrade()
    asyncio.run(database.close())
    return url


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def books(request: pytest.FixtureRequest) -> Iterator[Database]:
    """A database without a row: once SQLite, once PostgreSQL."""
    if request.param == "sqlite":
        yield request.getfixturevalue("db")
        return
    database = Database(request.getfixturevalue("_postgres_books"))
    names = ", ".join(f'"{name}"' for name in tables.metadata.tables)
    asyncio.run(database.write(lambda conn: conn.execute(text(f"TRUNCATE {names}")) and None))
    yield database
    asyncio.run(database.close())

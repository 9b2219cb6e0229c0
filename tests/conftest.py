"""Real stores for every test: one embedded Valkey a session, a fresh database a test."""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import subprocess
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from redis.asyncio import Redis

from liveroom.clock import ManualClock
from liveroom.store import scripts
from liveroom.store.backplane import Backplane
from liveroom.store.database import Database
from liveroom.store.valkey import EmbeddedValkey

T = TypeVar("T")
PG_BIN = Path("/usr/lib/postgresql/15/bin")


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
def _postgres_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A PostgreSQL 15 cluster of its own on a unix socket; skipped where it is not installed."""
    if not (PG_BIN / "initdb").exists():
        pytest.skip(f"needs PostgreSQL 15 in {PG_BIN}")
    user = "postgres" if os.getuid() == 0 else pwd.getpwuid(os.getuid()).pw_name
    as_user = {"user": user} if os.getuid() == 0 else {}
    folder = Path(f"/tmp/liveroom-pg-{os.getpid()}")
    folder.mkdir(mode=0o700)
    if as_user:
        shutil.chown(folder, user)

    def call(*argv: object) -> None:
        subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, cwd=folder, **as_user)

    control = [PG_BIN / "pg_ctl", "-D", folder / "data", "-w", "-l", folder / "log"]
    options = f"-k {folder} -c listen_addresses= -c shared_buffers=32MB -c fsync=off"
    try:
        call(PG_BIN / "initdb", "-D", folder / "data", "-U", "postgres", "-A", "trust", "-N")
        call(*control, "-o", options, "start")
        yield f"postgresql://postgres@/postgres?host={folder}"
        call(*control, "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def postgres_url(_postgres_cluster: str) -> str:
    """The URL of a new, empty PostgreSQL database."""
    import psycopg  # noqa: PLC0415 - an extra, installed with PostgreSQL only

    with psycopg.connect(_postgres_cluster, autocommit=True) as admin:
        admin.execute("DROP DATABASE IF EXISTS liveroom_test WITH (FORCE)")
        admin.execute("CREATE DATABASE liveroom_test")
    return _postgres_cluster.replace("/postgres?", "/liveroom_test?")

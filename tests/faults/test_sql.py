"""A whole server whose database is locked, slow, cut off, killed, or held by a worker that hangs.

With `LIVEROOM_FAULT_LONG`, as in `make faults`, each for longer and in more ways.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from liveroom.ids import new_id
from tests.crowd import Viewer, staying, until
from tests.live import Live, serving
from tests.proxy import Proxy, proxy
from tests.sale import FEW, Sale
from tests.tools import Postgres

LONG = "LIVEROOM_FAULT_LONG" in os.environ
HANGS_S = 10.0 if LONG else 3.0
SKUS = tuple(f"s{number}" for number in range(1, 30))
FLAGS = ("--message-rate-max", "0")


@pytest.fixture(scope="module")
def skus() -> Iterator[str]:
    """SKUs that no other test buys."""
    return iter(SKUS)


# ── SQLite ────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def sqlite(tmp_path_factory) -> Iterator[Live]:
    folder = tmp_path_factory.mktemp("sqlite") / "data"
    with serving(folder, *FLAGS, stock=FEW, skus=SKUS) as live:
        yield live


@contextlib.contextmanager
def _writing(server: Live) -> Iterator[None]:
    """Another program writes for a long time."""
    with contextlib.closing(sqlite3.connect(server.data / "liveroom.db", timeout=10)) as other:
        other.isolation_level = None
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


@contextlib.contextmanager
def _holding_the_flock(server: Live) -> Iterator[None]:
    """Another worker has its turn to write and does not end it."""
    with (server.data / "sqlite.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.mark.parametrize("hang", [_writing, _holding_the_flock])
def test_buying_is_refused_in_time_while_sql_cannot_be_written(sqlite, skus, hang):
    """SQL is locked: buying is answered 503 in time, chat goes on, and so does the sale after."""
    sku = next(skus)

    async def story() -> None:
        sale = Sale(sqlite, sku, spare=next(skus))
        ann = Viewer(sqlite, "ann")
        async with staying(ann):
            async with sale.going_on():
                codes = set()
                with hang(sqlite):
                    until_s = time.monotonic() + HANGS_S
                    while time.monotonic() < until_s:
                        codes.add(await sale.code_of(ann, new_id()))
                        await ann.do("message.post", new_id(), text="is anybody there?")
                await sale.is_normal_again()
                assert codes <= {"store_down", "ok"}
                assert "store_down" in codes
            assert not ann.ends, "nobody is sent away because SQL hangs"
        await sale.adds_up()

    asyncio.run(asyncio.wait_for(story(), 60 + HANGS_S))


# ── PostgreSQL ────────────────────────────────────────────────────────────────────────────


class Place(NamedTuple):
    """A server, its PostgreSQL, and the relay between them."""

    server: Live
    proxy: Proxy
    postgres: Postgres


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("pg")
    postgres = Postgres()
    try:
        postgres.start()
        (folder / "relay").mkdir()
        with proxy(folder / "relay" / postgres.socket.name, postgres.socket) as relay:
            url = postgres.fresh().replace(str(postgres.folder), str(folder / "relay"))
            flags = ("--database-url", url, *FLAGS)
            with serving(folder / "data", *flags, stock=FEW, skus=SKUS) as live:
                yield Place(live, relay, postgres)
    finally:
        postgres.close()


@pytest.mark.postgres
@pytest.mark.parametrize("torn", [False, True] if LONG else [False])
def test_commits_whose_replies_never_came(place, skus, torn):
    """Whether an order is there is read back: each is there once, and is answered."""
    sku = next(skus)

    async def story() -> None:
        sale = Sale(place.server, sku)
        async with sale.going_on():
            for _ in range(20 if LONG else 5):
                before = place.proxy.lost
                place.proxy.lose_replies(b"COMMIT", torn=torn)
                await until(lambda before=before: place.proxy.lost > before)
                await sale.more(5)
            await sale.is_normal_again()
        await sale.adds_up()

    asyncio.run(asyncio.wait_for(story(), 90))


def _cut(place: Place) -> None:
    place.proxy.cut()


def _crash(place: Place) -> None:
    place.postgres.kill()
    place.postgres.start()


@pytest.mark.postgres
@pytest.mark.parametrize("fail", [_cut, _crash])
def test_the_database_is_away_for_a_moment(place, skus, fail):
    """Connections are cut, or PostgreSQL crashes and recovers, in the middle of the sale."""
    sku = next(skus)

    async def story() -> None:
        sale = Sale(place.server, sku)
        async with sale.going_on():
            for _ in range(5 if LONG else 2):
                await asyncio.to_thread(fail, place)
                await sale.is_normal_again()
        await sale.adds_up()

    asyncio.run(asyncio.wait_for(story(), 90))


def _stall(place: Place) -> None:
    place.proxy.stall()


def _slow_down(place: Place) -> None:
    place.proxy.delay_s = 0.4


@pytest.mark.postgres
@pytest.mark.parametrize("hang", [_stall, _slow_down])
def test_buying_is_answered_in_time_while_postgresql_hangs(place, skus, hang):
    """No answer comes, or each only after a while: buying is answered 503 in time, chat goes on."""
    sku = next(skus)

    async def story() -> None:
        sale = Sale(place.server, sku, spare=next(skus))
        ann = Viewer(place.server, f"ann-{sku}")
        async with staying(ann), sale.going_on():
            hang(place)
            codes = set()
            until_s = time.monotonic() + HANGS_S
            while time.monotonic() < until_s:
                codes.add(await sale.code_of(ann, new_id()))
                await ann.do("message.post", new_id(), text="is anybody there?")
            place.proxy.flow()
            place.proxy.delay_s = 0.0
            await sale.is_normal_again()
            assert "store_down" in codes, codes
        await sale.adds_up()

    try:
        asyncio.run(asyncio.wait_for(story(), 60 + HANGS_S))
    finally:
        place.proxy.flow()
        place.proxy.delay_s = 0.0


# ── workers that hang ─────────────────────────────────────────────────────────────────────


def test_a_worker_that_stops_inside_a_transaction(tmp_path, skus):
    """One of two workers stops while it has the turn to write: the other sells on without a human."""
    sku = next(skus)
    flags = ("--workers", "2", *FLAGS)
    with serving(tmp_path / "data", *flags, stock=FEW, skus=(sku,)) as server:

        async def story() -> None:
            sale = Sale(server, sku, buyers=12)
            async with sale.going_on():
                before = server.workers()
                stopped = await asyncio.to_thread(_stop_in_a_transaction, server, lambda: before)
                await until(lambda: stopped not in server.workers())
                await sale.is_normal_again()
            await sale.adds_up()

        asyncio.run(asyncio.wait_for(story(), 90))


def _stop_in_a_transaction(server: Live, workers: Callable[[], set[int]]) -> int:
    """Stop a worker that holds the turn to write at that moment; its process id."""
    until_s = time.monotonic() + 30
    with (server.data / "sqlite.lock").open() as lock:
        while time.monotonic() < until_s:
            for pid in workers():
                os.kill(pid, signal.SIGSTOP)
                if _has(lock.fileno(), pid):
                    return pid
                os.kill(pid, signal.SIGCONT)
    raise AssertionError("no worker was ever caught inside a transaction")


def _has(lock: int, pid: int) -> bool:
    """Whether this process has the lock on this file."""
    inode = os.fstat(lock).st_ino
    locks = Path("/proc/locks").read_text().splitlines()
    rows = [line.split() for line in locks if "FLOCK" in line and "->" not in line]
    return any(row[4] == str(pid) and row[5].endswith(f":{inode}") for row in rows)

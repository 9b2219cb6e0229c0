"""Power is cut, the disk is full, a sync fails: what was acknowledged is there afterwards.

`LIVEROOM_FAULT_LONG`, as in `make faults`, cuts the power again and again.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing

import pytest

from bench.checker import read_books
from liveroom.ids import new_id
from tests.crowd import Viewer, staying, until
from tests.disk import Disk
from tests.live import Live, Seat
from tests.sale import FEW, Sale

LONG = "LIVEROOM_FAULT_LONG" in os.environ
ORDERS = 2000 if LONG else 250
WITHIN_S = 300 if LONG else 60
CUTS = 5 if LONG else 1
SYNC_EVERY_S = 1.0
"""Of Valkey, by `appendfsync everysec`."""


@pytest.fixture
def disk(tmp_path) -> Disk:
    root = tmp_path / "data"
    root.mkdir(mode=0o700)
    return Disk(tmp_path, root)


@pytest.fixture
def server(disk) -> Iterator[Live]:
    live = Live(disk.root, "--message-rate-max", "0", env=disk.env)
    try:
        live.start()
        live.shop(stock=FEW, skus=("s1", "s2"))
        yield live
    finally:
        live.close()


WRITER = """
import os, signal, sqlite3, sys
path, synchronous = sys.argv[1:]
conn = sqlite3.connect(path, isolation_level=None)
conn.execute("PRAGMA journal_mode = WAL")
conn.execute(f"PRAGMA synchronous = {synchronous}")
conn.execute("CREATE TABLE t (n INTEGER)")
for n in range(50):
    conn.execute("INSERT INTO t VALUES (?)", (n,))
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize(("synchronous", "kept"), [("FULL", 50), ("NORMAL", 0)])
def test_the_disk_forgets_what_was_not_synced(disk, tmp_path, synchronous, kept):
    """The disk of these tests can tell a database that syncs its commits from one that does not."""
    path = disk.root / "t.db"
    command = [sys.executable, "-c", WRITER, str(path), synchronous]
    subprocess.run(command, env={**os.environ, **disk.env}, check=False)
    after = disk.after_a_power_cut(tmp_path / "after")
    with closing(sqlite3.connect(after / "t.db")) as conn:
        tables = conn.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
        assert (conn.execute("SELECT COUNT(*) FROM t").fetchone() if tables[0] else (0,)) == (kept,)


@pytest.mark.parametrize("cut", range(CUTS))
def test_every_acknowledged_order_survives_a_power_cut(server, disk, tmp_path, cut):
    """All that was answered is on the disk that has only what was synced, and the sums agree."""
    sale = Sale(server, "s1")

    async def until_the_cut() -> None:
        async with sale.going_on(to_the_end=False):
            await sale.more(ORDERS, WITHIN_S)
            await asyncio.to_thread(server.kill)

    asyncio.run(asyncio.wait_for(until_the_cut(), WITHIN_S + 60))
    after = Live(disk.after_a_power_cut(tmp_path / "after"))
    try:
        sale.server = after.start()
        books = sale.books_agree(after)
        assert {one["id"] for one in books.orders} >= set(sale.bought)
        # What was being cancelled at the cut is cancelled by the server that came after it.
        asyncio.run(until(lambda: sale.left() == FEW - _placed(after)))
        report = after.audit()
        assert report["ok"], report
    finally:
        after.close()


def _placed(server: Live) -> int:
    """How many orders stand."""
    with server.http(server.token("root", "admin")) as root:
        orders = read_books(lambda path: root.get(path).json(), "r1").orders
    return [order["state"] for order in orders].count("placed")


def test_a_planned_stop_keeps_carts_over_a_power_cut(server, disk, tmp_path):
    """What a planned stop leaves is on the disk before the process has ended."""
    ann = Seat(server)
    ann.join(server.token("ann"))
    [line] = ann.do("cart.add", sku="s1", qty=3)["cart"]["lines"]
    ann.leave()
    assert server.stop() == 0
    after = Live(disk.after_a_power_cut(tmp_path / "after"))
    try:
        after.start()
        again = Seat(after)
        [kept] = again.join(after.token("ann"))["snapshot"]["cart"]["lines"]
        assert (kept["hold"], kept["qty"]) == (line["hold"], 3)
        again.leave()
        assert after.audit()["ok"]
    finally:
        after.close()


def refused(sale: Sale, begun: int) -> set[str]:
    """Who was told after so many lines of the record that it cannot be had, or may not be."""
    return {line.client for line in sale.history.lines[begun:] if line.what in {"fail", "info"}}


@pytest.mark.parametrize("fault", ["full", "eio"])
def test_a_disk_that_fails(server, disk, fault):
    """While nothing can be written, or no sync succeeds, nothing is sold; then the sale goes on."""

    async def story() -> None:
        sale = Sale(server, "s1", spare="s2")
        ann = Viewer(server, "ann")
        names = {buyer.name for buyer in sale.buyers}
        async with staying(ann), sale.going_on():
            with disk.failing(fault):
                codes = {await sale.code_of(ann, new_id())}
                # What was on the disk before may still be on its way to who asked for it.
                begun = len(sale.history.lines)
                await until(lambda: names <= refused(sale, begun))
                await asyncio.sleep(SYNC_EVERY_S * 2)  # Valkey meets it too
                sold = len(sale.bought)
                codes |= {await sale.code_of(ann, new_id()) for _ in range(9)}
                assert len(sale.bought) == sold
            assert codes == {"store_down"}
            await sale.is_normal_again()
        await sale.adds_up()

    asyncio.run(asyncio.wait_for(story(), 90))

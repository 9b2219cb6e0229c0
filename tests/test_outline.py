"""Sweeps leave a partition out while SQL has nothing that its gates should know."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest
from machine import LIMITS, STOCK, line, place, wanted
from shopfloor import stock_a_shop
from sqlalchemy import insert, update

from liveroom.clock import ServerClock
from liveroom.inventory import Inventory
from liveroom.store import ledger, outline, scripts, sweep, tables

DROP = {
    "id": "d1",
    "room": "r1",
    "sku": "s1",
    "quantity": 2,
    "price_minor": 99,
    "entries": 0,
    "operation": "o",
    "created_at": 0,
    "changed_at": 0,
    "opens_at": 1,
    "closes_at": 2,
    "limit_per_buyer": None,
    "admission": "first",
    "state": "scheduled",
    "told": "",
}


def set_sku(**values):
    return update(tables.skus).where(tables.skus.c.id == "s1").values(**values)


def set_drop(**values):
    return update(tables.drops).where(tables.drops.c.id == "d1").values(**values)


def set_pool(**values):
    return update(tables.pools).where(tables.pools.c.pool == "sku:s1").values(**values)


def list_of(pool, *, is_open):
    return insert(tables.waitlists).values(pool=pool, open=is_open, joined=1)


CHANGES = {
    "a movement": set_pool(seq=tables.pools.c.seq + 1),
    "a price": set_sku(price_v=tables.skus.c.price_v + 1),
    "a price of no version": set_sku(price_minor=99),
    "a limit": set_sku(limit_per_buyer=1),
    "a limit of a drop": set_drop(limit_per_buyer=1),
    "a drop that opens": set_drop(state="open"),
    "a drop that is cancelled": set_drop(state="cancelled"),
    "somebody who waits": list_of("sku:s1", is_open=True),
}


@asynccontextmanager
async def opened(db, redis_url):
    """A node's inventory over a stocked shop, and a client that counts its calls."""
    client = scripts.connect(redis_url)
    node = Inventory(db, client, ServerClock(), hold_ttl_s=60)
    await db.write(lambda conn: stock_a_shop(conn, STOCK, LIMITS))
    await node.start()
    yield node, client
    await node.close()
    await client.aclose()


async def swept(db, node) -> None:
    await node.sweep_once(await db.read(outline.read))


async def asked_by(client, sweep_once) -> int:
    """How many scripts one sweep has called: one that ends what is due, and more to compare."""
    await client.config_resetstat()
    await sweep_once()
    return (await client.info("commandstats"))["cmdstat_evalsha"]["calls"]


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_whatever_a_gate_should_know_changes_the_outline(run, books, change):
    """Also where only one of many SKUs has it; what no gate knows changes nothing."""

    async def story() -> None:
        def begin(conn) -> None:
            stock_a_shop(conn, STOCK, LIMITS)
            conn.execute(insert(tables.drops).values(DROP))
            drop = {"pool": "drop:d1", "sku": "s1", "drop": "d1", "partition": 0, "initial": 2}
            conn.execute(insert(tables.pools).values(drop))

        await books.write(begin)
        before = await books.read(outline.read)
        title = update(tables.products).values(title="Another")
        await books.write(lambda conn: conn.execute(title).rowcount)
        assert await books.read(outline.read) == before
        await books.write(lambda conn: conn.execute(change).rowcount)
        assert await books.read(outline.read) != before

    run(story())


def test_a_drop_that_opens_is_not_hidden_by_one_that_ends(run, db):
    """Drops only move forward, and so do their numbers."""

    async def story() -> None:
        def begin(conn) -> None:
            stock_a_shop(conn, STOCK, LIMITS)
            conn.execute(insert(tables.drops), [DROP, DROP | {"id": "d2", "operation": "o2"}])

        def move(conn) -> None:
            conn.execute(set_drop(state="open"))
            ends = update(tables.drops).where(tables.drops.c.id == "d2").values(state="cancelled")
            conn.execute(ends)

        await db.write(begin)
        before = await db.read(outline.read)
        await db.write(move)
        assert await db.read(outline.read) != before

    run(story())


def test_gates_are_not_asked_while_sql_has_nothing_new(run, db, redis_url):
    """Until something is committed; then they are told, also where its teller was killed."""

    async def story() -> None:
        async with opened(db, redis_url) as (node, client):
            await swept(db, node)
            assert await asked_by(client, lambda: swept(db, node)) == 1
            held = await node.hold(wanted("o1", line("s1", 2)))
            await db.write(lambda conn: place(conn, "o1", held))
            assert await asked_by(client, lambda: swept(db, node)) > 1
            [inspected] = await node.inspect()
            assert inspected.gates["sku:s1"].seq == 1
            await swept(db, node)
            assert await asked_by(client, lambda: swept(db, node)) == 1

    run(story())


def test_gates_are_compared_now_and_then_all_the_same(run, db, redis_url):
    """A word that came late changes a gate and nothing in SQL: it is found, and taken back."""

    async def story() -> None:
        async with opened(db, redis_url) as (node, client):
            await swept(db, node)
            asked = [
                await asked_by(client, lambda: swept(db, node))
                for _ in range(2 * (sweep.PASSED_OVER_MAX + 1))
            ]
            assert asked == ([1] * sweep.PASSED_OVER_MAX + [2]) * 2
            await node.set_waiting("s1", waiting=True)
            for _ in range(sweep.PASSED_OVER_MAX + 2):
                await swept(db, node)
            assert len(await node.hold(wanted("o1", line("s1")))) == 1

    run(story())


def test_after_a_rebuild_the_gates_are_compared(run, db, redis_url):
    """What was found level under another epoch says nothing."""

    async def story() -> None:
        async with opened(db, redis_url) as (node, client):
            await swept(db, node)
            assert await asked_by(client, lambda: swept(db, node)) == 1
            await client.flushall()
            await node.check_once()
            assert await asked_by(client, lambda: swept(db, node)) == 2
            assert await asked_by(client, lambda: swept(db, node)) == 1

    run(story())


def test_every_gate_has_its_turn_before_a_partition_is_left_out(run, db, redis_url, monkeypatch):
    """Of many pools a sweep compares some; none is passed over before all were compared."""
    monkeypatch.setattr(sweep, "SLICE", 2)

    async def story() -> None:
        async with opened(db, redis_url) as (node, client):

            def add(conn) -> None:
                for at in range(5):
                    row = {"id": f"n{at}", "product": "p1", "position": 9 + at, "price_minor": 5}
                    conn.execute(insert(tables.skus), row)
                    ledger.create_pool(conn, sku=f"n{at}", initial=3)

            await db.write(add)
            await node.sweep_once()  # makes the gates
            await node.set_waiting("n4", waiting=True)  # the last in turn
            asked = [await asked_by(client, lambda: swept(db, node)) for _ in range(9)]
            assert asked[-1] == 1
            assert asked.count(1) < 5
            assert len(await node.hold(wanted("o1", line("n4")))) == 1

    run(story())

"""The inventory on real stores: against a plain model, over restarts, wipes and rebuilds."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import (
    run_state_machine_as_test,
)
from machine import LIMITS, STOCK, Selling, audited, line, outcome, place, wanted
from shopfloor import stock_a_shop
from sqlalchemy import select, update

from liveroom.clock import ServerClock
from liveroom.errors import Invalid, LiveroomError, Refused, Unavailable
from liveroom.inventory import Inventory
from liveroom.store import keys, ledger, partitions, scripts, sweep, tables
from liveroom.store.database import Database

EXAMPLES = int(os.environ.get("LIVEROOM_FAULT_EXAMPLES", "25"))


@asynccontextmanager
async def opened(db: Database, redis_url: str, **options):
    """A node's inventory over a stocked shop; the shop is stocked by whoever comes first."""
    client = scripts.connect(redis_url)
    node = Inventory(db, client, ServerClock(), **({"hold_ttl_s": 60} | options))
    if not await db.read(lambda conn: conn.execute(select(tables.skus)).first()):
        await db.write(lambda conn: stock_a_shop(conn, STOCK, LIMITS))
    await node.start()
    yield node
    await node.close()
    await client.aclose()


async def flush(redis_url: str) -> None:
    client = scripts.connect(redis_url)
    await client.flushall()
    await client.aclose()


async def evict(client, key: str) -> None:
    """Have Redis forget this key by itself: of all that is there, it alone may go."""
    await client.expire(key, 3_600)
    try:
        await client.config_set("maxmemory", 1)
        async with asyncio.timeout(5):
            while await client.exists(key):  # noqa: ASYNC110 - Redis evicts when it likes
                await asyncio.sleep(0)
    finally:
        await client.config_set("maxmemory", 0)


async def code_of(call) -> str:
    with pytest.raises(LiveroomError) as refusal:
        await call
    return refusal.value.code


# ── the model ─────────────────────────────────────────────────────────────────────────────


def test_the_gates_agree_with_the_model(redis_url, _empty_schema) -> None:  # noqa: PT019
    """Holds, places, tells, cancels, sweeps and wipes in any order never promise a unit twice."""
    machine = type("Machine", (Selling,), {"redis_url": redis_url, "schema": _empty_schema})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=25 if EXAMPLES < 100 else 50,
            deadline=None,
            phases=[Phase.generate],  # shrinking on real stores takes minutes
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        ),
    )


# ── rebuild, restart, planned stop ────────────────────────────────────────────────────────


def test_a_wiped_redis_is_rebuilt_by_the_next_call(run, db, redis_url) -> None:
    """The epoch is raised, v goes on growing, and what SQL has sold stays sold."""

    async def story() -> None:
        async with opened(db, redis_url) as node:
            held = await node.hold(wanted("o1", line("s1", 2)))
            plan = await db.write(lambda conn: place(conn, "o1", held))
            before = await node.left(["sku:s1"])
            lost = await node.hold(wanted("o2", line("s1", 1)))
            await flush(redis_url)
            [anew] = await node.hold(wanted("o3", line("s1", 4)))
            after = await node.left(["sku:s1"])
            assert after["sku:s1"][0] == 0
            assert after["sku:s1"][1] > before["sku:s1"][1]
            assert anew.epoch > held[0].epoch
            await node.tell(plan.told)
            refused = await db.write(lambda conn: place(conn, "o2", lost))
            assert refused.answers[0].code == "rebuilding"
            await audited(db, node)

    run(story())


def test_holds_survive_a_planned_stop(run, db, redis_url) -> None:
    """Matching marks keep holds and carts, even under another run id of Redis."""

    async def story() -> None:
        async with opened(db, redis_url) as node:
            [held] = await node.hold(wanted("c1", line("s1", 2), kind="held"))
            await node.planned_stop()
            client = scripts.connect(redis_url)
            await client.hset(keys.stock_fence(0), "run", "as if Redis had been restarted")
        async with opened(db, redis_url) as node:
            assert [hold.id for hold in await node.cart("ann", "r1")] == [held.id]
            assert (await client.hexists(keys.stock_fence(0), "mark")) == 0
            await audited(db, node)
            await client.hset(keys.stock_fence(0), "run", "and again, unplanned")
        async with opened(db, redis_url) as node:
            assert await node.cart("ann", "r1") == []
            await audited(db, node)
        await client.aclose()

    run(story())


def test_a_mark_of_one_store_alone_is_worth_nothing(run, db, redis_url) -> None:
    """A stop that marked only one of the stores is no planned stop."""

    async def story() -> None:
        async with opened(db, redis_url) as node:
            await node.hold(wanted("c1", line("s1", 2), kind="held"))
            await node.planned_stop()
            await db.write(lambda conn: partitions.set_mark(conn, 0, epoch=2, mark="another"))
            client = scripts.connect(redis_url)
            await client.hset(keys.stock_fence(0), "run", "as if Redis had been restarted")
        async with opened(db, redis_url) as node:
            assert await node.cart("ann", "r1") == []
        await client.aclose()

    run(story())


def test_a_node_that_lives_on_sells_after_anothers_planned_stop(run, db, redis_url) -> None:
    """It takes the mark away from both stores before it holds again."""

    async def story() -> None:
        async with opened(db, redis_url) as one, opened(db, redis_url) as other:
            await one.planned_stop()
            await other.hold(wanted("o1", line("s1", 2)))
            fence = await db.read(lambda conn: partitions.fence(conn, 0))
            assert fence.mark is None

    run(story())


def test_a_rebuild_that_died_is_begun_again(run, db, redis_url) -> None:
    """An epoch raised in SQL and never opened is raised once more after its time."""

    async def story() -> None:
        async with opened(db, redis_url) as node:
            await db.write(lambda conn: partitions.raise_fence(conn, 0, seen=2, to=3))
            for _ in range(100):
                if not isinstance(await outcome(node.check_once()), Unavailable):
                    break
                await asyncio.sleep(0.05)
            [hold] = await node.hold(wanted("o1", line("s1")))
            assert hold.epoch == 4

    run(story())


def test_a_lost_key_raises_the_fence(run, db, redis_url) -> None:
    """With one key of the partition gone nothing is mended in place: everything is rebuilt."""

    async def story() -> None:
        async with opened(db, redis_url) as node:
            await node.hold(wanted("c1", line("s1", 2), kind="held"))
            client = scripts.connect(redis_url)
            for lost in ("holds", "gates"):
                epoch = (await db.read(lambda conn: partitions.fence(conn, 0))).epoch
                await client.delete(f"lr:{{s0}}:{epoch}:{lost}")
                await node.sweep_once()
                assert (await node.left(["sku:s1"]))["sku:s1"][0] == 6
            await client.aclose()
            await audited(db, node)

    run(story())


def test_a_redis_that_may_forget_sells_nothing(run, db, redis_url) -> None:
    """Nothing is held, offered or ordered; what gives back goes on; after it all is as it was."""

    async def story() -> None:
        async with opened(db, redis_url) as node:
            [held] = await node.hold(wanted("c1", line("s1", 2), kind="held"))
            client = scripts.connect(redis_url)
            await client.config_set("maxmemory-policy", "volatile-ttl")
            try:
                await node.check_once()
                assert "volatile-ttl" in node.unfit
                for asked in (
                    node.hold(wanted("o1", line("s1"))),
                    node.offer([wanted("w1", line("s1"), kind="held")]),
                    node.to_placing("ann", "r1", "o2"),
                ):
                    assert await code_of(asked) == "store_down"
                await node.remove([held.id])
                assert (await node.left(["sku:s1"]))["sku:s1"][0] == 6
            finally:
                await client.config_set("maxmemory-policy", "noeviction")
                await client.aclose()
            epoch = (await db.read(lambda conn: partitions.fence(conn, 0))).epoch
            await node.check_once()
            assert node.unfit is None
            await node.hold(wanted("o1", line("s1")))
            assert (await db.read(lambda conn: partitions.fence(conn, 0))).epoch == epoch

    run(story())


def test_redis_is_judged_while_sql_is_away(run, db, redis_url) -> None:
    """Neither store waits for the other to be looked at."""

    async def story() -> None:
        client = scripts.connect(redis_url)
        async with opened(db, redis_url) as node:
            await client.config_set("maxmemory-policy", "volatile-ttl")
            try:
                await db.close()
                assert isinstance(await outcome(node.check_once()), Unavailable)
                assert "volatile-ttl" in node.unfit
            finally:
                await client.config_set("maxmemory-policy", "noeviction")
                await client.aclose()

    run(story())


def test_a_node_that_begins_while_redis_forgets(run, db, redis_url) -> None:
    """What was evicted before it looked, and there was nobody else to see it, is rebuilt."""

    async def story() -> None:
        client = scripts.connect(redis_url)
        async with opened(db, redis_url) as node:
            await node.hold(wanted("c1", line("s1", 2), kind="held"))
        epoch = (await db.read(lambda conn: partitions.fence(conn, 0))).epoch
        await client.config_set("maxmemory-policy", "volatile-ttl")
        try:
            await evict(client, f"lr:{{s0}}:{epoch}:carts")
            async with opened(db, redis_url) as node:
                await node.check_once()
                assert "volatile-ttl" in node.unfit
                await client.config_set("maxmemory-policy", "noeviction")
                await node.check_once()
                assert node.unfit is None
                assert (await node.left(["sku:s1"]))["sku:s1"][0] == 6
                await audited(db, node)
        finally:
            await client.config_set("maxmemory-policy", "noeviction")
            await client.aclose()
        assert (await db.read(lambda conn: partitions.fence(conn, 0))).epoch == epoch + 1

    run(story())


def test_two_nodes_start_at_once(run, db, redis_url) -> None:
    """Whoever raised the epoch opens it; the other joins."""

    async def story() -> None:
        await db.write(lambda conn: stock_a_shop(conn, STOCK, LIMITS))
        client = scripts.connect(redis_url)
        nodes = [Inventory(db, client, ServerClock(), hold_ttl_s=60) for _ in range(3)]
        await asyncio.gather(*(node.start() for node in nodes))
        for number, node in enumerate(nodes):
            await node.hold(wanted(f"o{number}", line("s1")))
        assert await nodes[0].left(["sku:s1"]) == await nodes[1].left(["sku:s1"])
        for node in nodes:
            await node.close()
        await client.aclose()

    run(story())


# ── ends, prices, memory, partitions ──────────────────────────────────────────────────────


def test_an_expired_cart_hold_is_reported_once(run, db, redis_url) -> None:
    """Its buyer is told by one sweep, and the units are free."""

    async def story() -> None:
        async with opened(db, redis_url, hold_ttl_s=0) as node:
            [hold] = await node.hold(wanted("c1", line("s1", 2), kind="held"))
            assert [one.id for one in (await node.sweep_once()).expired] == [hold.id]
            assert (await node.sweep_once()).expired == []
            assert (await node.left(["sku:s1"]))["sku:s1"][0] == 6

    run(story())


def test_a_due_line_gives_way_to_a_new_one(run, db, redis_url) -> None:
    """Adding to a line that is over its time begins a new one; the old one is still reported."""

    async def story() -> None:
        async with opened(db, redis_url, hold_ttl_s=0) as hasty, opened(db, redis_url) as node:
            [old] = await hasty.hold(wanted("c1", line("s1", 2), kind="held"))
            [new] = await node.hold(wanted("c2", line("s1", 1), kind="held"))
            assert (new.id != old.id, new.qty) == (True, 1)
            assert [one.id for one in (await node.sweep_once()).expired] == [old.id]

    run(story())


def test_a_checkout_that_died_gives_the_cart_back(run, db, redis_url) -> None:
    """A placing hold nobody placed is void, and its units return to the cart under a new id."""

    async def story() -> None:
        async with opened(db, redis_url, placing_ms=0) as node:
            await node.hold(wanted("c1", line("s1", 2), kind="held"))
            [hold] = await node.to_placing("ann", "r1", "o1")
            assert [one.id for one in (await node.sweep_once()).void] == [hold.id]
            [back] = await node.cart("ann", "r1")
            assert (back.id != hold.id, back.qty) == (True, 2)
            plan = await db.write(lambda conn: place(conn, "o1", [hold]))
            assert plan.answers[0].code == "hold_expired"
            await audited(db, node)

    run(story())


def test_void_holds_are_forgotten_after_a_day(run, db, redis_url, monkeypatch) -> None:
    """They go a page at a time, however many there are; younger ones stay void."""

    async def story() -> None:
        monkeypatch.setattr(sweep, "PAGE", 3)
        async with opened(db, redis_url, placing_ms=0) as node:
            [hold] = await node.hold(wanted("o1", line("s1")))
            await node.sweep_once()
            old = await db.now_ms() - ledger.VOID_KEPT_MS - 1
            rows = [{"hold": f"old-{number}", "at": old} for number in range(7)]
            await db.write(lambda conn: conn.execute(tables.void_holds.insert(), rows) and None)
            assert await node.prune_once() == 7
            assert await node.prune_once() == 0
            left = await db.read(lambda conn: list(conn.execute(select(tables.void_holds.c.hold))))
            assert [row.hold for row in left] == [hold.id]

    run(story())


def test_a_placed_hold_that_was_not_told_is_found_in_the_ledger(run, db, redis_url) -> None:
    """The sweep tells what a killed server did not, and frees nothing that was sold."""

    async def story() -> None:
        async with opened(db, redis_url, placing_ms=0) as node:
            held = await node.hold(wanted("o1", line("s1", 2), line("s2", 1)))
            await db.write(lambda conn: place(conn, "o1", held))
            assert (await node.sweep_once()).void == []
            left = await node.left(["sku:s1", "sku:s2"])
            assert (left["sku:s1"][0], left["sku:s2"][0]) == (4, 2)
            assert await code_of(node.hold(wanted("o2", line("s2", 2)))) == "limit_reached"
            await audited(db, node)

    run(story())


def test_prices_and_limits_that_missed_their_gate_are_set_by_the_sweep(run, db, redis_url) -> None:
    """A price committed by a server that was killed reaches the gate by itself."""

    async def story() -> None:
        async with opened(db, redis_url) as node:
            sku = update(tables.skus).where(tables.skus.c.id == "s1")
            await db.write(lambda conn: conn.execute(sku.values(price_minor=99)).rowcount)
            await node.sweep_once()
            await node.sweep_once()
            [hold] = await node.hold(wanted("o1", line("s1")))
            assert hold.price_minor == 99

    run(story())


def test_a_gate_that_keeps_units_for_nobody_is_opened_by_the_sweep(run, db, redis_url) -> None:
    """Word that somebody waits may come late, when the list is closed: then it is taken back."""

    async def story() -> None:
        async with opened(db, redis_url) as node:
            await node.set_waiting("s1", waiting=True)
            assert await code_of(node.hold(wanted("o1", line("s1")))) == "sold_out"
            await node.sweep_once()
            await node.sweep_once()
            assert len(await node.hold(wanted("o2", line("s1")))) == 1

    run(story())


class Overtaken(Database):
    """A real database; after its next read somebody else does something before it is answered."""

    then: Callable[[], Awaitable[object]] | None = None

    async def read(self, fn, **how):
        rows = await super().read(fn, **how)
        then, self.then = self.then, None
        if then is not None:
            await then()
        return rows


async def ask(db: Database, price: int) -> None:
    """Commit a price of the first SKU, as the rooms service would."""
    skus = tables.skus.c
    change = update(tables.skus).where(skus.id == "s1")
    change = change.values(price_minor=price, price_v=skus.price_v + 1)
    await db.write(lambda conn: conn.execute(change) and None)


def test_prices_that_come_to_the_gate_in_another_order(run, db, redis_url) -> None:
    """The last commit's is asked, also where an earlier one's way to the gate took longer."""

    async def story() -> None:
        late = Overtaken(db.url)
        async with opened(db, redis_url) as node, opened(late, redis_url) as slow:

            async def ask_more() -> None:
                await ask(db, 400)
                await node.set_price("s1")

            await ask(db, 300)
            late.then = ask_more
            await slow.set_price("s1")
            [hold] = await node.hold(wanted("o1", line("s1")))
            assert hold.price_minor == 400
        await late.close()

    run(story())


class OvertakenRebuild(Overtaken):
    """The same where a rebuild has read what it will write into the gates."""

    async def read(self, fn, **how):
        if how.get("patient"):
            return await super().read(fn, **how)
        return await Database.read(self, fn, **how)


def test_a_price_set_while_a_rebuild_has_read_the_old_one(run, db, redis_url) -> None:
    """It is asked at the gates that the rebuild opens, or its host is told to try again."""

    async def story() -> None:
        late = OvertakenRebuild(db.url)
        async with opened(db, redis_url) as node, opened(late, redis_url) as rebuilding:

            async def ask_more() -> None:
                await ask(db, 400)
                assert await code_of(node.set_price("s1")) == "rebuilding"

            late.then = ask_more
            await rebuilding._fences.raise_again(0)
            await node.set_price("s1")
            [hold] = await node.hold(wanted("o1", line("s1")))
            assert hold.price_minor == 400
        await late.close()

    run(story())


def test_a_price_set_is_the_price_of_the_next_hold(run, db, redis_url) -> None:
    """The price when the hold is made is the hold's; another price seen is refused with the new."""

    async def story() -> None:
        async with opened(db, redis_url) as node:
            [old] = await node.hold(wanted("o1", line("s1", 1, 250)))
            await ask(db, 300)
            await node.set_price("s1")
            with pytest.raises(Refused) as refusal:
                await node.hold(wanted("o2", line("s1", 1, 250)))
            assert refusal.value.data == {"sku": "s1", "price_minor": 300}
            [new] = await node.hold(wanted("o3", line("s1", 1, 300)))
            assert (old.price_minor, new.price_minor) == (250, 300)

    run(story())


def test_a_limit_set_later_counts_what_was_ordered_before(run, db, redis_url) -> None:
    """Orders placed while there was no limit count for it."""

    async def story() -> None:
        async with opened(db, redis_url) as node:
            held = await node.hold(wanted("o1", line("s1", 2)))
            plan = await db.write(lambda conn: place(conn, "o1", held))
            await node.tell(plan.told)
            await node.set_limit("s1", 2)
            assert await code_of(node.hold(wanted("o2", line("s1")))) == "limit_reached"
            await node.set_limit("s1", None)
            await node.hold(wanted("o2", line("s1")))

    run(story())


def test_a_limit_is_counted_in_the_step_that_tells(run, db, redis_url) -> None:
    """No kill can come between: one call ends the hold and counts its units for the buyer."""

    async def story() -> None:
        async with opened(db, redis_url) as node:
            client = scripts.connect(redis_url)
            for number in (1, 2):
                held = await node.hold(wanted(f"o{number}", line("s2")))
                plan = await db.write(lambda conn, n=number, h=held: place(conn, f"o{n}", h))
                await client.config_resetstat()
                await node.tell(plan.told)
                assert (await client.info("commandstats"))["cmdstat_evalsha"]["calls"] == 1
            assert await code_of(node.hold(wanted("o3", line("s2")))) == "limit_reached"
            await client.aclose()

    run(story())


def test_a_new_sku_needs_nobody_to_open_its_gate(run, db, redis_url) -> None:
    """Whoever first asks for it makes the gate from SQL; what is not in SQL is not found."""

    async def story() -> None:
        async with opened(db, redis_url) as node:
            new = [f"n{number}" for number in range(12)]

            def add(conn) -> None:
                for at, sku in enumerate(new, start=9):
                    row = {"id": sku, "product": "p1", "position": at, "price_minor": 5}
                    conn.execute(tables.skus.insert(), row)
                    ledger.create_pool(conn, sku=sku, initial=3)

            await db.write(add)
            [hold] = await node.hold(wanted("o1", line("n0", 3)))
            assert hold.price_minor == 5
            assert await code_of(node.hold(wanted("o2", line("nope")))) == "not_found"
            several = wanted("o3", *(line(sku) for sku in new[1:]), line("nope"))
            assert await code_of(node.hold(several)) == "not_found"
            assert len(await node.hold(wanted("o4", *(line(sku) for sku in new[1:])))) == 11
            assert list(await node.left(["sku:nope", "sku:n0"])) == ["sku:n0"]

    run(story())


def test_sold_out_is_remembered_for_a_moment(run, db, redis_url) -> None:
    """A storm after the last unit costs one call; a retry marked `again` always asks."""

    async def story() -> None:
        now = [0.0]
        async with opened(db, redis_url, monotonic=lambda: now[0]) as node:
            await node.adjust("s1", -6, "a1", "h", "gone")
            assert await code_of(node.hold(wanted("o1", line("s1"), again=False))) == "sold_out"
            client = scripts.connect(redis_url)
            await client.config_resetstat()
            storm = [node.hold(wanted(f"x{n}", line("s1"), again=False)) for n in range(500)]
            refusals = await asyncio.gather(*storm, return_exceptions=True)
            assert {refusal.code for refusal in refusals} == {"sold_out"}
            assert "cmdstat_evalsha" not in await client.info("commandstats")
            await node.restock("s1", 1, "r1", "h")
            assert await code_of(node.hold(wanted("o2", line("s1"), again=False))) == "sold_out"
            await node.hold(wanted("o3", line("s1")))
            await client.aclose()
            now[0] += 0.3
            [again] = await node.hold(wanted("o3", line("s1"), again=False))
            assert again.qty == 1

    run(story())


def test_a_request_over_partitions_is_all_or_nothing(run, db, redis_url) -> None:
    """What was held in one partition ends when another refuses."""

    async def story() -> None:
        async with opened(db, redis_url, partitions=8) as node:
            assert partitions.of_sku("s1", 8) != partitions.of_sku("s2", 8)
            held = await node.hold(wanted("o1", line("s1", 2), line("s2", 2)))
            assert len(held) == 2
            assert await code_of(node.hold(wanted("o2", line("s1"), line("s2", 2)))) in {
                "sold_out",
                "limit_reached",
            }
            left = await node.left(["sku:s1", "sku:s2"])
            assert (left["sku:s1"][0], left["sku:s2"][0]) == (4, 1)
            await node.hold(wanted("c1", line("s1"), kind="held", buyer="bob"))
            await node.hold(wanted("c2", line("s2"), kind="held", buyer="bob"))
            assert len(await node.to_placing("bob", "r1", "o3")) == 2
            plan = await db.write(lambda conn: place(conn, "o1", held))
            await node.tell(plan.told)
            await audited(db, node)

    run(story())


def test_an_operation_that_did_something_else_is_refused(run, db, redis_url) -> None:
    """The same operation id with another number is `id_reused`."""

    async def story() -> None:
        async with opened(db, redis_url) as node:
            await node.restock("s1", 2, "r1", "h")
            with pytest.raises(Invalid, match="id_reused"):
                await node.restock("s1", 3, "r1", "h")
            page = await node.ledger("s1", after=None, limit=10)
            assert [row["adjusted"] for row in page.items] == [2]
            assert page.pools[0]["available"] == 8

    run(story())

"""Fences that move under a node that was answered just now, and what a quiet second costs Redis."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from machine import audited, line, outcome, wanted
from test_inventory import flush, opened

from liveroom.inventory import Inventory
from liveroom.store import keys, ledger, partitions, scripts, sweep
from liveroom.store.database import Database


class Moved:
    """What a fence may go through, told of a first partition that is open under `epoch`."""

    def __init__(self, db: Database, redis_url: str, client: scripts.Client, epoch: int) -> None:
        self.db = db
        self.redis_url = redis_url
        self.client = client
        self.epoch = epoch

    async def rebuilt_by_another(self) -> None:
        async with opened(self.db, self.redis_url) as other:
            await other._fences.raise_again(0)

    async def emptied(self) -> None:
        await flush(self.redis_url)

    async def run_anew(self) -> None:
        await self.client.hset(keys.stock_fence(0), "run", "as if Redis had been restarted")

    async def without_gates(self) -> None:
        await self.client.delete(keys.stock(0, self.epoch)[1])

    async def raised_by_another(self) -> None:
        seen, to = self.epoch, self.epoch + 1
        await self.db.write(lambda conn: partitions.raise_fence(conn, 0, seen=seen, to=to))


# what befell the fence, and what this node's next look says of it
MOVES: dict[str, tuple[Callable[[Moved], Awaitable[None]], str]] = {
    "rebuilt by another node": (Moved.rebuilt_by_another, "ok"),
    "Redis emptied": (Moved.emptied, "ok"),
    "another run of Redis": (Moved.run_anew, "ok"),
    "the gates' key gone": (Moved.without_gates, "ok"),
    "raised in SQL by one who has yet to open it": (Moved.raised_by_another, "rebuilding"),
}


@pytest.mark.parametrize("situation", MOVES)
def test_a_fence_that_moved_is_noticed_at_the_next_look(run, db, redis_url, situation) -> None:
    """However lately the node was answered, its next look follows the fence or raises it."""
    befall, word = MOVES[situation]

    async def story() -> None:
        client = scripts.connect(redis_url)
        async with opened(db, redis_url) as node:
            epoch = node._fences.epochs()[0]
            await node.check_once()
            await node.left(["sku:s1"])
            await befall(Moved(db, redis_url, client, epoch))
            looked = await outcome(node.check_once())
            assert getattr(looked, "code", "ok") == word
            fence = await db.read(lambda conn: partitions.fence(conn, 0))
            in_redis, _ = await node._gates.fence(0)
            assert node._fences.epochs()[0] == fence.epoch == epoch + 1
            assert in_redis == (epoch + 1 if word == "ok" else epoch)
        await client.aclose()

    run(story())


def test_what_was_open_at_the_start_is_raised_at_once(run, db, redis_url) -> None:
    """A loss right after it costs no wait, also in partitions where nothing is sold."""

    async def story() -> None:
        async with (
            opened(db, redis_url, partitions=8) as one,
            opened(db, redis_url, partitions=8) as joined,
        ):
            before = joined._fences.epochs()
            await flush(redis_url)
            await joined.sweep_once()
            assert joined._fences.epochs() == {part: epoch + 1 for part, epoch in before.items()}
            await one.check_once()
            assert one._fences.epochs() == joined._fences.epochs()

    run(story())


def test_what_a_look_found_open_is_raised_at_once(run, db, redis_url) -> None:
    """A fence another node raised, and opened later: this node has seen it by its looks alone."""

    async def story() -> None:
        client = scripts.connect(redis_url)
        async with opened(db, redis_url) as node, opened(db, redis_url) as other:
            epoch = node._fences.epochs()[0]
            moved = Moved(db, redis_url, client, epoch)
            await moved.raised_by_another()
            assert (await outcome(node.check_once())).code == "rebuilding"
            await other._fences._open(0, epoch + 1)
            await node.check_once()
            await moved.emptied()
            await node.check_once()
            assert node._fences.epochs() == {0: epoch + 2}
        await client.aclose()

    run(story())


# ── what it costs ─────────────────────────────────────────────────────────────────────────


async def asked(client: scripts.Client, do: Callable[[], Awaitable[object]]) -> list[str]:
    """Whatever Redis was asked by clients meanwhile, a line for each command."""
    async with client.monitor() as monitor:
        await client.echo("from here")
        await do()
        await client.echo("up to here")
        said: list[str] = []
        async with asyncio.timeout(5):
            while not said or said[-1] != "ECHO up to here":
                told = await monitor.next_command()
                if told["client_type"] != "lua":
                    said.append(told["command"])
    return said[said.index("ECHO from here") + 1 : -1]


async def second(node: Inventory) -> None:
    """All that a node which has the lease does once a second."""
    await node.check_once()
    await node.sweep_once()


def test_a_second_in_which_nothing_happens_costs_redis_little(run, db, redis_url) -> None:
    """One call looks at server and fences, two for each partition sweep it; none where none are."""

    async def story() -> None:
        client = scripts.connect(redis_url)
        async with opened(db, redis_url) as node:
            await second(node)
            assert len(await asked(client, node.check_once)) == 1
            assert len(await asked(client, lambda: second(node))) == 3
            # What was held, and is placed and told, costs nothing afterwards.
            await node.release([one.id for one in await node.hold(wanted("o1", line("s1")))])
            assert len(await asked(client, lambda: second(node))) == 3
        async with opened(db, redis_url, partitions=8) as node:
            await second(node)
            pools = {partitions.of_sku(sku, 8) for sku in ("s1", "s2")}
            assert len(pools) == 2
            assert len(await asked(client, node.check_once)) == 1
            assert len(await asked(client, lambda: second(node))) == 1 + 8 + len(pools)
        await client.aclose()

    run(story())


def test_holds_past_due_are_resolved_page_by_page(run, db, redis_url, monkeypatch) -> None:
    """One sweep ends all of them, however many pages they fill; the next asks for none."""

    async def story() -> None:
        monkeypatch.setattr(sweep, "PAGE", 2)
        client = scripts.connect(redis_url)
        async with opened(db, redis_url, placing_ms=0) as node:
            held = [await node.hold(wanted(f"o{n}", line("s1"))) for n in range(5)]
            swept = await node.sweep_once()
            assert sorted(one.id for one in swept.void) == sorted(hold.id for [hold] in held)
            assert (await node.left(["sku:s1"]))["sku:s1"][0] == 6
            assert len(await asked(client, lambda: second(node))) == 3
            await audited(db, node)
        await client.aclose()

    run(story())


def test_pools_of_every_partition_are_read(run, db, redis_url) -> None:
    """Each pool is in one partition's list, and a name that is no pool's is left out."""

    async def story() -> None:
        async with opened(db, redis_url, partitions=8):
            found = [
                row
                for part in range(8)
                for row in await db.read(lambda conn, p=part: ledger.pools_in(conn, p))
            ]
            assert sorted(found) == sorted(await db.read(ledger.pools))
            some = await db.read(lambda conn: ledger.pools(conn, ["sku:s2", "sku:none"]))
            assert [row.pool for row in some] == ["sku:s2"]
            assert await db.read(lambda conn: ledger.pools(conn, [])) == []

    run(story())

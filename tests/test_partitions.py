"""Stock in several partitions of a Valkey Cluster: one cart over several masters, all or none."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Iterator

import pytest
from nodes import Member, ValkeyCluster, cluster
from redis.asyncio import Redis
from shopfloor import Floor, floor

from liveroom.clock import ServerClock
from liveroom.errors import LiveroomError, Unavailable
from liveroom.ids import new_id
from liveroom.inventory import Hold, HoldLineRequest, HoldRequest, Inventory
from liveroom.store import keys, partitions, scripts
from liveroom.store.cluster import Cluster

PARTS = 4
"""Partitions 0 and 1 lie on the last master of three, 2 on the first, 3 on the second."""


def sku_of(part: int, parts: int = PARTS) -> str:
    """A SKU whose stock lies in this partition."""
    names = (f"s{number}" for number in range(1000))
    return next(name for name in names if partitions.of_sku(name, parts) == part)


FIRST, SECOND, LAST = sku_of(1), sku_of(2), sku_of(3)
STOCK = {FIRST: 6, SECOND: 6, LAST: 6}


@pytest.fixture(scope="module")
def three(tmp_path_factory) -> Iterator[ValkeyCluster]:
    """Three masters."""
    with cluster(tmp_path_factory.mktemp("three")) as made:
        yield made


@pytest.fixture
def url(three) -> str:
    """The URL of the three masters, with nothing in them."""

    async def flush() -> None:
        for member in three.masters:
            await member.say("FLUSHALL")

    asyncio.run(flush())
    return three.url


def wanted(
    *lines: tuple[str, int], key: str = "", buyer: str = "ann", kind: str = "placing"
) -> HoldRequest:
    rows = [HoldLineRequest(pool=f"sku:{sku}", sku=sku, qty=qty) for sku, qty in lines]
    return HoldRequest(
        buyer=buyer, room="r1", key=key or new_id(), lines=rows, kind=kind, again=True
    )


async def code_of(work) -> str:
    try:
        await work
    except LiveroomError as refusal:
        return refusal.code
    return "ok"


async def lefts(node: Inventory) -> list[int]:
    """What is left of the first, the second and the last SKU."""
    found = await node.left([f"sku:{sku}" for sku in STOCK])
    return [found[f"sku:{sku}"][0] for sku in STOCK]


async def eventually(fact: Callable[[], Awaitable[object]], within_s: float = 20) -> None:
    """Ask for a fact until it has come to be; fail when it does not."""
    async with asyncio.timeout(within_s):
        while not await fact():  # noqa: ASYNC110 - facts of other processes
            await asyncio.sleep(0.02)


async def swept_until(shop: Floor, left: list[int]) -> None:
    """Sweep until so much is left; stores that come back may take a moment."""

    async def swept() -> bool:
        try:
            await shop.inventory.sweep_once()
            return await lefts(shop.inventory) == left
        except Unavailable:
            return False

    await eventually(swept)


def test_the_three_lie_on_three_masters(three, run):
    """What the tests below rest on."""

    async def story() -> None:
        client = scripts.connect(three.url)
        assert isinstance(client, Cluster)
        await client.initialize()
        masters = [client.master(keys.stock_fence(part)) for part in (1, 2, 3)]
        ports = [three.masters[at].port for at in (2, 0, 1)]
        assert masters == [f"127.0.0.1:{port}" for port in ports]
        await client.aclose()

    run(story())


def test_an_order_over_partitions_takes_all_and_tells_all(run, db, url):
    """One order of three masters' stock: held, placed, told, cancelled; every sum agrees."""

    async def story() -> None:
        async with floor(db, url, STOCK, partitions=PARTS) as shop:
            order = await shop.buy("o1", (LAST, 2), (FIRST, 1), (SECOND, 3))
            assert sum(line.qty for line in order.lines) == 6
            await shop.settle_down()
            assert await lefts(shop.inventory) == [5, 3, 4]
            for sku in STOCK:
                await shop.put(sku, 1, buyer="bob")
            assert len((await shop.checkout("o2", buyer="bob")).lines) == 3
            await shop.settle_down()
            assert await lefts(shop.inventory) == [4, 2, 3]
            await shop.orders.cancel("o1", "ann")
            await shop.settle_down()
            assert await lefts(shop.inventory) == [5, 5, 5]
            await shop.check()

    run(story())


def test_what_the_last_partition_refuses_is_held_nowhere(run, db, url):
    """A refusal ends in the same breath what was taken before it, whichever line it is."""

    async def story() -> None:
        async with floor(db, url, STOCK, partitions=PARTS) as shop:
            assert await code_of(shop.buy("o1", (FIRST, 1), (SECOND, 1), (LAST, 7))) == "sold_out"
            assert await lefts(shop.inventory) == [6, 6, 6]
            assert await code_of(shop.buy("o1", (FIRST, 7), (SECOND, 1), (LAST, 1))) == "sold_out"
            assert await lefts(shop.inventory) == [6, 6, 6]
            inspected = await shop.inventory.inspect()
            assert [part.holds for part in inspected] == [[]] * PARTS
            await shop.buy("o1", (FIRST, 6), (SECOND, 6), (LAST, 6))
            await shop.check()

    run(story())


def test_what_a_hung_partition_did_not_answer_is_held_nowhere(three, run, db, url):
    """The last master hangs: `store_down`, the others' units are free at once, its own soon."""

    async def story() -> None:
        async with floor(db, url, STOCK, partitions=PARTS, placing_ms=200) as shop:
            hung = three.masters[1].process
            hung.send_signal(signal.SIGSTOP)
            try:
                wish = wanted((FIRST, 1), (SECOND, 1), (LAST, 1))
                assert await code_of(shop.inventory.hold(wish)) == "store_down"
                found = await shop.inventory.left([f"sku:{FIRST}", f"sku:{SECOND}"])
                assert [left for left, _ in found.values()] == [6, 6]
                alone = await shop.inventory.hold(wanted((FIRST, 6)))
                await shop.inventory.release([hold.id for hold in alone])
            finally:
                hung.send_signal(signal.SIGCONT)
            await swept_until(shop, [6, 6, 6])
            await shop.buy("o2", (FIRST, 6), (SECOND, 6), (LAST, 6))
            await shop.check()

    run(story())


def test_a_partition_that_is_rebuilt_says_so(run, db, url):
    """`rebuilding` where a line lies in it, and nothing stays held; the others sell meanwhile."""

    async def story() -> None:
        async with floor(db, url, STOCK, partitions=PARTS) as shop:
            fence = await db.read(lambda conn: partitions.fence(conn, 3))
            await db.write(
                lambda conn: partitions.raise_fence(conn, 3, seen=fence.epoch, to=fence.epoch + 1)
            )
            await code_of(shop.inventory.check_once())
            both = wanted((FIRST, 1), (LAST, 1))
            assert await code_of(shop.inventory.hold(both)) == "rebuilding"
            assert await code_of(shop.put(FIRST)) == "ok"
            assert (await shop.inventory.left([f"sku:{FIRST}"]))[f"sku:{FIRST}"][0] == 5
            # Whoever raised the fence never opened it: after a moment this node does.
            await eventually(lambda: bought(shop))
            await shop.check()

    async def bought(shop: Floor) -> bool:
        return await code_of(shop.buy("o1", (FIRST, 1), (LAST, 1))) == "ok"

    run(story())


def test_a_buyer_whose_node_died_half_way_holds_nothing_for_long(three, run, db, url):
    """Killed between two partitions: what was taken ends by its due time, without anybody's help."""

    async def story() -> None:
        async with floor(db, url, STOCK, partitions=PARTS, placing_ms=300) as shop:
            hung = three.masters[1].process
            hung.send_signal(signal.SIGSTOP)
            try:
                wish = wanted((FIRST, 2), (SECOND, 2), (LAST, 2))
                taking = asyncio.create_task(shop.inventory.hold(wish))
                await eventually(lambda: is_half_taken(shop.inventory), 10)
                taking.cancel()
                await asyncio.wait([taking])
                assert taking.cancelled()
                assert await is_half_taken(shop.inventory)
            finally:
                hung.send_signal(signal.SIGCONT)
            await swept_until(shop, [6, 6, 6])
            await shop.check()

    async def is_half_taken(node: Inventory) -> bool:
        found = await node.left([f"sku:{FIRST}", f"sku:{SECOND}"])
        return [left for left, _ in found.values()] == [4, 4]

    run(story())


def test_a_cart_over_partitions_is_checked_out_whole_or_not(run, db, url):
    """One line has expired: `hold_expired`, and the others are in the cart with their deadlines."""

    async def story() -> None:
        async with floor(db, url, STOCK, partitions=PARTS) as shop:
            hasty = Inventory(db, shop.client, ServerClock(), hold_ttl_s=0.05, partitions=PARTS)
            await hasty.start()
            await shop.put(FIRST)
            await shop.put(SECOND, 2)
            before = await shop.inventory.cart("ann", "r1")
            await hasty.hold(wanted((LAST, 1), kind="held"))
            await eventually(lambda: is_cart(shop, before))
            assert await code_of(shop.checkout("o1")) == "hold_expired"
            assert [seen(one) for one in await shop.inventory.cart("ann", "r1")] == [
                seen(one) for one in before
            ]
            swept = await shop.inventory.sweep_once()
            assert [hold.sku for hold in swept.expired] == [LAST]
            assert await lefts(shop.inventory) == [5, 4, 6]
            await shop.checkout("o1")
            await hasty.close()
            await shop.check()

    async def is_cart(shop: Floor, holds: list[Hold]) -> bool:
        return len(await shop.inventory.cart("ann", "r1")) == len(holds)

    def seen(hold: Hold) -> tuple[object, ...]:
        return hold.id, hold.qty, hold.due

    run(story())


def test_many_checkouts_of_one_cart_over_partitions(run, db, url):
    """One of them orders all of it; whoever else met it half-way gives back what it took."""

    async def story() -> None:
        async with floor(db, url, STOCK, partitions=PARTS) as one:
            async with floor(db, url, partitions=PARTS) as two:
                for number in range(6):
                    for sku in STOCK:
                        await one.put(sku)
                    tries = [
                        shop.checkout(f"o{number}.{nth}")
                        for nth, shop in enumerate([one, two, one, two])
                    ]
                    codes = await asyncio.gather(*map(code_of, tries))
                    assert sorted(codes) == ["hold_expired"] * 3 + ["ok"]
                    await one.settle_down()
                    await two.settle_down()
            lines = await one.one("SELECT COUNT(*) FROM order_lines")
            assert lines == 6 * len(STOCK)
            await one.check()

    run(story())


def test_a_checkout_that_a_partition_did_not_answer_leaves_the_cart(three, run, db, url):
    """The last master hangs: the lines of the others are in the cart again, then its own too."""

    async def story() -> None:
        async with floor(db, url, STOCK, partitions=PARTS, placing_ms=300) as shop:
            for sku in STOCK:
                await shop.put(sku)
            hung = three.masters[1].process
            hung.send_signal(signal.SIGSTOP)
            try:
                assert await code_of(shop.inventory.to_placing("ann", "r1", "o1")) == "store_down"
            finally:
                hung.send_signal(signal.SIGCONT)
            await eventually(lambda: is_whole(shop))
            assert len((await shop.checkout("o1")).lines) == len(STOCK)
            await shop.check()

    async def is_whole(shop: Floor) -> bool:
        try:
            await shop.inventory.sweep_once()
            return len((await shop.carts.show("ann", "r1")).lines) == len(STOCK)
        except Unavailable:
            return False

    run(story())


def test_releases_and_expiry_reach_every_partition(run, db, url):
    """Lines removed, and lines past their time, are free on their own masters."""

    async def story() -> None:
        async with floor(db, url, STOCK, partitions=PARTS, ttl_s=0.2) as shop:
            for sku in STOCK:
                await shop.put(sku, 6)
            [first, *_] = await shop.inventory.cart("ann", "r1")
            await shop.inventory.remove([first.id])
            expired: list[Hold] = []
            async with asyncio.timeout(10):
                while len(expired) < 2:
                    expired += (await shop.inventory.sweep_once()).expired
            assert {hold.sku for hold in expired} == {*STOCK} - {first.sku}
            assert await lefts(shop.inventory) == [6, 6, 6]
            await shop.check()

    run(story())


def test_another_number_of_partitions_raises_every_fence(run, db, url):
    """Carts end, orders stay, no `v` goes back, and what was held before is never sold."""

    async def story() -> None:
        async with floor(db, url, STOCK, partitions=PARTS) as old:
            await old.buy("o1", (FIRST, 1), (LAST, 1))
            await old.settle_down()
            pools = [f"sku:{sku}" for sku in STOCK]
            before = await old.inventory.left(pools)
            fences = dict(await db.read(partitions.fences))
            stale = await old.inventory.hold(wanted((FIRST, 1), (SECOND, 1), key="o2"))
            async with floor(db, url, partitions=7) as new:
                raised = dict(await db.read(partitions.fences))
                assert len(raised) == 7
                assert min(raised.values()) > max(fences.values())
                after = await new.inventory.left(pools)
                assert await lefts(new.inventory) == [5, 6, 5]
                assert all(after[pool][1] > before[pool][1] for pool in pools)
                assert await code_of(place(old, stale)) == "rebuilding"
                # The old node follows: at its next look at the fences it sells with the others.
                await old.inventory.check_once()
                assert old.inventory.partitions == 7
                assert await old.inventory.left(pools) == after
                await old.buy("o2", (FIRST, 1), (SECOND, 1), (LAST, 1))
                await old.settle_down()
                assert await lefts(new.inventory) == [4, 5, 4]
                await new.check()
            async with floor(db, url) as unasked:  # no number is wanted: as SQL has it
                assert unasked.inventory.partitions == 7
                assert dict(await db.read(partitions.fences)) == raised

    async def place(shop: Floor, holds: list[Hold]) -> None:
        await shop.place_held("o2", holds)

    run(story())


def test_one_master_that_may_forget_is_enough(three, run, db, url):
    """Nothing is held in any partition until none of the masters may forget by itself."""

    async def story() -> None:
        async with floor(db, url, STOCK, partitions=PARTS) as shop:
            await three.masters[1].say("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
            try:
                await shop.inventory.check_once()
                assert await code_of(shop.buy("o1", (FIRST, 1))) == "store_down"
            finally:
                await three.masters[1].say("CONFIG", "SET", "maxmemory-policy", "noeviction")
            await shop.inventory.check_once()
            await shop.buy("o1", (FIRST, 1))
            await shop.check()

    run(story())


def test_a_planned_stop_marks_every_partition(run, db, url):
    """Holds and carts of all partitions live on, and every mark is taken before the next hold."""

    async def story() -> None:
        async with floor(db, url, STOCK, partitions=PARTS) as shop:
            for sku in STOCK:
                await shop.put(sku)
            await shop.inventory.planned_stop()
            marks = [
                await db.read(lambda conn, p=p: partitions.fence(conn, p).mark) for p in range(4)
            ]
            assert len(set(marks)) == PARTS
            assert None not in marks
        async with floor(db, url) as after:
            assert len(await after.inventory.cart("ann", "r1")) == 3
            for part in range(PARTS):
                assert await db.read(lambda conn, p=part: partitions.fence(conn, p).mark) is None
                assert await after.client.hget(keys.stock_fence(part), "mark") is None
            await after.checkout("o1")
            await after.check()

    run(story())


def test_a_failover_in_the_middle_of_a_sale(tmp_path, run, db):
    """A master dies and its replica takes over: buyers go on until all is sold, and no more."""
    with cluster(tmp_path / "four", replicas=1) as four:

        async def story() -> None:
            async with floor(db, four.url, STOCK, partitions=PARTS) as shop:
                await shop.buy("o0", (FIRST, 1), (SECOND, 1), (LAST, 1))
                await shop.put(SECOND, 2, buyer="eve")
                four.masters[0].process.kill()
                async with asyncio.timeout(25):
                    codes = await asyncio.gather(*(buyer(shop, n) for n in range(8)))
                assert sorted(codes) == ["ok"] * 5 + ["sold_out"] * 3
                await shop.settle_down()
                assert await lefts(shop.inventory) == [0, 0, 0]
                await shop.check()

        async def buyer(shop: Floor, number: int) -> str:
            while True:
                lines = [(FIRST, 1), (SECOND, 1), (LAST, 1)]
                code = await code_of(shop.buy(f"o{number + 1}", *lines, buyer=f"b{number}"))
                if code in {"ok", "sold_out"} and await is_over(shop, code):
                    return code
                await code_of(shop.inventory.check_once())
                await asyncio.sleep(0.05)

        async def is_over(shop: Floor, code: str) -> bool:
            """A refusal counts only when the gates have come to rest: holds may still return."""
            if code == "ok":
                return True
            orders = await shop.one("SELECT COUNT(*) FROM orders")
            return orders == 6

        run(story())


# ── no client retries ─────────────────────────────────────────────────────────────────────────


def test_no_client_retries_by_itself(three, valkey, run):
    """Neither the clients nor the connections they make send anything twice."""
    made = scripts.connect(valkey)
    assert isinstance(made, Redis)
    assert made.connection_pool.make_connection().retry.get_retries() == 0

    async def story() -> None:
        client = scripts.connect(three.url)
        assert isinstance(client, Cluster)
        assert client.retry.get_retries() == 0
        await client.initialize()
        for node in client.get_primaries():
            assert node.acquire_connection().retry.get_retries() == 0
        await client.aclose()

    run(story())


def test_a_command_without_an_answer_runs_once(three, tmp_path, run):
    """A server that hung while it was asked carries the command out once, and not again."""
    alone = Member(tmp_path / "alone", alone=True)

    async def story(server: Member, url: str) -> None:
        client = scripts.connect(url)
        key = await key_on(client, server)
        await client.set(key, 0)
        server.process.send_signal(signal.SIGSTOP)
        try:
            with pytest.raises(Unavailable), scripts.store_errors():
                await client.incr(key)
        finally:
            server.process.send_signal(signal.SIGCONT)
        await eventually(lambda: seen(server, key))
        assert await seen(server, key) == 1
        assert await client.incr(key) == 2
        await client.aclose()

    async def key_on(client: scripts.Client, server: Member) -> str:
        if not isinstance(client, Cluster):
            return "counter"
        await client.initialize()
        names = (f"counter{number}" for number in range(200))
        return next(n for n in names if client.master(n).endswith(f":{server.port}"))

    async def seen(server: Member, key: str) -> int:
        return int(await server.say("GET", key))

    try:
        run(alone.say("PING"))
        run(story(alone, f"redis://127.0.0.1:{alone.port}"))
        run(story(three.masters[0], three.url))
    finally:
        alone.end()

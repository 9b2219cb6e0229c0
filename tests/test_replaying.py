"""What is told twice is told once: the whole outbox and the whole ledger, after a day of all kinds."""

from __future__ import annotations

import random
from typing import Any

import pytest
from shopfloor import Floor, floor
from sqlalchemy import update
from test_audit import a_busy_day

from liveroom.inventory import Told
from liveroom.payments import Sandbox, Webhook
from liveroom.store import tables

STOCK = {"s1": 20, "s2": 10}
POOLS = ["sku:s1", "sku:s2"]


class Asked(Sandbox):
    """Remembers what it was asked to send back."""

    async def refund(self, **asked) -> Webhook:
        self.asked = [*getattr(self, "asked", []), asked["refund"]]
        return await super().refund(**asked)


async def everything(shop: Floor) -> dict[str, Any]:
    """All that SQL and Redis have, but how often and when the outbox has tried."""
    told = {"due_at", "tries", "done_at"}
    rows = {
        name: sorted(
            str({key: value for key, value in row._mapping.items() if key not in told})
            for row in await shop.rows(table)
        )
        for name, table in tables.metadata.tables.items()
    }
    [seen] = await shop.inventory.inspect()
    gates = str([seen.gates, seen.holds, seen.waiting])
    return rows | {"gates": gates, "left": await shop.inventory.left(POOLS)}


async def the_whole_ledger(shop: Floor) -> list[Told]:
    """Every row of it as it was told after its commit."""
    rows = await shop.rows(tables.ledger)
    return [
        Told(
            pool=row.pool,
            from_seq=row.seq,
            to_seq=row.seq,
            available_after=row.available_after,
            holds=[row.hold] if row.hold is not None else [],
        )
        for row in rows
    ]


async def replay_outbox(shop: Floor) -> int:
    """Tell every row of it again, as if nobody had; how many there were."""
    await shop.change(update(tables.outbox).values(done_at=None, due_at=0, tries=0))
    count = await shop.outbox.run_once()
    await shop.settle_down()
    return count


@pytest.mark.parametrize("shuffled", [False, True], ids=["in order", "shuffled"])
def test_all_is_told_twice(run, books, redis_url, shuffled) -> None:
    """Nothing changes in either store, not even the number that orders what is left."""

    async def story() -> None:
        async with floor(books, redis_url, STOCK, provider=Asked) as shop:
            await a_busy_day(shop)
            await shop.pay("placed", buyer="placed")
            await shop.give_back("placed", {"sku": "s1", "qty": 1, "restock": True})
            assert await shop.outbox.run_once() == 1
            await shop.settle_down()
            before, ledger = await everything(shop), await the_whole_ledger(shop)
            kinds = {row.kind for row in await shop.rows(tables.ledger)}
            assert kinds == {"reserve", "sell", "release", "adjust", "restock"}
            for _ in range(2):
                assert await replay_outbox(shop) == 2
                if shuffled:
                    random.Random(5).shuffle(ledger)
                await shop.inventory.tell(ledger)
                assert await everything(shop) == before
            assert len(shop.sandbox.asked) == 2, "money was sent back twice"
            await shop.check()

    run(story())

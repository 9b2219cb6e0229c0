"""Holds alone: N buyers take units one after another, from the inventory of one process.

No server and no orders: a Valkey and a SQLite of our own, and `Inventory.hold` as the services
call it. Batches form by themselves, at most 64 a call, so the buyers decide how full they are.
Afterwards every gate is compared with what was granted, the holds end, and the audit runs.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import uvloop
from sqlalchemy import Connection, insert

from bench.latency import Bins
from bench.report import Report
from liveroom.audit import audit
from liveroom.clock import ServerClock
from liveroom.errors import Refused
from liveroom.inventory import HoldLineRequest, HoldRequest, Inventory
from liveroom.serving import look_less_for_cycles
from liveroom.store import ledger, partitions, scripts, tables
from liveroom.store.database import Database
from liveroom.store.valkey import EmbeddedValkey

ENDED_AT_ONCE: Final = 500


@dataclass(frozen=True)
class Plan:
    """What one run does."""

    holds: int = 20_000
    buyers: int = 256
    skus: int = 1
    lines: int = 1
    cart: bool = False
    limit: int | None = None


def run(plan: Plan, command: str) -> Report:
    """One run in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="liveroom-bench-") as folder:
        valkey = EmbeddedValkey(Path(folder))
        url = valkey.start()
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:  # as the server does
                return runner.run(_measure(plan, Path(folder), url, command))
        finally:
            valkey.stop()


async def _measure(plan: Plan, folder: Path, url: str, command: str) -> Report:
    async with _opened(plan, folder, url) as (database, client, inventory):
        sale = Sale(plan, inventory)
        await sale.warm_up()
        look_less_for_cycles()  # as the server does
        before = await _spent(client)
        await sale.take_all()
        after = await _spent(client)
        spent = {name: after[name] - before[name] for name in after}
        faults = await _check(plan, inventory, database, sale)
        return _report(plan, sale, spent, faults, command)


@asynccontextmanager
async def _opened(
    plan: Plan, folder: Path, url: str
) -> AsyncIterator[tuple[Database, scripts.Client, Inventory]]:
    database = Database(f"sqlite:///{folder / 'liveroom.db'}", lock_path=folder / "sqlite.lock")
    database.upgrade()
    await database.write(lambda conn: _stock(conn, plan))
    client = scripts.connect(url)
    inventory = Inventory(database, client, ServerClock(), hold_ttl_s=3600, placing_ms=3_600_000)
    await inventory.start()
    try:
        yield database, client, inventory
    finally:
        await inventory.close()
        await client.aclose()
        await database.close()


def _stock(conn: Connection, plan: Plan) -> None:
    """As many units of each SKU as are asked for, so that the last request takes the last."""
    partitions.prepare(conn, 1)
    conn.execute(insert(tables.shops), {"id": "s", "name": "S", "created_at": 0})
    product = {"id": "p", "shop": "s", "title": "P", "currency": "CNY", "needs": []}
    conn.execute(insert(tables.products), product | {"created_at": 0})
    for number in range(plan.skus):
        row = {"id": f"sku-{number}", "product": "p", "position": number, "price_minor": 1999}
        conn.execute(insert(tables.skus), row | {"limit_per_buyer": plan.limit})
        ledger.create_pool(conn, sku=f"sku-{number}", initial=plan.holds)


async def _spent(client: scripts.Client) -> dict[str, float]:
    """What was spent so far: time, our CPU, Valkey's CPU and its time in scripts; and calls."""
    cpu, stats = await client.info("cpu"), await client.info("commandstats")
    script = stats.get("cmdstat_evalsha", {"usec": 0, "calls": 0})
    return {
        "s": time.perf_counter(),
        "client_cpu": time.process_time(),
        "valkey_cpu": cpu["used_cpu_user"] + cpu["used_cpu_sys"],
        "script": script["usec"] / 1e6,
        "calls": script["calls"],
    }


BUCKET: Final = "mia/buyer/9f3a21bc:42/note.0198c0de-0000-7000-8000-000000000001"
"""As a server stamps it on the holds of a pinned product."""


class Sale:
    """The buyers, and what they were granted."""

    def __init__(self, plan: Plan, inventory: Inventory) -> None:
        self._plan = plan
        self._inventory = inventory
        self._asked = 0
        self.granted: dict[str, int] = {}
        self.sold_out = 0
        self.bins = Bins()

    async def warm_up(self) -> None:
        """One hold and its end: the scripts are loaded, the gates are there."""
        for number in range(self._plan.skus):
            held = await self._inventory.hold(self._request(0, number))
            await self._inventory.release([hold.id for hold in held])

    async def take_all(self) -> None:
        """Each buyer asks again once answered, until as many holds were asked for as planned."""
        await asyncio.gather(*(self._buy(number) for number in range(self._plan.buyers)))

    async def _buy(self, buyer: int) -> None:
        while self._asked < self._plan.holds:
            number = self._asked
            self._asked += self._plan.lines
            asked = time.perf_counter()
            try:
                held = await self._inventory.hold(self._request(buyer, number))
            except Refused:
                self.sold_out += 1
            else:
                self.granted |= {hold.id: hold.qty for hold in held}
            self.bins.add((time.perf_counter() - asked) * 1000)

    def _request(self, buyer: int, number: int) -> HoldRequest:
        skus = [f"sku-{(number + at) % self._plan.skus}" for at in range(self._plan.lines)]
        return HoldRequest(
            buyer=f"buyer-{number if self._plan.cart else buyer}",
            room="room-1",
            key=f"order-{number:08d}",
            lines=[
                HoldLineRequest(pool=ledger.pool_of(sku), sku=sku, qty=1, bucket=BUCKET)
                for sku in skus
            ],
            kind="held" if self._plan.cart else "placing",
        )


async def _check(
    plan: Plan, inventory: Inventory, database: Database, sale: Sale
) -> dict[str, int]:
    """Compare the gates with what was granted; every count must be 0."""
    left = await inventory.left([ledger.pool_of(f"sku-{at}") for at in range(plan.skus)])
    held = sum(plan.holds - units for units, _ in left.values())
    granted = list(sale.granted)
    report = await audit(database, await inventory.inspect())
    for at in range(0, len(granted), ENDED_AT_ONCE):
        await inventory.release(granted[at : at + ENDED_AT_ONCE])
    again = await inventory.left(list(left))
    return {
        "lost": max(0, sum(sale.granted.values()) - held),
        "doubled": max(0, held - sum(sale.granted.values())),
        "refused": sale.sold_out,
        "not_given_back": sum(plan.holds - units for units, _ in again.values()),
        "audit_failures": sum(one["ok"] is False for one in report.builtin()["checks"].values()),
    }


def _report(
    plan: Plan, sale: Sale, spent: dict[str, float], faults: dict[str, int], command: str
) -> Report:
    holds = max(1, len(sale.granted))
    figures: dict[str, Any] = {
        "holds": len(sale.granted),
        "holds_per_s": round(holds / spent["s"]),
        "holds_per_call": round(holds / max(1, spent["calls"]), 1),
        "client_cpu_us_per_hold": round(spent["client_cpu"] / holds * 1e6, 1),
        "valkey_cpu_us_per_hold": round(spent["valkey_cpu"] / holds * 1e6, 1),
        "script_us_per_hold": round(spent["script"] / holds * 1e6, 1),
        **sale.bins.figures(),
    }
    parameters = {
        "holds": plan.holds,
        "buyers": plan.buyers,
        "skus": plan.skus,
        "lines": plan.lines,
        "cart": plan.cart,
        "limit": plan.limit,
    }
    return Report("holds", command, parameters, figures, faults, sale.bins)

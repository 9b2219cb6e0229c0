"""What there is of a SKU: units counted in and out, and what its gate asks for them.

The ledger first, then the gate is told; only a reduction takes a hold before, like anybody
else who takes units.
"""

from __future__ import annotations

from liveroom.errors import InvariantBroken, Unavailable, ensure
from liveroom.faults import point
from liveroom.store import ledger, partitions
from liveroom.store.database import Database
from liveroom.store.fences import Fences
from liveroom.store.gates import Gates, Phase, Range, SetRow
from liveroom.store.holds import HoldLineRequest, HoldRequest
from liveroom.taking import Taking


class Stocktaking:
    """Changes of ordinary stock. What they return is committed, and still to be told."""

    def __init__(self, db: Database, gates: Gates, fences: Fences, taking: Taking) -> None:
        self._db = db
        self._gates = gates
        self._fences = fences
        self._taking = taking

    async def set_price(self, sku: str) -> None:
        """Ask the price that SQL has from now on; one committed since stays."""
        pool = ledger.pool_of(sku)
        for row in await self._db.read(lambda conn: ledger.pools(conn, [pool])):
            await self._set(sku, SetRow(pool=pool, price=row.price, price_v=row.price_v))

    async def set_limit(self, sku: str, limit: int | None) -> None:
        """Allow each buyer so many units from now on; what they have counts."""
        pool = ledger.pool_of(sku)
        await self._set(sku, SetRow(pool=pool, limit=limit or 0))
        if limit:
            counts = await self._db.read(lambda conn: ledger.counts_in(conn, pool))
            await self._fences.call(self._part(sku), self._gates.count, counts)

    async def set_phase(self, sku: str, drop: str, phase: Phase) -> None:
        """Open or end a drop; an earlier phase changes nothing."""
        await self._set(sku, SetRow(pool=ledger.pool_of(sku, drop), phase=phase))

    async def set_waiting(self, sku: str, *, waiting: bool) -> None:
        """Let only offers hold from now on, or everybody."""
        await self._set(sku, SetRow(pool=ledger.pool_of(sku), waiting=waiting))

    async def restock(self, sku: str, qty: int, operation: str, why: str) -> Range:
        """Add units, once for each operation; see `Inventory.restock`."""
        ensure(qty > 0, "a restock adds units")
        pool = ledger.pool_of(sku)
        added = await self._db.write(
            lambda conn: ledger.adjust(
                conn, pool=pool, units=qty, kind="restock", operation=operation, why=why
            )
        )
        if added is None:
            raise InvariantBroken("only a reduction can find its hold void")
        return added

    async def adjust(self, sku: str, delta: int, operation: str, why: str) -> Range:
        """Count units in or out, once for each operation; see `Inventory.adjust`."""
        ensure(delta != 0, "an adjustment changes something")
        pool = ledger.pool_of(sku)
        before = await self._db.read(
            lambda conn: ledger.done(conn, pool, operation, kind="adjust", units=delta)
        )
        return before or await self._adjust(pool, sku, delta, operation, why)

    async def _adjust(self, pool: str, sku: str, delta: int, operation: str, why: str) -> Range:
        hold, epoch = None, 0
        if delta < 0:
            line = HoldLineRequest(pool=pool, sku=sku, qty=-delta)
            key = f"adjust:{operation}"
            request = HoldRequest(
                buyer="", room="", key=key, lines=[line], kind="placing", again=True
            )
            [taken] = await self._taking.hold(request)
            hold, epoch = taken.id, taken.epoch
            point("stock.reduction_held")
        counted = await self._db.write(
            lambda conn: ledger.adjust(
                conn,
                pool=pool,
                units=delta,
                kind="adjust",
                operation=operation,
                why=why,
                hold=hold,
                epoch=epoch,
            )
        )
        if hold is not None and (counted is None or hold not in counted.holds):
            await self._taking.give_up([hold], void=True)
        if counted is None:
            raise Unavailable("rebuilding")
        return counted

    async def _set(self, sku: str, setting: SetRow) -> None:
        await self._fences.bring(self._part(sku), self._gates.set, [setting])

    def _part(self, sku: str) -> int:
        return partitions.of_sku(sku, len(self._fences.partitions))

"""What may be promised: holds on stock, and what is left of it.

Redis admits, SQL decides. Whatever takes units takes a hold at the gate first and goes to SQL
second; whatever gives units back goes to SQL first and tells the gate. A gate moves only by
what the ledger says: nothing here ever repairs a count in place.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from liveroom import shapes
from liveroom.carting import Carting
from liveroom.clock import Clock
from liveroom.errors import Unavailable
from liveroom.faults import point
from liveroom.stocktaking import Stocktaking
from liveroom.store import ledger, movements, partitions
from liveroom.store.answered import AnsweredLines
from liveroom.store.database import Database
from liveroom.store.fences import Fences
from liveroom.store.fitness import Fitness
from liveroom.store.gates import (
    PLACING_MS,
    Gates,
    Inspection,
    Left,
    Phase,
    Range,
    part_of,
)
from liveroom.store.holds import (
    Deadlines,
    Hold,
    HoldLineRequest,
    HoldRequest,
    Swept,
    Told,
)
from liveroom.store.memory import SoldOutMemory
from liveroom.store.outline import Outline
from liveroom.store.scripts import Client
from liveroom.store.sweep import Sweep
from liveroom.taking import Taking

__all__ = ["Hold", "HoldLineRequest", "HoldRequest", "Inventory", "Swept", "Told"]

DROPS_MAX: Final = 10_000


class Inventory:
    """Stock as the services see it. One for each process.

    `client` is a Redis client without retries. `hold_ttl_s` is how long a cart's hold lasts.
    `partitions` is how many there must be from the start on; None: as many as SQL has.
    `monotonic` is for tests.
    """

    def __init__(
        self,
        db: Database,
        client: Client,
        clock: Clock,
        *,
        hold_ttl_s: float,
        partitions: int | None = None,
        placing_ms: int = PLACING_MS,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._db = db
        self._gates = Gates(client, held_ms=round(hold_ttl_s * 1000), placing_ms=placing_ms)
        self._fitness = Fitness(client)
        self._fences = Fences(db, self._gates, partitions=partitions)
        self._sweep = Sweep(db, self._gates, self._fences)
        self._deadlines = Deadlines(clock)
        self._taking = Taking(
            self._gates, self._fences, self._sweep, self._deadlines, SoldOutMemory(monotonic)
        )
        self._stocktaking = Stocktaking(db, self._gates, self._fences, self._taking)
        self._answered = AnsweredLines(clock.now_ms)
        self._carting = Carting(db, self._gates, self._fences, self._deadlines, self._answered)
        self._drops: dict[str, str] = {}  # the SKU of each drop

    # ── the life of the stock ─────────────────────────────────────────────────────────────

    async def start(self) -> None:
        """Open the stock, before the port opens.

        Holds and carts live on where Redis is still open or a planned stop left its mark in
        both stores; otherwise the fence is raised and the gates are rebuilt from SQL.

        Raises:
            Unavailable: a store is away.
        """
        await self._fences.start()
        for part in self._fences.partitions:
            await self._sweep.tell_lacking(part, every=True)

    @property
    def partitions(self) -> int:
        """In how many partitions the stock lies, each with a channel of its own."""
        return len(self._fences.partitions)

    async def close(self) -> None:
        """Answer what was asked, and end what is under way."""
        await self._taking.close()
        await self._carting.close()
        await self._fences.close()

    async def planned_stop(self) -> None:
        """Leave holds and carts to the next start. The last call, after everything has drained."""
        await self._fences.planned_stop()

    async def check_once(self) -> None:
        """Compare the fences with both stores and mend them. Every node, once a second.

        Where Redis may forget by itself nothing is taken until it may not any more; where it
        has forgotten, everything is rebuilt before.
        """
        fault: Unavailable | None = None
        try:
            await self._fences.follow_all()
        except Unavailable as away:  # Redis is judged all the same
            fault = away
        found_open = await self._fitness.look(self._fences.epochs())
        if fault is not None:
            raise fault
        await self._fences.check_once(found_open)
        if self._fitness.forgot:
            for part in self._fences.partitions:
                await self._fences.raise_again(part)
            self._fitness.rebuilt()

    @property
    def unfit(self) -> str | None:
        """Why this Redis may not hold stock now, or None."""
        return self._fitness.unfit

    def lost(self) -> list[Hold]:
        """Cart lines that this node has answered and a rebuild has ended since.

        They are named again and again until `told_lost`, or until they would be due.
        """
        return self._answered.ended_by(self._fences.epochs())

    def is_lost(self, hold: Hold) -> bool:
        """Whether a rebuild has ended the hold since it was made, as far as this node knows."""
        return hold.epoch < self._fences.epochs().get(part_of(hold.id), 0)

    def told_lost(self, holds: Iterable[Hold]) -> None:
        """The buyers of these lost lines know."""
        self._answered.forget(hold.id for hold in holds)

    async def sweep_once(self, outline: Outline | None = None) -> Swept:
        """Tell gates what they lack, end what is past its time. One node, once a second.

        May run anywhere at any time; each expired hold is reported by one sweep only. With an
        `outline` read just before, gates are seldom compared while SQL has nothing new.
        """
        swept = Swept([], [])
        fault: Unavailable | None = None
        for part in self._fences.partitions:
            try:
                await self._sweep.tell_lacking(part, outline=outline)
                expired, void = await self._sweep.end_due(part)
            except Unavailable as away:
                fault = away
                continue
            swept.expired += [self._deadlines.hold(row, 0) for row in expired]
            swept.void += [self._deadlines.hold(row, 0) for row in void]
        if fault is not None and not (swept.expired or swept.void):
            raise fault
        return swept

    async def prune_once(self) -> int:
        """Forget what is void for more than a day; how many holds. One node, once an hour."""
        return await self._sweep.prune()

    async def inspect(self) -> list[Inspection]:
        """Every gate and open hold, partition by partition, for the audit. Needs no start.

        Raises:
            Unavailable: `rebuilding`, `store_down`.
        """
        return await self._fences.inspect()

    def heard(self, changes: Iterable[tuple[str, int, int]]) -> None:
        """Take in `(pool, left, v)` as the stock channel tells it: what is back is asked for."""
        self._taking.heard(changes)

    # ── taking ────────────────────────────────────────────────────────────────────────────

    async def hold(self, request: HoldRequest) -> list[Hold]:
        """Hold all lines or none; lines of one pool are merged, in order of appearance.

        A cart's hold of a pool grows, and keeps its deadline; it keeps its price too, so a
        price changed since is `price_changed` until the line is removed. A key whose holds
        are open gets them again. What was held for a refused order must be released.

        Raises:
            Refused: sold_out {sku, left}, limit_reached {sku}, price_changed {sku,
                price_minor}, not_open {sku}.
            Invalid: not_found, id_reused; illegal_transition while this line of the cart is
                being ordered.
            Unavailable: rebuilding, store_down, overloaded. What was asked may have happened.
        """
        self._fitness.ensure()
        held = await self._taking.hold(request)
        if request.kind == "held":
            self._answered.keep(held)
        return held

    async def offer(self, requests: Sequence[HoldRequest]) -> list[Hold | str]:
        """Hold for those who wait, each one line: what there is, up to what it asked.

        From then on only offers may hold of these pools; see `set_waiting`.

        Returns:
            For each request its hold, or the word that says why it got none.

        Raises:
            Unavailable: rebuilding, store_down. Some may have got what they asked.
        """
        self._fitness.ensure()
        offered = await self._taking.offer(requests)
        self._answered.keep([one for one in offered if isinstance(one, Hold)])
        return offered

    async def to_placing(self, buyer: str, room: str, order: str | None = None) -> list[Hold]:
        """Everything in the cart, for one order: place it within 5 s, or `back_to_held`.

        The same `order` gets its holds again.

        Raises:
            Refused: `hold_expired`: nothing is in the cart, something in it has expired, or
                another order is taking it.
        """
        self._fitness.ensure()
        return await self._carting.to_placing(buyer, room, order)

    # ── giving back ───────────────────────────────────────────────────────────────────────

    async def release(self, holds: Sequence[str]) -> None:
        """End holds that nobody can place any more; holds that are gone are left alone.

        A placing hold may be ended only where it is void in SQL, or where its order's id
        exists already: otherwise another attempt might place units that are on sale again.
        """
        await self._taking.give_up(holds, void=True)

    async def remove(self, holds: Sequence[str]) -> None:
        """Take holds out of their carts; those that are being ordered stay."""
        await self._carting.remove(holds)

    async def back_to_held(self, holds: Sequence[str]) -> None:
        """A refused checkout: the cart is as it was, with its old deadlines.

        What is past its deadline expires. What should have been placed by now, or was handed
        to another attempt of the same order, stays until the sweep has asked SQL about it.
        """
        await self._carting.back_to_held(holds)

    async def tell(self, moves: Sequence[Told]) -> None:
        """Tell the gates what was committed. May be repeated, and in any order.

        Raises:
            Unavailable: the sweep will tell it from the ledger.
        """
        parts = await self._parts([move.pool for move in moves])
        ranges: dict[int, list[Range]] = defaultdict(list)
        for move in moves:
            ranges[parts[move.pool]].append(
                Range(move.pool, move.from_seq, move.to_seq, move.available_after, list(move.holds))
            )
        fault: Unavailable | None = None
        for part, told in ranges.items():
            try:
                await self._sweep.tell(part, told)
            except Unavailable as away:
                fault = away
        if fault is not None:
            raise fault

    # ── looking ───────────────────────────────────────────────────────────────────────────

    async def cart(self, buyer: str, room: str) -> list[Hold]:
        """The holds in a cart that have not expired and are not being ordered, by SKU."""
        return await self._carting.show(buyer, room)

    async def left(self, pools: Sequence[str]) -> dict[str, tuple[int, int]]:
        """What is left of each pool that exists, and its `v`."""
        found = await self._left(pools)
        if missing := [pool for pool in pools if pool not in found]:
            await self._sweep.open(missing)
            found |= await self._left(missing)
        return {pool: (gate.left, gate.v) for pool, gate in found.items()}

    # ── changing what there is ────────────────────────────────────────────────────────────

    async def open_pools(self, skus: Sequence[str]) -> None:
        """Make the gates of new SKUs, after their commit.

        Whoever asks for a pool that is in SQL and has no gate makes it too.
        """
        await self._sweep.open([ledger.pool_of(sku) for sku in skus])

    async def set_price(self, sku: str) -> None:
        """Ask the price that SQL has from now on; after its commit, before it is answered.

        However many are set at once, and in whatever order they come here: the last commit's
        is the one asked.
        """
        await self._stocktaking.set_price(sku)

    async def set_limit(self, sku: str, limit: int | None) -> None:
        """Allow each buyer so many units from now on; after its commit."""
        await self._stocktaking.set_limit(sku, limit)

    async def set_phase(self, sku: str, drop: str, phase: Phase) -> None:
        """Open or end a drop at its gate, after its commit; an earlier phase changes nothing."""
        await self._stocktaking.set_phase(sku, drop, phase)

    async def set_waiting(self, sku: str, *, waiting: bool) -> None:
        """Let only offers hold from now on, or everybody again; after its commit."""
        await self._stocktaking.set_waiting(sku, waiting=waiting)

    async def restock(self, sku: str, qty: int, operation: str, by: str) -> shapes.Stock:
        """Add units; what is left then. The same operation adds them once.

        Raises:
            Invalid: `not_found`; `id_reused` where the operation did something else before.
        """
        return await self._told(sku, await self._stocktaking.restock(sku, qty, operation, by))

    async def adjust(self, sku: str, delta: int, operation: str, by: str, why: str) -> shapes.Stock:
        """Count units in or out; what is left then. The same operation counts once.

        Raises:
            Refused: `sold_out` {sku, left}: more would go than is free.
            Invalid: `not_found`, `id_reused`.
        """
        if delta < 0:
            self._fitness.ensure()
        counted = await self._stocktaking.adjust(sku, delta, operation, f"{by}: {why}")
        return await self._told(sku, counted)

    async def ledger(self, sku: str, *, after: str | None, limit: int) -> movements.Movements:
        """A page of every movement of a SKU's stock, with the sums that must agree."""
        return await self._db.read(lambda conn: movements.page(conn, sku, after=after, limit=limit))

    # ── inside ────────────────────────────────────────────────────────────────────────────

    async def _told(self, sku: str, counted: Range) -> shapes.Stock:
        point("stock.counted")
        await self._sweep.tell(partitions.of_sku(sku, self.partitions), [counted])
        left, v = (await self.left([counted.pool]))[counted.pool]
        return shapes.Stock(left=left, v=v)

    async def _left(self, pools: Sequence[str]) -> dict[str, Left]:
        parts = await self._parts(pools)
        by_part: dict[int, list[str]] = defaultdict(list)
        for pool, part in parts.items():
            by_part[part].append(pool)
        found: dict[str, Left] = {}
        for part, names in by_part.items():
            _, gates = await self._fences.call(part, self._gates.left, names)
            found |= gates
        return found

    async def _parts(self, pools: Iterable[str]) -> dict[str, int]:
        """The partition of each pool; a drop that does not exist is left out."""
        parts: dict[str, int] = {}
        unknown: list[str] = []
        for pool in pools:
            kind, _, name = pool.partition(":")
            sku = name if kind == "sku" else self._drops.get(pool)
            if sku is None:
                unknown.append(pool)
            else:
                parts[pool] = partitions.of_sku(sku, self.partitions)
        if unknown:
            rows = await self._db.read(lambda conn: ledger.pools(conn, unknown))
            if len(self._drops) > DROPS_MAX:
                self._drops.clear()
            self._drops |= {row.pool: row.sku for row in rows}
            parts |= {row.pool: row.partition for row in rows}
        return parts

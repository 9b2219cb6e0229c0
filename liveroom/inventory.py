"""What may be promised: holds on stock, and what is left of it.

Redis admits, SQL decides. Whatever takes units takes a hold at the gate first and goes to SQL
second; whatever gives units back goes to SQL first and tells the gate. A gate moves only by
what the ledger says: nothing here ever repairs a count in place.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final

from liveroom import shapes
from liveroom.batching import Batcher
from liveroom.clock import Clock
from liveroom.errors import Invalid, LiveroomError, Refused, Unavailable, ensure
from liveroom.store import ledger
from liveroom.store.answered import AnsweredLines
from liveroom.store.database import Database
from liveroom.store.fences import Fences
from liveroom.store.gates import (
    PLACING_MS,
    Gates,
    Granted,
    Held,
    HoldRow,
    Inspection,
    Left,
    NotHeld,
    Range,
    RequestRow,
    SetRow,
    hold_id,
    part_of,
)
from liveroom.store.holds import (
    Hold,
    HoldLineRequest,
    HoldRequest,
    Swept,
    Told,
    by_partition,
    refusal,
)
from liveroom.store.memory import SoldOutMemory
from liveroom.store.scripts import Client
from liveroom.store.sweep import Sweep

_Answer = tuple[int, Granted | NotHeld]

__all__ = ["Hold", "HoldLineRequest", "HoldRequest", "Inventory", "Swept", "Told"]

BATCH_MAX: Final = 64
WAITING_MAX: Final = 20_000
HOLD_TRIES: Final = 3
DROPS_MAX: Final = 10_000
SKEW_MS: Final = 50


class Inventory:
    """Stock as the services see it. One for each process.

    `client` is a Redis client without retries. `hold_ttl_s` is how long a cart's hold lasts.
    `monotonic` is for tests.
    """

    def __init__(
        self,
        db: Database,
        client: Client,
        clock: Clock,
        *,
        hold_ttl_s: float,
        partitions: int = 1,
        placing_ms: int = PLACING_MS,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._db = db
        self._clock = clock
        self._partitions = partitions
        self._gates = Gates(client, held_ms=round(hold_ttl_s * 1000), placing_ms=placing_ms)
        self._fences = Fences(db, self._gates, partitions=partitions)
        self._holding = {
            part: Batcher(self._hold_batch(part), size_max=BATCH_MAX, waiting_max=WAITING_MAX)
            for part in range(partitions)
        }
        self._memory = SoldOutMemory(monotonic)
        self._skew_ms = 0
        self._drops: dict[str, int] = {}
        self._answered = AnsweredLines(clock.now_ms)
        self._sweep = Sweep(db, self._gates, self._fences)

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

    async def close(self) -> None:
        """Answer what was asked, and end what is under way."""
        for batcher in self._holding.values():
            await batcher.close()
        await self._fences.close()

    async def planned_stop(self) -> None:
        """Leave holds and carts to the next start. The last call, after everything has drained."""
        await self._fences.planned_stop()

    async def check_once(self) -> None:
        """Compare the fences with both stores and mend them. Every node, once a second."""
        await self._fences.check_once()

    def lost(self) -> list[Hold]:
        """Cart lines that this node has answered and a rebuild has ended since.

        They are named again and again until `told_lost`, or until they would be due.
        """
        return self._answered.ended_by(self._fences.epochs())

    def told_lost(self, holds: Iterable[Hold]) -> None:
        """The buyers of these lost lines know."""
        self._answered.forget(hold.id for hold in holds)

    async def sweep_once(self) -> Swept:
        """Tell gates what they lack, end what is past its time. One node, once a second.

        May run anywhere at any time; each expired hold is reported by one sweep only.
        """
        swept = Swept([], [])
        fault: Unavailable | None = None
        for part in self._fences.partitions:
            try:
                await self._sweep.tell_lacking(part)
                expired, void = await self._sweep.end_due(part)
            except Unavailable as away:
                fault = away
                continue
            swept.expired += [self._hold(row, 0) for row in expired]
            swept.void += [self._hold(row, 0) for row in void]
        if fault is not None and not (swept.expired or swept.void):
            raise fault
        return swept

    async def inspect(self) -> list[Inspection]:
        """Every gate and open hold, partition by partition, for the audit. Needs no start.

        Raises:
            Unavailable: `rebuilding`, `store_down`.
        """
        return await self._fences.inspect()

    def heard(self, changes: Iterable[tuple[str, int, int]]) -> None:
        """Take in `(pool, left, v)` as the stock channel tells it: what is back is asked for."""
        for pool, left, _ in changes:
            if left > 0:
                self._memory.forget(pool)

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
        rows = by_partition(request, self._partitions)
        pools = [line.pool for row in rows.values() for line in row.lines]
        probed = [] if request.again else await self._memory.ask(pools)
        try:
            if not request.again:
                self._refuse_from_memory(rows.values())
            held = await self._hold_everywhere(rows)
        finally:
            self._memory.answered(probed)
        if request.kind == "held":
            self._answered.keep(held)
        return held

    async def to_placing(self, buyer: str, room: str, order: str | None = None) -> list[Hold]:
        """Everything in the cart, for one order: place it within 5 s, or `back_to_held`.

        The same `order` gets its holds again; any other finds the cart empty.

        Raises:
            Refused: `hold_expired`: nothing is in the cart, or something in it has expired.
        """
        cart, key = f"{room}/{buyer}", order or hold_id(0)
        placing: list[Hold] = []
        for part in self._fences.partitions:
            epoch, held = await self._fences.call(part, self._gates.place, cart, key)
            if held is None:
                await self.back_to_held([hold.id for hold in placing])
                raise Refused("hold_expired")
            placing += self._holds(held, epoch)
        if not placing:
            raise Refused("hold_expired")
        self._answered.forget(hold.id for hold in placing)
        return sorted(placing, key=_by_sku)

    # ── giving back ───────────────────────────────────────────────────────────────────────

    async def release(self, holds: Sequence[str]) -> None:
        """End holds that nobody can place any more; holds that are gone are left alone.

        A placing hold may be ended only where it is void in SQL, or where its order's id
        exists already: otherwise another attempt might place units that are on sale again.
        """
        await self._end(holds, void=True)

    async def remove(self, holds: Sequence[str]) -> None:
        """Take holds out of their carts; those that are being ordered stay."""
        for part, ids in _by_part(holds).items():
            await self._fences.call(part, self._gates.release, ids, state="held", void=True)
        self._answered.forget(holds)

    async def back_to_held(self, holds: Sequence[str]) -> None:
        """A refused checkout: the cart is as it was, with its old deadlines.

        What is past its deadline expires; what another attempt of the same order was handed
        as well stays until the sweep has asked SQL about it.
        """
        for part, ids in _by_part(holds).items():
            epoch, held = await self._fences.call(part, self._gates.give_back, ids)
            self._answered.keep(self._holds(held, epoch))

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
        for part, told in ranges.items():
            await self._sweep.tell(part, told)

    # ── looking ───────────────────────────────────────────────────────────────────────────

    async def cart(self, buyer: str, room: str) -> list[Hold]:
        """The holds in a cart that have not expired and are not being ordered, by SKU."""
        cart = f"{room}/{buyer}"
        holds: list[Hold] = []
        for part in self._fences.partitions:
            epoch, held = await self._fences.call(part, self._gates.cart, cart)
            holds += self._holds(held, epoch)
        self._answered.keep(holds)
        return sorted(holds, key=_by_sku)

    async def left(self, pools: Sequence[str]) -> dict[str, tuple[int, int]]:
        """What is left of each pool that exists, and its `v`."""
        found = await self._left(pools)
        if missing := [pool for pool in pools if pool not in found]:
            await self._open(missing)
            found |= await self._left(missing)
        return {pool: (gate.left, gate.v) for pool, gate in found.items()}

    # ── changing what there is ────────────────────────────────────────────────────────────

    async def open_pools(self, skus: Sequence[str]) -> None:
        """Make the gates of new SKUs, after their commit.

        Whoever asks for a pool that is in SQL and has no gate makes it too.
        """
        await self._open([ledger.pool_of(sku) for sku in skus])

    async def set_price(self, sku: str, price_minor: int) -> None:
        """Ask this price from now on; after its commit, before it is answered."""
        await self._set(SetRow(pool=ledger.pool_of(sku), price=price_minor))

    async def set_limit(self, sku: str, limit: int | None) -> None:
        """Allow each buyer so many units from now on; after its commit."""
        pool = ledger.pool_of(sku)
        await self._set(SetRow(pool=pool, limit=limit or 0))
        if limit:
            counts = await self._db.read(lambda conn: ledger.counts_in(conn, pool))
            part = (await self._parts([pool]))[pool]
            await self._fences.call(part, self._gates.count, counts)

    async def restock(self, sku: str, qty: int, operation: str, by: str) -> shapes.Stock:
        """Add units; what is left then. The same operation adds them once.

        Raises:
            Invalid: `not_found`; `id_reused` where the operation did something else before.
        """
        ensure(qty > 0, "a restock adds units")
        pool = ledger.pool_of(sku)
        told = await self._db.write(
            lambda conn: ledger.adjust(
                conn, pool=pool, units=qty, kind="restock", operation=operation, why=by
            )
        )
        return await self._told(pool, told)

    async def adjust(self, sku: str, delta: int, operation: str, by: str, why: str) -> shapes.Stock:
        """Count units in or out; what is left then. The same operation counts once.

        Raises:
            Refused: `sold_out` {sku, left}: more would go than is free.
            Invalid: `not_found`, `id_reused`.
        """
        ensure(delta != 0, "an adjustment changes something")
        pool, reason = ledger.pool_of(sku), f"{by}: {why}"
        told = await self._db.read(
            lambda conn: ledger.done(conn, pool, operation, kind="adjust", units=delta)
        )
        if told is None:
            told = await self._adjust(pool, sku, delta, operation, reason)
        return await self._told(pool, told)

    async def ledger(self, sku: str, *, after: str | None, limit: int) -> ledger.Movements:
        """A page of every movement of a SKU's stock, with the sums that must agree."""
        return await self._db.read(
            lambda conn: ledger.movements(conn, sku, after=after, limit=limit)
        )

    # ── inside ────────────────────────────────────────────────────────────────────────────

    async def _adjust(self, pool: str, sku: str, delta: int, operation: str, why: str) -> Range:
        hold, epoch = None, 0
        if delta < 0:
            line = HoldLineRequest(pool=pool, sku=sku, qty=-delta)
            key = f"adjust:{operation}"
            request = HoldRequest(
                buyer="", room="", key=key, lines=[line], kind="placing", again=True
            )
            [taken] = await self.hold(request)
            hold, epoch = taken.id, taken.epoch
        told = await self._db.write(
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
        if hold is not None and (told is None or hold not in told.holds):
            await self.release([hold])
        if told is None:
            raise Unavailable("rebuilding")
        return told

    async def _told(self, pool: str, told: Range | None) -> shapes.Stock:
        ensure(told is not None, "only a reduction can find its hold void")
        part = (await self._parts([pool]))[pool]
        await self._sweep.tell(part, [told] if told else [])
        left, v = (await self.left([pool]))[pool]
        return shapes.Stock(left=left, v=v)

    def _refuse_from_memory(self, rows: Iterable[RequestRow]) -> None:
        for row in rows:
            for line in row.lines:
                if self._memory.is_empty(line.pool):
                    raise Refused("sold_out", data={"sku": line.sku, "left": 0})

    async def _hold_everywhere(self, rows: dict[int, RequestRow]) -> list[Hold]:
        """In order of partition; a refusal ends what was taken before it."""
        held: list[Hold] = []
        try:
            for part in sorted(rows):
                held += await self._hold_in(part, rows[part])
        except LiveroomError:
            await self._end([hold.id for hold in held], void=False)
            raise
        return held

    async def _hold_in(self, part: int, row: RequestRow) -> list[Hold]:
        for _ in range(HOLD_TRIES):
            epoch, answer = await self._holding[part].submit(row)
            if isinstance(answer, Granted):
                for line in row.lines:
                    self._memory.forget(line.pool)
                return self._took(answer, row, epoch)
            if answer.word == "missing":
                if not await self._open([answer.pool]):
                    raise Invalid("not_found", "There is no such stock.")
            elif answer.word == "due":
                await self._sweep.expire(part, report=0)
            else:
                raise self._refused(answer, row)
        raise Unavailable("overloaded")

    def _took(self, answer: Granted, row: RequestRow, epoch: int) -> list[Hold]:
        self._set_skew(answer.now_ms)
        return [
            Hold(
                id=grant.id,
                pool=line.pool,
                sku=line.sku,
                buyer=row.buyer,
                room=row.room,
                qty=grant.qty,
                price_minor=grant.price,
                state=grant.state,
                due=grant.due + self._skew_ms,
                epoch=epoch,
                drop=line.drop,
            )
            for line, grant in zip(row.lines, answer.grants, strict=True)
        ]

    def _refused(self, answer: NotHeld, row: RequestRow) -> LiveroomError:
        if answer.word == "sold_out" and answer.memorable:
            self._memory.remember(answer.pool)
        else:
            self._memory.forget(answer.pool)
        return refusal(answer, row)

    async def _open(self, pools: Sequence[str]) -> int:
        """Make gates that are missing; how many of the pools are in SQL."""
        rows = await self._db.read(lambda conn: ledger.pools(conn, pools))
        for part in sorted({row.partition for row in rows}):
            gates = [ledger.gate_of(row) for row in rows if row.partition == part]
            await self._fences.call(part, self._gates.add, gates)
        return len(rows)

    def _hold_batch(self, part: int) -> Callable[[Sequence[RequestRow]], Awaitable[list[_Answer]]]:
        async def run(batch: Sequence[RequestRow]) -> list[_Answer]:
            epoch, answers = await self._fences.call(part, self._gates.hold, batch)
            return [(epoch, answer) for answer in answers]

        return run

    async def _end(self, holds: Iterable[str], *, void: bool) -> None:
        for part, ids in _by_part(holds).items():
            await self._fences.call(part, self._gates.release, ids, void=void)

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

    async def _set(self, setting: SetRow) -> None:
        part = (await self._parts([setting.pool]))[setting.pool]
        await self._fences.call(part, self._gates.set, [setting])

    async def _parts(self, pools: Iterable[str]) -> dict[str, int]:
        """The partition of each pool; a drop that does not exist is left out."""
        parts: dict[str, int] = {}
        unknown: list[str] = []
        for pool in pools:
            kind, _, name = pool.partition(":")
            if kind == "sku":
                parts[pool] = ledger.partition_of(name, self._partitions)
            elif pool in self._drops:
                parts[pool] = self._drops[pool]
            else:
                unknown.append(pool)
        if unknown:
            rows = await self._db.read(lambda conn: ledger.pools(conn, unknown))
            if len(self._drops) > DROPS_MAX:
                self._drops.clear()
            self._drops |= {row.pool: row.partition for row in rows}
            parts |= {row.pool: row.partition for row in rows}
        return parts

    def _set_skew(self, redis_ms: int) -> None:
        """Deadlines move by the same amount until the two clocks have drifted apart."""
        skew = self._clock.now_ms() - redis_ms
        if abs(skew - self._skew_ms) > SKEW_MS:
            self._skew_ms = skew

    def _holds(self, held: Held, epoch: int) -> list[Hold]:
        self._set_skew(held.now_ms)
        return [self._hold(row, epoch) for row in held.holds]

    def _hold(self, row: HoldRow, epoch: int) -> Hold:
        return Hold(
            id=row.id,
            pool=row.pool,
            sku=row.sku,
            buyer=row.buyer,
            room=row.room,
            qty=row.qty,
            price_minor=row.price,
            state=row.state,
            due=row.due + self._skew_ms,
            epoch=epoch,
            drop=row.drop,
        )


def _by_sku(hold: Hold) -> tuple[str, str]:
    return hold.sku, hold.drop or ""


def _by_part(holds: Iterable[str]) -> dict[int, list[str]]:
    parts: dict[int, list[str]] = defaultdict(list)
    for hold in holds:
        parts[part_of(hold)].append(hold)
    return dict(sorted(parts.items()))

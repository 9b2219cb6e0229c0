"""The inventory as a state machine: real scripts and real SQL beside the plain model.

Two nodes share one Redis and one database. Whatever they are asked, in whatever order, the
model of `model.py` says beforehand what may be granted, and afterwards what must be free.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
)
from model import Model, ModelHold, ModelPool, Phase
from shopfloor import stock_a_shop
from sqlalchemy import select, update

from liveroom.audit import audit
from liveroom.bookkeeping import Move, move_stock
from liveroom.clock import ServerClock
from liveroom.deciding import Wish
from liveroom.errors import LiveroomError, Refused
from liveroom.inventory import Hold, HoldLineRequest, HoldRequest, Inventory, Told
from liveroom.placing import place_batch
from liveroom.promotions import NewDrop, Promotions
from liveroom.shapes import Order
from liveroom.store import ledger, outline, scripts, tables, waiting
from liveroom.store.backplane import Backplane
from liveroom.store.database import Database, now_ms

STOCK = {"s1": 6, "s2": 3}
LIMITS = {"s2": 2}
BUYERS = ["ann", "bob"]
PRICE = 250
HOUR_MS = 3_600_000

SKUS = st.sampled_from(list(STOCK))


def line(
    sku: str, qty: int = 1, price: int | None = None, drop: str | None = None
) -> HoldLineRequest:
    pool = ledger.pool_of(sku, drop)
    return HoldLineRequest(pool=pool, sku=sku, drop=drop, qty=qty, price_minor=price)


def wanted(key: str, *lines: HoldLineRequest, buyer="ann", kind="placing", again=True):
    return HoldRequest(buyer=buyer, room="r1", key=key, lines=lines, kind=kind, again=again)


def place(conn, order: str, holds: list[Hold]):
    wish = Wish(
        order=order, buyer=holds[0].buyer, room="r1", content="c", buy_now=True, holds=holds
    )
    return place_batch(conn, [wish], 60_000)


def cancel(conn, order: str) -> list[Told]:
    """What ORDERS does when an order ends unpaid, in short."""
    lines = conn.execute(select(tables.order_lines).filter_by(order=order)).all()
    buyer = conn.execute(select(tables.orders.c.buyer).filter_by(id=order)).scalar_one()
    moves = [Move(row.pool, "release", order, reserved=-row.qty) for row in lines]
    told = move_stock(conn, now_ms(conn), moves)
    taken = tables.buyer_taken
    for row in lines:
        mine = update(taken).where(taken.c.pool == row.pool, taken.c.buyer == buyer)
        conn.execute(mine.values(units=taken.c.units - row.qty))
    conn.execute(update(tables.orders).filter_by(id=order).values(state="cancelled"))
    return told


async def audited(db: Database, node: Inventory) -> None:
    report = await audit(db, await node.inspect())
    assert report.ok, report


async def outcome(call):
    """What the call answers, or its refusal."""
    try:
        return await call
    except LiveroomError as refusal:
        return refusal


class Selling(RuleBasedStateMachine):
    """Two nodes on one Redis and one SQL; the holds of `hasty` are due the moment they are made."""

    redis_url = ""
    schema = Path()
    holds = Bundle("holds")
    untold = Bundle("untold")

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = Path(tempfile.mkdtemp())
        shutil.copy(self.schema, self.folder / "db")
        self.db = Database(f"sqlite:///{self.folder}/db", lock_path=self.folder / "lock")
        self.client = scripts.connect(self.redis_url)
        self.count = 0
        # Whose limit Redis may count too high, until it has been told everything in order.
        self.behind: set[str] = set()
        self.model = Model(
            {f"sku:{sku}": ModelPool(units, PRICE, LIMITS.get(sku)) for sku, units in STOCK.items()}
        )

    def do(self, coroutine):
        return self.runner.run(coroutine)

    @initialize(partitions=st.sampled_from([1, 3]))
    def begin(self, partitions):
        """A stocked shop, in one partition or with each SKU in its own."""

        async def opened() -> None:
            await self.client.flushall()
            await self.db.write(lambda conn: stock_a_shop(conn, STOCK, LIMITS))
            for node in (self.node, self.hasty):
                await node.start()

        made = partial(Inventory, self.db, self.client, ServerClock(), partitions=partitions)
        self.node = made(hold_ttl_s=60, placing_ms=60_000)
        self.hasty = made(hold_ttl_s=0, placing_ms=0)
        clock = ServerClock()
        backplane = Backplane(self.client, self.client, clock)
        self.promotions = Promotions(self.db, self.node, backplane, clock)
        self.do(opened())

    def teardown(self) -> None:
        async def end() -> None:
            await self.promotions.close_down()
            await self.node.close()
            await self.hasty.close()
            await self.client.aclose()
            await self.db.close()

        self.do(end())
        self.runner.close()
        shutil.rmtree(self.folder)

    def name(self, kind: str) -> str:
        self.count += 1
        return f"{kind}{self.count}"

    def left(self) -> dict[str, int]:
        """What every gate says is left."""
        found = self.do(self.node.left(list(self.model.pools)))
        return {pool: units for pool, (units, _) in found.items()}

    # ── holding ───────────────────────────────────────────────────────────────────────────

    @rule(
        target=holds,
        buyer=st.sampled_from(BUYERS),
        lines=st.lists(st.tuples(st.integers(0, 9), st.integers(1, 3)), min_size=1, max_size=3),
        hasty=st.booleans(),
        at_old_price=st.sampled_from([False, False, False, True]),
    )
    def buy(self, buyer, lines, hasty, at_old_price):
        """Buy now: granted exactly where drops, prices and limits allow it and gates have enough."""
        asked: dict[str, int] = {}
        for at, qty in lines:
            pool = list(self.model.pools)[at % len(self.model.pools)]
            asked[pool] = asked.get(pool, 0) + qty
        why_not = self.model.refusals(buyer, asked, at_old_price=at_old_price)
        left = self.left()
        if any(left[pool] < qty for pool, qty in asked.items()):
            why_not.add("sold_out")
        request = wanted(
            self.name("o"), *self._lines(asked, at_old_price=at_old_price), buyer=buyer
        )
        holds = self.do(outcome((self.hasty if hasty else self.node).hold(request)))
        if isinstance(holds, LiveroomError):
            counted_twice = buyer in self.behind and holds.code == "limit_reached"
            assert holds.code in why_not or counted_twice, (holds.code, why_not)
            return multiple()
        assert not why_not, f"granted in spite of {why_not}"
        assert {hold.pool: hold.qty for hold in holds} == asked
        for hold in holds:
            assert hold.price_minor == self.model.pools[hold.pool].price
            self.model.holds[hold.id] = ModelHold(hold.pool, buyer, hold.qty, False, hasty)
        return (request, holds)

    def _lines(self, asked: dict[str, int], *, at_old_price: bool) -> Iterator[HoldLineRequest]:
        for pool, qty in asked.items():
            model = self.model.pools[pool]
            drop = pool.removeprefix("drop:") if model.source else None
            sku = (model.source or pool).removeprefix("sku:")
            yield line(sku, qty, model.price - 1 if at_old_price else model.price, drop)

    @rule(taken=holds)
    def buy_again(self, taken):
        """A repeated request gets the holds it has, or anew what has ended."""
        request, before = taken
        if not all(hold.id in self.model.holds for hold in before):
            return
        again = self.do(
            self.node.to_placing(request.buyer, "r1", request.key)
            if self.model.holds[before[0].id].cart
            else self.node.hold(request)
        )
        assert [hold.id for hold in again] == [hold.id for hold in before]

    @rule(target=holds, buyer=st.sampled_from(BUYERS), sku=SKUS, qty=st.integers(1, 2))
    def fill_cart_and_check_out(self, buyer, sku, qty):
        """A cart's hold becomes placing, and may be placed like any other."""
        order = self.name("o")
        request = wanted(self.name("c"), line(sku, qty), buyer=buyer, kind="held")
        added = self.do(outcome(self.node.hold(request)))
        if isinstance(added, LiveroomError):
            assert added.code in {"sold_out", "limit_reached", "illegal_transition"}
            return multiple()
        holds = self.do(self._check_out(buyer, order))
        if not holds:
            return multiple()
        for hold in holds:
            self.model.holds[hold.id] = ModelHold(hold.pool, buyer, hold.qty, True, False)
        return (wanted(order, line(sku, qty), buyer=buyer), holds)

    @rule(taken=consumes(holds))
    def release(self, taken):
        """A refused order's holds end: they were made void with it."""
        ids = [hold.id for hold in taken[1]]
        self.do(self.node.release(ids))
        for hold in ids:
            self.model.holds.pop(hold, None)

    # ── orders ────────────────────────────────────────────────────────────────────────────

    @rule(target=untold, taken=consumes(holds))
    def place(self, taken):
        """SQL places what is still held, whatever Redis went through; the tell comes later."""
        request, holds = taken
        plan = self.do(self.db.write(lambda conn: place(conn, request.key, holds)))
        may = all(
            hold.id in self.model.holds and self.model.pools[hold.pool].sells for hold in holds
        )
        assert plan.broken == 0
        assert isinstance(plan.answers[0], Order) == may, plan.answers
        if not may:
            self.do(self.node.release(plan.ended))
            for hold in holds:
                self.model.holds.pop(hold.id, None)
            return multiple()
        self.model.place(request.key, [hold.id for hold in holds])
        self.behind.add(request.buyer)
        return plan.told

    @rule(told=consumes(untold))
    def tell(self, told):
        """Tells arrive in any order."""
        self.do(self.node.tell(told))

    @rule(told=untold)
    def tell_twice(self, told):
        """A tell may be repeated."""
        self.do(self.hasty.tell([*told, *told]))

    @rule(target=untold, which=st.randoms(use_true_random=False))
    def cancel(self, which):
        """An order that ends unpaid gives its units back: SQL first."""
        if not self.model.orders:
            return multiple()
        order = which.choice(sorted(self.model.orders))
        told = self.do(self.db.write(lambda conn: cancel(conn, order)))
        self.behind.add(self.model.orders[order][0].buyer)
        self.model.cancel(order)
        return told

    # ── what there is ─────────────────────────────────────────────────────────────────────

    @rule(sku=SKUS, qty=st.integers(1, 3))
    def restock(self, sku, qty):
        """Units are added once, however often the operation is repeated."""
        operation = self.name("r")
        for _ in range(2):
            self.do(self.node.restock(sku, qty, operation, "ann"))
        self.model.pools[f"sku:{sku}"].available += qty

    @rule(sku=SKUS, qty=st.integers(1, 3))
    def reduce(self, sku, qty):
        """Only what is free at the gate can be taken away."""
        operation = self.name("a")
        left = self.left()[f"sku:{sku}"]
        waited_for = f"sku:{sku}" in self.model.waited_for
        refusal = self.do(outcome(self.node.adjust(sku, -qty, operation, "ann", "lost")))
        if isinstance(refusal, LiveroomError):
            assert refusal.data["left"] < qty
            assert waited_for or refusal.data["left"] == left
            return
        self.do(self.node.adjust(sku, -qty, operation, "ann", "lost"))
        self.model.pools[f"sku:{sku}"].available -= qty

    @rule(sku=SKUS, price=st.integers(200, 203))
    def ask_another_price(self, sku, price):
        """The next hold has the new price; those that are there keep theirs."""
        change = (
            update(tables.skus)
            .filter_by(id=sku)
            .values(price_minor=price, price_v=tables.skus.c.price_v + 1)
        )
        self.do(self.db.write(lambda conn: conn.execute(change) and None))
        self.do(self.node.set_price(sku))
        self.model.pools[f"sku:{sku}"].price = price

    # ── drops ─────────────────────────────────────────────────────────────────────────────

    @rule(
        sku=SKUS,
        qty=st.integers(1, 3),
        at_once=st.booleans(),
        limit=st.sampled_from([None, 1]),
    )
    def schedule_a_drop(self, sku, qty, at_once, limit):
        """Free units become the drop's, once however often it is asked; nobody else is asked."""
        new = NewDrop(
            room="r1",
            sku=sku,
            quantity=qty,
            price_minor=100,
            opens_in_ms=0 if at_once else HOUR_MS,
            lasts_ms=HOUR_MS,
            limit_per_buyer=limit,
        )
        operation, pool = self.name("d"), f"sku:{sku}"
        free = self.model.free(pool)
        drop = self.do(outcome(self.promotions.schedule(new, operation)))
        if isinstance(drop, LiveroomError):
            assert isinstance(drop, Refused)
            assert drop.data["left"] < qty
            return
        assert qty <= free, f"{qty} were carved out of {free}"
        assert self.do(self.promotions.schedule(new, operation)).id == drop.id
        phase = Phase.OPEN if at_once else Phase.SCHEDULED
        self.model.carve(pool, f"drop:{drop.id}", ModelPool(qty, 100, limit, pool, phase))

    @precondition(lambda self: self.model.live_drops())
    @rule(which=st.randoms(use_true_random=False))
    def end_a_drop(self, which):
        """It sells no more from here on, and what it has free is ordinary stock again."""
        pool = which.choice(self.model.live_drops())
        is_open = self.model.pools[pool].phase is Phase.OPEN
        end = self.promotions.close if is_open else self.promotions.cancel
        self.do(end("r1", pool.removeprefix("drop:")))
        self.model.pools[pool].phase = Phase.ENDED
        self._take_in_returns()

    def _take_in_returns(self) -> None:
        """What ended drops gave back by now, as SQL has it: never more than they had free."""
        for row in self.do(self.db.read(ledger.pools)):
            model = self.model.pools[row.pool]
            if model.source is not None and row.available < model.available:
                assert model.phase is Phase.ENDED
                assert model.available - row.available <= self.model.free(row.pool)
                self.model.give_back(row.pool, model.available - row.available)

    # ── waiting ───────────────────────────────────────────────────────────────────────────

    @rule(sku=SKUS)
    def wait_for(self, sku):
        """Somebody joins the waitlist: from now on only offers hold, also after a wipe."""
        wish = {"pool": f"sku:{sku}", "member": "zoe", "room": "r1", "qty": 1, "bucket": "mia///"}
        self.do(self.db.write(partial(waiting.join, **wish)))
        self.do(self.node.set_waiting(sku, waiting=True))
        self.model.waited_for.add(f"sku:{sku}")

    @precondition(lambda self: self.model.waited_for)
    @rule(which=st.randoms(use_true_random=False))
    def wait_no_more(self, which):
        """The list is empty: everybody may hold again."""
        pool = which.choice(sorted(self.model.waited_for))
        self.do(self.db.write(partial(waiting.leave, pool=pool, member="zoe")))
        self.do(self.node.set_waiting(pool.removeprefix("sku:"), waiting=False))
        [joined] = [last for one, last in self.do(self.db.read(waiting.lists)).empty if one == pool]
        assert self.do(self.db.write(partial(waiting.close, pool=pool, joined=joined)))
        self.model.waited_for.remove(pool)

    @precondition(lambda self: self.model.waited_for)
    @rule(
        target=holds,
        buyers=st.permutations(BUYERS),
        which=st.randoms(use_true_random=False),
        qty=st.integers(1, 4),
    )
    def offer_and_check_out(self, buyers, which, qty):
        """Offered is what there is, up to what was asked; the next get what is over."""
        pool = which.choice(sorted(self.model.waited_for))
        sku = pool.removeprefix("sku:")
        asked = [
            wanted(self.name("w"), line(sku, qty), buyer=buyer, kind="held") for buyer in buyers
        ]
        made = []
        for buyer, got in zip(buyers, self.do(self.node.offer(asked)), strict=True):
            if isinstance(got, str):
                assert got in {"sold_out", "limit_reached", "busy", "price_changed"}
                continue
            assert 1 <= got.qty <= min(qty, self.model.free(pool))
            order = self.name("o")
            holds = self.do(self._check_out(buyer, order))
            if not holds:
                continue
            assert [hold.id for hold in holds] == [got.id]
            self.model.holds[got.id] = ModelHold(pool, buyer, got.qty, True, False)
            made.append((wanted(order, line(sku, got.qty), buyer=buyer), holds))
        return multiple(*made)

    async def _check_out(self, buyer, order):
        """The cart, or nothing while another order of the buyer's is taking it: then it is empty."""
        holds = await outcome(self.node.to_placing(buyer, "r1", order))
        under_way = any(hold.cart and hold.buyer == buyer for hold in self.model.holds.values())
        assert isinstance(holds, LiveroomError) == under_way
        if not under_way:
            return holds
        assert holds.code == "hold_expired"
        await self.node.remove([hold.id for hold in await self.node.cart(buyer, "r1")])
        return []

    # ── what befalls it ───────────────────────────────────────────────────────────────────

    @rule()
    def wipe(self):
        """Redis forgets everything: holds are lost, nothing else is.

        Between two such losses both nodes have looked: who has missed a rebuild and meets the
        next loss may not know whether the new fence was ever opened, and answers `rebuilding`.
        """
        for node in (self.node, self.hasty):
            self.do(node.check_once())
        self.do(self.client.flushall())
        self.left()
        self.model.holds.clear()

    @rule()
    def sweep(self):
        """After a sweep every gate stands where the ledger does, and says what is free."""
        self.do(self.hasty.sweep_once(self.do(self.db.read(outline.read))))
        self.behind.clear()
        for hold in [hold for hold, what in self.model.holds.items() if what.due]:
            del self.model.holds[hold]
        self.do(self.promotions.mend_once())
        self._take_in_returns()
        assert self.left() == {pool: self.model.shown(pool) for pool in self.model.pools}
        for pool, what in self.model.pools.items():
            assert what.phase is not Phase.ENDED or self.model.free(pool) == 0
        rows = self.do(self.db.read(ledger.pools))
        assert {row.pool: row.available for row in rows} == self.model.available()
        self.do(audited(self.db, self.node))

    @invariant()
    def never_promises_too_much(self):
        """At every moment a gate offers at most what nobody has."""
        for pool, units in self.left().items():
            assert 0 <= units <= self.model.shown(pool)

"""A sale in a world: two nodes, a few buyers and a host, and what must be true of it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Coroutine
from functools import partial
from typing import Any

from sqlalchemy import insert, select, update

from liveroom import audit as audits
from liveroom.errors import Invalid, LiveroomError, Refused
from liveroom.inventory import HoldLineRequest, HoldRequest, Inventory
from liveroom.metrics import Counters
from liveroom.orders import LineRequest, Orders
from liveroom.payments import Payments, Sandbox
from liveroom.store import ledger, scripts, tables
from liveroom.store.backplane import Backplane
from liveroom.store.fenced import Shut
from liveroom.store.gates import Gates
from tests.simulation.world import AtOnce, Gone, Process, RedisAtOnce, SimDatabase, SimRedis, World

HOLD_TTL_S = 1.0
PLACING_MS = 500
PAY_WITHIN_S = 2.5
CHORES_S = 0.7
SALE_S = 3.0
LOOK_EVERY = 8

_NOBODY_LISTENS = scripts.connect_subscriber("unix:///nowhere")  # never connected


class _Clock:
    def __init__(self, world: World) -> None:
        self._world = world

    def now_ms(self) -> int:
        return self._world.sql_ms()


class Node:
    """One process of the house, as far as it sells."""

    def __init__(self, world: World, name: str) -> None:
        self.process = Process(name)
        db, client, clock = (
            SimDatabase(world, self.process),
            SimRedis(world, self.process),
            _Clock(world),
        )
        self.db = db
        self.counters = Counters()
        self.inventory = Inventory(
            db,
            client,
            clock,
            hold_ttl_s=HOLD_TTL_S,
            placing_ms=PLACING_MS,
            monotonic=world.loop.time,
        )
        self.payments = Payments(db, [Sandbox([b"secret"], clock)])
        self.orders = Orders(
            db,
            self.inventory,
            self.payments,
            Backplane(client, _NOBODY_LISTENS, clock),
            self.counters,
            pay_within_s=PAY_WITHIN_S,
            closing_max_s=2.0,
        )
        self._rng = world.rng
        self._chores: asyncio.Task[None] | None = None

    async def start(self) -> None:
        await self.inventory.start()
        self._chores = asyncio.ensure_future(self._do_chores())

    def end(self) -> None:
        self.process.died.set()
        if self._chores is not None:
            self._chores.cancel()

    async def chore(self, number: int) -> None:
        """One of what a server does again and again by itself."""
        sweep, look = self.inventory.sweep_once, self.inventory.check_once
        steps = (
            *(sweep, look, self.orders.expire_once, self.orders.end_closing_once),
            *(sweep, self.orders.settle_waiting_once),
        )
        with contextlib.suppress(LiveroomError):  # a server logs it, and tries again
            await steps[number % len(steps)]()

    async def _do_chores(self) -> None:
        for number in itertools.count():
            await asyncio.sleep(self._rng.uniform(0.0, 2 * CHORES_S))
            await self.chore(number)


class Sale:
    """Everything that happens under one seed."""

    def __init__(self, world: World) -> None:
        self.world, self.rng = world, world.rng
        self.stock = {"s1": self.rng.randint(1, 3), "s2": self.rng.randint(1, 3)}
        self.limit = self.rng.choice([None, None, 1, 2])
        self.rush_s = self.rng.choice([0.05, 0.5, SALE_S / 2])
        self.nodes: list[Node] = []
        self.broken = 0
        self.made = 0
        self.acked: dict[str, Any] = {}
        self.ended: set[str] = set()
        self.seen_v: dict[str, int] = {}
        self._gates = Gates(RedisAtOnce(world, Process("look")), held_ms=1, placing_ms=1)

    # ── the world as it is ────────────────────────────────────────────────────────────────

    def prepare(self) -> None:
        """An empty database with one shop and one live room; an empty Redis."""

        def rows(conn: Any) -> None:
            for table in reversed(tables.metadata.sorted_tables):
                conn.execute(table.delete())
            ledger.prepare(conn, 1)
            conn.execute(insert(tables.shops), {"id": "shop", "name": "S", "created_at": 0})
            product = {"id": "p1", "shop": "shop", "title": "P", "currency": "EUR", "needs": []}
            conn.execute(insert(tables.products), product | {"created_at": 0})
            for at, (sku, units) in enumerate(self.stock.items()):
                row = {"id": sku, "product": "p1", "position": at, "price_minor": 100}
                limit = self.limit if sku == "s1" else None
                conn.execute(insert(tables.skus), row | {"limit_per_buyer": limit})
                ledger.create_pool(conn, sku=sku, initial=units)
            room = {"id": "r1", "title": "R", "host": "h", "state": "live", "paused": False, "v": 1}
            more = {"settings": {}, "pinned": [], "pinned_seq": 0, "created_at": 0}
            conn.execute(insert(tables.rooms), room | more)

        self.world.database._write(rows, lambda: None)
        self.world.valkey.flushdb()
        self.world.looks.append(self._look)

    def sql(self, fn: Any) -> Any:
        """Read SQL at this instant."""
        return self.world.database._read(fn, lambda: None, patient=True)

    def _inspect(self) -> Any:
        """Redis at this instant, under SQL's epoch; None while it is being rebuilt."""
        [(_, epoch)] = self.sql(ledger.fences)
        try:
            return epoch, _at_once(self._gates.inspect(0, epoch))
        except Shut:
            return None

    def _look(self) -> None:
        """I3 and I11 at this instant."""
        if self.world.calls % LOOK_EVERY == 3:
            self.world.keep_image()
        if self.world.calls % LOOK_EVERY:
            return
        found = self._inspect()
        if found is None:
            return
        epoch, inspection = found
        for pool, gate in inspection.gates.items():
            v = epoch * 2**32 + gate.n
            assert v >= self.seen_v.get(pool, 0), f"{pool}: v went back"
            assert gate.base >= gate.held, f"{pool}: {gate.held} held of {gate.base}"
            said = self._free_after(pool, gate.seq)
            assert gate.base == said, f"{pool}: base {gate.base}, row {gate.seq} says {said}"
            self.seen_v[pool] = v

    def _free_after(self, pool: str, seq: int) -> int:
        """What the ledger says was free after this row."""
        row = select(tables.ledger.c.available_after)
        if seq == 0:
            row = select(tables.pools.c.initial).where(tables.pools.c.pool == pool)
        else:
            row = row.where(tables.ledger.c.pool == pool, tables.ledger.c.seq == seq)
        return self.sql(lambda conn: conn.execute(row).scalar())

    # ── nodes ─────────────────────────────────────────────────────────────────────────────

    async def keep_nodes(self) -> None:
        """Two nodes, each started again when it dies."""
        while True:
            for node in [node for node in self.nodes if node.process.died.is_set()]:
                self.nodes.remove(node)
                self.broken += node.counters.broken_holds
                node.end()
            while len(self.nodes) < 2:
                await self._start_one()
            await asyncio.sleep(0.1)

    async def _start_one(self) -> None:
        self.made += 1
        node = Node(self.world, f"n{self.made}")
        try:
            await node.process.do(node.start())
        except (Gone, LiveroomError):
            node.end()
        else:
            self.nodes.append(node)
        await asyncio.sleep(0.05)

    async def on_a_node(self, ask: Any) -> Any:
        """What some living node answers to `ask(node)`; Gone, or an error of the house."""
        while not self.nodes:  # noqa: ASYNC110 - a buyer does poll
            await asyncio.sleep(0.05)
        node = self.rng.choice(self.nodes)
        return await node.process.do(ask(node))

    # ── buyers ────────────────────────────────────────────────────────────────────────────

    def _exists(self, order: str) -> bool:
        found = select(tables.orders.c.id).where(tables.orders.c.id == order)
        return self.sql(lambda conn: conn.execute(found).first()) is not None

    async def order(self, order: str, ask: Any, *, patience: int) -> Any:
        """Repeat one order id until it is there or the buyer gives up."""
        for _ in range(patience):
            before = self._exists(order)
            try:
                answer = await self.on_a_node(ask)
            except Gone:
                pass
            except Refused as refusal:
                if before:
                    raise AssertionError(f"{order} is there and was told {refusal.code}") from None
                if self.rng.random() < 0.5:
                    return None
            except Invalid as error:
                if error.code not in ("illegal_transition", "price_changed"):
                    raise
            except LiveroomError:
                pass
            else:
                self._acknowledged(order, answer)
                return answer
            await asyncio.sleep(self.rng.uniform(0.0, 0.6))
        return None

    def _acknowledged(self, order: str, answer: Any) -> None:
        assert self._exists(order), f"{order} was told ok and is not there"
        first = self.acked.setdefault(order, answer)
        assert answer == first, f"{order} was answered two ways"

    async def buy(
        self, number: int, lines: dict[str, int], *, patience: int = 8, name: str = ""
    ) -> Any:
        """Buy now, at the price that is shown."""
        buyer, order = name or f"b{number % 4}", f"o{number}"
        shown = {sku: self._price(sku) for sku in lines}
        asked = [
            LineRequest(sku=s, qty=q, price_minor=shown[s], bucket=f"mia///share.{buyer}")
            for s, q in lines.items()
        ]
        tries = iter(range(10_000))

        def ask(node: Node) -> Any:
            return node.orders.place(
                order=order, buyer=buyer, room="r1", lines=asked, content="c", again=next(tries) > 0
            )

        answer = await self.order(order, ask, patience=patience)
        if answer is not None:
            for line in answer.lines:
                assert line.price_minor == shown[line.sku], f"{order}: not the price that was shown"
        return answer

    async def cart(self, number: int, lines: dict[str, int]) -> None:
        """Put units in a cart, think, and order them; perhaps from two tabs at once."""
        buyer, order = f"b{number % 4}", f"o{number}"
        for sku, qty in lines.items():
            bucket = f"mia//e:{number}/"
            line = HoldLineRequest(pool=f"sku:{sku}", sku=sku, qty=qty, bucket=bucket)
            request = HoldRequest(
                buyer=buyer, room="r1", key=f"k{number}{sku}", lines=[line], kind="held"
            )
            try:
                await self.on_a_node(lambda node, ask=request: node.inventory.hold(ask))
            except (Gone, LiveroomError):
                continue
        await asyncio.sleep(self.rng.uniform(0.0, 1.3))

        def ask(node: Node, order: str = order) -> Any:
            return node.orders.checkout(order=order, buyer=buyer, room="r1", content="c")

        tabs = [self.order(order, ask, patience=5)]
        if self.rng.random() < 0.5:
            tabs.append(self.order(order, ask, patience=5))
        if self.rng.random() < 0.3:
            tabs.append(self.order(f"{order}x", partial(ask, order=f"{order}x"), patience=2))
        await asyncio.gather(*tabs)

    async def buyer(self, number: int) -> None:
        """One of the crowd: buys, and may pay or cancel, or ask for the same again."""
        await asyncio.sleep(self.rng.uniform(0.0, self.rush_s))
        lines = self.rng.choice([{"s1": 1}, {"s1": 1}, {"s1": 2}, {"s2": 1}, {"s1": 1, "s2": 1}])
        if self.rng.random() < 0.4:
            await self.cart(number, lines)
            return
        tabs = [self.buy(number, lines)]
        if self.rng.random() < 0.3:
            tabs.append(self.buy(number, lines))
        [answer, *_] = await asyncio.gather(*tabs)
        if answer is not None and self.rng.random() < 0.5:
            await asyncio.sleep(self.rng.uniform(0.0, 3.0))
            await self.end_or_pay(number)

    async def end_or_pay(self, number: int) -> None:
        """Cancel, or pay; perhaps more than once, and both at once."""
        buyer, order = f"b{number % 4}", f"o{number}"

        async def pay(node: Node) -> None:
            payment = await node.payments.start(order=order, buyer=buyer)
            signed = await node.payments.succeed(payment.id)
            await node.orders.settle(node.payments.verify("sandbox", *signed))

        async def cancel(node: Node) -> None:
            await node.orders.cancel(order, buyer)

        for work in self.rng.choice([[cancel], [pay], [cancel, cancel], [cancel, pay], [pay, pay]]):
            await asyncio.gather(
                self._try(work), self._try(work) if self.rng.random() < 0.3 else asyncio.sleep(0)
            )

    async def _try(self, work: Any) -> bool:
        try:
            await self.on_a_node(work)
        except (Gone, LiveroomError):
            return False
        return True

    # ── the host ──────────────────────────────────────────────────────────────────────────

    def _price(self, sku: str) -> int:
        found = select(tables.skus.c.price_minor).where(tables.skus.c.id == sku)
        return self.sql(lambda conn: conn.execute(found).scalar_one())

    async def host(self) -> None:
        """Restocks, counts out, changes prices and pauses while everybody buys."""
        for number in range(self.rng.randint(0, 4)):
            await asyncio.sleep(self.rng.uniform(0.0, SALE_S / 3))
            await self._try(
                self.rng.choice([self._restock, self._reduce, self._ask_more, self._pause])(number)
            )

    def _restock(self, number: int) -> Any:
        return lambda node: node.inventory.restock("s1", 1, f"op{number}", "host")

    def _reduce(self, number: int) -> Any:
        return lambda node: node.inventory.adjust("s1", -1, f"op{number}", "host", "broken")

    def _ask_more(self, number: int) -> Any:
        async def set_price(node: Node) -> None:
            skus = tables.skus.c
            price = {"price_minor": 200 + number, "price_v": skus.price_v + 1}
            change = update(tables.skus).where(skus.id == "s1").values(price)
            await node.db.write(lambda conn: conn.execute(change) and None)
            await node.inventory.set_price("s1")

        return set_price

    def _pause(self, _number: int) -> Any:
        async def pause(node: Node) -> None:
            for paused in (True, False):
                change = update(tables.rooms).values(paused=paused)
                await node.db.write(lambda conn, change=change: conn.execute(change) and None)
                await asyncio.sleep(0.5)

        return pause

    # ── from beginning to end ─────────────────────────────────────────────────────────────

    async def run(self) -> None:
        """The sale, then quiet; then whatever is left is bought, and everything must add up."""
        self.prepare()
        keeping = asyncio.ensure_future(self.keep_nodes())
        crowd = [self.buyer(number) for number in range(self.rng.randint(3, 7))]
        everything = asyncio.ensure_future(asyncio.gather(self.host(), *crowd))
        await asyncio.wait({everything, keeping}, return_when=asyncio.FIRST_COMPLETED)
        if keeping.done():
            keeping.result()
        everything.result()
        self.world.faults_left = 0
        await self._unpaused()
        while not self.nodes or any(node.process.died.is_set() for node in self.nodes):  # noqa: ASYNC110 - as a buyer
            await asyncio.sleep(0.05)
        await self._settle()
        await self._sell_out()
        await self._settle()
        keeping.cancel()
        await self._judge()

    async def _unpaused(self) -> None:
        change = update(tables.rooms).values(paused=False)
        self.world.database._write(lambda conn: conn.execute(change) and None, lambda: None)

    async def _sell_out(self) -> None:
        """Demand beyond the stock: every unit must be had."""
        for number in range(1000, 1060):
            free = self._free()
            if not any(free.values()):
                return
            sku = next(sku for sku, units in free.items() if units)
            await self.buy(number, {sku: 1}, patience=3, name=f"last{number}")
        raise AssertionError(f"not sold: {self._free()}, {self._inspect()}")

    def _free(self) -> dict[str, int]:
        return {row.sku: row.available for row in self.sql(ledger.pools)}

    async def _settle(self) -> None:
        """All that is due ends, and gates are told: after this everything stands still."""
        await asyncio.sleep(PAY_WITHIN_S + HOLD_TTL_S)
        for number in range(5):
            node = self.nodes[0]
            await node.process.do(node.chore(number))

    async def _judge(self) -> None:
        found = self._inspect()
        assert found is not None, "the gates are shut at rest"
        _, inspection = found
        report = _at_once(audits.audit(AtOnce(self.world), [inspection]))
        assert report.ok, {name: c.failures for name, c in report.checks.items() if not c.ok}
        assert not inspection.holds, f"held at rest: {inspection.holds}"
        for row in self.sql(ledger.pools):
            gate = inspection.gates[row.pool]
            assert (gate.base, gate.seq) == (row.available, row.seq), f"{row} and {gate} at rest"
        for order in self.acked:
            assert self._exists(order), f"{order} was told ok and is lost"
        self.broken += sum(node.counters.broken_holds for node in self.nodes)
        assert not self.broken, f"{self.broken} holds of the present fence were broken"


def _at_once(work: Coroutine[Any, Any, Any]) -> Any:
    """What a coroutine returns that waits for nothing."""
    try:
        work.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("it waits")

"""The audit: quiet over a true world, and every planted difference is found."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest
from shopfloor import floor
from sqlalchemy import Connection, text

from liveroom.audit import Auditor, audit
from liveroom.inventory import HoldLineRequest, HoldRequest
from liveroom.store.database import Database
from liveroom.store.leases import Lease


async def a_busy_day(shop) -> None:
    """One order in every state, a cart, a restock and a reduction."""
    for order in ("placed", "paid", "cancelled", "expired", "late", "lost"):
        await shop.buy(order, ("s1", 1), ("s2", 1), buyer=order)
    await shop.pay("paid", buyer="paid")
    late = await shop.orders_payment("late", buyer="late")
    lost = await shop.orders_payment("lost", buyer="lost")
    await shop.orders.cancel("cancelled", "cancelled")
    await shop.overdue("expired", "late", "lost")
    await shop.expire()
    await shop.settle_down()
    await shop.press(late)
    await shop.settle_down()
    await shop.inventory.adjust("s2", -(await shop.left("s2")), "op1", "h", "counted")
    await shop.press(lost)
    await shop.outbox.run_once()
    await shop.inventory.restock("s2", 5, "op2", "h")
    await shop.put("s1", 2)
    await shop.settle_down()


def test_a_true_world_has_no_difference(run, db, redis_url) -> None:
    """Every check looks at something and finds nothing, also twice and without Redis."""

    async def story() -> None:
        async with floor(db, redis_url, {"s1": 20, "s2": 10}, limits={"s1": 3}) as shop:
            await a_busy_day(shop)
            states = {name: await shop.state(name) for name in ("late", "lost", "paid")}
            assert states == {"late": "paid", "lost": "refunded", "paid": "paid"}
            for _ in range(2):
                report = await audit(db, await shop.inventory.inspect())
                assert report.ok, report
            assert all(check.checked for check in report.checks.values())
            alone = await audit(db)
            assert alone.ok
            assert alone.checks["I3"].note is not None

    run(story())


ORDER = "UPDATE orders SET {} WHERE id = '{}'"
PLANTED = {
    "I1 a pool that reserved more": ("I1", "UPDATE pools SET reserved = reserved + 1"),
    "I1 a pool that sold less": ("I1", "UPDATE pools SET sold = sold - 1 WHERE pool = 'sku:s1'"),
    "I1 a sequence ahead": ("I1", "UPDATE pools SET seq = seq + 1"),
    "I1 a gap in the ledger": ("I1", "DELETE FROM ledger WHERE pool = 'sku:s1' AND seq = 3"),
    "I1 a lost last row": ("I1", "DELETE FROM ledger WHERE pool = 'sku:s2' AND kind = 'restock'"),
    "I1 a wrong available_after": (
        "I1",
        "UPDATE ledger SET available_after = available_after + 1 WHERE seq = 2",
    ),
    "I1 stock from nowhere": ("I1", "UPDATE pools SET initial = initial + 1"),
    "I2 an order that reserves nothing": ("I2", ORDER.format("state = 'expired'", "placed")),
    "I2 an order that was forgotten": ("I2", ORDER.format("state = 'placed'", "expired")),
    "I2 a line that grew": ("I2", "UPDATE order_lines SET qty = qty + 1 WHERE \"order\" = 'paid'"),
    "I4 a release twice": (
        "I4",
        "UPDATE ledger SET kind = 'release' WHERE \"order\" = 'paid' AND kind = 'reserve'",
    ),
    "I4 a hold that is void and placed": (
        "I4",
        "INSERT INTO void_holds SELECT hold, 0 FROM order_lines WHERE \"order\" = 'placed'",
    ),
    "I4 a hold placed twice": (
        "I4",
        "UPDATE ledger SET hold = (SELECT MIN(hold) FROM ledger) WHERE kind = 'reserve'",
    ),
    "I4 a restock without a sale": (
        "I4",
        "UPDATE order_lines SET restocked = 1 WHERE \"order\" = 'expired'",
    ),
    "I6 a cart without one of its lines": (
        "I6",
        "DELETE FROM order_lines WHERE \"order\" = 'placed' AND line = 1",
    ),
    "I6 a total of something else": ("I6", ORDER.format("total_minor = 1", "placed")),
    "I6 a line nobody reserved": (
        "I6",
        "UPDATE order_lines SET hold = 'x' WHERE \"order\" = 'placed' AND line = 0",
    ),
    "I7 a count too low": ("I7", "UPDATE buyer_taken SET units = 0 WHERE buyer = 'placed'"),
    "I7 a count without orders": ("I7", "INSERT INTO buyer_taken VALUES ('sku:s1', 'eve', 1)"),
    "I7 a buyer above the limit": ("I7", "UPDATE skus SET limit_per_buyer = 0"),
    "I8 a capture without an order": ("I8", ORDER.format("state = 'cancelled'", "paid")),
    "I8 an order nobody paid": ("I8", "UPDATE payments SET state = 'failed'"),
    "I8 a refund above its capture": ("I8", "UPDATE refunds SET amount_minor = 501"),
    "I8 a refund that did not come": ("I8", "UPDATE refunds SET state = 'failed'"),
    "I8 a capture no event told of": ("I8", "DELETE FROM payment_events"),
    "I12 takings from nowhere": ("I12", "UPDATE takings SET paid_minor = paid_minor + 1"),
    "I12 a refund nobody took off": ("I12", "UPDATE takings SET refunded_minor = 1"),
    "I12 an order too many": ("I12", "UPDATE takings SET orders = orders + 1"),
    "I12 a minute that is lost": ("I12", "DELETE FROM takings"),
    "I12 takings of another bucket": ("I12", "UPDATE takings SET bucket = 'mia///'"),
    "I12 a line of another bucket": (
        "I12",
        "UPDATE order_lines SET bucket = 'mia///' WHERE \"order\" = 'paid' AND line = 1",
    ),
    "I12 a refund off a line that nobody asked for": (
        "I12",
        "UPDATE order_lines SET refunded_minor = 1 WHERE \"order\" = 'lost' AND line = 0",
    ),
    "I12 an order paid by nothing": ("I12", "UPDATE payments SET paid_at = NULL"),
    "I4 a sale of more": ("I4", "UPDATE order_lines SET restocked = 1 WHERE \"order\" = 'paid'"),
    "I13 an order nobody ended": (
        "I13",
        "UPDATE orders SET pay_by = 1 WHERE id = 'placed' AND EXISTS (SELECT 1 FROM leases)",
    ),
    "I13 units released too early": ("I13", ORDER.format("pay_by = pay_by + 600000", "expired")),
}


@pytest.fixture(scope="module")
def busy_day(tmp_path_factory: pytest.TempPathFactory, _empty_schema: Path, valkey: str) -> Path:
    """The SQLite file of a busy day, lived once; each test changes a copy."""
    path = tmp_path_factory.mktemp("day") / "liveroom.db"
    shutil.copy(_empty_schema, path)

    async def live() -> None:
        database = Database(f"sqlite:///{path}")
        stock = {"s1": 20, "s2": 10}
        async with floor(database, valkey, stock, limits={"s1": 3}) as shop:
            await a_busy_day(shop)
            assert await Lease(database, "n1", lasts_ms=3_600_000).glance(lambda _: True)
        await database.close()

    asyncio.run(live())
    return path


@pytest.mark.parametrize("planted", PLANTED)
def test_a_planted_difference_is_found(run, tmp_path, busy_day, planted) -> None:
    """Whatever is changed behind the ledger's back, its check names it."""
    check, statement = PLANTED[planted]
    path = shutil.copy(busy_day, tmp_path / "liveroom.db")

    def plant(conn: Connection) -> None:
        conn.execute(text("PRAGMA ignore_check_constraints = ON"))
        assert conn.execute(text(statement)).rowcount

    async def story() -> None:
        database = Database(f"sqlite:///{path}")
        assert (await audit(database)).ok
        await database.write(plant)
        report = await audit(database)
        await database.close()
        assert not report.ok
        assert report.checks[check].failures, report

    run(story())


@pytest.mark.parametrize("what", ["base", "seq", "held", "lost hold", "lost deadline"])
def test_a_difference_in_redis_is_found(run, db, redis_url, what) -> None:
    """A gate off its ledger row, or holds that do not add up."""

    async def story() -> None:
        async with floor(db, redis_url, {"s1": 20, "s2": 10}) as shop:
            await a_busy_day(shop)
            [seen] = await shop.inventory.inspect()
            gate = seen.gates["sku:s1"]
            match what:
                case "base" | "seq" | "held":
                    setattr(gate, what, getattr(gate, what) + 1)
                case "lost hold":
                    seen.holds.pop()
                case "lost deadline":
                    seen.waiting.pop()
            report = await audit(db, [seen])
            assert not report.checks["I3"].ok

    run(story())


@pytest.mark.parametrize("whole", [False, True])
def test_an_audit_beside_a_sale_raises_no_false_alarm(run, db, redis_url, whole) -> None:
    """Orders are placed, cancelled, paid, refunded and expire; every audit is clean."""

    async def story() -> None:
        async with floor(db, redis_url, {"s1": 500, "s2": 500}) as shop:

            async def one(n: int) -> None:
                order, buyer = f"o{n}", f"b{n}"
                await shop.buy(order, ("s1", 1), ("s2", 2), buyer=buyer)
                match n % 5:
                    case 0:
                        await shop.orders.cancel(order, buyer)
                    case 1:
                        await shop.overdue(order)
                        await shop.expire()
                    case 2:
                        await shop.pay(order, buyer=buyer)
                    case 3:
                        await shop.pay(order, buyer=buyer)
                        await shop.give_back(order, {"sku": "s2", "qty": 1, "restock": True})
                        await shop.outbox.run_once()

            async def audits() -> int:
                auditor, done = Auditor(db), 0
                while not sale.done():
                    inspected = await shop.inventory.inspect()
                    report = await (audit(db, inspected) if whole else auditor.audit(inspected))
                    assert report.ok, report
                    done += 1
                return done

            sale = asyncio.gather(*(one(n) for n in range(100)))
            assert await audits() > 0
            await sale
            await shop.check()

    run(story())


CHANGES = {
    "I1": "UPDATE pools SET sold = sold + 1 WHERE pool = 'sku:s1'",
    "I1 replay": "UPDATE ledger SET available_after = 7 WHERE \"order\" = 'newer' AND kind = 'release'",
    "I2": "UPDATE orders SET state = 'placed' WHERE id = 'new'",
    "I4": "UPDATE order_lines SET qty = qty + 1 WHERE \"order\" = 'new'",
    "I6": "UPDATE orders SET total_minor = 1 WHERE id = 'new'",
    "I7": "UPDATE buyer_taken SET units = units + 1 WHERE buyer = 'new'",
    "I8": "UPDATE refunds SET amount_minor = 251 WHERE why = 'new'",
    "I12": "UPDATE takings SET refunded_minor = 0",
    "I13": "UPDATE orders SET pay_by = pay_by + 600000 WHERE id = 'newer'",
}


@pytest.mark.parametrize("planted", CHANGES)
def test_a_repeated_audit_reads_what_is_new(run, books, redis_url, planted) -> None:
    """After a clean one only new orders are looked at, and whatever is wrong with them is found."""

    async def story() -> None:
        async with floor(books, redis_url, {"s1": 20}, limits={"s1": 3}) as shop:
            auditor = Auditor(books)
            for n in range(5):
                await shop.buy(f"o{n}", buyer=f"b{n}")
            await books.write(
                lambda conn: conn.execute(text("UPDATE orders SET placed_at = 0")) and None
            )
            first = await auditor.audit()
            assert first.checks["I6"].checked == 5
            await shop.buy("new", buyer="new")
            await shop.pay("new", buyer="new")
            await shop.give_back("new", amount_minor=100, why="new")
            await shop.buy("gone", buyer="gone")
            await shop.overdue("gone")
            await shop.expire()
            await shop.settle_down()
            report = await auditor.audit()
            assert report.ok, report
            assert report.checks["I6"].checked == 2
            await shop.outbox.run_once()
            await shop.buy("newer", buyer="new")
            assert (await auditor.audit()).ok
            await shop.overdue("newer")
            await shop.expire()
            await shop.settle_down()
            await books.write(lambda conn: conn.execute(text(CHANGES[planted])) and None)
            for _ in range(2):
                report = await auditor.audit()
                assert not report.ok
                assert report.checks[planted.partition(" ")[0]].failures, report

    run(story())


def test_a_hold_that_is_placing_for_too_long_is_reported(run, db, redis_url) -> None:
    """No hold is placing long past its due time, since the sweep asks SQL about it."""

    async def story() -> None:
        async with floor(db, redis_url, {"s1": 20}) as shop:
            line = HoldLineRequest(pool="sku:s1", sku="s1", qty=1)
            await shop.inventory.hold(
                HoldRequest(buyer="ann", room="r1", key="k", lines=[line], kind="placing")
            )
            [seen] = await shop.inventory.inspect()
            assert (await audit(db, [seen])).ok
            later = seen._replace(now_ms=seen.now_ms + 60_000)
            report = await audit(db, [later])
            assert not report.checks["I3"].ok

    run(story())

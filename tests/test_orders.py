"""Orders on real stores: nobody is oversold, nobody is answered twice, everything comes back."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial

import msgspec
import pytest
from shopfloor import Floor, floor
from sqlalchemy import update

from liveroom.deciding import Wish
from liveroom.errors import LiveroomError, Unavailable
from liveroom.inventory import HoldLineRequest, HoldRequest
from liveroom.orders import LineRequest
from liveroom.payments import Started
from liveroom.store import ledger, partitions, scripts, tables
from liveroom.store.database import CommitUnknown, Database
from liveroom.store.gates import Gates


async def code_of(call) -> str:
    with pytest.raises(LiveroomError) as refusal:
        await call
    return refusal.value.code


async def outcome(call) -> str:
    try:
        return (await call).state
    except LiveroomError as refusal:
        return refusal.code


def encoded(order) -> bytes:
    return msgspec.json.encode(order)


# ── placing ───────────────────────────────────────────────────────────────────────────────


def test_an_order_is_on_disk_when_it_is_answered(run, db, redis_url) -> None:
    """The answer, the rows, the gate and the event tell the same."""

    async def story() -> None:
        async with floor(db, redis_url, {"s1": 5, "s2": 5}) as shop:
            order = await shop.buy("o1", ("s2", 1), ("s1", 2))
            assert [(line.sku, line.qty, line.price_minor) for line in order.lines] == [
                ("s1", 2, 250),
                ("s2", 1, 250),
            ]
            assert (order.state, order.total_minor, order.currency) == ("placed", 750, "EUR")
            assert order.pay_by == order.placed_at + 60_000
            assert await shop.orders.show("o1", "ann") == order
            assert (await shop.left("s1"), await shop.left("s2")) == (3, 4)
            heard = await shop.hears("order.placed", "o1")
            assert (heard.to, heard.data["order"]) == ("ann", order.builtin())
            await shop.check()

    run(story())


def test_the_same_sku_on_two_lines_is_one_number(run, db, redis_url) -> None:
    """Three and three of five are refused; two prices for one SKU make no sense."""

    async def story() -> None:
        async with floor(db, redis_url, {"s1": 5}) as shop:
            assert await code_of(shop.buy("o1", ("s1", 3), ("s1", 3))) == "sold_out"
            order = await shop.buy("o2", ("s1", 2), ("s1", 3))
            assert [(line.sku, line.qty) for line in order.lines] == [("s1", 5)]
            lines = [LineRequest(sku="s1", qty=1, price_minor=price) for price in (250, 200)]
            assert await code_of(shop.buy("o3", lines=lines)) == "bad_argument"
            await shop.check()

    run(story())


def test_a_repeated_order_gets_its_first_answer_byte_for_byte(run, db, redis_url) -> None:
    """Whatever became of it, of the room and of the stock; other content is id_reused."""

    async def story() -> None:
        async with floor(db, redis_url, {"s1": 2}) as shop:
            first = encoded(await shop.buy("o1", ("s1", 2)))
            assert encoded(await shop.buy("o1", ("s1", 2))) == first
            await shop.pay("o1")
            await shop.set_room(state="closed", paused=True)
            assert encoded(await shop.buy("o1", ("s1", 2), again=True)) == first
            assert await shop.state("o1") == "paid"
            assert await code_of(shop.buy("o1", ("s1", 1))) == "id_reused"
            assert await code_of(shop.buy("o1", ("s1", 2), buyer="bob")) == "id_reused"
            assert await code_of(shop.buy("o1", ("s1", 2), content="else")) == "id_reused"
            await shop.check()

    run(story())


def test_a_retry_of_an_order_that_is_there_holds_nothing(run, db, redis_url) -> None:
    """Whoever buys beside a retry finds every unit that is free."""

    async def story() -> None:
        async with floor(db, redis_url, {"s1": 2}) as shop:
            first = encoded(await shop.buy("o1", ("s1", 2)))
            await shop.orders.cancel("o1", "ann")
            before = await shop.inventory.left(["sku:s1"])
            assert encoded(await shop.buy("o1", ("s1", 2), again=True)) == first
            assert await shop.inventory.left(["sku:s1"]) == before
            await shop.check()

    run(story())


def test_a_refusal_binds_nothing(run, db, redis_url) -> None:
    """The id that was refused may try again, with other content too."""

    async def story() -> None:
        async with floor(db, redis_url, {"s1": 1}) as shop:
            await shop.set_room(paused=True)
            assert await code_of(shop.buy("o1")) == "sale_paused"
            assert await shop.left() == 1
            await shop.set_room(paused=False)
            assert await code_of(shop.buy("o1", ("s1", 2))) == "sold_out"
            assert (await shop.buy("o1")).state == "placed"
            assert await shop.left() == 0
            await shop.check()

    run(story())


def test_buy_now_needs_a_live_room(run, db, redis_url) -> None:
    """Planned and closed rooms sell nothing new; what was tried is on sale again."""

    async def story() -> None:
        async with floor(db, redis_url, {"s1": 1}) as shop:
            for state in ("planned", "closed"):
                await shop.set_room(state=state)
                assert await code_of(shop.buy("o1")) == "not_open"
            assert await code_of(shop.buy("o1", room="nowhere")) == "not_found"
            assert await code_of(shop.buy("o1", ("nothing", 1))) == "not_found"
            assert await shop.left() == 1
            await shop.check()

    run(story())


def test_many_buyers_of_few_units(run, db, redis_url) -> None:
    """Two hundred carts for five units on two nodes: five orders, 195 told sold_out."""

    async def story() -> None:
        async with floor(db, redis_url, {"s1": 5}) as one, floor(db, redis_url) as two:
            asked = [
                outcome((one, two)[n % 2].buy(f"o{n}", buyer=f"b{n}", again=True))
                for n in range(200)
            ]
            assert Counter(await asyncio.gather(*asked)) == {"placed": 5, "sold_out": 195}
            await two.settle_down()
            assert await one.left() == 0
            await one.check()

    run(story())


def test_fifty_tabs_of_one_buyer(run, db, redis_url) -> None:
    """A limit of two holds under parallel requests; an ended order gives its units back."""

    async def story() -> None:
        async with floor(db, redis_url, {"s1": 99}, limits={"s1": 2}) as shop:
            asked = [outcome(shop.buy(f"o{n}")) for n in range(50)]
            answers = await asyncio.gather(*asked)
            assert Counter(answers) == {"placed": 2, "limit_reached": 48}
            placed = f"o{answers.index('placed')}"
            await shop.orders.cancel(placed, "ann")
            await shop.settle_down()
            assert (await shop.buy("later")).state == "placed"
            assert await code_of(shop.buy("too late")) == "limit_reached"
            await shop.check()

    run(story())


def test_parallel_retries_are_one_order(run, db, redis_url) -> None:
    """The same order id twenty times at once on two nodes: one order, twenty equal answers."""

    async def story() -> None:
        async with floor(db, redis_url, {"s1": 5}) as one, floor(db, redis_url) as two:
            answers = await asyncio.gather(*((one, two)[n % 2].buy("o1") for n in range(20)))
            assert len({encoded(answer) for answer in answers}) == 1
            await two.settle_down()
            assert await one.left() == 4
            await one.check()

    run(story())


def test_retries_wait_for_a_store_that_hangs_once(run, db, redis_url) -> None:
    """Ten of one order id are all answered in the time that one of them takes."""

    async def story() -> None:
        async with floor(db, redis_url, {"s1": 5}) as shop:
            other = scripts.connect(redis_url)
            await other.client_pause(60_000, all=False)
            try:
                async with asyncio.timeout(3):
                    codes = await asyncio.gather(*(code_of(shop.buy("o1")) for _ in range(10)))
            finally:
                await other.execute_command("CLIENT", "UNPAUSE")
                await other.aclose()
            assert set(codes) == {"store_down"}
            assert (await shop.buy("o1", again=True)).state == "placed"
            await shop.check()

    run(story())


def test_crossed_orders_of_two_skus(run, db, redis_url) -> None:
    """Orders that name the same SKUs in either order never block each other."""

    async def story() -> None:
        async with floor(db, redis_url, {"s1": 50, "s2": 50}) as one, floor(db, redis_url) as two:
            lines = [(("s1", 1), ("s2", 1)), (("s2", 1), ("s1", 1))]
            asked = [
                outcome((one, two)[n % 2].buy(f"o{n}", *lines[n // 2 % 2], buyer=f"b{n}"))
                for n in range(60)
            ]
            assert Counter(await asyncio.gather(*asked)) == {"placed": 50, "sold_out": 10}
            await two.settle_down()
            await one.check()

    run(story())


# ── carts ─────────────────────────────────────────────────────────────────────────────────


def test_who_orders_a_cart_may_fill_it_again_at_once(run, db, redis_url) -> None:
    """The order's `ok` comes when the gate knows: the line is not being ordered any more."""

    async def story() -> None:
        async with floor(db, redis_url, {"s1": 5}) as shop:
            for number in range(5):
                await shop.put("s1", 1)
                await shop.checkout(f"o{number}")
            await shop.settle_down()
            await shop.check()

    run(story())


def test_a_cart_becomes_an_order_once(run, db, redis_url) -> None:
    """All of it; a second checkout finds nothing, the same id gets the first answer."""

    async def story() -> None:
        async with floor(db, redis_url, {"s1": 5, "s2": 5}) as shop:
            await shop.put("s2", 2)
            await shop.put("s1", 1)
            assert await shop.left("s2") == 3
            first = await shop.checkout("o1")
            assert [(line.sku, line.qty) for line in first.lines] == [("s1", 1), ("s2", 2)]
            assert await shop.left("s2") == 3
            assert await code_of(shop.checkout("o2")) == "hold_expired"
            assert encoded(await shop.checkout("o1")) == encoded(first)
            assert await code_of(shop.checkout("o1", content="else")) == "id_reused"
            await shop.put("s1", 1)  # a new cart is not touched by a retry of the old order
            assert encoded(await shop.checkout("o1")) == encoded(first)
            await shop.settle_down()
            assert [hold.qty for hold in await shop.inventory.cart("ann", "r1")] == [1]
            await shop.check()

    run(story())


def test_the_same_cart_twice_at_once(run, db, redis_url) -> None:
    """Two orders for one cart: one of them is placed."""

    async def story() -> None:
        async with floor(db, redis_url, {"s1": 5}) as shop:
            await shop.put("s1", 2)
            answers = await asyncio.gather(*(outcome(shop.checkout(f"o{n}")) for n in range(5)))
            assert Counter(answers) == {"placed": 1, "hold_expired": 4}
            assert await shop.left() == 3
            await shop.check()

    run(story())


def test_a_refused_checkout_leaves_the_cart(run, db, redis_url) -> None:
    """Paused, the cart is as it was; resumed, or with the room closed, it can be ordered."""

    async def story() -> None:
        async with floor(db, redis_url, {"s1": 5}) as shop:
            await shop.put("s1", 2)
            before = await shop.inventory.cart("ann", "r1")
            await shop.set_room(paused=True)
            assert await code_of(shop.checkout("o1")) == "sale_paused"
            assert await shop.inventory.cart("ann", "r1") == before
            await shop.set_room(paused=False, state="closed")
            assert (await shop.checkout("o1")).state == "placed"
            await shop.check()

    run(story())


def test_two_checkouts_of_a_cart_in_two_partitions(run, db, redis_url) -> None:
    """However far the first has come, the second finds no cart: nobody orders half of one."""

    async def story() -> None:
        stock = {sku_in(part): 5 for part in (0, 1)}
        async with floor(db, redis_url, stock, partitions=2) as shop:
            for sku in stock:
                await shop.put(sku)
            await take_first_part(shop, "o1")
            assert await code_of(shop.checkout("o2")) == "hold_expired"
            assert len((await shop.checkout("o1")).lines) == 2
            await shop.check()

    def sku_in(part: int) -> str:
        return next(sku for sku in "abcdef" if partitions.of_sku(sku, 2) == part)

    async def take_first_part(shop: Floor, order: str) -> None:
        epoch = (await db.read(lambda conn: partitions.fence(conn, 0))).epoch
        gates = Gates(shop.client, held_ms=60_000)
        held = await gates.place(0, epoch, "r1/ann", order)
        assert len(held.holds) == 1

    run(story())


def test_a_cart_filled_anew_before_redis_heard_of_the_order(run, db, redis_url) -> None:
    """What the order on record has taken is spent; the rest is a cart of its own."""

    async def story() -> None:
        async with floor(db, redis_url, {"s1": 5, "s2": 5}) as shop:
            await shop.put("s1")
            await shop.place_held("o1", await shop.inventory.to_placing("ann", "r1", "o1"))
            await shop.put("s2")
            assert [line.sku for line in (await shop.checkout("o2")).lines] == ["s2"]
            await shop.inventory.sweep_once()
            await shop.check()

    run(story())


class Overtaken(Database):
    """A real database; before its next write somebody else does something `first`."""

    first: Callable[[], Awaitable[object]] | None = None

    async def write(self, fn):
        first, self.first = self.first, None
        if first is not None:
            await first()
        return await super().write(fn)


def test_a_checkout_that_the_sweep_overtook_leaves_the_cart(run, db, redis_url) -> None:
    """Made void by a sweep that died before it told Redis, the lines return to be ordered."""

    async def story() -> None:
        late = Overtaken(db.url)
        async with (
            floor(db, redis_url, {"s1": 5}, placing_ms=0) as other,
            floor(late, redis_url, placing_ms=0) as shop,
        ):
            await shop.put("s1", 2)
            late.first = partial(void_and_die, other)
            assert await code_of(shop.checkout("o1")) == "hold_expired"
            await other.inventory.sweep_once()
            assert (await shop.checkout("o2")).state == "placed"
            await shop.check()
        await late.close()

    async def void_and_die(shop: Floor) -> None:
        epoch = (await db.read(lambda conn: partitions.fence(conn, 0))).epoch
        stuck = await Gates(shop.client, held_ms=0).stuck(0, epoch, count=10)
        resolved = await db.write(partial(ledger.resolve, stuck=stuck))
        assert len(resolved.void) == 1

    run(story())


# ── when SQL is in trouble ────────────────────────────────────────────────────────────────


class LostCommit(Database):
    """A real database whose answers to COMMIT get lost while `lost` counts down."""

    lost = 0

    async def write(self, fn):
        answer = await super().write(fn)
        if self.lost:
            self.lost -= 1
            raise CommitUnknown
        return answer


def test_a_lost_commit_is_read_back(run, db, redis_url) -> None:
    """The order that is there is answered; nobody is told a lie, nothing is lost."""

    async def story() -> None:
        lossy = LostCommit(db.url)
        async with floor(db, redis_url, {"s1": 5}), floor(lossy, redis_url) as shop:
            lossy.lost = 1
            first = await shop.buy("o1")
            assert encoded(await shop.buy("o1")) == encoded(first)
            await shop.inventory.sweep_once()  # the gate is told from the ledger
            assert await shop.left() == 4
            await shop.check()
        await lossy.close()

    run(story())


def test_one_bad_order_never_sinks_its_batch(run, db, redis_url) -> None:
    """An order that SQL refuses rolls its batch back; each of the others is placed alone."""

    async def story() -> None:
        async with floor(db, redis_url, {"s1": 9}) as shop:
            await shop.buy("o1")
            [line] = await shop.rows(tables.order_lines)
            fine = await shop.inventory.hold(
                HoldRequest(
                    buyer="bob",
                    room="r1",
                    key="o3",
                    lines=[HoldLineRequest(pool="sku:s1", sku="s1", qty=1)],
                    kind="placing",
                )
            )
            bad = [msgspec.structs.replace(fine[0], id=line.hold)]  # a hold that was placed before

            def wish(order: str, holds) -> Wish:
                return Wish(
                    order=order, buyer="bob", room="r1", content="c", buy_now=True, holds=holds
                )

            answers = await shop.orders._place([wish("o2", bad), wish("o3", fine)])
            assert isinstance(answers[0], Unavailable)
            assert answers[0].code == "internal"
            assert answers[1].state == "placed"
            await shop.check()

    run(story())


# ── ending unpaid ─────────────────────────────────────────────────────────────────────────


def test_a_cancelled_order_gives_back_once(run, db, redis_url) -> None:
    """Its units return once, however often it is cancelled; nobody else can cancel it."""

    async def story() -> None:
        async with floor(db, redis_url, {"s1": 5}) as shop:
            await shop.buy("o1", ("s1", 2))
            assert await code_of(shop.orders.cancel("o1", "bob")) == "not_found"
            answers = await asyncio.gather(
                *(outcome(shop.orders.cancel("o1", "ann")) for _ in range(5))
            )
            assert set(answers) <= {"cancelled", "illegal_transition"}
            assert "cancelled" in answers
            assert await code_of(shop.orders.cancel("o1", "ann")) == "illegal_transition"
            assert await shop.left() == 5
            await shop.hears("order.cancelled", "o1")
            await shop.check()

    run(story())


def test_a_paid_order_cannot_be_cancelled(run, db, redis_url) -> None:
    """What was paid is refunded, never cancelled."""

    async def story() -> None:
        async with floor(db, redis_url, {"s1": 5}) as shop:
            await shop.buy("o1")
            await shop.pay("o1")
            assert await code_of(shop.orders.cancel("o1", "ann")) == "illegal_transition"
            assert await shop.left() == 4
            await shop.check()

    run(story())


def test_orders_expire_by_the_clock_of_the_database(run, db, redis_url) -> None:
    """Overdue orders end and give back; others stay; two sweepers at once do it once."""

    async def story() -> None:
        async with floor(db, redis_url, {"s1": 9}) as one, floor(db, redis_url) as two:
            for n in range(5):
                await one.buy(f"o{n}", buyer=f"b{n}")
            await one.overdue("o0", "o1", "o2")
            await asyncio.gather(one.expire(), two.expire())
            states = [await one.state(f"o{n}") for n in range(5)]
            assert states == ["expired"] * 3 + ["placed"] * 2
            await two.settle_down()
            assert await one.left() == 7
            await one.hears("order.expired", "o1")
            await one.check()

    run(story())


def test_one_bad_order_does_not_stop_the_expiry(run, db, redis_url) -> None:
    """An order that cannot end stays closing; all the others end in the same sweep."""

    async def story() -> None:
        async with floor(db, redis_url, {"s1": 9}) as shop:
            for n in range(4):
                await shop.buy(f"o{n}", buyer=f"b{n}")
            lines = tables.order_lines
            await shop.change(update(lines).where(lines.c.order == "o1").values(qty=99))
            await shop.overdue("o0", "o1", "o2", "o3")
            await shop.expire()
            states = [await shop.state(f"o{n}") for n in range(4)]
            assert states == ["expired", "closing", "expired", "expired"]
            await shop.change(update(lines).where(lines.c.order == "o1").values(qty=1))
            await shop.expire()
            assert await shop.state("o1") == "expired"
            await shop.check()

    run(story())


# ── money ─────────────────────────────────────────────────────────────────────────────────


def test_a_paid_order_is_sold(run, db, redis_url) -> None:
    """Reserved turns to sold; the same webhook fifty times changes nothing more."""

    async def story() -> None:
        async with floor(db, redis_url, {"s1": 5}) as shop:
            await shop.buy("o1", ("s1", 2))
            payment = await shop.orders_payment("o1")
            assert await shop.orders_payment("o1") == payment
            await asyncio.gather(*(shop.press(payment) for _ in range(50)))
            assert await shop.state("o1") == "paid"
            assert (await shop.payments.show(payment)).payment.state == "succeeded"
            assert await shop.one("SELECT sold FROM pools WHERE pool = 'sku:s1'") == 2
            assert await shop.one("SELECT COUNT(*) FROM ledger") == 2
            await shop.hears("order.paid", "o1")
            assert await code_of(shop.orders_payment("o1")) == "illegal_transition"
            await shop.check()

    run(story())


def test_events_may_come_in_any_order(run, db, redis_url) -> None:
    """A failure after the success changes nothing; a success after a failure pays."""

    async def story() -> None:
        async with floor(db, redis_url, {"s1": 5}) as shop:
            for order, buttons in (("o1", (True, False)), ("o2", (False, True))):
                await shop.buy(order)
                payment = await shop.orders_payment(order)
                for fail in buttons:
                    await shop.press(payment, fail=fail)
                assert await shop.state(order) == "paid"
                assert (await shop.payments.show(payment)).payment.state == "succeeded"
            await shop.check()

    run(story())


def test_a_failed_payment_may_be_followed_by_another(run, db, redis_url) -> None:
    """One open payment at a time; if both are captured, the second goes back by itself."""

    async def story() -> None:
        async with floor(db, redis_url, {"s1": 5}) as shop:
            await shop.buy("o1")
            first = await shop.orders_payment("o1")
            await shop.press(first, fail=True)
            second = await shop.orders_payment("o1")
            assert second != first
            await shop.press(second)
            await shop.press(first)
            assert await shop.state("o1") == "paid"
            assert await shop.outbox.run_once() == 1
            assert (await shop.payments.show(first)).payment.state == "refunded"
            assert (await shop.payments.show(second)).payment.state == "succeeded"
            assert await shop.state("o1") == "paid"
            await shop.check()

    run(story())


def test_a_wrong_amount_pays_nothing(run, db, redis_url) -> None:
    """A cent short, or in another currency: it goes back, the order waits on."""

    async def story() -> None:
        async with floor(db, redis_url, {"s1": 5}) as shop:
            await shop.buy("o1")
            for n, (amount, currency) in enumerate([(249, "EUR"), (251, "EUR"), (250, "USD")]):
                payment = await shop.orders_payment("o1")
                signed = shop.sandbox.press(
                    "payment.succeeded",
                    reference=f"sandbox_{payment}",
                    amount_minor=amount,
                    currency=currency,
                )
                await shop.orders.settle(shop.payments.verify("sandbox", *signed))
                assert await shop.state("o1") == "placed"
                assert await shop.outbox.run_once() == 1, n
                assert (await shop.payments.show(payment)).payment.state == "refunded"
            await shop.pay("o1")
            assert await shop.state("o1") == "paid"
            await shop.check()

    run(story())


def test_an_unknown_payment_is_parked(run, db, redis_url) -> None:
    """The webhook that is faster than our own record counts as soon as that is there."""

    async def story() -> None:
        async with floor(db, redis_url, {"s1": 5}) as shop:
            await shop.buy("o1")
            payment = await shop.orders_payment("o1")
            payments = tables.payments
            await shop.change(update(payments).values(reference=None))
            signed = shop.sandbox.press(
                "payment.succeeded",
                reference=f"sandbox_{payment}",
                amount_minor=250,
                currency="EUR",
            )
            said = shop.payments.verify("sandbox", *signed)
            await shop.orders.settle(said)
            await shop.orders.settle_waiting_once()
            assert await shop.state("o1") == "placed"
            await shop.orders_payment("o1")
            assert await shop.orders.settle_waiting_once() == 1
            assert await shop.state("o1") == "paid"
            assert await shop.orders.settle_waiting_once() == 0
            await shop.orders.settle(said)
            await shop.check()

    run(story())


def test_money_that_came_before_the_end_pays(run, db, redis_url) -> None:
    """Expiry asks the provider first: what it has captured makes the order paid."""

    async def story() -> None:
        async with floor(db, redis_url, {"s1": 5}) as shop:
            for order in ("o1", "o2"):
                await shop.buy(order)
                await shop.payments.succeed(await shop.orders_payment(order))  # its webhook is late
            await shop.overdue("o1")
            await shop.expire()
            assert await shop.state("o1") == "paid"
            assert (await shop.orders.cancel("o2", "ann")).state == "paid"
            assert await shop.left() == 3
            await shop.check()

    run(story())


@pytest.mark.parametrize("ending", ["expired", "cancelled"])
def test_a_late_payment_takes_its_units_again(run, db, redis_url, ending) -> None:
    """Stock is free: the order is paid after all, even in a closed and paused room."""

    async def story() -> None:
        async with floor(db, redis_url, {"s1": 2, "s2": 2}, limits={"s1": 1}) as shop:
            payment = await _ended(shop, "o1", ending, ("s1", 1), ("s2", 2))
            await shop.set_room(state="closed", paused=True)
            await asyncio.gather(*(shop.press(payment) for _ in range(3)))
            assert await shop.state("o1") == "paid"
            assert (await shop.left("s1"), await shop.left("s2")) == (1, 0)
            await shop.hears("order.paid", "o1")
            await shop.check()

    run(story())


@pytest.mark.parametrize("ending", ["expired", "cancelled"])
def test_a_late_payment_without_stock_is_refunded(run, db, redis_url, ending) -> None:
    """The stock is gone: the money goes back and the buyer is told."""

    async def story() -> None:
        async with floor(db, redis_url, {"s1": 2}) as shop:
            payment = await _ended(shop, "o1", ending, ("s1", 2))
            await shop.settle_down()
            await shop.buy("o2", buyer="bob")
            await shop.press(payment)
            assert await shop.state("o1") == "refund_pending"
            assert await shop.left() == 1
            await shop.check()
            assert await shop.outbox.run_once() == 1
            assert await shop.outbox.run_once() == 0
            assert await shop.state("o1") == "refunded"
            await shop.hears("order.refunded", "o1")
            await shop.press(payment)
            assert await shop.state("o1") == "refunded"
            await shop.check()

    run(story())


def test_a_late_payment_whose_hold_sql_cannot_honour(run, db, redis_url) -> None:
    """The money goes back, and the hold is counted as broken: no gate may promise so much."""

    async def story() -> None:
        async with floor(db, redis_url, {"s1": 2}) as shop:
            payment = await _ended(shop, "o1", "expired", ("s1", 2))
            await shop.settle_down()
            [promised] = await shop.inventory.hold(
                HoldRequest(
                    buyer="bob",
                    room="r1",
                    key="o2",
                    lines=[HoldLineRequest(pool="sku:s1", sku="s1", qty=1)],
                    kind="placing",
                )
            )
            await shop.inventory.release([promised.id])  # and yet it is placed
            await shop.place_held("o2", [promised])
            await shop.press(payment)
            assert await shop.state("o1") == "refund_pending"
            assert shop.counters.broken_holds == 1
            shop.counters.broken_holds = 0
            await shop.inventory.sweep_once()
            await shop.check()

    run(story())


def test_a_late_payment_over_the_limit_is_refunded(run, db, redis_url) -> None:
    """The buyer has bought again meanwhile, up to the limit."""

    async def story() -> None:
        async with floor(db, redis_url, {"s1": 9}, limits={"s1": 1}) as shop:
            payment = await _ended(shop, "o1", "expired", ("s1", 1))
            await shop.settle_down()
            await shop.buy("o2")
            await shop.press(payment)
            assert await shop.state("o1") == "refund_pending"
            await shop.outbox.run_once()
            assert await shop.state("o1") == "refunded"
            await shop.check()

    run(story())


class Silent:
    """A provider that cannot be reached once a payment is open."""

    name = "silent"

    async def start(self, *, payment, **_asked):
        return Started(payment)

    async def close(self, **_asked):
        raise ConnectionError


@pytest.mark.parametrize(("closing_max_s", "state"), [(60, "closing"), (0, "expired")])
def test_a_silent_provider_holds_an_order_for_a_while(
    run, db, redis_url, closing_max_s, state
) -> None:
    """The stock stays held while the provider may answer, and ends after closing_max_s."""

    async def story() -> None:
        async with floor(db, redis_url, {"s1": 5}, closing_max_s=closing_max_s) as shop:
            shop.payments._providers["silent"] = Silent()
            await shop.buy("o1")
            await shop.payments.start(order="o1", buyer="ann", provider="silent")
            await shop.overdue("o1")
            await shop.expire()
            assert await shop.state("o1") == state
            assert await shop.left() == (4 if state == "closing" else 5)
            await shop.check()

    run(story())


async def _ended(shop, order: str, ending: str, *lines) -> str:
    """An order with an open payment that has ended; the payment."""
    await shop.buy(order, *lines)
    payment = await shop.orders_payment(order)
    if ending == "cancelled":
        await shop.orders.cancel(order, "ann")
    else:
        await shop.overdue(order)
        await shop.expire()
    assert await shop.state(order) == ending
    await shop.settle_down()
    return payment


# ── showing ───────────────────────────────────────────────────────────────────────────────


def test_orders_are_shown_to_those_they_concern(run, db, redis_url) -> None:
    """The buyer and the shop whose goods they are; pages join without gap or repeat."""

    async def story() -> None:
        async with floor(db, redis_url, {"s1": 9}) as shop:
            for n in range(5):
                await shop.buy(f"o{n}", buyer="ann" if n % 2 else "bob")
            assert await code_of(shop.orders.show("o0", "ann")) == "not_found"
            assert (await shop.orders.show("o0", "x", shops=["shop"])).id == "o0"
            assert await code_of(shop.orders.show("o0", "x", shops=["other"])) == "not_found"
            assert {order.id for order in (await shop.orders.of_buyer("bob", "r1")).orders} == {
                "o0",
                "o2",
                "o4",
            }
            asked = [("bob", "r1"), ("x", "r1"), ("ann", "r1"), ("bob", "r2")]
            recent = await asyncio.gather(*(shop.orders.of_buyer(*one) for one in asked))
            assert [len(own.orders) for own in recent] == [3, 0, 2, 0]
            assert {order.id for order in recent[2].orders} == {"o1", "o3"}
            seen, after = [], None
            while True:
                page = await shop.orders.list(buyer=None, after=after, limit=2)
                seen += [order.id for order in page.items]
                if (after := page.next) is None:
                    break
            assert sorted(seen) == [f"o{n}" for n in range(5)]
            assert await code_of(shop.orders.list(buyer=None, after="junk")) == "bad_argument"

    run(story())

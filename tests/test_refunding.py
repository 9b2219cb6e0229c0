"""Refunds: whole and in part, restocked or not, once for each key, on both databases."""

from __future__ import annotations

import asyncio
import csv
import io

import pytest
from msgspec.structs import replace
from shopfloor import Floor, floor
from sqlalchemy import text

from liveroom import closing
from liveroom.errors import Invalid, LiveroomError
from liveroom.exports import write_orders
from liveroom.ids import new_id
from liveroom.payments import Sandbox, Webhook
from liveroom.store import tables


class Refusing(Sandbox):
    """A provider that gives no money back: the account behind the card is closed."""

    async def refund(self, **asked) -> Webhook:
        said = await super().refund(**asked)
        kind = "refund.failed"
        return Webhook(**{**{f: getattr(said, f) for f in said.__struct_fields__}, "kind": kind})


class Slow(Sandbox):
    """A provider that answers a refund later, by webhook."""

    async def refund(self, **asked) -> None:
        self.asked = [*getattr(self, "asked", []), asked["refund"]]


async def refusal(call) -> Invalid:
    with pytest.raises(LiveroomError) as refused:
        await call
    return refused.value


async def paid(shop: Floor, order: str = "o1", *lines: tuple[str, int]) -> None:
    await shop.buy(order, *(lines or [("s1", 3), ("s2", 2)]))
    await shop.pay(order)


def test_a_whole_refund_gives_all_the_money_back(run, books, redis_url) -> None:
    """Without lines and amount everything goes back, and nothing is restocked."""

    async def story() -> None:
        async with floor(books, redis_url, {"s1": 5, "s2": 5}) as shop:
            await paid(shop)
            refund = await shop.give_back("o1", why="broken")
            assert (refund.state, refund.amount_minor, refund.why) == ("pending", 1250, "broken")
            assert await shop.state("o1") == "refund_pending"
            assert await shop.outbox.run_once() == 1
            shown = await shop.orders.show("o1", None)
            assert shown.state == "refunded"
            assert [(one.state, one.amount_minor) for one in shown.refunds] == [("succeeded", 1250)]
            told = (await shop.hears("order.refunded", "o1")).data["order"]
            assert (told["state"], told["refunds"][0]["state"]) == ("refunded", "succeeded")
            assert [await shop.left(sku) for sku in ("s1", "s2")] == [2, 3]
            refused = await refusal(shop.give_back("o1"))
            assert (refused.code, refused.data["state"]) == ("illegal_transition", "refunded")
            await shop.check()

    run(story())


def test_a_part_is_restocked_line_by_line(run, books, redis_url) -> None:
    """Each line says for itself; what is restocked is for sale, and off the buyer's limit."""

    async def story() -> None:
        async with floor(books, redis_url, {"s1": 5, "s2": 5}, limits={"s1": 3, "s2": 2}) as shop:
            await paid(shop)
            refund = await shop.give_back(
                "o1", {"sku": "s1", "qty": 2, "restock": True}, {"sku": "s2", "qty": 1}
            )
            assert refund.amount_minor == 750
            assert [(one.sku, one.qty, one.restock) for one in refund.lines] == [
                ("s1", 2, True),
                ("s2", 1, False),
            ]
            assert [await shop.left(sku) for sku in ("s1", "s2")] == [4, 3]
            await shop.outbox.run_once()
            assert await shop.state("o1") == "paid"
            assert (await shop.hears("order.refunded", "o1")).data["order"]["state"] == "paid"
            rows = await books.read(
                lambda conn: conn.execute(
                    text("SELECT pool, sold, \"order\" FROM ledger WHERE kind = 'restock'")
                ).all()
            )
            assert [tuple(row) for row in rows] == [("sku:s1", -2, "o1")]
            assert (await shop.buy("o2", ("s1", 2))).state == "placed"
            refused = await refusal(shop.buy("o3", ("s2", 1)))
            assert refused.code == "limit_reached"
            await shop.check()

    run(story())


def test_the_export_has_what_went_back(run, books, redis_url) -> None:
    """Each line says how many units are for sale again, and the order's money that went back."""

    async def story() -> None:
        async with floor(books, redis_url, {"s1": 5, "s2": 5}) as shop:
            await paid(shop)
            await shop.give_back("o1", {"sku": "s1", "qty": 2, "restock": True})
            await shop.outbox.run_once()
            await shop.give_back("o1")
            out = io.StringIO()
            assert await books.read(lambda conn: write_orders(conn, out)) == 2
            lines = csv.DictReader(io.StringIO(out.getvalue()))
            assert [(one["sku"], one["restocked"], one["order_refunded"]) for one in lines] == [
                ("s1", "2", "5.00"),
                ("s2", "0", "5.00"),
            ]

    run(story())


def test_no_more_goes_back_than_was_sold_and_paid(run, books, redis_url) -> None:
    """Units, restocked units and money have an end; what is too much is refused with how much."""

    async def story() -> None:
        async with floor(books, redis_url, {"s1": 5, "s2": 5}) as shop:
            await paid(shop)
            await shop.give_back("o1", {"sku": "s1", "qty": 2, "restock": True})
            refused = await refusal(shop.give_back("o1", {"sku": "s1", "qty": 2}))
            assert (refused.code, refused.data) == ("bad_argument", {"sku": "s1", "left": 1})
            refused = await refusal(shop.give_back("o1", {"sku": "nothing", "qty": 1}))
            assert refused.code == "bad_argument"
            twice = [{"sku": "s2", "qty": 1}, {"sku": "s2", "qty": 1}]
            assert (await refusal(shop.give_back("o1", *twice))).code == "bad_argument"
            refused = await refusal(shop.give_back("o1", amount_minor=751))
            assert refused.data == {"refundable_minor": 750}
            await shop.give_back("o1", {"sku": "s2", "qty": 2}, amount_minor=749)
            await shop.give_back("o1", amount_minor=1)
            assert (await refusal(shop.give_back("o1"))).code == "illegal_transition"
            assert await shop.outbox.run_once() == 3
            assert await shop.state("o1") == "refunded"
            [row] = await shop.rows(tables.takings)
            assert (row.orders, row.paid_minor, row.refunded_minor) == (1, 1250, 1250)
            assert (row.room, row.bucket, row.currency) == ("r1", "unattributed", "EUR")
            await shop.check()

    run(story())


def test_the_same_key_is_one_refund(run, books, redis_url) -> None:
    """Twenty at once under one key are one; it stays so after its end; other content is refused."""

    async def story() -> None:
        async with floor(books, redis_url, {"s1": 5, "s2": 5}) as shop:
            await paid(shop)
            line = {"sku": "s1", "qty": 1, "restock": True}
            asked = (shop.give_back("o1", line, operation="mia:k") for _ in range(20))
            answers = await asyncio.gather(*asked)
            await shop.outbox.run_once()
            answers.append(await shop.give_back("o1", line, operation="mia:k"))
            assert all(answer == answers[0] for answer in answers)
            assert await shop.left("s1") == 3
            refused = await refusal(shop.give_back("o1", operation="mia:k"))
            assert refused.code == "id_reused"
            assert (await shop.give_back("o1", line, operation="bo:k")).id != answers[0].id
            await shop.check()

    run(story())


def test_parallel_refunds_never_exceed_the_payment(run, books, redis_url) -> None:
    """Of thirty refunds of one unit each, five come about."""

    async def story() -> None:
        async with floor(books, redis_url, {"s1": 5}) as shop:
            await paid(shop, "o1", ("s1", 5))
            line = {"sku": "s1", "qty": 1, "restock": True}
            asked = (shop.give_back("o1", line) for _ in range(30))
            done = await asyncio.gather(*asked, return_exceptions=True)
            assert sum(not isinstance(one, Exception) for one in done) == 5
            assert {getattr(one, "code", "done") for one in done} <= {
                "done",
                "bad_argument",
                "illegal_transition",
            }
            await shop.outbox.run_once()
            assert await shop.state("o1") == "refunded"
            assert await shop.left("s1") == 5
            await shop.check()

    run(story())


def test_a_refund_that_fails_is_shown(run, books, redis_url) -> None:
    """The order is paid again, the refund failed; restocked units stay, and it may be tried again."""

    async def story() -> None:
        async with floor(books, redis_url, {"s1": 5}, provider=Refusing) as shop:
            await paid(shop, "o1", ("s1", 2))
            await shop.give_back("o1", {"sku": "s1", "qty": 2, "restock": True})
            await shop.outbox.run_once()
            shown = await shop.orders.show("o1", None)
            assert (shown.state, shown.refunds[0].state) == ("paid", "failed")
            assert await shop.left("s1") == 5
            assert not [one for one in shop.heard if one.name == "order.refunded"]
            line = {"sku": "s1", "qty": 2}
            refused = await refusal(shop.give_back("o1", line | {"restock": True}))
            assert refused.data == {"sku": "s1", "left": 0}
            await shop.give_back("o1", line)
            await shop.check()

    run(story())


def test_a_refund_may_be_answered_later_and_twice(run, books, redis_url) -> None:
    """The provider's webhook ends it, once, in whatever order those of two refunds come."""

    async def story() -> None:
        async with floor(books, redis_url, {"s1": 5}, provider=Slow) as shop:
            await paid(shop, "o1", ("s1", 2))
            first = await shop.give_back("o1", amount_minor=200)
            second = await shop.give_back("o1")
            assert await shop.outbox.run_once() == 2
            assert shop.sandbox.asked == [first.id, second.id]
            assert await shop.state("o1") == "refund_pending"
            for refund in (second, second, first):
                assert await shop.state("o1") == "refund_pending"
                await shop.orders.settle(
                    said_of(refund.payment, "refund.succeeded", refund.id, refund.amount_minor)
                )
            assert await shop.state("o1") == "refunded"
            await shop.orders.settle(said_of(first.payment, "refund.failed", first.id, 200))
            assert await shop.state("o1") == "refunded"
            await shop.check()

    run(story())


@pytest.mark.parametrize("money", [(199, "EUR"), (201, "EUR"), (200, "USD")])
def test_word_of_another_refund_ends_none(run, books, redis_url, money) -> None:
    """A cent more or less, or other money, is not what was asked for: a human must look."""

    async def story() -> None:
        amount, currency = money
        async with floor(books, redis_url, {"s1": 5}, provider=Slow) as shop:
            await paid(shop, "o1", ("s1", 2))
            refund = await shop.give_back("o1", amount_minor=200)
            await shop.outbox.run_once()
            said = said_of(refund.payment, "refund.succeeded", refund.id, amount)
            await shop.orders.settle(replace(said, currency=currency))
            assert await shop.state("o1") == "refund_pending"
            await shop.check()
            await shop.orders.settle(said_of(refund.payment, "refund.succeeded", refund.id, 200))
            assert await shop.state("o1") == "paid"
            await shop.check()

    run(story())


def test_money_of_a_late_order_that_could_not_go_back_can_be_tried_again(
    run, books, redis_url
) -> None:
    """Without stock the order waits for its refund; after a failure a merchant asks again."""

    async def story() -> None:
        async with floor(books, redis_url, {"s1": 1}, provider=Refusing) as shop:
            await shop.buy("o1")
            payment = await shop.orders_payment("o1")
            await shop.overdue("o1")
            await shop.expire()
            await shop.settle_down()
            await shop.buy("o2", buyer="bo")
            await shop.press(payment)
            await shop.outbox.run_once()
            assert await shop.state("o1") == "refund_pending"
            shop.payments._providers["sandbox"] = Sandbox([b"s"], shop.clock)
            line = {"sku": "s1", "qty": 1, "restock": True}
            refused = await refusal(shop.give_back("o1", line))
            assert refused.code == "illegal_transition"
            await shop.give_back("o1")
            await shop.outbox.run_once()
            assert await shop.state("o1") == "refunded"
            await shop.check()

    run(story())


# ── every state against every event ───────────────────────────────────────────────────────

EVENTS = (
    *("capture", "capture short", "decline", "start", "cancel", "expire", "refund"),
    *("refund succeeded", "refund failed"),
)
NOTHING = dict.fromkeys(EVENTS, "")
"""What each event leaves, as "order payment" or the code of a refusal; "": all as it was."""

UNPAID = {
    "capture": "paid succeeded",
    "decline": "",
    "cancel": "illegal_transition",
    "refund": "illegal_transition",
    "start": "illegal_transition",
}
LEFT = {
    "placed": UNPAID
    | {
        "capture short": "placed refunding",
        "decline": "placed failed",
        "start": "",
        "cancel": "cancelled cancelled",
        "expire": "expired cancelled",
    },
    "closing": UNPAID
    | {
        "capture short": "closing refunding",
        "decline": "closing failed",
        "cancel": "cancelled cancelled",
        "expire": "expired cancelled",
    },
    "expired": UNPAID | {"capture short": "expired refunding"},
    "cancelled": UNPAID | {"capture short": "cancelled refunding"},
    "paid": {
        "start": "illegal_transition",
        "cancel": "illegal_transition",
        "refund": "refund_pending refunding",
    },
    "refund_pending": {
        "start": "illegal_transition",
        "cancel": "illegal_transition",
        "refund": "illegal_transition",
        "refund succeeded": "refunded refunded",
        "refund failed": "paid succeeded",
    },
    "refunded": {
        "start": "illegal_transition",
        "cancel": "illegal_transition",
        "refund": "illegal_transition",
    },
}


def said_of(payment: str, kind: str, refund: str | None = None, amount: int = 250) -> Webhook:
    return Webhook(
        provider="sandbox",
        event=new_id(),
        kind=kind,
        reference=f"sandbox_{payment}",
        amount_minor=amount,
        currency="EUR",
        refund=refund,
    )


async def bring(shop: Floor, order: str, state: str) -> str:
    """Lead an order of one unit to that state; its payment."""
    await shop.buy(order, buyer=order)
    payment = await shop.orders_payment(order, buyer=order)
    if state == "closing":
        await shop.db.write(lambda conn: closing.begin_cancelling(conn, order, order))
    if state == "expired":
        await shop.overdue(order)
        await shop.expire()
    if state == "cancelled":
        await shop.orders.cancel(order, order)
    if state in ("paid", "refund_pending", "refunded"):
        await shop.press(payment)
    if state in ("refund_pending", "refunded"):
        await shop.give_back(order)
    if state == "refunded":
        await shop.outbox.run_once()
    assert await shop.state(order) == state
    return payment


async def happen(shop: Floor, order: str, payment: str, event: str) -> None:
    match event:
        case "capture":
            await shop.orders.settle(said_of(payment, "payment.succeeded"))
        case "capture short":
            await shop.orders.settle(said_of(payment, "payment.succeeded", amount=249))
        case "decline":
            await shop.orders.settle(said_of(payment, "payment.failed"))
        case "start":
            await shop.payments.start(order=order, buyer=order)
        case "cancel":
            await shop.orders.cancel(order, order)
        case "expire":
            await shop.overdue(order)
            await shop.expire()
        case "refund":
            await shop.give_back(order)
        case _:
            refunds = (await shop.orders.show(order, None)).refunds
            refund = refunds[-1].id if refunds else "unknown"
            await shop.orders.settle(said_of(payment, event.replace(" ", "."), refund))


@pytest.mark.parametrize("state", LEFT)
def test_every_event_in_every_state(run, books, redis_url, state) -> None:
    """Each pair does what the table says and nothing else; the sums agree after all of them."""

    async def story() -> None:
        async with floor(books, redis_url, {"s1": 100}) as shop:
            for number, event in enumerate(EVENTS):
                order = f"o{number}"
                payment = await bring(shop, order, state)
                before = await states_of(shop, order, payment)
                wanted = (NOTHING | LEFT[state])[event]
                try:
                    await happen(shop, order, payment, event)
                    left = await states_of(shop, order, payment)
                except Invalid as refused:
                    left = refused.code
                    assert await states_of(shop, order, payment) == before
                assert left == (wanted or before), event
            await shop.check()

    run(story())


async def states_of(shop: Floor, order: str, payment: str) -> str:
    shown = (await shop.payments.show(payment)).payment
    return f"{await shop.state(order)} {shown.state}"

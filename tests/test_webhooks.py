"""Webhooks in a storm: each counts once, many in one transaction, a bad one sinks no other."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

from msgspec.structs import replace
from shopfloor import Floor, floor
from sqlalchemy import text, update

from liveroom.ids import new_id
from liveroom.parked import NEVER_MS, PARKED_MAX_MS, RETRY_MAX_MS
from liveroom.payments import Webhook
from liveroom.settling import DUE_MAX
from liveroom.store import tables


async def captures(shop: Floor, orders: int) -> list[Webhook]:
    """What the provider says of so many orders that were just paid."""
    said = []
    for n in range(orders):
        await shop.buy(f"o{n}", (f"s{n % 3}", 1), (f"s{(n + 1) % 3}", 1), buyer=f"b{n}")
        payment = await shop.orders_payment(f"o{n}", buyer=f"b{n}")
        signed = await shop.payments.succeed(payment)
        said.append(shop.payments.verify("sandbox", *signed))
    return said


def test_a_storm_of_webhooks(run, books, redis_url) -> None:
    """Each is sent five times, in any order: every order is paid once, in few transactions."""

    async def story() -> None:
        async with floor(books, redis_url, {f"s{n}": 50 for n in range(3)}) as shop:
            said = await captures(shop, 40)
            storm = said * 5
            random.Random(5).shuffle(storm)
            commits = 0
            write = books.write

            async def counted(fn):
                nonlocal commits
                commits += 1
                return await write(fn)

            books.write = counted
            await asyncio.gather(*(shop.orders.settle(one) for one in storm))
            books.write = write
            assert commits <= len(storm) / 10
            states = Counter([await shop.state(f"o{n}") for n in range(40)])
            assert states == {"paid": 40}
            assert await shop.one("SELECT COUNT(*) FROM ledger WHERE kind = 'sell'") == 80
            assert await shop.one("SELECT COUNT(*) FROM payment_events") == 40
            await shop.check()

    run(story())


def test_events_of_payments_that_are_none_of_ours(run, books, redis_url) -> None:
    """They are looked at less and less often, many in a transaction; what becomes ours counts."""

    async def story() -> None:
        async with floor(books, redis_url, {f"s{n}": 50 for n in range(3)}) as shop:
            [ours] = await captures(shop, 1)
            await shop.change(update(tables.payments).values(reference=None))
            foreign = [replace(ours, event=new_id(), reference=new_id()) for _ in range(300)]
            await asyncio.gather(*(shop.orders.settle(one) for one in [ours, *foreign]))
            commits = 0
            write = books.write

            async def counted(fn):
                nonlocal commits
                commits += 1
                return await write(fn)

            for tries in range(1, 4):
                await shop.change(update(tables.payment_events).values(due_at=0))
                asked_ms, commits = await books.now_ms(), 0
                books.write = counted
                assert await shop.orders.settle_waiting_once() == 301
                books.write = write
                assert commits <= 301 / DUE_MAX + 1
                waits = {
                    (row.tries, row.due_at - asked_ms >= 500 * 2**tries)
                    for row in await all_of(shop)
                }
                assert waits == {(tries, True)}
            await shop.orders_payment("o0", buyer="b0")
            assert await shop.orders.settle_waiting_once() == 1
            assert await shop.state("o0") == "paid"
            await shop.check()

    async def all_of(shop: Floor):
        return await shop.rows(tables.payment_events)

    run(story())


def test_an_event_that_waits_for_long_is_looked_at_no_more(run, books, redis_url) -> None:
    """Between two looks lie five minutes at most, and after a day there is none."""

    async def story() -> None:
        async with floor(books, redis_url, {f"s{n}": 50 for n in range(3)}) as shop:
            [ours] = await captures(shop, 1)
            await shop.orders.settle(replace(ours, event="old", reference="foreign"))
            events = update(tables.payment_events)
            await shop.change(events.values(due_at=0, tries=40))
            await shop.orders.settle_waiting_once()
            [row] = await shop.rows(tables.payment_events)
            assert row.due_at <= await books.now_ms() + RETRY_MAX_MS
            await shop.change(events.values(due_at=0, received_at=row.received_at - PARKED_MAX_MS))
            await shop.orders.settle_waiting_once()
            [row] = await shop.rows(tables.payment_events)
            assert row.due_at == NEVER_MS
            await shop.change(update(tables.payments).values(reference=None))
            await shop.change(events.values(reference=ours.reference))
            await shop.orders_payment("o0", buyer="b0")
            assert await shop.orders.settle_waiting_once() == 1

    run(story())


def test_a_waiting_event_that_fails_stops_no_other(run, books, redis_url) -> None:
    """It is put off like those that wait for nothing we know, and the rest is applied."""

    async def story() -> None:
        async with floor(books, redis_url, {f"s{n}": 50 for n in range(3)}) as shop:
            said = await captures(shop, 2)
            await shop.change(update(tables.payments).values(reference=None))
            await shop.orders.settle(replace(said[0], event="bad", amount_minor=2**70))
            await shop.orders.settle(said[1])
            for n in range(2):
                await shop.orders_payment(f"o{n}", buyer=f"b{n}")
            assert await shop.orders.settle_waiting_once() == 2
            assert [await shop.state(f"o{n}") for n in range(2)] == ["placed", "paid"]
            assert await shop.one("SELECT tries FROM payment_events WHERE event = 'bad'") == 1
            await shop.check()

    run(story())


def test_a_bad_webhook_sinks_no_other(run, books, redis_url) -> None:
    """One that cannot be written fails alone; those that came with it are taken in."""

    async def story() -> None:
        async with floor(books, redis_url, {f"s{n}": 50 for n in range(3)}) as shop:
            said = await captures(shop, 12)
            bad = Webhook(
                provider="sandbox",
                event=new_id(),
                kind="payment.succeeded",
                reference=said.pop(5).reference,
                amount_minor=2**70,
                currency="EUR",
            )
            given = [*said[:4], bad, *said[4:]]
            answers = await asyncio.gather(
                *(shop.orders.settle(one) for one in given), return_exceptions=True
            )
            assert [isinstance(one, Exception) for one in answers].index(True) == 4
            assert sum(isinstance(one, Exception) for one in answers) == 1
            states = Counter([await shop.state(f"o{n}") for n in range(12)])
            assert states == {"paid": 11, "placed": 1}
            assert not await books.read(
                lambda conn: conn.execute(
                    text("SELECT 1 FROM payment_events WHERE event = :event"), {"event": bad.event}
                ).first()
            )
            await shop.check()

    run(story())

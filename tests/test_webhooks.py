"""Webhooks in a storm: each counts once, many in one transaction, a bad one sinks no other."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

from shopfloor import Floor, floor
from sqlalchemy import text

from liveroom.ids import new_id
from liveroom.payments import Webhook


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

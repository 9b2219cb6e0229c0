"""A payment provider that accepts and never answers: it holds up its own orders, and nobody else."""

from __future__ import annotations

import asyncio

from silentstripe import silent_stripe

from liveroom.ids import new_id
from tests.crowd import Viewer, staying, until
from tests.live import Live

UNPAID = 8
FLAGS = ("--stripe-secret-key", "sk_test_1", "--stripe-webhook-secret", "whsec_1")
TIMES = ("--pay-within-s", "1", "--hold-ttl-s", "3", "--closing-max-s", "12")


def test_a_provider_that_hangs_holds_up_its_own_orders_alone(tmp_path):
    """Carts and orders without a payment end beside it, and in the end its own orders do too."""

    async def story(live: Live) -> None:
        buyers = [Viewer(live, f"b{number}") for number in range(UNPAID)]
        ann = Viewer(live, "ann")
        async with staying(ann, *buyers):
            await asyncio.gather(*map(start_to_pay, buyers))
            await until(lambda: bank.unanswered)
            order = {"order": new_id(), "lines": [{"sku": "s1", "qty": 1}]}
            await ann.surely("order.place", **order)
            await ann.surely("cart.add", new_id(), sku="s1", qty=1)
            left = 100 - UNPAID
            await until(lambda: units(live) == left, 12)
            await until(lambda: units(live) == 100, 60)

    async def start_to_pay(buyer: Viewer) -> None:
        order = new_id()
        await buyer.surely("order.place", order=order, lines=[{"sku": "s1", "qty": 1}])
        await buyer.do("payment.start", order=order)

    def units(live: Live) -> int:
        with live.http() as http:
            return http.get("/v1/rooms/r1").json()["stock"]["s1"]["left"]

    with silent_stripe() as bank:
        live = Live(tmp_path / "data", *FLAGS, *TIMES, "--stripe-api-base", bank.url)
        try:
            live.start()
            live.shop(stock=100)
            asyncio.run(asyncio.wait_for(story(live), 90))
            assert live.audit()["ok"]
        finally:
            bank.closing.set()
            live.close()

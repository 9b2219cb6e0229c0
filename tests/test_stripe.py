"""Stripe: what it is asked, what its webhooks mean, and a sale that is paid through it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator

import pytest
import stripe
from cardholder import DECLINED, GOOD, HOOK, KEY, LocalStripe
from shopfloor import Floor, floor
from silentstripe import SilentStripe, silent_stripe

from liveroom import cli
from liveroom.errors import LiveroomError, Refused, Unavailable
from liveroom.ids import new_id
from liveroom.stripe_provider import Stripe
from tests.crowd import until
from tests.live import Live, Seat


@pytest.fixture(scope="module")
def bank() -> Iterator[LocalStripe]:
    """A Stripe of our own."""
    local = LocalStripe()
    yield local
    local.close()


class AtStripe:
    """An account at the Stripe of the tests; the connections are closed in the end."""

    def __init__(self, url: str, *, key: str = KEY) -> None:
        self._provider = Stripe(key, [HOOK], api_base=url)

    async def __aenter__(self) -> Stripe:
        return self._provider

    async def __aexit__(self, *_exc: object) -> None:
        await self._provider.stop()


async def opened(provider: Stripe, payment: str = "p1") -> str:
    started = await provider.start(
        payment=payment, reference=None, amount_minor=1250, currency="EUR"
    )
    assert started.client_secret
    return started.reference


# ── what is asked ─────────────────────────────────────────────────────────────────────────


def test_a_payment_is_opened_once(run, bank) -> None:
    """Started again it is the same PaymentIntent with the same client secret."""

    async def story() -> None:
        async with AtStripe(bank.url) as provider:
            given = {"payment": "p1", "amount_minor": 1250, "currency": "EUR"}
            first = await provider.start(reference=None, **given)
            assert await provider.start(reference=first.reference, **given) == first
            intent = bank.intent(first.reference)
            assert (intent["amount"], intent["currency"]) == (1250, "eur")
            assert intent["metadata"] == {"payment": "p1"}

    run(story())


def test_closing_cancels_or_tells_what_was_captured(run, bank) -> None:
    """An open payment is cancelled, also twice; a paid one is told; a declined one is open yet."""

    async def story() -> None:
        async with AtStripe(bank.url) as provider:
            assert await provider.close(payment="p0", reference=None) is None
            unpaid = await opened(provider)
            assert bank.card(unpaid, DECLINED) == 402
            for _ in range(2):
                assert await provider.close(payment="p1", reference=unpaid) is None
            assert bank.intent(unpaid)["status"] == "canceled"
            paid = await opened(provider)
            assert bank.card(paid, GOOD) == 200
            said = await provider.close(payment="p1", reference=paid)
            assert said is not None
            assert (said.kind, said.reference) == ("payment.succeeded", paid)
            assert (said.amount_minor, said.currency) == (1250, "EUR")

    run(story())


def test_a_refund_is_made_once(run, bank) -> None:
    """Asked again, as after a lost answer, it is the same refund."""

    async def story() -> None:
        async with AtStripe(bank.url) as provider:
            paid = await opened(provider)
            bank.card(paid, GOOD)
            asked = {"refund": "r1", "reference": paid, "amount_minor": 200, "currency": "EUR"}
            answers = [await provider.refund(**asked) for _ in range(3)]
            assert answers[0] == answers[1] == answers[2]
            assert (answers[0].kind, answers[0].refund) == ("refund.succeeded", "r1")
            assert (answers[0].reference, answers[0].amount_minor) == (paid, 200)
            mine = [one for one in bank.refunds() if one["metadata"] == {"refund": "r1"}]
            assert [one["amount"] for one in mine] == [200]

    run(story())


def test_what_stripe_refuses_and_what_it_does_not_answer(run, bank) -> None:
    """A refused payment or refund is told as such; silence may be asked again."""

    async def story() -> None:
        async with AtStripe(bank.url) as provider:
            nothing = {"payment": "p1", "reference": None, "amount_minor": 0, "currency": "EUR"}
            with pytest.raises(Refused) as refused:
                await provider.start(**nothing)
            assert refused.value.code == "payment_declined"
            asked = {"refund": "r2", "amount_minor": 200, "currency": "EUR"}
            failed = await provider.refund(reference="pi_unknown", **asked)
            assert failed is not None
            assert (failed.kind, failed.refund) == ("refund.failed", "r2")
        async with AtStripe("http://127.0.0.1:9") as provider:
            with pytest.raises(Unavailable):
                await opened(provider)
            with pytest.raises(Unavailable):
                await provider.refund(reference="pi_1", **asked)

    run(story())


# ── what its webhooks mean ────────────────────────────────────────────────────────────────


def hook(kind: str, secret: str = HOOK, at: int | None = None, **about) -> tuple[dict, bytes]:
    thing = {"id": "pi_1", "amount": 500, "currency": "eur", **about}
    body = json.dumps({"id": "evt_1", "type": kind, "data": {"object": thing}})
    header = stripe.WebhookSignature.generate_signature_header(body, secret, at)
    return {"Stripe-Signature": header}, body.encode()


def verified(signed: tuple[dict, bytes], *secrets: str):
    provider = Stripe(KEY, secrets or [HOOK])
    try:
        return provider.verify(*signed)
    except LiveroomError as refusal:
        return refusal.code
    finally:
        asyncio.run(provider.stop())


REFUND = {"id": "re_1", "payment_intent": "pi_1", "metadata": {"refund": "r1"}}


@pytest.mark.parametrize(
    ("kind", "about", "meant"),
    [
        ("payment_intent.succeeded", {}, ("payment.succeeded", 500, None)),
        ("payment_intent.succeeded", {"amount_received": 499}, ("payment.succeeded", 499, None)),
        ("payment_intent.canceled", {}, ("payment.failed", 500, None)),
        ("payment_intent.payment_failed", {}, None),
        ("payment_intent.processing", {}, None),
        ("charge.succeeded", {}, None),
        ("refund.created", {**REFUND, "status": "pending"}, None),
        ("refund.updated", {**REFUND, "status": "succeeded"}, ("refund.succeeded", 500, "r1")),
        ("refund.failed", {**REFUND, "status": "failed"}, ("refund.failed", 500, "r1")),
        ("refund.updated", {**REFUND, "status": "canceled"}, ("refund.failed", 500, "r1")),
        ("payment_intent.succeeded", {"amount": "five"}, "bad_argument"),
    ],
)
def test_what_a_webhook_means(kind, about, meant) -> None:
    """Captures, ends and refunds concern us; the rest is signed and nothing to us."""
    said = verified(hook(kind, **about))
    if meant is None or isinstance(meant, str):
        assert said == meant
    else:
        assert (said.kind, said.amount_minor, said.refund) == meant
        assert (said.event, said.reference, said.currency) == ("evt_1", "pi_1", "EUR")


def test_only_a_fresh_signature_of_ours_counts() -> None:
    """Tampered, stale, unsigned and foreign ones are refused; a rotated secret has its time."""
    now = int(time.time())
    kind = "payment_intent.succeeded"
    headers, body = hook(kind)
    assert verified((headers, body.replace(b"500", b"499"))) == "unauthenticated"
    assert verified(({}, body)) == "unauthenticated"
    assert verified(({"stripe-signature": "nonsense"}, body)) == "unauthenticated"
    assert verified((headers, b"\xff" + body)) == "unauthenticated"
    assert verified(hook(kind, at=now - 400)) == "unauthenticated"
    assert verified(hook(kind, "whsec_foreign")) == "unauthenticated"
    assert verified(hook(kind, "whsec_old"), HOOK, "whsec_old").event == "evt_1"
    assert verified(hook(kind), HOOK, "whsec_old").event == "evt_1"
    assert verified(hook(kind, "whsec_old"), HOOK) == "unauthenticated"
    assert verified(hook(kind), "") == "unauthenticated"


# ── orders ────────────────────────────────────────────────────────────────────────────────


def at_stripe(shop: Floor, bank: LocalStripe) -> Stripe:
    """The floor takes its payments at Stripe."""
    provider = Stripe(KEY, [HOOK], api_base=bank.url)
    shop.payments._providers = {"stripe": provider}
    return provider


def test_money_that_comes_while_an_order_expires(run, db, redis_url, bank) -> None:
    """The PaymentIntent is cancelled before the order ends; what was captured first pays it."""

    async def story() -> None:
        async with floor(db, redis_url, {"s1": 5}) as shop:
            provider = at_stripe(shop, bank)
            references = {}
            for order in ("late", "never"):
                await shop.buy(order)
                payment = await shop.payments.start(order=order, buyer="ann")
                references[order] = payment.client_secret.partition("_secret_")[0]
            assert bank.card(references["late"], GOOD) == 200
            await shop.overdue("late", "never")
            await shop.expire()
            assert [await shop.state(one) for one in ("late", "never")] == ["paid", "expired"]
            assert bank.intent(references["never"])["status"] == "canceled"
            assert await shop.left() == 4
            await shop.give_back("late", amount_minor=50)
            assert await shop.outbox.run_once() == 1
            shown = await shop.orders.show("late", None)
            assert (shown.state, shown.refunds[0].state) == ("paid", "succeeded")
            await shop.check()
            await provider.stop()

    run(story())


def test_orders_whose_provider_hangs_wait_for_it_alone(run, db, redis_url) -> None:
    """More of them than are asked at once end one by one when they have waited long enough."""

    async def story(hanging: SilentStripe) -> None:
        unpaid = [f"o{number}" for number in range(12)]
        async with floor(db, redis_url, {"s1": 20}, close_max_s=0.2) as shop:
            provider = Stripe(KEY, [HOOK], api_base=hanging.url)
            shop.payments._providers["stripe"] = provider
            for order in unpaid:
                await shop.buy(order)
                await shop.payments.start(order=order, buyer="ann", provider="stripe")
            await shop.buy("no payment")
            await shop.buy("elsewhere")
            await shop.orders_payment("elsewhere")
            await shop.overdue(*unpaid, "no payment", "elsewhere")
            await shop.orders.expire_once()
            assert await shop.state("no payment") == "expired"
            assert hanging.unanswered == []
            await shop.orders.end_closing_once()
            assert await shop.state("elsewhere") == "expired"
            assert {await shop.state(order) for order in unpaid} == {"closing"}
            await until(lambda: hanging.unanswered)
            async with floor(db, redis_url, closing_max_s=0, close_max_s=0.2) as patient:
                patient.payments._providers["stripe"] = provider
                await patient.orders.end_closing_once()
            assert {await shop.state(order) for order in unpaid} == {"expired"}
            await shop.check()
            await provider.stop()

    with silent_stripe() as hanging:
        run(story(hanging))


def test_a_sale_through_stripe(bank, tmp_path) -> None:
    """Ann pays by card, Stripe's webhook makes her order paid, and the host gives it back."""
    flags = ["--stripe-secret-key", KEY, "--stripe-webhook-secret", HOOK]
    server = Live(tmp_path / "data", *flags, "--stripe-api-base", bank.url)
    try:
        server.start()
        server.shop()
        bank.tell(f"{server.url}/v1/payments/webhooks/stripe")
        ann = Seat(server, "r1")
        ann.join(server.token("ann"))
        order = ann.do("order.place", order=new_id(), lines=[{"sku": "s1", "qty": 2}])["order"]
        payment = ann.do("payment.start", order=order["id"])["payment"]
        assert (payment["provider"], payment["amount_minor"]) == ("stripe", 3998)
        again = ann.do("payment.start", order=order["id"])["payment"]
        assert again == payment
        assert bank.card(payment["client_secret"].partition("_secret_")[0], GOOD) == 200
        assert ann.hear("order.paid")["data"]["order"]["id"] == order["id"]
        with server.http(server.token("mia", "host:r1")) as host:
            lines = [{"sku": "s1", "qty": 2, "restock": True}]
            answer = host.post(f"/v1/orders/{order['id']}/refunds", json={"lines": lines})
            assert answer.status_code == 201, answer.text
        assert ann.hear("order.refunded")["data"]["order"]["state"] == "refunded"
        assert server.audit()["ok"]
        assert KEY not in server.log()
        assert HOOK not in server.log()
        ann.leave()
    finally:
        server.close()


def test_stripe_is_set_up_whole_or_not_at_all(tmp_path, capsys) -> None:
    """A key without a webhook secret ends the start with one line that names the setting."""
    started = ["serve", "--data", str(tmp_path / "data"), "--stripe-secret-key", KEY]
    assert cli.main(started) == 2
    said = capsys.readouterr().err
    assert said.startswith("liveroom: --stripe-webhook-secret")
    assert KEY not in said

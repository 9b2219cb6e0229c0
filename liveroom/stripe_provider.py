"""Stripe as a payment provider: PaymentIntents, refunds and signed webhooks.

Installed with the extra `stripe`. The library's calls are synchronous and run in threads of
their own, which nobody else waits for when Stripe hangs. A PaymentIntent stays open after a
declined card, so that the buyer tries another one with the same client secret: a decline is no
end of the payment. What Stripe has not answered is asked again; each request has a key under
which it happens once, and a refund is looked for before it is made, since Stripe forgets keys
after a day.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

import msgspec
import requests
import stripe

from liveroom.errors import Denied, Invalid, Refused, Unavailable
from liveroom.payments import WINDOW_S, Kind, Started, Webhook

TIMEOUT_S: Final = 5
"""For each of a call's two tries."""
THREADS_MAX: Final = 16
"""Twice as many as settle by themselves (`ending.ASKED_AT_ONCE_MAX`): the rest is for buyers."""
REFUNDS_MAX: Final = 100

T = TypeVar("T")

_KINDS: Final[dict[str, Kind]] = {
    "payment_intent.succeeded": "payment.succeeded",
    "payment_intent.canceled": "payment.failed",
}
_REFUND_EVENTS: Final = frozenset(
    {"refund.created", "refund.updated", "refund.failed", "charge.refund.updated"}
)
_REFUND_ENDS: Final[dict[str, Kind]] = {
    "succeeded": "refund.succeeded",
    "failed": "refund.failed",
    "canceled": "refund.failed",
}
_REFUSALS: Final = (stripe.InvalidRequestError, stripe.CardError)


class _Object(msgspec.Struct, kw_only=True):
    """A PaymentIntent or a refund, as far as it concerns us."""

    id: str
    amount: int
    currency: str
    status: str | None = None
    amount_received: int | None = None
    payment_intent: str | None = None
    metadata: dict[str, str] = {}
    client_secret: str | None = None


class _Data(msgspec.Struct, kw_only=True):
    object: dict[str, Any]


class _Event(msgspec.Struct, kw_only=True):
    id: str
    type: str
    data: _Data


class Stripe:
    """One Stripe account. `webhook_secrets` are all valid, so that one can be rotated."""

    name = "stripe"

    def __init__(
        self, secret_key: str, webhook_secrets: Sequence[str], *, api_base: str | None = None
    ) -> None:
        self._webhook_secrets = tuple(webhook_secrets)
        self._session = requests.Session()
        self._session.mount("https://", requests.adapters.HTTPAdapter(pool_maxsize=THREADS_MAX))
        self._threads = ThreadPoolExecutor(THREADS_MAX, "stripe")
        self._client = stripe.StripeClient(
            secret_key,
            base_addresses={"api": api_base} if api_base else {},
            max_network_retries=1,
            http_client=stripe.RequestsClient(timeout=TIMEOUT_S, session=self._session),
        ).v1

    async def stop(self) -> None:
        """Close the connections."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._session.close()

    async def start(
        self, *, payment: str, reference: str | None, amount_minor: int, currency: str
    ) -> Started:
        """Open a PaymentIntent, or find the one that was opened before.

        Raises:
            Refused: `payment_declined`, Stripe takes no such payment.
            Unavailable: `store_down`, Stripe did not answer.
        """
        intents = self._client.payment_intents
        if reference is not None:
            intent = await self._ask(lambda: intents.retrieve(reference))
        else:
            intent = await self._ask(
                lambda: intents.create(
                    {
                        "amount": amount_minor,
                        "currency": currency.lower(),
                        "metadata": {"payment": payment},
                    },
                    {"idempotency_key": f"start-{payment}"},
                )
            )
        return Started(intent.id, client_secret=intent.client_secret)

    async def close(self, *, payment: str, reference: str | None) -> Webhook | None:  # noqa: ARG002 - Stripe knows its own id
        """Cancel the PaymentIntent; what was captured, if the money came first.

        Raises:
            Unavailable: it is neither cancelled nor captured yet; ask again.
        """
        if reference is None:
            return None  # nobody was ever told how to pay it
        intents = self._client.payment_intents
        try:
            await self._ask(lambda: intents.cancel(reference))
        except Refused:
            intent = await self._ask(lambda: intents.retrieve(reference))
            if intent.status == "succeeded":
                return self._said(f"{intent.id}.closed", "payment.succeeded", intent)
            if intent.status != "canceled":
                raise Unavailable("store_down", "The payment is under way at Stripe.") from None
        return None

    async def refund(
        self,
        *,
        refund: str,
        reference: str,
        amount_minor: int,
        currency: str,
    ) -> Webhook | None:
        """Give money back; None where Stripe's webhook will tell how it ended."""
        refunds = self._client.refunds
        try:
            listed = await self._call(
                lambda: refunds.list({"payment_intent": reference, "limit": REFUNDS_MAX})
            )
            made = next((one for one in map(_read, listed.data) if _ours(one) == refund), None)
            if made is None:
                made = await self._ask(
                    lambda: refunds.create(
                        {
                            "payment_intent": reference,
                            "amount": amount_minor,
                            "metadata": {"refund": refund},
                        },
                        {"idempotency_key": f"refund-{refund}"},
                    )
                )
        except Refused:
            return Webhook(
                provider=self.name,
                event=f"{refund}.refused",
                kind="refund.failed",
                reference=reference,
                amount_minor=amount_minor,
                currency=currency,
                refund=refund,
            )
        kind = _REFUND_ENDS.get(made.status or "")
        return None if kind is None else self._said(f"{made.id}.{made.status}", kind, made)

    def verify(self, headers: Mapping[str, str], body: bytes) -> Webhook | None:
        """What the signed request says; None where it is nothing to us.

        Raises:
            Denied: `unauthenticated`, no secret of ours signed this in the last five minutes.
            Invalid: `bad_argument`, it was signed and cannot be read.
        """
        signature = {name.lower(): value for name, value in headers.items()}.get("stripe-signature")
        if not any(_signed(body, signature, secret) for secret in self._webhook_secrets):
            raise Denied("unauthenticated", "The webhook's signature does not fit.")
        try:
            event = msgspec.json.decode(body, type=_Event)
            if event.type in _KINDS:
                kind: Kind | None = _KINDS[event.type]
                about = msgspec.convert(event.data.object, _Object)
            elif event.type in _REFUND_EVENTS:
                about = msgspec.convert(event.data.object, _Object)
                kind = _REFUND_ENDS.get(about.status or "")
            else:
                return None
        except msgspec.MsgspecError as fault:
            raise Invalid("bad_argument", f"The webhook cannot be read: {fault}") from fault
        return None if kind is None else self._said(event.id, kind, about)

    def _said(self, event: str, kind: Kind, about: _Object) -> Webhook:
        received = about.amount_received if kind == "payment.succeeded" else None
        return Webhook(
            provider=self.name,
            event=event,
            kind=kind,
            reference=about.payment_intent or about.id,
            amount_minor=about.amount if received is None else received,
            currency=about.currency.upper(),
            refund=_ours(about),
        )

    async def _ask(self, call: Callable[[], Any]) -> _Object:
        return _read(await self._call(call))

    async def _call(self, call: Callable[[], T]) -> T:
        """Run a call of the library, its errors as ours."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, call)
        except _REFUSALS as fault:
            raise Refused("payment_declined", fault.user_message or None) from fault
        except stripe.StripeError as fault:
            raise Unavailable("store_down", "Stripe does not answer.") from fault


def _read(thing: Any) -> _Object:
    return msgspec.convert(thing.to_dict(), _Object)


def _ours(about: _Object) -> str | None:
    """Our id of a refund."""
    return about.metadata.get("refund")


def _signed(body: bytes, signature: str | None, secret: str) -> bool:
    try:
        stripe.WebhookSignature.verify_header(body, signature, secret, WINDOW_S)
    except (stripe.SignatureVerificationError, UnicodeDecodeError):
        return False
    return True

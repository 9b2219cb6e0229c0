"""Payments: what we ask of a provider, and the sandbox that every copy of liveroom has.

A provider is believed only by its signature. What it says arrives as a `Webhook`, whatever
the provider; what that does to an order is decided in `settling.py`. Nothing here changes an
order or its stock.

Webhooks are signed as the Standard Webhooks specification has it
(https://www.standardwebhooks.com): HMAC-SHA256 over id, time and the raw body, so that none
of the three can be exchanged, and none older than five minutes is taken.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple, Protocol

import msgspec
from sqlalchemy import Connection, Row, bindparam, insert, select, update

from liveroom import shapes
from liveroom.clock import Clock
from liveroom.errors import Denied, Invalid
from liveroom.ids import Id, new_id
from liveroom.money import Currency, Price
from liveroom.store import tables
from liveroom.store.database import Database, now_ms

WINDOW_S: Final = 300
"""How far a webhook's time may be from ours."""

Kind = Literal["payment.succeeded", "payment.failed", "refund.succeeded", "refund.failed"]


class Webhook(msgspec.Struct, frozen=True, kw_only=True):
    """What a provider said, verified. `reference` is the provider's own id of the payment.

    For refunds `refund` is our id of the refund, which was the key of the request.
    """

    provider: str
    event: str
    kind: Kind
    reference: str
    amount_minor: int
    currency: str
    refund: str | None = None


class Started(NamedTuple):
    """A payment that the provider has opened."""

    reference: str
    client_secret: str | None = None
    url: str | None = None


class PaymentProvider(Protocol):
    """What a provider must be able to do. Every call may be repeated with the same key."""

    name: str

    async def start(
        self, *, payment: str, reference: str | None, amount_minor: int, currency: str
    ) -> Started:
        """Open a payment, once; `payment` is our id and the idempotency key.

        `reference` is what the provider named it when it was opened before.
        """
        ...

    async def close(self, *, payment: str, reference: str | None) -> Webhook | None:
        """Make sure nothing can be captured any more; if something was, what it was."""
        ...

    async def refund(
        self, *, refund: str, reference: str, amount_minor: int, currency: str
    ) -> Webhook | None:
        """Give money back; `refund` is the idempotency key. None: the answer comes later."""
        ...

    def verify(self, headers: Mapping[str, str], body: bytes) -> Webhook | None:
        """What the signed request says; None if it is signed and nothing to us.

        `unauthenticated` if it is not signed, `bad_argument` if it cannot be read.
        """
        ...

    async def stop(self) -> None:
        """Close the connections; nothing is asked after it."""
        ...


# ── signatures ────────────────────────────────────────────────────────────────────────────


class Signed(NamedTuple):
    """A webhook request, ready to be sent or handed to the handler."""

    headers: dict[str, str]
    body: bytes


def sign(secret: bytes, *, event: str, at_s: int, body: bytes) -> Signed:
    """The request with its signature over id, time and body."""
    headers = {
        "content-type": "application/json",
        "webhook-id": event,
        "webhook-timestamp": str(at_s),
        "webhook-signature": "v1," + _digest(secret, event, str(at_s), body),
    }
    return Signed(headers, body)


def check_signature(
    secrets: Sequence[bytes], headers: Mapping[str, str], body: bytes, *, now_s: int
) -> str:
    """The event's id, if one of the secrets signed this within the window.

    Several signatures may stand in one header, and several secrets be valid, so that a secret
    can be rotated without a gap. Anything else is `unauthenticated`.
    """
    names = {name.lower(): value for name, value in headers.items()}
    event, at = names.get("webhook-id", ""), names.get("webhook-timestamp", "")
    given = names.get("webhook-signature", "").split()
    if not (event and at.isascii() and at.isdigit() and len(at) <= 12 and given):
        raise Denied("unauthenticated", "The webhook is not signed.")
    if abs(now_s - int(at)) > WINDOW_S:
        raise Denied("unauthenticated", "The webhook is too old, or from the future.")
    wanted = [("v1," + _digest(secret, event, at, body)).encode() for secret in secrets]
    if not any(hmac.compare_digest(one.encode(), want) for one in given for want in wanted):
        raise Denied("unauthenticated", "The webhook's signature does not fit.")
    return event


def _digest(secret: bytes, event: str, at: str, body: bytes) -> str:
    signed = b".".join((event.encode(), at.encode(), body))
    return base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest()).decode()


# ── the sandbox ───────────────────────────────────────────────────────────────────────────


class _SandboxBody(msgspec.Struct, kw_only=True):
    type: Kind
    reference: Id
    amount_minor: Price
    currency: Currency
    refund: Id | None = None


class Sandbox:
    """A provider without money: its buttons send the webhooks a real one would send.

    What it captured it remembers for the last `remembered_max` payments of this process, so
    that closing one can answer that the money had come. A capture pressed on another process
    reaches us by its webhook alone, and is then a late payment: as with real providers.
    """

    name = "sandbox"

    def __init__(
        self, secrets: Sequence[bytes], clock: Clock, *, remembered_max: int = 10_000
    ) -> None:
        self._secrets = list(secrets)
        self._clock = clock
        self._remembered_max = remembered_max
        self._captured: OrderedDict[str, Webhook] = OrderedDict()

    async def stop(self) -> None:
        """There is nothing to close."""

    async def start(
        self,
        *,
        payment: str,
        reference: str | None,  # noqa: ARG002 - the sandbox asks nothing of these
        amount_minor: int,  # noqa: ARG002
        currency: str,  # noqa: ARG002
    ) -> Started:
        """Open a payment whose reference is our own id."""
        return Started(f"sandbox_{payment}")

    async def close(self, *, payment: str, reference: str | None) -> Webhook | None:
        """Nothing, or the capture that came first."""
        return self._captured.get(reference or f"sandbox_{payment}")

    async def refund(
        self, *, refund: str, reference: str, amount_minor: int, currency: str
    ) -> Webhook | None:
        """Refunded at once."""
        return Webhook(
            provider=self.name,
            event=f"{refund}.succeeded",
            kind="refund.succeeded",
            reference=reference,
            amount_minor=amount_minor,
            currency=currency,
            refund=refund,
        )

    def verify(self, headers: Mapping[str, str], body: bytes) -> Webhook:
        """What a signed request says; see `check_signature` for what is refused."""
        now_s = self._clock.now_ms() // 1000
        event = check_signature(self._secrets, headers, body, now_s=now_s)
        try:
            said = msgspec.json.decode(body, type=_SandboxBody)
        except msgspec.MsgspecError as error:
            raise Invalid("bad_argument", f"The webhook cannot be read: {error}") from error
        return Webhook(
            provider=self.name,
            event=event,
            kind=said.type,
            reference=said.reference,
            amount_minor=said.amount_minor,
            currency=said.currency,
            refund=said.refund,
        )

    def press(
        self, kind: Kind, *, reference: str, amount_minor: int, currency: str, event: str = ""
    ) -> Signed:
        """The signed webhook of a button. Pressed twice, it is the same event again."""
        event = event or f"{reference}.{kind}"
        said = _SandboxBody(
            type=kind, reference=reference, amount_minor=amount_minor, currency=currency
        )
        signed = sign(
            self._secrets[0],
            event=event,
            at_s=self._clock.now_ms() // 1000,
            body=msgspec.json.encode(said),
        )
        if kind == "payment.succeeded":
            self._captured[reference] = self.verify(*signed)
            while len(self._captured) > self._remembered_max:
                self._captured.popitem(last=False)
        return signed


# ── payments of orders ────────────────────────────────────────────────────────────────────


class Owned(NamedTuple):
    """A payment and the buyer of its order."""

    payment: shapes.Payment
    buyer: str


class Payments:
    """Starts payments and knows their providers. The first provider is the default one."""

    def __init__(self, db: Database, providers: Sequence[PaymentProvider]) -> None:
        self._db = db
        self._providers = {provider.name: provider for provider in providers}

    @property
    def names(self) -> list[str]:
        """The providers there are, the default one first."""
        return list(self._providers)

    def provider(self, name: str | None = None) -> PaymentProvider:
        """The provider of that name; without a name, the default one. Else `not_found`."""
        if name is None:
            name = next(iter(self._providers), "")
        if name not in self._providers:
            raise Invalid("not_found", "There is no such payment provider here.")
        return self._providers[name]

    async def start(self, *, order: str, buyer: str, provider: str | None = None) -> shapes.Payment:
        """The one open payment of a placed order; started again, it is the same one.

        Another's order is `not_found`; an order that cannot be paid now, or one with an open
        payment at another provider, is `illegal_transition`.
        """
        at = self.provider(provider)
        row = await self._db.write(lambda conn: _open(conn, order, buyer, at.name))
        started = await at.start(
            payment=row.id,
            reference=row.reference,
            amount_minor=row.amount_minor,
            currency=row.currency,
        )
        if row.reference is None:
            await self._db.write(lambda conn: _refer(conn, row.id, started.reference))
        payment = _shape(row)
        payment.client_secret, payment.url = started.client_secret, started.url
        return payment

    async def show(self, payment: str) -> Owned:
        """The payment as it is now, with the buyer who may see it; `not_found` without one."""
        row = await self._db.read(lambda conn: conn.execute(_SHOWN, {"id": payment}).first())
        if row is None:
            raise Invalid("not_found")
        return Owned(_shape(row), row.buyer)

    async def close(self) -> None:
        """Close the providers' connections."""
        for provider in self._providers.values():
            await provider.stop()

    def verify(self, provider: str, headers: Mapping[str, str], body: bytes) -> Webhook | None:
        """What a provider's signed request says; it changes nothing (see `Orders.settle`)."""
        return self.provider(provider).verify(headers, body)

    async def succeed(self, payment: str) -> Signed:
        """The signed webhook of the sandbox's pay button, for the webhook handler."""
        return await self._press(payment, "payment.succeeded")

    async def fail(self, payment: str) -> Signed:
        """The signed webhook of the sandbox's decline button, for the webhook handler."""
        return await self._press(payment, "payment.failed")

    async def _press(self, payment: str, kind: Kind) -> Signed:
        sandbox = self.provider(Sandbox.name)
        row = await self._db.read(lambda conn: conn.execute(_SHOWN, {"id": payment}).first())
        if row is None or row.provider != Sandbox.name or row.reference is None:
            raise Invalid("not_found")
        if not isinstance(sandbox, Sandbox):
            raise Invalid("not_found", "The sandbox is off.")
        return sandbox.press(
            kind,
            reference=row.reference,
            amount_minor=row.amount_minor,
            currency=row.currency,
        )


_T = tables
_ORDER = select(_T.orders).where(_T.orders.c.id == bindparam("id")).with_for_update()
_OPEN = select(_T.payments).where(
    _T.payments.c.order == bindparam("order"), _T.payments.c.state == "started"
)
_SHOWN = (
    select(_T.payments, _T.orders.c.buyer)
    .join(_T.orders, _T.orders.c.id == _T.payments.c.order)
    .where(_T.payments.c.id == bindparam("id"))
)


def _open(conn: Connection, order: str, buyer: str, provider: str) -> Row[Any]:
    """The row of the order's open payment, which is made if there is none."""
    row = conn.execute(_ORDER, {"id": order}).first()
    if row is None or row.buyer != buyer:
        raise Invalid("not_found")
    at = now_ms(conn)
    if row.state != "placed" or at >= row.pay_by:
        data = {"machine": "order", "state": row.state}
        raise Invalid("illegal_transition", "This order cannot be paid now.", data=data)
    known = conn.execute(_OPEN, {"order": order}).first()
    if known is not None and known.provider == provider:
        return known
    if known is not None:
        raise Invalid("illegal_transition", "Another payment of this order is open.")
    # From here on it must succeed.
    payment = new_id()
    conn.execute(
        insert(_T.payments),
        {
            "id": payment,
            "order": order,
            "provider": provider,
            "state": "started",
            "amount_minor": row.total_minor,
            "currency": row.currency,
            "created_at": at,
            "changed_at": at,
        },
    )
    return conn.execute(_SHOWN, {"id": payment}).one()


def _refer(conn: Connection, payment: str, reference: str) -> None:
    """Write down what the provider calls a payment: what it said of it before is due now."""
    mine, events = _T.payments.c, _T.payment_events.c
    named = update(_T.payments).where(mine.id == payment, mine.reference.is_(None))
    if conn.execute(named.values(reference=reference)).rowcount:
        provider = select(mine.provider).where(mine.id == payment).scalar_subquery()
        conn.execute(
            update(_T.payment_events)
            .where(
                events.provider == provider,
                events.reference == reference,
                events.payment.is_(None),
            )
            .values(due_at=events.received_at)
        )


def _shape(row: Row[Any]) -> shapes.Payment:
    return shapes.Payment(
        id=row.id,
        order=row.order,
        provider=row.provider,
        state=row.state,
        amount_minor=row.amount_minor,
        currency=row.currency,
    )

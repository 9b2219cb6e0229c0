"""HTTP for orders, payments, stock and money: each shows what is the caller's own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from liveroom import attribution
from liveroom.arguments import KEY_MAX
from liveroom.auth import Member
from liveroom.catalog import Name
from liveroom.commands import Services
from liveroom.errors import Denied, Invalid
from liveroom.ids import new_id
from liveroom.refunding import NewRefund
from liveroom.web.answers import answer
from liveroom.web.reading import body, body_bytes, member, paging, path_id, time_ms

SANDBOX_TOKEN_TTL_S = 24 * 3600


class TokenBody(msgspec.Struct, kw_only=True):
    """The body that asks for a viewer's token."""

    name: Name


class Selling:
    """The routes of orders, the ledger, payments, the sandbox and the audit."""

    def __init__(
        self, services: Services, *, audit: Callable[[], Awaitable[Any]], sandbox: bool
    ) -> None:
        self._services = services
        self._audit = audit
        self._sandbox = sandbox

    def routes(self) -> list[Route]:
        """The routes, for the app; the sandbox's only when it is on."""
        always = [
            Route("/v1/orders", self.list_orders, methods=["GET"]),
            Route("/v1/orders/{order}", self.show_order, methods=["GET"]),
            Route("/v1/orders/{order}/refunds", self.refund_order, methods=["POST"]),
            Route("/v1/shops/{shop}/attribution", self.show_attribution, methods=["GET"]),
            Route("/v1/skus/{sku}/ledger", self.show_ledger, methods=["GET"]),
            Route("/v1/payments/providers", self.list_providers, methods=["GET"]),
            Route("/v1/payments/webhooks/{provider}", self.take_webhook, methods=["POST"]),
            Route("/v1/audit", self.audit, methods=["GET"]),
        ]
        if not self._sandbox:
            return always
        return [
            *always,
            Route("/v1/sandbox/tokens", self.give_token, methods=["POST"]),
            Route("/v1/sandbox/payments/{payment}/succeed", self.succeed, methods=["POST"]),
            Route("/v1/sandbox/payments/{payment}/fail", self.fail, methods=["POST"]),
        ]

    # ── orders and stock ──────────────────────────────────────────────────────────────────

    async def list_orders(self, request: Request) -> Response:
        """The caller's own orders, a merchant's with the shop's goods, a host's of `?room=`."""
        by = await self._member(request)
        after, limit = paging(request)
        room = request.query_params.get("room")
        sees_all = by.admin or (room is not None and by.hosts(room))
        return answer(
            await self._services.orders.list(
                buyer=None if sees_all else by.id,
                shops=by.shops,
                room=room,
                after=after,
                limit=limit,
            )
        )

    async def show_order(self, request: Request) -> Response:
        """One order, as it is now; one that is not the caller's to see is `not_found`."""
        by, order = await self._member(request), path_id(request, "order")
        if by.admin or by.hosts((await self._services.orders.whose(order)).room):
            return answer(await self._services.orders.show(order, None))
        return answer(await self._services.orders.show(order, by.id, shops=by.shops))

    async def refund_order(self, request: Request) -> Response:
        """Money back for an order, whole or in part, by its merchant or host; once for each key."""
        by, order = await self._member(request), path_id(request, "order")
        whose = await self._services.orders.whose(order)
        if not (by.hosts(whose.room) or any(map(by.runs, whose.shops))):
            raise Denied("forbidden") if by.id == whose.buyer else Invalid("not_found")
        wanted, key = await body(request, NewRefund), request.headers.get("idempotency-key")
        if key is not None and not 1 <= len(key) <= KEY_MAX:
            raise Invalid("bad_argument", f"A key has 1 to {KEY_MAX} characters.")
        not_theirs = None if by.hosts(whose.room) else whose.why_not_for(wanted, by.runs)
        if not_theirs is not None:
            raise Denied("forbidden", not_theirs)
        operation = None if key is None else f"{by.id}:{key}"
        refund = await self._services.orders.give_back(order, wanted, operation=operation)
        return answer(refund, 201)

    async def show_ledger(self, request: Request) -> Response:
        """Every movement of a SKU's stock, oldest first, with the sums that must agree."""
        by, sku = await self._member(request), path_id(request, "sku")
        if not (by.admin or by.shops):
            raise Denied("forbidden")
        product = await self._services.catalog.product_of(sku)
        if not by.runs(product.shop):
            raise Invalid("not_found")
        after, limit = paging(request)
        return answer(await self._services.inventory.ledger(sku, after=after, limit=limit))

    async def show_attribution(self, request: Request) -> Response:
        """What the shop's sales of `?from=&to=` are owed to: rooms, hosts, roles, sources, pins."""
        by, shop = await self._member(request), path_id(request, "shop")
        if not by.runs(shop):
            raise Denied("forbidden")
        await self._services.catalog.shop(shop)
        since, until = time_ms(request, "from"), time_ms(request, "to")
        read = partial(attribution.of_shop, shop=shop, since=since, until=until)
        return answer(await self._services.db.read(read, patient=True))

    async def audit(self, request: Request) -> Response:
        """The invariants and their sums, for admins."""
        if not (await self._member(request)).admin:
            raise Denied("forbidden")
        return answer(await self._audit())

    # ── payments ──────────────────────────────────────────────────────────────────────────

    async def list_providers(self, _request: Request) -> Response:
        """The names of the payment providers here, the default one first."""
        return answer({"items": self._services.payments.names, "next": None})

    async def take_webhook(self, request: Request) -> Response:
        """A provider's signed word; answered 200 only after it is committed."""
        provider, content = path_id(request, "provider"), await body_bytes(request)
        await self._settle(provider, request.headers, content)
        return answer({})

    async def succeed(self, request: Request) -> Response:
        """The sandbox's pay button."""
        return await self._press(request, self._services.payments.succeed)

    async def fail(self, request: Request) -> Response:
        """The sandbox's decline button."""
        return await self._press(request, self._services.payments.fail)

    async def _press(
        self, request: Request, button: Callable[[str], Awaitable[tuple[dict[str, str], bytes]]]
    ) -> Response:
        by, payment = await self._member(request), path_id(request, "payment")
        owned = await self._services.payments.show(payment)
        if not by.admin and owned.buyer != by.id:
            raise Invalid("not_found")
        headers, content = await button(payment)
        await self._settle("sandbox", headers, content)
        return answer({"payment": (await self._services.payments.show(payment)).payment})

    async def _settle(self, provider: str, headers: Mapping[str, str], content: bytes) -> None:
        webhook = self._services.payments.verify(provider, headers, content)
        if webhook is not None:
            await self._services.orders.settle(webhook)

    async def give_token(self, request: Request) -> Response:
        """A viewer's token for whoever asks, good for a day."""
        wanted = await body(request, TokenBody)
        auth = self._services.auth
        token = auth.issue(f"u-{new_id()}", name=wanted.name, roles=[], ttl_s=SANDBOX_TOKEN_TTL_S)
        you = await auth.read(token)
        whom = {"id": you.id, "name": you.name, "roles": []}
        return answer({"token": token, "you": whom, "expires_at": you.expires_at}, 201)

    async def _member(self, request: Request) -> Member:
        return await member(request, self._services.auth)

"""The app: every route of the house, put together once.

Guarded from outside by `Guard`: security headers on every answer, and a fault of ours told as
`internal` without a word of what it was.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

import structlog
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from liveroom.commands import Commands, Services
from liveroom.errors import LiveroomError
from liveroom.web.answers import internal, on_refusal, on_status
from liveroom.web.docs import Docs
from liveroom.web.health import Health, Numbers, Readiness
from liveroom.web.live import Live
from liveroom.web.pages import POLICY, Pages
from liveroom.web.rates import Rates
from liveroom.web.selling import Selling
from liveroom.web.shops import Shops
from liveroom.web.socket import Socket
from liveroom.web.stream import Stream
from liveroom.wire.hub import Hub

HEADERS: Final = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
}

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Web:
    """What the app is built from: the services, the hub, and the settings it must know.

    `readiness` tells each check's state (see `health.Readiness`), `audit` runs the audit,
    `allowed_origins` may use the API from pages of other hosts, `message_rate_max` is
    commands a second of one connection (0: no limit), `ping_interval_s` is how long a reader
    of events may take nothing before it is asked for, `return_within_ms` over how long they
    are asked to return after a stop, `numbers` makes the text of `/metrics` (None: of this
    process alone).
    """

    services: Services
    hub: Hub
    readiness: Readiness
    audit: Callable[[], Awaitable[Any]]
    allowed_origins: tuple[str, ...] = ()
    sandbox: bool = False
    message_rate_max: float = 0.0
    ping_interval_s: float = 25.0
    return_within_ms: int = 5000
    numbers: Numbers | None = None


def build(web: Web) -> Starlette:
    """The app with every route.

    It owns the event streams alone: `app.state.close_streams()` ends them, so that a server
    that stops need not wait for their readers.
    """
    services, commands = web.services, Commands(web.services)
    stream = Stream(
        services, web.hub, interval_s=web.ping_interval_s, return_within_ms=web.return_within_ms
    )
    rates = Rates(services.clock, web.message_rate_max)
    api = [
        *Shops(services).routes(),
        *Live(services, commands, rates).routes(),
        *Selling(services, audit=web.audit, sandbox=web.sandbox).routes(),
        *stream.routes(),
        *Health(web.readiness, web.numbers).routes(),
    ]
    routes = [
        # First, since thousands may connect at once and each route before costs all of them.
        *Socket(services, web.hub, commands, message_rate_max=web.message_rate_max).routes(),
        *api,
        *Docs(api, sandbox=web.sandbox).routes(),
        *Pages().routes(),
    ]
    cors = Middleware(
        CORSMiddleware,
        allow_origins=list(web.allowed_origins),
        allow_methods=["GET", "POST", "PATCH"],
        allow_headers=["authorization", "content-type", "idempotency-key"],
    )
    app = Starlette(
        routes=routes,
        middleware=[Middleware(Guard), *([cors] if web.allowed_origins else [])],
        exception_handlers={LiveroomError: on_refusal, HTTPException: on_status},
    )
    app.state.close_streams = stream.close
    return app


class Guard:
    """Puts the security headers on every answer, and answers faults of ours."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; HTTP alone is guarded."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def send_guarded(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            await self._app(scope, receive, send_guarded)
        except Exception:
            log.exception("request_failed", path=scope["path"])
            if started:
                raise  # the answer has begun: cutting the connection is all that is left
            await internal()(scope, receive, send_guarded)

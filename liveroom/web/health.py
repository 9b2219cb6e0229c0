"""Is the process alive, can it serve, and what are its numbers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from liveroom.metrics import counters
from liveroom.web.answers import answer

METRICS: Final = "text/plain; version=0.0.4; charset=utf-8"

Readiness = Callable[[], Awaitable[Mapping[str, str]]]
"""What could keep the node from serving: each check's name with `ok`, or what is wrong."""

Numbers = Callable[[], Awaitable[bytes]]
"""Metrics as Prometheus text."""


class Health:
    """The routes `/livez`, `/readyz`, `/healthz` and `/metrics`.

    `numbers` makes the text of `/metrics`; without it, it is of this process.
    """

    def __init__(self, readiness: Readiness, numbers: Numbers | None = None) -> None:
        self._readiness = readiness
        self._numbers = numbers

    def routes(self) -> list[Route]:
        """The routes, for the app."""
        return [
            Route("/livez", self.alive, methods=["GET"]),
            Route("/readyz", self.ready, methods=["GET"]),
            Route("/healthz", self.ready, methods=["GET"]),
            Route("/metrics", self.metrics, methods=["GET"]),
        ]

    async def alive(self, _request: Request) -> Response:
        """200 for as long as the loop runs."""
        return PlainTextResponse("ok\n", headers={"cache-control": "no-store"})

    async def ready(self, request: Request) -> Response:
        """200 when every check is ok, else 503; `?verbose` tells each."""
        checks = await self._readiness()
        fine = all(said == "ok" for said in checks.values())
        status = 200 if fine else 503
        if "verbose" in request.query_params:
            return answer({"ready": fine, "checks": dict(checks)}, status)
        said = "ok\n" if fine else "not ready\n"
        return PlainTextResponse(said, status, headers={"cache-control": "no-store"})

    async def metrics(self, _request: Request) -> Response:
        """Every metric as Prometheus text."""
        told = counters.exposition() if self._numbers is None else await self._numbers()
        return Response(told, headers={"content-type": METRICS})

"""`/openapi.json`, `/asyncapi.json` and one page for people, `/docs`, all made once."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import BaseRoute, Route

from liveroom.errors import FAMILIES
from liveroom.web.schemas import asyncapi, openapi


class Docs:
    """The routes of the contract's documents, for an app with these routes."""

    def __init__(self, routes: Iterable[BaseRoute], *, sandbox: bool) -> None:
        over_http, over_socket = openapi(routes, sandbox=sandbox), asyncapi()
        self._openapi = msgspec.json.encode(over_http)
        self._asyncapi = msgspec.json.encode(over_socket)
        self._page = _page(over_http, over_socket)

    def routes(self) -> list[Route]:
        """The routes, for the app."""
        return [
            Route("/openapi.json", self.openapi, methods=["GET"], include_in_schema=False),
            Route("/asyncapi.json", self.asyncapi, methods=["GET"], include_in_schema=False),
            Route("/docs", self.docs, methods=["GET"], include_in_schema=False),
        ]

    async def openapi(self, _request: Request) -> Response:
        """The HTTP routes as OpenAPI 3.1."""
        return Response(self._openapi, media_type="application/json")

    async def asyncapi(self, _request: Request) -> Response:
        """The WebSocket's commands and events as AsyncAPI 3.0."""
        return Response(self._asyncapi, media_type="application/json")

    async def docs(self, _request: Request) -> Response:
        """The same for people: routes, commands, events and errors in four tables."""
        return HTMLResponse(self._page)


def _page(over_http: dict[str, Any], over_socket: dict[str, Any]) -> str:
    routes = [
        (method.upper(), path, operation["summary"])
        for path, operations in over_http["paths"].items()
        for method, operation in operations.items()
    ]
    messages = over_socket["components"]["messages"]
    commands = [
        (n, m["x-who"], _fields(m, over_socket), m["summary"])
        for n, m in messages.items()
        if "x-who" in m
    ]
    events = [
        (n, m["x-delivery"], _fields(m, over_socket))
        for n, m in messages.items()
        if "x-delivery" in m
    ]
    errors = [
        (code, family.__name__, str(known.http), known.message)
        for family in FAMILIES
        for code, known in family.codes.items()
    ]
    return "\n".join(
        (
            '<!doctype html><html lang="en"><meta charset="utf-8"><title>liveroom: the API</title>',
            '<meta name="viewport" content="width=device-width">',
            '<link rel="stylesheet" href="/plain/plain.css"><main><h1>liveroom: the API</h1>',
            '<p>For machines: <a href="/openapi.json">openapi.json</a>,',
            '<a href="/asyncapi.json">asyncapi.json</a>.</p>',
            _table("HTTP", ("method", "route", "what"), routes),
            _table("Commands", ("command", "who", "data", "what"), commands),
            _table("Events", ("event", "delivery", "data"), events),
            _table("Errors", ("code", "family", "HTTP", "message"), errors, anchors=True),
            "</main></html>",
        )
    )


def _fields(message: dict[str, Any], document: dict[str, Any]) -> str:
    data = message["payload"]["properties"]["data"]
    known = document["components"]["schemas"][data["$ref"].rpartition("/")[2]]
    required = known.get("required", ())
    fields = known.get("properties", {})
    return ", ".join(name if name in required else f"{name}?" for name in fields)


def _table(
    title: str, heads: tuple[str, ...], rows: Iterable[tuple[str, ...]], *, anchors: bool = False
) -> str:
    lines = [f"<h2>{title}</h2><table><tr>", *(f"<th>{head}</th>" for head in heads), "</tr>"]
    for row in rows:
        anchor = f' id="{escape(row[0])}"' if anchors else ""
        cells = "".join(f"<td>{escape(cell)}</td>" for cell in row)
        lines.append(f"<tr{anchor}>{cells}</tr>")
    return "".join([*lines, "</table>"])

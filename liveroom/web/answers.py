"""Answers over HTTP: JSON, and refusals as problem+json (RFC 9457) with the code of the wire."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from liveroom import errors
from liveroom.errors import DENIED, INVALID, PROBLEM, REFUSED, UNAVAILABLE, LiveroomError
from liveroom.metrics import counters

RETRY_AFTER_S: Final = 1

_BY_STATUS: Final = {404: "not_found", 405: "not_found", 413: "bad_frame", 429: "rate_limited"}


def answer(thing: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """`thing` as JSON; never cached, since it may be one member's own."""
    headers = {"cache-control": "no-store"} | (headers or {})
    content = msgspec.json.encode(thing)
    return Response(content, status, headers, media_type="application/json")


def problem(refusal: LiveroomError) -> Response:
    """The refusal as problem+json, with what a client must know to try again."""
    counters.count("refusals", refusal.code)
    headers = {"cache-control": "no-store"}
    if refusal.http == 401:
        headers["www-authenticate"] = "Bearer"
    if refusal.retry:
        after_s = -(-(refusal.retry_after_ms or RETRY_AFTER_S * 1000) // 1000)
        headers["retry-after"] = str(after_s)
    return _problem(refusal.http, refusal.on_wire(), headers)


def internal() -> Response:
    """A fault of ours: 500, told without a word of what it was."""
    counters.count("refusals", "internal")
    wire = {"code": "internal", "message": UNAVAILABLE["internal"].message, "retry": True}
    return _problem(500, wire, {"cache-control": "no-store"})


async def on_refusal(_request: Request, fault: Exception) -> Response:
    """The exception handler of `LiveroomError`."""
    if not isinstance(fault, LiveroomError):
        raise fault
    return problem(fault)


async def on_status(_request: Request, fault: Exception) -> Response:
    """The exception handler of Starlette's own refusals: no such route, no such method."""
    if not isinstance(fault, HTTPException):
        raise fault
    code = _BY_STATUS.get(fault.status_code, "bad_argument")
    known = {**REFUSED, **INVALID, **DENIED, **UNAVAILABLE}[code]
    wire = {"code": code, "message": known.message, "retry": False}
    return _problem(fault.status_code, wire, dict(fault.headers or {}))


def _problem(status: int, wire: dict[str, Any], headers: dict[str, str]) -> Response:
    body = msgspec.json.encode(errors.problem(status, wire))
    return Response(body, status, headers, media_type=PROBLEM)

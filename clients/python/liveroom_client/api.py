"""The HTTP side of the server, for seeding and administration: plain requests, typed errors.

Each request runs in a thread of its own by the standard library; this is for tens of
requests a second, not for load.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode
from urllib.request import ProxyHandler, Request, build_opener

from liveroom_client.errors import ConnectionLost, from_wire

TIMEOUT_S = 10.0
# Servers are reached directly, as the WebSocket is.
_opener = build_opener(ProxyHandler({}))


class Api:
    """The HTTP routes under one server, with one token."""

    def __init__(self, url: str, token: str | None = None) -> None:
        self.url = url.rstrip("/")
        self._token = token

    async def get(self, path: str, **query: Any) -> Any:
        """The JSON of a GET; lists are `{"items": [...], "next": cursor or null}`."""
        return await self.request("GET", f"{path}?{urlencode(query)}" if query else path)

    async def post(self, path: str, body: Any = None, *, key: str | None = None) -> Any:
        """The JSON of a POST; `key` is sent as `Idempotency-Key`."""
        return await self.request("POST", path, {} if body is None else body, key=key)

    async def command(self, room: str, cmd: str, *, key: str | None = None, **data: Any) -> Any:
        """Run a room's command over HTTP; its `ok` object."""
        return await self.post(f"/v1/rooms/{room}/commands", {"cmd": cmd, "data": data}, key=key)

    async def request(
        self, method: str, path: str, body: Any = None, *, key: str | None = None
    ) -> Any:
        """One request.

        Raises:
            LiveroomError: the server's refusal, read from its problem+json.
            ConnectionLost: no answer; it may have been done.
        """
        return await asyncio.to_thread(self._request, method, path, body, key)

    def _request(self, method: str, path: str, body: Any, key: str | None) -> Any:
        headers = {"Accept": "application/json"}
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token}"
        if key is not None:
            headers["Idempotency-Key"] = key
        content = None
        if body is not None:
            headers["Content-Type"] = "application/json"
            content = json.dumps(body).encode()
        request = Request(self.url + path, content, headers, method=method)  # noqa: S310
        try:
            with _opener.open(request, timeout=TIMEOUT_S) as answer:
                return _json(answer.read())
        except HTTPError as refusal:
            with refusal:
                problem = _json(refusal.read())
            if not isinstance(problem, dict) or "code" not in problem:
                problem = {"code": f"http_{refusal.code}", "retry": refusal.code >= 500}
            raise from_wire(problem) from None
        except (URLError, TimeoutError, ConnectionError) as fault:
            raise ConnectionLost(f"{self.url}: {fault}") from fault


def _json(content: bytes) -> Any:
    try:
        return json.loads(content) if content else None
    except ValueError:
        return content.decode(errors="replace")

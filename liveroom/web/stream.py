"""`/v1/rooms/{room}/stream`: the room as server-sent events, where WebSocket is blocked.

The same arrays of messages, one an event, the first being the answer to the join (`re` 0).
It is read with fetch, so that the token is a header. Commands go by HTTP beside it.

A stream has no pong: a reader is there as long as it takes what is sent.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Final

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from liveroom.commands import Services
from liveroom.errors import Invalid
from liveroom.events import Position
from liveroom.metrics import counters
from liveroom.web.live import parse_since
from liveroom.web.reading import caller, path_id
from liveroom.web.seats import close_when_expired, take_seat
from liveroom.wire.codec import Format, close_reason
from liveroom.wire.http import CUT
from liveroom.wire.hub import Hub
from liveroom.wire.outbox import Seat, StreamLink
from liveroom.wire.protocol import NO_PONG, SHUTDOWN

SILENT_MAX: Final = 2
HEADERS: Final = {
    "cache-control": "no-store",
    "x-accel-buffering": "no",  # nginx would gather events until they are late
}


class Stream:
    """The route of the event stream; who takes nothing for two intervals is cut."""

    def __init__(
        self, services: Services, hub: Hub, *, interval_s: float, return_within_ms: int
    ) -> None:
        self._services = services
        self._hub = hub
        self._interval_s = interval_s
        self._return_within_ms = return_within_ms
        self._links: set[StreamLink] = set()

    def routes(self) -> list[Route]:
        """The route, for the app."""
        return [Route("/v1/rooms/{room}/stream", self.serve, methods=["GET"])]

    def close(self) -> None:
        """End every stream, each with a time of its own to return at: the server is to stop."""
        for link in list(self._links):
            after_ms = random.randrange(max(1, self._return_within_ms))
            link.close(SHUTDOWN, close_reason(after_ms))

    async def serve(self, request: Request) -> Response:
        """Events of the room as they come; `?since=<epoch>:<seq>` resumes, `?name=` for guests."""
        room = path_id(request, "room")
        member = await caller(request, self._services.auth)
        if member.guest:
            member = self._services.auth.guest(request.query_params.get("name"))
        link = StreamLink()
        seat = await take_seat(
            self._services,
            self._hub,
            room,
            link,
            Format.STREAM,
            member=member,
            re=0,
            since=_since(request),
        )
        timer = close_when_expired(self._services, member, link)
        self._links.add(link)
        return _Frames(link, lambda: self._end(link, seat, timer), self._interval_s)

    def _end(self, link: StreamLink, seat: Seat, timer: asyncio.TimerHandle | None) -> None:
        self._links.discard(link)
        if timer is not None:
            timer.cancel()
        self._hub.leave(seat)
        link.close(SHUTDOWN)


class _Frames(StreamingResponse):
    """The frames of a link, for as long as both sides want; `end` is called in any case."""

    def __init__(self, link: StreamLink, end: Callable[[], None], interval_s: float) -> None:
        super().__init__(aiter(link), headers=HEADERS, media_type="text/event-stream")
        self._link = link
        self._end = end
        self._interval_s = interval_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Stream until the client goes, the link is closed, or the server stops."""
        watch = asyncio.create_task(self._watch(scope["extensions"][CUT]), name="stream-watch")
        try:
            await super().__call__(scope, receive, send)
        finally:
            watch.cancel()
            self._end()

    async def _watch(self, cut: Callable[[], None]) -> None:
        """End a reader that takes nothing, and let no proxy end a quiet stream."""
        link, taken, silent = self._link, 0, 0
        while silent < SILENT_MAX:
            await asyncio.sleep(self._interval_s)
            silent = silent + 1 if link.buffered and link.taken == taken else 0
            taken = link.taken
            if not link.paused:  # a paused one is not quiet, and would gather them without end
                link.write_frame(b":\n\n")
        counters.count("closes", str(NO_PONG))
        link.close(NO_PONG)
        cut()  # the answer hangs in a write that nobody will ever take


def _since(request: Request) -> Position | None:
    try:
        return parse_since(request.query_params.get("since"))
    except Invalid:
        return None  # whoever returns with an unreadable position gets the snapshot

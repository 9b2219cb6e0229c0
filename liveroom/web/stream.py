"""`/v1/rooms/{room}/stream`: the room as server-sent events, where WebSocket is blocked.

The same arrays of messages, one an event, the first being the answer to the join (`re` 0).
It is read with fetch, so that the token is a header. Commands go by HTTP beside it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from liveroom.commands import Services
from liveroom.errors import Invalid
from liveroom.events import Position
from liveroom.web.live import parse_since
from liveroom.web.reading import caller, path_id
from liveroom.web.seats import close_when_expired, take_seat
from liveroom.wire.codec import Format
from liveroom.wire.hub import Hub
from liveroom.wire.outbox import Seat, StreamLink

QUIET_S: Final = 15.0
SHUTDOWN: Final = 4000
HEADERS: Final = {
    "cache-control": "no-store",
    "x-accel-buffering": "no",  # nginx would gather events until they are late
}


class Stream:
    """The route of the event stream."""

    def __init__(self, services: Services, hub: Hub) -> None:
        self._services = services
        self._hub = hub
        self._links: set[StreamLink] = set()

    def routes(self) -> list[Route]:
        """The route, for the app."""
        return [Route("/v1/rooms/{room}/stream", self.serve, methods=["GET"])]

    def close(self) -> None:
        """End every stream: the server is about to stop."""
        for link in list(self._links):
            link.close(SHUTDOWN)

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
        return _Frames(link, lambda: self._end(link, seat, timer), self._links)

    def _end(self, link: StreamLink, seat: Seat, timer: asyncio.TimerHandle | None) -> None:
        self._links.discard(link)
        if timer is not None:
            timer.cancel()
        self._hub.leave(seat)
        link.close(SHUTDOWN)


class _Frames(StreamingResponse):
    """The frames of a link, for as long as both sides want; `end` is called in any case."""

    def __init__(self, link: StreamLink, end: Callable[[], None], links: set[StreamLink]) -> None:
        super().__init__(aiter(link), headers=HEADERS, media_type="text/event-stream")
        links.add(link)
        self._link = link
        self._end = end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Stream until the client goes, the link is closed, or the server stops."""
        quiet = asyncio.create_task(_keep_open(self._link), name="stream-quiet")
        try:
            await super().__call__(scope, receive, send)
        finally:
            quiet.cancel()
            self._end()


async def _keep_open(link: StreamLink) -> None:
    """A comment now and then, so that proxies do not end a quiet stream."""
    while True:
        await asyncio.sleep(QUIET_S)
        if not link.paused:  # a paused one is not quiet, and would gather them without end
            link.write_frame(b":\n\n")


def _since(request: Request) -> Position | None:
    try:
        return parse_since(request.query_params.get("since"))
    except Invalid:
        return None  # whoever returns with an unreadable position gets the snapshot

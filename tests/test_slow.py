"""Slow viewers on real sockets: they keep their position, and nobody else waits for them."""

from __future__ import annotations

import asyncio
import struct
from contextlib import ExitStack
from typing import Any

import orjson
import pytest
from tape import Store, Who, nothing
from test_protocol import CLOSE, PING, TEXT, Client, served, until

from liveroom.events import Position
from liveroom.text import MESSAGE_MAX
from liveroom.wire.codec import Format
from liveroom.wire.door import Limits
from liveroom.wire.hub import Hub
from liveroom.wire.outbox import Seat


class Room:
    """An application with one room and its hub, on the server's own loop."""

    def __init__(self, **options: Any) -> None:
        self.store = Store()
        self.options = options
        self.hub: Hub | None = None
        self.loop: asyncio.AbstractEventLoop | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        if self.hub is None:
            self.hub = self.store.hub(**self.options)
            self.loop = asyncio.get_running_loop()
        seat = Seat(scope["extensions"]["liveroom.link"], Format.JSON, member=Who(str(id(scope))))
        had = dict(scope["headers"]).get(b"x-had")
        since = None if had is None else Position("e1", int(had))
        await self.hub.join("r1", seat, re=1, since=since, you={}, own=nothing)
        while (await receive())["type"] == "websocket.receive":
            pass

    def notice(self, count: int, size: int, letter: str = "x") -> None:
        """Publish so many logged events, one each turn of the loop."""

        def publish() -> None:
            assert self.hub is not None
            self.hub.deliver("r1", "e1", [self.store.notice(letter * size)])

        assert self.loop is not None
        for _ in range(count):
            self.loop.call_soon_threadsafe(publish)

    def watching(self) -> int:
        return self.hub.viewers("r1") if self.hub is not None else 0


def seqs(client: Client, last: int) -> list[int]:
    """The positions of the logged events a client reads, until it has read the last."""
    seen: list[int] = []
    while not seen or seen[-1] < last:
        opcode, payload = client.frame()
        assert opcode in {TEXT, PING}
        if opcode == TEXT:
            seen += [one["seq"] for one in orjson.loads(payload) if "seq" in one]
    return seen


def test_a_viewer_that_stops_reading_misses_nothing_when_it_reads_on():
    """Others have everything at once; the slow one is caught up, in order and once."""
    room = Room()
    with ExitStack() as stack:
        here = stack.enter_context(served(app=room))
        slow, ann = (
            stack.enter_context(Client(here.port, receive_bytes=size)) for size in (4096, 0)
        )
        assert slow.open() == ann.open() == 101
        until(lambda: room.watching() == 2)
        room.notice(600, 1000)
        assert seqs(ann, 600) == [*range(1, 601)]
        assert room.hub is not None
        until(lambda: room.hub.counts.paused)
        assert seqs(slow, 600) == [*range(1, 601)]
        room.notice(1, 10)
        assert seqs(slow, 601) == seqs(ann, 601) == [601]


def test_a_viewer_whose_position_left_the_ring_is_told_to_return():
    """What can no longer be caught up is closed 4002, never skipped."""
    room = Room(ring_max=50)
    with ExitStack() as stack:
        here = stack.enter_context(served(app=room))
        slow = stack.enter_context(Client(here.port, receive_bytes=4096))
        ann = stack.enter_context(Client(here.port))
        assert slow.open() == ann.open() == 101
        until(lambda: room.watching() == 2)
        for end in range(40, 1001, 40):
            room.notice(40, 1000)
            assert seqs(ann, end) == [*range(end - 39, end + 1)]
        seen: list[int] = []
        while (got := slow.frame())[0] != CLOSE:
            seen += [one["seq"] for one in orjson.loads(got[1]) if "seq" in one]
        assert struct.unpack("!H", got[1][:2])[0] == 4002
        assert "after_ms" in orjson.loads(got[1][2:])
        assert seen == [*range(1, len(seen) + 1)]


@pytest.mark.parametrize(("letter", "in_answer"), [("x", 800), ("裤", 500)])
def test_one_who_lacks_much_is_not_taken_for_slow(letter, in_answer):
    """A returner gets what it lacks however slowly it reads: most in the answer, the rest behind it.

    The answer stays below the megabyte that WebSocket clients usually take.
    """
    room = Room()
    with ExitStack() as stack:
        here = stack.enter_context(served(app=room))
        ann = stack.enter_context(Client(here.port))
        assert ann.open() == 101
        until(lambda: room.watching() == 1)
        room.notice(800, MESSAGE_MAX, letter)
        assert seqs(ann, 800) == [*range(1, 801)]

        back = stack.enter_context(Client(here.port, receive_bytes=4096))
        assert back.open("x-had: 0") == 101
        opcode, payload = back.frame()
        assert opcode == TEXT
        (answer,) = orjson.loads(payload)
        assert answer["ok"]["mode"] == "resumed"
        told = [event["seq"] for event in answer["ok"]["events"]]
        assert answer["ok"]["seq"] == told[-1] >= in_answer
        assert len(payload) < 1 << 20
        assert told + (seqs(back, 800) if told[-1] < 800 else []) == [*range(1, 801)]
        room.notice(1, 10)
        assert seqs(back, 801) == seqs(ann, 801) == [801]


def test_viewers_that_never_read_change_nothing_for_the_rest():
    """They hold a bounded number of bytes each, and are gone once their pong is due."""
    room = Room()
    limits = Limits(close_within_s=0.5)
    with ExitStack() as stack:
        here = stack.enter_context(
            served(limits, app=room, ws_ping_interval=3.0, ws_ping_timeout=2.0)
        )
        stuck = [stack.enter_context(Client(here.port, receive_bytes=4096)) for _ in range(20)]
        ann = stack.enter_context(Client(here.port))
        assert {one.open() for one in (*stuck, ann)} == {101}
        until(lambda: room.watching() == 21)
        links = [seat.link for seat in room.hub._rooms["r1"].seats]
        for end in range(200, 1001, 200):
            room.notice(200, 1000)
            assert seqs(ann, end) == [*range(end - 199, end + 1)]
        assert max(link.buffered for link in links) < limits.high_water + 64 * 1024
        until(lambda: room.watching() <= 1)

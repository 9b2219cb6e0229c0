"""Viewers that never read a byte: they cost a bounded number of bytes and nobody else anything.

`LIVEROOM_FAULT_STUCK` says how many; `make faults` takes a thousand.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from liveroom.ids import new_id
from liveroom.text import MESSAGE_MAX
from liveroom.wire.outbox import OUTBOX_BYTES_MAX
from tests.crowd import Viewer, agree, guests, host, staying, until
from tests.live import Live, serving

STUCK = int(os.environ.get("LIVEROOM_FAULT_STUCK", "100"))
READING = 10
SEND_BYTES = 65_536
EVENTS = 800
"""Of half a KiB each: more than process and kernel may keep for one viewer."""
NEVER_PINGED = "3600"
OTHER_MEMORY_MAX = 48 << 20
"""What the server may need meanwhile for all the rest: rings, stores, caches."""


@pytest.fixture
def server(tmp_path, request) -> Iterator[Live]:
    flags = ("--message-rate-max", "0", "--connections-per-address-max", "0")
    flags += ("--handshakes-per-s-max", "0", "--socket-send-bytes", str(SEND_BYTES))
    flags += ("--ping-interval-s", request.param)
    with serving(tmp_path / "data", *flags, stock=10_000) as live:
        yield live


def _take_a_seat(server: Live, token: str | None = None) -> socket.socket:
    """A socket that joins, and reads no more from then on."""
    address = urlsplit(server.url)
    one = socket.socket()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    one.connect((address.hostname, address.port))
    one.sendall(
        f"GET /ws/r1 HTTP/1.1\r\nHost: {address.netloc}\r\nUpgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
    )
    assert one.recv(4096).startswith(b"HTTP/1.1 101")
    data = {} if token is None else {"token": token}
    join = json.dumps({"id": 0, "cmd": "room.join", "data": data}).ljust(126).encode()
    one.sendall(struct.pack("!BBH4x", 0x81, 0xFE, len(join)) + join)
    return one


def _memory(server: Live) -> int:
    assert server.process is not None
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) * 1024


def _queued_by_kernel(server: Live) -> list[int]:
    """For each connection of the server's, the bytes the kernel keeps to be sent."""
    port = f"{urlsplit(server.url).port:04X}"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return [int(row[4].split(":")[0], 16) for row in rows if row[1].endswith(f":{port}")]


def _watching(viewers: list[Viewer], count: int) -> bool:
    return all(one.state["viewers.counted"]["viewers"] == count for one in viewers)


@pytest.mark.parametrize("server", ["6"], indirect=True)
def test_viewers_that_never_read_are_bounded_and_closed(server):
    """The others get every event on the connection they had; the stuck ones end by themselves."""

    async def story() -> None:
        mia, viewers = host(server), guests(server, READING)
        everyone = [mia, *viewers]
        with ExitStack() as stack:
            async with staying(*everyone):
                before = _memory(server)
                for _ in range(STUCK):
                    stack.enter_context(await asyncio.to_thread(_take_a_seat, server))
                await until(lambda: _watching(viewers, STUCK + len(everyone)))
                for number in range(EVENTS):
                    text = f"{number} ".ljust(MESSAGE_MAX, "x")
                    await mia.do("notice.post", text=text)
                await until(lambda: all(len(one.texts) == EVENTS for one in everyone))

                queued = _queued_by_kernel(server)
                assert max(queued) > 0
                assert max(queued) <= 2 * SEND_BYTES
                assert _memory(server) - before <= STUCK * OUTBOX_BYTES_MAX + OTHER_MEMORY_MAX

                await until(lambda: _watching(viewers, len(everyone)))
                await mia.do("notice.post", text="the end")
                await until(lambda: all(one.texts[-1] == "the end" for one in viewers))
            agree(everyone)
            assert not any(one.ends for one in everyone), "a viewer who reads was closed"

    asyncio.run(asyncio.wait_for(story(), 120))


@pytest.mark.parametrize("server", [NEVER_PINGED], indirect=True)
def test_a_seat_that_holds_too_many_bytes_is_closed(server):
    """What is a member's alone cannot be left out: past the hard limit the seat is closed, 4001."""

    async def story() -> None:
        ann, watching = Viewer(server, "ann"), Viewer(server, "watching", guest=True)
        with ExitStack() as stack:
            async with staying(ann, watching):
                stack.enter_context(await asyncio.to_thread(_take_a_seat, server, ann.token))
                await until(lambda: _watching([watching], 3))
                while not _watching([watching], 2):
                    lines = [{"sku": "s1", "qty": 1}]
                    await ann.surely("order.place", order=new_id(), lines=lines)
            assert not ann.ends, "her other connection reads, and stays"
            assert not watching.ends

    asyncio.run(asyncio.wait_for(story(), 120))

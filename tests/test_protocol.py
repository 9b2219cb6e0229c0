"""The two protocols on a real port: what is refused, what is bounded, how a connection ends."""

from __future__ import annotations

import asyncio
import base64
import gc
import json
import os
import select
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Self

import pytest
import uvicorn

from liveroom.metrics import counters
from liveroom.wire import codec
from liveroom.wire.codec import Format
from liveroom.wire.door import Door, Limits
from liveroom.wire.http import RoomHttp
from liveroom.wire.protocol import MESSAGE_BYTES_MAX, RoomSocket, protocols

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
RETRY_AFTER = {"1", "2", "3"}
"""Whole seconds, as the header has them; the door draws one of these."""


class Echo:
    """An application that answers through the link, and does what some messages ask."""

    def __init__(self) -> None:
        self.links: list[RoomSocket] = []
        self.ended: list[RoomSocket] = []
        self.told: list[str] = []
        self.may_answer = threading.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await self._http(send)
            return
        await receive()
        await send({"type": "websocket.accept"})
        link = scope["extensions"]["liveroom.link"]
        link.owner = Owner(self.told)
        self.links.append(link)
        link.converse(Talk(self, link))

    async def _http(self, send: Any) -> None:
        head = {
            "type": "http.response.start",
            "status": 200,
            "headers": [(b"content-length", b"2")],
        }
        await send(head)
        await send({"type": "http.response.body", "body": b"ok"})


class Talk:
    """One connection's part of it."""

    def __init__(self, app: Echo, link: RoomSocket) -> None:
        self.app, self.link = app, link

    async def take(self, said: Any) -> None:
        if said == "slow":
            self.app.told.append("running")
            await asyncio.to_thread(self.app.may_answer.wait, 8)
        if said == "leave":
            self.link.close(4002)
        else:
            payload = said.encode() if isinstance(said, str) else said
            fmt = Format.JSON if isinstance(said, str) else Format.MSGPACK
            self.link.write_frame(codec.frame(payload, fmt))

    def on_end(self) -> None:
        self.app.ended.append(self.link)


class Owner:
    def __init__(self, told: list[str]) -> None:
        self.told = told

    def on_pause(self) -> None:
        self.told.append("pause")

    def on_resume(self) -> None:
        self.told.append("resume")

    def on_queue(self, descriptor: int) -> None:
        """What is told of queues is in the tests of flushes."""

    def on_lost(self) -> None:
        self.told.append("lost")


class Served:
    def __init__(self, app: Echo, door: Door, server: uvicorn.Server, port: int) -> None:
        self.app, self.door, self.server, self.port = app, door, server, port
        self.loop: asyncio.AbstractEventLoop | None = None

    def soon(self, what: Callable[[], Any]) -> None:
        assert self.loop is not None
        self.loop.call_soon_threadsafe(what)


@contextmanager
def served(limits: Limits | None = None, app: Any = None, **options: Any) -> Iterator[Served]:
    """A uvicorn server with our protocols on a free port, in a thread of its own."""
    door, app = Door(limits or Limits()), app or Echo()
    http, websocket = protocols(door)
    config = uvicorn.Config(
        app,
        http=http,  # type: ignore[arg-type]
        ws=websocket,  # type: ignore[arg-type]
        loop="uvloop",
        lifespan="off",
        log_config=None,
        access_log=False,
        ws_per_message_deflate=False,
        timeout_graceful_shutdown=5,
        **{"ws_max_size": MESSAGE_BYTES_MAX, "ws_ping_interval": 25, "ws_ping_timeout": 25}
        | options,
    )
    server = uvicorn.Server(config)
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16 * 1024)
    running = Served(app, door, server, listener.getsockname()[1])

    async def serve() -> None:
        running.loop = asyncio.get_running_loop()
        await server.serve(sockets=[listener])

    factory = config.get_loop_factory()

    def body() -> None:
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(serve())

    thread = threading.Thread(target=body)
    thread.start()
    try:
        until(lambda: server.started)
        yield running
    finally:
        if isinstance(app, Echo):
            app.may_answer.set()
        server.should_exit = True
        thread.join(10)
        listener.close()
        assert not thread.is_alive()


def until(fact: Callable[[], Any], within_s: float = 8) -> None:
    end = time.monotonic() + within_s
    while not fact():
        assert time.monotonic() < end, "this never became true"
        time.sleep(0.005)


class Client:
    """A raw WebSocket client that can break every rule."""

    def __init__(self, port: int, *, receive_bytes: int = 0, source: str = "") -> None:
        self.sock = socket.socket()
        if receive_bytes:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self.sock.settimeout(8)
        if source:
            self.sock.bind((source, 0))
        self.sock.connect(("127.0.0.1", port))
        self.file = self.sock.makefile("rb")
        self.port = port

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()
        self.sock.close()

    def open(self, *headers: str) -> int:
        """Send a handshake and return the status of its answer."""
        key = base64.b64encode(os.urandom(16)).decode()
        lines = [
            "GET /ws/r1 HTTP/1.1",
            f"Host: 127.0.0.1:{self.port}",
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            f"Sec-WebSocket-Key: {key}",
            *headers,
        ]
        self.sock.sendall("\r\n".join([*lines, "", ""]).encode())
        return self.status()

    def status(self) -> int:
        line = self.file.readline()
        self.headers: dict[str, str] = {}
        while (header := self.file.readline().strip()) != b"":
            name, _, value = header.decode().partition(":")
            self.headers[name.lower()] = value.strip()
        return int(line.split()[1])

    def send(self, opcode: int, payload: bytes = b"", *, fin: bool = True) -> None:
        self.sock.sendall(masked(opcode, payload, fin=fin))

    def frame(self) -> tuple[int, bytes]:
        """The next frame: its opcode and payload; (-1, b"") at the end of the stream."""
        head = self.file.read(2)
        if len(head) < 2:
            return -1, b""
        size = head[1]
        if size == 126:
            size = struct.unpack("!H", self.file.read(2))[0]
        elif size == 127:
            size = struct.unpack("!Q", self.file.read(8))[0]
        return head[0] & 15, self.file.read(size)

    def closed(self) -> tuple[int, bytes]:
        """The code and reason of the close frame, after which there is nothing."""
        while (got := self.frame())[0] not in {CLOSE, -1}:
            pass
        assert got[0] == CLOSE
        assert self.frame() == (-1, b"")
        return struct.unpack("!H", got[1][:2])[0], got[1][2:]


def masked(opcode: int, payload: bytes, *, fin: bool = True) -> bytes:
    first = (0x80 if fin else 0) | opcode
    if len(payload) < 126:
        head = struct.pack("!BB", first, 0x80 | len(payload))
    elif len(payload) < 65536:
        head = struct.pack("!BBH", first, 0x80 | 126, len(payload))
    else:
        head = struct.pack("!BBQ", first, 0x80 | 127, len(payload))
    return head + b"\0\0\0\0" + payload


def test_messages_come_back_through_the_link():
    """The connection itself stands in the scope, and writes whole frames."""
    with served() as here, Client(here.port) as ann:
        assert ann.open("Sec-WebSocket-Protocol: liveroom.v1.json") == 101
        for size in (0, 1, 125, 126, 65536):
            ann.send(TEXT, b"x" * size)
            assert ann.frame() == (TEXT, b"x" * size)
        ann.send(BINARY, b"\x80")
        assert ann.frame() == (BINARY, b"\x80")
        ann.send(PING, b"hey")
        assert ann.frame() == (PONG, b"hey")
        ann.send(CLOSE, struct.pack("!H", 1000))
        assert ann.closed() == (1000, b"")
        until(lambda: here.app.ended and here.door.connections == 0)
        assert here.app.told == ["lost"]


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        (None, 101),
        ("http://127.0.0.1:{port}", 101),
        ("https://127.0.0.1:{port}", 101),
        ("https://shop.example", 101),
        ("https://shop.example:444", 403),
        ("http://shop.example", 403),
        ("http://evil.example", 403),
        ("http://127.0.0.1:{port}.evil.example", 403),
        ("http://127.0.0.1", 403),
        ("null", 403),
        ("", 403),
        ("http://[", 403),
    ],
)
def test_the_origin_is_the_servers_own_or_allowed(served_with_origin, origin, status):
    """A page of another host cannot open a seat in its visitor's name."""
    port = served_with_origin.port
    with Client(port) as page:
        headers = [] if origin is None else [f"Origin: {origin.format(port=port)}"]
        assert page.open(*headers) == status


@pytest.fixture(scope="module")
def served_with_origin() -> Iterator[Served]:
    with served(Limits(allowed_origins=("https://shop.example",))) as here:
        yield here


def test_only_unknown_subprotocols_are_refused(served_with_origin):
    """None of the offered formats is ours: 400."""
    with Client(served_with_origin.port) as page:
        assert page.open("Sec-WebSocket-Protocol: chat, graphql-ws") == 400
    with Client(served_with_origin.port) as page:
        assert page.open("Sec-WebSocket-Protocol: chat, liveroom.v1.msgpack") == 101


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version: 13"], 101),
        (["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version: 8"], 426),
        (["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="], 426),
        (["Sec-WebSocket-Version: 13"], 400),
        (["Sec-WebSocket-Key: c2hvcnQ=", "Sec-WebSocket-Version: 13"], 400),
        (["Sec-WebSocket-Key: not base64", "Sec-WebSocket-Version: 13"], 400),
        (["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="] * 2 + ["Sec-WebSocket-Version: 13"], 400),
    ],
)
def test_a_handshake_is_a_handshake(served_with_origin, lines, status):
    """One key of 16 bytes and version 13 (RFC 6455, section 4.2.1); the answer proves the key."""
    with Client(served_with_origin.port) as page:
        start = ["GET /ws/r1 HTTP/1.1", "Host: x", "Connection: Upgrade", "Upgrade: websocket"]
        page.sock.sendall("\r\n".join([*start, *lines, "", ""]).encode())
        assert page.status() == status
        if status == 101:
            assert page.headers["sec-websocket-accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        elif status == 426:
            assert page.headers["sec-websocket-version"] == "13"


def test_headers_have_a_deadline_and_a_size():
    """A connection that stays silent, or never ends its headers, is closed."""
    with served(Limits(header_timeout_s=0.2, header_bytes_max=4096)) as here:
        with Client(here.port) as silent:
            assert silent.status() == 408
        with Client(here.port) as slow:
            slow.sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n")
            assert slow.status() == 408
        with Client(here.port) as endless:
            endless.sock.sendall(b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 1000)
            assert endless.status() == 431
        until(lambda: here.door.connections == 0)


def test_headers_that_trickle_have_the_same_size():
    """However small the pieces are in which they come, also as one line without an end."""
    with served(Limits(header_bytes_max=4096)) as here, Client(here.port) as trickling:
        trickling.sock.sendall(b"GET / HTTP/1.1\r\nX: ")
        for _ in range(42):
            trickling.sock.sendall(b"y" * 100)
        assert trickling.status() == 431


def test_a_body_that_comes_along_is_no_header():
    """A body in one write with its headers counts for nothing there, nor for the next request."""
    body = b"x" * 200_000
    head = f"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with served(Limits(header_bytes_max=4096)) as here, Client(here.port) as ann:
        for _ in range(3):
            ann.sock.sendall(head + body)
            assert ann.status() == 200
            assert ann.file.read(2) == b"ok"


CHUNKED = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "unit", [b"a: b\r\n", b"aaaaaa", b"a: bbb", b"\r\n"], ids=["lines", "name", "value", "empty"]
)
def test_what_comes_behind_a_body_has_the_size_of_headers(unit):
    """Trailers without end, in many lines or one, end the connection; so do empty lines."""
    start = CHUNKED + b"1\r\nx\r\n0\r\n"
    with served(Limits(header_bytes_max=4096)) as here, Client(here.port) as endless:
        endless.sock.sendall(start)
        with pytest.raises(ConnectionError):
            endless.sock.sendall(unit * 2_000_000)
        until(lambda: here.door.connections == 0)


def test_chunks_and_trailers_within_bounds_pass():
    """A body of many small chunks has more bytes around it than in it; the next request goes on."""
    body = b"1;ext\r\nx\r\n" * 2000 + b"0\r\nDigest: y\r\n\r\n"
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        size, more = 0, True
        while more:
            said = await receive()
            size, more = size + len(said["body"]), said["more_body"]
        seen.append((size, scope["headers"]))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    with served(Limits(header_bytes_max=4096), app) as here, Client(here.port) as ann:
        for _ in range(3):
            ann.sock.sendall(CHUNKED + body)
            assert ann.status() == 200
            assert ann.file.readline() == b"0\r\n"
            assert ann.file.readline() == b"\r\n"
    headers = [(b"host", b"x"), (b"transfer-encoding", b"chunked")]
    assert seen == [(2000, headers)] * 3


def test_nothing_of_http_stays_when_it_is_over():
    """Neither once a connection is a WebSocket nor once it has ended, without any collection."""

    def kept() -> int:
        return sum(isinstance(one, RoomHttp) for one in gc.get_objects())

    gc.collect()
    gc.disable()
    try:
        with served() as here, ExitStack() as phones:
            for _ in range(5):
                phone = phones.enter_context(Client(here.port))
                phone.sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                assert phone.status() == 200
                assert phone.file.read(2) == b"ok"
                assert phone.open() == 101
            until(lambda: kept() == 0)
            for _ in range(5):
                with Client(here.port) as browser:
                    browser.sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 2)
                    assert browser.status() == 200
            until(lambda: here.door.connections == 5)
            until(lambda: kept() == 0)
    finally:
        gc.enable()


def test_over_the_cap_of_an_address_connections_are_refused():
    """One address cannot take every place; others still get in."""
    with served(Limits(connections_per_address_max=2)) as here:
        with Client(here.port) as ann, Client(here.port) as bob:
            assert ann.open() == bob.open() == 101
            with Client(here.port) as third:
                assert third.open() == 503
                assert third.headers["retry-after"] in RETRY_AFTER
                assert third.headers["content-type"] == "application/problem+json"
                told = json.loads(third.file.read(int(third.headers["content-length"])))
                assert (told["code"], told["status"], told["retry"]) == ("overloaded", 503, True)
                assert told["retry_after_ms"] == 1000 * int(third.headers["retry-after"])
            with Client(here.port) as plain:
                plain.sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                assert plain.status() == 503
            with Client(here.port, source="127.0.0.2") as other:
                assert other.open() == 101
        until(lambda: here.door.connections == 0)
        with Client(here.port) as again:
            assert again.open() == 101


def test_behind_a_trusted_proxy_each_viewer_counts_at_an_address_of_its_own():
    """The proxy's own address is no viewer's; what another host says of itself is not believed."""
    limits = Limits(connections_per_address_max=2, trusted_proxies=("127.0.0.1",))

    def open_for(client: Client, address: str) -> int:
        return client.open(f"X-Forwarded-For: 6.6.6.6, {address}")

    with served(limits) as here, ExitStack() as stack:
        # Two of each of two viewers, and then one too many of the first.
        for address in ("10.0.0.1", "10.0.0.1", "10.0.0.2", "10.0.0.2"):
            assert open_for(stack.enter_context(Client(here.port)), address) == 101
        with Client(here.port) as third:
            assert open_for(third, "10.0.0.1") == 503
        # A connection that the proxy keeps is whoever's its last request is.
        kept = stack.enter_context(Client(here.port))
        for address, status in (("10.0.0.3", 200), ("10.0.0.4", 200), ("10.0.0.1", 503)):
            kept.sock.sendall(
                f"GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: {address}\r\n\r\n".encode()
            )
            assert kept.status() == status
            assert status == 503 or kept.file.read(2) == b"ok"
        # What names nobody is the proxy's own.
        for address, status in (("", 200), ("10.0.0.9,", 200), ("", 503)):
            nobody = stack.enter_context(Client(here.port))
            nobody.sock.sendall(
                f"GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: {address}\r\n\r\n".encode()
            )
            assert nobody.status() == status
        for address in ("10.0.0.5", "10.0.0.6"):
            liar = stack.enter_context(Client(here.port, source="127.0.0.2"))
            assert open_for(liar, address) == 101
        with Client(here.port, source="127.0.0.2") as liar:
            assert open_for(liar, "10.0.0.7") == 503
        stack.close()
        until(lambda: here.door.connections == 0)
        assert not here.door._addresses


def test_handshakes_over_the_budget_are_told_when_to_return():
    """A herd is spread: 503 with Retry-After."""
    with served(Limits(handshakes_per_s_max=3)) as here:
        seen = []
        for _ in range(5):
            with Client(here.port) as one:
                seen.append(one.open())
                assert seen[-1] == 101 or one.headers["retry-after"] in RETRY_AFTER
        assert seen[:3] == [101, 101, 101]
        assert 503 in seen
        with Client(here.port) as plain:
            plain.sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert plain.status() == 200


def test_a_draining_node_takes_no_new_seats():
    """While it drains, a node refuses handshakes and still answers HTTP."""
    with served() as here:
        here.door.draining = True
        with Client(here.port) as ann:
            assert ann.open() == 503
            assert ann.headers["retry-after"] in RETRY_AFTER
        with Client(here.port) as plain:
            plain.sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert plain.status() == 200


def test_a_message_over_64_kib_closes_1009():
    """An oversized message is not read to its end."""
    with served() as here, Client(here.port) as ann:
        ann.open()
        ann.send(TEXT, b"x" * (MESSAGE_BYTES_MAX + 1))
        assert ann.closed()[0] == 1009


@pytest.mark.parametrize("payload", [b"", b"x"], ids=["empty", "one byte"])
def test_too_many_fragments_close_1009(payload):
    """At most 64 fragments make a message, empty ones counted."""
    with served() as here, Client(here.port) as ann:
        ann.open()
        ann.send(TEXT, b"", fin=False)
        for _ in range(62):
            ann.send(0, payload, fin=False)
        ann.send(0, b"!")
        assert ann.frame() == (TEXT, payload * 62 + b"!")
        ann.sock.sendall(masked(TEXT, b"", fin=False) + masked(0, payload, fin=False) * 64)
        assert ann.closed()[0] == 1009


def test_too_many_control_frames_close_1002():
    """Ten control frames a second are enough for everyone."""
    with served() as here, Client(here.port) as ann:
        ann.open()
        ann.sock.sendall(masked(PING, b"") * 11)
        assert ann.closed()[0] == 1002


def test_invalid_text_closes_1007():
    """Text frames hold UTF-8."""
    with served() as here, Client(here.port) as ann:
        ann.open()
        ann.send(TEXT, b"\xff\xfe")
        assert ann.closed()[0] == 1007
        until(lambda: here.app.ended)
        assert here.app.told == ["lost"]


def test_an_unmasked_frame_closes_1002():
    """Clients mask their frames (RFC 6455, section 5.1)."""
    with served() as here, Client(here.port) as ann:
        ann.open()
        ann.sock.sendall(b"\x81\x01x")
        assert ann.closed()[0] == 1002


def test_a_close_of_ours_tells_when_to_return_and_is_the_last_frame():
    """4000-4499 carry after_ms; nothing follows a close frame, not even a pong."""
    with served() as here, Client(here.port) as ann:
        ann.open()
        ann.sock.sendall(masked(TEXT, b"leave") + masked(PING, b"still there?"))
        here.app.links[0].write_frame(codec.frame(b"late", Format.JSON))
        opcode, payload = ann.frame()
        while opcode in {TEXT, PONG}:
            opcode, payload = ann.frame()
        assert (opcode, struct.unpack("!H", payload[:2])[0]) == (CLOSE, 4002)
        assert 0 <= json.loads(payload[2:])["after_ms"] < 5000
        ann.send(PING, b"now?")
        ann.send(CLOSE, payload)
        assert ann.frame() == (-1, b"")


def test_a_peer_that_does_not_answer_a_close_is_cut():
    """A close ends within its time whatever the peer does."""
    with served(Limits(close_within_s=0.2)) as here, Client(here.port) as ann:
        ann.open()
        ann.send(TEXT, b"leave")
        assert ann.frame()[0] == CLOSE
        until(lambda: here.door.connections == 0)


def test_a_ping_without_its_pong_closes_4004():
    """A silent peer is told, then cut."""
    limits = Limits(close_within_s=0.2)
    with (
        served(limits, ws_ping_interval=0.1, ws_ping_timeout=0.2) as here,
        Client(here.port) as ann,
    ):
        ann.open()
        assert ann.frame()[0] == PING
        assert ann.frame()[0] == CLOSE
        until(lambda: here.door.connections == 0)
        assert here.app.told == ["lost"]


def test_a_viewer_that_never_reads_is_paused_and_ended():
    """Past the high-water mark the owner hears of it; without a pong the connection goes."""
    limits = Limits(close_within_s=0.3)
    with (
        served(limits, ws_ping_interval=0.5, ws_ping_timeout=0.5) as here,
        Client(here.port, receive_bytes=4096) as ann,
    ):
        ann.open()
        link = here.app.links[0]
        frame = codec.frame(b"x" * 8000, Format.JSON)

        def flood() -> None:
            if not link.paused and not link.transport.is_closing():
                link.write_frame(frame)
                here.loop.call_soon(flood)

        here.soon(flood)
        until(lambda: "pause" in here.app.told)
        assert link.buffered <= limits.high_water + len(frame)
        ann.sock.sendall(masked(TEXT, b"?" * 1000) * 20)
        until(lambda: here.door.connections == 0)
        assert here.app.told[-1] == "lost"


def test_who_reads_slowly_is_there():
    """A ping waits behind a large frame: while that is being taken its pong is not asked for."""
    interval_s, frame = 1.0, codec.frame(b"x" * 4_000_000, Format.JSON)
    with (
        served(ws_ping_interval=interval_s, ws_ping_timeout=interval_s) as here,
        Client(here.port, receive_bytes=64 * 1024) as ann,
    ):
        ann.open()
        link = here.app.links[0]
        here.soon(lambda: link.write_frame(frame))
        until(lambda: link.buffered)
        began_s, seen = time.monotonic(), 0
        while link.buffered:
            seen += len(ann.sock.recv(min(64 * 1024, len(frame) - seen)))
            time.sleep(0.06)
        assert time.monotonic() - began_s > 2.5 * interval_s
        while seen < len(frame):
            seen += len(ann.sock.recv(min(64 * 1024, len(frame) - seen)))
        opcode, payload = ann.frame()
        assert opcode == PING
        ann.send(PONG, payload)
        assert ann.frame()[0] == PING, "it was asked again, and not closed"
        assert here.app.told == ["pause", "resume"]


def test_who_reads_and_never_answers_is_gone():
    """Whatever is sent to it meanwhile: only what stands before a ping is waited for."""
    frame = codec.frame(b"x" * 400_000, Format.JSON)
    with (
        served(ws_ping_interval=0.3, ws_ping_timeout=0.3) as here,
        Client(here.port, receive_bytes=64 * 1024) as ann,
    ):
        ann.open()
        link = here.app.links[0]

        def flood() -> None:
            if not link.transport.is_closing():
                if not link.paused:
                    link.write_frame(frame)
                here.loop.call_later(0.1, flood)

        here.soon(flood)
        ann.sock.settimeout(30)
        while ann.sock.recv(64 * 1024):
            pass
        assert here.app.told[-1] == "lost"


def test_who_waits_for_a_large_frame_shares_it():
    """What the kernel has not taken of it is no copy for each of those who wait."""
    frame = codec.frame(b"x" * 1_000_000, Format.JSON)
    with served() as here, Client(here.port, receive_bytes=4096) as ann:
        ann.open()
        link, before = here.app.links[0], sys.getrefcount(frame)
        here.soon(lambda: link.write(frame, 1000))
        until(lambda: link.buffered)
        assert sys.getrefcount(frame) > before


def test_a_cut_connection_leaves_nothing_in_the_kernel():
    """What a peer never read is forgotten with it: a full send buffer would stay for minutes."""
    with (
        served(Limits(close_within_s=0.2)) as here,
        Client(here.port, receive_bytes=4096) as ann,
    ):
        ann.open()
        link, frame = here.app.links[0], codec.frame(b"x" * 8000, Format.JSON)

        def flood() -> None:
            if link.paused:
                link.close(4001)
            elif not link.transport.is_closing():
                link.write_frame(frame)
                here.loop.call_soon(flood)

        closed_before = counters.closes.get("4001", 0)
        here.soon(flood)
        until(lambda: here.door.connections == 0)
        reset = select.poll()
        reset.register(ann.sock, 0)
        until(lambda: reset.poll(0))
        assert counters.closes["4001"] == closed_before + 1


@pytest.mark.parametrize("last", [CLOSE, None], ids=["a close frame", "an end of its half"])
def test_what_a_peer_says_in_its_last_seconds_gives_it_no_more(last):
    """A close is cut at its time, also where its peer answers and reads nothing."""
    limits = Limits(close_within_s=1.0)
    with served(limits) as here, Client(here.port, receive_bytes=4096) as ann:
        ann.open()
        link, closed = here.app.links[0], threading.Event()

        def flood() -> None:
            while not link.paused:
                link.write(codec.frame(b"x" * 8000, Format.JSON))
            link.close(4001)
            closed.set()

        here.soon(flood)
        assert closed.wait(8)
        cut, cut_at = link._timer, link._timer.when()
        if last is None:
            ann.sock.shutdown(socket.SHUT_WR)
        else:
            ann.send(last, struct.pack("!H", 1000))
        until(link.transport.is_closing)
        assert link._timer is cut
        until(lambda: here.door.connections == 0)
        assert (link._timer, link._timer.when()) == (cut, cut_at)


def test_a_slow_viewer_that_reads_on_is_resumed():
    """Drained below the low-water mark, the owner hears that too."""
    with served() as here, Client(here.port, receive_bytes=4096) as ann:
        ann.open()
        link, frame = here.app.links[0], codec.frame(b"x" * 8000, Format.JSON)
        written = 0

        def flood() -> None:
            nonlocal written
            if not link.paused:
                link.write_frame(frame)
                written += 1
                here.loop.call_soon(flood)

        here.soon(flood)
        until(lambda: "pause" in here.app.told)
        for _ in range(written):
            assert ann.frame() == (TEXT, b"x" * 8000)
        until(lambda: "resume" in here.app.told)
        ann.send(TEXT, b"and on")
        assert ann.frame() == (TEXT, b"and on")


def test_a_connection_that_has_ended_is_not_cut():
    """A server that stops while a peer has ended its half sets no second timer over the first.

    The first would outlive the connection, whose descriptor may be another's by then.
    """
    with served() as here, Client(here.port, receive_bytes=4096) as ann:
        ann.open()
        ann.send(TEXT, b"slow")
        until(lambda: "running" in here.app.told)
        link, frame = here.app.links[0], codec.frame(b"x" * 8000, Format.JSON)

        def fill() -> None:
            while not link.buffered:
                link.write_frame(frame)

        here.soon(fill)
        until(lambda: link.buffered)
        ann.sock.shutdown(socket.SHUT_WR)
        until(lambda: "lost" in here.app.told)
        stopped, timer = threading.Event(), link._timer
        here.soon(link.shutdown)
        here.soon(stopped.set)
        assert stopped.wait(8)
        assert link._timer is timer
        while ann.frame()[0] != -1:
            pass
        until(lambda: here.door.connections == 0)
        assert timer.cancelled()


def test_a_peer_that_is_gone_is_lost_once():
    """An aborted connection leaves its room, and its place."""
    with served() as here:
        with Client(here.port) as ann:
            ann.open()
            ann.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        until(lambda: here.door.connections == 0 and here.app.ended)
        assert here.app.told == ["lost"]


def test_shutdown_lets_the_running_command_finish():
    """What was accepted is answered; then 4000 with each viewer's own after_ms."""
    limits = Limits(close_within_s=0.3)
    with served(limits) as here, Client(here.port) as ann, Client(here.port) as bob:
        ann.open()
        bob.open()
        ann.send(TEXT, b"slow")
        until(lambda: "running" in here.app.told)
        here.server.should_exit = True
        code, reason = bob.closed()
        assert code == 4000
        assert json.loads(reason)["after_ms"] >= 0
        here.app.may_answer.set()
        assert ann.frame() == (TEXT, b"slow")
        opcode, payload = ann.frame()
        assert (opcode, struct.unpack("!H", payload[:2])[0]) == (CLOSE, 4000)
        ann.send(CLOSE, payload)
        assert ann.frame() == (-1, b"")

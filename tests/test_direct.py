"""Shared frames on a real socket: sent at once, and still in order with all that waits."""

from __future__ import annotations

import asyncio
import datetime as dt
import fcntl
import random
import socket
import ssl
import termios
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from tape import Who
from test_protocol import Client, Served, served, until

from liveroom.wire import codec
from liveroom.wire.codec import Format
from liveroom.wire.direct import FLAGS, NOWHERE, send
from liveroom.wire.fanout import Flush, Job
from liveroom.wire.outbox import AWAY, Seat


class Room:
    """An application that seats whoever comes, and flushes to one of them when told to."""

    def __init__(self) -> None:
        self.seats: list[Seat] = []
        self.beat = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        link = scope["extensions"]["liveroom.link"]
        link.converse(Silent())
        seat = Seat(link, Format.JSON, member=Who("ann"), outbox_bytes_max=1 << 30)
        seat.beat = self.beat
        self.seats.append(seat)

    def flush(self, seat: Seat, frame: bytes) -> None:
        self.beat += 1
        loop = asyncio.get_running_loop()
        Flush(loop, [Job(frame, [seat])], self.beat, lambda: None).start()


class Silent:
    async def take(self, message: str | bytes) -> None:
        raise AssertionError(message)

    def on_end(self) -> None:
        """Nothing is kept."""


def called(here: Served, what: Any) -> Any:
    """What `what` returns in the server's loop."""

    async def call() -> Any:
        return what()

    assert here.loop is not None
    return asyncio.run_coroutine_threadsafe(call(), here.loop).result(8)


def numbered(number: int, size: int) -> bytes:
    return codec.frame(b"%06d" % number + b"x" * size, Format.JSON)


@pytest.fixture
def room() -> Room:
    return Room()


def test_frames_of_all_and_of_one_keep_their_order_whatever_the_kernel_takes(room):
    """A peer that reads in fits: some frames are taken whole, some in part, some not at all."""
    dice, sent, partly = random.Random(7), 0, 0
    with served(app=room) as here, Client(here.port, receive_bytes=4096) as ann:
        assert ann.open() == 101
        until(lambda: room.seats)
        (seat,) = room.seats

        def burst() -> None:
            nonlocal sent, partly
            for _ in range(dice.randrange(1, 12)):
                frame = numbered(sent, dice.choice([0, 100, 3000, 40_000]))
                before = seat.link.buffered
                dice.choice([seat.send_frame, lambda one: room.flush(seat, one)])(frame)
                partly += 0 < seat.link.buffered - before < len(frame)
                assert seat.descriptor == (NOWHERE if seat.link.buffered else seat.link.descriptor)
                sent += 1

        read = 0
        while sent < 600:
            called(here, burst)
            full = called(here, lambda: seat.link.buffered) > 100_000
            behind = sent if full else dice.randrange(sent)
            while read < max(read, behind):
                opcode, payload = ann.frame()
                assert (opcode, payload[:6]) == (1, b"%06d" % read)
                assert payload[6:].strip(b"x") == b""
                read += 1
        while read < sent:
            assert ann.frame()[1][:6] == b"%06d" % read
            read += 1
        assert partly, "the kernel took every frame whole, or none of it"
        assert not seat.closed


def test_past_the_queue_again_once_nothing_waits(room):
    """A seat that had to wait is sent to directly again; until then nothing overtakes."""
    with served(app=room) as here, Client(here.port, receive_bytes=4096) as ann:
        assert ann.open() == 101
        until(lambda: room.seats)
        (seat,) = room.seats
        called(here, lambda: room.flush(seat, numbered(0, 0)))
        there = seat.descriptor
        assert there != NOWHERE
        called(here, lambda: room.flush(seat, numbered(1, 60_000)))
        assert seat.descriptor == NOWHERE
        called(here, lambda: room.flush(seat, numbered(2, 10)))
        assert [ann.frame()[1][:6] for _ in range(3)] == [b"000000", b"000001", b"000002"]
        until(lambda: not seat.link.buffered)
        called(here, lambda: room.flush(seat, numbered(3, 10)))
        assert seat.descriptor == there
        assert ann.frame()[1][:6] == b"000003"


class Hasty(Room):
    """Its transports hold bytes back at the handshake, and it flushes in the same turn."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.fill(scope["extensions"]["liveroom.link"].transport)
        await super().__call__(scope, receive, send)
        self.flush(self.seats[-1], numbered(0, 0))

    def fill(self, transport: asyncio.Transport) -> None:
        hint = b"HTTP/1.1 103 Early Hints\r\nlink: <" + b"x" * 1000 + b">\r\n\r\n"
        while not transport.get_write_buffer_size():
            transport.write(hint)
        # The peer reads on: the kernel can take more, and the loop has no turn meanwhile.
        there = transport.get_extra_info("socket").fileno()
        until(lambda: not any(fcntl.ioctl(there, termios.TIOCOUTQ, bytes(4))))


def test_nothing_overtakes_the_answer_to_the_handshake():
    """While the 101 waits, what is flushed waits behind it."""
    with served(app=Hasty()) as here, Client(here.port, receive_bytes=4096) as ann:
        status = ann.open()
        while status == 103:
            status = ann.status()
        assert status == 101
        assert ann.frame()[1][:6] == b"000000"


def test_nothing_reaches_who_has_the_number_next(room):
    """After the end of a connection its descriptor is another's: nobody sends to it."""
    with served(app=room) as here, Client(here.port) as bob, ExitStack() as later:
        with Client(here.port) as ann:
            assert ann.open() == 101
            until(lambda: room.seats)
            (seat,) = room.seats
            called(here, lambda: room.flush(seat, numbered(0, 0)))
            there = seat.descriptor
            ann.frame()
        until(lambda: here.door.connections == 1)
        assert bob.open() == 101
        until(lambda: len(room.seats) == 2)
        carol = later.enter_context(Client(here.port))  # takes the lowest free number: ann's
        assert carol.open() == 101
        until(lambda: len(room.seats) == 3)
        called(here, lambda: [room.flush(one, numbered(1, 0)) for one in room.seats[1:]])
        assert there in {one.descriptor for one in room.seats[1:]}
        assert (seat.beat, seat.descriptor, seat.link.descriptor) == (AWAY, NOWHERE, NOWHERE)
        called(here, lambda: room.flush(seat, numbered(9, 0)))
        called(here, lambda: [room.flush(one, numbered(2, 0)) for one in room.seats[1:]])
        for one in (bob, carol):
            assert [one.frame()[1][:6] for _ in range(2)] == [b"000001", b"000002"]


def test_a_peer_that_is_gone_is_found_out_by_the_transport(room):
    """A reset connection takes nothing; it ends as it always did, and the flush goes on."""
    with served(app=room) as here:
        ann = Client(here.port)
        assert ann.open() == 101
        until(lambda: room.seats)
        (seat,) = room.seats
        called(here, lambda: room.flush(seat, numbered(0, 0)))
        ann.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        ann.__exit__()
        called(here, lambda: [room.flush(seat, numbered(n, 10_000)) for n in range(20)])
        until(lambda: seat.closed and here.door.connections == 0)


def test_send_says_nothing_was_taken_where_nothing_can_be():
    """No error is raised: whoever writes the rest finds out."""
    one, other = socket.socketpair()
    with one, other:
        assert send(one.fileno(), b"abc", 3, FLAGS) == 3
        assert other.recv(9) == b"abc"
        one.setblocking(True)
        taken = sum(iter(lambda: max(0, send(one.fileno(), b"x" * 999, 999, FLAGS)), 0))
        assert len(read_all(other, taken)) == taken
    assert send(NOWHERE, b"abc", 3, FLAGS) == -1


def read_all(peer: socket.socket, size: int) -> bytes:
    got = b""
    while len(got) < size:
        got += peer.recv(65536)
    return got


def test_through_tls_nothing_goes_past_the_transport(room, tmp_path):
    """What the kernel takes as it is would not be encrypted."""
    certificate(tmp_path)
    options = {"ssl_certfile": tmp_path / "cert.pem", "ssl_keyfile": tmp_path / "key.pem"}
    with served(app=room, **options) as here, Client(here.port) as ann:
        context = ssl.create_default_context(cafile=str(tmp_path / "cert.pem"))
        ann.sock = context.wrap_socket(ann.sock, server_hostname="localhost")
        ann.file = ann.sock.makefile("rb")
        assert ann.open() == 101
        until(lambda: room.seats)
        (seat,) = room.seats
        for number in range(5):
            called(here, lambda: room.flush(seat, numbered(number, 100)))  # noqa: B023 - called at once
            assert seat.descriptor == NOWHERE
            assert ann.frame()[1][:6] == b"%06d" % number


def certificate(folder: Path) -> None:
    """A certificate of its own for `localhost`, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (folder / "cert.pem").write_bytes(made.public_bytes(pem))
    (folder / "key.pem").write_bytes(key.private_bytes(pem, *plain))

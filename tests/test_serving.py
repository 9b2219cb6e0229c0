"""One process that serves: how it is woken, and what it says of the time."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import socket
import threading
import time
from pathlib import Path
from urllib.request import urlopen

import pytest
import uvloop

from liveroom import serving
from liveroom.serving import Config, Server
from liveroom.settings import Settings
from liveroom.text import MESSAGE_MAX
from liveroom.wire.door import Door, Limits
from tests.live import Live, Seat
from tests.live import serving as serving_a_shop


@pytest.fixture
def idle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    """A server that serves nothing, whose next tick never comes by itself."""
    monkeypatch.setattr(serving, "TICK_S", 3600.0)
    config = Config(Settings(data=tmp_path))
    config.encoded_headers = []
    server = Server(config)
    server.servers = [None]  # as one that listens; nothing comes
    return server


def runs(server: Server) -> None:
    """Run its main loop as the server does, for at most 30 s."""

    async def story() -> None:
        with server.capture_signals():
            async with asyncio.timeout(30):
                await server.main_loop()

    uvloop.run(story())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_server_that_sleeps_is_woken_to_end(idle, number) -> None:
    """It waits for no tick."""

    def ask() -> None:
        until = time.monotonic() + 10
        while not idle.server_state.default_headers and time.monotonic() < until:
            time.sleep(0.001)  # it has not ticked
        os.kill(os.getpid(), number)

    asking = threading.Thread(target=ask)
    asking.start()
    runs(idle)
    asking.join()
    assert idle.should_exit


def test_asked_to_end_before_it_began(idle) -> None:
    """What was asked while it started is not slept through."""
    idle.handle_exit(signal.SIGTERM, None)
    runs(idle)
    assert idle.should_exit


def test_the_connection_that_fills_a_worker_wakes_it(idle) -> None:
    """It leaves what comes next to its siblings, and does not wait for its tick to do so."""
    idle.config.door = door = Door(Limits(connections_max=1))
    idle._listener = socket.create_server(("127.0.0.1", 0))

    async def story() -> None:
        loop = asyncio.get_running_loop()
        accepting = await loop.create_server(asyncio.Protocol, sock=idle._listener.dup())
        idle.servers = [accepting]
        running = loop.create_task(idle.main_loop())
        try:
            async with asyncio.timeout(10):
                while not idle.server_state.default_headers:  # noqa: ASYNC110 - it has not ticked
                    await asyncio.sleep(0.001)
                door.enter("a")
                while accepting.is_serving():  # noqa: ASYNC110 - nobody tells
                    await asyncio.sleep(0.001)
        finally:
            accepting.close()
            idle._listener.close()
            idle.handle_exit(signal.SIGTERM, None)
            await running

    uvloop.run(story())


def test_a_door_tells_once_that_it_is_full() -> None:
    """With the last connection that is let through, not with those that are refused."""
    told: list[int] = []
    door = Door(Limits(connections_max=2))
    door.on_full = lambda: told.append(door.connections)
    for _ in range(4):
        door.enter("a")
    for _ in range(3):
        door.leave("a")
    assert told == [2]
    door.enter("a")
    assert told == [2, 2]


def test_the_date_of_answers_goes_on(tmp_path) -> None:
    """A server that nobody else uses knows what time it is."""
    live = Live(tmp_path / "data")
    try:
        live.start()

        def date() -> str:
            with urlopen(f"{live.url}/healthz") as answer:
                return answer.headers["Date"]

        dates = {date()}
        until = time.monotonic() + 10
        while len(dates) < 3:
            assert time.monotonic() < until, "the date stands still"
            dates.add(date())
            time.sleep(0.05)
    finally:
        live.close()


def test_a_reader_of_events_that_never_reads_is_cut(tmp_path: Path) -> None:
    """It is closed 4004 and reset, as a WebSocket is; one who reads stays, also in a quiet room."""
    with (
        serving_a_shop(tmp_path / "data", "--ping-interval-s=0.3", "--message-rate-max=0") as here,
        here.http(here.token("root", "admin")) as root,
        here.http() as ann,
        ann.stream("GET", "/v1/rooms/r1/stream") as reading,
        socket.socket() as stuck,
    ):
        stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stuck.connect(("127.0.0.1", int(here.url.rpartition(":")[2])))
        stuck.sendall(b"GET /v1/rooms/r1/stream HTTP/1.1\r\nHost: x\r\n\r\n")
        assert stuck.recv(12) == b"HTTP/1.1 200"
        lines = reading.iter_lines()

        def reads_until(text: str) -> None:
            while text not in next(lines):
                pass

        reset = select.poll()
        reset.register(stuck, 0)
        said = 0
        while not reset.poll(0):
            assert said < 5000
            said += 1
            notice = {"cmd": "notice.post", "data": {"text": f"{said} ".ljust(MESSAGE_MAX, "裤")}}
            assert root.post("/v1/rooms/r1/commands", json=notice).status_code == 200
            reads_until(f'"{said} ')
        assert 'liveroom_closes_total{code="4004"} 1' in root.get("/metrics").text
        for _ in range(4):
            while next(lines) != ":":
                pass


def test_over_the_cap_of_a_member_the_oldest_goes_and_buying_goes_on(tmp_path: Path) -> None:
    """4504 for the oldest of its seats, here an event stream's too; guests are all different."""
    with serving_a_shop(tmp_path / "data", "--connections-per-member-max=2") as here:
        ann = here.token("ann")
        with here.http(ann) as http, http.stream("GET", "/v1/rooms/r1/stream") as stream:
            first, second, *guests = (Seat(here) for _ in range(5))
            first.join(ann)
            for guest in guests:
                guest.join()
            second.join(ann)
            *_, event, data, _ = stream.iter_lines()  # they end
            assert (event, data) == ("event: closed", 'data: {"code":4504}')
            third = Seat(here)
            third.join(ann)
            assert first.closed() == 4504
            second.do("cart.add", sku="s1", qty=1)
            third.do("order.place", order="o1", lines=[{"sku": "s1", "qty": 1}])
            for seat in (second, third, *guests):
                seat.leave()


@pytest.mark.filterwarnings("ignore:The HMAC key")
def test_a_short_secret_is_taken_and_warned_of(tmp_path: Path) -> None:
    """Who tries things out may have one; the log names it without telling it."""
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    (data / "secret").write_text("geheim")
    with serving_a_shop(data, "--secret", "geheim") as here:
        Seat(here).join(here.token("ann"))
        assert "secret_short" in here.log()
        assert "geheim" not in here.log()

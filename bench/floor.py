"""Fan-out beside its floor: the hub on a bare server, and a C loop over `send()`, in one run.

    python -m bench.floor --viewers 1000 --rate 30 --seconds 10

Prints one JSON line for each: CPU of the serving process (user and system) for each
delivered event. The load runs in a process of its own, counts every event of every viewer,
and exits 1 where a viewer got too few or too many.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import resource
import selectors
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import uvicorn

from liveroom.clock import ServerClock
from liveroom.events import Event, Position
from liveroom.wire.codec import Format
from liveroom.wire.door import Door, Limits
from liveroom.wire.hub import Hub
from liveroom.wire.outbox import Seat
from liveroom.wire.protocol import LINK, protocols

EPOCH = "floor"
SIZE = 120


class Picture:
    """The least a room can be."""

    epoch = EPOCH
    chat_per_s_max = 0

    def __init__(self) -> None:
        self.seq = 0
        self.n = 0

    def apply(self, event: Event) -> None:
        """Fold the position in."""
        self.seq = event.seq or self.seq

    def snapshot(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def now(self) -> dict[str, Any]:
        """Nothing."""
        return {}


class Member:
    """A viewer of the bench."""

    def __init__(self, number: int) -> None:
        self.id = f"m{number}"


class Server:
    """A WebSocket server with one room, and the publisher of its events."""

    def __init__(self, viewers: int, rate: float, seconds: float, report: Connection) -> None:
        self._viewers, self._rate, self._seconds = viewers, rate, seconds
        self._report = report
        self._joined = 0
        self._log: list[Event] = []
        self._full = asyncio.Event()
        self._hub = Hub(
            log=self._read,
            picture=self._picture,
            positions=self._positions,
            subscribe=self._nothing,
            unsubscribe=self._nothing,
            clock=ServerClock(),
        )

    async def _read(self, _room: str, since: Position, _limit: int) -> Sequence[Event]:
        return self._log[since.seq :]

    async def _picture(self, _room: str) -> Picture:
        return Picture()

    async def _positions(self, rooms: list[str]) -> dict[str, Position]:
        return dict.fromkeys(rooms, Position(EPOCH, len(self._log)))

    async def _nothing(self, _room: str) -> None:
        return None

    async def _own(self) -> dict[str, Any]:
        return {}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Accept, join, and wait for the end."""
        await receive()
        await send({"type": "websocket.accept"})
        self._joined += 1
        seat = Seat(scope["extensions"][LINK], Format.JSON, member=Member(self._joined))
        await self._hub.join("r", seat, re=0, since=None, you={}, own=self._own)
        if self._hub.viewers("r") == self._viewers:
            self._full.set()
        while (await receive())["type"] == "websocket.receive":
            pass

    async def run(self) -> None:
        """Serve, publish at the rate, and report what it cost."""
        http, websocket = protocols(Door(Limits()))
        config = uvicorn.Config(
            self,
            http=http,  # type: ignore[arg-type]
            ws=websocket,  # type: ignore[arg-type]
            lifespan="off",
            log_config=None,
            access_log=False,
            ws_per_message_deflate=False,
        )
        listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 * 1024)
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        self._report.send(listener.getsockname()[1])
        await self._full.wait()
        await asyncio.sleep(0.5)
        self._report.send(await self._publish())
        server.should_exit = True
        await serving
        await self._hub.close()

    async def _publish(self) -> dict[str, Any]:
        counts = self._hub.counts
        before, flushes = resource.getrusage(resource.RUSAGE_SELF), counts.flushes
        at, events = time.monotonic(), int(self._rate * self._seconds)
        for seq in range(1, events + 1):
            at += 1 / self._rate
            await asyncio.sleep(max(0.0, at - time.monotonic()))
            text = "x" * (SIZE - 60)
            event = Event("notice.posted", {"text": text}, int(time.time() * 1000), seq=seq)
            self._log.append(event)
            self._hub.deliver("r", EPOCH, [event])
        await asyncio.sleep(0.5)
        after = resource.getrusage(resource.RUSAGE_SELF)
        used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return {
            "server": "liveroom hub",
            "events": events,
            "deliveries": counts.events_delivered,
            "cpu_us": round(used * 1e6),
            "us_per_delivery": round(used * 1e6 / counts.events_delivered, 2),
            "user_share": round((after.ru_utime - before.ru_utime) / used, 2),
            "flushes": counts.flushes - flushes,
            "rss_mib": after.ru_maxrss // 1024,
        }


def serve(viewers: int, rate: float, seconds: float, report: Connection) -> None:
    """The serving process."""
    server = Server(viewers, rate, seconds, report)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(server.run())


def _loop_factory() -> Any:
    import uvloop  # noqa: PLC0415 - the serving process alone has it

    return uvloop.new_event_loop


class Load:
    """Viewers that read and count, as cheaply as they can."""

    mark = b'"ev"'

    def __init__(self, port: int, viewers: int) -> None:
        self._selector = selectors.EpollSelector()
        self.counts = [0] * viewers
        self._tails = [b""] * viewers
        self._socks: list[socket.socket] = []
        for number in range(viewers):
            self._socks.append(_connect(port))
            self._selector.register(self._socks[-1], selectors.EVENT_READ, number)

    def read(self, within_s: float) -> None:
        """Count what arrives in one turn."""
        for key, _ in self._selector.select(within_s):
            number = key.data
            data = self._tails[number] + self._socks[number].recv(65536)
            if not data:
                self._selector.unregister(key.fileobj)
            self.counts[number] += data.count(self.mark)
            self._tails[number] = data[-3:]

    def close(self) -> None:
        """End every connection."""
        for sock in self._socks:
            sock.close()


def _connect(port: int) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port))
    sock.sendall(
        b"GET /ws/r HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    sock.setblocking(False)
    return sock


def run_hub(viewers: int, rate: float, seconds: float) -> dict[str, Any]:
    """The hub's figures, with the viewers that did not get each event once."""
    here, there = multiprocessing.Pipe()
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=serve, args=(viewers, rate, seconds, there))
    process.start()
    load = Load(here.recv(), viewers)
    try:
        while not here.poll():
            load.read(0.05)
        report: dict[str, Any] = here.recv()
    finally:
        load.close()
        process.join(10)
    report["wrong_viewers"] = sum(count != report["events"] for count in load.counts)
    return report


def run_floor(viewers: int, rate: float, seconds: float) -> dict[str, Any]:
    """The C loop's figures."""
    with tempfile.TemporaryDirectory() as folder:
        binary = Path(folder) / "floor"
        source = Path(__file__).with_name("floor.c")
        subprocess.run(["cc", "-O2", "-o", binary, source], check=True)
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        sizes = [port, viewers, int(rate), int(seconds), SIZE]
        process = subprocess.Popen([binary, *map(str, sizes)], stdout=subprocess.PIPE, text=True)
        _await_port(port, process)
        load = Load(port, viewers - 1)
        while process.poll() is None:
            load.read(0.05)
        load.close()
        output, _ = process.communicate()
    return {"server": "C loop over send()", **json.loads(output)}


def _await_port(port: int, process: subprocess.Popen[str]) -> None:
    """Wait until the floor listens; the first connection is a viewer of its own."""
    while process.poll() is None:
        try:
            _kept.append(_connect(port))
        except ConnectionRefusedError:
            time.sleep(0.02)
        else:
            return


_kept: list[socket.socket] = []


def main() -> int:
    """Run both, print both; 1 where a viewer's count is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--viewers", type=int, default=1000)
    parser.add_argument("--rate", type=float, default=30)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--hub-only", action="store_true")
    options = parser.parse_args()
    numbers = (options.viewers, options.rate, options.seconds)
    if not options.hub_only:
        print(json.dumps(run_floor(*numbers)), flush=True)
    report = run_hub(*numbers)
    print(json.dumps(report), flush=True)
    return 1 if report["wrong_viewers"] else 0


if __name__ == "__main__":
    sys.exit(main())

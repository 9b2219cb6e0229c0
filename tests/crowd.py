"""A crowd of viewers on one event loop: each returns whenever it is cut off, and keeps what it saw.

They speak raw frames, of JSON or of msgpack, so that nothing stands between a test and the
wire, and so that two hundred of them cost less than serving them does.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

import msgpack
import orjson

from tests.live import Live, Said

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
RETRY_S = 0.05
LOST = 1006

T = TypeVar("T")


class Cut(Exception):
    """The connection ended before the answer came."""


class End(NamedTuple):
    """How a connection ended: the server's close code and reason, or 1006 without one."""

    code: int
    reason: str

    @property
    def after_ms(self) -> int:
        """When the server asks the viewer to return; -1 where it does not say."""
        return int(orjson.loads(self.reason).get("after_ms", -1)) if self.reason else -1


class Line(asyncio.Protocol):
    """One raw WebSocket. `opened` is done with the 101, `gone` with the end."""

    def __init__(self, request: bytes, viewer: Viewer) -> None:
        loop = asyncio.get_running_loop()
        self.opened: asyncio.Future[None] = loop.create_future()
        self.gone: asyncio.Future[End] = loop.create_future()
        self._request = request
        self._viewer = viewer
        self._rest = b""
        self._end = End(LOST, "")

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.write(self._request)

    def connection_lost(self, _exc: Exception | None) -> None:
        if not self.opened.done():
            self.opened.set_exception(Cut(self._rest[:200]))
        self.gone.set_result(self._end)

    def data_received(self, data: bytes) -> None:
        self._rest += data
        if not self.opened.done() and not self._is_open():
            return
        while (frame := self._next()) is not None:
            opcode, payload = frame
            if opcode < CLOSE:
                assert opcode == (BINARY if self._viewer.msgpack else TEXT)
                self._viewer.take(self._read(payload))
            elif opcode == PING:
                self.write(payload, PONG)
            elif opcode == CLOSE:
                self._end = End(int.from_bytes(payload[:2], "big"), payload[2:].decode())
                self.write(payload[:2], CLOSE)
                self.transport.close()

    def say(self, command: dict[str, Any]) -> None:
        """Send a command in the viewer's format."""
        if self._viewer.msgpack:
            self.write(msgpack.packb(command), BINARY)
        else:
            self.write(orjson.dumps(command), TEXT)

    def _read(self, payload: bytes) -> Any:
        return msgpack.unpackb(payload) if self._viewer.msgpack else orjson.loads(payload)

    def write(self, payload: bytes, opcode: int) -> None:
        """Send one frame, masked with zeros."""
        size = len(payload)
        head = bytes((0x80 | opcode, 0x80 | size if size < 126 else 0xFE))
        head += b"" if size < 126 else size.to_bytes(2, "big")
        self.transport.write(head + b"\0\0\0\0" + payload)

    def _is_open(self) -> bool:
        head, end, rest = self._rest.partition(b"\r\n\r\n")
        if not end:
            return False
        if not head.startswith(b"HTTP/1.1 101"):
            self.transport.abort()
            return False
        self._rest = rest
        self.opened.set_result(None)
        return True

    def _next(self) -> tuple[int, bytes] | None:
        data, at = self._rest, 2
        if len(data) < at:
            return None
        size = data[1]
        if size >= 126:
            wide = 2 if size == 126 else 8
            size, at = int.from_bytes(data[2 : 2 + wide], "big"), 2 + wide
        if len(data) < at + size:
            return None
        self._rest = data[at + size :]
        return data[0] & 15, data[at : at + size]


class Part:
    """What was seen from one snapshot on: the log's epoch, the position, and all that followed."""

    def __init__(self, epoch: str, begun: int) -> None:
        self.epoch = epoch
        self.begun = begun
        self.events: list[dict[str, Any]] = []

    @property
    def seqs(self) -> list[int]:
        return [event["seq"] for event in self.events]

    @property
    def seq(self) -> int:
        return self.events[-1]["seq"] if self.events else self.begun

    @property
    def is_whole(self) -> bool:
        """Whether nothing lacks, nothing is doubled, and all is in order."""
        return self.seqs == [*range(self.begun + 1, self.begun + 1 + len(self.events))]

    def first_fault(self) -> str:
        """Where it is first not whole."""
        seqs = [self.begun, *self.seqs]
        return next((f"{b} after {a}" for a, b in pairwise(seqs) if b != a + 1), "none")


class Viewer:
    """One who stays in the room until the test ends, whatever becomes of its connections."""

    def __init__(
        self, server: Live, name: str, *roles: str, guest: bool = False, msgpack: bool = False
    ) -> None:
        self.name = name
        self.msgpack = msgpack
        self.server = server
        self.token = None if guest else server.token(name, *roles)
        self.parts: list[Part] = []
        self.modes: list[str] = []
        self.ends: list[End] = []
        self.frames: list[list[dict[str, Any]]] = []
        self.chats: list[list[int]] = []
        """The `n` of each message it saw, by connection."""
        self.state: dict[str, dict[str, Any]] = {}
        self.node = ""
        self.keeps_frames = False
        self.sees_stock: Callable[[dict[str, Any]], None] = lambda _: None
        """Is handed every stock number that is shown to it."""
        self._line: Line | None = None
        self._seated = asyncio.Event()
        self._replies: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._last_id = 0

    @property
    def part(self) -> Part:
        return self.parts[-1]

    @property
    def texts(self) -> list[str]:
        """The notices it saw, in order."""
        events = [event for part in self.parts for event in part.events]
        return [one["data"]["text"] for one in events if one["ev"] == "notice.posted"]

    @property
    def is_seated(self) -> bool:
        return self._seated.is_set()

    async def stay(self) -> None:
        """Join, return whenever the connection ends, and heed `after_ms`; until cancelled."""
        while True:
            try:
                line = await self._connect()
            except (OSError, Cut):
                await asyncio.sleep(RETRY_S * random.random())
                continue
            self._line = line
            try:
                self._join(line)
                end = await asyncio.shield(line.gone)
            finally:
                line.transport.abort()
                self._seated.clear()
            self._lose(end)
            if end.code >= 4000:
                await asyncio.sleep(max(0, end.after_ms) / 1000)

    def cut(self) -> bool:
        """Break the connection as a tunnel does; whether there was one."""
        if self._line is None or self._line.transport.is_closing():
            return False
        self._line.transport.abort()
        return True

    async def do(self, cmd: str, key: str | None = None, **data: Any) -> dict[str, Any]:
        """The `ok` of a command; `Said` its refusal, `Cut` where no answer came."""
        await self._seated.wait()
        assert self._line is not None
        self._last_id += 1
        reply = self._replies[self._last_id] = asyncio.get_running_loop().create_future()
        told = {"id": self._last_id, "cmd": cmd, "data": data}
        self._line.say(told if key is None else {**told, "key": key})
        return await reply

    async def surely(self, cmd: str, key: str | None = None, **data: Any) -> dict[str, Any]:
        """The `ok` of a command that may be repeated until it is answered."""
        return await until_answered(lambda: self.do(cmd, key, **data))

    async def _connect(self) -> Line:
        address = urlsplit(self.server.url)
        key = base64.b64encode(os.urandom(16)).decode()
        request = (
            f"GET /ws/r1 HTTP/1.1\r\nHost: {address.netloc}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n"
            f"Sec-WebSocket-Protocol: liveroom.v1.{'msgpack' if self.msgpack else 'json'}\r\n\r\n"
        ).encode()
        _, line = await asyncio.get_running_loop().create_connection(
            lambda: Line(request, self), address.hostname, address.port
        )
        await line.opened
        return line

    def _join(self, line: Line) -> None:
        data: dict[str, Any] = {} if self.token is None else {"token": self.token}
        if self.parts:
            data["since"] = {"epoch": self.part.epoch, "seq": self.part.seq}
        line.say({"id": 0, "cmd": "room.join", "data": data})

    def _lose(self, end: End) -> None:
        self.ends.append(end)
        self._seated.clear()
        waiting, self._replies = self._replies, {}
        for reply in waiting.values():
            if not reply.done():
                reply.set_exception(Cut())

    # ── what arrives ──────────────────────────────────────────────────────────────────────

    def take(self, frame: list[dict[str, Any]]) -> None:
        """Take one frame of the server's."""
        if self.keeps_frames:
            self.frames.append(frame)
        for message in frame:
            if "ev" not in message:
                self._answered(message)
            elif "seq" in message:
                self.part.events.append(message)
            elif "n" in message:
                self.chats[-1].append(message["n"])
            else:
                self.state[message["ev"]] = message["data"]
                if message["ev"] == "stock.changed":
                    self.sees_stock(message["data"])

    def _answered(self, message: dict[str, Any]) -> None:
        if message["re"] == 0:
            self._joined(message["ok"])
            return
        reply = self._replies.pop(message["re"])
        if reply.done():
            return
        if "ok" in message:
            reply.set_result(message["ok"])
        else:
            reply.set_exception(Said(message["error"]))

    def _joined(self, ok: dict[str, Any]) -> None:
        self.modes.append(ok["mode"])
        self.chats.append([])
        self.node = ok["node"]
        if ok["mode"] == "snapshot":
            self.parts.append(Part(ok["epoch"], ok["seq"]))
        else:
            assert ok["epoch"] == self.part.epoch
            self.part.events += ok["events"]
            assert self.part.seq == ok["seq"]
        shown = ok.get("snapshot") or ok["now"]
        self.state["viewers.counted"] = {"viewers": shown["viewers"]}
        self.state["reactions.counted"] = {"reactions": shown["reactions"]}
        for sku, stock in shown["stock"].items():
            self.sees_stock({"sku": sku, **stock})
        self._seated.set()


@asynccontextmanager
async def staying(*viewers: Viewer) -> AsyncIterator[None]:
    """Viewers who are all in the room at first, and return to it until the end of the block."""
    tasks = [asyncio.create_task(viewer.stay()) for viewer in viewers]
    try:
        await until(lambda: all(viewer.is_seated for viewer in viewers) or _failed(tasks))
        yield
        _failed(tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def guests(server: Live, count: int) -> list[Viewer]:
    """So many guests, not in the room yet; every other one speaks msgpack."""
    return [
        Viewer(server, f"guest{number}", guest=True, msgpack=number % 2 == 1)
        for number in range(count)
    ]


def host(server: Live) -> Viewer:
    """The room's host, not in it yet."""
    return Viewer(server, "mia", "host:r1")


async def speak(
    who: Viewer,
    rate: float,
    enough: asyncio.Event,
    texts: str = "n",
    *,
    cmd: str = "notice.post",
    answered: list[str] | None = None,
) -> list[str]:
    """Post at this rate until it is enough; the texts that were answered, `answered` as it grows."""
    loop = asyncio.get_running_loop()
    begun, said = loop.time(), 0
    told = [] if answered is None else answered
    while not enough.is_set():
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, begun + said / rate - loop.time())):
                await enough.wait()
        text = f"{texts}{said}"
        await who.surely(cmd, text, text=text)
        told.append(text)
        said += 1
    return told


async def until_answered(ask: Callable[[], Awaitable[T]]) -> T:
    """Ask until there is an answer that is no "try again"; its `ok`, or the refusal raised."""
    while True:
        try:
            return await ask()
        except Cut:
            continue
        except Said as refusal:
            if not refusal.error["retry"]:
                raise
            await asyncio.sleep(RETRY_S)


async def until(fact: Any, within_s: float = 30) -> None:
    """Wait for a fact; fail when it does not come to be."""
    async with asyncio.timeout(within_s):
        while not fact():  # noqa: ASYNC110 - facts of every kind, some of other processes
            await asyncio.sleep(0.02)


def agree(viewers: list[Viewer]) -> None:
    """Fail unless each saw every logged event once, in order, and all saw the same ones.

    Chat may lack some, but on one connection none is doubled or out of order.
    """
    log: dict[tuple[str, int], dict[str, Any]] = {}
    for viewer in viewers:
        for ns in viewer.chats:
            assert ns == sorted(set(ns)), f"{viewer.name}: {ns}"
        for part in viewer.parts:
            assert part.is_whole, f"{viewer.name} from {part.begun}: {part.first_fault()}"
            for event in part.events:
                first = log.setdefault((part.epoch, event["seq"]), event)
                assert first == event, f"{viewer.name} saw {event}, another one {first}"


def _failed(tasks: list[asyncio.Task[None]]) -> bool:
    """Raise what a viewer's own task raised."""
    for task in tasks:
        if task.done():
            task.result()
    return False

"""A crowd: thousands of viewers of one room as bare sockets in one epoll.

An asyncio transport for each would cost as much as serving them. What a frame costs here is one
read, one look-up of its bytes and two comparisons: viewers get the same bytes, so each frame is
parsed once. Every viewer's stream is still checked whole, by the numbers of its logged events
(`seq`) and messages (`n`), which must both be consecutive.
"""

from __future__ import annotations

import base64
import errno
import heapq
import json
import os
import random
import resource
import select
import socket
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

import orjson

from bench.crew import Boss
from bench.latency import Bins
from bench.seat import retry_after_s
from bench.timeline import Timeline

HANDSHAKES_AT_ONCE: Final = 64
TRIES_MAX: Final = 100
READ_BYTES: Final = 32 * 1024
FRAMES_MAX: Final = 5000
TICK: Final = 1000
"""Arrivals are kept in milliseconds."""
_BIND_WITHOUT_PORT: Final = 24
_LOGGED, _CHAT = "seq", "n"


@dataclass(slots=True)
class Frame:
    """What one frame holds; all viewers that get the same bytes share it."""

    seqs: list[int]
    ns: list[int]
    pins: list[int]
    arrivals: Counter[int] = field(default_factory=Counter)


class Stream:
    """One kind of number, for every viewer: how far each is, and what was wrong."""

    def __init__(self, places: int) -> None:
        self.at = [0] * places
        self.lost = self.doubled = self.reordered = self.taken = 0

    def take(self, place: int, numbers: list[int]) -> None:
        """The next numbers of one viewer."""
        self.taken += len(numbers)
        at = self.at[place]
        for number in numbers:
            if number == at + 1:
                at = number
            elif number > at:
                self.lost += number - at - 1
                at = number
            else:
                # It came before, or was counted as lost and comes late: a fault both ways.
                self.doubled += 1
                self.reordered += 1
        self.at[place] = at


class Crowd:
    """The viewers of one load process. `turn` does all the work; nothing here blocks longer."""

    def __init__(self, spec: dict[str, Any], boss: Boss) -> None:
        address = urlsplit(spec["url"])
        self._there = (address.hostname, address.port or 80)
        # A pair of addresses has 28,000 ports; each load process of a loopback has its own.
        local = str(address.hostname).startswith("127.")
        self._here = (f"127.0.0.{10 + spec['at']}", 0) if local else None
        key = base64.b64encode(os.urandom(16)).decode()
        self._request = (
            f"GET /ws/{spec['room']} HTTP/1.1\r\nHost: {address.netloc}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n"
            "Sec-WebSocket-Protocol: liveroom.v1.json\r\n\r\n"
        ).encode()
        self._join = _masked(json.dumps({"id": 0, "cmd": "room.join", "data": {}}).encode())
        self._boss = boss
        self._epoll = select.epoll()
        self._epoll.register(boss.fileno(), select.EPOLLIN)
        places = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self.logged, self.chat = Stream(places), Stream(places)
        self._frames: dict[bytes, Frame] = {}
        self._tails: dict[int, bytes] = {}
        self._sockets: dict[int, socket.socket] = {}
        self._arriving: set[int] = set()
        self._again: list[float] = []
        self._wanted = spec["viewers"]
        self._tries = 0
        self.seated = self.told_503 = self.refused = self.cut = self.frames = 0
        self.nodes: Counter[str] = Counter()
        self.pins: dict[int, Counter[int]] = {}
        self.word: Any = None

    # ── coming in ─────────────────────────────────────────────────────────────────────────

    def seat_all(self) -> None:
        """Have every viewer join, so many handshakes at a time."""
        while self.seated + self.refused < self._wanted:
            due = self._wanted - self.seated - self.refused - len(self._arriving)
            while self._again and self._again[0] <= time.monotonic():
                heapq.heappop(self._again)
            free = min(due - len(self._again), HANDSHAKES_AT_ONCE - len(self._arriving))
            for _ in range(free):
                self._come()
            self.turn(0.1)

    def _come(self) -> None:
        sock = socket.socket()
        sock.setblocking(False)
        if self._here is not None:
            sock.setsockopt(socket.IPPROTO_IP, _BIND_WITHOUT_PORT, 1)
            sock.bind(self._here)
        code = sock.connect_ex(self._there)
        if code not in {0, errno.EINPROGRESS}:
            raise OSError(code, os.strerror(code))
        self._sockets[sock.fileno()] = sock
        self._arriving.add(sock.fileno())
        self._epoll.register(sock.fileno(), select.EPOLLOUT)

    def _ask(self, fd: int) -> None:
        """It is connected: ask for the upgrade."""
        self._epoll.modify(fd, select.EPOLLIN)
        try:
            self._sockets[fd].send(self._request)
        except OSError:
            self._end(fd, b"")

    def _arrive(self, fd: int, data: bytes) -> None:
        """What comes before the join is answered."""
        data = self._tails.pop(fd, b"") + data
        if data.startswith(b"HTTP/"):
            head, found, data = data.partition(b"\r\n\r\n")
            if not found:
                self._tails[fd] = head
                return
            if not head.startswith(b"HTTP/1.1 101"):
                self._end(fd, head)
                return
            self._sockets[fd].send(self._join)
        for whole, payload in self._cut(fd, data):
            if fd in self._arriving and b'"re":' in payload:
                self._sit(fd, orjson.loads(payload))
            else:
                self._hear(fd, whole, payload)

    def _sit(self, fd: int, messages: list[dict[str, Any]]) -> None:
        ok = next((one["ok"] for one in messages if "ok" in one), None)
        if ok is None:
            self._end(fd, orjson.dumps(messages))
            return
        said = ok["snapshot"]["messages"]
        self.logged.at[fd] = int(ok["seq"])
        self.chat.at[fd] = int(said[-1]["n"]) if said else 0
        self.nodes[ok["node"]] += 1
        self._arriving.discard(fd)
        self.seated += 1
        if self.seated % 100 == 0:
            self._boss.progress(self.seated)

    def _end(self, fd: int, said: bytes) -> None:
        """A connection is over: who was not seated comes again, if it was told when."""
        self._epoll.unregister(fd)
        self._sockets.pop(fd).close()
        self._tails.pop(fd, None)
        if fd not in self._arriving:
            self.cut += 1
            return
        self._arriving.discard(fd)
        after_s = retry_after_s(said.decode(errors="replace"))
        self._tries += 1
        if after_s is None or self._tries > TRIES_MAX * self._wanted:
            self.refused += 1
            return
        self.told_503 += 1
        wait_s = after_s * (0.5 + random.random())
        heapq.heappush(self._again, time.monotonic() + wait_s)

    # ── watching ──────────────────────────────────────────────────────────────────────────

    def watch(self) -> Any:
        """Watch until the parent says something; what it said."""
        while self.word is None:
            self.turn(1.0)
        word, self.word = self.word, None
        return word

    def turn(self, within_s: float) -> None:
        """Read what has come for anybody."""
        line, frames, tails, arriving = (
            self._boss.fileno(),
            self._frames,
            self._tails,
            self._arriving,
        )
        for fd, what in self._epoll.poll(within_s, 1024):
            if fd == line:
                self.word = self._boss.heard()
            elif what & select.EPOLLOUT:
                self._ask(fd)
            else:
                try:
                    data = os.read(fd, READ_BYTES)
                except ConnectionError:
                    data = b""
                frame = frames.get(data)
                if frame is not None and fd not in tails:
                    self._count(fd, frame)
                elif not data:
                    self._end(fd, b"")
                elif fd in arriving:
                    self._arrive(fd, data)
                else:
                    for whole, payload in self._cut(fd, tails.pop(fd, b"") + data):
                        self._hear(fd, whole, payload)

    def _cut(self, fd: int, data: bytes) -> Iterator[tuple[bytes, bytes]]:
        """The whole frames of what was read, with their payloads; the rest is kept."""
        at, size = 0, len(data)
        while size - at >= 2:
            length, start = data[at + 1], at + 2
            if length == 126:
                length, start = int.from_bytes(data[at + 2 : at + 4], "big"), at + 4
            elif length == 127:
                length, start = int.from_bytes(data[at + 2 : at + 10], "big"), at + 10
            if size < start + length:
                break
            yield data[at : start + length], data[start : start + length]
            at = start + length
        if at < size:
            self._tails[fd] = data[at:]

    def _hear(self, fd: int, whole: bytes, payload: bytes) -> None:
        opcode = whole[0] & 15
        if opcode == 9:
            self._sockets[fd].send(_masked(payload, 0x8A))
        if opcode > 2:
            return
        frame = self._frames.get(whole)
        if frame is None:
            frame = self._read(payload)
            if len(self._frames) >= FRAMES_MAX:
                self._forget()
            self._frames[whole] = frame
        self._count(fd, frame)

    def _count(self, fd: int, frame: Frame) -> None:
        if frame.seqs:
            self.logged.take(fd, frame.seqs)
            frame.arrivals[int(time.monotonic() * TICK)] += 1
        if frame.ns:
            self.chat.take(fd, frame.ns)
        self.frames += 1

    def _read(self, payload: bytes) -> Frame:
        frame = Frame([], [], [])
        for message in orjson.loads(payload):
            if _LOGGED in message:
                frame.seqs.append(message[_LOGGED])
                if message.get("ev") == "product.pinned":
                    frame.pins.append(message[_LOGGED])
            elif message.get("ev") == "message.posted":
                frame.ns.append(message[_CHAT])
        return frame

    def _forget(self) -> None:
        """Keep when pins arrived, and forget the bytes they came in."""
        for frame in self._frames.values():
            for seq in frame.pins:
                self.pins.setdefault(seq, Counter()).update(frame.arrivals)
        self._frames.clear()

    # ── the end ───────────────────────────────────────────────────────────────────────────

    def behind(self, seq: int, n: int) -> int:
        """What all viewers together have not seen up to here."""
        seats = [fd for fd in self._sockets if fd not in self._arriving]
        return sum(max(0, seq - self.logged.at[fd]) + max(0, n - self.chat.at[fd]) for fd in seats)

    def result(self, due: dict[int, float]) -> dict[str, Any]:
        """What was counted; `due` says when each pin, by its seq, was meant to be sent."""
        self._forget()
        bins, spread, timeline = Bins(), {}, Timeline()
        for seq, arrivals in self.pins.items():
            if seq not in due:
                continue
            first, last = min(arrivals) / TICK, max(arrivals) / TICK
            spread[seq] = (due[seq], first, last)
            for tick, times in arrivals.items():
                bins.add((tick / TICK - due[seq]) * 1000, times)
                timeline.add(tick / TICK, (tick / TICK - due[seq]) * 1000, times)
        both = (self.logged, self.chat)
        return {
            "seated": self.seated, "refused": self.refused, "cut": self.cut,
            "told_503": self.told_503, "frames": self.frames,
            "delivered": sum(one.taken for one in both),
            "lost": sum(one.lost for one in both), "doubled": sum(one.doubled for one in both),
            "reordered": sum(one.reordered for one in both),
            "nodes": dict(self.nodes), "bins": bins.counts, "spread": spread,
            "timeline": timeline.counts(),
        }  # fmt: skip

    def close(self) -> None:
        """Cut every connection, leaving nothing to linger."""
        for sock in self._sockets.values():
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            sock.close()
        self._sockets.clear()
        self._epoll.close()


def _masked(payload: bytes, head: int = 0x81) -> bytes:
    """A client's frame of less than 126 bytes; its mask is 0."""
    return bytes((head, 0x80 | len(payload))) + b"\0\0\0\0" + payload

"""Slow viewers: many that never read a byte, some that read slowly, and those who must not notice.

The same fan-out is run twice in one room: without them, then beside them. Then the stuck seats
of one member get what is that member's alone, until the server closes them (4001) and cuts
them; and the slow readers read on, and must have missed nothing.
"""

from __future__ import annotations

import asyncio
import json
import select
import socket
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit
from urllib.request import ProxyHandler, build_opener

import orjson
from rich.console import Console

from bench import fanout
from bench.crew import Boss, Crew
from bench.report import Report
from bench.seat import Seat, join
from bench.target import Target

SERVER_FLAGS: Final = ("--ping-interval-s=3600",)
"""No ping ends a stuck viewer before what it costs was measured."""
RECEIVE_BYTES: Final = 4096
"""What the kernel may keep on the viewers' side, so that the server's side is what fills."""
READS_PER_S: Final = 20
WINDOW: Final = 16
BUYERS: Final = 16
"""Connections that order: commands of one connection run one by one."""
ORDERS_MAX: Final = 20_000
END_MAX_S: Final = 120.0
SETTLE_MAX_S: Final = 60.0
_CLOSES: Final = "liveroom_closes_total{"
_SLOW_CONSUMER: Final = 'code="4001"'
_ENDED: Final = select.POLLHUP | select.POLLERR


@dataclass(frozen=True)
class Plan:
    """What one run does; `stuck` guests and `members` seats never read, `slow` read slowly."""

    viewers: int = 1000
    stuck: int = 1000
    members: int = 20
    slow: int = 20
    slow_bytes_per_s: int = 20_000
    rate: float = 50.0
    seconds: float = 12.0
    event_bytes: int = 480
    processes: int = 1


def run(target: Target, plan: Plan, console: Console, command: str) -> Report:
    """One run against a running server, which must have been started with `SERVER_FLAGS`."""
    room, sku = target.room("slow", stock=100_000)
    fan = fanout.Plan(
        plan.viewers, plan.rate, plan.seconds, "logged", plan.event_bytes, plan.processes
    )
    without = fanout.run(target, fan, console, command, room=room)
    memory = target.memory_bytes()
    spec = {"url": target.url, "room": room, "sku": sku, "token": target.token("buyer")}
    spec |= {name: getattr(plan, name) for name in ("stuck", "members", "slow", "slow_bytes_per_s")}
    crew = Crew(work, [spec], console)
    try:
        crew.hear("sitting down", plan.stuck + plan.members + plan.slow)
        report = fanout.run(target, fan, console, command, room=room)
        held, queued = target.memory_bytes(), _queued_by_kernel(target.url)
        report.figures |= _memory(plan, memory, held, queued)
        crew.say("what is a member's alone")
        closed_s = _await_closes(target.url, plan.members)
        closes = _closes(target.url)
        [stuck] = crew.hear("ending", plan.members)
    finally:
        crew.close()
    report.scenario = "slow_viewers"
    report.parameters = {name: getattr(plan, name) for name in Plan.__dataclass_fields__}
    names = ("p50_ms", "p99_ms", "server_cpu_us_per_delivered")
    report.figures |= {f"{name}_without": without.figures.get(name) for name in names}
    report.figures["p99_ratio"] = round(report.figures["p99_ms"] / without.figures["p99_ms"], 2)
    report.figures |= {
        "closed_4001": closes,
        "cut_after_s": round(max(stuck["ended_s"], default=closed_s) - closed_s, 1),
        "slow_told_to_return": stuck["returning"],
    }
    for name, count in without.faults.items():
        report.faults[name] += count
    for name in ("lost", "doubled", "reordered"):
        report.faults[name] += stuck[name]
    report.faults["not_closed"] = plan.members - closes
    report.faults["not_cut"] = plan.members - len(stuck["ended_s"])
    return report


def _memory(
    plan: Plan, before: int | None, after: int | None, queued: list[int]
) -> dict[str, float]:
    """What the stuck viewers make the server and the kernel hold, all and the worst of them."""
    stuck = plan.stuck + plan.members
    full = [size for size in queued if size]
    figures = {
        "kernel_kb_per_stuck": round(sum(full) / max(1, len(full)) / 1000, 1),
        "kernel_kb_max": round(max(queued, default=0) / 1000, 1),
    }
    if before is not None and after is not None:
        figures["server_kb_per_stuck"] = round((after - before) / stuck / 1000, 1)
    return figures


def _queued_by_kernel(url: str) -> list[int]:
    """For each of the server's connections, the bytes its kernel keeps to be sent."""
    port = f":{urlsplit(url).port:04X}"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return [int(row[4].partition(":")[0], 16) for row in rows if row[1].endswith(port)]


def _closes(url: str) -> int:
    """How many connections the server has closed 4001."""
    with build_opener(ProxyHandler({})).open(f"{url}/metrics", timeout=60) as answer:
        text: str = answer.read().decode()
    return closes_in(text)


def closes_in(metrics: str) -> int:
    """Connections closed 4001, by all workers: each has a label of its own before the code."""
    lines = [line for line in metrics.splitlines() if line.startswith(_CLOSES)]
    return sum(round(float(line.split()[-1])) for line in lines if _SLOW_CONSUMER in line)


def _await_closes(url: str, count: int) -> float:
    """When the first of so many connections was closed 4001; waits for the last, within bounds."""
    first_s, until = 0.0, time.monotonic() + END_MAX_S
    while (closed := _closes(url)) < count and time.monotonic() < until:
        first_s = first_s or (time.monotonic() if closed else 0.0)
        time.sleep(0.1)
    return first_s or time.monotonic()


# ── in the load process ───────────────────────────────────────────────────────────────────


async def work(spec: dict[str, Any], boss: Boss) -> dict[str, Any]:
    """The stuck, the slow, and a buyer whose other seats are stuck."""
    sockets = [_take_a_seat(spec, None) for _ in range(spec["stuck"])]
    boss.progress(spec["stuck"])
    members = [_take_a_seat(spec, spec["token"]) for _ in range(spec["members"])]
    tally = fanout.Tally(*fanout.KINDS["logged"][1:])
    readers = [_Reader(spec, number, tally) for number in range(spec["slow"])]
    reading = [asyncio.create_task(reader.read(), name="reader") for reader in readers]
    await boss.go()
    for reader in readers:
        reader.hurry = True
    ended_s, last = await _end(spec, members)
    await _settle(readers, last)
    for task in reading:
        task.cancel()
    behind = sum(max(0, last + 1 - one.seat.expected) for one in readers if not one.returns)
    for one in sockets:
        one.close()
    return {
        "ended_s": ended_s,
        "returning": sum(one.returns for one in readers),
        "lost": tally.lost + behind,
        "doubled": tally.doubled,
        "reordered": tally.reordered,
    }


def _take_a_seat(spec: dict[str, Any], token: str | None) -> socket.socket:
    """A connection that asks to join, and reads nothing of what follows the handshake."""
    address = urlsplit(spec["url"])
    one = socket.socket()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
    one.settimeout(END_MAX_S)
    one.connect((address.hostname or "", address.port or 80))
    one.sendall(
        f"GET /ws/{spec['room']} HTTP/1.1\r\nHost: {address.netloc}\r\nUpgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
    )
    head = one.recv(1024, socket.MSG_PEEK)
    if not head.startswith(b"HTTP/1.1 101"):
        raise ConnectionError(head.decode(errors="replace"))
    data = {} if token is None else {"token": token}
    payload = json.dumps({"id": 0, "cmd": "room.join", "data": data}).ljust(126).encode()
    one.sendall(b"\x81\xfe" + len(payload).to_bytes(2, "big") + b"\0\0\0\0" + payload)
    return one


class _Reader:
    """A viewer that reads so many bytes a second, until it is told to hurry."""

    def __init__(self, spec: dict[str, Any], number: int, tally: fanout.Tally) -> None:
        self.hurry = False
        self.returns = False
        self.seat = Seat(b"", number)
        self.seat.on_frame = self._take_answer
        self._tally = tally
        self._bytes = spec["slow_bytes_per_s"] // READS_PER_S
        self._socket = _take_a_seat(spec, None)
        self._socket.setblocking(False)

    async def read(self) -> None:
        """Read until the connection ends."""
        loop = asyncio.get_running_loop()
        while data := await loop.sock_recv(self._socket, 65536 if self.hurry else self._bytes):
            self.seat.data_received(data)
            if self.seat.closed:
                break
            if not self.hurry:
                await asyncio.sleep(1 / READS_PER_S)
        self.returns = True

    def _take_answer(self, seat: Seat, payload: bytes) -> None:
        seat.expected = json.loads(payload)[0]["ok"]["seq"] + 1
        seat.on_frame = self._tally.take


async def _end(spec: dict[str, Any], members: list[socket.socket]) -> tuple[list[float], int]:
    """Order until every stuck seat of the buyer's is cut; when each was, and the room's position.

    A connection that was cut is told of by the kernel, whether it is read or not.
    """
    ended_s: list[float] = []
    poll = select.poll()
    for one in members:
        poll.register(one, 0)

    def look() -> bool:
        for place, event in poll.poll(0):
            if event & _ENDED:
                poll.unregister(place)
                ended_s.append(time.monotonic())
        return len(ended_s) == len(members)

    buyers = [
        await join(spec["url"], spec["room"], number, spec["token"]) for number in range(BUYERS)
    ]
    await _order([seat for seat, _ in buyers], spec["sku"], look)
    for one in members:
        one.close()
    return ended_s, int(buyers[-1][1]["seq"])


async def _order(buyers: list[Seat], sku: str, is_over: Callable[[], bool]) -> None:
    """One unit after another, some of them under way at once, until it is over."""
    under_way: set[int] = set()

    def take(_seat: Seat, payload: bytes) -> None:
        if b'"re":' in payload:
            under_way.difference_update(one.get("re") for one in orjson.loads(payload))

    for buyer in buyers:
        buyer.on_frame = take
    number, until = 0, time.monotonic() + END_MAX_S
    while not is_over() and time.monotonic() < until and number < ORDERS_MAX:
        while len(under_way) < WINDOW:
            number += 1
            under_way.add(number)
            data = {"order": str(uuid.uuid4()), "lines": [{"sku": sku, "qty": 1}]}
            payload = json.dumps({"id": number, "cmd": "order.place", "data": data}).encode()
            buyers[number % len(buyers)].send(payload)
        await asyncio.sleep(0.01)


async def _settle(readers: list[_Reader], last: int) -> None:
    """Wait until each reader has seen the last event or was told to return, or for long enough."""
    until = time.monotonic() + SETTLE_MAX_S
    while time.monotonic() < until:
        if all(one.seat.expected > last or one.returns for one in readers):
            return
        await asyncio.sleep(0.02)

"""A huge room: more viewers than one process can hold, over several workers.

A host pins a product every two seconds and a little chat runs beside it. Latency runs from the
moment a pin was meant to be sent to its arrival at each viewer; what counts is the last one.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson
from rich.console import Console

from bench.crew import Boss, Crew
from bench.crowd import Crowd
from bench.fanout import spread
from bench.latency import Bins
from bench.report import Report
from bench.seat import RETURNS_MAX, Seat, join, retry_after_s
from bench.target import Target
from bench.timeline import Timeline

SEATED_MAX_S: Final = 600.0
SETTLE_MAX_S: Final = 30.0
_PAGE: Final = 4096


@dataclass(frozen=True)
class Plan:
    """What one run does; `pins` and `chat` a second."""

    viewers: int = 60_000
    pins: float = 0.5
    chat: float = 0.2
    seconds: float = 20.0
    processes: int = 4


def run(target: Target, plan: Plan, console: Console, command: str) -> Report:
    """One run against a running server with enough workers."""
    room, _ = target.room("huge")
    memory, kernel = target.memory_bytes(), kernel_bytes()
    host = Crew(pin, [_host(target, plan, room)], console)
    crowd = Crew(work, [_spec(target, plan, room, at) for at in range(plan.processes)], console)
    try:
        host.hear("a host", 1)
        began, before = time.monotonic(), target.cpu_s()
        crowd.hear("seating", plan.viewers, within_s=SEATED_MAX_S)
        seated_s, joined = time.monotonic() - began, target.spent_since(before)
        grown, kernel = target.memory_bytes(), kernel_bytes() - kernel
        before, start = target.cpu_s(), time.monotonic() + 1.0
        host.say(start)
        [last] = host.hear("pinning", round(plan.seconds))
        took, spent = time.monotonic() - start, target.spent_since(before)
        crowd.say(last)
        results = crowd.hear("settling", plan.viewers)
    finally:
        host.close()
        crowd.close()
    report = _report(plan, results, command)
    report.figures |= {
        "seated_s": round(seated_s, 1),
        "kernel_kb_per_viewer": round(kernel / plan.viewers / 1000, 1),
        "pins": len(last["due"]),
        "messages": last["n"],
    }
    if memory is not None and grown is not None:
        report.figures |= _costs(plan, report, joined, spent, grown - memory)
        report.figures["server_cpu_percent"] = round(spent["server"] / took * 100, 1)
    return report


def kernel_bytes() -> int:
    """What the kernel holds: its own objects, and the buffers of TCP; of the whole machine."""
    meminfo = Path("/proc/meminfo").read_text()
    [slab] = [int(line.split()[1]) for line in meminfo.splitlines() if line.startswith("Slab:")]
    words = Path("/proc/net/sockstat").read_text().partition("TCP:")[2].split("\n")[0].split()
    return slab * 1024 + int(words[words.index("mem") + 1]) * _PAGE


def _costs(
    plan: Plan, report: Report, joined: dict[str, float], spent: dict[str, float], grown: int
) -> dict[str, Any]:
    delivered = max(1, report.figures["delivered"])
    return {
        "server_kb_per_viewer": round(grown / plan.viewers / 1000, 2),
        "server_cpu_us_per_join": round(joined["server"] / plan.viewers * 1e6, 1),
        "server_cpu_us_per_delivered": round(spent["server"] / delivered * 1e6, 3),
        "store_cpu_us_per_delivered": round(spent["store"] / delivered * 1e6, 3),
    }


def _host(target: Target, plan: Plan, room: str) -> dict[str, Any]:
    token = target.token("host", f"host:{room}")
    rates = {"pins": plan.pins, "chat": plan.chat, "seconds": plan.seconds}
    return {"url": target.url, "room": room, "token": token} | rates


def _spec(target: Target, plan: Plan, room: str, at: int) -> dict[str, Any]:
    share = plan.viewers // plan.processes + (at < plan.viewers % plan.processes)
    return {"url": target.url, "room": room, "viewers": share, "at": at}


def _report(plan: Plan, results: list[dict[str, Any]], command: str) -> Report:
    def total(name: str) -> int:
        return sum(one[name] for one in results)

    bins = Bins().merge(Bins(one["bins"]) for one in results)
    first, last = spread([one["spread"] for one in results])
    nodes: Counter[str] = Counter()
    for one in results:
        nodes.update(one["nodes"])
    figures: dict[str, Any] = {
        "viewers": total("seated"),
        "workers": len(nodes),
        "fullest_worker": max(nodes.values(), default=0),
        "emptiest_worker": min(nodes.values(), default=0),
        "delivered": total("delivered"),
        **bins.figures(),
        "first_viewer_p50_ms": first.percentile(50),
        "first_viewer_p99_ms": first.percentile(99),
        "last_viewer_p50_ms": last.percentile(50),
        "last_viewer_p99_ms": last.percentile(99),
        "told_503": total("told_503"),
        "frames_per_viewer": round(total("frames") / plan.viewers, 1),
        "load_cpu_s": round(sum(one["cpu_s"] for one in results), 2),
    }
    faults = {name: total(name) for name in ("lost", "doubled", "reordered", "refused", "cut")}
    parameters = {name: getattr(plan, name) for name in Plan.__dataclass_fields__}
    timeline = Timeline().merge(Timeline(one["timeline"]) for one in results)
    return Report("huge_room", command, parameters, figures, faults, bins, timeline=timeline)


# ── in the load processes ─────────────────────────────────────────────────────────────────


async def work(spec: dict[str, Any], boss: Boss) -> dict[str, Any]:
    """One load process's viewers: they sit down, watch, and say what they saw."""
    crowd = Crowd(spec, boss)
    crowd.seat_all()
    boss.say("ready")
    last = crowd.watch()
    cpu, until = time.process_time(), time.monotonic() + SETTLE_MAX_S
    while (behind := crowd.behind(last["seq"], last["n"])) and time.monotonic() < until:
        crowd.turn(0.1)
    found = crowd.result(last["due"])
    crowd.close()
    return found | {"lost": found["lost"] + behind, "cpu_s": cpu}


async def pin(spec: dict[str, Any], boss: Boss) -> dict[str, Any]:
    """The host's process: pins and messages at their times; when each pin was due, by its seq."""
    host = _Host()
    seat, ok = await _let_in(spec, host)
    product = ok["snapshot"]["shelf"][0]["id"]
    start = float(await boss.go())
    times = [(at, "product.pin") for at in _times(spec["pins"], spec["seconds"])]
    times += [(at, "message.post") for at in _times(spec["chat"], spec["seconds"])]
    for number, (at, cmd) in enumerate(sorted(times)):
        await asyncio.sleep(max(0.0, start + at - time.monotonic()))
        data = {"product": product} if cmd == "product.pin" else {"text": f"message {number}"}
        host.send(seat, number + 1, cmd, data, start + at)
        boss.progress(round(at))
    async with asyncio.timeout(SETTLE_MAX_S):
        while not host.done:  # noqa: ASYNC110 - events come in bulk
            await asyncio.sleep(0.01)
    return {"due": host.due, "seq": host.seq, "n": host.n}


async def _let_in(spec: dict[str, Any], host: _Host) -> tuple[Seat, dict[str, Any]]:
    """The host's seat: at a full door the host comes again like everybody else."""
    for _ in range(RETURNS_MAX):
        try:
            return await join(spec["url"], spec["room"], 0, spec["token"], on_joined=host.begin)
        except ConnectionError as told:
            after_s = retry_after_s(str(told))
            if after_s is None:
                raise
            await asyncio.sleep(after_s)
    raise ConnectionError("The host was not let in.")


def _times(rate: float, seconds: float) -> list[float]:
    return [number / rate for number in range(round(rate * seconds))]


class _Host:
    """What the host sent, and what came back of it."""

    def __init__(self) -> None:
        self.due: dict[int, float] = {}
        self.seq = self.n = 0
        self._pins: list[float] = []
        self._messages = self._heard = 0

    def begin(self, seat: Seat, ok: dict[str, Any]) -> None:
        """It has joined."""
        self.seq = int(ok["seq"])
        seat.on_frame = self.take

    def send(self, seat: Seat, number: int, cmd: str, data: dict[str, Any], due: float) -> None:
        """One command, meant for `due`."""
        if cmd == "product.pin":
            self._pins.append(due)
        else:
            self._messages += 1
        seat.send(orjson.dumps({"id": number, "cmd": cmd, "data": data}))

    @property
    def done(self) -> bool:
        """Whether everything sent has come back as an event."""
        return len(self.due) == len(self._pins) and self._heard == self._messages

    def take(self, _seat: Seat, payload: bytes) -> None:
        """Find its own among the events: pins come back in the order they were sent."""
        for message in orjson.loads(payload):
            if "error" in message:
                raise RuntimeError(f"the host is refused: {message['error']}")
            if message.get("ev") == "product.pinned":
                self.due[message["seq"]] = self._pins[len(self.due)]
            elif message.get("ev") == "message.posted":
                self._heard += 1
                self.n = message["n"]
            self.seq = message.get("seq", self.seq)

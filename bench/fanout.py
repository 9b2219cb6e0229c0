"""Fan-out: N viewers of one room, events at a fixed rate, every viewer checked.

Latency runs from the moment an event was meant to be sent. All events carry consecutive
numbers (`n` of messages, `seq` of logged events), so each viewer's stream is checked whole:
what is missing is lost, what comes again is doubled, what comes late is out of order.
"""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final

import orjson
from rich.console import Console

from bench.crew import Boss, Crew
from bench.latency import Bins
from bench.report import Report
from bench.seat import Seat, join
from bench.target import Target
from bench.timeline import Timeline

KINDS: Final = {"chat": ("message.post", "message.posted", "n"),
                "logged": ("notice.post", "notice.posted", "seq")}  # fmt: skip
PER_SENDER: Final = 10.0
"""Events a second of one sending connection; commands of one connection run one by one."""
CONNECTS_AT_ONCE: Final = 50
SETTLE_MAX_S: Final = 30.0
REST_S: Final = 1.0
"""What lies between the last join and the first event."""
FRAMES_MAX: Final = 20_000
"""Different frames kept before they are counted into the histogram."""
TICK: Final = 10_000
"""Arrivals are kept in tenths of a millisecond."""


@dataclass(frozen=True)
class Plan:
    """What one run does."""

    viewers: int = 1000
    rate: float = 30.0
    seconds: float = 20.0
    kind: str = "chat"
    event_bytes: int = 120
    processes: int = 1


def run(
    target: Target,
    plan: Plan,
    console: Console,
    command: str,
    *,
    room: str | None = None,
    rooms: int = 1,
    beside: Callable[[float], None] | None = None,
) -> Report:
    """One run against a running server, in a room of its own unless one is given.

    With several `rooms` each has all the viewers and its part of the rate, so that as much is
    delivered in all. `beside` is told when the first event is meant to be sent.
    """
    one = replace(plan, rate=plan.rate / rooms)
    names = [room or target.room("fanout")[0] for _ in range(rooms)]
    specs = [_spec(target, one, name, at) for name in names for at in range(plan.processes)]
    crew = Crew(work, specs, console)
    try:
        crew.hear("connecting", plan.viewers * rooms)
        memory = target.memory_bytes()
        began = time.monotonic()
        crew.say(began + REST_S)
        if beside is not None:
            beside(began + REST_S)
        time.sleep(REST_S - 0.05)  # what is left to do of the joins is not part of the events
        before = target.cpu_s()
        last: dict[str, int] = {}
        for said in crew.hear("sending", _events(plan)):
            last[said["room"]] = max(said["last"], last.get(said["room"], 0))
        crew.say(last)
        results = crew.hear("settling", plan.viewers * rooms)
        took = time.monotonic() - began - REST_S
        spent = target.spent_since(before)
    finally:
        crew.close()
    spent["took"] = took
    if memory is not None:
        spent["memory"] = memory
    return _report(plan, results, command, spent)


def _spec(target: Target, plan: Plan, room: str, at: int) -> dict[str, Any]:
    share = plan.viewers // plan.processes + (at < plan.viewers % plan.processes)
    senders = max(1, math.ceil(plan.rate / PER_SENDER)) if at == 0 else 0
    host = f"host:{room}"
    tokens = [target.token(f"sender-{number}", host) for number in range(senders)]
    spec = {"url": target.url, "room": room, "viewers": share, "tokens": tokens}
    return spec | {name: getattr(plan, name) for name in ("rate", "seconds", "kind", "event_bytes")}


def _events(plan: Plan) -> int:
    return round(plan.rate * plan.seconds)


def _report(
    plan: Plan, results: list[dict[str, Any]], command: str, spent: dict[str, float]
) -> Report:
    def total(name: str) -> int:
        return sum(one[name] for one in results)

    delivered = total("delivered")
    bins = Bins().merge(Bins(one["bins"]) for one in results)
    first, last = spread([one["spread"] for one in results])
    figures: dict[str, Any] = {
        "viewers": total("viewers"),
        "events": total("acked"),
        "delivered": delivered,
        "delivered_per_s": round(delivered / spent["took"]),
        **bins.figures(),
        "first_viewer_p50_ms": first.percentile(50),
        "last_viewer_p50_ms": last.percentile(50),
        "last_viewer_p99_ms": last.percentile(99),
        "frames_per_viewer": round(total("frames") / max(1, total("viewers")), 1),
        "load_cpu_s": round(sum(one["cpu_s"] for one in results), 2),
    }
    if "server" in spent:
        each = max(1, delivered)  # all may be lost, which is then to be told
        figures["server_cpu_us_per_delivered"] = round(spent["server"] / each * 1e6, 3)
        figures["store_cpu_us_per_delivered"] = round(spent["store"] / each * 1e6, 3)
        figures["server_cpu_percent"] = round(spent["server"] / spent["took"] * 100, 1)
        figures["server_memory_mb"] = round(spent["memory"] / 1e6, 1)
    faults = {name: total(name) for name in ("lost", "doubled", "reordered", "refused", "cut")}
    parameters = {name: getattr(plan, name) for name in Plan.__dataclass_fields__}
    timeline = Timeline().merge(Timeline(one["timeline"]) for one in results)
    return Report("fanout", command, parameters, figures, faults, bins, timeline=timeline)


def spread(parts: list[dict[int, tuple[float, float, float]]]) -> tuple[Bins, Bins]:
    """Latency of the first and of the last viewer of each event, over all processes."""
    merged: dict[int, tuple[float, float, float]] = {}
    for part in parts:
        for number, (sent, first, last) in part.items():
            _, one, other = merged.get(number, (sent, first, last))
            merged[number] = (sent, min(first, one), max(last, other))
    firsts, lasts = Bins(), Bins()
    for sent, first, last in merged.values():
        firsts.add((first - sent) * 1000)
        lasts.add((last - sent) * 1000)
    return firsts, lasts


# ── in the load process ───────────────────────────────────────────────────────────────────


async def work(spec: dict[str, Any], boss: Boss) -> dict[str, Any]:
    """One load process: its viewers, and in the first one the senders."""
    tally = Tally(*KINDS[spec["kind"]][1:])
    viewers = await _connect(spec, boss, tally)
    senders = [await Sender.join(spec, token) for token in spec["tokens"]]
    start = await boss.go()
    cpu = time.process_time()
    await _send_all(spec, senders, start, boss)
    acked = sum(one.acked for one in senders)
    lasts = await boss.ask({"room": spec["room"], "last": tally.first + acked - 1})
    last = int(lasts[spec["room"]])
    await _settle(viewers, last)
    tally.count_all()
    return {
        "viewers": len(viewers),
        "acked": sum(one.acked for one in senders),
        "refused": sum(one.refused for one in senders),
        "delivered": sum(seat.count for seat in viewers),
        "frames": tally.frames,
        "lost": tally.lost + sum(max(0, last + 1 - seat.expected) for seat in viewers),
        "doubled": tally.doubled,
        "reordered": tally.reordered,
        "cut": sum(seat.closed is not None for seat in viewers),
        "bins": tally.bins.counts,
        "timeline": tally.timeline.counts(),
        "spread": tally.spread,
        "cpu_s": time.process_time() - cpu,
    }


async def _connect(spec: dict[str, Any], boss: Boss, tally: Tally) -> list[Seat]:
    gate, viewers = asyncio.Semaphore(CONNECTS_AT_ONCE), []

    async def one(number: int) -> None:
        async with gate:
            seat, ok = await join(spec["url"], spec["room"], number)
        seat.expected = tally.first = tally.first_after(ok)
        seat.on_frame = tally.take
        viewers.append(seat)
        if len(viewers) % 50 == 0:
            boss.progress(len(viewers))

    await asyncio.gather(*(one(number) for number in range(spec["viewers"])))
    return viewers


async def _send_all(spec: dict[str, Any], senders: list[Sender], start: float, boss: Boss) -> None:
    """Send every event at its time, in turn over the senders; wait for all the answers."""
    if not senders:
        return
    for number in range(round(spec["rate"] * spec["seconds"])):
        due = start + number / spec["rate"]
        if (ahead := due - time.monotonic()) > 0:
            await asyncio.sleep(ahead)
        senders[number % len(senders)].send(number, due, spec["event_bytes"])
        if number % 50 == 0:
            boss.progress(number)
    async with asyncio.timeout(SETTLE_MAX_S):
        while any(one.unanswered for one in senders):  # noqa: ASYNC110 - answers come in bulk
            await asyncio.sleep(0.01)


async def _settle(viewers: list[Seat], last: int) -> None:
    """Wait until every viewer has seen the last event, or for long enough."""
    until = time.monotonic() + SETTLE_MAX_S
    while time.monotonic() < until:
        if all(seat.expected > last or seat.closed for seat in viewers):
            return
        await asyncio.sleep(0.02)


class Sender:
    """One connection that posts."""

    def __init__(self, seat: Seat, kind: str) -> None:
        self._seat = seat
        self._cmd = KINDS[kind][0]
        self._sent = self.acked = self.refused = 0
        seat.on_frame = self._take

    @classmethod
    async def join(cls, spec: dict[str, Any], token: str) -> Sender:
        """A sender that has joined."""
        seat, _ = await join(spec["url"], spec["room"], 0, token)
        return cls(seat, spec["kind"])

    @property
    def unanswered(self) -> int:
        """Commands without an answer; none once the connection is gone."""
        return 0 if self._seat.closed else self._sent - self.acked - self.refused

    def send(self, number: int, due: float, size: int) -> None:
        """Send one event that was meant for `due`; its text is padded to about `size`."""
        self._sent += 1
        text = f"{number} {due:.6f} ".ljust(size, ".")
        self._seat.send(
            json.dumps({"id": number + 1, "cmd": self._cmd, "data": {"text": text}}).encode()
        )

    def _take(self, _seat: Seat, payload: bytes) -> None:
        if b'"re":' not in payload:
            return
        for message in orjson.loads(payload):
            if "ok" in message:
                self.acked += 1
            elif "error" in message:
                self.refused += 1


@dataclass(slots=True)
class Frame:
    """What one payload holds; all viewers that get the same bytes share it."""

    numbers: list[int]
    sent: list[float]
    in_order: bool
    arrivals: dict[int, int] = field(default_factory=dict)


class Tally:
    """Counts and checks what viewers get, parsing each payload once."""

    def __init__(self, event: str, number: str) -> None:
        self._event = event
        self._field = number
        self._frames: dict[bytes, Frame] = {}
        self.bins = Bins()
        self.timeline = Timeline()
        self.spread: dict[int, tuple[float, float, float]] = {}
        self.first = 0
        self.frames = self.lost = self.doubled = self.reordered = 0

    def first_after(self, ok: dict[str, Any]) -> int:
        """The number of the first event after a join."""
        if self._field == "seq":
            return int(ok["seq"]) + 1
        messages = ok["snapshot"]["messages"]
        return int(messages[-1]["n"]) + 1 if messages else 1

    def take(self, seat: Seat, payload: bytes) -> None:
        """One frame of one viewer."""
        frame = self._frames.get(payload)
        if frame is None:
            frame = self._read(payload)
        numbers = frame.numbers
        if not numbers:
            return
        self.frames += 1
        seat.count += len(numbers)
        tick = int(time.monotonic() * TICK)
        frame.arrivals[tick] = frame.arrivals.get(tick, 0) + 1
        if frame.in_order and numbers[0] == seat.expected:
            seat.expected = numbers[-1] + 1
        else:
            self._check(seat, numbers)

    def _check(self, seat: Seat, numbers: list[int]) -> None:
        for number in numbers:
            if number == seat.expected:
                seat.expected += 1
            elif number > seat.expected:
                self.lost += number - seat.expected
                seat.expected = number + 1
            else:
                # Either it came before, or it was counted as lost and comes late: a fault both
                # ways, and told apart only by what else is counted.
                self.doubled += 1
                self.reordered += 1

    def _read(self, payload: bytes) -> Frame:
        events = [one for one in orjson.loads(payload) if one.get("ev") == self._event]
        numbers = [one[self._field] for one in events]
        sent = [float(one["data"]["text"].split(" ", 2)[1]) for one in events]
        in_order = (
            numbers == list(range(numbers[0], numbers[0] + len(numbers))) if numbers else True
        )
        if len(self._frames) >= FRAMES_MAX:
            self.count_all()
        frame = self._frames[payload] = Frame(numbers, sent, in_order)
        return frame

    def count_all(self) -> None:
        """Count all arrivals so far into the histogram, and forget their payloads."""
        for frame in self._frames.values():
            if not frame.arrivals:
                continue
            first, last = min(frame.arrivals) / TICK, max(frame.arrivals) / TICK
            for number, sent in zip(frame.numbers, frame.sent, strict=True):
                _, one, other = self.spread.get(number, (sent, first, last))
                self.spread[number] = (sent, min(first, one), max(last, other))
                for tick, times in frame.arrivals.items():
                    self.bins.add((tick / TICK - sent) * 1000, times)
                    self.timeline.add(tick / TICK, (tick / TICK - sent) * 1000, times)
        self._frames.clear()

"""The storm after the last unit: orders for what is gone, each to be refused, and quickly.

Every buyer keeps a window of orders under way. The one unit there was is sold before; the run
counts refusals a second, and checks that nobody got anything else.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any, Final

import orjson
import uuid_utils
from rich.console import Console

from bench.crew import Boss, Crew
from bench.drop import check
from bench.latency import Bins
from bench.report import Report
from bench.seat import Seat, join
from bench.target import Target, sign

CONNECTS_AT_ONCE: Final = 50
ANSWERS_MAX_S: Final = 60.0


@dataclass(frozen=True)
class Plan:
    """What one run does; `window` orders of each buyer are under way at once."""

    requests: int = 20_000
    buyers: int = 200
    window: int = 8
    processes: int = 1


def run(target: Target, plan: Plan, console: Console, command: str) -> Report:
    """One run against a running server."""
    room, sku = target.room("storm", stock=1)
    crew = Crew(work, [_spec(target, plan, room, sku, at) for at in range(plan.processes)], console)
    try:
        crew.hear("connecting", plan.buyers)
        last = asyncio.run(_buy_last(target, room, sku))
        before = target.cpu_s()
        crew.say(time.monotonic() + 0.5)
        results = crew.hear("refusing", plan.requests)
        spent = target.spent_since(before)
    finally:
        crew.close()
    faults = check(target, [last], room, sku, 1, sold_out=True)
    return _report(plan, results, spent, faults, command)


def _spec(target: Target, plan: Plan, room: str, sku: str, at: int) -> dict[str, Any]:
    share = plan.requests // plan.processes + (at < plan.requests % plan.processes)
    return {
        "url": target.url, "secret": target.secret, "room": room, "sku": sku,
        "buyers": list(range(at, plan.buyers, plan.processes)), "requests": share,
        "window": plan.window,
    }  # fmt: skip


async def _buy_last(target: Target, room: str, sku: str) -> str:
    """Sell the only unit; the order's id."""
    seat, _ = await join(target.url, room, 0, target.token("first"))
    answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()

    def take(_seat: Seat, payload: bytes) -> None:
        for message in orjson.loads(payload):
            if "re" in message and not answer.done():
                answer.set_result(message)

    seat.on_frame = take
    order = str(uuid_utils.uuid7())
    seat.send(_order(1, order, sku))
    said = await asyncio.wait_for(answer, ANSWERS_MAX_S)
    seat.close()
    if "ok" not in said:
        raise RuntimeError(f"The only unit was not sold: {said}")
    return order


def _order(number: int, order: str, sku: str) -> bytes:
    data = f'{{"order":"{order}","lines":[{{"sku":"{sku}","qty":1}}]}}'
    return f'{{"id":{number},"cmd":"order.place","data":{data}}}'.encode()


def _report(
    plan: Plan,
    results: list[dict[str, Any]],
    spent: dict[str, float],
    faults: dict[str, int],
    command: str,
) -> Report:
    codes: Counter[str] = Counter()
    for one in results:
        codes.update(one["codes"])
    refused = codes.pop("sold_out", 0)
    took = max(one["ended"] for one in results) - min(one["began"] for one in results)
    bins = Bins().merge(Bins(one["bins"]) for one in results)
    figures: dict[str, Any] = {
        "requests": plan.requests,
        "refused": refused,
        "refusals_per_s": round(refused / took),
        **bins.figures(),
        "load_cpu_s": round(sum(one["cpu_s"] for one in results), 2),
    }
    for name, seconds in spent.items():
        figures[f"{name}_cpu_us_per_refusal"] = round(seconds / max(1, refused) * 1e6, 1)
    faults |= {
        "unanswered": plan.requests - refused - sum(codes.values()),
        "other_answers": sum(codes.values()),
    }
    parameters = {name: getattr(plan, name) for name in Plan.__dataclass_fields__}
    report = Report("storm", command, parameters, figures, faults, bins)
    report.notes = [f"{count} × {code}" for code, count in codes.items()]
    return report


# ── in the load process ───────────────────────────────────────────────────────────────────


async def work(spec: dict[str, Any], boss: Boss) -> dict[str, Any]:
    """One load process: its buyers, each with a window of orders under way."""
    gate = asyncio.Semaphore(CONNECTS_AT_ONCE)
    done = asyncio.Event()
    storm = Storm(spec, boss, done)

    async def one(number: int) -> None:
        async with gate:
            token = sign(spec["secret"], f"buyer-{number}")
            seat, _ = await join(spec["url"], spec["room"], number, token)
        seat.on_frame = storm.take
        storm.seats.append(seat)

    await asyncio.gather(*(one(number) for number in spec["buyers"]))
    start = await boss.go()
    cpu = time.process_time()
    await asyncio.sleep(max(0.0, start - time.monotonic()))
    began = time.monotonic()
    storm.begin(spec["window"])
    with contextlib.suppress(TimeoutError):  # what has no answer is counted as a fault
        await asyncio.wait_for(done.wait(), ANSWERS_MAX_S)
    return {
        "codes": dict(storm.codes), "bins": storm.bins.counts, "began": began,
        "ended": time.monotonic(), "cpu_s": time.process_time() - cpu,
    }  # fmt: skip


class Storm:
    """The orders of one process; each answer sends the buyer's next."""

    def __init__(self, spec: dict[str, Any], boss: Boss, done: asyncio.Event) -> None:
        self._boss, self._done = boss, done
        self._requests: int = spec["requests"]
        # Made before the storm, so that making them is no part of it.
        self._orders = [
            _order(number, str(uuid_utils.uuid7()), spec["sku"])
            for number in range(1, self._requests + 1)
        ]
        self._sent_at = [0.0] * (self._requests + 1)
        self._sent = self._answered = 0
        self.seats: list[Seat] = []
        self.codes: Counter[str] = Counter()
        self.bins = Bins()

    def begin(self, window: int) -> None:
        """Send the first orders of every buyer."""
        for _ in range(window):
            for seat in self.seats:
                self._send(seat)

    def take(self, seat: Seat, payload: bytes) -> None:
        """One frame of one buyer."""
        if b'"re":' not in payload:
            return
        now = time.monotonic()
        for message in orjson.loads(payload):
            if "re" not in message:
                continue
            self.bins.add((now - self._sent_at[message["re"]]) * 1000)
            self.codes["ok" if "ok" in message else message["error"]["code"]] += 1
            self._answered += 1
            if self._answered % 500 == 0:
                self._boss.progress(self._answered)
            self._send(seat)
        if self._answered >= self._requests:
            self._done.set()

    def _send(self, seat: Seat) -> None:
        if self._sent < self._requests:
            seat.send(self._orders[self._sent])
            self._sent += 1
            self._sent_at[self._sent] = time.monotonic()

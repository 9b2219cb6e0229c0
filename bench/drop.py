"""Flash sale: N connected buyers order one unit at a time until nothing is left.

Closed loop: each buyer sends the next order once the last one is answered. Open arrival
(`rate`): orders are sent at fixed times, whatever the answers, and latency runs from the time an
order was meant to be sent. Afterwards the orders on disk are compared with the answers.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson
import uuid_utils
from rich.console import Console

from bench import checker
from bench.crew import Boss, Crew
from bench.history import Asked, Line, Recorder, merged, save
from bench.latency import Bins
from bench.peers import orders as plain_orders
from bench.report import Report
from bench.seat import Seat, join
from bench.target import Target, sign
from bench.timeline import Timeline
from bench.watchers import Watchers

CONNECTS_AT_ONCE: Final = 50
RETRY_S: Final = 0.05
ANSWERS_MAX_S: Final = 60.0
PAGE: Final = 100


@dataclass(frozen=True)
class Plan:
    """What one run does; `watchers` sit in the sale's room, or `apart` in a quiet one."""

    buyers: int = 500
    units: int = 2000
    rate: float | None = None
    processes: int = 1
    history: Path | None = None
    watchers: int = 0
    apart: bool = False
    peers: bool = False


def run(target: Target, plan: Plan, console: Console, command: str) -> Report:
    """One run against a running server."""
    room, sku = target.room("drop", stock=plan.units)
    seen = target.room("quiet")[0] if plan.apart else room
    watchers = Watchers(target, [seen], plan.watchers, console)
    crew = Crew(work, [_spec(target, plan, room, sku, at) for at in range(plan.processes)], console)
    try:
        crew.hear("connecting", plan.buyers)
        before = target.cpu_s()
        crew.say(time.monotonic() + 0.5)
        results = crew.hear("ordering", plan.units)
        spent = target.spent_since(before)
    finally:
        crew.close()
        cut = watchers.leave()
    lines = merged(one["history"] for one in results)
    if plan.history is not None:
        save(plan.history, lines)
    acked = [order for one in results for order in one["acked"]]
    codes = Counter(code for one in results for code in one["codes"])
    faults = check(target, acked, room, sku, plan.units, sold_out=codes["sold_out"] > 0)
    faults |= prove(target, room, sku, plan.units, lines)
    faults["watchers_cut"] = cut
    report = _report(plan, results, command, spent, faults)
    if plan.peers:
        specs = [_spec(target, plan, room, sku, at) for at in range(plan.processes)]
        report.figures |= plain_orders.run(work, specs, plan.units, console)
        lost = report.figures["plain_orders"] - report.figures["plain_on_disk"]
        report.faults |= {"plain_lost": max(0, lost)}
    return report


def _spec(target: Target, plan: Plan, room: str, sku: str, at: int) -> dict[str, Any]:
    numbers = list(range(at, plan.buyers, plan.processes))
    rate = None if plan.rate is None else plan.rate / plan.processes
    return {
        "url": target.url, "secret": target.secret, "room": room, "sku": sku, "rate": rate,
        "at": at, "numbers": numbers, "most": plan.units * 2 // plan.processes + 1,
    }  # fmt: skip


def _report(
    plan: Plan,
    results: list[dict[str, Any]],
    command: str,
    spent: dict[str, float],
    faults: dict[str, int],
) -> Report:
    acked = [order for one in results for order in one["acked"]]
    codes = Counter(code for one in results for code in one["codes"])
    began = min(one["began"] for one in results)
    # Refusals after the last unit come at another cost: the rate is that of the sale itself.
    sale_s = max(one["last_ok"] for one in results) - began
    bins = Bins().merge(Bins(one["bins"]) for one in results)
    figures: dict[str, Any] = {
        "buyers": plan.buyers,
        "units": plan.units,
        "orders": len(acked),
        "sold_out": codes["sold_out"],
        "orders_per_s": round(len(acked) / sale_s) if acked else 0,
        "sale_s": round(sale_s, 3),
        **bins.figures(),
        "bar_ms": round(1500 * plan.buyers * sale_s / max(1, len(acked)), 1),
        "load_cpu_s": round(sum(one["cpu_s"] for one in results), 2),
    }
    if acked:
        for name, seconds in spent.items():
            figures[f"{name}_cpu_us_per_order"] = round(seconds / len(acked) * 1e6, 1)
    faults["unanswered"] = sum(one["unanswered"] for one in results)
    faults["refused"] = sum(codes.values()) - codes["sold_out"]
    parameters = {"buyers": plan.buyers, "units": plan.units, "rate": plan.rate}
    parameters |= {"watchers": plan.watchers, "apart": plan.apart}
    timeline = Timeline().merge(Timeline(one["timeline"]) for one in results)
    report = Report("drop", command, parameters, figures, faults, bins, timeline=timeline)
    report.notes = [f"{count} × {code}" for code, count in codes.items() if code != "sold_out"]
    return report


def check(
    target: Target, acked: list[str], room: str, sku: str, units: int, *, sold_out: bool
) -> dict[str, int]:
    """Compare what was answered with what is on disk: every count must be 0."""
    listed = _orders(target, room)
    on_disk = Counter(order["id"] for order in listed)
    sold = sum(line["qty"] for order in listed for line in order["lines"] if line["sku"] == sku)
    audit = target.http("GET", "/v1/audit")
    return {
        "oversold": max(0, sold - units),
        "undersold": max(0, units - sold) if sold_out else 0,
        "lost": len(set(acked) - set(on_disk)),
        "doubled": sum(count - 1 for count in on_disk.values()) + len(acked) - len(set(acked)),
        "unacknowledged": len(set(on_disk) - set(acked)),
        "audit_failures": sum(one["ok"] is False for one in audit["checks"].values()),
    }


def _orders(target: Target, room: str) -> list[dict[str, Any]]:
    """All orders of the room, from the merchant's list."""
    found: list[dict[str, Any]] = []
    after = ""
    while True:
        page = target.http("GET", f"/v1/orders?room={room}&limit={PAGE}{after}")
        found += page["items"]
        if page["next"] is None:
            return found
        after = f"&after={page['next']}"


def prove(target: Target, room: str, sku: str, units: int, lines: Sequence[Line]) -> dict[str, int]:
    """Compare what each client was told, in order, with the books: every count must be 0."""
    books = checker.read_books(lambda path: target.http("GET", path), room, sku)
    return checker.counts(checker.check(lines, books, stock={f"sku:{sku}": units}))


# ── in the load process ───────────────────────────────────────────────────────────────────


async def work(spec: dict[str, Any], boss: Boss) -> dict[str, Any]:
    """One load process: its buyers, from joining to the last answer."""
    sale = Sale(spec, boss)
    await sale.connect()
    start = await boss.go()
    cpu = time.process_time()
    if (ahead := start - time.monotonic()) > 0:
        await asyncio.sleep(ahead)
    sale.began = time.monotonic()
    if spec["rate"] is None:
        await sale.each_in_turn()
    else:
        await sale.at_rate(spec["rate"])
    return sale.result() | {"cpu_s": time.process_time() - cpu}


class Sale:
    """The buyers of one load process and all they were told."""

    def __init__(self, spec: dict[str, Any], boss: Boss) -> None:
        self._spec = spec
        self._boss = boss
        self._seats: list[Seat] = []
        self._calls: dict[int, tuple[Seat, str, float, Asked]] = {}
        self._last_id = 0
        self._over = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._closed_loop = spec["rate"] is None
        self._retrying = 0
        self.began = self.last_ok = time.monotonic()
        self.sold_out = False
        self.acked: list[str] = []
        self.codes: list[str] = []
        self.bins, self.timeline = Bins(), Timeline()
        self.history = Recorder(spec["at"])

    async def connect(self) -> None:
        """Seat every buyer."""
        gate = asyncio.Semaphore(CONNECTS_AT_ONCE)

        async def one(number: int) -> None:
            token = sign(self._spec["secret"], f"buyer-{number}")
            async with gate:
                seat, _ = await join(self._spec["url"], self._spec["room"], number, token)
            seat.on_frame = self._take
            self._seats.append(seat)
            if len(self._seats) % 50 == 0:
                self._boss.progress(len(self._seats))

        await asyncio.gather(*(one(number) for number in self._spec["numbers"]))

    async def each_in_turn(self) -> None:
        """Every buyer orders until told that nothing is left."""
        for seat in self._seats:
            self._order(seat, time.monotonic())
        await self._all_answered()

    async def at_rate(self, rate: float) -> None:
        """Orders at fixed times until nothing is left."""
        start, number = time.monotonic(), 0
        while not self.sold_out and number < self._spec["most"]:
            due = start + number / rate
            if (ahead := due - time.monotonic()) > 0:
                await asyncio.sleep(ahead)
            self._order(self._seats[number % len(self._seats)], due)
            number += 1
        await self._all_answered()

    def result(self) -> dict[str, Any]:
        """What this process has seen."""
        return {
            "acked": self.acked, "codes": self.codes, "bins": self.bins.counts,
            "timeline": self.timeline.counts(),
            "began": self.began, "last_ok": self.last_ok, "unanswered": len(self._calls),
            "history": self.history.lines,
        }  # fmt: skip

    async def _all_answered(self) -> None:
        try:
            async with asyncio.timeout(ANSWERS_MAX_S):
                while self._calls or self._retrying:
                    self._over.clear()
                    await self._over.wait()
        except TimeoutError:
            return  # what has no answer is counted as a fault

    def _order(self, seat: Seat, due: float, order: str | None = None) -> None:
        self._last_id += 1
        order = order or str(uuid_utils.uuid7())
        data = {"order": order, "lines": [{"sku": self._spec["sku"], "qty": 1}]}
        asked = self.history.invoke(f"buyer-{seat.number}", "order.place", data)
        self._calls[self._last_id] = (seat, order, due, asked)
        lines = f'[{{"sku":"{self._spec["sku"]}","qty":1}}]'
        seat.send(
            f'{{"id":{self._last_id},"cmd":"order.place","data":{{"order":"{order}","lines":{lines}}}}}'.encode()
        )

    def _take(self, _seat: Seat, payload: bytes) -> None:
        if b'"re":' not in payload:
            return
        for message in orjson.loads(payload):
            if "re" in message:
                self._answer(message)

    def _answer(self, message: dict[str, Any]) -> None:
        now = time.monotonic()
        seat, order, due, asked = self._calls.pop(message["re"])
        error = message.get("error")
        if error is None:
            self.history.ok(asked, message["ok"]["order"])
            self.bins.add((now - due) * 1000)
            self.timeline.add(now, (now - due) * 1000)
            self.acked.append(order)
            self.last_ok = now
            if len(self.acked) % 50 == 0:
                self._boss.progress(len(self.acked))
        else:
            self.history.refused(asked, error)
            self._refused(error, seat, due, order)
        if error is None and self._closed_loop:
            self._order(seat, now)
        if not self._calls:
            self._over.set()

    def _refused(self, error: dict[str, Any], seat: Seat, due: float, order: str) -> None:
        if error["retry"]:
            self._retrying += 1
            self._loop.call_later(RETRY_S, self._again, seat, due, order)
        else:
            self.codes.append(str(error["code"]))
            self.sold_out = self.sold_out or error["code"] == "sold_out"

    def _again(self, seat: Seat, due: float, order: str) -> None:
        """The same order once more: it has the same id, so it is the same order."""
        self._retrying -= 1
        self._order(seat, due, order)

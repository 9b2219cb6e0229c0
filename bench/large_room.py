"""A large room: many viewers of one room get every event, while somebody buys.

The buyer orders one unit at a time at fixed moments over a connection to the same room; its
replies must not wait behind the fan-out. Latency runs from the intended moment.
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from dataclasses import dataclass
from typing import Any, Final

import orjson
from rich.console import Console

from bench import fanout
from bench.crew import Boss, Crew
from bench.latency import Bins
from bench.report import Report
from bench.seat import Seat, join
from bench.target import Target

ORDERS_PER_S: Final = 10.0
ANSWER_MAX_S: Final = 30.0


@dataclass(frozen=True)
class Plan:
    """What one run does: a fan-out of chat messages, and orders beside it."""

    viewers: int = 15_000
    rate: float = 20.0
    seconds: float = 20.0
    processes: int = 1


def run(target: Target, plan: Plan, console: Console, command: str) -> Report:
    """One run against a running server."""
    room, sku = target.room("large", stock=100_000)
    spec = {"url": target.url, "room": room, "sku": sku, "seconds": plan.seconds}
    buyer = Crew(work, [spec | {"token": target.token("buyer")}], console)
    fan = fanout.Plan(plan.viewers, plan.rate, plan.seconds, processes=plan.processes)
    try:
        buyer.hear("a buyer", 1)
        report = fanout.run(target, fan, console, command, room=room, beside=buyer.say)
        [bought] = buyer.hear("its orders", 1)
    finally:
        buyer.close()
    report.scenario = "large_room"
    report.figures |= {"orders": bought["orders"], **Bins(bought["bins"]).figures("reply_")}
    report.faults["orders_refused"] = bought["refused"]
    return report


async def work(spec: dict[str, Any], boss: Boss) -> dict[str, Any]:
    """The buyer's process."""
    buyer = _Buyer()
    seat, _ = await join(spec["url"], spec["room"], 0, spec["token"])
    seat.on_frame = buyer.take
    start = float(await boss.go())
    for number in range(round(spec["seconds"] * ORDERS_PER_S)):
        due = start + number / ORDERS_PER_S
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        buyer.order(seat, number + 1, due, spec["sku"])
    async with asyncio.timeout(ANSWER_MAX_S):
        while buyer.due:  # noqa: ASYNC110 - answers come in bulk
            await asyncio.sleep(0.01)
    return {"orders": buyer.bins.total, "refused": buyer.refused, "bins": buyer.bins.counts}


class _Buyer:
    """Orders under way, and how long the answered ones took."""

    def __init__(self) -> None:
        self.due: dict[int, float] = {}
        self.bins = Bins()
        self.refused = 0

    def order(self, seat: Seat, number: int, due: float, sku: str) -> None:
        """Order one unit."""
        self.due[number] = due
        data = {"order": str(uuid.uuid4()), "lines": [{"sku": sku, "qty": 1}]}
        seat.send(json.dumps({"id": number, "cmd": "order.place", "data": data}).encode())

    def take(self, _seat: Seat, payload: bytes) -> None:
        """Find the answers among the events."""
        if b'"re":' not in payload:
            return
        now = time.monotonic()
        for message in orjson.loads(payload):
            if message.get("re") in self.due:
                self.bins.add((now - self.due.pop(message["re"])) * 1000)
                self.refused += "error" in message

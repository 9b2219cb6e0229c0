"""A sale of so many units while everything it stands on is killed or emptied, one after another.

Each buyer orders one unit at a time, repeats an order under the same id until it is answered,
returns whenever it is cut off, and stays until some seconds after the last fault. Then what was
answered is compared with what is on disk, and the audit runs.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson
import redis
import uuid_utils
from rich.console import Console

from bench import drop
from bench.crew import Boss, Crew
from bench.history import Recorder, save
from bench.latency import Bins
from bench.report import Report
from bench.seat import Seat, join
from bench.target import Target, sign

CONNECTS_AT_ONCE: Final = 50
RETRY_S: Final = (0.05, 0.25)
"""The least and the most a buyer waits before it tries again, or returns."""
ANSWER_MAX_S: Final = 10.0
RUN_MAX_S: Final = 300.0


@dataclass(frozen=True)
class Plan:
    """What one run does."""

    buyers: int = 300
    units: int = 3000
    stay_s: float = 10.0
    history: Path | None = None


def run(target: Target, plan: Plan, console: Console, command: str) -> Report:
    """One run against a server of our own."""
    room, sku = target.room("kill", stock=plan.units)
    spec = {
        "url": target.url, "secret": target.secret, "room": room, "sku": sku,
        "buyers": plan.buyers, "stay_s": plan.stay_s,
        "at": [plan.units * (1 + at) // (1 + len(FAULTS)) for at in range(len(FAULTS))],
    }  # fmt: skip
    crew = Crew(work, [spec], console)
    try:
        crew.hear("connecting", plan.buyers)
        crew.say(None)
        for name, strike in FAULTS.items():
            crew.hear(f"to {name}", plan.units, within_s=RUN_MAX_S)
            began = time.monotonic()
            strike(target)
            crew.say((began, time.monotonic()))
        [result] = crew.hear("ordering", plan.units, within_s=RUN_MAX_S)
    finally:
        crew.close()
    if plan.history is not None:
        save(plan.history, result["history"])
    acked, codes = result["acked"], Counter(result["codes"])
    faults = drop.check(target, acked, room, sku, plan.units, sold_out=codes["sold_out"] > 0)
    faults |= drop.prove(target, room, sku, plan.units, result["history"])
    return _report(plan, result, command, faults, gates_unchecked=_gates_unchecked(target))


def _kill_everything(target: Target) -> None:
    target.kill()
    target.start()


def _kill_valkey(target: Target) -> None:
    target.kill_valkey()


def _empty_valkey(target: Target) -> None:
    with redis.Redis.from_url(target.redis_url()) as client:
        client.flushall()


FAULTS: Final[dict[str, Callable[[Target], None]]] = {
    "all_killed": _kill_everything,
    "valkey_killed": _kill_valkey,
    "valkey_emptied": _empty_valkey,
}
"""What is done to the server, in this order, at equal parts of the sale."""


def _gates_unchecked(target: Target) -> bool:
    checks = target.http("GET", "/v1/audit")["checks"]
    return "note" in checks["I3"]


def _report(
    plan: Plan,
    result: dict[str, Any],
    command: str,
    faults: dict[str, int],
    *,
    gates_unchecked: bool,
) -> Report:
    acked, codes = result["acked"], Counter(result["codes"])
    normal = dict(zip(FAULTS, result["normal_s"], strict=True))
    everybody = dict(zip(FAULTS, result["everybody_s"], strict=True))
    sale_s = result["last_ok"] - result["began"]
    bins = Bins(result["bins"])
    figures: dict[str, Any] = {
        "buyers": plan.buyers,
        "units": plan.units,
        "orders": len(acked),
        "orders_per_s": round(len(acked) / sale_s) if acked else 0,
        "sale_s": round(sale_s, 3),
        **bins.figures(),
        **{f"{name}_normal_s": _rounded(seconds) for name, seconds in normal.items()},
        **{f"{name}_everybody_s": _rounded(seconds) for name, seconds in everybody.items()},
        "normal_s": _rounded(max(normal.values(), key=lambda s: s or 0.0)),
        "repeated": result["repeated"],
        "cut": result["cut"],
    }
    faults["never_normal"] = sum(seconds is None for seconds in normal.values())
    faults["unanswered"] = result["unanswered"]
    faults["refused"] = sum(codes.values()) - codes["sold_out"]
    faults["gates_unchecked"] = int(gates_unchecked)
    parameters = {"buyers": plan.buyers, "units": plan.units, "stay_s": plan.stay_s}
    report = Report("kill", command, parameters, figures, faults, bins)
    report.notes = [f"{count} × {code}" for code, count in codes.items() if code != "sold_out"]
    return report


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)


# ── in the load process ───────────────────────────────────────────────────────────────────


async def work(spec: dict[str, Any], boss: Boss) -> dict[str, Any]:
    """All buyers, from joining to the last answer after the last fault."""
    sale = Sale(spec, boss)
    gate = asyncio.Semaphore(CONNECTS_AT_ONCE)
    buyers = [Buyer(sale, number) for number in range(spec["buyers"])]

    async def seat(buyer: Buyer) -> None:
        async with gate:
            await buyer.sit()

    await asyncio.gather(*map(seat, buyers))
    await boss.go()
    sale.began = sale.last_ok = time.monotonic()
    faults = asyncio.create_task(sale.have_faults())
    await asyncio.gather(*(buyer.buy() for buyer in buyers))
    await faults
    return sale.result()


@dataclass
class Strike:
    """A fault: when it began, when it was done, and who was answered what they sent since."""

    began: float
    done: float
    normal_s: float | None = None
    everybody_s: float | None = None

    def __post_init__(self) -> None:
        self._served: set[int] = set()

    def serve(self, buyer: int, of: int, *, sold: bool) -> None:
        """One of `of` buyers was told what became of an order sent after this fault."""
        since = time.monotonic() - self.began
        if sold and self.normal_s is None:
            self.normal_s = since
        self._served.add(buyer)
        if self.everybody_s is None and len(self._served) == of:
            self.everybody_s = since


class Sale:
    """What all buyers were told, and the faults meanwhile."""

    def __init__(self, spec: dict[str, Any], boss: Boss) -> None:
        self.spec = spec
        self.boss = boss
        self.began = self.last_ok = time.monotonic()
        self.acked: list[str] = []
        self.codes: list[str] = []
        self.bins = Bins()
        self.strikes: list[Strike] = []
        self.repeated = self.cut = self.unanswered = 0
        self.history = Recorder()
        self._enough = asyncio.Condition()
        self._until: float | None = None

    @property
    def is_over(self) -> bool:
        """Whether the last fault is long enough ago to go when nothing is left."""
        return self._until is not None and time.monotonic() > self._until

    async def have_faults(self) -> None:
        """Ask for each fault once so many units are sold and the one before is over."""
        for at, units in enumerate(self.spec["at"]):
            async with self._enough:
                await self._enough.wait_for(lambda: len(self.acked) >= units)  # noqa: B023
                await self._enough.wait_for(lambda: self._is_normal(at))  # noqa: B023
            began, done = await self.boss.ask(units)
            self.strikes.append(Strike(began, done))
        self._until = time.monotonic() + self.spec["stay_s"]

    def _is_normal(self, strikes: int) -> bool:
        return strikes == 0 or self.strikes[strikes - 1].normal_s is not None

    async def take(self, buyer: int, order: str, first: float, sent: float) -> None:
        """Count an order that was acknowledged; it was first sent at `first`, last at `sent`."""
        now = self.last_ok = time.monotonic()
        self.acked.append(order)
        self.bins.add((now - first) * 1000)
        self.serve(buyer, sent, sold=True)
        if len(self.acked) % 50 == 0:
            self.boss.progress(len(self.acked))
        async with self._enough:
            self._enough.notify_all()

    def serve(self, buyer: int, sent: float, *, sold: bool) -> None:
        """A buyer was told what became of an order: it is there, or nothing is left."""
        for strike in self.strikes:
            if sent > strike.done:
                strike.serve(buyer, self.spec["buyers"], sold=sold)

    def result(self) -> dict[str, Any]:
        """What was seen."""
        return {
            "acked": self.acked, "codes": self.codes, "bins": self.bins.counts,
            "began": self.began, "last_ok": self.last_ok,
            "normal_s": [strike.normal_s for strike in self.strikes],
            "everybody_s": [strike.everybody_s for strike in self.strikes],
            "repeated": self.repeated, "cut": self.cut, "unanswered": self.unanswered,
            "history": self.history.lines,
        }  # fmt: skip


class Buyer:
    """One buyer, who gives an order up only once told that it cannot be."""

    def __init__(self, sale: Sale, number: int) -> None:
        self._sale = sale
        self._number = number
        self._name = f"buyer-{number}"
        self._token = sign(sale.spec["secret"], self._name)
        self._seat: Seat | None = None
        self._last_id = 0

    async def sit(self) -> None:
        """Take a seat in the room."""
        spec = self._sale.spec
        self._seat, _ = await join(spec["url"], spec["room"], self._number, self._token)
        self._seat.on_frame = self._take

    async def buy(self) -> None:
        """Order until nothing is left and the last fault is long enough ago."""
        while (code := await self._order_once(str(uuid_utils.uuid7()))) is None:
            pass
        self._sale.codes.append(code)
        if self._seat is not None:
            self._seat.close()

    async def _order_once(self, order: str) -> str | None:
        """One order, repeated until it is there (None) or cannot be (the code)."""
        first, again = time.monotonic(), False
        while True:
            sent = time.monotonic()
            try:
                error = await self._ask(order, again=again)
            except (ConnectionError, OSError):
                self._sale.cut += 1
                await self._return()
                error = {"code": "cut", "retry": True}
            except TimeoutError:
                self._sale.unanswered += 1
                return "unanswered"
            if error is None:
                await self._sale.take(self._number, order, first, sent)
                return None
            if not error["retry"]:
                self._sale.serve(self._number, sent, sold=False)
            stays = error["code"] == "sold_out" and not self._sale.is_over
            if not (error["retry"] or stays):
                return str(error["code"])
            self._sale.repeated += 1
            again = True
            await asyncio.sleep(random.uniform(*RETRY_S))

    async def _ask(self, order: str, *, again: bool) -> dict[str, Any] | None:
        """The refusal of an order that was sent once, or None: it is there."""
        seat = self._seat
        if seat is None or seat.closed is not None:
            raise ConnectionError
        self._last_id += 1
        seat.waiting = asyncio.get_running_loop().create_future()
        data = {"order": order, "lines": [{"sku": self._sale.spec["sku"], "qty": 1}]}
        command = {"id": self._last_id, "cmd": "order.place", "data": {**data, "again": again}}
        history = self._sale.history
        asked = history.invoke(self._name, "order.place", command["data"])
        seat.send(orjson.dumps(command))
        try:
            async with asyncio.timeout(ANSWER_MAX_S):
                answer = await seat.waiting
        except OSError:  # cut, or without an answer in time
            history.info(asked)
            raise
        error: dict[str, Any] | None = answer.get("error")
        if error is None:
            history.ok(asked, answer["ok"]["order"])
        else:
            history.refused(asked, error)
        return error

    async def _return(self) -> None:
        """Come back as soon as there is a server."""
        if self._seat is not None:
            self._seat.close()
        while True:
            await asyncio.sleep(random.uniform(*RETRY_S))
            try:
                async with asyncio.timeout(ANSWER_MAX_S):
                    return await self.sit()
            except (ConnectionError, OSError):
                continue

    def _take(self, seat: Seat, payload: bytes) -> None:
        is_watching = self._number == 0
        if not is_watching and b'"re":' not in payload:
            return
        for message in orjson.loads(payload):
            if "re" in message:
                if seat.waiting is not None and not seat.waiting.done():
                    seat.waiting.set_result(message)
            elif is_watching and message["ev"] == "stock.changed":
                self._sale.history.saw(self._name, "stock", message["data"])

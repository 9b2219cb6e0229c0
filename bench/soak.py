"""A soak: everything at once for a long time, and the server's memory over it.

Viewers come and go, members chat, a host posts, buyers order and cancel. Every viewer's stream
is checked as in the other scenarios. Memory is sampled every second; after a quarter of the
time, when caches and pools are full, it must not grow by more than the bound.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import orjson
import uuid_utils
from rich.console import Console

from bench.chat_storm import connect_all, settle
from bench.crew import Boss, Crew
from bench.drop import check
from bench.fanout import Sender
from bench.latency import Bins
from bench.report import Report
from bench.seat import Seat, join
from bench.target import Target
from bench.watch import Watch

BUYERS: Final = 10
"""Few, so that what each connection remembers (64 answers) is full before the warm-up ends."""
SENDERS: Final = 10
ANSWERS_MAX_S: Final = 30.0
SAMPLE_S: Final = 1.0
WARM_UP: Final = 0.25
"""The part of the time that memory may still grow in."""
STOCK: Final = 1000


@dataclass(frozen=True)
class Plan:
    """What one run does, a second: chat messages, notices, orders, viewers who come anew."""

    viewers: int = 500
    seconds: float = 600.0
    chat: float = 20.0
    logged: float = 20.0
    orders: float = 5.0
    churn: float = 5.0
    grow_mb_max: float = 8.0
    processes: int = 1


def run(target: Target, plan: Plan, console: Console, command: str) -> Report:
    """One run against a running server."""
    room, sku = target.room("soak", stock=STOCK)
    crew = Crew(work, [_spec(target, plan, room, sku, at) for at in range(plan.processes)], console)
    try:
        crew.hear("connecting", plan.viewers)
        before, began = target.cpu_s(), time.monotonic()
        with _sampled(target) as samples:
            crew.say(began + 0.5)
            said = crew.hear("soaking", round(plan.seconds), within_s=plan.seconds + 120)
            spent, took = target.spent_since(before), time.monotonic() - began
        crew.say({name: max(one[name] for one in said) for name in ("n", "seq")})
        results = crew.hear("settling", plan.viewers)
    finally:
        crew.close()
    cancelled = [order for one in results for order in one["orders"]]
    faults = check(target, cancelled, room, sku, len(cancelled), sold_out=False)
    return _report(plan, results, samples, spent | {"took": took}, faults=faults, command=command)


@contextlib.contextmanager
def _sampled(target: Target) -> Iterator[list[tuple[float, float]]]:
    """The server's memory in MB over time, sampled in a thread while the block runs."""
    samples: list[tuple[float, float]] = []
    over = threading.Event()

    def sample() -> None:
        while not over.is_set():
            memory = target.memory_bytes()
            if memory is not None:
                samples.append((time.monotonic(), memory / 1e6))
            over.wait(SAMPLE_S)

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield samples
    finally:
        over.set()
        thread.join()


def _spec(target: Target, plan: Plan, room: str, sku: str, at: int) -> dict[str, Any]:
    share = plan.viewers // plan.processes + (at < plan.viewers % plan.processes)
    first = at == 0
    return {
        "url": target.url, "room": room, "sku": sku, "viewers": share,
        "seconds": plan.seconds, "chat": plan.chat, "logged": plan.logged,
        "orders": plan.orders, "churn": plan.churn / plan.processes,
        "members": [target.token(f"member-{one}") for one in range(SENDERS)] if first else [],
        "buyers": [target.token(f"buyer-{one}") for one in range(BUYERS)] if first else [],
        "host": target.token("crew", f"host:{room}"),
    }  # fmt: skip


def _report(
    plan: Plan,
    results: list[dict[str, Any]],
    samples: list[tuple[float, float]],
    spent: dict[str, float],
    *,
    faults: dict[str, int],
    command: str,
) -> Report:
    def total(name: str) -> int:
        return sum(one[name] for one in results)

    logged = Bins().merge(Bins(one["logged"]) for one in results)
    chat = Bins().merge(Bins(one["chat"]) for one in results)
    orders = Bins().merge(Bins(one["order_bins"]) for one in results)
    figures: dict[str, Any] = {
        "viewers": plan.viewers,
        "seconds": round(spent.pop("took"), 1),
        "messages": max(one["n"] for one in results),
        "orders": sum(len(one["orders"]) for one in results),
        "came_anew": total("churned"),
        **{
            f"logged_{name}": logged.percentile(at) for name, at in (("p50_ms", 50), ("p99_ms", 99))
        },
        **{f"chat_{name}": chat.percentile(at) for name, at in (("p50_ms", 50), ("p99_ms", 99))},
        **{f"order_{name}": orders.percentile(at) for name, at in (("p50_ms", 50), ("p99_ms", 99))},
    }
    for name, seconds in spent.items():
        figures[f"{name}_cpu_percent"] = round(seconds / figures["seconds"] * 100, 1)
    faults |= {name: faults.get(name, 0) + total(name) for name in
               ("lost", "doubled", "refused", "cut", "unanswered")}  # fmt: skip
    if samples:
        flat = samples[round(len(samples) * WARM_UP) :]
        grown = growth_mb(flat)
        figures |= {
            "memory_start_mb": round(samples[0][1], 1),
            "memory_warm_mb": round(flat[0][1], 1),
            "memory_end_mb": round(flat[-1][1], 1),
            "memory_max_mb": round(max(mb for _, mb in samples), 1),
            "memory_grown_mb": round(grown, 2),
        }
        faults["memory_grew"] = int(grown > plan.grow_mb_max)
    parameters = {name: getattr(plan, name) for name in Plan.__dataclass_fields__}
    report = Report("soak", command, parameters, figures, faults, logged)
    tenths = (
        [samples[len(samples) * at // 10 - (at == 10)][1] for at in range(11)] if samples else []
    )
    report.notes = ["MB at each tenth of the time: " + " ".join(f"{mb:.1f}" for mb in tenths)]
    return report


def growth_mb(samples: list[tuple[float, float]]) -> float:
    """How much a straight line through the samples rises from the first to the last."""
    count = len(samples)
    mean_t = sum(t for t, _ in samples) / count
    mean_mb = sum(mb for _, mb in samples) / count
    spread = sum((t - mean_t) ** 2 for t, _ in samples)
    if spread == 0:
        return 0.0
    slope = sum((t - mean_t) * (mb - mean_mb) for t, mb in samples) / spread
    return slope * (samples[-1][0] - samples[0][0])


# ── in the load process ───────────────────────────────────────────────────────────────────


async def work(spec: dict[str, Any], boss: Boss) -> dict[str, Any]:
    """One load process: its viewers; in the first one also who chats, posts and buys."""
    watch = Watch()
    viewers = await connect_all(spec, boss, watch)
    first_seq = watch.first_seq
    chat = [await Sender.join(spec | {"kind": "chat"}, one) for one in spec["members"]]
    host = [await Sender.join(spec | {"kind": "logged"}, spec["host"])] if chat else []
    buyers = [await Buyer.join(spec, one) for one in spec["buyers"]]
    start = await boss.go()
    churn = Churn(spec, watch, viewers)
    await asyncio.gather(
        _at_rate(spec, start, "chat", chat), _at_rate(spec, start, "logged", host),
        _at_rate(spec, start, "orders", buyers), churn.run(start), _clock(spec, start, boss),
    )  # fmt: skip
    with contextlib.suppress(TimeoutError):  # what has no answer is counted as a fault
        async with asyncio.timeout(ANSWERS_MAX_S):
            while any(one.unanswered for one in (*chat, *host, *buyers)):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
    acked = sum(one.acked for one in chat), sum(one.acked for one in host)
    last = await boss.ask({"n": acked[0], "seq": first_seq + acked[1]})
    await settle(watch, viewers, last["n"], last["seq"])
    seen = [watch.viewers[seat.number] for seat in viewers]
    return {
        "n": last["n"],
        "lost": watch.lost + sum(last["seq"] - one.seq for one in seen)
        + sum(one.hidden + last["n"] - one.n for one in seen),
        "doubled": watch.doubled,
        "refused": sum(one.refused for one in (*chat, *host, *buyers)),
        "unanswered": sum(one.unanswered for one in (*chat, *host, *buyers)),
        "cut": sum(seat.closed is not None for seat in viewers),
        "churned": churn.count,
        "orders": [order for one in buyers for order in one.orders],
        "order_bins": Bins().merge(one.bins for one in buyers).counts,
        "logged": watch.logged.counts, "chat": watch.chat.counts,
    }  # fmt: skip


async def _at_rate(spec: dict[str, Any], start: float, what: str, turns: list[Any]) -> None:
    """Let each in turn send its next, at its time."""
    for number in range(round(spec[what] * spec["seconds"]) if turns else 0):
        due = start + number / spec[what]
        if (ahead := due - time.monotonic()) > 0:
            await asyncio.sleep(ahead)
        turns[number % len(turns)].send(number, due, 80)


async def _clock(spec: dict[str, Any], start: float, boss: Boss) -> None:
    while (gone := time.monotonic() - start) < spec["seconds"]:
        boss.progress(max(0, round(gone)))
        await asyncio.sleep(min(1.0, spec["seconds"] - gone))


class Churn:
    """Viewers who leave, and others who come in their place."""

    def __init__(self, spec: dict[str, Any], watch: Watch, viewers: list[Seat]) -> None:
        self._spec, self._watch, self._viewers = spec, watch, viewers
        self.count = 0

    async def run(self, start: float) -> None:
        """One after another, at the rate."""
        for number in range(round(self._spec["churn"] * self._spec["seconds"])):
            due = start + number / self._spec["churn"]
            if (ahead := due - time.monotonic()) > 0:
                await asyncio.sleep(ahead)
            await self._replace(random.randrange(len(self._viewers)))

    async def _replace(self, at: int) -> None:
        self._viewers[at].close()
        number = self._viewers[at].number
        spec, begin = self._spec, self._watch.begin
        self._viewers[at], _ = await join(spec["url"], spec["room"], number, on_joined=begin)
        self.count += 1


class Buyer:
    """One connection that orders a unit and gives it back with its next turn."""

    def __init__(self, seat: Seat, sku: str) -> None:
        self._seat, self._sku = seat, sku
        self._sent_at: dict[int, float] = {}
        self._open: str | None = None
        self._last_id = self.refused = 0
        self.orders: list[str] = []
        self.bins = Bins()
        seat.on_frame = self._take

    @classmethod
    async def join(cls, spec: dict[str, Any], token: str) -> Buyer:
        """A buyer who has joined."""
        seat, _ = await join(spec["url"], spec["room"], 0, token)
        return cls(seat, spec["sku"])

    @property
    def unanswered(self) -> int:
        """Commands without an answer; none once the connection is gone."""
        return 0 if self._seat.closed else len(self._sent_at)

    def send(self, _number: int, due: float, _size: int) -> None:
        """Order, or cancel what was ordered last."""
        if self._open is None:
            self._open = str(uuid_utils.uuid7())
            self.orders.append(self._open)
            lines = [{"sku": self._sku, "qty": 1}]
            self._say(due, "order.place", {"order": self._open, "lines": lines})
        else:
            order, self._open = self._open, None
            self._say(due, "order.cancel", {"order": order})

    def _say(self, due: float, cmd: str, data: dict[str, Any]) -> None:
        self._last_id += 1
        self._sent_at[self._last_id] = due
        self._seat.send(orjson.dumps({"id": self._last_id, "cmd": cmd, "data": data}))

    def _take(self, _seat: Seat, payload: bytes) -> None:
        if b'"re":' not in payload:
            return
        for message in orjson.loads(payload):
            if "re" in message:
                self.bins.add((time.monotonic() - self._sent_at.pop(message["re"])) * 1000)
                self.refused += "error" in message

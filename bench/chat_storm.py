"""A chat storm: far more messages than a room shows, and logged events in between.

The room's budget (`chat_per_s_max`) thins the chat. What must hold: logged events reach every
viewer, in order and as soon as ever; all viewers of a worker see the same sample; the jumps in
`n` account for every message that is not shown; every author is shown, and the one who floods
not more than the others have left over.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any, Final

from rich.console import Console

from bench.crew import Boss, Crew
from bench.fanout import CONNECTS_AT_ONCE, SETTLE_MAX_S, Sender
from bench.latency import Bins
from bench.report import Report
from bench.seat import Seat, join
from bench.target import Target
from bench.watch import Watch

CALM_S: Final = 1.2
"""Longer than the budget's bucket takes to fill, so that the last message is surely shown."""
FAIR_SHARE: Final = 3
"""With so many times more room than authors, every one of them must have been shown."""


@dataclass(frozen=True)
class Plan:
    """What one run does; author 0 posts `flood` times as much as each of the others."""

    viewers: int = 1000
    authors: int = 100
    rate: float = 1000.0
    budget: int = 50
    logged: float = 5.0
    seconds: float = 15.0
    flood: int = 10
    processes: int = 1
    workers: int = 1


def run(target: Target, plan: Plan, console: Console, command: str) -> Report:
    """One run against a running server."""
    room, _ = target.room("storm")
    change = {"cmd": "room.set", "data": {"chat_per_s_max": plan.budget}}
    target.http("POST", f"/v1/rooms/{room}/commands", change)
    crew = Crew(work, [_spec(target, plan, room, at) for at in range(plan.processes)], console)
    try:
        crew.hear("connecting", plan.viewers)
        before = target.cpu_s()
        crew.say(time.monotonic() + 1.0)
        said = crew.hear("storming", round(plan.rate * plan.seconds))
        crew.say({name: max(one[name] for one in said) for name in ("n", "seq")})
        results = crew.hear("settling", plan.viewers)
        spent = target.spent_since(before)
    finally:
        crew.close()
    return _report(plan, results, spent, command)


def _spec(target: Target, plan: Plan, room: str, at: int) -> dict[str, Any]:
    share = plan.viewers // plan.processes + (at < plan.viewers % plan.processes)
    # Commands of one connection run one by one, so who floods does it over several.
    flooder = [target.token("author-0")] * plan.flood
    authors = flooder + [target.token(f"author-{number}") for number in range(1, plan.authors)]
    return {
        "url": target.url, "room": room, "viewers": share, "rate": plan.rate,
        "logged": plan.logged, "seconds": plan.seconds, "flood": plan.flood,
        "authors": authors if at == 0 else [], "host": target.token("crew", f"host:{room}"),
    }  # fmt: skip


def _report(
    plan: Plan, results: list[dict[str, Any]], spent: dict[str, float], command: str
) -> Report:
    posted = max(one["posted"] for one in results)
    viewers = [viewer for one in results for viewer in one["viewers"]]
    shown = max(shown for shown, _, _, _ in viewers)
    samples = Counter(digest for _, _, _, digest in viewers)
    took = max(one["took"] for one in results)
    logged = Bins().merge(Bins(one["logged"]) for one in results)
    chat = Bins().merge(Bins(one["chat"]) for one in results)
    by_author = [results[0]["authors"].get(f"author-{at}", 0) for at in range(plan.authors)]
    others = by_author[1:] or by_author
    figures: dict[str, Any] = {
        "viewers": len(viewers),
        "posted": posted,
        "posted_per_s": round(posted / plan.seconds),
        "shown": shown,
        "hidden": posted - shown,
        **logged.figures("logged_"),
        **chat.figures("chat_"),
        "flooder_shown": by_author[0],
        "other_shown_min": min(others),
        "other_shown_max": max(others),
        "fairness": round(_fairness(others), 3),
    }
    for name, seconds in spent.items():
        figures[f"{name}_cpu_us_per_posted"] = round(seconds / posted * 1e6, 1)
    roomy = plan.budget * plan.seconds >= FAIR_SHARE * plan.authors
    faults = {name: sum(one[name] for one in results) for name in
              ("lost", "doubled", "refused", "cut")}  # fmt: skip
    faults |= {
        "unaccounted": sum(n != posted or s + hidden != posted for s, hidden, n, _ in viewers),
        "samples_differ": max(0, len(samples) - plan.workers),
        "over_budget": max(0, shown - round(plan.budget * (took + 1)) - 1),
        "starved": sum(count == 0 for count in by_author) if roomy else 0,
    }
    parameters = {name: getattr(plan, name) for name in Plan.__dataclass_fields__}
    return Report("chat_storm", command, parameters, figures, faults, logged)


def _fairness(shares: list[int]) -> float:
    """Jain's index: 1 when all are shown equally often, 1/n when only one is."""
    squares = sum(share * share for share in shares)
    return sum(shares) ** 2 / (len(shares) * squares) if squares else 1.0


# ── in the load process ───────────────────────────────────────────────────────────────────


async def work(spec: dict[str, Any], boss: Boss) -> dict[str, Any]:
    """One load process: its viewers, and in the first one the authors and the host."""
    watch = Watch()
    viewers = await connect_all(spec, boss, watch)
    authors = [await Sender.join(spec | {"kind": "chat"}, one) for one in spec["authors"]]
    start = await boss.go()
    host = None
    if authors:
        host = await Sender.join(spec | {"kind": "logged"}, spec["host"])
        await _storm(spec, authors, host, start, boss)
    posted, noted = sum(one.acked for one in authors), host.acked if host else 0
    last = await boss.ask({"n": posted, "seq": watch.first_seq + noted})
    await settle(watch, viewers, last["n"], last["seq"])
    senders = [*authors, *([host] if host else [])]
    return {
        "posted": last["n"],
        "viewers": [(one.shown, one.hidden, one.n, one.digest) for one in watch.viewers.values()],
        "authors": dict(watch.authors),
        "lost": watch.lost + sum(last["seq"] - one.seq for one in watch.viewers.values()),
        "doubled": watch.doubled,
        "refused": sum(one.refused for one in senders),
        "cut": sum(seat.closed is not None for seat in viewers),
        "logged": watch.logged.counts,
        "chat": watch.chat.counts,
        "took": time.monotonic() - start,
    }


async def connect_all(spec: dict[str, Any], boss: Boss, watch: Watch) -> list[Seat]:
    """The viewers of this process, joined and watched."""
    gate, viewers = asyncio.Semaphore(CONNECTS_AT_ONCE), []

    async def one(number: int) -> None:
        async with gate:
            seat, _ = await join(spec["url"], spec["room"], number, on_joined=watch.begin)
        viewers.append(seat)
        if len(viewers) % 50 == 0:
            boss.progress(len(viewers))

    await asyncio.gather(*(one(number) for number in range(spec["viewers"])))
    return viewers


async def _storm(
    spec: dict[str, Any], authors: list[Sender], host: Sender, start: float, boss: Boss
) -> None:
    """Everything at its time; then, when all is calm, one message that must be shown."""
    chat = _at_rate(spec["rate"], spec["seconds"], start, _deal(authors, spec["flood"]), boss)
    notices = _at_rate(spec["logged"], spec["seconds"], start, [host], None)
    await asyncio.gather(chat, notices)
    await _answered([*authors, host])
    await asyncio.sleep(CALM_S)
    authors[-1].send(0, time.monotonic(), 40)
    await _answered(authors)


def _deal(authors: list[Sender], flood: int) -> list[Sender]:
    """Whose turn it is: the connections of author 0 are spread evenly among the others."""
    flooder, others = authors[:flood], authors[flood:]
    turns: list[Sender] = []
    for at, one in enumerate(flooder):
        turns.append(one)
        turns += others[at * len(others) // flood : (at + 1) * len(others) // flood]
    return turns


async def _at_rate(
    rate: float, seconds: float, start: float, turns: list[Sender], boss: Boss | None
) -> None:
    for number in range(round(rate * seconds)):
        due = start + number / rate
        if (ahead := due - time.monotonic()) > 0:
            await asyncio.sleep(ahead)
        turns[number % len(turns)].send(number, due, 60)
        if boss is not None and number % 100 == 0:
            boss.progress(number)


async def _answered(senders: list[Sender]) -> None:
    async with asyncio.timeout(SETTLE_MAX_S):
        while any(one.unanswered for one in senders):  # noqa: ASYNC110 - answers come in bulk
            await asyncio.sleep(0.01)


async def settle(watch: Watch, viewers: list[Seat], n: int, seq: int) -> None:
    """Wait until every viewer has seen the last message and the last event, or long enough."""
    until = time.monotonic() + SETTLE_MAX_S
    open_ = [seat for seat in viewers if seat.closed is None]
    while time.monotonic() < until:
        seen = (watch.viewers[seat.number] for seat in open_)
        if all(one.n >= n and one.seq >= seq for one in seen):
            return
        await asyncio.sleep(0.02)

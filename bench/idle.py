"""Idle viewers: what each costs to let in, to keep, and to leave alone.

Memory is what the server's processes grow by between a first few viewers, which fill its
caches and pools, and the last; the kernel's socket buffers are not in it.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any, Final

from rich.console import Console

from bench.crew import Boss, Crew
from bench.latency import Bins
from bench.report import Report
from bench.seat import Seat, join
from bench.target import Target, sign

CONNECTS_AT_ONCE: Final = 50
FIRST: Final = 0.1
"""The part of the viewers that comes before the first measurement."""


@dataclass(frozen=True)
class Plan:
    """What one run does; `members` have tokens, the others are guests."""

    viewers: int = 5000
    seconds: float = 10.0
    members: bool = False
    processes: int = 1


def run(target: Target, plan: Plan, console: Console, command: str) -> Report:
    """One run against a running server."""
    room, _ = target.room("idle")
    crew = Crew(work, [_spec(target, plan, room, at) for at in range(plan.processes)], console)
    few = round(plan.viewers * FIRST)
    try:
        crew.hear("the first", few)
        memory, before = target.memory_bytes(), target.cpu_s()
        crew.say("the others")
        crew.hear("connecting", plan.viewers)
        joined, grown = target.spent_since(before), target.memory_bytes()
        before, began = target.cpu_s(), time.monotonic()
        crew.say(plan.seconds)
        results = crew.hear("keeping", plan.viewers)
        idle, took = target.spent_since(before), time.monotonic() - began
    finally:
        crew.close()
    bins = Bins().merge(Bins(one["bins"]) for one in results)
    more = plan.viewers - few
    figures: dict[str, Any] = {"viewers": plan.viewers, **bins.figures("join_")}
    if memory is not None and grown is not None:
        figures |= {
            "server_kb_per_viewer": round((grown - memory) / more / 1000, 2),
            "server_cpu_us_per_join": round(joined["server"] / more * 1e6, 1),
            "store_cpu_us_per_join": round(joined["store"] / more * 1e6, 1),
            "server_cpu_us_per_viewer_s": round(idle["server"] / plan.viewers / took * 1e6, 3),
        }
    parameters = {name: getattr(plan, name) for name in Plan.__dataclass_fields__}
    faults = {"cut": sum(one["cut"] for one in results)}
    return Report("idle", command, parameters, figures, faults, bins)


def _spec(target: Target, plan: Plan, room: str, at: int) -> dict[str, Any]:
    share = plan.viewers // plan.processes + (at < plan.viewers % plan.processes)
    secret = target.secret if plan.members else None
    return {"url": target.url, "room": room, "viewers": share, "at": at, "secret": secret}


async def work(spec: dict[str, Any], boss: Boss) -> dict[str, Any]:
    """One load process: some viewers, then all of them, then nothing for a while."""
    seats: list[Seat] = []
    bins = Bins()
    gate = asyncio.Semaphore(CONNECTS_AT_ONCE)

    async def one(number: int) -> None:
        secret, sub = spec["secret"], f"viewer-{spec['at']}-{number}"
        token = None if secret is None else sign(secret, sub)
        async with gate:
            began = time.monotonic()
            seats.append((await join(spec["url"], spec["room"], number, token))[0])
            bins.add((time.monotonic() - began) * 1000)
        if len(seats) % 50 == 0:
            boss.progress(len(seats))

    few = round(spec["viewers"] * FIRST)
    await asyncio.gather(*(one(number) for number in range(few)))
    await boss.go()
    await asyncio.gather(*(one(number) for number in range(few, spec["viewers"])))
    await asyncio.sleep(float(await boss.ask("joined")))
    return {"cut": sum(seat.closed is not None for seat in seats), "bins": bins.counts}

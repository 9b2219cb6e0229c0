"""What more costs: the same load on 1 and 2 workers, and ten times the load on one.

Each line of a comparison has a server of its own, started anew; figures are CPU of the server
and its store for each delivered event or order, so they can be compared whatever the machine
does besides.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Final

from rich.console import Console

from bench import drop, fanout
from bench.latency import Bins
from bench.report import Report
from bench.target import Target
from bench.watchers import Watchers

Open = Callable[[int], AbstractContextManager[Target]]
"""A server of our own with so many workers."""
TENFOLD: Final = 10


@dataclass(frozen=True)
class Workers:
    """The load that 1 and 2 workers get.

    The sale is long enough that what each worker compiles for its first orders does not count.
    """

    viewers: int = 1000
    rate: float = 300.0
    seconds: float = 8.0
    buyers: int = 500
    units: int = 20_000
    processes: int = 1


@dataclass(frozen=True)
class Growth:
    """The load that is made ten times as large, and the rooms in which nothing happens."""

    viewers: int = 200
    rate: float = 20.0
    seconds: float = 8.0
    rooms: int = 1000
    processes: int = 1


def workers(opened: Open, plan: Workers, console: Console, command: str) -> Report:
    """Fan-out and a flash drop with 1 and with 2 workers."""
    report = Report("workers", command, dict(vars(plan)), {}, {}, Bins())
    spread = fanout.Plan(plan.viewers, plan.rate, plan.seconds, processes=plan.processes)
    sale = drop.Plan(plan.buyers, plan.units, processes=plan.processes)
    for count in (1, 2):
        console.print(f"{count} worker{'s' * (count > 1)} …", style="dim")
        with opened(count) as target:
            _add(report, f"fanout_{count}", fanout.run(target, spread, console, ""))
        with opened(count) as target:
            _add(report, f"drop_{count}", drop.run(target, sale, console, ""))
    for name in ("fanout", "drop"):
        report.figures[f"{name}_ratio"] = _ratio(report, f"{name}_2", f"{name}_1")
    return report


def growth(opened: Open, plan: Growth, console: Console, command: str) -> Report:
    """Ten times the viewers, the events, the rooms of the same load, and idle rooms beside it.

    `rooms` are open with nobody in them, `seated` with one viewer each.
    """
    report = Report("growth", command, dict(vars(plan)), {}, {}, Bins())
    runs = {
        "base": (plan.viewers, plan.rate, 1, 0),
        "viewers": (plan.viewers * TENFOLD, plan.rate, 1, 0),
        "events": (plan.viewers, plan.rate * TENFOLD, 1, 0),
        "active": (plan.viewers, plan.rate, TENFOLD, 0),
        "rooms": (plan.viewers, plan.rate, 1, plan.rooms),
        "seated": (plan.viewers, plan.rate, 1, plan.rooms),
    }
    for name, (viewers, rate, rooms, idle) in runs.items():
        console.print(
            f"{name}: {viewers} viewers in each of {rooms} rooms, {rate:g} events/s in all, "
            f"{idle} idle rooms{' with a viewer each' * (name == 'seated')} …"
        )
        load = fanout.Plan(viewers, rate, plan.seconds, processes=plan.processes)
        with opened(1) as target:
            quiet = _open_rooms(target, idle)
            watchers = Watchers(target, quiet, idle if name == "seated" else 0, console)
            try:
                _add(report, name, fanout.run(target, load, console, "", rooms=rooms))
            finally:
                report.faults["cut"] = report.faults.get("cut", 0) + watchers.leave()
        if name != "base":
            report.figures[f"{name}_ratio"] = _ratio(report, name, "base")
    return report


def _open_rooms(target: Target, rooms: int) -> list[str]:
    """Live rooms in which nothing happens."""
    host = f"idle-{secrets.token_hex(4)}"
    names = [f"{host}-{number}" for number in range(rooms)]
    if names:
        target.http("POST", "/v1/creators", {"id": host, "name": "Bench"})
    for name in names:
        target.http("POST", "/v1/rooms", {"id": name, "title": "Idle", "host": host})
        target.http("POST", f"/v1/rooms/{name}/commands", {"cmd": "room.open", "data": {}})
    return names


def _add(report: Report, name: str, one: Report) -> None:
    """Take over what a run cost and found."""
    per = "order" if one.scenario == "drop" else "delivered"
    found: dict[str, Any] = one.figures
    cost = found[f"server_cpu_us_per_{per}"] + found[f"store_cpu_us_per_{per}"]
    report.figures[f"{name}_us"] = round(cost, 3)
    report.figures[f"{name}_p99_ms"] = found["p99_ms"]
    report.faults |= {f"{name}_{fault}": count for fault, count in one.faults.items() if count}
    report.faults["faults"] = report.faults.get("faults", 0) + sum(one.faults.values())


def _ratio(report: Report, more: str, less: str) -> float:
    return round(report.figures[f"{more}_us"] / max(1e-9, report.figures[f"{less}_us"]), 3)

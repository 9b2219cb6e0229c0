"""The peers one after another under the same load, and one table of what each costs."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from bench import fanout
from bench.cores import Cores
from bench.crew import Crew
from bench.fanout import spread
from bench.latency import Bins
from bench.peers.load import work
from bench.peers.servers import Load, Peer, peers, running
from bench.report import Report
from bench.target import Target, Unusable

OURS: Final = Peer("liveroom", "liveroom, with its Valkey")
SERVER: Final = Peer("liveroom_server", "liveroom, its server alone")
"""Ours again, as the others are measured and as the bar of fan-out is: the server's process."""
Found = tuple[list[tuple[Peer, dict[str, Any]]], dict[str, int]]
"""Rows of the table with their figures, and what must be 0."""
COLUMNS: Final = ("us", "p50_ms", "p99_ms", "last_viewer_p50_ms", "frames_per_event")


@dataclass
class Comparison(Report):
    """A report whose figures are `<peer>_<figure>`, printed as one table."""

    titles: dict[str, str] = field(default_factory=dict)

    def show(self, console: Console) -> None:
        """One row for each peer."""
        table = Table(title=self.command, title_justify="left")
        table.add_column("server", no_wrap=True)
        for name in ("µs CPU", "p50 ms", "p99 ms", "last ms", "frames"):
            table.add_column(name, justify="right")
        for name, title in self.titles.items():
            table.add_row(title, *(str(self.figures[f"{name}_{column}"]) for column in COLUMNS))
        console.print(table)
        faults = {name: count for name, count in self.faults.items() if count}
        console.print(f"faults: {faults}" if faults else "nothing lost, doubled or cut")
        for note in self.notes:
            console.print(note, style="yellow")


def run(
    load: Load, only: tuple[str, ...], open_target: Callable[[], Target], console: Console,
    command: str,
) -> Report:  # fmt: skip
    """Every peer that is installed (or those in `only`), and liveroom, one after another.

    The floor comes first and last, and its CPU is the mean of both: a machine has better and
    worse minutes, and everything is compared with it. A name in `only` that nobody has is
    `Unusable`.
    """
    report = Comparison("peers", command, dict(vars(load)), {}, {}, Bins())
    with tempfile.TemporaryDirectory(prefix="liveroom-peers-") as folder, Cores() as cores:
        floor, *others = peers(load, Path(folder))
        for peer in _named(only, [floor, *others, OURS, floor]):
            if peer.missing is not None:
                note = f"{peer.title} is not installed: {peer.missing}"
                if note not in report.notes:
                    report.notes.append(note)
                continue
            console.print(f"{peer.title} …", style="dim")
            found, faults = (
                _ours(load, open_target, console, cores)
                if peer is OURS
                else _one(peer, load, console, cores)
            )
            for row, figures in found:
                if row.name in report.titles:
                    figures["us"] = round((report.figures[f"{row.name}_us"] + figures["us"]) / 2, 2)
                report.titles[row.name] = row.title
                report.figures |= {f"{row.name}_{name}": value for name, value in figures.items()}
            for name, count in faults.items():
                key = f"{peer.name}_{name}"
                report.faults[key] = report.faults.get(key, 0) + count
    floor_us = report.figures.get("floor_us")
    if floor_us:
        for name in report.titles:
            report.figures[f"{name}_x_floor"] = round(report.figures[f"{name}_us"] / floor_us, 2)
    return report


def _named(only: tuple[str, ...], every: list[Peer]) -> list[Peer]:
    """Those whose names are in `only`, or all of them where it is empty."""
    if unknown := set(only) - {peer.name for peer in every}:
        raise Unusable(f"--only: no such server: {', '.join(sorted(unknown))}")
    return [peer for peer in every if not only or peer.name in only]


def _one(peer: Peer, load: Load, console: Console, cores: Cores) -> Found:
    with ExitStack() as ends:
        with cores.serving():
            server = ends.enter_context(running(peer, load))
        spec = {"url": server.url, "path": server.path, "events": load.events}
        crew = Crew(work, [spec | {"viewers": load.viewers, "seconds": load.seconds}], console)
        try:
            crew.hear("connecting", load.viewers)
            before = server.cpu_s()
            start = time.monotonic() + 1.0
            server.go(start)
            crew.say(start)
            (seen,) = crew.hear("delivering", load.events * load.viewers)
            spent = server.cpu_s() - before
        finally:
            crew.close()
    first, last = spread([seen["spread"]])
    bins = Bins(seen["bins"])
    figures = {
        "us": round(spent / max(1, seen["delivered"]) * 1e6, 2),
        "p50_ms": bins.percentile(50),
        "p99_ms": bins.percentile(99),
        "first_viewer_p50_ms": first.percentile(50),
        "last_viewer_p50_ms": last.percentile(50),
        "frames_per_event": round(seen["frames"] / load.viewers / load.events, 2),
    }
    return [(peer, figures)], {name: seen[name] for name in ("lost", "doubled", "cut")}


def _ours(load: Load, open_target: Callable[[], Target], console: Console, cores: Cores) -> Found:
    """The same through the whole server: posted by command, logged in Valkey, resumable."""
    plan = fanout.Plan(
        load.viewers, float(load.rate), float(load.seconds), "logged", load.event_bytes
    )
    with ExitStack() as ends:
        with cores.serving():
            target = ends.enter_context(open_target())
        report = fanout.run(target, plan, console, "")
    found = report.figures
    server_us, store_us = (found[f"{of}_cpu_us_per_delivered"] for of in ("server", "store"))
    figures = {
        "p50_ms": found["p50_ms"],
        "p99_ms": found["p99_ms"],
        "first_viewer_p50_ms": found["first_viewer_p50_ms"],
        "last_viewer_p50_ms": found["last_viewer_p50_ms"],
        "frames_per_event": round(found["frames_per_viewer"] / load.events, 2),
    }
    rows = [
        (SERVER, {"us": round(server_us, 2), **figures}),
        (OURS, {"us": round(server_us + store_us, 2), **figures}),
    ]
    return rows, {name: report.faults[name] for name in ("lost", "doubled", "cut")}

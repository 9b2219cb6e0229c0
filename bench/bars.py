"""Every bar at its real size, one scenario after another, and one table: `make bench`.

Each runs as a process of its own with a bound on its time, so that one that hangs costs its own
bar and no other. Some twenty minutes on two quiet cores; a machine that does other things at the
same time makes times worse, CPU figures hardly. What a bar compares with another run of the same
minute swings with both: such a scenario runs three times, and the median of each figure decides.
"""

from __future__ import annotations

import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from rich.console import Console
from rich.table import Table

STOP_MAX_S: Final = 45.0
LEAST_S: Final = 20.0
"""With less time left a run is not begun."""
COMPARED_TIMES: Final = 3
AIM, MUST, SHORT, MISSED, FAULTS, NOT_RUN = "aim", "must", "short", "MISSED", "FAULTS", "NOT RUN"
_ROOT: Final = Path(__file__).parent.parent
_PEERS: Final = ("floor", "nchan", "ws", "websockets_broadcast", "liveroom")


class Bar(NamedTuple):
    """What a figure must be, and what it should be: at most, or at least."""

    figure: str
    must: float | None
    aim: float | None = None
    least: bool = False

    def holds(self, value: float, bound: float) -> bool:
        """Whether a value is on the right side of a bound."""
        return value >= bound if self.least else value <= bound

    def judge(self, value: float | None) -> str:
        """The verdict on a figure; one that was not measured is missed."""
        if value is None:
            return MISSED if self.must is not None else SHORT
        if self.must is not None and not self.holds(value, self.must):
            return MISSED
        if self.aim is not None and self.holds(value, self.aim):
            return AIM
        return SHORT if self.must is None else MUST


class Run(NamedTuple):
    """One scenario, the bars it decides, the time that one run may take, and how many there are."""

    words: tuple[str, ...]
    bars: tuple[Bar, ...]
    within_s: float
    times: int = 1


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    bar: str
    figure: str
    value: float | None
    runs: tuple[float | None, ...]
    must: str
    aim: str
    verdict: str
    beside: str
    command: str


BARS: Final[dict[str, Run]] = {
    "fan-out, loaded": Run(
        ("fanout", "--viewers=1000", "--rate=300", "--seconds=10"),
        (Bar("server_cpu_us_per_delivered", 2.0, 1.0), Bar("p99_ms", 150, 100)),
        90,
    ),
    "fan-out, idle": Run(
        (
            *("peers", "--viewers=1000", "--rate=5", "--seconds=20"),
            *(f"--only={name}" for name in _PEERS),
        ),
        (
            Bar("liveroom_server_x_floor", 1.7, 1.4),
            Bar("liveroom_x_floor", None, 1.7),
            Bar("liveroom_first_viewer_p50_ms", 5),
            Bar("liveroom_last_viewer_p50_ms", 30),
        ),
        200,
        COMPARED_TIMES,
    ),
    "large room": Run(
        ("large_room", "--viewers=15000", "--rate=20", "--processes=2"),
        (Bar("p99_ms", 1500, 1000), Bar("reply_p99_ms", 150)),
        180,
    ),
    "memory": Run(("idle", "--viewers=5000"), (Bar("server_kb_per_viewer", 30, 12),), 90),
    "herd": Run(
        ("reconnect_herd", "--viewers=10000", "--processes=2"), (Bar("all_back_s", 15, 5),), 120
    ),
    "slow viewers": Run(
        ("slow_viewers", "--viewers=1000", "--stuck=1000"),
        (Bar("p99_ratio", 1.5), Bar("server_kb_per_stuck", 256), Bar("kernel_kb_max", 131.1)),
        150,
    ),
    "chat storm": Run(("chat_storm",), (Bar("logged_p99_ms", 150),), 90),
    "holds": Run(("holds", "--holds=60000"), (Bar("holds_per_s", 30_000, least=True),), 60),
    "flash drop": Run(
        ("drop", "--buyers=2000", "--units=10000", "--processes=2"),
        (Bar("orders_per_s", 2500, 5000, least=True), Bar("p99_of_fair_share", 1.5)),
        120,
    ),
    "flash drop, open": Run(
        ("drop", "--buyers=2000", "--units=10000", "--rate=1000"), (Bar("p99_ms", 500),), 120
    ),
    "selling to a large room": Run(
        ("drop", "--buyers=500", "--units=4000", "--rate=200", "--watchers=15000", "--apart"),
        (Bar("p99_ms", 150),),
        180,
    ),
    "sold-out storm": Run(("storm",), (Bar("refusals_per_s", 10_000, least=True),), 90),
    "killed": Run(("kill",), (Bar("normal_s", 10),), 150),
    "workers": Run(
        ("workers",),
        (Bar("fanout_ratio", 1.25, 1.05), Bar("drop_ratio", 1.25, 1.05)),
        180,
        COMPARED_TIMES,
    ),
    "growth": Run(
        ("growth",),
        (
            Bar("viewers_ratio", 1.05),
            Bar("events_ratio", 1.05),
            Bar("active_ratio", 1.05),
            Bar("rooms_ratio", 1.1),
            Bar("seated_ratio", None, 1.25),
        ),
        240,
        COMPARED_TIMES,
    ),
    "huge room": Run(
        ("huge_room", "--viewers=60000", "--workers=4", "--processes=4"),
        (Bar("last_viewer_p99_ms", None, 1000),),
        300,
    ),
}


def run(
    only: Sequence[str], within_s: float, console: Console, bars: dict[str, Run] | None = None
) -> tuple[list[Row], bool]:
    """Every bar, or those named in `only`, in so many seconds; the table, and whether it holds."""
    rows: list[Row] = []
    until = time.monotonic() + within_s
    for name, one in (bars or BARS).items():
        if only and name not in only:
            continue
        console.rule(name)
        rows += judged(name, one, _all_runs(one, until, console))
    show(rows, console)
    wrong = {MISSED, FAULTS}
    required = {name for name, one in (bars or BARS).items() if any(bar.must for bar in one.bars)}
    fails = (
        row.verdict in wrong or (row.verdict == NOT_RUN and row.bar in required) for row in rows
    )
    return rows, bool(rows) and not any(fails)


def _all_runs(one: Run, until: float, console: Console) -> list[dict[str, Any]]:
    """What every run of a scenario found; nothing when one of them did not come to an end."""
    runs: list[dict[str, Any]] = []
    for _ in range(one.times):
        left = until - time.monotonic()
        found = measured(one, min(one.within_s, left), console) if left > LEAST_S else None
        if found is None:
            return []
        runs.append(found)
    return runs


def measured(one: Run, within_s: float, console: Console) -> dict[str, Any] | None:
    """What one scenario found; None when it did not come to an end."""
    command = [sys.executable, "-m", "bench", *one.words, "--json"]
    with subprocess.Popen(command, cwd=_ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            said, _ = process.communicate(timeout=within_s)
        except subprocess.TimeoutExpired:
            console.print(f"not done within {within_s:.0f} s", style="bold red")
            return None
        finally:
            if process.poll() is None:
                _stop(process)
    lines = said.splitlines()
    return json.loads(lines[-1]) if lines else None


def _stop(process: subprocess.Popen[str]) -> None:
    """Let it close its server and its load, by force if it takes too long."""
    process.terminate()
    try:
        process.wait(STOP_MAX_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def judged(name: str, one: Run, runs: Sequence[dict[str, Any]]) -> list[Row]:
    """The lines of one scenario: the median of its runs, which must all have been without fault."""
    found = [{**run["figures"], **_derived(run)} for run in runs]
    medians = _medians(found)
    rows = []
    for bar in one.bars:
        value = medians.get(bar.figure)
        verdict = bar.judge(value) if runs else NOT_RUN
        if not all(run["correct"] for run in runs):
            verdict = FAULTS
        values = tuple(figures.get(bar.figure) for figures in found)
        bounds = (_bound(bar, bar.must), _bound(bar, bar.aim))
        command = " ".join(("liveroom bench", *one.words))
        beside = _beside(medians) if bar is one.bars[0] else ""
        rows.append(Row(name, bar.figure, value, values, *bounds, verdict, beside, command))
    return rows


def _medians(found: Sequence[dict[str, Any]]) -> dict[str, float | None]:
    """The median of each figure; None for one that a run did not measure."""
    names = found[0] if found else {}
    of_each = {name: [figures.get(name) for figures in found] for name in names}
    return {
        name: None if None in values else round(statistics.median(values), 3)
        for name, values in of_each.items()
    }


def _derived(found: dict[str, Any]) -> dict[str, float]:
    """Figures that a bar names and a scenario leaves to be worked out."""
    figures, parameters = found["figures"], found["parameters"]
    if found["scenario"] != "drop" or not figures.get("p99_ms"):
        return {}
    share_ms = parameters["buyers"] / figures["orders_per_s"] * 1000
    return {"p99_of_fair_share": round(figures["p99_ms"] / share_ms, 2)}


def _beside(figures: dict[str, Any]) -> str:
    """What the floor and the others cost in the same run."""
    others = (name for name in figures if name.endswith("_us") and "cpu" not in name)
    costs = {name.removesuffix("_us"): figures[name] for name in others}
    return ", ".join(f"{name} {us} µs" for name, us in costs.items()) if "floor" in costs else ""


def _bound(bar: Bar, bound: float | None) -> str:
    return "" if bound is None else f"{'≥' if bar.least else '≤'} {bound:,g}"


def show(rows: Sequence[Row], console: Console) -> None:
    """The table of all bars."""
    table = Table("bar", "figure", title="Bars", title_justify="left")
    for column in ("value", "must", "aim"):
        table.add_column(column, justify="right")
    table.add_column("runs")
    table.add_column("verdict")
    table.add_column("in the same run")
    styles = {AIM: "green", MISSED: "bold red", FAULTS: "bold red", NOT_RUN: "bold red"}
    last = ""
    for row in rows:
        value = "" if row.value is None else f"{row.value:,}"
        runs = " ".join(f"{one}" for one in row.runs) if len(row.runs) > 1 else ""
        table.add_row(
            row.bar if row.bar != last else "", row.figure, value, row.must, row.aim, runs,
            f"[{styles.get(row.verdict, 'default')}]{row.verdict}[/]", row.beside,
        )  # fmt: skip
        last = row.bar
    console.print(table)


def as_json(rows: Sequence[Row], *, holds: bool) -> str:
    """The table as one line of JSON."""
    machine = f"{platform.machine()}, Python {platform.python_version()}"
    return json.dumps({"machine": machine, "holds": holds, "bars": [asdict(row) for row in rows]})

"""What a run found: on the terminal, as JSON, as one HTML file; and whether it may pass."""

from __future__ import annotations

import html
import json
import operator
import platform
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from bench.latency import Bins

_COMPARE: Final = {
    "<=": operator.le, ">=": operator.ge, "==": operator.eq, "<": operator.lt, ">": operator.gt,
}  # fmt: skip
_RULE: Final = re.compile(r"^\s*(\w+)\s*(<=|>=|==|<|>)\s*(-?[\d.]+)\s*$")


class BadRule(Exception):
    """An `--assert` that cannot be read, or that names no figure of this run."""


@dataclass
class Report:
    """One run: its figures, and the faults that must all be 0."""

    scenario: str
    command: str
    parameters: dict[str, Any]
    figures: dict[str, Any]
    faults: dict[str, int]
    bins: Bins
    notes: list[str] = field(default_factory=list)

    @property
    def correct(self) -> bool:
        """Whether nothing was lost, doubled, reordered or oversold."""
        return not any(self.faults.values())

    def as_json(self) -> str:
        """The run as one line of JSON."""
        return json.dumps(
            {
                "scenario": self.scenario,
                "command": self.command,
                "machine": f"{platform.machine()}, Python {platform.python_version()}",
                "parameters": self.parameters,
                "figures": self.figures,
                "faults": self.faults,
                "notes": self.notes,
                "correct": self.correct,
            }
        )

    def show(self, console: Console) -> None:
        """Print the run as a table."""
        table = Table(title=self.command, title_justify="left", show_header=False)
        table.add_column(style="dim")
        table.add_column(justify="right")
        for name, value in self.figures.items():
            table.add_row(name, _said(value))
        table.add_section()
        for name, count in self.faults.items():
            table.add_row(name, str(count), style="bold red" if count else None)
        console.print(table)
        for note in self.notes:
            console.print(note, style="yellow")

    def failing(self, rules: list[str]) -> list[str]:
        """The rules (`p99_ms<200`) that do not hold.

        Raises:
            BadRule: a rule that cannot be read or names no figure.
        """
        known = {**self.figures, **self.faults}
        failed = []
        for rule in rules:
            read = _RULE.match(rule)
            if read is None or known.get(read[1]) is None:
                raise BadRule(
                    f"--assert {rule!r}: must be FIGURE<NUMBER; figures: {', '.join(known)}"
                )
            if not _COMPARE[read[2]](known[read[1]], float(read[3])):
                failed.append(f"{rule} does not hold: {read[1]} is {known[read[1]]}")
        return failed

    def write_html(self, path: Path) -> None:
        """One file that needs nothing else: the figures, and the latencies as a curve."""
        rows = "".join(
            f"<tr><th>{html.escape(name)}<td>{html.escape(_said(value))}"
            for name, value in {**self.parameters, **self.figures, **self.faults}.items()
        )
        path.write_text(
            _PAGE.format(
                title=html.escape(self.scenario),
                command=html.escape(self.command),
                verdict="nothing lost" if self.correct else "FAULTS",
                rows=rows,
                curve=_curve(self.bins),
                data=html.escape(self.as_json()),
            ),
            encoding="utf-8",
        )


def _said(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int | float) else str(value)


def _curve(bins: Bins) -> str:
    """Latency by percentile, p0 to p99.9, as an SVG line."""
    percents = [*range(1, 100), 99.5, 99.9]
    values = [bins.percentile(percent) for percent in percents]
    top = max((value for value in values if value is not None), default=None)
    if top is None:
        return ""
    points = " ".join(
        f"{40 + 6.5 * at:.1f},{220 - 200 * (value or 0) / top:.1f}"
        for at, value in enumerate(values)
    )
    return (
        '<svg viewBox="0 0 720 250" role="img" aria-label="latency by percentile">'
        '<path d="M40 20V220H700" fill="none" stroke="currentColor" opacity=".4"/>'
        f'<polyline points="{points}" fill="none" stroke="#d9573b" stroke-width="2"/>'
        f'<text x="4" y="24">{top:.0f} ms</text><text x="40" y="242">p1</text>'
        '<text x="350" y="242">p50</text><text x="660" y="242">p99.9</text></svg>'
    )


_PAGE: Final = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>liveroom bench {title}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 46rem; margin: 2rem auto; padding: 0 1rem;
  color-scheme: light dark }}
th {{ text-align: left; font-weight: 400; padding-right: 2rem; opacity: .7 }}
td {{ text-align: right; font-variant-numeric: tabular-nums }}
svg {{ width: 100%; font-size: 12px; fill: currentColor }}
code {{ word-break: break-all }}
</style>
<h1>{title}: {verdict}</h1>
<p><code>{command}</code></p>
{curve}
<table>{rows}</table>
<script type="application/json" id="run">{data}</script>
</html>
"""

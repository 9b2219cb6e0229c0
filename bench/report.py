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
from bench.timeline import Timeline

PAGE: Final = Path(__file__).parent.parent / "liveroom" / "web" / "built" / "report.html"
_TITLE: Final = "<title>liveroom bench</title>"
_PLACE: Final = '"liveroom: the run"'

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
    timeline: Timeline = field(default_factory=Timeline)

    @property
    def verdict(self) -> str:
        """What a headline says of it."""
        return "nothing lost" if self.correct else "FAULTS"

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

    def plain(self) -> dict[str, Any]:
        """The run as the page of a report shows it: with its percentiles and its seconds."""
        seen, total, curve = 0, max(1, self.bins.total), []
        for ms, count in self.bins.spread():
            seen += count
            curve.append((round(100 * seen / total, 4), round(ms, 3)))
        return {**json.loads(self.as_json()), "curve": curve, "seconds": self.timeline.rows()}

    def write_html(self, path: Path) -> None:
        """One file that needs nothing else: figures, faults, percentiles, and time.

        The page must have been built; see `has_page`.
        """
        # "<" could end the script that holds the data.
        data = json.dumps(self.plain()).replace("<", "\\u003c")
        page = PAGE.read_text(encoding="utf-8")
        title = html.escape(f"{self.scenario}: {self.verdict}")
        page = page.replace(_TITLE, f"<title>{title}</title>", 1).replace(_PLACE, data, 1)
        path.write_text(page, encoding="utf-8")


def rules_are_read(_type: Any, rules: tuple[str, ...]) -> None:
    """Refuse, before a run, rules that no run could judge."""
    for rule in rules:
        read = _RULE.match(rule)
        if read is None:
            raise ValueError(f"{rule!r} must be FIGURE<NUMBER, such as p99_ms<200.")
        float(read[3])  # raises ValueError where it is none


def can_be_written(_type: Any, path: Path | None) -> None:
    """Refuse, before a run, a place where nothing can be written after it."""
    if path is None:
        return
    was_there = path.exists()
    try:
        path.open("a").close()
    except OSError as fault:
        raise ValueError(f"It cannot be written: {fault.strerror}.") from fault
    if not was_there:
        path.unlink()


def has_page(_type: Any, path: Path | None) -> None:
    """Refuse a report where its page was not built; installing the package builds it."""
    if path is not None and not PAGE.is_file():
        raise ValueError("The page of reports is not built; run make setup.")


def _said(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int | float) else str(value)

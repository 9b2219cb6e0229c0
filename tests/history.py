"""What clients asked and were told, in order: a line of JSON for each, and what must follow.

A call is an `invoke`, then `ok` with its answer, `fail` where it certainly did nothing, or
`info` where nobody knows. Times are monotonic, so lines of several clients can be merged.
"""

from __future__ import annotations

import json
import time
from collections.abc import Hashable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import detangle


class Line(NamedTuple):
    """One line of a history."""

    at_s: float
    call: int
    client: str
    what: str
    op: str
    value: Any


class Recorder:
    """Writes a history to a file, one line as it happens."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8")
        self._calls = 0

    def invoke(self, client: str, op: str, value: Any) -> tuple[int, str, str]:
        """A client asks; what its answer is recorded under."""
        self._calls += 1
        asked = (self._calls, client, op)
        self._write(asked, "invoke", value)
        return asked

    def ok(self, asked: tuple[int, str, str], value: Any) -> None:
        """The call was carried out, and this was its answer."""
        self._write(asked, "ok", value)

    def info(self, asked: tuple[int, str, str]) -> None:
        """Nobody knows whether the call was carried out."""
        self._write(asked, "info", None)

    def close(self) -> None:
        """All lines are in the file."""
        self._file.close()

    def _write(self, asked: tuple[int, str, str], what: str, value: Any) -> None:
        call, client, op = asked
        json.dump(Line(time.monotonic(), call, client, what, op, value), self._file)
        self._file.write("\n")


def lines_of(path: Path) -> list[Line]:
    """The lines of a history in order of time."""
    with path.open(encoding="utf-8") as file:
        return sorted(Line(*json.loads(line)) for line in file)


class Units(detangle.lin.Model):
    """One SKU as its buyers see it: so many units are free.

    `take` of n answers "ok", or how many were left where that is too few; `give` adds n;
    `look` answers what is left.
    """

    name = "units"

    def __init__(self, free: int) -> None:
        self._free = free

    def init(self) -> Hashable:
        return self._free

    def step(self, state: int, op: detangle.lin.Operation) -> tuple[bool, int]:
        unknown = op.status != "ok"
        match op.f:
            case "take" if unknown:
                return True, state - op.arg if state >= op.arg else state
            case "take" if op.output == "ok":
                return state >= op.arg, state - op.arg
            case "take":
                return state == op.output < op.arg, state
            case "give":
                return True, state + op.arg
        return unknown or state == op.output, state


def is_linearizable(lines: Iterable[Line], free: int) -> str | None:
    """None, or why no order of the calls explains what was answered."""
    history = detangle.History()
    open_calls: dict[int, Any] = {}
    for line in lines:
        if line.what == "invoke":
            open_calls[line.call] = history.invoke(line.client, line.op, line.value)
        elif line.what == "ok":
            history.ok(open_calls[line.call], line.value)
        else:
            history.info(open_calls[line.call])
    found = history.check(Units(free))
    return None if found.ok else found.explain()

"""What clients asked and were told, in order: a line of JSON for each.

A call is an `invoke`, then `ok` with its answer, `fail` with the refusal of what was certainly
not done, or `info` where nobody knows. `saw` is no call: what a client was shown unasked. Times
are monotonic, so the lines of several processes of one machine can be merged.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterable
from operator import attrgetter
from pathlib import Path
from typing import Any, Final, NamedTuple

_CALLS_MAX: Final = 10**9


class Line(NamedTuple):
    """One line of a history."""

    at_s: float
    call: int
    client: str
    what: str
    op: str
    value: Any


class Asked(NamedTuple):
    """A call that was sent; its end is recorded under it."""

    call: int
    client: str
    op: str


class Recorder:
    """Keeps a history as it happens, also of several threads.

    Each process has its own `place`, so that calls differ.
    """

    def __init__(self, place: int = 0) -> None:
        self.lines: list[Line] = []
        self._calls = itertools.count(place * _CALLS_MAX + 1)

    def invoke(self, client: str, op: str, value: Any) -> Asked:
        """A client asks, with this as the command's data."""
        asked = Asked(next(self._calls), client, op)
        self._add(asked, "invoke", value)
        return asked

    def ok(self, asked: Asked, value: Any) -> None:
        """The call was carried out, and this was its answer."""
        self._add(asked, "ok", value)

    def refused(self, asked: Asked, error: dict[str, Any]) -> None:
        """The call was refused. What may be tried again may have been carried out all the same."""
        self._add(asked, "info" if error["retry"] else "fail", error)

    def info(self, asked: Asked) -> None:
        """Nobody knows whether the call was carried out: no answer came."""
        self._add(asked, "info", None)

    def saw(self, client: str, op: str, value: Any) -> None:
        """A client was shown something it did not ask for."""
        self._add(Asked(0, client, op), "saw", value)

    def _add(self, asked: Asked, what: str, value: Any) -> None:
        call, client, op = asked
        self.lines.append(Line(time.monotonic(), call, client, what, op, value))


def merged(histories: Iterable[Iterable[Line]]) -> list[Line]:
    """The lines of several recorders, in order of time."""
    return sorted((line for one in histories for line in one), key=attrgetter("at_s"))


def save(path: Path, lines: Iterable[Line]) -> None:
    """Write one JSON object a line."""
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(line._asdict()) + "\n" for line in lines)


def load(path: Path) -> list[Line]:
    """The lines of a history that was saved."""
    with path.open(encoding="utf-8") as file:
        return [Line(**json.loads(line)) for line in file]

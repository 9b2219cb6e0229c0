"""The checker of deadlines: holds that end in time pass, each that does not is found."""

from __future__ import annotations

import time
from typing import Any

import pytest

from bench.history import Line
from tests.deadlines import untimely

DUE_MS = 10_000


class Told:
    """A history by hand, on a clock of its own that began now."""

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self._begun_s = time.monotonic()

    def held(self, at_ms: int = 0, by: str = "ann") -> None:
        self._call(at_ms, by, "cart.add", {}, {"lines": [self._line()]})

    def shows(self, at_ms: int, *, is_there: bool) -> None:
        lines = [self._line()] if is_there else []
        self._call(at_ms, "ann", "cart.show", {}, {"lines": lines})

    def removes(self, at_ms: int) -> None:
        self._call(at_ms, "ann", "cart.remove", {"sku": "s1"}, {"lines": []})

    def expired(self, at_ms: int, **why: str) -> None:
        self._add(at_ms, 0, "ann", "saw", "hold.expired", {"hold": self._line()} | why)

    def buys(self, at_ms: int) -> None:
        order = {"id": "o1", "lines": [{"sku": "s1", "qty": 1}]}
        self._call(at_ms, "bob", "order.place", {"order": "o1"}, order)

    def untimely(self) -> list[str]:
        return untimely(self.lines, sku="s1", stock=1, early_ms=100, late_ms=1000)

    def _line(self) -> dict[str, Any]:
        wall_s = self._begun_s + time.time() - time.monotonic()
        return {"sku": "s1", "qty": 1, "expires_at": round(wall_s * 1000) + DUE_MS}

    def _call(self, at_ms: int, by: str, op: str, data: Any, answer: Any) -> None:
        call = len(self.lines) + 1
        self._add(at_ms, call, by, "invoke", op, data)
        self._add(at_ms, call, by, "ok", op, answer)

    def _add(self, at_ms: int, *rest: Any) -> None:
        self.lines.append(Line(self._begun_s + at_ms / 1000, *rest))


@pytest.mark.parametrize("at_ms", [DUE_MS - 50, DUE_MS + 900])
def test_in_time(at_ms) -> None:
    """A little early and a little late is in time; so is whoever buys what is free again."""
    told = Told()
    told.held()
    told.shows(5_000, is_there=True)
    told.expired(at_ms)
    told.buys(at_ms)
    assert told.untimely() == []


@pytest.mark.parametrize("end", [Told.removes, lambda told, at: told.expired(at, why="rebuilding")])
def test_ended_by_others_than_time(end) -> None:
    """What its buyer gives back, or a rebuild ends, has no deadline to keep."""
    told = Told()
    told.held()
    end(told, 1_000)
    told.buys(1_100)
    assert told.untimely() == []


def test_out_of_time() -> None:
    """Told too early or too late, shown too long, never told, or sold to another meanwhile."""
    lies = {
        "early": lambda told: told.expired(DUE_MS - 200),
        "late": lambda told: told.expired(DUE_MS + 1_500),
        "gone early": lambda told: told.shows(5_000, is_there=False),
        "shown too long": lambda told: (
            told.shows(DUE_MS + 1_500, is_there=True) or told.removes(DUE_MS + 1_600)
        ),
        "never told": lambda _told: None,
        "sold meanwhile": lambda told: told.buys(5_000) or told.removes(6_000),
    }
    for name, lie in lies.items():
        told = Told()
        told.held()
        lie(told)
        assert len(told.untimely()) == 1, name

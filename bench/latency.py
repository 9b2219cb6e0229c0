"""Latencies in log-linear bins: 1 % wide at any size, a few kilobytes however many there are."""

from __future__ import annotations

import math
from collections.abc import Iterable

_STEP = math.log(1.01)
_FLOOR_MS = 0.01


class Bins:
    """A histogram of milliseconds; adding is cheap, percentiles are within 1 %."""

    def __init__(self, counts: dict[int, int] | None = None) -> None:
        self.counts = dict(counts or {})

    def add(self, ms: float, times: int = 1) -> None:
        """Count `times` latencies of `ms`."""
        place = int(math.log(max(ms, _FLOOR_MS) / _FLOOR_MS) / _STEP)
        self.counts[place] = self.counts.get(place, 0) + times

    def merge(self, others: Iterable[Bins]) -> Bins:
        """This histogram with others counted in."""
        for other in others:
            for place, times in other.counts.items():
                self.counts[place] = self.counts.get(place, 0) + times
        return self

    @property
    def total(self) -> int:
        """How many were counted."""
        return sum(self.counts.values())

    def percentile(self, percent: float) -> float | None:
        """The latency in ms that `percent` of all do not exceed; None when nothing was counted."""
        left = math.ceil(self.total * percent / 100)
        for place in sorted(self.counts):
            left -= self.counts[place]
            if left <= 0:
                return round(_FLOOR_MS * math.exp((place + 1) * _STEP), 3)
        return None

    def figures(self, prefix: str = "") -> dict[str, float | None]:
        """p50, p90, p99, p99.9 and the largest, in ms."""
        wanted = {"p50_ms": 50, "p90_ms": 90, "p99_ms": 99, "p999_ms": 99.9, "max_ms": 100}
        return {prefix + name: self.percentile(percent) for name, percent in wanted.items()}

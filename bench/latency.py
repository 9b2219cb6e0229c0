"""Latencies in log-linear bins: 1 % wide at any size, a few kilobytes however many there are."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

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

    def spread(self) -> Iterator[tuple[float, int]]:
        """Every latency in ms that was counted, as the end of its bin, and how often; rising."""
        for place in sorted(self.counts):
            yield _FLOOR_MS * math.exp((place + 1) * _STEP), self.counts[place]

    def hgrm(self) -> str:
        """The percentiles in HdrHistogram's text form, which its plotters read; values in ms."""
        total, seen = max(1, self.total), 0
        lines = ["       Value     Percentile TotalCount 1/(1-Percentile)", ""]
        mean = square = largest = 0.0
        for ms, count in self.spread():
            seen += count
            mean += ms * count / total
            square += ms * ms * count / total
            largest, part = ms, seen / total
            rest = f"{1 / (1 - part):15.2f}" if seen < total else ""
            lines.append(f"{ms:12.3f} {part:14.12f} {seen:10d} {rest}".rstrip())
        deviation = math.sqrt(max(0.0, square - mean * mean))
        lines += [
            f"#[Mean    = {mean:12.3f}, StdDeviation   = {deviation:12.3f}]",
            f"#[Max     = {largest:12.3f}, Total count    = {seen:12d}]",
            f"#[Buckets = {len(self.counts):12d}, SubBuckets     = {1:12d}]",
        ]
        return "\n".join(lines) + "\n"

    def figures(self, prefix: str = "") -> dict[str, float | None]:
        """p50, p90, p99, p99.9 and the largest, in ms."""
        wanted = {"p50_ms": 50, "p90_ms": 90, "p99_ms": 99, "p999_ms": 99.9, "max_ms": 100}
        return {prefix + name: self.percentile(percent) for name, percent in wanted.items()}

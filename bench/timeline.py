"""Latencies over time: for each second of a run how many there were, and how long they took."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from bench.latency import Bins

Seconds = Mapping[int, Mapping[int, int]]
"""For each second of the machine's monotonic clock, the counts of a `Bins`."""


class Timeline:
    """A histogram for each second, in which something arrived."""

    def __init__(self, seconds: Seconds | None = None) -> None:
        self._seconds = {at: Bins(dict(counts)) for at, counts in (seconds or {}).items()}

    def add(self, at_s: float, ms: float, times: int = 1) -> None:
        """Count `times` latencies of `ms` that ended at this moment."""
        bins = self._seconds.get(int(at_s))
        if bins is None:
            bins = self._seconds[int(at_s)] = Bins()
        bins.add(ms, times)

    def merge(self, others: Iterable[Timeline]) -> Timeline:
        """This timeline with others counted in."""
        for other in others:
            for at, counts in other.counts().items():
                self._seconds[at] = self._seconds.get(at, Bins()).merge([Bins(counts)])
        return self

    def counts(self) -> dict[int, dict[int, int]]:
        """Plain enough to be sent to another process."""
        return {at: bins.counts for at, bins in self._seconds.items()}

    def rows(self) -> list[tuple[int, int, float | None, float | None]]:
        """For each second since the first: the second, how many, p50 and p99 in ms."""
        first = min(self._seconds, default=0)
        return [
            (at - first, bins.total, bins.percentile(50), bins.percentile(99))
            for at, bins in sorted(self._seconds.items())
        ]

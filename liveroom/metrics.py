"""Numbers for operators: plain ints that the hot paths add to, read when somebody scrapes.

Nothing here awaits or locks: a counter is touched by one thread, or its loss of a count under
a race does not matter. The names below are the names at `/metrics`, with `liveroom_` before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any, Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from liveroom.errors import ensure

COUNTERS: Final[dict[str, str]] = {
    "events_published": "Events given to the backplane.",
    "publish_batches": "Calls that published them; many events share one.",
    "events_delivered": "Events written to viewers, one for each viewer.",
    "frames_sent": "Frames written to viewers.",
    "gaps_filled": "Times a node read missing events from a room's log.",
    "positions_lost": "Times a node or a viewer had to begin again from a snapshot.",
    "backplane_reconnects": "Times the listening connection was made anew.",
    "valkey_deaths": "Times the embedded Valkey ended unasked.",
    "orders_placed": "Orders committed.",
    "order_batches": "Transactions that committed them.",
    "broken_holds": "Holds of the present fence that SQL refused; must stay 0.",
    "fences_raised": "Times the stock of a partition was rebuilt.",
}
LABELLED: Final[dict[str, tuple[str, str]]] = {
    "refusals": ("code", "Refusals told to clients, by code."),
    "commands": ("cmd", "Commands carried out or refused, by name."),
    "closes": ("code", "Connections closed by us, by close code."),
}
GAUGES: Final[dict[str, str]] = {
    "connections": "Open WebSocket connections.",
    "rooms": "Rooms with a viewer on this node.",
}
HISTOGRAMS: Final[dict[str, tuple[tuple[float, ...], str]]] = {
    "publish_lag_seconds": (
        (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0),
        "From an event's publication to its arrival at a node.",
    ),
    "command_seconds": (
        (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0),
        "From a command's arrival to its reply.",
    ),
}


class Histogram:
    """Counts of observations below each bound."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self.total += value
        for at, bound in enumerate(self.bounds):
            if value <= bound:
                self.counts[at] += 1
                return
        self.counts[-1] += 1


class Counters:
    """One process's numbers.

    Each name of `COUNTERS` is an int attribute to add to, each of `LABELLED` a dict from label
    to int filled by `count`, each of `HISTOGRAMS` a `Histogram`; gauges are read by a function
    handed to `gauge`.
    """

    events_published: int
    publish_batches: int
    events_delivered: int
    frames_sent: int
    gaps_filled: int
    positions_lost: int
    backplane_reconnects: int
    valkey_deaths: int
    orders_placed: int
    order_batches: int
    broken_holds: int
    fences_raised: int
    publish_lag_seconds: Histogram
    command_seconds: Histogram
    refusals: dict[str, int]
    commands: dict[str, int]
    closes: dict[str, int]

    def __init__(self) -> None:
        for name in COUNTERS:
            setattr(self, name, 0)
        for name in LABELLED:
            setattr(self, name, {})
        for name, (bounds, _) in HISTOGRAMS.items():
            setattr(self, name, Histogram(bounds))
        self.gauges: dict[str, Callable[[], float]] = {}
        self.counted_elsewhere: dict[str, Callable[[], int]] = {}

    def count(self, name: str, label: str, by: int = 1) -> None:
        """Add to a labelled counter. Labels come from our own tables, never from clients."""
        ensure(name in LABELLED, f"{name} is no labelled counter")
        values: dict[str, int] = getattr(self, name)
        values[label] = values.get(label, 0) + by

    def gauge(self, name: str, read: Callable[[], float]) -> None:
        """Read this gauge of `GAUGES` by calling `read` at each scrape."""
        ensure(name in GAUGES, f"{name} is no gauge")
        self.gauges[name] = read

    def follow(self, name: str, read: Callable[[], int]) -> None:
        """Take this counter of `COUNTERS` from where it is counted, at each scrape."""
        ensure(name in COUNTERS, f"{name} is no counter")
        self.counted_elsewhere[name] = read

    def value(self, name: str) -> int:
        """A counter of `COUNTERS` at this moment."""
        read = self.counted_elsewhere.get(name)
        return read() if read is not None else int(getattr(self, name))

    def reading(self) -> dict[str, Any]:
        """Every number at this moment, plain enough to be sent to another process."""
        return {
            "counters": {name: self.value(name) for name in COUNTERS},
            "labelled": {name: dict(getattr(self, name)) for name in LABELLED},
            "gauges": {name: read() for name, read in self.gauges.items()},
            "histograms": {
                name: {"counts": list(one.counts), "total": one.total}
                for name, one in ((name, getattr(self, name)) for name in HISTOGRAMS)
            },
        }

    def exposition(self) -> bytes:
        """Everything as Prometheus text, version 0.0.4."""
        return exposition({"": self.reading()})


def exposition(readings: Mapping[str, Mapping[str, Any]]) -> bytes:
    """Readings of several workers as Prometheus text; each with its key as `worker`, if any."""
    registry = CollectorRegistry()
    registry.register(_Readings(readings))
    return generate_latest(registry)


class _Readings(Collector):
    def __init__(self, readings: Mapping[str, Mapping[str, Any]]) -> None:
        self._readings = readings
        self._labels = ["worker"] if any(readings) else []

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily]:
        """Every metric with the values that were read."""
        yield from self._counts()
        yield from self._gauges()
        yield from self._histograms()

    def _counts(self) -> Iterator[CounterMetricFamily]:
        for name, about in COUNTERS.items():
            counter = CounterMetricFamily(f"liveroom_{name}", about, labels=self._labels)
            for worker, reading in self._each():
                counter.add_metric(worker, reading["counters"][name])
            yield counter
        for name, (label, about) in LABELLED.items():
            family = CounterMetricFamily(f"liveroom_{name}", about, labels=[*self._labels, label])
            for worker, reading in self._each():
                for value, count in reading["labelled"][name].items():
                    family.add_metric([*worker, value], count)
            yield family

    def _gauges(self) -> Iterator[GaugeMetricFamily]:
        for name, about in GAUGES.items():
            gauge = GaugeMetricFamily(f"liveroom_{name}", about, labels=self._labels)
            for worker, reading in self._each():
                if name in reading["gauges"]:
                    gauge.add_metric(worker, reading["gauges"][name])
            yield gauge

    def _histograms(self) -> Iterator[HistogramMetricFamily]:
        for name, (bounds, about) in HISTOGRAMS.items():
            histogram = HistogramMetricFamily(f"liveroom_{name}", about, labels=self._labels)
            for worker, reading in self._each():
                one = reading["histograms"][name]
                histogram.add_metric(worker, _buckets(bounds, one["counts"]), one["total"])
            yield histogram

    def _each(self) -> Iterator[tuple[list[str], Mapping[str, Any]]]:
        for worker, reading in self._readings.items():
            yield ([worker] if self._labels else []), reading


def _buckets(bounds: tuple[float, ...], counts: Sequence[int]) -> list[tuple[str, float]]:
    running = accumulate(counts)
    return [(str(bound), count) for bound, count in zip((*bounds, "+Inf"), running, strict=True)]


counters: Final = Counters()
"""The numbers of this process."""

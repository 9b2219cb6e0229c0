"""The numbers: plain ints while running, Prometheus text when asked."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from liveroom import metrics
from liveroom.errors import InvariantBroken


def samples(counters: metrics.Counters) -> dict[str, float]:
    families = text_string_to_metric_families(counters.exposition().decode())
    return {
        s.name + "".join(f"{{{k}={v}}}" for k, v in s.labels.items()): s.value
        for family in families
        for s in family.samples
    }


def test_every_number_is_told():
    """Counters start at 0 and are there before anything happened."""
    told = samples(metrics.Counters())
    for name in metrics.COUNTERS:
        assert told[f"liveroom_{name}_total"] == 0


def test_what_was_counted_is_told():
    """Ints, labels, gauges and histograms."""
    counters = metrics.Counters()
    counters.orders_placed += 3
    counters.count("refusals", "sold_out")
    counters.count("refusals", "sold_out", 2)
    counters.gauge("connections", lambda: 7)
    for lag_s in (0.0005, 0.02, 60):
        counters.publish_lag_seconds.observe(lag_s)
    told = samples(counters)
    assert told["liveroom_orders_placed_total"] == 3
    assert told["liveroom_refusals_total{code=sold_out}"] == 3
    assert told["liveroom_connections"] == 7
    assert told["liveroom_publish_lag_seconds_bucket{le=0.001}"] == 1
    assert told["liveroom_publish_lag_seconds_bucket{le=0.025}"] == 2
    assert told["liveroom_publish_lag_seconds_bucket{le=+Inf}"] == 3
    assert told["liveroom_publish_lag_seconds_count"] == 3


def test_only_named_numbers_are_counted():
    """A misspelt name is found by the first who runs it, not by the dashboard."""
    counters = metrics.Counters()
    with pytest.raises(InvariantBroken):
        counters.count("refusal", "sold_out")
    with pytest.raises(InvariantBroken):
        counters.gauge("conections", lambda: 0)


def test_every_counter_is_declared():
    """The table and the attributes that type checkers know are the same names."""
    named = {*metrics.COUNTERS, *metrics.LABELLED, *metrics.HISTOGRAMS}
    assert set(metrics.Counters.__annotations__) == named

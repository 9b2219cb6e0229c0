"""Every (state, event) pair of every table: the listed arrows move, all others change nothing."""

from __future__ import annotations

import itertools

import pytest

from liveroom.errors import Invalid
from liveroom.states import TABLES, may, move

PAIRS = [
    (machine, before, after)
    for machine, table in TABLES.items()
    for before, after in itertools.product(table, repeat=2)
]
# The tables as the documents draw them, written a second time, arrow by arrow.
ARROWS = {
    "hold": {
        ("held", "placing"), ("held", "released"), ("held", "expired"),
        ("placing", "placed"), ("placing", "released"), ("placing", "held"),
    },
    "order": {
        ("placed", "paid"), ("placed", "closing"),
        ("closing", "expired"), ("closing", "cancelled"), ("closing", "paid"),
        ("paid", "refund_pending"),
        ("refund_pending", "refunded"), ("refund_pending", "paid"),
        ("expired", "paid"), ("expired", "refund_pending"),
        ("cancelled", "paid"), ("cancelled", "refund_pending"),
    },
    "payment": {
        ("started", "succeeded"), ("started", "failed"), ("started", "cancelled"),
        ("failed", "succeeded"), ("cancelled", "succeeded"),
        ("succeeded", "refunding"), ("refunding", "refunded"), ("refunding", "succeeded"),
    },
    "drop": {("scheduled", "open"), ("scheduled", "cancelled"), ("open", "closed")},
    "room": {("planned", "live"), ("live", "closed")},
    "auction": {("open", "closed"), ("closed", "sold"), ("closed", "unsold")},
}  # fmt: skip


def test_every_table_is_drawn() -> None:
    """No machine is left out of the second drawing, and no arrow names an unknown state."""
    assert set(ARROWS) == set(TABLES)
    for machine, arrows in ARROWS.items():
        assert {state for arrow in arrows for state in arrow} <= set(TABLES[machine])


@pytest.mark.parametrize(("machine", "before", "after"), PAIRS)
def test_a_pair_moves_only_by_an_arrow(machine: str, before: str, after: str) -> None:
    """A listed arrow answers the new state; any other pair is illegal_transition."""
    if (before, after) in ARROWS[machine]:
        assert may(machine, before, after)
        assert move(machine, before, after) == after
        return
    assert not may(machine, before, after)
    with pytest.raises(Invalid) as refusal:
        move(machine, before, after)
    assert refusal.value.code == "illegal_transition"
    assert refusal.value.data == {"machine": machine, "state": before}

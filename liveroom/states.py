"""Every state machine, as tables.

Two rules:

1. A state changes only by an arrow of its table. An unlisted move raises
   `illegal_transition` and changes nothing.
2. A capture is a fact: money that came is never an illegal transition, so every state of an
   order or a payment in which a capture may still arrive lists where it leads.

`docs/architecture.md` draws these tables; a test compares the drawing with them.
"""

from __future__ import annotations

from typing import Final

from liveroom.errors import Invalid

Table = dict[str, frozenset[str]]


def _table(**arrows: str) -> Table:
    return {state: frozenset(targets.split()) for state, targets in arrows.items()}


HOLD: Final = _table(
    held="placing released expired",
    placing="placed released held",  # back to held: a refused checkout keeps its cart
    placed="",
    released="",
    expired="",
)
ORDER: Final = _table(
    placed="paid closing",
    closing="expired cancelled paid",
    paid="refund_pending",
    refund_pending="refunded paid",
    expired="paid refund_pending",  # a late payment, with or without stock
    cancelled="paid refund_pending",
    refunded="",
)
PAYMENT: Final = _table(
    started="succeeded failed cancelled",
    failed="succeeded",
    cancelled="succeeded",
    succeeded="refunding",
    refunding="refunded succeeded",
    refunded="",
)
DROP: Final = _table(scheduled="open cancelled", open="closed", closed="", cancelled="")
ROOM: Final = _table(planned="live", live="closed", closed="")
AUCTION: Final = _table(open="closed", closed="sold unsold", sold="", unsold="")

TABLES: Final[dict[str, Table]] = {
    "hold": HOLD,
    "order": ORDER,
    "payment": PAYMENT,
    "drop": DROP,
    "room": ROOM,
    "auction": AUCTION,
}


def may(machine: str, before: str, after: str) -> bool:
    """Whether the table of `machine` has the arrow `before` → `after`."""
    return after in TABLES[machine][before]


def move(machine: str, before: str, after: str) -> str:
    """`after`, if the table has that arrow; otherwise `illegal_transition`."""
    if not may(machine, before, after):
        raise Invalid(
            "illegal_transition",
            f"This {machine} is {before}; it cannot become {after}.",
            data={"machine": machine, "state": before},
        )
    return after

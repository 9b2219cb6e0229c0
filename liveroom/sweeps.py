"""What is swept, and by whom: the steps of a server that must happen by themselves.

Steps that may wait for somebody outside are told apart: nothing of the house's waits for them.
"""

from __future__ import annotations

from typing import Final

from liveroom import carving, closing, outbox, parked
from liveroom.commands import Services
from liveroom.outbox import Outbox
from liveroom.store import outline, waiting
from liveroom.store.leases import Lease
from liveroom.sweeper import Step, Sweeper

TIDY_EVERY_S: Final = 3600.0


def sweepers(services: Services) -> list[Sweeper]:
    """One for what is due at every beat, one to tidy up."""
    db, orders = services.db, services.orders
    house = {
        "holds": Step(services.expiring.sweep_once, look=outline.read),
        "waitlist": Step(services.waitlist.sweep_once, waiting.ANY_OPEN),
        "orders": Step(orders.expire_once, closing.ANY_PLACED),
        "captures": Step(orders.settle_waiting_once, parked.ANY_DUE),
        "drops": Step(services.promotions.mend_once, carving.ANY_TO_MEND),
    }
    told = Outbox(db, {"refund": orders.refund})
    outside = {
        "closing": Step(orders.end_closing_once, closing.ANY_CLOSING),
        "outbox": Step(told.run_once, outbox.ANY_WAITING),
    }
    tidy = {"void": Step(services.inventory.prune_once)}
    often = Lease(db, services.node)
    seldom = Lease(db, services.node, name="tidier", lasts_ms=round(TIDY_EVERY_S * 1000))
    return [
        Sweeper(house, outside=outside, lease=often),
        Sweeper(tidy, lease=seldom, every_s=TIDY_EVERY_S),
    ]

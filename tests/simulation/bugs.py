"""All bugs that the simulation must find, by what is wrong."""

from __future__ import annotations

from typing import Final

from tests.simulation.bugs_of_sales import SALES_BUGS
from tests.simulation.bugs_of_stock import STOCK_BUGS
from tests.simulation.planting import Bug

BUGS: Final = STOCK_BUGS | SALES_BUGS

# What the code does not stand today, and a sale is therefore spared (`excused`). Whoever mends
# it takes its name away here, and the code as it was becomes a planted bug.
SPARED: Final = frozenset(
    {"two orders of a cart", "prices in any order", "void holds", "silent bank"}
)
# Those of them that few seeds find.
STANDING: Final[dict[str, Bug]] = {
    "prices in any order": Bug("the gate asks", theme="replies are lost", focus="prices"),
}

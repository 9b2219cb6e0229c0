"""All bugs that the simulation must find, by what is wrong."""

from __future__ import annotations

from typing import Final

from tests.simulation.bugs_of_sales import SALES_BUGS
from tests.simulation.bugs_of_stock import STOCK_BUGS
from tests.simulation.planting import Bug

BUGS: Final = STOCK_BUGS | SALES_BUGS

# What the code does not stand today. Each is a name that a sale is spared (`excused`); whoever
# mends the code takes it away here, and the code as it was becomes a planted bug.
STANDING: Final[dict[str, Bug]] = {
    "two orders of a cart": Bug("one cart of .* became", focus="carts"),
    "prices in any order": Bug("the gate asks", focus="prices"),
    "void holds": Bug("is void and back in its cart", theme="all is slow", focus="carts"),
    "silent bank": Bug("too late: ", focus="money"),
}

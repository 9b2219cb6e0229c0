"""All bugs that the simulation must find, by what is wrong."""

from __future__ import annotations

from typing import Final

from tests.simulation.bugs_of_sales import SALES_BUGS
from tests.simulation.bugs_of_stock import STOCK_BUGS

BUGS: Final = STOCK_BUGS | SALES_BUGS

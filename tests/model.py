"""Stock as plain arithmetic: what the real gates and ledger must agree with.

It knows nothing of epochs, sequences, partitions or scripts: units are free, held, or ordered.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum


class Phase(Enum):
    """What a pool is to its buyers; ordinary stock is always open."""

    SCHEDULED = "scheduled"
    OPEN = "open"
    ENDED = "ended"


@dataclass
class ModelHold:
    """Units somebody holds; `order` once it was placed."""

    pool: str
    buyer: str
    qty: int
    cart: bool
    due: bool


@dataclass
class ModelPool:
    """One pool: what SQL would say of it. A drop has the `source` its units came from."""

    available: int
    price: int
    limit: int | None
    source: str | None = None
    phase: Phase = Phase.OPEN
    taken: dict[str, int] = field(default_factory=dict)

    @property
    def sells(self) -> bool:
        """Whether somebody may buy of it now."""
        return self.phase is Phase.OPEN


@dataclass
class Model:
    """All pools and all open holds."""

    pools: dict[str, ModelPool]
    holds: dict[str, ModelHold] = field(default_factory=dict)
    orders: dict[str, list[ModelHold]] = field(default_factory=dict)
    waited_for: set[str] = field(default_factory=set)

    def held(self, pool: str) -> int:
        """Units of open holds."""
        return sum(hold.qty for hold in self.holds.values() if hold.pool == pool)

    def free(self, pool: str) -> int:
        """Units that may be promised: never may a gate say more."""
        return self.pools[pool].available - self.held(pool)

    def shown(self, pool: str) -> int:
        """What anybody may hold: nothing while others wait for it."""
        return 0 if pool in self.waited_for else self.free(pool)

    def available(self) -> dict[str, int]:
        """The units of each pool that no order has."""
        return {name: pool.available for name, pool in self.pools.items()}

    def live_drops(self) -> list[str]:
        """Drops that have not ended."""
        return sorted(
            name for name, pool in self.pools.items() if pool.source and pool.phase != Phase.ENDED
        )

    def wanted_beyond_limit(self, pool: str, buyer: str, qty: int) -> bool:
        """Whether the buyer would have more than the limit, counting what is held."""
        limit = self.pools[pool].limit
        holding = sum(
            hold.qty for hold in self.holds.values() if (hold.pool, hold.buyer) == (pool, buyer)
        )
        taken = self.pools[pool].taken.get(buyer, 0)
        return limit is not None and taken + holding + qty > limit

    def refusals(self, buyer: str, asked: dict[str, int], *, at_old_price: bool) -> set[str]:
        """Why a request cannot be granted, whatever there is of it."""
        why = {"price_changed"} if at_old_price else set()
        for pool, qty in asked.items():
            if not self.pools[pool].sells:
                why.add("not_open")
            if self.wanted_beyond_limit(pool, buyer, qty):
                why.add("limit_reached")
        return why

    def place(self, order: str, holds: list[str]) -> None:
        """The holds become an order."""
        self.orders[order] = [self.holds.pop(hold) for hold in holds]
        for hold in self.orders[order]:
            pool = self.pools[hold.pool]
            pool.available -= hold.qty
            pool.taken[hold.buyer] = pool.taken.get(hold.buyer, 0) + hold.qty

    def cancel(self, order: str) -> None:
        """The order's units are free again."""
        for hold in self.orders.pop(order):
            pool = self.pools[hold.pool]
            pool.available += hold.qty
            pool.taken[hold.buyer] -= hold.qty

    def carve(self, source: str, drop: str, pool: ModelPool) -> None:
        """Units of ordinary stock are a drop's now."""
        self.pools[source].available -= pool.available
        self.pools[drop] = pool

    def give_back(self, drop: str, units: int) -> None:
        """Units of a drop that has ended are ordinary stock again."""
        pool = self.pools[drop]
        pool.available -= units
        assert pool.source is not None
        self.pools[pool.source].available += units

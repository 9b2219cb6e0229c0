"""Stock as plain arithmetic: what the real gates and ledger must agree with.

It knows nothing of epochs, sequences or scripts: units are free, held, or ordered.
"""

from __future__ import annotations

from dataclasses import dataclass, field


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
    """One pool: what SQL would say of it."""

    available: int
    limit: int | None
    taken: dict[str, int] = field(default_factory=dict)


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

    def wanted_beyond_limit(self, pool: str, buyer: str, qty: int) -> bool:
        """Whether the buyer would have more than the limit, counting what is held."""
        limit = self.pools[pool].limit
        holding = sum(
            hold.qty for hold in self.holds.values() if (hold.pool, hold.buyer) == (pool, buyer)
        )
        taken = self.pools[pool].taken.get(buyer, 0)
        return limit is not None and taken + holding + qty > limit

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

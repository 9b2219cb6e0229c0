"""A buyer's cart in one room: lines, each backed by a hold.

The cart is nothing but its holds. It is in one currency, since it becomes one order.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from liveroom import shapes
from liveroom.errors import Invalid, Unavailable
from liveroom.inventory import Hold, HoldLineRequest, HoldRequest, Inventory
from liveroom.store import ledger
from liveroom.store.database import Database

LINES_MAX: Final = 50
CURRENCIES_MAX: Final = 10_000


class Carts:
    """All carts. Who may buy, and whether the room sells now, is the caller's to check."""

    def __init__(self, db: Database, inventory: Inventory) -> None:
        self._db = db
        self._inventory = inventory
        self._currencies: dict[str, str] = {}  # by SKU; a product's currency never changes

    async def show(self, buyer: str, room: str) -> shapes.Cart:
        """What is in the cart now; lines whose time is over are not."""
        return await self._cart(await self._inventory.cart(buyer, room))

    async def add(
        self,
        *,
        buyer: str,
        room: str,
        sku: str,
        qty: int,
        drop: str | None,
        price_minor: int | None,
        bucket: str,
        operation: str,
    ) -> shapes.Cart:
        """The cart with `qty` more of a SKU, held until the line expires.

        A line that is there grows and keeps its deadline, price and bucket. The same operation adds
        once, as long as the line is there.

        Raises:
            Refused: sold_out, limit_reached, price_changed, not_open.
            Invalid: not_found; bad_argument for another currency than the cart's, or a full
                cart; illegal_transition while this line is being ordered.
            Unavailable: rebuilding, also where the line was held and lost again at once.
        """
        await self._ensure_fits(buyer, room, sku, drop)
        line = HoldLineRequest(
            pool=ledger.pool_of(sku, drop),
            sku=sku,
            qty=qty,
            drop=drop,
            price_minor=price_minor,
            bucket=bucket,
        )
        [held] = await self._inventory.hold(
            HoldRequest(buyer=buyer, room=room, key=operation, lines=[line], kind="held")
        )
        cart = await self.show(buyer, room)
        if self._inventory.is_lost(held):
            raise Unavailable("rebuilding")
        return cart

    async def remove(
        self, *, buyer: str, room: str, sku: str, drop: str | None = None
    ) -> shapes.Cart:
        """The cart without this line; its units are on sale again. No such line: nothing."""
        holds = await self._inventory.cart(buyer, room)
        await self._inventory.remove(
            [hold.id for hold in holds if (hold.sku, hold.drop) == (sku, drop)]
        )
        return await self.show(buyer, room)

    async def _ensure_fits(self, buyer: str, room: str, sku: str, drop: str | None) -> None:
        holds = await self._inventory.cart(buyer, room)
        currencies = await self._currencies_of([sku, *(hold.sku for hold in holds)])
        if sku not in currencies:
            raise Invalid("not_found", "There is no such SKU.", data={"sku": sku})
        if len(set(currencies.values())) > 1:
            raise Invalid("bad_argument", "A cart is in one currency.", data={"sku": sku})
        is_there = any((hold.sku, hold.drop) == (sku, drop) for hold in holds)
        if len(holds) >= LINES_MAX and not is_there:
            raise Invalid("bad_argument", f"A cart has at most {LINES_MAX} lines.")

    async def _cart(self, holds: list[Hold]) -> shapes.Cart:
        currencies = await self._currencies_of(hold.sku for hold in holds)
        return shapes.Cart(
            lines=[
                shapes.CartLine(
                    sku=hold.sku,
                    qty=hold.qty,
                    price_minor=hold.price_minor,
                    hold=hold.id,
                    expires_at=hold.due,
                    drop=hold.drop,
                )
                for hold in holds
            ],
            total_minor=sum(hold.qty * hold.price_minor for hold in holds),
            currency=currencies[holds[0].sku] if holds else None,
        )

    async def _currencies_of(self, skus: Iterable[str]) -> dict[str, str]:
        wanted = set(skus)
        if unknown := wanted - self._currencies.keys():
            if len(self._currencies) > CURRENCIES_MAX:
                self._currencies.clear()
                unknown = wanted
            self._currencies |= await self._db.read(lambda conn: ledger.currencies(conn, unknown))
        return {sku: self._currencies[sku] for sku in wanted if sku in self._currencies}

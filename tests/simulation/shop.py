"""What a world begins with: empty stores, one shop, one live room, stock in its partitions."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import insert

from liveroom.store import ledger, partitions, tables
from tests.simulation.world import World

SKUS: Final = ("s1", "s2", "s7")  # each in another one of three partitions
ROOM: Final = "r1"


def open_shop(world: World, *, parts: int, stock: dict[str, int], limit: int | None) -> None:
    """An empty Redis, and a database in which `stock` is for sale; `limit` is that of s1."""

    def rows(conn: Any) -> None:
        for table in reversed(tables.metadata.sorted_tables):
            conn.execute(table.delete())
        partitions.prepare(conn, parts)
        conn.execute(insert(tables.shops), {"id": "shop", "name": "S", "created_at": 0})
        product = {"id": "p1", "shop": "shop", "title": "P", "currency": "EUR", "needs": []}
        conn.execute(insert(tables.products), product | {"created_at": 0})
        for at, (sku, units) in enumerate(stock.items()):
            row = {"id": sku, "product": "p1", "position": at, "price_minor": 100}
            own = {"limit_per_buyer": limit if sku == "s1" else None}
            conn.execute(insert(tables.skus), row | own)
            ledger.create_pool(conn, sku=sku, initial=units)
        room = {"id": ROOM, "title": "R", "host": "h", "state": "live", "paused": False, "v": 1}
        more = {"settings": {}, "pinned": [], "pinned_seq": 0, "created_at": 0}
        conn.execute(insert(tables.rooms), room | more)
        shelf = {"room": ROOM, "product": "p1", "position": 0, "state": "on"}
        conn.execute(insert(tables.shelf), shelf)

    world.database._write(rows, lambda: None)
    world.valkey.flushdb()

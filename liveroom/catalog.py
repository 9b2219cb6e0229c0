"""Shops, products, SKUs and their prices: what there is to sell.

Stock is not here: a product is created together with its SKUs' pools in one transaction, and
from then on only the ledger moves them. A list is newest first, in pages by a cursor.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final, NamedTuple

import msgspec
from sqlalchemy import Connection, Row, Select, Table, insert, select, tuple_, update
from sqlalchemy.exc import IntegrityError

from liveroom import shapes
from liveroom.errors import Invalid
from liveroom.ids import Id, new_id
from liveroom.money import Currency, Price
from liveroom.store import ledger, tables
from liveroom.store.database import Database, now_ms

PAGE_MAX: Final = 100
STOCK_MAX: Final = 10**9

# Something to be seen, and no NUL: PostgreSQL cannot keep one.
SHOWN: Final = r"^[^\x00]*[^\s\x00][^\x00]*$"
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=120, pattern=SHOWN)]
Title = Annotated[str, msgspec.Meta(min_length=1, max_length=200, pattern=SHOWN)]
Tags = Annotated[
    list[Annotated[str, msgspec.Meta(min_length=1, max_length=40, pattern=SHOWN)]],
    msgspec.Meta(max_length=20),
]
Picture = Annotated[
    str, msgspec.Meta(pattern=r"^(https?://|/|data:image/)[^\s\x00]+$", max_length=4096)
]
Limit = Annotated[int, msgspec.Meta(ge=1, le=10**6)]


class NewShop(msgspec.Struct, kw_only=True):
    """The body that creates a shop."""

    name: Name
    id: Id | None = None


class ShopChange(msgspec.Struct, kw_only=True):
    """The body that changes a shop."""

    name: Name


class NewSku(msgspec.Struct, kw_only=True):
    """One variant of a new product, with its first stock."""

    price_minor: Price
    stock: Annotated[int, msgspec.Meta(ge=0, le=STOCK_MAX)]
    id: Id | None = None
    name: Name | None = None
    limit_per_buyer: Limit | None = None


class NewProduct(msgspec.Struct, kw_only=True):
    """The body that creates a product."""

    shop: Id
    title: Title
    currency: Currency
    skus: Annotated[list[NewSku], msgspec.Meta(min_length=1, max_length=100)]
    id: Id | None = None
    needs: Tags = []
    picture: Picture | None = None


class ProductChange(msgspec.Struct, kw_only=True):
    """The body that changes a product; never its stock, nor the price of a SKU."""

    title: Title | msgspec.UnsetType = msgspec.UNSET
    needs: Tags | msgspec.UnsetType = msgspec.UNSET
    picture: Picture | msgspec.UnsetType | None = msgspec.UNSET


class ChangedProduct(NamedTuple):
    """A product as changed, and the open rooms that are to be told, by id."""

    product: shapes.Product
    rooms: list[str]


class Page(msgspec.Struct):
    """One page of a list; `next` is the cursor of the page after it, or none."""

    items: list[Any]
    next: str | None


class Catalog:
    """The catalog's rows. Nothing here knows of rooms or of who is asking."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def create_shop(self, new: NewShop) -> shapes.Shop:
        """A new shop; `id_reused` when the id is taken."""
        shop_id = new.id or new_id()

        def write(conn: Connection) -> shapes.Shop:
            row = {"id": shop_id, "name": new.name, "created_at": now_ms(conn)}
            insert_new(conn, tables.shops, row)
            return _shop(conn, shop_id)

        return await self._db.write(write)

    async def change_shop(self, shop_id: str, change: ShopChange) -> shapes.Shop:
        """The shop under its new name, or `not_found`."""

        def write(conn: Connection) -> shapes.Shop:
            named = update(tables.shops).where(tables.shops.c.id == shop_id)
            conn.execute(named.values(name=change.name))
            return _shop(conn, shop_id)

        return await self._db.write(write)

    async def shop(self, shop_id: str) -> shapes.Shop:
        """The shop, or `not_found`."""
        return await self._db.read(lambda conn: _shop(conn, shop_id))

    async def shops(self, *, after: str | None, limit: int) -> Page:
        """All shops, newest first."""
        return await self._db.read(
            lambda conn: page(
                conn,
                select(tables.shops),
                tables.shops,
                after=after,
                limit=limit,
                make=lambda rows: [shapes.Shop(**row) for row in rows],
            )
        )

    async def create_product(self, new: NewProduct) -> shapes.Product:
        """A new product with its SKUs and their pools, all in one transaction.

        `not_found` when there is no such shop, `id_reused` when an id is taken. The gates in
        Redis are the inventory's to open.
        """
        product_id = new.id or new_id()
        skus = [(sku, sku.id or new_id()) for sku in new.skus]
        if len({sku_id for _, sku_id in skus}) < len(skus):
            raise Invalid("bad_argument", "Each SKU needs an id of its own.")

        def write(conn: Connection) -> shapes.Product:
            _shop(conn, new.shop)
            insert_new(conn, tables.products, _product_row(new, product_id, now_ms(conn)))
            for position, (sku, sku_id) in enumerate(skus):
                insert_new(conn, tables.skus, _sku_row(sku, sku_id, product_id, position))
                ledger.create_pool(conn, sku=sku_id, initial=sku.stock)
            return one_product(conn, product_id)

        return await self._db.write(write)

    async def change_product(self, product_id: str, change: ProductChange) -> ChangedProduct:
        """The product as changed, or `not_found`.

        Where anything changes, the `v` of the open rooms whose shelf has it grows with it;
        `Rooms.tell_shelves` tells them.
        """
        values = {
            name: value
            for name in change.__struct_fields__
            if (value := getattr(change, name)) is not msgspec.UNSET
        }

        def write(conn: Connection) -> ChangedProduct:
            before = one_product(conn, product_id)
            if all(getattr(before, name) == value for name, value in values.items()):
                return ChangedProduct(before, [])
            rooms = _grow_rooms(conn, product_id)
            named = update(tables.products).where(tables.products.c.id == product_id)
            conn.execute(named.values(**values))
            return ChangedProduct(one_product(conn, product_id), rooms)

        return await self._db.write(write)

    async def product(self, product_id: str) -> shapes.Product:
        """The product with its SKUs, or `not_found`."""
        return await self._db.read(lambda conn: one_product(conn, product_id))

    async def products(self, *, shop: str | None, after: str | None, limit: int) -> Page:
        """Products, newest first; of one shop where `shop` is given."""
        query = select(tables.products)
        if shop is not None:
            query = query.where(tables.products.c.shop == shop)
        return await self._db.read(
            lambda conn: page(
                conn,
                query,
                tables.products,
                after=after,
                limit=limit,
                make=lambda rows: list(products_by_id(conn, [row["id"] for row in rows]).values()),
            )
        )

    async def product_of(self, sku: str) -> shapes.Product:
        """The product a SKU belongs to, or `not_found`."""

        def read(conn: Connection) -> shapes.Product:
            found = conn.scalar(select(tables.skus.c.product).where(tables.skus.c.id == sku))
            if found is None:
                raise Invalid("not_found", "There is no such SKU.", data={"sku": sku})
            return one_product(conn, found)

        return await self._db.read(read)


def one_product(conn: Connection, product_id: str) -> shapes.Product:
    """The product with its SKUs, or `not_found`."""
    found = products_by_id(conn, [product_id])
    if product_id not in found:
        raise Invalid("not_found", "There is no such product.", data={"product": product_id})
    return found[product_id]


def products_by_id(conn: Connection, product_ids: Sequence[str]) -> dict[str, shapes.Product]:
    """The products that exist among `product_ids`, in that order, each with its SKUs."""
    rows = conn.execute(select(tables.products).where(tables.products.c.id.in_(product_ids)))
    by_id = {row.id: row for row in rows}
    skus: dict[str, list[shapes.Sku]] = {product_id: [] for product_id in by_id}
    listed = select(tables.skus).where(tables.skus.c.product.in_(product_ids))
    for row in conn.execute(listed.order_by(tables.skus.c.product, tables.skus.c.position)):
        skus[row.product].append(_sku(row))
    return {i: _product(by_id[i], skus[i]) for i in product_ids if i in by_id}


def insert_new(conn: Connection, table: Table, row: dict[str, Any]) -> None:
    """Insert `row`; `id_reused` when its id is taken."""
    if conn.scalar(select(table.c.id).where(table.c.id == row["id"])) is not None:
        raise Invalid("id_reused", f"The id {row['id']} is taken.", data={"id": row["id"]})
    try:
        conn.execute(insert(table).values(**row))
    except IntegrityError:  # another node took it between the two statements
        raise Invalid("id_reused", f"The id {row['id']} is taken.") from None


def page(
    conn: Connection,
    query: Select[Any],
    table: Table,
    *,
    after: str | None,
    limit: int,
    make: Any,
) -> Page:
    """One page of `query`, newest first by `created_at` and id; `after` is a page's `next`."""
    if after is not None:
        query = query.where(tuple_(table.c.created_at, table.c.id) < tuple_(*cursor(after)))
    newest_first = query.order_by(table.c.created_at.desc(), table.c.id.desc())
    rows = conn.execute(newest_first.limit(limit + 1)).mappings().all()
    last = rows[limit - 1] if len(rows) > limit else None
    return Page(make(rows[:limit]), f"{last['created_at']}.{last['id']}" if last else None)


def cursor(text: str) -> tuple[int, str]:
    """The place a cursor stands for; `bad_argument` when it is none of ours."""
    at, _, last_id = text.partition(".")
    if not (at.isdecimal() and at.isascii() and len(at) < 16 and last_id):
        raise Invalid("bad_argument", "This cursor is none of ours.")
    return int(at), last_id


def _grow_rooms(conn: Connection, product: str) -> list[str]:
    """Open rooms show their shelf: locked in order, as whoever changes several of them does."""
    rooms, shelf = tables.rooms.c, tables.shelf.c
    showing = select(shelf.room).where(shelf.product == product)
    mine = select(rooms.id).where(rooms.id.in_(showing), rooms.state != "closed")
    ids = conn.scalars(mine.order_by(rooms.id).with_for_update()).all()
    conn.execute(update(tables.rooms).where(rooms.id.in_(ids)).values(v=rooms.v + 1))
    return list(ids)


def _shop(conn: Connection, shop_id: str) -> shapes.Shop:
    found = conn.execute(select(tables.shops).where(tables.shops.c.id == shop_id))
    row = found.mappings().first()
    if row is None:
        raise Invalid("not_found", "There is no such shop.", data={"shop": shop_id})
    return shapes.Shop(**row)


def _product_row(new: NewProduct, product_id: str, at: int) -> dict[str, Any]:
    return {
        "id": product_id,
        "shop": new.shop,
        "title": new.title,
        "currency": new.currency,
        "needs": new.needs,
        "picture": new.picture,
        "created_at": at,
    }


def _sku_row(new: NewSku, sku_id: str, product_id: str, position: int) -> dict[str, Any]:
    return {
        "id": sku_id,
        "product": product_id,
        "position": position,
        "name": new.name,
        "price_minor": new.price_minor,
        "limit_per_buyer": new.limit_per_buyer,
    }


def _sku(row: Row[Any]) -> shapes.Sku:
    return shapes.Sku(
        id=row.id,
        name=row.name,
        price_minor=row.price_minor,
        limit_per_buyer=row.limit_per_buyer,
    )


def _product(row: Row[Any], skus: list[shapes.Sku]) -> shapes.Product:
    return shapes.Product(
        id=row.id,
        shop=row.shop,
        title=row.title,
        currency=row.currency,
        needs=row.needs,
        picture=row.picture,
        skus=skus,
    )

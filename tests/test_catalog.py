"""The catalog: shops, products and their SKUs, and lists by cursor."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from liveroom.arguments import fitting
from liveroom.catalog import Catalog, NewProduct, NewShop, NewSku, ProductChange, ShopChange
from liveroom.errors import Invalid
from liveroom.store import partitions, tables

PRODUCT = {
    "shop": "s1",
    "id": "p1",
    "title": "Linen trousers",
    "currency": "CNY",
    "needs": ["pear-shaped"],
    "skus": [
        {"id": "m", "name": "M", "price_minor": 19900, "stock": 5, "limit_per_buyer": 2},
        {"id": "l", "price_minor": 19900, "stock": 0},
    ],
}


async def seeded(db):
    await db.write(lambda conn: partitions.prepare(conn, 1))
    catalog = Catalog(db)
    await catalog.create_shop(NewShop(id="s1", name="Linen"))
    return catalog


def test_product_is_created_with_its_pools(run, db):
    """A product, its SKUs and their stock come into being together."""

    async def story():
        catalog = await seeded(db)
        made = await catalog.create_product(fitting(PRODUCT, NewProduct))
        assert made == await catalog.product("p1") == await catalog.product_of("l")
        assert [sku.id for sku in made.skus] == ["m", "l"]
        pools = await db.read(
            lambda conn: conn.execute(select(tables.pools.c.pool, tables.pools.c.initial)).all()
        )
        assert sorted(map(tuple, pools)) == [("sku:l", 0), ("sku:m", 5)]

    run(story())


def test_taken_ids_are_refused_whole(run, db):
    """A SKU id that is taken refuses the product, and leaves nothing of it behind."""

    async def story():
        catalog = await seeded(db)
        await catalog.create_product(fitting(PRODUCT, NewProduct))
        for changed in ({}, {"id": "p2"}):
            with pytest.raises(Invalid, match="id_reused"):
                await catalog.create_product(fitting(PRODUCT | changed, NewProduct))
        with pytest.raises(Invalid, match="not_found"):
            await catalog.product("p2")
        with pytest.raises(Invalid, match="id_reused"):
            await catalog.create_shop(NewShop(id="s1", name="Again"))

    run(story())


def test_what_is_not_there_is_not_found(run, db):
    """Every look-up of something that is not there says so."""

    async def story():
        catalog = await seeded(db)
        orphan = NewProduct(
            shop="nowhere", title="x", currency="CNY", skus=[NewSku(price_minor=1, stock=1)]
        )
        for look_up in (
            catalog.shop("x"),
            catalog.product("x"),
            catalog.product_of("x"),
            catalog.change_shop("x", ShopChange(name="y")),
            catalog.change_product("x", ProductChange(title="y")),
            catalog.create_product(orphan),
        ):
            with pytest.raises(Invalid, match="not_found"):
                await look_up

    run(story())


def test_change_leaves_the_rest(run, db):
    """A change names what it changes; a picture can also be taken away."""

    async def story():
        catalog = await seeded(db)
        await catalog.create_product(fitting(PRODUCT, NewProduct))
        new = fitting({"picture": "/pictures/p1.svg"}, ProductChange)
        changed = (await catalog.change_product("p1", new)).product
        assert (changed.title, changed.picture) == ("Linen trousers", "/pictures/p1.svg")
        new = fitting({"picture": None, "title": "T"}, ProductChange)
        changed = (await catalog.change_product("p1", new)).product
        assert (changed.title, changed.picture, changed.needs) == ("T", None, ["pear-shaped"])
        assert (await catalog.change_shop("s1", ShopChange(name="New"))).name == "New"

    run(story())


def test_pages_show_everything_once_newest_first(run, db):
    """Following `next` shows each shop once, and ends with none."""

    async def story():
        catalog = await seeded(db)
        for number in range(4):
            await catalog.create_shop(NewShop(id=f"shop.{number}", name="x"))
        seen, after = [], None
        while True:
            page = await catalog.shops(after=after, limit=2)
            seen += [shop.id for shop in page.items]
            if (after := page.next) is None:
                break
        assert sorted(seen) == ["s1", "shop.0", "shop.1", "shop.2", "shop.3"]
        times = [(await catalog.shop(shop)).created_at for shop in seen]
        assert times == sorted(times, reverse=True)
        for forged in ("", "x", "1", "1.", "-1.a", "99999999999999999999.a"):
            with pytest.raises(Invalid, match="bad_argument"):
                await catalog.shops(after=forged, limit=2)

    run(story())


BAD = {
    "no skus": {"skus": []},
    "negative price": {"skus": [{"price_minor": -1, "stock": 1}]},
    "fractional price": {"skus": [{"price_minor": 1.5, "stock": 1}]},
    "price as text": {"skus": [{"price_minor": "1", "stock": 1}]},
    "endless price": {"skus": [{"price_minor": 2**63, "stock": 1}]},
    "negative stock": {"skus": [{"price_minor": 1, "stock": -1}]},
    "limit of none": {"skus": [{"price_minor": 1, "stock": 1, "limit_per_buyer": 0}]},
    "currency in words": {"currency": "yuan"},
    "id with a space": {"id": "p 1"},
    "endless title": {"title": "x" * 1000},
    "script as picture": {"picture": "javascript:alert(1)"},
}


@pytest.mark.parametrize("name", BAD)
def test_what_does_not_fit_is_a_bad_argument(name):
    """Prices, stock, currency and ids are checked at the door."""
    with pytest.raises(Invalid, match="bad_argument"):
        fitting(PRODUCT | BAD[name], NewProduct)

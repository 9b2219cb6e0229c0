"""Redis loses its stock in the middle of a sale."""

from __future__ import annotations

import asyncio

from liveroom.ids import new_id
from liveroom.store import keys, scripts


async def lose_the_stock(url: str) -> None:
    """Delete the fence: to every node the stock of this Redis is gone."""
    client = scripts.connect(url)
    await client.delete(keys.stock_fence(0))
    await client.aclose()


def test_a_cart_is_lost_and_said_to_be_lost(enter, server):
    """Ann hears that her cart is gone, and buys the same again; Bob's order stands."""
    ann, bob = enter("ann"), enter("bob")
    order = bob.do("order.place", order=new_id(), lines=[{"sku": "s1", "qty": 4}])["order"]
    [line] = ann.do("cart.add", sku="s1", qty=6)["cart"]["lines"]

    asyncio.run(lose_the_stock((server.data / "redis.url").read_text()))
    told = ann.hear("hold.expired")["data"]
    held = {"sku": "s1", "qty": 6, "expires_at": line["expires_at"]}
    assert told == {"hold": held, "why": "rebuilding"}
    assert ann.do("cart.show")["cart"]["lines"] == []

    ann.do("cart.add", sku="s1", qty=6)
    assert ann.do("cart.checkout", order=new_id())["order"]["state"] == "placed"
    assert bob.do("order.show", order=order["id"])["order"]["state"] == "placed"
    assert bob.refusal("order.place", order=new_id(), lines=[{"sku": "s1", "qty": 1}]) == "sold_out"
    assert server.audit()["ok"]

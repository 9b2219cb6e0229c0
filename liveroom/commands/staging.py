"""Commands of the host: the room, its shelf, its pins, prices and stock."""

from __future__ import annotations

from typing import Any

from liveroom import text
from liveroom.commands.calls import Call
from liveroom.errors import Denied, Invalid
from liveroom.shapes import Room


async def room_open(call: Call) -> dict[str, Any]:
    """Make a planned room live."""
    return await _changed(call, await call.services.rooms.open(call.room))


async def room_close(call: Call) -> dict[str, Any]:
    """Close a live room for good, and its drops with it."""
    room = await call.services.rooms.close(call.room)
    call.services.promotions.look_now()
    return await _changed(call, room)


async def room_set(call: Call) -> dict[str, Any]:
    """Change the title, the stream or who may talk, and how fast."""
    return await _changed(call, await call.services.rooms.set(call.room, call.args))


async def sale_pause(call: Call) -> dict[str, Any]:
    """Stop all sales of the room; holds run on, payments go on."""
    return await _changed(call, await call.services.rooms.pause(call.room, paused=True))


async def sale_resume(call: Call) -> dict[str, Any]:
    """Sell again."""
    return await _changed(call, await call.services.rooms.pause(call.room, paused=False))


async def shelf_put(call: Call) -> dict[str, Any]:
    """Put a product on the shelf, or move, show or hide it there."""
    shelf = await call.services.rooms.put(
        call.room, call.args.product, position=call.args.position, state=call.args.state
    )
    await call.services.onair.reread(call.room)
    return {"shelf": [product.builtin() for product in shelf]}


async def shelf_remove(call: Call) -> dict[str, Any]:
    """Take a product off the shelf, and its pin with it."""
    shelf = await call.services.rooms.take(call.room, call.args.product)
    await call.services.onair.reread(call.room)
    return {"shelf": [product.builtin() for product in shelf]}


async def product_pin(call: Call) -> dict[str, Any]:
    """Show a product of the shelf to everybody; at most three at once."""
    product = await call.services.rooms.pin(call.room, call.args.product)
    return {"product": product.builtin()}


async def product_unpin(call: Call) -> dict[str, Any]:
    """Take one pin down, or all."""
    product = call.args.product
    if product is None:
        await call.services.rooms.unpin_all(call.room)
        return {}
    shown = await call.services.catalog.product(product)
    await call.services.rooms.unpin(call.room, product)
    return {"product": shown.builtin()}


async def price_set(call: Call) -> dict[str, Any]:
    """Change the price of a SKU of the shelf: in SQL, at the gate, then on the screens."""
    await own_sku(call)
    sku = await call.services.rooms.set_price(call.args.sku, call.args.price_minor)
    await call.services.inventory.set_price(sku.id)
    await call.services.rooms.tell_price(sku.id)
    return {"sku": sku.builtin()}


async def stock_restock(call: Call) -> dict[str, Any]:
    """Add units that came in; what is left then."""
    await own_sku(call)
    sku = call.args.sku
    stock = await call.services.inventory.restock(
        sku, call.args.qty, call.operation, call.member.id
    )
    return {"stock": {"sku": sku, **stock.builtin()}}


async def stock_adjust(call: Call) -> dict[str, Any]:
    """Count units in or out; what is left then. More than is free stays: `sold_out` says so."""
    await own_sku(call)
    sku, delta = call.args.sku, call.args.delta
    why = text.clean(call.args.why)
    if delta == 0 or not why:
        raise Invalid("bad_argument", "An adjustment changes something and says why.")
    stock = await call.services.inventory.adjust(sku, delta, call.operation, call.member.id, why)
    return {"stock": {"sku": sku, **stock.builtin()}}


async def _changed(call: Call, room: Room) -> dict[str, Any]:
    """The answer to a change of the room, by which commands are judged from now on."""
    await call.services.onair.reread(call.room)
    return {"room": room.builtin()}


async def own_sku(call: Call) -> None:
    """`not_found` off the shelf; `forbidden` for the goods of a shop that is not the room's.

    A host selects other shops' products to sell, never to reprice or restock them.
    """
    known = await call.services.rooms.facts(call.room)
    sku, shop = call.args.sku, known.room.shop
    product = next((p for p in known.shelf for s in p.skus if s.id == sku), None)
    if product is None:
        raise Invalid("not_found", "It is not on this shelf.", data={"sku": sku})
    if shop is not None and product.shop != shop and not call.member.runs(product.shop):
        raise Denied("forbidden", "This SKU belongs to another shop.")

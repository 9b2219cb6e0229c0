"""Commands of flash drops: the host schedules and ends them, members enter their draws."""

from __future__ import annotations

from typing import Any

from liveroom.commands.calls import Call
from liveroom.commands.staging import own_sku
from liveroom.promotions import NewDrop
from liveroom.shapes import Entry


async def drop_schedule(call: Call) -> dict[str, Any]:
    """Set units of a SKU of the shelf aside, to be sold at a price for a time."""
    await own_sku(call)
    asked = call.args
    new = NewDrop(
        room=call.room,
        sku=asked.sku,
        quantity=asked.quantity,
        price_minor=asked.price_minor,
        opens_in_ms=asked.opens_in_ms,
        lasts_ms=asked.lasts_ms,
        limit_per_buyer=asked.limit_per_buyer,
        admission=asked.admission,
    )
    drop = await call.services.promotions.schedule(new, call.operation)
    return {"drop": drop.builtin()}


async def drop_close(call: Call) -> dict[str, Any]:
    """End an open drop before its time."""
    drop = await call.services.promotions.close(call.room, call.args.drop)
    return {"drop": drop.builtin()}


async def drop_cancel(call: Call) -> dict[str, Any]:
    """Call off a drop that has not opened."""
    drop = await call.services.promotions.cancel(call.room, call.args.drop)
    return {"drop": drop.builtin()}


async def drop_enter(call: Call) -> dict[str, Any]:
    """Take part in a draw; entering again changes nothing."""
    drop = await call.services.promotions.enter(call.room, call.args.drop, call.member.id)
    return {"drop": drop.builtin(), "entry": Entry(drop=drop.id).builtin()}

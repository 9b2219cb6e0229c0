"""Commands of the buyer: cart, order, payment."""

from __future__ import annotations

from typing import Any

import structlog

from liveroom import rooms, shapes
from liveroom.commands.calls import Call
from liveroom.deciding import first_answer
from liveroom.errors import Invalid, LiveroomError, Refused, Unavailable
from liveroom.events import Event
from liveroom.faults import point
from liveroom.orders import LineRequest
from liveroom.placing import known_orders
from liveroom.shelves import OnSale

log = structlog.get_logger(__name__)


async def cart_show(call: Call) -> dict[str, Any]:
    """What the cart holds now."""
    return {"cart": (await call.services.carts.show(call.member.id, call.room)).builtin()}


async def cart_add(call: Call) -> dict[str, Any]:
    """Hold units of a SKU for the buyer; the cart with them."""
    sale = await _on_sale(call, [(call.args.sku, call.args.drop)])
    await call.services.hoarding.refuse_if_cooling(call.member.id, [call.args.sku])
    cart = await call.services.carts.add(
        buyer=call.member.id,
        room=call.room,
        sku=call.args.sku,
        qty=call.args.qty,
        drop=call.args.drop,
        price_minor=call.args.price_minor,
        bucket=sale.bucket(call.args.sku, call.args.source),
        operation=call.operation,
    )
    await _tell_held(call, cart)
    return {"cart": cart.builtin()}


async def _tell_held(call: Call, cart: shapes.Cart) -> None:
    """Tell the buyer's other connections of the line; the cart itself is held whatever comes."""
    added = (call.args.sku, call.args.drop)
    line = next((one for one in cart.lines if (one.sku, one.drop) == added), None)
    if line is None:
        return
    hold = shapes.HoldLine(sku=line.sku, qty=line.qty, expires_at=line.expires_at, drop=line.drop)
    at = call.services.clock.now_ms()
    event = Event("hold.placed", {"hold": hold.builtin()}, at, to=call.member.id)
    try:
        await call.services.backplane.direct([event])
    except Unavailable as fault:
        log.info("hold_untold", code=fault.code)


async def cart_remove(call: Call) -> dict[str, Any]:
    """Give a line back; the cart without it."""
    cart = await call.services.carts.remove(
        buyer=call.member.id, room=call.room, sku=call.args.sku, drop=call.args.drop
    )
    return {"cart": cart.builtin()}


async def waitlist_join(call: Call) -> dict[str, Any]:
    """Wait for units of a SKU that is sold out; a place in the line."""
    sale = await _on_sale(call, [(call.args.sku, None)])
    await call.services.hoarding.refuse_if_cooling(call.member.id, [call.args.sku])
    place = await call.services.waitlist.join(
        member=call.member.id,
        room=call.room,
        sku=call.args.sku,
        qty=call.args.qty,
        bucket=sale.bucket(call.args.sku, call.args.source),
    )
    return {"waiting": place.builtin()}


async def waitlist_leave(call: Call) -> dict[str, Any]:
    """Wait no more."""
    place = await call.services.waitlist.leave(member=call.member.id, sku=call.args.sku)
    return {"waiting": place.builtin()}


async def cart_checkout(call: Call) -> dict[str, Any]:
    """Order what the cart holds, all of it or nothing."""
    if call.args.coupon is not None:
        return {"order": (await _first_or(call, _no_coupon(call))).builtin()}
    order = await call.services.orders.checkout(
        order=call.args.order, buyer=call.member.id, room=call.room, content=call.content
    )
    return {"order": order.builtin()}


async def order_place(call: Call) -> dict[str, Any]:
    """Buy now: an order of its own, beside the cart."""
    asked = call.args.lines
    try:
        sale = await _on_sale(call, [(line.sku, line.drop) for line in asked])
        await call.services.hoarding.refuse_if_cooling(call.member.id, [one.sku for one in asked])
        if call.args.coupon is not None:
            raise _no_coupon(call)
    except (Refused, Invalid) as refusal:
        return {"order": (await _first_or(call, refusal)).builtin()}
    order = await call.services.orders.place(
        order=call.args.order,
        buyer=call.member.id,
        room=call.room,
        lines=[
            LineRequest(
                sku=line.sku,
                qty=line.qty,
                drop=line.drop,
                price_minor=line.price_minor,
                bucket=sale.bucket(line.sku, call.args.source),
            )
            for line in asked
        ],
        again=call.args.again,
        content=call.content,
    )
    point("order.answering")
    return {"order": order.builtin()}


def _no_coupon(call: Call) -> Invalid:
    """No coupon is in force: whoever names one must not pay the full price unasked."""
    data = {"coupon": call.args.coupon}
    return Invalid("not_found", "There is no such coupon.", data=data)


async def _first_or(call: Call, refusal: LiveroomError) -> shapes.Order:
    """What this order id was answered before, whatever would refuse it now; else the refusal."""
    order = call.args.order
    known = await call.services.db.read(lambda conn: known_orders(conn, [order]))
    if order not in known:
        raise refusal
    first = first_answer(known[order], call.member.id, call.content)
    if isinstance(first, LiveroomError):
        raise first
    return first


async def order_show(call: Call) -> dict[str, Any]:
    """The order as it is now."""
    order = await call.services.orders.show(call.args.order, call.member.id)
    return {"order": order.builtin()}


async def order_cancel(call: Call) -> dict[str, Any]:
    """Cancel an unpaid order; its units are on sale again."""
    order = await call.services.orders.cancel(call.args.order, call.member.id)
    return {"order": order.builtin()}


async def payment_start(call: Call) -> dict[str, Any]:
    """Open a payment of an order, or answer the one that is open."""
    payment = await call.services.payments.start(
        order=call.args.order, buyer=call.member.id, provider=call.args.provider
    )
    return {"payment": payment.builtin()}


async def _on_sale(call: Call, lines: list[tuple[str, str | None]]) -> OnSale:
    """What the room sells now, with these lines among it.

    `not_found` off the shelf, `not_open` or `sale_paused` where nothing is sold. A drop must be
    this room's, and its draw must have admitted the buyer; whether it is open its gate says.
    A node's picture may lag behind SQL, so no refusal is given before SQL agrees.
    """
    skus = [sku for sku, _ in lines]
    try:
        sale = await call.services.onair.on_sale(call.room)
        refuse_unless_on_sale(sale, skus)
    except (Refused, Invalid):
        sale = (await call.services.rooms.facts(call.room)).on_sale
        refuse_unless_on_sale(sale, skus)
    dropped = [(sku, drop) for sku, drop in lines if drop is not None]
    if dropped:
        offered = call.services.promotions.refuse_unless_offered
        await offered(call.room, call.member.id, dropped)
    return sale


def refuse_unless_on_sale(sale: OnSale, skus: list[str]) -> None:
    """Refuse what this room does not sell now."""
    for sku in skus:
        if sku not in sale.selling:
            raise Invalid("not_found", "It is not on this shelf.", data={"sku": sku})
    rooms.refuse_unless_selling(sale.room)
    for sku in skus:
        if sale.selling[sku] != "on":
            raise Refused("not_open", "It is shown, not sold.", data={"sku": sku})

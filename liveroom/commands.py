"""The one table of commands: who may, what data fits, which service carries it out.

The same table serves WebSocket and HTTP. Checks go in this order: command, who, arguments,
existence, and only then stock. A command that is not here is `unknown_command`.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, NamedTuple

import msgspec

from liveroom import arguments as args
from liveroom import moderation, rooms, shapes
from liveroom.auth import Auth, Member
from liveroom.cart import Carts
from liveroom.catalog import Catalog
from liveroom.clock import Clock
from liveroom.creators import Creators
from liveroom.deciding import first_answer
from liveroom.errors import Denied, Invalid, LiveroomError, Refused
from liveroom.ids import new_id
from liveroom.inventory import Inventory
from liveroom.moderation import Moderation, SlowMode
from liveroom.onair import OnAir
from liveroom.orders import LineRequest, Orders
from liveroom.payments import Payments
from liveroom.placing import known_orders
from liveroom.store.backplane import Backplane
from liveroom.store.database import Database


@dataclass(frozen=True, kw_only=True)
class Services:
    """Everything the house can do, built once by the server."""

    node: str
    clock: Clock
    db: Database
    backplane: Backplane
    auth: Auth
    catalog: Catalog
    creators: Creators
    rooms: rooms.Rooms
    onair: OnAir
    moderation: Moderation
    slow_mode: SlowMode
    inventory: Inventory
    carts: Carts
    orders: Orders
    payments: Payments


class Who(StrEnum):
    """Who may send a command."""

    ANYONE = "anyone"
    MEMBER = "member"
    MODERATOR = "moderator"
    HOST = "host"


@dataclass(frozen=True, kw_only=True)
class Call:
    """One command on its way: `args` has passed its type, `content` names what was sent."""

    services: Services
    room: str
    member: Member
    cmd: str
    args: Any
    content: str
    key: str | None
    operation: str


Run = Callable[[Call], Awaitable[dict[str, Any]]]


class Command(NamedTuple):
    """One row of the table."""

    args: type[msgspec.Struct]
    who: Who
    run: Run
    by_order_id: bool = False


class Commands:
    """Runs commands by the table."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._running: dict[tuple[str, str], asyncio.Future[None]] = {}

    async def run(
        self, room: str, member: Member, cmd: str, data: dict[str, Any], key: str | None = None
    ) -> dict[str, Any]:
        """What `ok` holds, or the refusal raised.

        With `key`, the same member, key and content get the first answer for 24 hours, on
        whatever connection; other content under the key is `id_reused`. A refusal binds
        nothing.
        """
        command = COMMANDS.get(cmd)
        if command is None:
            raise Invalid("unknown_command", data={"cmd": cmd[:64]})
        if member.expired(self._services.clock.now_ms()):
            raise Denied("token_expired")
        refuse_unless_may(command.who, member, room)
        call = Call(
            services=self._services,
            room=room,
            member=member,
            cmd=cmd,
            args=args.fitting(data, command.args),
            content=content_of(cmd, room, member, data),
            key=key,
            operation=f"{member.id}:{key or new_id()}",
        )
        await self._services.onair.room(room)
        if key is None or command.by_order_id:
            return await command.run(call)
        return await self._once(key, call, command.run)

    async def _once(self, key: str, call: Call, run: Run) -> dict[str, Any]:
        if not 1 <= len(key) <= args.KEY_MAX:
            raise Invalid("bad_argument", f"A key has 1 to {args.KEY_MAX} characters.")
        backplane, mine = self._services.backplane, (call.member.id, key)
        while mine in self._running:  # the same request twice at once: the second waits
            await asyncio.wait([self._running[mine]])
        self._running[mine] = asyncio.get_running_loop().create_future()
        try:
            first = await backplane.recall(*mine)
            if first is not None:
                content, answer = first
                if content != call.content:
                    raise Invalid("id_reused")
                return dict(answer)
            answer = await run(call)
            await backplane.remember(*mine, call.content, answer)
            return answer
        finally:
            self._running.pop(mine).set_result(None)


def refuse_unless_may(who: Who, member: Member, room: str) -> None:
    """`unauthenticated` for a guest who must be a member, `forbidden` for a missing right."""
    if who is Who.ANYONE:
        return
    if member.guest:
        raise Denied("unauthenticated")
    if (who is Who.HOST and not member.hosts(room)) or (
        who is Who.MODERATOR and not member.moderates(room)
    ):
        raise Denied("forbidden")


def content_of(cmd: str, room: str, member: Member, data: dict[str, Any]) -> str:
    """A digest of command, room, member and data as sent, `again` left out."""
    sent = {name: value for name, value in data.items() if name != "again"}
    said = msgspec.json.encode([cmd, room, member.id, sent], order="sorted")
    return hashlib.sha256(said).hexdigest()


# ── talking ───────────────────────────────────────────────────────────────────────────────


async def _message_post(call: Call) -> dict[str, Any]:
    said = moderation.fit_text(call.args.text)
    room = await call.services.onair.room(call.room)
    moderation.refuse_unless_may_speak(room, call.member)
    call.services.slow_mode.take_turn(room, call.member)
    message = await call.services.rooms.say(call.room, call.member, said, call.operation)
    return {"message": message}


async def _message_remove(call: Call) -> dict[str, Any]:
    message = call.args.message
    await call.services.moderation.remove_message(call.room, message, by=call.member)
    return {"message": {"id": message}}


async def _reaction_send(call: Call) -> dict[str, Any]:
    room = await call.services.onair.room(call.room)
    moderation.refuse_unless_may_speak(room, call.member)
    await call.services.onair.tap(call.room, call.args.kind, call.args.count)
    return {}


async def _creator_follow(call: Call) -> dict[str, Any]:
    creator = await call.services.creators.follow(call.args.creator, call.member.id)
    return {"creator": creator.builtin()}


async def _notice_post(call: Call) -> dict[str, Any]:
    said = moderation.fit_text(call.args.text)
    await call.services.rooms.notice(call.room, said)
    return {"notice": {"text": said}}


# ── the room and its shelf ────────────────────────────────────────────────────────────────


async def _room_open(call: Call) -> dict[str, Any]:
    return {"room": (await call.services.rooms.open(call.room)).builtin()}


async def _room_close(call: Call) -> dict[str, Any]:
    return {"room": (await call.services.rooms.close(call.room)).builtin()}


async def _room_set(call: Call) -> dict[str, Any]:
    return {"room": (await call.services.rooms.set(call.room, call.args)).builtin()}


async def _sale_pause(call: Call) -> dict[str, Any]:
    return {"room": (await call.services.rooms.pause(call.room, paused=True)).builtin()}


async def _sale_resume(call: Call) -> dict[str, Any]:
    return {"room": (await call.services.rooms.pause(call.room, paused=False)).builtin()}


async def _shelf_put(call: Call) -> dict[str, Any]:
    shelf = await call.services.rooms.put(
        call.room, call.args.product, position=call.args.position, state=call.args.state
    )
    return {"shelf": [product.builtin() for product in shelf]}


async def _shelf_remove(call: Call) -> dict[str, Any]:
    shelf = await call.services.rooms.take(call.room, call.args.product)
    return {"shelf": [product.builtin() for product in shelf]}


async def _product_pin(call: Call) -> dict[str, Any]:
    product = await call.services.rooms.pin(call.room, call.args.product)
    return {"product": product.builtin()}


async def _product_unpin(call: Call) -> dict[str, Any]:
    product = call.args.product
    if product is None:
        await call.services.rooms.unpin_all(call.room)
        return {}
    shown = await call.services.catalog.product(product)
    await call.services.rooms.unpin(call.room, product)
    return {"product": shown.builtin()}


async def _price_set(call: Call) -> dict[str, Any]:
    await _own_sku(call)
    sku = await call.services.rooms.set_price(call.args.sku, call.args.price_minor)
    await call.services.inventory.set_price(sku.id, sku.price_minor)
    await call.services.rooms.tell_price(sku.id)
    return {"sku": sku.builtin()}


async def _stock_restock(call: Call) -> dict[str, Any]:
    await _own_sku(call)
    sku = call.args.sku
    stock = await call.services.inventory.restock(
        sku, call.args.qty, call.operation, call.member.id
    )
    return {"stock": {"sku": sku, **stock.builtin()}}


async def _own_sku(call: Call) -> None:
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


# ── buying ────────────────────────────────────────────────────────────────────────────────


async def _cart_show(call: Call) -> dict[str, Any]:
    return {"cart": (await call.services.carts.show(call.member.id, call.room)).builtin()}


async def _cart_add(call: Call) -> dict[str, Any]:
    await _on_sale(call, [call.args.sku])
    cart = await call.services.carts.add(
        buyer=call.member.id,
        room=call.room,
        sku=call.args.sku,
        qty=call.args.qty,
        drop=call.args.drop,
        price_minor=call.args.price_minor,
        operation=call.operation,
    )
    return {"cart": cart.builtin()}


async def _cart_remove(call: Call) -> dict[str, Any]:
    cart = await call.services.carts.remove(
        buyer=call.member.id, room=call.room, sku=call.args.sku, drop=call.args.drop
    )
    return {"cart": cart.builtin()}


async def _cart_checkout(call: Call) -> dict[str, Any]:
    order = await call.services.orders.checkout(
        order=call.args.order, buyer=call.member.id, room=call.room, content=call.content
    )
    return {"order": order.builtin()}


async def _order_place(call: Call) -> dict[str, Any]:
    lines = [
        LineRequest(sku=line.sku, qty=line.qty, drop=line.drop, price_minor=line.price_minor)
        for line in call.args.lines
    ]
    try:
        await _on_sale(call, [line.sku for line in lines])
    except (Refused, Invalid):
        first = await _first_answer(call)
        if first is None:
            raise
        return {"order": first.builtin()}
    order = await call.services.orders.place(
        order=call.args.order,
        buyer=call.member.id,
        room=call.room,
        lines=lines,
        again=call.args.again,
        content=call.content,
    )
    return {"order": order.builtin()}


async def _first_answer(call: Call) -> shapes.Order | None:
    """What this order id was answered before, whatever would refuse it now."""
    order = call.args.order
    known = await call.services.db.read(lambda conn: known_orders(conn, [order]))
    if order not in known:
        return None
    first = first_answer(known[order], call.member.id, call.content)
    if isinstance(first, LiveroomError):
        raise first
    return first


async def _order_show(call: Call) -> dict[str, Any]:
    order = await call.services.orders.show(call.args.order, call.member.id)
    return {"order": order.builtin()}


async def _order_cancel(call: Call) -> dict[str, Any]:
    order = await call.services.orders.cancel(call.args.order, call.member.id)
    return {"order": order.builtin()}


async def _payment_start(call: Call) -> dict[str, Any]:
    payment = await call.services.payments.start(
        order=call.args.order, buyer=call.member.id, provider=call.args.provider
    )
    return {"payment": payment.builtin()}


async def _on_sale(call: Call, skus: list[str]) -> None:
    """`not_found` off the shelf, `not_open` or `sale_paused` where nothing is sold now.

    A node's picture may lag behind SQL, so no refusal is given before SQL agrees.
    """
    try:
        refuse_unless_on_sale(*await call.services.onair.facts(call.room), skus)
    except (Refused, Invalid):
        known = await call.services.rooms.facts(call.room)
        refuse_unless_on_sale(known.room, known.selling, skus)


def refuse_unless_on_sale(room: shapes.Room, selling: Mapping[str, str], skus: list[str]) -> None:
    """Refuse what this room does not sell now; `selling` tells of each SKU: on or visible."""
    for sku in skus:
        if sku not in selling:
            raise Invalid("not_found", "It is not on this shelf.", data={"sku": sku})
    rooms.refuse_unless_selling(room)
    for sku in skus:
        if selling[sku] != "on":
            raise Refused("not_open", "It is shown, not sold.", data={"sku": sku})


COMMANDS: Final[dict[str, Command]] = {
    "message.post": Command(args.Text, Who.ANYONE, _message_post),
    "reaction.send": Command(args.Reaction, Who.ANYONE, _reaction_send),
    "creator.follow": Command(args.Creator, Who.MEMBER, _creator_follow),
    "cart.add": Command(args.CartAdd, Who.MEMBER, _cart_add),
    "cart.remove": Command(args.CartRemove, Who.MEMBER, _cart_remove),
    "cart.show": Command(args.Nothing, Who.MEMBER, _cart_show),
    "cart.checkout": Command(args.Checkout, Who.MEMBER, _cart_checkout, by_order_id=True),
    "order.place": Command(args.OrderPlace, Who.MEMBER, _order_place, by_order_id=True),
    "order.show": Command(args.Order, Who.MEMBER, _order_show),
    "order.cancel": Command(args.Order, Who.MEMBER, _order_cancel),
    "payment.start": Command(args.Pay, Who.MEMBER, _payment_start),
    "message.remove": Command(args.Message, Who.MODERATOR, _message_remove),
    "room.open": Command(args.Nothing, Who.HOST, _room_open),
    "room.close": Command(args.Nothing, Who.HOST, _room_close),
    "room.set": Command(rooms.RoomChange, Who.HOST, _room_set),
    "shelf.put": Command(args.ShelfPut, Who.HOST, _shelf_put),
    "shelf.remove": Command(args.Product, Who.HOST, _shelf_remove),
    "product.pin": Command(args.Product, Who.HOST, _product_pin),
    "product.unpin": Command(args.MaybeProduct, Who.HOST, _product_unpin),
    "price.set": Command(args.PriceSet, Who.HOST, _price_set),
    "stock.restock": Command(args.Restock, Who.HOST, _stock_restock),
    "sale.pause": Command(args.Nothing, Who.HOST, _sale_pause),
    "sale.resume": Command(args.Nothing, Who.HOST, _sale_resume),
    "notice.post": Command(args.Text, Who.HOST, _notice_post),
}

"""The one table of commands: who may, what data fits, which service carries it out.

The same table serves WebSocket and HTTP. Checks go in this order: command, who, arguments,
existence, and only then stock. A command that is not here is `unknown_command`.
"""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any, Final

import msgspec

from liveroom import arguments as args
from liveroom import rooms
from liveroom.auth import Member
from liveroom.commands import buying, promoting, staging, talking
from liveroom.commands.calls import Call, Command, Run, Services, Who
from liveroom.errors import Denied, Invalid, Unavailable
from liveroom.ids import new_id

__all__ = ["COMMANDS", "Command", "Commands", "Services", "Who"]


class Commands:
    """Runs commands by the table."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._running: dict[tuple[str, str], asyncio.Future[Unavailable | None]] = {}

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
            content=content_of(cmd, room, member, data) if key or command.by_order_id else "",
            key=key,
            operation="" if command.by_order_id else f"{member.id}:{key or new_id()}",
        )
        await self._services.onair.room(room)
        if key is None or command.by_order_id:
            return await command.run(call)
        return await self._once(key, call, command.run)

    async def _once(self, key: str, call: Call, run: Run) -> dict[str, Any]:
        if not 1 <= len(key) <= args.KEY_MAX:
            raise Invalid("bad_argument", f"A key has 1 to {args.KEY_MAX} characters.")
        backplane, mine = self._services.backplane, (call.member.id, key)
        while running := self._running.get(mine):  # the same request twice at once: it waits
            await asyncio.wait([running])
            if (away := running.result()) is not None:
                raise away  # a store was away for the first: nobody waits for it a second time
        self._running[mine] = asyncio.get_running_loop().create_future()
        away = None
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
        except Unavailable as fault:
            away = fault
            raise
        finally:
            self._running.pop(mine).set_result(away)


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
    """A digest of command, room, member and data as sent, `again` and `source` left out.

    A buyer who comes again another way asks for the same thing.
    """
    sent = {name: value for name, value in data.items() if name not in ("again", "source")}
    said = msgspec.json.encode([cmd, room, member.id, sent], order="sorted")
    return hashlib.blake2b(said, digest_size=32).hexdigest()


COMMANDS: Final[dict[str, Command]] = {
    "token.renew": Command(args.Renew, Who.MEMBER, talking.token_renew),
    "message.post": Command(args.Text, Who.ANYONE, talking.message_post),
    "reaction.send": Command(args.Reaction, Who.ANYONE, talking.reaction_send),
    "creator.follow": Command(args.Creator, Who.MEMBER, talking.creator_follow),
    "creator.unfollow": Command(args.Creator, Who.MEMBER, talking.creator_unfollow),
    "cart.add": Command(args.CartAdd, Who.MEMBER, buying.cart_add),
    "cart.remove": Command(args.CartRemove, Who.MEMBER, buying.cart_remove),
    "cart.show": Command(args.Nothing, Who.MEMBER, buying.cart_show),
    "waitlist.join": Command(args.WaitlistJoin, Who.MEMBER, buying.waitlist_join),
    "waitlist.leave": Command(args.Sku, Who.MEMBER, buying.waitlist_leave),
    "cart.checkout": Command(args.Checkout, Who.MEMBER, buying.cart_checkout, by_order_id=True),
    "order.place": Command(args.OrderPlace, Who.MEMBER, buying.order_place, by_order_id=True),
    "order.show": Command(args.Order, Who.MEMBER, buying.order_show),
    "order.cancel": Command(args.Order, Who.MEMBER, buying.order_cancel),
    "payment.start": Command(args.Pay, Who.MEMBER, buying.payment_start),
    "message.remove": Command(args.Message, Who.MODERATOR, talking.message_remove),
    "room.open": Command(args.Nothing, Who.HOST, staging.room_open),
    "room.close": Command(args.Nothing, Who.HOST, staging.room_close),
    "room.set": Command(rooms.RoomChange, Who.HOST, staging.room_set),
    "shelf.put": Command(args.ShelfPut, Who.HOST, staging.shelf_put),
    "shelf.remove": Command(args.Product, Who.HOST, staging.shelf_remove),
    "product.pin": Command(args.Product, Who.HOST, staging.product_pin),
    "product.unpin": Command(args.MaybeProduct, Who.HOST, staging.product_unpin),
    "price.set": Command(args.PriceSet, Who.HOST, staging.price_set),
    "stock.restock": Command(args.Restock, Who.HOST, staging.stock_restock),
    "stock.adjust": Command(args.Adjust, Who.HOST, staging.stock_adjust),
    "sale.pause": Command(args.Nothing, Who.HOST, staging.sale_pause),
    "sale.resume": Command(args.Nothing, Who.HOST, staging.sale_resume),
    "drop.schedule": Command(args.DropSchedule, Who.HOST, promoting.drop_schedule),
    "drop.close": Command(args.Drop, Who.HOST, promoting.drop_close),
    "drop.cancel": Command(args.Drop, Who.HOST, promoting.drop_cancel),
    "drop.enter": Command(args.Drop, Who.MEMBER, promoting.drop_enter),
    "notice.post": Command(args.Text, Who.HOST, talking.notice_post),
}

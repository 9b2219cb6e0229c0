"""Taking a seat: what a join needs to know, over WebSocket and over an event stream alike."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

import structlog

from liveroom import moderation, shapes
from liveroom.auth import LEEWAY_S, Member
from liveroom.commands import Services
from liveroom.errors import Unavailable
from liveroom.events import Event, Position
from liveroom.store.lost import LostLine
from liveroom.wire import codec
from liveroom.wire.codec import Format
from liveroom.wire.hub import Hub
from liveroom.wire.outbox import Link, Seat
from liveroom.wire.session import TOKEN_EXPIRED, UNAUTHENTICATED

log = structlog.get_logger(__name__)

# A timer beyond a day is set again by nobody: connections do not last that long.
EXPIRY_TIMER_MAX_S: Final = 24 * 3600


async def member_of(services: Services, token: str | None, name: str | None) -> Member:
    """The token's member, or a guest under the name given."""
    return services.auth.guest(name) if token is None else await services.auth.read(token)


async def take_seat(
    services: Services,
    hub: Hub,
    room: str,
    link: Link,
    fmt: Format,
    *,
    member: Member,
    re: int,
    since: Position | None,
) -> Seat:
    """A seat whose join is answered on the link and that hears the room from there on.

    `not_found` without the room; `unauthenticated` for a guest where none may watch.
    """
    moderation.refuse_unless_may_watch(await services.onair.room(room), member)
    seat = Seat(link, fmt, member=member, crew=member.moderates(room))
    you = shapes.You(id=member.id, name=member.name, roles=list(member.roles)).builtin()

    missed: list[LostLine] = []

    async def own() -> dict[str, Any]:
        if member.guest:
            return {"cart": None, "orders": []}
        # At once: who comes back while Redis hangs waits for it once.
        mine: dict[str, Any]
        mine, lost = await asyncio.gather(
            own_part(services, room, member), missed_lines(services, room, member)
        )
        missed.extend(lost)
        return mine

    await hub.join(room, seat, re=re, since=since, you=you, own=own)
    picture = services.onair.shown(room)
    if member.guest and picture is not None and not picture.shape.guests:
        link.close(UNAUTHENTICATED)  # guests were turned out while the answer was made
    if missed:
        await tell_missed(services, room, seat, missed)
    return seat


async def missed_lines(services: Services, room: str, member: Member) -> list[LostLine]:
    """What was lost of the member's cart; what cannot be read is told at the next return."""
    try:
        return await services.expiring.missed(member.id, room)
    except Unavailable as fault:
        log.info("lost_lines_unread", code=fault.code)
        return []


async def tell_missed(
    services: Services, room: str, seat: Seat, missed: Sequence[LostLine]
) -> None:
    """Tell a member who is back what was lost of the cart, behind the answer to the join."""

    def tell(event: Event) -> None:
        seat.send([codec.encode(event.on_wire(), seat.format)])

    try:
        await services.expiring.tell_missed(seat.member.id, room, missed, tell)
    except Unavailable as fault:
        log.info("lost_lines_told_again", code=fault.code)


async def own_part(services: Services, room: str, member: Member) -> dict[str, Any]:
    """The member's cart, orders, waits and draws, without what a store that is away cannot tell."""
    own: dict[str, Any] = {}
    try:
        own["cart"] = (await services.carts.show(member.id, room)).builtin()
    except Unavailable as fault:
        log.info("cart_unread", code=fault.code)
    try:
        known = await services.orders.of_buyer(member.id, room)
        own["orders"] = [order.builtin() for order in known.orders]
        if known.waits:
            own["waiting"] = [wish._asdict() for wish in known.waits]
    except Unavailable as fault:
        log.info("orders_unread", code=fault.code)
    draws = services.onair.draws(room)
    if draws:
        try:
            entries = await services.promotions.entries_of(member.id, draws)
            own["entries"] = [entry.builtin() for entry in entries]
        except Unavailable as fault:
            log.info("entries_unread", code=fault.code)
    return own


def close_when_expired(
    services: Services, member: Member, link: Link
) -> asyncio.TimerHandle | None:
    """Close the link 4003 when the member's token ends; cancel the timer with the link."""
    if member.expires_at is None:
        return None
    left_s = (member.expires_at - services.clock.now_ms()) / 1000 + LEEWAY_S
    if left_s > EXPIRY_TIMER_MAX_S:
        return None
    return asyncio.get_running_loop().call_later(max(0.0, left_s), link.close, TOKEN_EXPIRED)

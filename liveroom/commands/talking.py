"""Commands that say something: messages, reactions, notices, follows."""

from __future__ import annotations

from typing import Any

from liveroom import moderation, shapes
from liveroom.commands.calls import Call
from liveroom.errors import Denied


async def token_renew(call: Call) -> dict[str, Any]:
    """Go on under a newer token of the same member; whoever has a seat keeps it."""
    member = await call.services.auth.read(call.args.token)
    if member.id != call.member.id:
        raise Denied("forbidden", "This token is somebody else's.")
    return {"you": shapes.You(id=member.id, name=member.name, roles=list(member.roles)).builtin()}


async def message_post(call: Call) -> dict[str, Any]:
    """Say something to the room."""
    said = moderation.fit_text(call.args.text)
    room = await call.services.onair.room(call.room)
    moderation.refuse_unless_may_speak(room, call.member)
    call.services.slow_mode.take_turn(room, call.member, call.operation)
    message = await call.services.rooms.say(call.room, call.member, said, call.operation)
    return {"message": message}


async def message_remove(call: Call) -> dict[str, Any]:
    """Take a message from every screen and from history."""
    message = call.args.message
    await call.services.moderation.remove_message(call.room, message, by=call.member)
    return {"message": {"id": message}}


async def reaction_send(call: Call) -> dict[str, Any]:
    """Tap: a heart, or whatever the page offers."""
    room = await call.services.onair.room(call.room)
    moderation.refuse_unless_may_speak(room, call.member)
    await call.services.onair.tap(call.room, call.args.kind, call.args.count)
    return {}


async def creator_follow(call: Call) -> dict[str, Any]:
    """Become a fan of a creator."""
    creator = await call.services.creators.follow(call.args.creator, call.member.id)
    return {"creator": creator.builtin()}


async def creator_unfollow(call: Call) -> dict[str, Any]:
    """Be a fan of a creator no more."""
    creator = await call.services.creators.unfollow(call.args.creator, call.member.id)
    return {"creator": creator.builtin()}


async def notice_post(call: Call) -> dict[str, Any]:
    """Announce something to everybody."""
    said = moderation.fit_text(call.args.text)
    await call.services.rooms.notice(call.room, said)
    return {"notice": {"text": said}}

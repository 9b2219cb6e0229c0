"""Seeding: what the script sells is put into the server through its public API.

Rule: what is there already is left as it is, so a second start goes on from the first.
"""

from __future__ import annotations

from typing import Any, Final

from liveroom.demo.script import Script
from liveroom_client import Api, Invalid

ROOMS_MAX: Final = 100


async def seed(url: str, token: str, script: Script) -> str:
    """Shops, products, creators, notes and a live room; the room's id."""
    api = Api(url, token)
    for shop in script.shops:
        await _ensure(api, "shops", shop)
    for creator in script.creators:
        await _ensure(api, "creators", creator)
    for product in script.products:
        spoken = {"pitch", "lines", "questions"}
        wanted = {name: value for name, value in product.items() if name not in spoken}
        picture = f"/pictures/{product['id']}.svg"
        await _ensure(api, "products", wanted | {"currency": "CNY", "picture": picture})
    for note in script.notes:
        await _ensure(api, "notes", note)
    return await _live_room(api, script)


async def _live_room(api: Api, script: Script) -> str:
    """The demo's room, opened; a new one where the host has ended the last show."""
    for number in range(1, ROOMS_MAX):
        room = script.room if number == 1 else f"{script.room}-{number}"
        wanted = {
            "id": room,
            "title": script.title,
            "host": script.host,
            "shelf": [product["id"] for product in script.products],
        }
        state = _state(await _ensure(api, "rooms", wanted))
        if state == "planned":
            await api.command(room, "room.open")
        if state != "closed":
            return room
    raise RuntimeError("Every room of the demo has been closed; start over with --fresh.")


def _state(room: Any) -> str:
    """The state of a room, told by itself or inside its snapshot."""
    return str(room.get("room", room)["state"])


async def _ensure(api: Api, kind: str, thing: dict[str, Any]) -> Any:
    """The thing with this id, made unless it is there."""
    try:
        return await api.get(f"/v1/{kind}/{thing['id']}")
    except Invalid as refusal:
        if refusal.code != "not_found":
            raise
        return await api.post(f"/v1/{kind}", thing)

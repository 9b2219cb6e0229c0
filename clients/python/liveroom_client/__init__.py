"""The Python client of liveroom: a room as an async context manager.

    from liveroom_client import connect

    async with connect("http://localhost:8000", "r1", token=token) as room:
        await room.messages.post("好看!")
        async for event in room.events():
            print(event.name, event.data, room.state.viewers)

It reconnects and resumes by itself. It stands on websockets, orjson and msgpack alone and
imports nothing of the server.
"""

from liveroom_client.api import Api
from liveroom_client.codec import Format
from liveroom_client.errors import (
    ConnectionLost,
    Denied,
    Invalid,
    LiveroomError,
    Refused,
    RoomClosed,
    Unavailable,
)
from liveroom_client.picture import Event, Picture
from liveroom_client.room import Room, connect
from liveroom_client.session import Position, new_id
from liveroom_client.streams import EventStream

__all__ = [
    "Api",
    "ConnectionLost",
    "Denied",
    "Event",
    "EventStream",
    "Format",
    "Invalid",
    "LiveroomError",
    "Picture",
    "Position",
    "Refused",
    "Room",
    "RoomClosed",
    "Unavailable",
    "connect",
    "new_id",
]

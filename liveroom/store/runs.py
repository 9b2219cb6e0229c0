"""What a planned stop leaves in SQL of the Redis that ends with it.

The next start takes it, whatever it does with it: what one stop left never serves twice.
"""

from __future__ import annotations

from typing import Final

import msgspec
from sqlalchemy import Connection, delete, insert, select

from liveroom.store.tables import facts

_NAME: Final = "planned_stop"


class Left(msgspec.Struct, frozen=True):
    """The run id of the Redis that ended as planned, and the stock's fence at that moment."""

    run: str
    fence: int


def leave(conn: Connection, left: Left) -> None:
    """Write down what ended as planned."""
    take(conn)
    conn.execute(insert(facts), {"name": _NAME, "value": msgspec.json.encode(left).decode()})


def take(conn: Connection) -> Left | None:
    """What the last planned stop left, if nothing has started since."""
    found = conn.scalar(select(facts.c.value).where(facts.c.name == _NAME))
    conn.execute(delete(facts).where(facts.c.name == _NAME))
    return None if found is None else msgspec.json.decode(found, type=Left)

"""What sales are owed to: pins know their place in the log."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Carry over what there is: the places of older pins are not known."""
    _name_pins(op.get_bind())


def _name_pins(conn: sa.Connection) -> None:
    """From a list of products to `{product: seq of its pin}`; 0 where that is not known."""
    rooms = sa.table("rooms", sa.column("id", sa.Text), sa.column("pinned", sa.JSON))
    for room in conn.execute(sa.select(rooms)).all():
        pinned = dict.fromkeys(room.pinned, 0)
        conn.execute(sa.update(rooms).where(rooms.c.id == room.id).values(pinned=pinned))

"""Orders that are due are found by their state, however many have been paid before."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_UNPAID = sa.text("state IN ('placed', 'closing')")


def upgrade() -> None:
    """Make the index anew, with the state in front."""
    op.drop_index("ix_orders_due", table_name="orders")
    op.create_index(
        "ix_orders_due",
        "orders",
        ["state", "pay_by", "id"],
        unique=False,
        sqlite_where=_UNPAID,
        postgresql_where=_UNPAID,
    )

"""What is due is found by what is open, events that wait are looked at less and less often.

Prices get versions, so that the last commit's is the one the gate asks.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_UNPAID = sa.text("state IN ('placed', 'closing')")
_WAITING = sa.text("applied_at IS NULL")
_PARKED = sa.text("payment IS NULL")


def upgrade() -> None:
    """Add the columns, and make the indexes anew; older events know their payments again."""
    op.add_column("skus", sa.Column("price_v", sa.BigInteger(), nullable=False, server_default="0"))
    for name, kind, default in (
        ("reference", sa.Text(), ""),
        ("due_at", sa.BigInteger(), "0"),
        ("tries", sa.Integer(), "0"),
    ):
        column = sa.Column(name, kind, nullable=False, server_default=default)
        op.add_column("payment_events", column)
    _name_payments(op.get_bind())
    op.drop_index("ix_orders_due", table_name="orders")
    _index("ix_orders_due", "orders", ["state", "pay_by", "id"], _UNPAID)
    op.drop_index("ix_payment_events_waiting", table_name="payment_events")
    _index("ix_payment_events_waiting", "payment_events", ["due_at"], _WAITING)
    _index("ix_payment_events_parked", "payment_events", ["reference"], _PARKED)


def _index(name: str, table: str, columns: list[str], where: sa.TextClause) -> None:
    op.create_index(name, table, columns, unique=False, sqlite_where=where, postgresql_where=where)


def _name_payments(conn: sa.Connection) -> None:
    events = sa.table(
        "payment_events",
        *(sa.column(name, sa.Text) for name in ("provider", "event", "reference")),
        sa.column("body", sa.JSON),
    )
    for row in conn.execute(sa.select(events)).all():
        this = (events.c.provider == row.provider) & (events.c.event == row.event)
        conn.execute(sa.update(events).where(this).values(reference=row.body["reference"]))

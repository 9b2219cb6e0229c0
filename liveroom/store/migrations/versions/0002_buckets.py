"""What sales are owed to: buckets of lines, what went back from each, and the places of pins."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from liveroom.money import taken_off

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add what is kept from now on.

    Older sales are unattributed, the place of older pins is not known, and what went back
    before is divided among the lines as it would be now.
    """
    for table in ("order_lines", "waiting"):
        bucket = sa.Column("bucket", sa.Text(), nullable=False, server_default="unattributed")
        op.add_column(table, bucket)
    op.add_column("rooms", sa.Column("pinned_at", sa.JSON(), nullable=True))
    back = sa.Column("refunded_minor", sa.BigInteger(), nullable=False, server_default="0")
    op.add_column("order_lines", back)
    op.create_index(
        "ix_payments_paid",
        "payments",
        ["paid_at"],
        unique=False,
        sqlite_where=sa.text("paid_at IS NOT NULL"),
        postgresql_where=sa.text("paid_at IS NOT NULL"),
    )
    _take_refunds_off(op.get_bind())


_REFUNDS = """
    SELECT p."order", r.id, r.amount_minor
    FROM refunds r JOIN payments p ON p.id = r.payment
    WHERE r.state = 'succeeded' AND p.paid_at IS NOT NULL
    ORDER BY p."order", r.changed_at, r.id
"""
_LINES = """
    SELECT i.line, i.qty * i.price_minor AS price, i.price_minor, i.refunded_minor
    FROM order_lines i WHERE i."order" = :order ORDER BY i.line
"""
_NAMED = "SELECT line, qty FROM refund_lines WHERE refund = :refund"
_TAKE_OFF = """
    UPDATE order_lines SET refunded_minor = refunded_minor + :back
    WHERE "order" = :order AND line = :line
"""


def _take_refunds_off(conn: sa.Connection) -> None:
    """One after another, as they succeeded: each finds what those before it have left."""
    for refund in conn.execute(sa.text(_REFUNDS)).all():
        order = {"order": refund.order}
        lines = conn.execute(sa.text(_LINES), order).all()
        named = {row.line: row.qty for row in conn.execute(sa.text(_NAMED), {"refund": refund.id})}
        divided = taken_off(
            refund.amount_minor,
            [named.get(line.line, 0) * line.price_minor for line in lines],
            [line.price - line.refunded_minor for line in lines],
        )
        for line, back in zip(lines, divided, strict=True):
            conn.execute(sa.text(_TAKE_OFF), order | {"line": line.line, "back": back})

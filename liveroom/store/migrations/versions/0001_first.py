"""The first schema: every table of the house as it began."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:  # noqa: PLR0915 - a statement a table
    """Make every table."""
    op.create_table(
        "creators",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_creators")),
    )
    op.create_table(
        "facts",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_facts")),
    )
    op.create_table(
        "fences",
        sa.Column("partition", sa.Integer(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("mark", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("partition", name=op.f("pk_fences")),
    )
    op.create_table(
        "leases",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("holder", sa.Text(), nullable=False),
        sa.Column("until", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_leases")),
    )
    op.create_table(
        "outbox",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("body", sa.JSON(), nullable=False),
        sa.Column("due_at", sa.BigInteger(), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("done_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outbox")),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "ix_outbox_open",
        "outbox",
        ["due_at"],
        unique=False,
        sqlite_where=sa.text("done_at IS NULL"),
    )
    op.create_table(
        "payment_events",
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("event", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("payment", sa.Text(), nullable=True),
        sa.Column("body", sa.JSON(), nullable=False),
        sa.Column("received_at", sa.BigInteger(), nullable=False),
        sa.Column("applied_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("provider", "event", name=op.f("pk_payment_events")),
    )
    op.create_index("ix_payment_events_payment", "payment_events", ["payment"], unique=False)
    op.create_index(
        "ix_payment_events_waiting",
        "payment_events",
        ["received_at"],
        unique=False,
        sqlite_where=sa.text("applied_at IS NULL"),
        postgresql_where=sa.text("applied_at IS NULL"),
    )
    op.create_table(
        "shops",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_shops")),
    )
    op.create_table(
        "void_holds",
        sa.Column("hold", sa.Text(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("hold", name=op.f("pk_void_holds")),
    )
    op.create_table(
        "creator_roles",
        sa.Column("creator", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("since", sa.BigInteger(), nullable=False),
        sa.Column("until", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["creator"], ["creators.id"], name=op.f("fk_creator_roles_creator")
        ),
        sa.PrimaryKeyConstraint("creator", "role", "since", name=op.f("pk_creator_roles")),
    )
    op.create_table(
        "follows",
        sa.Column("creator", sa.Text(), nullable=False),
        sa.Column("member", sa.Text(), nullable=False),
        sa.Column("since", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["creator"], ["creators.id"], name=op.f("fk_follows_creator")),
        sa.PrimaryKeyConstraint("creator", "member", name=op.f("pk_follows")),
    )
    op.create_index("ix_follows_member", "follows", ["member"], unique=False)
    op.create_table(
        "notes",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("creator", sa.Text(), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("products", sa.JSON(), nullable=False),
        sa.Column("needs", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["creator"], ["creators.id"], name=op.f("fk_notes_creator")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_notes")),
    )
    op.create_index("ix_notes_creator", "notes", ["creator", "created_at"], unique=False)
    op.create_table(
        "products",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("shop", sa.Text(), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("needs", sa.JSON(), nullable=False),
        sa.Column("picture", sa.Text(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["shop"], ["shops.id"], name=op.f("fk_products_shop")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_products")),
    )
    op.create_index("ix_products_shop", "products", ["shop", "created_at"], unique=False)
    op.create_table(
        "rooms",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("shop", sa.Text(), nullable=True),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("paused", sa.Boolean(), nullable=False),
        sa.Column("stream", sa.JSON(), nullable=True),
        sa.Column("settings", sa.JSON(), nullable=False),
        sa.Column("v", sa.BigInteger(), nullable=False),
        sa.Column("pinned", sa.JSON(), nullable=False),
        sa.Column("pinned_epoch", sa.Text(), nullable=True),
        sa.Column("pinned_seq", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("opened_at", sa.BigInteger(), nullable=True),
        sa.Column("closed_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["shop"], ["shops.id"], name=op.f("fk_rooms_shop")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rooms")),
    )
    op.create_index("ix_rooms_state", "rooms", ["state", "created_at"], unique=False)
    op.create_table(
        "moderation_log",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("room", sa.Text(), nullable=False),
        sa.Column("by", sa.Text(), nullable=False),
        sa.Column("act", sa.Text(), nullable=False),
        sa.Column("member", sa.Text(), nullable=True),
        sa.Column("message", sa.Text(), nullable=True),
        sa.Column("text", sa.Text(), nullable=True),
        sa.Column("why", sa.Text(), nullable=True),
        sa.Column("until", sa.BigInteger(), nullable=True),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["room"], ["rooms.id"], name=op.f("fk_moderation_log_room")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_moderation_log")),
    )
    op.create_index("ix_moderation_log_room", "moderation_log", ["room", "at"], unique=False)
    op.create_table(
        "orders",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("room", sa.Text(), nullable=False),
        sa.Column("buyer", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.Column("total_minor", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("placed_at", sa.BigInteger(), nullable=False),
        sa.Column("pay_by", sa.BigInteger(), nullable=False),
        sa.Column("changed_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["room"], ["rooms.id"], name=op.f("fk_orders_room")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_orders")),
    )
    op.create_index("ix_orders_buyer", "orders", ["buyer", "placed_at"], unique=False)
    op.create_index(
        "ix_orders_due",
        "orders",
        ["pay_by"],
        unique=False,
        sqlite_where=sa.text("state IN ('placed', 'closing')"),
        postgresql_where=sa.text("state IN ('placed', 'closing')"),
    )
    op.create_index("ix_orders_room", "orders", ["room", "placed_at"], unique=False)
    op.create_table(
        "shelf",
        sa.Column("room", sa.Text(), nullable=False),
        sa.Column("product", sa.Text(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["product"], ["products.id"], name=op.f("fk_shelf_product")),
        sa.ForeignKeyConstraint(["room"], ["rooms.id"], name=op.f("fk_shelf_room")),
        sa.PrimaryKeyConstraint("room", "product", name=op.f("pk_shelf")),
    )
    op.create_index("ix_shelf_product", "shelf", ["product"], unique=False)
    op.create_table(
        "skus",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("product", sa.Text(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("name", sa.Text(), nullable=True),
        sa.Column("price_minor", sa.BigInteger(), nullable=False),
        sa.Column("limit_per_buyer", sa.Integer(), nullable=True),
        sa.ForeignKeyConstraint(["product"], ["products.id"], name=op.f("fk_skus_product")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_skus")),
    )
    op.create_index("ix_skus_product", "skus", ["product"], unique=False)
    op.create_table(
        "payments",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("order", sa.Text(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("reference", sa.Text(), nullable=True),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("changed_at", sa.BigInteger(), nullable=False),
        sa.Column("paid_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["order"], ["orders.id"], name=op.f("fk_payments_order")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_payments")),
    )
    op.create_index("ix_payments_order", "payments", ["order"], unique=False)
    op.create_index("ix_payments_changed", "payments", ["changed_at"], unique=False)
    op.create_index(
        "uq_payments_open",
        "payments",
        ["order"],
        unique=True,
        sqlite_where=sa.text("state = 'started'"),
        postgresql_where=sa.text("state = 'started'"),
    )
    op.create_index("uq_payments_reference", "payments", ["provider", "reference"], unique=True)
    op.create_table(
        "pools",
        sa.Column("pool", sa.Text(), nullable=False),
        sa.Column("sku", sa.Text(), nullable=False),
        sa.Column("drop", sa.Text(), nullable=True),
        sa.Column("partition", sa.Integer(), nullable=False),
        sa.Column("initial", sa.BigInteger(), nullable=False),
        sa.Column("adjusted", sa.BigInteger(), nullable=False),
        sa.Column("reserved", sa.BigInteger(), nullable=False),
        sa.Column("sold", sa.BigInteger(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.CheckConstraint(
            "initial + adjusted >= reserved + sold", name=op.f("ck_pools_available")
        ),
        sa.CheckConstraint("reserved >= 0", name=op.f("ck_pools_reserved")),
        sa.CheckConstraint("sold >= 0", name=op.f("ck_pools_sold")),
        sa.ForeignKeyConstraint(["sku"], ["skus.id"], name=op.f("fk_pools_sku")),
        sa.PrimaryKeyConstraint("pool", name=op.f("pk_pools")),
    )
    op.create_index("ix_pools_sku", "pools", ["sku"], unique=False)
    op.create_index(
        "ix_pools_drop_free",
        "pools",
        ["drop"],
        unique=False,
        sqlite_where=sa.text('"drop" IS NOT NULL AND initial + adjusted > reserved + sold'),
        postgresql_where=sa.text('"drop" IS NOT NULL AND initial + adjusted > reserved + sold'),
    )
    op.create_table(
        "drops",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("room", sa.Text(), nullable=False),
        sa.Column("sku", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("told", sa.Text(), nullable=False),
        sa.Column("quantity", sa.BigInteger(), nullable=False),
        sa.Column("price_minor", sa.BigInteger(), nullable=False),
        sa.Column("limit_per_buyer", sa.BigInteger(), nullable=True),
        sa.Column("admission", sa.Text(), nullable=False),
        sa.Column("seed", sa.Text(), nullable=True),
        sa.Column("entries", sa.Integer(), nullable=False),
        sa.Column("entries_digest", sa.Text(), nullable=True),
        sa.Column("opens_at", sa.BigInteger(), nullable=False),
        sa.Column("closes_at", sa.BigInteger(), nullable=False),
        sa.Column("operation", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("changed_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["room"], ["rooms.id"], name=op.f("fk_drops_room")),
        sa.ForeignKeyConstraint(["sku"], ["skus.id"], name=op.f("fk_drops_sku")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_drops")),
        sa.UniqueConstraint("operation", name=op.f("uq_drops_operation")),
    )
    op.create_index("ix_drops_room", "drops", ["room", "state"], unique=False)
    op.create_index(
        "ix_drops_due",
        "drops",
        ["opens_at"],
        unique=False,
        sqlite_where=sa.text("state IN ('scheduled', 'open')"),
        postgresql_where=sa.text("state IN ('scheduled', 'open')"),
    )
    op.create_index(
        "ix_drops_untold",
        "drops",
        ["id"],
        unique=False,
        sqlite_where=sa.text("told <> state"),
        postgresql_where=sa.text("told <> state"),
    )
    op.create_table(
        "drop_entries",
        sa.Column("drop", sa.Text(), nullable=False),
        sa.Column("member", sa.Text(), nullable=False),
        sa.Column("place", sa.Integer(), nullable=True),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["drop"], ["drops.id"], name=op.f("fk_drop_entries_drop")),
        sa.PrimaryKeyConstraint("drop", "member", name=op.f("pk_drop_entries")),
    )
    op.create_table(
        "waitlists",
        sa.Column("pool", sa.Text(), nullable=False),
        sa.Column("open", sa.Boolean(), nullable=False),
        sa.Column("joined", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["pool"], ["pools.pool"], name=op.f("fk_waitlists_pool")),
        sa.PrimaryKeyConstraint("pool", name=op.f("pk_waitlists")),
    )
    op.create_index("ix_waitlists_open", "waitlists", ["open"], unique=False)
    op.create_table(
        "waiting",
        sa.Column("pool", sa.Text(), nullable=False),
        sa.Column("place", sa.BigInteger(), nullable=False),
        sa.Column("member", sa.Text(), nullable=False),
        sa.Column("room", sa.Text(), nullable=False),
        sa.Column("qty", sa.Integer(), nullable=False),
        sa.Column("since", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("qty > 0", name=op.f("ck_waiting_qty")),
        sa.ForeignKeyConstraint(["pool"], ["waitlists.pool"], name=op.f("fk_waiting_pool")),
        sa.ForeignKeyConstraint(["room"], ["rooms.id"], name=op.f("fk_waiting_room")),
        sa.PrimaryKeyConstraint("pool", "place", name=op.f("pk_waiting")),
    )
    op.create_index("uq_waiting_member", "waiting", ["pool", "member"], unique=True)
    op.create_table(
        "buyer_taken",
        sa.Column("pool", sa.Text(), nullable=False),
        sa.Column("buyer", sa.Text(), nullable=False),
        sa.Column("units", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("units >= 0", name=op.f("ck_buyer_taken_units")),
        sa.ForeignKeyConstraint(["pool"], ["pools.pool"], name=op.f("fk_buyer_taken_pool")),
        sa.PrimaryKeyConstraint("pool", "buyer", name=op.f("pk_buyer_taken")),
    )
    op.create_table(
        "ledger",
        sa.Column("pool", sa.Text(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("adjusted", sa.BigInteger(), nullable=False),
        sa.Column("reserved", sa.BigInteger(), nullable=False),
        sa.Column("sold", sa.BigInteger(), nullable=False),
        sa.Column("available_after", sa.BigInteger(), nullable=False),
        sa.Column("order", sa.Text(), nullable=True),
        sa.Column("hold", sa.Text(), nullable=True),
        sa.Column("operation", sa.Text(), nullable=True),
        sa.Column("why", sa.Text(), nullable=True),
        sa.CheckConstraint("available_after >= 0", name=op.f("ck_ledger_available_after")),
        sa.ForeignKeyConstraint(["pool"], ["pools.pool"], name=op.f("fk_ledger_pool")),
        sa.PrimaryKeyConstraint("pool", "seq", name=op.f("pk_ledger")),
    )
    op.create_index("ix_ledger_order", "ledger", ["order"], unique=False)
    op.create_index(
        "uq_ledger_operation",
        "ledger",
        ["pool", "operation"],
        unique=True,
        sqlite_where=sa.text("operation IS NOT NULL"),
        postgresql_where=sa.text("operation IS NOT NULL"),
    )
    op.create_table(
        "order_lines",
        sa.Column("order", sa.Text(), nullable=False),
        sa.Column("line", sa.Integer(), nullable=False),
        sa.Column("pool", sa.Text(), nullable=False),
        sa.Column("sku", sa.Text(), nullable=False),
        sa.Column("drop", sa.Text(), nullable=True),
        sa.Column("qty", sa.Integer(), nullable=False),
        sa.Column("price_minor", sa.BigInteger(), nullable=False),
        sa.Column("hold", sa.Text(), nullable=False),
        sa.Column("restocked", sa.Integer(), nullable=False),
        sa.CheckConstraint("qty > 0", name=op.f("ck_order_lines_qty")),
        sa.CheckConstraint(
            "restocked >= 0 AND restocked <= qty", name=op.f("ck_order_lines_restocked")
        ),
        sa.ForeignKeyConstraint(["order"], ["orders.id"], name=op.f("fk_order_lines_order")),
        sa.ForeignKeyConstraint(["pool"], ["pools.pool"], name=op.f("fk_order_lines_pool")),
        sa.PrimaryKeyConstraint("order", "line", name=op.f("pk_order_lines")),
        sa.UniqueConstraint("hold", name=op.f("uq_order_lines_hold")),
    )
    op.create_table(
        "takings",
        sa.Column("room", sa.Text(), nullable=False),
        sa.Column("minute", sa.BigInteger(), nullable=False),
        sa.Column("bucket", sa.Text(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("orders", sa.BigInteger(), nullable=False),
        sa.Column("paid_minor", sa.BigInteger(), nullable=False),
        sa.Column("refunded_minor", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["room"], ["rooms.id"], name=op.f("fk_takings_room")),
        sa.PrimaryKeyConstraint("room", "minute", "bucket", "currency", name=op.f("pk_takings")),
    )
    op.create_table(
        "refunds",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("payment", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("why", sa.Text(), nullable=True),
        sa.Column("operation", sa.Text(), nullable=True),
        sa.Column("content", sa.Text(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("changed_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["payment"], ["payments.id"], name=op.f("fk_refunds_payment")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_refunds")),
    )
    op.create_index("ix_refunds_payment", "refunds", ["payment"], unique=False)
    op.create_index("ix_refunds_changed", "refunds", ["changed_at"], unique=False)
    op.create_index("uq_refunds_operation", "refunds", ["operation"], unique=True)
    op.create_table(
        "refund_lines",
        sa.Column("refund", sa.Text(), nullable=False),
        sa.Column("line", sa.Integer(), nullable=False),
        sa.Column("qty", sa.Integer(), nullable=False),
        sa.Column("restock", sa.Boolean(), nullable=False),
        sa.CheckConstraint("qty > 0", name=op.f("ck_refund_lines_qty")),
        sa.ForeignKeyConstraint(["refund"], ["refunds.id"], name=op.f("fk_refund_lines_refund")),
        sa.PrimaryKeyConstraint("refund", "line", name=op.f("pk_refund_lines")),
    )

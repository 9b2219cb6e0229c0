"""The SQL tables: what must never be lost.

Times are integer milliseconds by the database's clock, money integer minor units, ids text.
Rows of `ledger` and `payment_events` are only ever added. States change by the
arrows of `states.py`, as compare-and-set. Each table names who owns it.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    text,
)

from liveroom.buckets import UNATTRIBUTED

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


# Conditions of partial indexes: a query uses one only where it says the same in its text.
DROP_FREE: Final = '"drop" IS NOT NULL AND initial + adjusted > reserved + sold'
DROP_LIVE: Final = "state IN ('scheduled', 'open')"
UNPAID: Final = "state IN ('placed', 'closing')"


def _id() -> Column[str]:
    return Column("id", Text, primary_key=True)


def _ms(name: str, *, nullable: bool = False) -> Column[int]:
    return Column(name, BigInteger, nullable=nullable)


# ── the house itself ──────────────────────────────────────────────────────────────────────

facts = Table(  # owner: store/database: single values such as the number of partitions
    "facts",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", Text, nullable=False),
)
leases = Table(  # owner: store/database: who runs a sweeper now
    "leases",
    metadata,
    Column("name", Text, primary_key=True),
    Column("holder", Text, nullable=False),
    _ms("until"),
)
outbox = Table(  # owner: store/database: what must be told outside, in the change's own transaction
    "outbox",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("kind", Text, nullable=False),
    Column("body", JSON, nullable=False),
    _ms("due_at"),
    Column("tries", Integer, nullable=False, default=0),
    _ms("done_at", nullable=True),
    Index("ix_outbox_open", "due_at", sqlite_where=text("done_at IS NULL")),
    sqlite_autoincrement=True,
)

# ── the catalog (catalog.py) and creators (creators.py) ───────────────────────────────────

creators = Table(
    "creators", metadata, _id(), Column("name", Text, nullable=False), _ms("created_at")
)
creator_roles = Table(  # dated and convertible: a role ends, it is never overwritten
    "creator_roles",
    metadata,
    Column("creator", ForeignKey("creators.id"), primary_key=True),
    Column("role", Text, primary_key=True),  # buyer | manager | clerk
    Column("since", BigInteger, primary_key=True),
    _ms("until", nullable=True),
)
follows = Table(
    "follows",
    metadata,
    Column("creator", ForeignKey("creators.id"), primary_key=True),
    Column("member", Text, primary_key=True),
    _ms("since"),
    Index("ix_follows_member", "member"),
)
notes = Table(
    "notes",
    metadata,
    _id(),
    Column("creator", ForeignKey("creators.id"), nullable=False),
    Column("title", Text, nullable=False),
    Column("text", Text, nullable=False),
    Column("products", JSON, nullable=False),
    Column("needs", JSON, nullable=False),
    _ms("created_at"),
    Index("ix_notes_creator", "creator", "created_at"),
)
shops = Table("shops", metadata, _id(), Column("name", Text, nullable=False), _ms("created_at"))
products = Table(
    "products",
    metadata,
    _id(),
    Column("shop", ForeignKey("shops.id"), nullable=False),
    Column("title", Text, nullable=False),
    Column("currency", Text, nullable=False),
    Column("needs", JSON, nullable=False),
    Column("picture", Text),
    _ms("created_at"),
    Index("ix_products_shop", "shop", "created_at"),
)
skus = Table(
    "skus",
    metadata,
    _id(),
    Column("product", ForeignKey("products.id"), nullable=False),
    Column("position", Integer, nullable=False),
    Column("name", Text),
    Column("price_minor", BigInteger, nullable=False),
    Column("price_v", BigInteger, nullable=False, server_default="0"),  # grows with each change
    Column("limit_per_buyer", Integer),
    Index("ix_skus_product", "product"),
)

# ── rooms (rooms.py) ──────────────────────────────────────────────────────────────────────

rooms = Table(
    "rooms",
    metadata,
    _id(),
    Column("title", Text, nullable=False),
    Column("host", Text, nullable=False),
    Column("shop", ForeignKey("shops.id")),
    Column("state", Text, nullable=False),  # planned → live → closed
    Column("paused", Boolean, nullable=False, default=False),
    Column("stream", JSON),
    Column("settings", JSON, nullable=False),  # guests, members_only, slow_mode_s, chat_per_s_max
    Column("v", BigInteger, nullable=False),  # grows with each change of the room or its shelf
    Column("pinned", JSON, nullable=False),  # product ids, oldest first, as the log last had them
    Column("pinned_at", JSON),  # the seq of each pin, by product
    Column("pinned_epoch", Text),
    Column("pinned_seq", BigInteger, nullable=False, default=0),
    _ms("created_at"),
    _ms("opened_at", nullable=True),
    _ms("closed_at", nullable=True),
    Index("ix_rooms_state", "state", "created_at"),
)
shelf = Table(
    "shelf",
    metadata,
    Column("room", ForeignKey("rooms.id"), primary_key=True),
    Column("product", ForeignKey("products.id"), primary_key=True),
    Column("position", Integer, nullable=False),
    Column("state", Text, nullable=False),  # on | visible | off
    Index("ix_shelf_product", "product"),
)

# ── stock (inventory.py, store/ledger.py) ─────────────────────────────────────────────────

fences = Table(  # one row a partition; places lock it shared, a rebuild raises it
    "fences",
    metadata,
    Column("partition", Integer, primary_key=True),
    Column("epoch", BigInteger, nullable=False),
    Column("mark", Text),  # written by a planned stop, deleted by the start that adopts it
)
pools = Table(  # a SKU's ordinary stock ("sku:<id>") or one drop of it ("drop:<id>")
    "pools",
    metadata,
    Column("pool", Text, primary_key=True),
    Column("sku", ForeignKey("skus.id"), nullable=False),
    Column("drop", Text),
    Column("partition", Integer, nullable=False),
    Column("initial", BigInteger, nullable=False),
    Column("adjusted", BigInteger, nullable=False, default=0),
    Column("reserved", BigInteger, nullable=False, default=0),
    Column("sold", BigInteger, nullable=False, default=0),
    Column("seq", BigInteger, nullable=False, default=0),  # the last ledger row
    CheckConstraint("reserved >= 0", name="reserved"),
    CheckConstraint("sold >= 0", name="sold"),
    CheckConstraint("initial + adjusted >= reserved + sold", name="available"),
    Index("ix_pools_sku", "sku"),
    Index(  # what a drop has free: it returns once the drop has ended
        "ix_pools_drop_free",
        "drop",
        sqlite_where=text(DROP_FREE),
        postgresql_where=text(DROP_FREE),
    ),
)
ledger = Table(  # every movement of a pool; the sequence has no gap
    "ledger",
    metadata,
    Column("pool", ForeignKey("pools.pool"), primary_key=True),
    Column("seq", BigInteger, primary_key=True),
    _ms("at"),
    Column("kind", Text, nullable=False),  # reserve sell release restock adjust carve return
    Column("adjusted", BigInteger, nullable=False, default=0),  # the change of each sum
    Column("reserved", BigInteger, nullable=False, default=0),
    Column("sold", BigInteger, nullable=False, default=0),
    Column("available_after", BigInteger, nullable=False),
    Column("order", Text),
    Column("hold", Text),
    Column("operation", Text),  # makes what is no order's happen once
    Column("why", Text),
    CheckConstraint("available_after >= 0", name="available_after"),
    Index("ix_ledger_order", "order"),
    Index(
        "uq_ledger_operation",
        "pool",
        "operation",
        unique=True,
        sqlite_where=text("operation IS NOT NULL"),
        postgresql_where=text("operation IS NOT NULL"),
    ),
)
void_holds = Table(  # holds that ended unplaced; place refuses them
    "void_holds", metadata, Column("hold", Text, primary_key=True), _ms("at")
)
buyer_taken = Table(  # what counts against limit_per_buyer, changed under the pool's row lock
    "buyer_taken",
    metadata,
    Column("pool", ForeignKey("pools.pool"), primary_key=True),
    Column("buyer", Text, primary_key=True),
    Column("units", BigInteger, nullable=False),
    CheckConstraint("units >= 0", name="units"),
)

# ── flash drops (promotions.py) ───────────────────────────────────────────────────────────

drops = Table(  # a drop's units are its pool's, "drop:<id>"
    "drops",
    metadata,
    _id(),
    Column("room", ForeignKey("rooms.id"), nullable=False),
    Column("sku", ForeignKey("skus.id"), nullable=False),
    Column("state", Text, nullable=False),  # scheduled → open → closed; scheduled → cancelled
    Column("told", Text, nullable=False),  # the last state that gate and room were told; or ""
    Column("quantity", BigInteger, nullable=False),
    Column("price_minor", BigInteger, nullable=False),
    Column("limit_per_buyer", BigInteger),
    Column("admission", Text, nullable=False),  # first | draw
    Column("seed", Text),  # of a draw: nobody's to see before it has closed
    Column("entries", Integer, nullable=False),
    Column("entries_digest", Text),  # written at opening
    _ms("opens_at"),
    _ms("closes_at"),
    Column("operation", Text, nullable=False, unique=True),  # makes a scheduling happen once
    _ms("created_at"),
    _ms("changed_at"),
    Index("ix_drops_room", "room", "state"),
    Index(
        "ix_drops_due",
        "opens_at",
        sqlite_where=text(DROP_LIVE),
        postgresql_where=text(DROP_LIVE),
    ),
    Index(
        "ix_drops_untold",
        "id",
        sqlite_where=text("told <> state"),
        postgresql_where=text("told <> state"),
    ),
)
drop_entries = Table(  # who takes part in a draw
    "drop_entries",
    metadata,
    Column("drop", ForeignKey("drops.id"), primary_key=True),
    Column("member", Text, primary_key=True),
    Column("place", Integer),  # of those who were admitted at opening, from 0
    _ms("at"),
)

# ── waitlists (waitlist.py, store/waiting.py) ─────────────────────────────────────────────

waitlists = Table(  # a pool somebody has ever waited for
    "waitlists",
    metadata,
    Column("pool", ForeignKey("pools.pool"), primary_key=True),
    Column("open", Boolean, nullable=False),  # while open, the gate lets only offers hold
    Column("joined", BigInteger, nullable=False),  # the last place that was given
    Index("ix_waitlists_open", "open"),
)
waiting = Table(  # who waits, in order of place; an offer ends the row
    "waiting",
    metadata,
    Column("pool", ForeignKey("waitlists.pool"), primary_key=True),
    Column("place", BigInteger, primary_key=True),
    Column("member", Text, nullable=False),
    Column("room", ForeignKey("rooms.id"), nullable=False),
    Column("qty", Integer, nullable=False),
    Column("bucket", Text, nullable=False, server_default=UNATTRIBUTED),  # of what is offered
    _ms("since"),
    CheckConstraint("qty > 0", name="qty"),
    Index("uq_waiting_member", "pool", "member", unique=True),
)

# ── orders (orders.py) and payments (payments.py) ─────────────────────────────────────────

orders = Table(
    "orders",
    metadata,
    _id(),
    Column("room", ForeignKey("rooms.id"), nullable=False),
    Column("buyer", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("content", Text, nullable=False),  # digest of command, room, buyer and data as sent
    Column("total_minor", BigInteger, nullable=False),
    Column("currency", Text, nullable=False),
    _ms("placed_at"),
    _ms("pay_by"),
    _ms("changed_at"),
    Index("ix_orders_buyer", "buyer", "placed_at"),
    Index("ix_orders_room", "room", "placed_at"),
    Index(
        "ix_orders_due",
        "state",
        "pay_by",
        "id",
        sqlite_where=text(UNPAID),
        postgresql_where=text(UNPAID),
    ),
)
order_lines = Table(
    "order_lines",
    metadata,
    Column("order", ForeignKey("orders.id"), primary_key=True),
    Column("line", Integer, primary_key=True),  # 0 … in order of SKU
    Column("pool", ForeignKey("pools.pool"), nullable=False),
    Column("sku", Text, nullable=False),
    Column("drop", Text),
    Column("qty", Integer, nullable=False),
    Column("price_minor", BigInteger, nullable=False),
    Column("hold", Text, nullable=False, unique=True),
    Column("bucket", Text, nullable=False, server_default=UNATTRIBUTED),  # its hold's: buckets.py
    Column("restocked", Integer, nullable=False, default=0),
    Column("refunded_minor", BigInteger, nullable=False, server_default="0"),
    CheckConstraint("qty > 0", name="qty"),
    CheckConstraint("restocked >= 0 AND restocked <= qty", name="restocked"),
)
payments = Table(
    "payments",
    metadata,
    _id(),
    Column("order", ForeignKey("orders.id"), nullable=False),
    Column("provider", Text, nullable=False),
    Column("reference", Text),  # the provider's own id
    Column("state", Text, nullable=False),
    Column("amount_minor", BigInteger, nullable=False),
    Column("currency", Text, nullable=False),
    _ms("created_at"),
    _ms("changed_at"),
    _ms("paid_at", nullable=True),  # when its money paid for the order; null: it did not
    Index("ix_payments_order", "order"),
    Index("ix_payments_changed", "changed_at"),
    Index(
        "ix_payments_paid",
        "paid_at",
        sqlite_where=text("paid_at IS NOT NULL"),
        postgresql_where=text("paid_at IS NOT NULL"),
    ),
    Index(  # one open payment for each order
        "uq_payments_open",
        "order",
        unique=True,
        sqlite_where=text("state = 'started'"),
        postgresql_where=text("state = 'started'"),
    ),
    Index("uq_payments_reference", "provider", "reference", unique=True),
)
payment_events = Table(  # webhooks taken in; the key makes each count once
    "payment_events",
    metadata,
    Column("provider", Text, primary_key=True),
    Column("event", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("reference", Text, nullable=False, server_default=""),  # the provider's of the payment
    Column("payment", Text),  # null: parked until its payment is known
    Column("body", JSON, nullable=False),
    _ms("received_at"),
    _ms("applied_at", nullable=True),
    Column(
        "due_at", BigInteger, nullable=False, server_default="0"
    ),  # looked at again, if it waits
    Column("tries", Integer, nullable=False, server_default="0"),
    Index("ix_payment_events_payment", "payment"),
    Index(
        "ix_payment_events_parked",
        "reference",
        sqlite_where=text("payment IS NULL"),
        postgresql_where=text("payment IS NULL"),
    ),
    Index(
        "ix_payment_events_waiting",
        "due_at",
        sqlite_where=text("applied_at IS NULL"),
        postgresql_where=text("applied_at IS NULL"),
    ),
)
takings = Table(  # takings.py: what came in and went back, by the minute the order was paid in
    "takings",
    metadata,
    Column("room", ForeignKey("rooms.id"), primary_key=True),
    Column("minute", BigInteger, primary_key=True),  # since the Unix epoch
    Column("bucket", Text, primary_key=True),  # of the lines that took it in
    Column("currency", Text, primary_key=True),
    Column("orders", BigInteger, nullable=False),  # an order counts where its line 0 does
    Column("paid_minor", BigInteger, nullable=False),
    Column("refunded_minor", BigInteger, nullable=False),
)
refunds = Table(
    "refunds",
    metadata,
    _id(),
    Column("payment", ForeignKey("payments.id"), nullable=False),
    Column("state", Text, nullable=False),  # pending → succeeded | failed
    Column("amount_minor", BigInteger, nullable=False),
    Column("why", Text),
    Column("operation", Text),  # makes a refund that somebody asked for happen once
    Column("content", Text),  # digest of what was asked for
    _ms("created_at"),
    _ms("changed_at"),
    Index("ix_refunds_payment", "payment"),
    Index("ix_refunds_changed", "changed_at"),
    Index("uq_refunds_operation", "operation", unique=True),
)
refund_lines = Table(  # which units a refund is for
    "refund_lines",
    metadata,
    Column("refund", ForeignKey("refunds.id"), primary_key=True),
    Column("line", Integer, primary_key=True),  # the order's
    Column("qty", Integer, nullable=False),
    Column("restock", Boolean, nullable=False),
    CheckConstraint("qty > 0", name="qty"),
)

# ── moderation ────────────────────────────────────────────────────────────────────────────

moderation_log = Table(  # every act, with its reason; only ever added to
    "moderation_log",
    metadata,
    _id(),
    Column("room", ForeignKey("rooms.id"), nullable=False),
    Column("by", Text, nullable=False),
    Column("act", Text, nullable=False),
    Column("member", Text),
    Column("message", Text),
    Column("text", Text),
    Column("why", Text),
    _ms("until", nullable=True),
    _ms("at"),
    Index("ix_moderation_log_room", "room", "at"),
)

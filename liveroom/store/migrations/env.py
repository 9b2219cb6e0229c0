"""Runs the migrations on the connection `Database.upgrade` hands over, in its transaction."""

from __future__ import annotations

from alembic import context

from liveroom.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,  # SQLite alters a table by copying it
)
context.run_migrations()

"""The database: one writer, snapshots beside it, and what happens when it is away."""

from __future__ import annotations

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text

from liveroom.store.database import Database, now_ms
from liveroom.store.tables import metadata


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def any_db(request, tmp_path):
    if request.param == "sqlite":
        return request.getfixturevalue("db")
    database = Database(request.getfixturevalue("postgres_url"))
    database.upgrade()
    return database


def test_migrations_make_what_the_tables_say(any_db, run):
    """After every migration the schema equals `tables.py`."""

    def differences(conn):
        return compare_metadata(MigrationContext.configure(conn), metadata)

    assert run(any_db.read(differences)) == []


def test_now(any_db, run):
    """Time moves."""
    assert run(any_db.now_ms()) > 1_700_000_000_000

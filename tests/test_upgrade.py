"""Upgrades of a database that has rows: nothing is lost, and what is new is filled in."""

from __future__ import annotations

import pytest
from sqlalchemy import select, text

from liveroom.store import tables
from liveroom.store.database import Database


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def older(request, tmp_path, run):
    """A database of the first schema, once of each kind."""
    url = f"sqlite:///{tmp_path}/older.db"
    if request.param == "postgres":
        url = request.getfixturevalue("postgres_url")
    database = Database(url)
    database.upgrade("0001")
    yield database
    run(database.close())


ROOM = """
    INSERT INTO rooms (id, title, host, state, paused, settings, v, pinned, pinned_seq, created_at)
    VALUES ('r1', '', 'mia', 'live', FALSE, '{}', 1, '["p2", "p1"]', 7, 0)
"""


def test_pins_of_an_older_release_stay(older, run) -> None:
    """Pinned products stay pinned, in their order; where their pins began is not known."""
    run(older.write(lambda conn: conn.execute(text(ROOM)) and None))
    older.upgrade()
    pinned = run(older.read(lambda conn: conn.scalar(select(tables.rooms.c.pinned))))
    assert list(pinned.items()) == [("p2", 0), ("p1", 0)]

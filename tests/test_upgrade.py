"""Upgrades of a database that has rows: nothing is lost, and what is new is filled in."""

from __future__ import annotations

import pytest
from sqlalchemy import Connection, select, text

from liveroom import shelves
from liveroom.audit import audit
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
    known = run(older.read(lambda conn: shelves.facts(conn, "r1")))
    assert list(known.pinned.items()) == [("p2", 0), ("p1", 0)]
    assert known.pins == {}


def line(number: int, sku: str, qty: int) -> dict[str, object]:
    pool = f"sku:{sku}"
    row = {"order": "o1", "line": number, "pool": pool, "sku": sku, "qty": qty}
    return row | {"price_minor": 100, "hold": f"0.{number}", "restocked": 0}


def refund(number: int, amount: int, **values: object) -> dict[str, object]:
    row = {"id": f"f{number}", "payment": "y1", "state": "succeeded", "amount_minor": amount}
    return row | {"created_at": number, "changed_at": number} | values


ORDER = {
    "id": "o1",
    "room": "r1",
    "buyer": "ann",
    "state": "paid",
    "content": "",
    "currency": "EUR",
}
PAYMENT = {
    "id": "y1",
    "order": "o1",
    "provider": "sandbox",
    "state": "succeeded",
    "currency": "EUR",
}
OF_NOTE = {"refund": "f1", "line": 1, "qty": 1, "restock": False}
SOLD: list[tuple[str, dict[str, object]]] = [
    ("shops", {"id": "s1", "name": "", "created_at": 0}),
    *(
        (
            "products",
            row | {"shop": "s1", "title": "", "currency": "EUR", "needs": "[]", "created_at": 0},
        )
        for row in ({"id": "p1"}, {"id": "p2"})
    ),
    *(
        ("skus", {"id": sku, "product": "p1", "position": 0, "price_minor": 100})
        for sku in ("a", "b")
    ),
    *(
        (
            "pools",
            {
                "pool": f"sku:{sku}",
                "sku": sku,
                "partition": 0,
                "initial": 9,
                "adjusted": 0,
                "reserved": 0,
                "sold": n,
                "seq": 2,
            },
        )
        for sku, n in (("a", 3), ("b", 2))
    ),
    ("orders", ORDER | {"total_minor": 500, "placed_at": 0, "pay_by": 9, "changed_at": 0}),
    ("order_lines", line(0, "a", 3)),
    ("order_lines", line(1, "b", 2)),
    (
        "payments",
        PAYMENT | {"amount_minor": 500, "created_at": 0, "changed_at": 0, "paid_at": 60_000},
    ),
    ("refunds", refund(1, 100)),
    ("refunds", refund(2, 7)),
    ("refunds", refund(3, 50, state="failed")),
    ("refunds", refund(4, 50, state="pending")),
    ("refund_lines", OF_NOTE),
    (
        "takings",
        {
            "room": "r1",
            "minute": 1,
            "bucket": "unattributed",
            "currency": "EUR",
            "orders": 1,
            "paid_minor": 500,
            "refunded_minor": 107,
        },
    ),
    ("waitlists", {"pool": "sku:a", "open": True, "joined": 1}),
    ("waiting", {"pool": "sku:a", "place": 1, "member": "bob", "room": "r1", "qty": 1, "since": 0}),
]


def sell(conn: Connection) -> None:
    """A paid order of two lines as the first schema has it, refunded twice."""
    conn.execute(text(ROOM))
    for table, row in SOLD:
        names = ", ".join(f'"{name}"' for name in row)
        marks = ", ".join(f":{name}" for name in row)
        conn.execute(text(f"INSERT INTO {table} ({names}) VALUES ({marks})"), row)


def test_sales_of_an_older_release_are_unattributed(older, run) -> None:
    """What went back before is divided among the lines as it would be now, and the audit agrees."""
    run(older.write(sell))
    older.upgrade()
    lines, waiting = tables.order_lines.c, tables.waiting.c
    found = run(
        older.read(
            lambda conn: (
                conn.execute(select(lines.bucket, lines.refunded_minor).order_by(lines.line)).all(),
                conn.scalar(select(waiting.bucket)),
            )
        )
    )
    # 100 of line 1; of 7 it has 100 left and line 0 has 300: 5.25 and 1.75.
    assert found == ([("unattributed", 5), ("unattributed", 102)], "unattributed")
    assert run(audit(older)).checks["I12"].ok

"""Draws: who may buy in a drop that is not first come, first served.

The seed is made before anybody enters, and its digest is told then; at opening members are
ranked by HMAC(seed, drop + member); the seed and the digest of the entries are told at the
end. That proves that nobody chose the seed to suit the entries. It does not prove that all
entries are real members: whoever holds the seed could add chosen ones.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Collection, Iterable, Sequence
from typing import Final, NamedTuple

from sqlalchemy import Connection, bindparam, select, text, tuple_, update

from liveroom.store import tables
from liveroom.store.database import now_ms

ENTRIES_MAX: Final = 50_000
"""How many members may enter one draw."""

_T = tables


class Entry(NamedTuple):
    """A member who wants to take part in a drop's draw."""

    drop: str
    member: str


def new_seed() -> str:
    """256 random bits, in hex."""
    return secrets.token_hex(32)


def seed_hash(seed: str) -> str:
    """SHA-256 of the seed's bytes, in hex."""
    return hashlib.sha256(bytes.fromhex(seed)).hexdigest()


def digest(members: Iterable[str]) -> str:
    """SHA-256 of the members, sorted, each followed by a line feed, in hex."""
    listed = "".join(f"{member}\n" for member in sorted(members))
    return hashlib.sha256(listed.encode()).hexdigest()


def ranked(seed: str, drop: str, members: Collection[str]) -> list[str]:
    """The members in the order of the draw: by HMAC-SHA-256 of drop + member under the seed."""
    key = bytes.fromhex(seed)
    return sorted(members, key=lambda one: hmac.digest(key, f"{drop}{one}".encode(), "sha256"))


# ── entries: functions inside somebody's transaction ──────────────────────────────────────


def enter(conn: Connection, entries: Sequence[Entry]) -> dict[str, str]:
    """Enter members into draws that have not opened; each counts once.

    Returns:
        The state of each drop that is there. Where it is not `scheduled`, nobody has entered.
    """
    ids = sorted({entry.drop for entry in entries})
    drops = _T.drops.c
    locked = select(drops.id, drops.state, drops.entries).where(drops.id.in_(ids))
    rows = conn.execute(locked.order_by(drops.id).with_for_update()).all()
    at = now_ms(conn)
    for row in rows:
        free = ENTRIES_MAX - row.entries
        mine = sorted({entry.member for entry in entries if entry.drop == row.id})[:free]
        if row.state != "scheduled" or not mine:
            continue
        added = sum(
            conn.execute(_ENTER, {"drop": row.id, "member": member, "at": at}).rowcount
            for member in mine
        )
        conn.execute(
            update(_T.drops).where(drops.id == row.id).values(entries=drops.entries + added)
        )
    return {row.id: row.state for row in rows}


def draw(conn: Connection, drop: str, seed: str, units: int) -> tuple[int, str]:
    """Admit the first of a locked drop's entries; how many entries there are, their digest."""
    entries = _T.drop_entries.c
    members = list(conn.scalars(select(entries.member).where(entries.drop == drop)))
    admitted = [
        {"b_drop": drop, "b_member": member, "b_place": place}
        for place, member in enumerate(ranked(seed, drop, members)[:units])
    ]
    if admitted:
        conn.execute(_ADMIT, admitted)
    return len(members), digest(members)


def luck(conn: Connection, asked: Collection[Entry]) -> dict[Entry, bool | None]:
    """Whether each who has entered is admitted; None before the draw."""
    entries, drops = _T.drop_entries.c, _T.drops.c
    query = select(entries.drop, entries.member, entries.place, drops.state)
    query = query.join(_T.drops, drops.id == entries.drop)
    mine = tuple_(entries.drop, entries.member).in_([tuple(entry) for entry in asked])
    return {
        Entry(row.drop, row.member): None if row.state == "scheduled" else row.place is not None
        for row in conn.execute(query.where(mine))
    }


def admitted(conn: Connection, drop: str) -> list[str]:
    """The members who may buy, in the order of the draw."""
    entries = _T.drop_entries.c
    query = select(entries.member).where(entries.drop == drop, entries.place.is_not(None))
    return list(conn.scalars(query.order_by(entries.place)))


_ENTER = text(
    'INSERT INTO drop_entries ("drop", member, at) VALUES (:drop, :member, :at)'
    ' ON CONFLICT ("drop", member) DO NOTHING'
)
_ADMIT = (
    update(_T.drop_entries)
    .where(
        _T.drop_entries.c.drop == bindparam("b_drop"),
        _T.drop_entries.c.member == bindparam("b_member"),
    )
    .values(place=bindparam("b_place"))
)

"""Leases: what one node at a time has, kept in SQL and measured by its clock."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Final, TypeVar

from sqlalchemy import Connection, text

from liveroom.store.database import NOW, Database

T = TypeVar("T")

LEASE_MS: Final = 5_000

_HELD: Final = {
    dialect: text(f'SELECT holder, "until" - {now} FROM leases WHERE name = :name')  # noqa: S608
    for dialect, now in NOW.items()
}
_TAKE: Final = {
    dialect: text(
        'INSERT INTO leases (name, holder, "until") '  # noqa: S608
        f"VALUES (:name, :holder, {now} + :lasts_ms) ON CONFLICT (name) DO UPDATE "
        'SET holder = excluded.holder, "until" = excluded."until" '
        f'WHERE leases."until" <= {now} OR leases.holder = excluded.holder'
    )
    for dialect, now in NOW.items()
}


class Lease:
    """What one node at a time has, as far as it has asked of late.

    Once had, a lease lasts for half its time at least: until then nobody is asked again.
    Only a lease that is free, lapsed or half over costs a write.
    """

    def __init__(
        self, db: Database, holder: str, *, name: str = "sweeper", lasts_ms: int = LEASE_MS
    ) -> None:
        self._db = db
        self._holder = holder
        self._name = name
        self._lasts_ms = lasts_ms
        self._ours_until_s = float("-inf")

    async def glance(self, fn: Callable[[Connection], T]) -> T | None:
        """What `fn` returns (see `Database.glance`) while this node has the lease, else None.

        The lease is asked for in the same read, and taken after it where it can be.

        Raises:
            Unavailable: `store_down`.
        """
        now_s = asyncio.get_running_loop().time()
        if now_s < self._ours_until_s:
            return await self._db.glance(fn)
        is_ours, found = await self._db.glance(partial(self._look, fn))
        if is_ours is None:
            is_ours = await self._db.write(self._take)
        if not is_ours:
            return None
        self._ours_until_s = now_s + self._lasts_ms / 2000
        return found

    def _look(
        self, fn: Callable[[Connection], T], conn: Connection
    ) -> tuple[bool | None, T | None]:
        """Whether it is ours for long enough, or None where it may be taken; what `fn` found."""
        row = conn.execute(_HELD[conn.dialect.name], {"name": self._name}).one_or_none()
        is_ours = None
        if row is not None:
            holder, left_ms = row
            if holder != self._holder and left_ms > 0:
                return False, None
            if holder == self._holder and left_ms > self._lasts_ms / 2:
                is_ours = True
        return is_ours, fn(conn)

    def _take(self, conn: Connection) -> bool:
        wanted = {"name": self._name, "holder": self._holder, "lasts_ms": self._lasts_ms}
        return conn.execute(_TAKE[conn.dialect.name], wanted).rowcount == 1

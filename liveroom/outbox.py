"""The outbox: what must be told outside, written in the transaction that makes it true.

A row is told at least once, by whoever holds the sweeper's lease; the other side makes it
exactly once by the row's stable key. A row that fails is tried again later and later, each
row by itself, so that one bad row never stops the rest.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import structlog
from sqlalchemy import Connection, Row, insert, select, update

from liveroom.faults import point
from liveroom.store.database import Database, now_ms
from liveroom.store.tables import outbox

RETRY_FIRST_MS: Final = 1_000
RETRY_MAX_MS: Final = 3_600_000
BATCH_MAX: Final = 50

ANY_WAITING: Final = select(outbox.c.id).where(outbox.c.done_at.is_(None)).exists()

Handler = Callable[[dict[str, Any]], Awaitable[None]]

log = structlog.get_logger()


def add(conn: Connection, kind: str, body: dict[str, Any], at: int) -> None:
    """Write down, in the caller's transaction, that `kind` must be told of `body`."""
    conn.execute(insert(outbox), {"kind": kind, "body": body, "due_at": at, "tries": 0})


class Outbox:
    """Tells what is due, each kind by its own handler. A handler may be called twice."""

    def __init__(self, db: Database, handlers: Mapping[str, Handler]) -> None:
        self._db = db
        self._handlers = handlers

    async def run_once(self) -> int:
        """Tell up to `BATCH_MAX` rows that are due; how many were told."""
        told = 0
        for row in await self._db.read(_due):
            told += await self._tell(row)
        return told

    async def _tell(self, row: Row[Any]) -> bool:
        try:
            await self._handlers[row.kind](row.body)
        except Exception:
            log.exception("outbox.failed", kind=row.kind, row=row.id, tries=row.tries + 1)
            await self._db.write(lambda conn: _later(conn, row))
            return False
        point("outbox.told")
        await self._db.write(lambda conn: _done(conn, row))
        return True


def _due(conn: Connection) -> list[Row[Any]]:
    at = now_ms(conn)
    return list(
        conn.execute(
            select(outbox)
            .where(outbox.c.done_at.is_(None), outbox.c.due_at <= at)
            .order_by(outbox.c.due_at, outbox.c.id)
            .limit(BATCH_MAX)
        )
    )


def _later(conn: Connection, row: Row[Any]) -> None:
    wait_ms = min(RETRY_FIRST_MS * 2 ** min(row.tries, 30), RETRY_MAX_MS)
    conn.execute(
        update(outbox)
        .where(outbox.c.id == row.id)
        .values(tries=row.tries + 1, due_at=now_ms(conn) + wait_ms)
    )


def _done(conn: Connection, row: Row[Any]) -> None:
    conn.execute(update(outbox).where(outbox.c.id == row.id).values(done_at=now_ms(conn)))

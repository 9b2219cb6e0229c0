"""Events of providers that wait: for their payment to be known, or for stock to be told of.

Whoever shares an account with us sends events of payments that are none of ours, thousands of
them. An event is looked at less and less often, all of a page in one transaction, and at once
when its payment becomes known (`payments.py`). Each function is one transaction for
`Database.write` or a look for `Database.read`; nothing here awaits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Connection, Row, bindparam, exists, select, update

from liveroom.store import tables
from liveroom.store.database import now_ms

RETRY_FIRST_MS: Final = 1_000
RETRY_MAX_MS: Final = 300_000
PARKED_MAX_MS: Final = 24 * 3_600_000
"""How long an event is looked at by itself; after that only when its payment becomes known."""
NEVER_MS: Final = 2**53

_T = tables
_EVENTS = _T.payment_events.c
_PUT_OFF = (
    update(_T.payment_events)
    .where(_EVENTS.provider == bindparam("b_provider"), _EVENTS.event == bindparam("b_event"))
    .values(due_at=bindparam("b_due_at"), tries=_EVENTS.tries + 1)
)
ANY_DUE: Final = exists().where(_EVENTS.applied_at.is_(None), _EVENTS.due_at < NEVER_MS)


def due_events(conn: Connection, limit: int, beyond: tuple[int, str]) -> Sequence[Row[Any]]:
    """Events taken in and not applied that are due, after `beyond`, as (due_at, event).

    `known` says whether the payment is.
    """
    payments = _T.payments.c
    known = exists().where(
        payments.provider == _EVENTS.provider, payments.reference == _EVENTS.reference
    )
    due_at, last = beyond
    return conn.execute(
        select(_T.payment_events, known.label("known"))
        .where(
            _EVENTS.applied_at.is_(None),
            _EVENTS.due_at <= now_ms(conn),
            (_EVENTS.due_at > due_at) | ((_EVENTS.due_at == due_at) & (_EVENTS.event > last)),
        )
        .order_by(_EVENTS.due_at, _EVENTS.event)
        .limit(limit)
    ).all()


def put_off(conn: Connection, events: Sequence[Row[Any]]) -> None:
    """Look at these again later, and later each time."""
    at = now_ms(conn)
    conn.execute(
        _PUT_OFF,
        [
            {"b_provider": row.provider, "b_event": row.event, "b_due_at": _next_look(row, at)}
            for row in events
        ],
    )


def _next_look(row: Row[Any], at: int) -> int:
    due_at = at + min(RETRY_FIRST_MS * 2 ** min(row.tries, 30), RETRY_MAX_MS)
    return int(due_at) if due_at < row.received_at + PARKED_MAX_MS else NEVER_MS

"""How unpaid orders end: SQL begins to close them, then their providers are asked.

The transactions are in `closing.py`. Closing and asking are two steps, since a provider may
take as long as it likes to answer: what nobody can pay any more ends without asking anybody,
and an order whose provider hangs waits for its own alone. Every transaction looks again at
what it finds: whoever comes first, sweeper, buyer or webhook, the others do nothing.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Final

import structlog
from sqlalchemy import Row

from liveroom import closing
from liveroom.batching import Batcher
from liveroom.closing import Closing
from liveroom.errors import Unavailable
from liveroom.faults import point
from liveroom.payments import Payments, Webhook
from liveroom.store.database import Database
from liveroom.telling import Telling

DUE_MAX: Final = 100
DUE_PAGES_MAX: Final = 100
CLOSING_MAX: Final = 1_000
"""Orders whose providers are asked in one go; so many wait for one that hangs, side by side."""
ASKED_AT_ONCE_MAX: Final = 8
"""Payments that one provider is asked to close at the same time."""
CLOSE_MAX_S: Final = 12.0
"""How long an order waits in one go, for its turn to be asked and then for its provider."""
ASK_S: Final = 2.0
BATCH_MAX: Final = 64
WAITING_MAX: Final = 10_000

log = structlog.get_logger()


class Ending:
    """Ends orders that nobody paid.

    `settle` takes in what a provider says when it is asked to close. An order that has been
    closing for `closing_max_ms` ends, whatever its provider does.
    """

    def __init__(
        self,
        db: Database,
        payments: Payments,
        telling: Telling,
        settle: Callable[[Webhook], Awaitable[None]],
        *,
        closing_max_ms: int,
        close_max_s: float = CLOSE_MAX_S,
    ) -> None:
        self._db = db
        self._payments = payments
        self._telling = telling
        self._settle = settle
        self._closing_max_ms = closing_max_ms
        self._close_max_s = close_max_s
        self._turns: dict[str, asyncio.Semaphore] = defaultdict(
            lambda: asyncio.Semaphore(ASKED_AT_ONCE_MAX)
        )
        self._ends = Batcher(self._end, size_max=BATCH_MAX, waiting_max=WAITING_MAX)

    async def close(self) -> None:
        """End what may end by now."""
        await self._ends.close()

    async def expire_once(self) -> int:
        """Begin to close all orders whose time to pay has passed; how many were looked at.

        Those that nobody can pay any more end at once. No provider is asked here.
        """
        return await self._look(partial(closing.due_orders, limit=DUE_MAX), self._expire)

    async def end_closing_once(self) -> int:
        """Ask the providers of all closing orders, and end those that may end; how many."""
        return await self._look(partial(closing.closing_orders, limit=CLOSING_MAX), self._finish)

    async def finish(self, closings: Sequence[Closing]) -> None:
        """Ask the providers, and end each order as soon as its payments are closed.

        Raises:
            Unavailable: of the first that SQL could not end; all others are looked at.
        """
        if not closings:
            return
        patient_since = await self._db.now_ms() - self._closing_max_ms
        outcomes = await asyncio.gather(
            *(self._close_and_end(one, (one.since - patient_since) / 1000) for one in closings),
            return_exceptions=True,
        )
        for fault in outcomes:
            if isinstance(fault, BaseException):
                raise fault

    # ── inside ────────────────────────────────────────────────────────────────────────────

    async def _look(
        self, read: Callable[..., closing.Page], work: Callable[[Sequence[str]], Awaitable[None]]
    ) -> int:
        """Do the work on all that there is, a page at a time."""
        looked_at, beyond = 0, (0, "")
        for _ in range(DUE_PAGES_MAX):
            page = await self._db.read(partial(read, beyond=beyond))
            if not page:
                break
            beyond = page[-1]
            looked_at += len(page)
            await work([order for _, order in page])
        return looked_at

    async def _expire(self, ids: Sequence[str]) -> None:
        begun = await self._begin(ids)
        point("expiry.closing")
        await self.finish([one for one in begun if not one.payments])

    async def _finish(self, ids: Sequence[str]) -> None:
        await self.finish(await self._begin(ids))

    async def _begin(self, ids: Sequence[str]) -> list[Closing]:
        """Close them in one transaction; where that fails, each alone, its failure its own."""
        try:
            return await self._db.write(partial(closing.begin_closing, ids=ids, due_only=True))
        except Unavailable:
            raise
        except Exception:
            log.exception("orders.batch_failed", orders=len(ids))
            if len(ids) == 1:
                return []
        return [one for order in ids for one in await self._begin([order])]

    async def _close_and_end(self, one: Closing, patience_s: float) -> None:
        """End the order once its payments are closed, or it has been closing for too long.

        Its providers are asked for a moment even then: it may be the first time.
        """
        try:
            async with asyncio.timeout(max(ASK_S, patience_s)):
                ends = await self._close_payments(one) or patience_s <= 0
        except TimeoutError:
            log.warning("orders.ended_unasked", order=one.order)
            ends = True
        if ends:
            point("expiry.payments_closed")
            await self._ends.submit(one.order)

    async def _close_payments(self, one: Closing) -> bool:
        """Whether nothing of the order can be captured any more."""
        try:
            for payment in one.payments:
                said = await self._close(payment)
                if said is not None:
                    await self._settle(said)
                    return False
        except (TimeoutError, Unavailable) as silence:
            log.warning("orders.close_put_off", order=one.order, why=repr(silence))
            return False
        except Exception:
            log.exception("orders.close_failed", order=one.order)
            return False
        return True

    async def _close(self, payment: Row[Any]) -> Webhook | None:
        """What the provider says when its turn has come; neither is waited for without end."""
        provider, turns = self._payments.provider(payment.provider), self._turns[payment.provider]
        async with asyncio.timeout(self._close_max_s):
            await turns.acquire()
        try:
            async with asyncio.timeout(self._close_max_s):
                return await provider.close(payment=payment.id, reference=payment.reference)
        finally:
            turns.release()

    async def _end(self, ids: Sequence[str]) -> list[None]:
        """End them in one transaction; where that fails, each alone, its failure its own."""
        try:
            after = await self._db.write(partial(closing.finish_closing, ids=ids))
        except Unavailable:
            raise
        except Exception:
            log.exception("orders.batch_failed", orders=len(ids))
            if len(ids) > 1:
                for order in ids:
                    await self._end([order])
        else:
            point("expiry.committed")
            self._telling.tell(after)
        return [None] * len(ids)

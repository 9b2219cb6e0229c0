"""What becomes of orders by money: what providers say is taken in, refunds are asked for.

The transactions are in `captures.py`; here is what must be asked of providers and of the gates
in between, always outside of a transaction. One event that fails stops none of the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Final

import msgspec
import structlog
from sqlalchemy import Row

from liveroom import captures, parked, refunding
from liveroom.batching import Batcher
from liveroom.bookkeeping import After, Wanted
from liveroom.captures import Late, Saying
from liveroom.errors import Invalid, Refused, Unavailable
from liveroom.faults import point
from liveroom.inventory import Hold, HoldLineRequest, HoldRequest, Inventory
from liveroom.metrics import Counters
from liveroom.payments import Payments, Webhook
from liveroom.store.database import Database
from liveroom.telling import Telling

TRIES_MAX: Final = 4
BATCH_MAX: Final = 64
WAITING_MAX: Final = 10_000
DUE_MAX: Final = 100
DUE_PAGES_MAX: Final = 5

log = structlog.get_logger()


class Settling:
    """Takes in what providers say, and asks them to give back."""

    def __init__(
        self,
        db: Database,
        inventory: Inventory,
        payments: Payments,
        telling: Telling,
        counters: Counters,
    ) -> None:
        self._db = db
        self._inventory = inventory
        self._payments = payments
        self._telling = telling
        self._counters = counters
        self._taking_in = Batcher(self._take_in, size_max=BATCH_MAX, waiting_max=WAITING_MAX)

    async def close(self) -> None:
        """Take in what was said so far."""
        await self._taking_in.close()

    async def settle(self, said: Webhook) -> None:
        """Take in, once, what a provider said. Returns after the commit.

        What cannot be applied yet (an unknown payment, stock being rebuilt) is on record and
        tried again by the sweeper.

        Raises:
            Unavailable: nothing is on record; the provider must send it again.
        """
        late: Late | list[Hold] = Late.ASK
        for _ in range(TRIES_MAX):
            after = await self._taking_in.submit(Saying(said, late))
            point("webhook.committed")
            self._telling.tell(after)
            self._report(after, said)
            if after.wants is None:
                return
            try:
                late = await self._hold_late(after.wants)
            except Unavailable as error:
                log.warning("orders.late_payment_waits", order=after.wants.order, code=error.code)
                return

    def _report(self, after: After, said: Webhook) -> None:
        """Have seen what must not be."""
        if after.broken:
            self._counters.broken_holds += after.broken
            log.error("orders.broken_holds", holds=after.broken, told_by=said.event)
        if after.differs is not None:
            money = f"{said.amount_minor} {said.currency}"
            log.error("orders.refund_differs", refund=after.differs, told_by=said.event, said=money)

    async def _take_in(self, sayings: Sequence[Saying]) -> Sequence[After | Exception]:
        """One transaction for many; where it fails, each alone, once, its failure its own."""
        try:
            return await self._db.write(partial(captures.take_in_all, sayings=sayings))
        except Unavailable:
            raise
        except Exception as fault:
            if len(sayings) == 1:
                return [fault]
            log.exception("orders.events_failed", events=len(sayings))
        return [(await self._take_in([one]))[0] for one in sayings]

    async def _hold_late(self, wanted: Wanted) -> Late | list[Hold]:
        lines = [
            HoldLineRequest(pool=line.pool, sku=line.sku, drop=line.drop, qty=line.qty)
            for line in wanted.lines
        ]
        request = HoldRequest(
            buyer=wanted.buyer,
            room=wanted.room,
            key=f"late:{wanted.order}",
            lines=lines,
            kind="placing",
            again=True,
        )
        try:
            return await self._inventory.hold(request)
        except (Refused, Invalid) as refusal:
            log.info("orders.late_payment_refunded", order=wanted.order, code=refusal.code)
            return Late.REFUND

    async def settle_waiting_once(self) -> int:
        """Try again what waits for its payment or for stock; how many events were looked at.

        At most `DUE_PAGES_MAX` pages; what still waits for its payment is put off, longer each
        time.
        """
        looked_at, beyond = 0, (0, "")
        for _ in range(DUE_PAGES_MAX):
            rows = await self._db.read(partial(parked.due_events, limit=DUE_MAX, beyond=beyond))
            looked_at += len(rows)
            if vain := [row for row in rows if not await self._settle_waiting(row)]:
                await self._db.write(partial(parked.put_off, events=vain))
            if len(rows) < DUE_MAX:
                break
            beyond = (rows[-1].due_at, rows[-1].event)
        return looked_at

    async def _settle_waiting(self, row: Row[Any]) -> bool:
        """Whether the event has been taken in, or waits for stock alone."""
        if not row.known:
            return False
        try:
            await self.settle(msgspec.convert(row.body, Webhook))
        except Unavailable:
            raise
        except Exception:
            log.exception("orders.event_failed", provider=row.provider, told_by=row.event)
            return False
        return True

    async def refund(self, body: dict[str, Any]) -> None:
        """The outbox's handler: ask the provider to send money back, under the refund's id."""
        refund = await self._db.read(lambda conn: refunding.refund_of(conn, body["refund"]))
        if refund.state != "pending":
            return
        said = await self._payments.provider(refund.provider).refund(
            refund=refund.id,
            reference=refund.reference,
            amount_minor=refund.amount_minor,
            currency=refund.currency,
        )
        point("refund.asked")
        if said is not None:
            await self.settle(said)

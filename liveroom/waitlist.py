"""The waitlist: who found a SKU sold out, in order, and the offers they get.

SQL has the list; a pool's gate knows only that somebody waits, and lets nobody but offers
hold then. So what is returned, restocked or not taken is the next one's from the very step
that frees it, however late the sweep comes by. An offer is a hold in the member's cart, and
ends like any other: bought, declined or expired.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Final

import structlog

from liveroom import shapes
from liveroom.clock import Clock
from liveroom.errors import Refused
from liveroom.events import Event
from liveroom.faults import point
from liveroom.inventory import Hold, HoldLineRequest, HoldRequest, Inventory
from liveroom.store import ledger, waiting
from liveroom.store.backplane import Backplane
from liveroom.store.database import Database
from liveroom.store.waiting import Waiter

ROUNDS_MAX: Final = 100
FINAL: Final = frozenset({"limit_reached", "price_changed"})
"""What refuses an offer for good: to ask again would change nothing."""

log = structlog.get_logger()


class Waitlist:
    """All waitlists. Who may buy, and whether the room sells now, is the caller's to check."""

    def __init__(
        self, db: Database, inventory: Inventory, backplane: Backplane, clock: Clock
    ) -> None:
        self._db = db
        self._inventory = inventory
        self._backplane = backplane
        self._clock = clock
        self._seen = ""  # the last pool of the last look

    async def join(
        self, *, member: str, room: str, sku: str, qty: int, bucket: str
    ) -> shapes.Waiting:
        """Wait for units that are not there now. Once more: for another number of them.

        What is offered is in the bucket of the last joining, whenever the offer comes.

        Raises:
            Refused: `not_open` {sku, left}: so many are left that nobody need wait;
                `limit_reached` {sku}: no more for this buyer, or the list is full.
            Unavailable: `rebuilding`, `store_down`; the member may be on the list then.
        """
        pool = ledger.pool_of(sku)
        left, _ = (await self._inventory.left([pool]))[pool]
        if left >= qty:
            raise Refused("not_open", "Enough are left.", data={"sku": sku, "left": left})
        wish = partial(waiting.join, pool=pool, member=member, room=room, qty=qty, bucket=bucket)
        try:
            ahead = await self._db.write(wish)
        except Refused as refusal:
            raise Refused(refusal.code, data={"sku": sku}) from refusal
        point("waiting.joined")
        await self._inventory.set_waiting(sku, waiting=True)
        return shapes.Waiting(sku=sku, qty=qty, ahead=ahead)

    async def leave(self, *, member: str, sku: str) -> shapes.Waiting:
        """Wait no more; an offer that was made stays in the cart until it is removed there."""
        pool = ledger.pool_of(sku)
        await self._db.write(lambda conn: waiting.leave(conn, pool=pool, member=member))
        return shapes.Waiting(sku=sku, qty=0, ahead=0)

    async def sweep_once(self) -> int:
        """Offer what there is to those who are next; how many got an offer.

        One node, once a second. May be repeated at any time: an offer that was made and not
        yet written down is the same hold again.
        """
        if over := await self._db.read(waiting.over):
            await self._db.write(lambda conn: waiting.done(conn, over))
        offered = 0
        for _ in range(ROUNDS_MAX):
            lists = await self._db.read(partial(waiting.lists, after=self._seen))
            served = await self._offer(lists.heads) if lists.heads else 0
            self._seen = lists.heads[-1].pool if lists.heads else ""
            for pool, joined in lists.empty:
                await self._close(pool, joined)
            offered += served
            if not served:
                break
        return offered

    async def _offer(self, heads: Sequence[Waiter]) -> int:
        ended = [(one.pool, one.place) for one in heads if one.served]
        asking = [one for one in heads if not one.served]
        answers = await self._inventory.offer([_request(one) for one in asking])
        point("waiting.offered")
        held: list[Hold] = []
        for one, answer in zip(asking, answers, strict=True):
            if isinstance(answer, Hold):
                held.append(answer)
            elif answer in FINAL:
                log.info("waiting.refused", pool=one.pool, place=one.place, code=answer)
            else:
                continue
            ended.append((one.pool, one.place))
        # Told first, written down second: whoever dies in between is told twice, not never.
        await self._tell(held)
        point("waiting.told")
        if ended:
            await self._db.write(lambda conn: waiting.done(conn, ended))
        return len(held)

    async def _tell(self, holds: Sequence[Hold]) -> None:
        at = self._clock.now_ms()
        events = []
        for hold in holds:
            line = shapes.HoldLine(sku=hold.sku, qty=hold.qty, expires_at=hold.due)
            offer = {"sku": hold.sku, "qty": hold.qty, "until": hold.due}
            events.append(Event("hold.placed", {"hold": line.builtin()}, at, to=hold.buyer))
            events.append(Event("waitlist.offered", offer, at, to=hold.buyer))
        if events:
            await self._backplane.direct(events)

    async def _close(self, pool: str, joined: int) -> None:
        """Let everybody hold again; whoever joins meanwhile has the flag set again."""
        sku = pool.partition(":")[2]
        await self._inventory.set_waiting(sku, waiting=False)
        point("waiting.opened")
        if not await self._db.write(lambda conn: waiting.close(conn, pool, joined)):
            await self._inventory.set_waiting(sku, waiting=True)


def _request(one: Waiter) -> HoldRequest:
    line = HoldLineRequest(pool=one.pool, sku=one.sku, qty=one.qty, bucket=one.bucket)
    key = f"offer/{one.pool}/{one.place}"
    return HoldRequest(buyer=one.member, room=one.room, key=key, lines=[line], kind="held")

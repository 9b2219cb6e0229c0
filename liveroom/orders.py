"""Orders: from holds to orders on disk, and on to what becomes of them.

Nobody is answered `ok` before the transaction has committed, and nobody is refused before SQL
was asked whether the order is there already. Orders that arrive while a commit is under way
form the next batch. After a commit Redis is told and events leave; if that fails, the sweeper
tells what is lacking from the ledger.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any, Final

import msgspec
import structlog
from sqlalchemy import Connection

from liveroom import closing, refunding, shapes
from liveroom.batching import Batcher
from liveroom.bookkeeping import After, News
from liveroom.buckets import UNATTRIBUTED
from liveroom.deciding import Known, Plan, Wish, first_answer
from liveroom.ending import CLOSE_MAX_S, Ending
from liveroom.errors import Invalid, LiveroomError, Refused, Unavailable
from liveroom.faults import point
from liveroom.inventory import HoldLineRequest, HoldRequest, Inventory
from liveroom.metrics import Counters
from liveroom.payments import Payments, Webhook
from liveroom.placing import known_orders, place_batch
from liveroom.recent import Own, Recent
from liveroom.settling import Settling
from liveroom.showing import Page, Seen, page_of, shown
from liveroom.store.backplane import Backplane
from liveroom.store.database import CommitUnknown, Database
from liveroom.store.ledger import pool_of
from liveroom.telling import Telling

BATCH_MAX: Final = 128
LOOKUPS_MAX: Final = 256
WAITING_MAX: Final = 20_000
TOLD_MAX_S: Final = 0.5  # with a commit of 1.5 s the answer still comes within 2 s
ANSWER_MAX_S: Final = 1.9
TRIES_MAX: Final = 4
RETRY_FIRST_S: Final = 0.05

log = structlog.get_logger()


class LineRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A line as the buyer asks for it; `price_minor` is the price that the buyer saw."""

    sku: str
    qty: int
    drop: str | None = None
    price_minor: int | None = None
    bucket: str = UNATTRIBUTED


class Orders:
    """Places orders, shows them, ends them, and takes in what providers say of them.

    `pay_within_s` counts from the commit by the database's clock; an order whose provider
    does not answer while it is closing ends after `closing_max_s` all the same; each time it
    waits for `close_max_s` at most.
    """

    def __init__(
        self,
        db: Database,
        inventory: Inventory,
        payments: Payments,
        backplane: Backplane,
        counters: Counters,
        *,
        pay_within_s: float,
        closing_max_s: float = 60.0,
        close_max_s: float = CLOSE_MAX_S,
    ) -> None:
        self._db = db
        self._inventory = inventory
        self._counters = counters
        self._pay_within_ms = round(pay_within_s * 1000)
        self._under_way: dict[str, list[asyncio.Future[Unavailable | None]]] = {}
        self._placing = Batcher(self._place, size_max=BATCH_MAX, waiting_max=WAITING_MAX)
        self._lookups = Batcher(self._look_up, size_max=LOOKUPS_MAX, waiting_max=WAITING_MAX)
        self._recent = Recent(db)
        self._telling = Telling(inventory, backplane)
        self._settling = Settling(db, inventory, payments, self._telling, counters)
        self._ending = Ending(
            db,
            payments,
            self._telling,
            self._settling.settle,
            closing_max_ms=round(closing_max_s * 1000),
            close_max_s=close_max_s,
        )

    async def close(self) -> None:
        """Answer what was asked so far, and tell of it."""
        await self._placing.close()
        await self._lookups.close()
        await self._recent.close()
        await self._ending.close()
        await self._settling.close()
        await self._telling.all_told()

    # ── placing ───────────────────────────────────────────────────────────────────────────

    async def place(
        self,
        *,
        order: str,
        buyer: str,
        room: str,
        lines: Sequence[LineRequest],
        content: str,
        again: bool = False,
    ) -> shapes.Order:
        """Buy now: the order, on disk. The same id and content give the same answer again.

        Refused: not_open, sale_paused, sold_out, limit_reached, price_changed. Invalid:
        id_reused, not_found, bad_argument. Unavailable: rebuilding, store_down, overloaded.
        """
        request = HoldRequest(
            buyer=buyer, room=room, key=order, lines=_merged(lines), kind="placing", again=again
        )
        return await self._once(
            order, buyer, content, lambda: self._buy_now(request, content), again=again
        )

    async def checkout(self, *, order: str, buyer: str, room: str, content: str) -> shapes.Order:
        """Order what the buyer's cart in this room holds: all of it or nothing.

        `hold_expired` if the cart is empty or any of it has expired; a refused checkout leaves
        the cart as it was, with its old deadlines. Otherwise as `place`.
        """
        return await self._once(
            order, buyer, content, lambda: self._check_out(order, buyer, room, content)
        )

    async def _buy_now(self, request: HoldRequest, content: str) -> shapes.Order:
        """Hold and place; again by itself where the fence was raised in between."""
        for attempt in range(TRIES_MAX):
            holds = await self._inventory.hold(request)
            point("hold.taken")
            wish = Wish(
                order=request.key,
                buyer=request.buyer,
                room=request.room,
                content=content,
                buy_now=True,
                holds=holds,
            )
            try:
                return await self._placing.submit(wish)
            except LiveroomError as refusal:
                if refusal.code not in {"rebuilding", "hold_expired"}:
                    raise
            await asyncio.sleep(RETRY_FIRST_S * 2**attempt)
        raise Unavailable("rebuilding")

    async def _check_out(self, order: str, buyer: str, room: str, content: str) -> shapes.Order:
        holds = await self._inventory.to_placing(buyer, room, order)
        point("cart.placing")
        wish = Wish(
            order=order, buyer=buyer, room=room, content=content, buy_now=False, holds=holds
        )
        try:
            placed = await self._placing.submit(wish)
        except CommitUnknown:
            raise  # it may yet be an order: whoever sweeps the holds will find out
        except LiveroomError as refusal:
            await self._inventory.back_to_held([hold.id for hold in holds])
            point("cart.returned")
            if refusal.code == "rebuilding":
                raise Refused("hold_expired") from refusal
            raise
        await self._telling.all_told(TOLD_MAX_S)  # who orders a cart may fill it again at once
        return placed

    async def _once(
        self,
        order: str,
        buyer: str,
        content: str,
        attempt: Callable[[], Awaitable[shapes.Order]],
        *,
        again: bool = False,
    ) -> shapes.Order:
        """Requests of one order id run one after another, and none is refused unasked.

        What waited, or says that it was sent before, may be an order already: SQL is asked
        first, since an attempt would hold its units a second time and others find them gone.
        Where a store was away for one, it was for all that waited: none waits a second time.
        """
        asked = again
        while order in self._under_way:
            asked = True
            waiter = asyncio.get_running_loop().create_future()
            self._under_way[order].append(waiter)
            if (away := await waiter) is not None:
                raise away
        self._under_way[order] = []
        away = None
        try:
            return await self._first_or(order, buyer, content, attempt, asked=asked)
        except Unavailable as fault:
            away = fault
            raise
        finally:
            for waiter in self._under_way.pop(order):
                if not waiter.done():
                    waiter.set_result(away)

    async def _first_or(
        self,
        order: str,
        buyer: str,
        content: str,
        attempt: Callable[[], Awaitable[shapes.Order]],
        *,
        asked: bool,
    ) -> shapes.Order:
        """The first answer if there is one, which is looked for at once where it is `asked`."""
        try:
            known = await self._lookups.submit(order) if asked else None
            if known is None:
                return await attempt()
        except Unavailable:
            raise
        except LiveroomError as refusal:
            known = await self._lookups.submit(order)
            if known is None or refusal.code == "id_reused":
                raise
        answer = first_answer(known, buyer, content)
        if isinstance(answer, Invalid):
            raise answer
        return answer

    async def _look_up(self, orders: Sequence[str]) -> Sequence[Known | None]:
        known = await self._db.read(lambda conn: known_orders(conn, orders))
        return [known.get(order) for order in orders]

    async def _place(self, wishes: Sequence[Wish]) -> Sequence[shapes.Order | Exception]:
        """One group commit. A wish that breaks the batch is tried alone, once, like the rest."""
        began_s = asyncio.get_running_loop().time()
        try:
            plan = await self._db.write(self._transaction(wishes))
        except CommitUnknown as unknown:
            return await self._read_back(wishes, unknown, began_s)
        except Unavailable as away:
            return [away] * len(wishes)
        except Exception:
            log.exception("orders.batch_failed", orders=len(wishes))
            if len(wishes) == 1:
                return [Unavailable("internal")]
            return [(await self._place([wish]))[0] for wish in wishes]
        point("order.committed")
        self._committed(plan)
        return plan.answers

    def _transaction(self, wishes: Sequence[Wish]) -> Callable[[Connection], Plan]:
        return lambda conn: place_batch(conn, wishes, self._pay_within_ms)

    async def _read_back(
        self, wishes: Sequence[Wish], unknown: CommitUnknown, began_s: float
    ) -> Sequence[shapes.Order | Exception]:
        """What SQL has of a batch whose COMMIT was not answered.

        What is not there, or not told in time, may still come: it is answered `store_down`,
        its holds are left to the sweeper, and the same order id will get the truth.
        """
        log.warning("orders.commit_unknown", orders=len(wishes))
        try:
            async with asyncio.timeout_at(began_s + ANSWER_MAX_S):
                known = await self._look_up([wish.order for wish in wishes])
        except TimeoutError:
            return [unknown] * len(wishes)
        return [
            unknown if there is None else first_answer(there, wish.buyer, wish.content)
            for wish, there in zip(wishes, known, strict=True)
        ]

    def _committed(self, plan: Plan) -> None:
        self._counters.orders_placed += len(plan.placed)
        self._counters.order_batches += 1
        if plan.broken:
            self._counters.broken_holds += plan.broken
            log.error("orders.broken_holds", holds=plan.broken)
        news = [News("order.placed", buyer, order) for buyer, order in plan.placed]
        self._telling.tell(
            After(
                at=plan.at,
                told=plan.told,
                news=news,
                ended=plan.ended,
                returned=plan.returned,
            )
        )

    # ── showing ───────────────────────────────────────────────────────────────────────────

    async def show(
        self, order: str, buyer: str | None, *, shops: Collection[str] = ()
    ) -> shapes.Order:
        """The order as it is now.

        `not_found` unless it is this buyer's, or has goods of one of the shops; None sees all.
        """
        found = await self._db.read(lambda conn: shown(conn, order, Seen(buyer, shops)))
        if found is None:
            raise Invalid("not_found")
        return found

    async def of_buyer(self, buyer: str, room: str) -> Own:
        """The buyer's orders in a room that are open or changed in the last hour, newest first.

        Beside them, what the buyer waits for there.
        """
        return await self._recent.of_buyer(buyer, room)

    async def list(
        self,
        *,
        buyer: str | None,
        shops: Collection[str] = (),
        room: str | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> Page:
        """Orders, newest first: the buyer's own and those with goods of the shops.

        Without a buyer all. `after` is the `next` of the page before.
        """
        seen = Seen(buyer, shops)
        return await self._db.read(
            lambda conn: page_of(conn, seen, room=room, after=after, limit=limit)
        )

    # ── ending unpaid ─────────────────────────────────────────────────────────────────────

    async def cancel(self, order: str, buyer: str) -> shapes.Order:
        """Cancel an unpaid order: its units are on sale again. Answers the order as it is then.

        The provider is asked first; if money has come meanwhile, the order is paid, not
        cancelled. `illegal_transition` for an order that is paid or has ended.
        """
        begun = await self._db.write(lambda conn: closing.begin_cancelling(conn, order, buyer))
        await self._ending.finish(begun)
        await self._telling.all_told()  # who cancels to buy again must find the units free
        return await self.show(order, buyer)

    async def expire_once(self) -> int:
        """Begin to close all orders whose time to pay has passed; how many were looked at.

        Those that nobody can pay any more end at once; the others when their providers have
        been asked, by `end_closing_once`.
        """
        return await self._ending.expire_once()

    async def end_closing_once(self) -> int:
        """End closing orders whose payments can be closed; how many were looked at."""
        return await self._ending.end_closing_once()

    # ── what providers say ────────────────────────────────────────────────────────────────

    async def settle(self, said: Webhook) -> None:
        """Take in, once, what a provider said (`Payments.verify`). Returns after the commit.

        Raises:
            Unavailable: nothing is on record; the provider must send it again.
        """
        await self._settling.settle(said)

    async def settle_waiting_once(self) -> int:
        """Try again what waits for its payment or for stock; how many events were looked at."""
        return await self._settling.settle_waiting_once()

    async def whose(self, order: str) -> refunding.Whose:
        """Whose the order is; `not_found` without one."""
        return await self._db.read(lambda conn: refunding.whose(conn, order))

    async def give_back(
        self, order: str, wanted: refunding.NewRefund, *, operation: str | None = None
    ) -> shapes.Refund:
        """Ask for a refund, once for each operation; see `refunding.begin` for refusals.

        The units it restocks are on sale by then; the money goes by the outbox.
        """
        begun = await self._db.write(lambda conn: refunding.begin(conn, order, wanted, operation))
        self._telling.tell(begun.after)
        return begun.refund

    async def refund(self, body: dict[str, Any]) -> None:
        """The outbox's handler for `refund`: ask the provider to send money back."""
        await self._settling.refund(body)


def _merged(lines: Sequence[LineRequest]) -> list[HoldLineRequest]:
    """One line for each pool: the same SKU twice is asked for as one number."""
    merged: dict[tuple[str, str | None], LineRequest] = {}
    for line in lines:
        known = merged.get((line.sku, line.drop))
        if known is None:
            merged[line.sku, line.drop] = line
            continue
        prices = {line.price_minor, known.price_minor} - {None}
        if len(prices) > 1:
            raise Invalid("bad_argument", "One SKU stands on two lines with two prices.")
        merged[line.sku, line.drop] = LineRequest(
            sku=line.sku,
            qty=known.qty + line.qty,
            drop=line.drop,
            price_minor=next(iter(prices), None),
            bucket=known.bucket,
        )
    return [
        HoldLineRequest(
            pool=pool_of(line.sku, line.drop),
            sku=line.sku,
            drop=line.drop,
            qty=line.qty,
            price_minor=line.price_minor,
            bucket=line.bucket,
        )
        for line in merged.values()
    ]

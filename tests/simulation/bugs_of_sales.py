"""Planted bugs of drops, waitlists, money, and requests that are given up."""

from __future__ import annotations

import asyncio
from typing import Any

from liveroom import captures, drawing, orders, refunding, settling
from liveroom.deciding import Tally
from liveroom.ids import new_id
from liveroom.promotions import Promotions
from liveroom.store import sweep, waiting
from liveroom.waitlist import Waitlist
from tests.simulation.planting import Bug

# ── drops ─────────────────────────────────────────────────────────────────────────────────


async def _keep_what_is_left(self: Any, row: Any) -> None:
    await self._db.now_ms()


def _all_are_lucky(conn: Any, asked: Any) -> dict[drawing.Entry, bool | None]:
    return dict.fromkeys(asked, True)


def _drops_always_sell(self: Any, hold: Any, *, buy_now: bool) -> bool:
    return True


# ── waitlists ─────────────────────────────────────────────────────────────────────────────


async def _set_nothing(self: Any, part: int, rows: Any, gates: Any) -> None:
    pass


async def _close_in_sql_alone(self: Any, pool: str, joined: int) -> None:
    await self._db.write(lambda conn: waiting.close(conn, pool, joined))


# ── money ─────────────────────────────────────────────────────────────────────────────────


def _left_but_for_what_is_back(conn: Any, payment: Any) -> int:
    done = refunding._T.refunds.c
    back = conn.scalar(
        refunding.select(refunding.func.coalesce(refunding.func.sum(done.amount_minor), 0)).where(
            done.payment == payment.id, done.state == "succeeded"
        )
    )
    return int(payment.amount_minor - back)


def _take(self: Any, why: str) -> None:
    self.take()


async def _ask_under_a_new_key(self: Any, body: dict[str, Any]) -> None:
    refund = await self._db.read(lambda conn: refunding.refund_of(conn, body["refund"]))
    said = await self._payments.provider(refund.provider).refund(
        refund=new_id(),
        reference=refund.reference,
        amount_minor=refund.amount_minor,
        currency=refund.currency,
    )
    if said is not None:
        await self.settle(said)


# ── requests that are given up ────────────────────────────────────────────────────────────


_real_once = orders.Orders._once


async def _keep_the_order_id(
    self: Any, order: str, buyer: str, content: str, attempt: Any, *, again: bool = False
) -> Any:
    try:
        return await _real_once(self, order, buyer, content, attempt, again=again)
    except asyncio.CancelledError:
        self._under_way[order] = []
        raise


_real_buy_now = orders.Orders._buy_now


async def _give_the_units_back(self: Any, request: Any, content: str) -> Any:
    try:
        return await _real_buy_now(self, request, content)
    except asyncio.CancelledError:
        holds = await self._inventory.hold(request)
        await self._inventory.release([hold.id for hold in holds])
        raise


SALES_BUGS: dict[str, Bug] = {
    "an ended drop keeps what it has": Bug(
        "an ended drop has units",
        [(Promotions, "_give_back", _keep_what_is_left)],
        focus="drops",
    ),
    "whoever has entered a draw may buy": Bug(
        "was not drawn",
        [(drawing, "luck", _all_are_lucky)],
        focus="drops",
        found_at=13,
    ),
    "a drop sells before it opens": Bug(
        "before its drop had opened|after its drop had closed",
        [(Tally, "_drop_sells", _drops_always_sell)],
        [("(g.phase == 1 or g.phase == 3)", "g.phase == 3")],
        focus="drops",
        found_at=2,
    ),
    "everybody may hold what others wait for": Bug(
        "held while others wait",
        lua=[("if g.waiting and not offering", "if false and not offering")],
        focus="waiting",
    ),
    "the gate of an empty list stays shut, and no sweep looks": Bug(
        "not at rest: sku:s1: SQL has .* the gate",
        [(Waitlist, "_close", _close_in_sql_alone), (sweep.Sweep, "_set_odd", _set_nothing)],
        focus="waiting",
    ),
    "what is on its way back may be refunded again": Bug(
        "I8|somebody to be divided among",
        [(refunding, "_left", _left_but_for_what_is_back)],
        focus="money",
        found_at=82,
    ),
    "money that is not owed is kept": Bug(
        "I8", [(captures._Capture, "take_and_send_back", _take)], focus="money", found_at=3
    ),
    "each try of a refund has a key of its own": Bug(
        "a refund is pending|refunded: SQL has",
        [(settling.Settling, "refund", _ask_under_a_new_key)],
        theme="replies are lost",
        focus="money",
        found_at=0,
    ),
    "older word of the ledger replaces newer": Bug(
        "told again|not at rest|ledger row|v went back",
        lua=[("if to > g.seq then", "if true then")],
        theme="replies are lost",
    ),
    "an order that is given up keeps its id": Bug(
        "no answer",
        [(orders.Orders, "_once", _keep_the_order_id)],
        theme="requests are given up",
        focus="carts",
        found_at=5,
    ),
    "a request that is given up gives its units back": Bug(
        "has ended, and may be placed",
        [(orders.Orders, "_buy_now", _give_the_units_back)],
        theme="requests are given up",
        focus="money",
        found_at=10,
    ),
}

"""Planted bugs of gates, fences, the ledger, and orders placed from them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any
from unittest import mock

from sqlalchemy import update

from liveroom import bookkeeping, closing, orders, placing
from liveroom.errors import Refused
from liveroom.store import fences, partitions, sweep, tables
from liveroom.store.database import CommitUnknown
from liveroom.store.outline import Outline
from tests.simulation.planting import Bug


def _after(real: Callable[..., Any], change: Callable[[Any], None]) -> Callable[..., Any]:
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        answer = real(*args, **kwargs)
        change(answer)
        return answer

    return wrapped


class _EveryEpoch(dict[int, Any]):
    def get(self, _part: int, _default: Any = None) -> Any:
        return mock.ANY


def _unfenced(books: Any) -> None:
    books.fences = _EveryEpoch()


async def _open_whoever_raised(self: Any, part: int, seen: int) -> None:
    raised = await self._db.write(
        lambda conn: partitions.raise_fence(conn, part, seen=seen, to=seen + 1)
    )
    del raised
    await self._open(part, seen + 1)
    self._epochs[part] = self._opened[part] = seen + 1


async def _end_in_redis_alone(self: Any, part: int) -> Any:
    expired, _ = await self.expire(part, report=500)
    _, stuck = await self._fences.call(part, self._gates.stuck, count=500)
    await self._fences.call(part, self._gates.give_back, [one.hold.id for one in stuck], void=True)
    return expired, []


async def _tell_nobody(
    self: Any, part: int, *, every: bool = False, outline: Outline | None = None
) -> None:
    await self._fences.call(part, self._gates.left, [])


def _level_is_for_ever(self: Any, part: int, asked: Any) -> bool:
    return part in self._level


async def _refuse_unasked(
    self: Any, order: str, buyer: str, content: str, attempt: Any, *, again: bool = False
) -> Any:
    return await attempt()


_real_place = orders.Orders._place


async def _answer_before_commit(self: Any, wishes: Any) -> Any:
    def decide(conn: Any) -> Any:
        plan = placing.decide(wishes, placing.read_books(conn, wishes), self._pay_within_ms)
        return plan.answers

    answers = await self._db.read(decide)
    task = asyncio.ensure_future(_real_place(self, wishes))
    task.add_done_callback(lambda done: done.cancelled() or done.exception())
    return answers


async def _unknown_is_refused(
    self: Any, wishes: Any, unknown: CommitUnknown, began_s: float
) -> Any:
    await self._inventory.release([hold.id for wish in wishes for hold in wish.holds])
    return [Refused("sold_out")] * len(wishes)


def _set_without_looking(conn: Any, at: int, rows: Any, state: str) -> None:
    for row in rows:
        this = tables.orders.c.id == row.id
        conn.execute(update(tables.orders).where(this).values(state=state, changed_at=at))


def _finish_whatever_it_is(conn: Any, ids: Any) -> Any:
    after = bookkeeping.After(at=closing.now_ms(conn))
    rows = conn.execute(bookkeeping.LOCKED_ORDERS, {"ids": sorted(ids)}).all()
    lines = placing.lines_of(conn, [row.id for row in rows])
    moves = [
        bookkeeping.Move(line.pool, "release", row.id, reserved=-line.qty)
        for row in rows
        for line in lines[row.id]
    ]
    after.told = bookkeeping.move_stock(conn, after.at, moves)
    _set_without_looking(conn, after.at, rows, "cancelled")
    return after


STOCK_BUGS: dict[str, Bug] = {
    "place does not look at void holds": Bug(
        "is void and was placed",
        [(placing, "_void_among", lambda *_: set())],
        theme="processes stop for a while",
        focus="stock",
        found_at=1,
    ),
    "place does not look at the fence": Bug(
        "broken_holds|held of|no gate has said|less than",
        [(placing, "read_books", _after(placing.read_books, _unfenced))],
        theme="Redis comes and goes",
        focus="money",
        found_at=5,
    ),
    "a hold past due ends in Redis alone": Bug(
        "broken_holds|held of|no gate has said|less than",
        [(sweep.Sweep, "end_due", _end_in_redis_alone)],
        theme="processes stop for a while",
        focus="stock",
        found_at=85,
    ),
    "whoever comes second opens the fence as well": Bug(
        "mending_failed|Shut|ledger row|v went back|held of|broken_holds|false sold_out|less than",
        [(fences.Fences, "_rebuild", _open_whoever_raised)],
        [
            ("local stale = fence[1] and tonumber(fence[1]) >= epoch", "local stale = false"),
            ("if fence[1] and tonumber(fence[1]) >= epoch then", "if false then"),
        ],
        theme="Redis comes and goes",
        found_at=3,
    ),
    "the run of Redis is not looked at": Bug(
        "v went back|ledger row|broken_holds|held of|less than",
        lua=[("fence[2] == run", "fence[2] ~= nil")],
        theme="Redis comes and goes",
        focus="stock",
        found_at=0,
    ),
    "what is told too early is applied": Bug(
        "held of|not at rest|false sold_out|ledger row",
        lua=[("elseif from > g.seq + 1 then", "elseif false then")],
        theme="all is slow",
        focus="stock",
        found_at=19,
    ),
    "an untold commit is never told": Bug(
        # A sweep fails where it asks again and again for a hold whose range waits for another.
        "not at rest|too late|sweep.failed",
        [(sweep.Sweep, "tell_lacking", _tell_nobody)],
        theme="processes are killed",
        focus="stock",
        found_at=2,
    ),
    "what was level once is never looked at again": Bug(
        "not at rest|too late",
        [(sweep.Sweep, "_may_pass_over", _level_is_for_ever)],
        theme="all is slow",
        focus="stock",
        found_at=47,
    ),
    "an order id is refused before SQL was asked": Bug(
        "is there and was told",
        [(orders.Orders, "_once", _refuse_unasked)],
        theme="requests are given up",
        focus="carts",
        found_at=11,
    ),
    "an order is answered before its commit": Bug(
        "was told ok and is not there", [(orders.Orders, "_place", _answer_before_commit)]
    ),
    "an unknown commit is taken for none": Bug(
        "more than what is free|is there and was told|broken_holds|has ended, and may be placed|is lost|held of",
        [(orders.Orders, "_read_back", _unknown_is_refused)],
        theme="replies are lost",
        focus="stock",
        found_at=1,
    ),
    "a cancelled order gives its units back again": Bug(
        "I1|I2|I4|I7|CHECK constraint", [(closing, "finish_closing", _finish_whatever_it_is)]
    ),
    "the price that was shown is not compared": Bug(
        "not the price that was shown",
        lua=[("(seen and seen ~= g.price)", "(seen and false)")],
        focus="prices",
        found_at=1,
    ),
    "only the first line must be in stock": Bug(
        "held of|broken_holds",
        lua=[
            (
                "no = no or not lines[i][FOUND] and short",
                "no = no or i == 1 and not lines[i][FOUND] and short",
            )
        ],
        theme="processes are killed",
        focus="stock",
        found_at=1,
    ),
    "two orders share what a cart has in two partitions": Bug(
        "one cart of",
        lua=[("if not spent[h[ORDER]] then", "if false then")],
        focus="carts",
        found_at=70,
    ),
    "a checkout that is past due gives its cart back": Bug(
        "is void and back in its cart",
        lua=[("(not h[SHARED] and h[DUE] > now)", "true")],
        focus="carts",
        found_at=10,
    ),
    "an older price replaces a newer one": Bug(
        "the gate asks",
        lua=[("version >= (g.price_v or 0)", "true")],
        theme="replies are lost",
        focus="prices",
        found_at=2,
    ),
}

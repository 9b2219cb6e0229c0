"""Planted bugs: what somebody might well write instead. The simulation must find each.

A bug is a change of the house's own code, in Python or in Lua, that leaves everything else as
it is. A gate that finds none of these would find none of ours.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple
from unittest import mock

from sqlalchemy import update

from liveroom import bookkeeping, closing, orders, placing
from liveroom.errors import Refused
from liveroom.store import fences, ledger, sweep, tables
from liveroom.store.database import CommitUnknown
from liveroom.store.scripts import LUA


class Bug(NamedTuple):
    """A change of the code: patches, and replacements in the text of Lua scripts.

    `theme` is what must go wrong for it to show (None: whatever the seed says), `found_at` a
    seed that has found it: where to begin looking.
    """

    patches: Sequence[tuple[Any, str, Any]] = ()
    lua: Sequence[tuple[str, str]] = ()
    theme: str | None = None
    found_at: int = 0

    @contextmanager
    def planted(self) -> Iterator[None]:
        """The code with the bug in it."""
        for text, _ in self.lua:
            assert any(text in part.read_text() for part in LUA.rglob("*.lua")), f"no {text!r}"
        with ExitStack() as stack:
            for patch in self.patches:
                stack.enter_context(mock.patch.object(*patch))
            yield


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
        lambda conn: ledger.raise_fence(conn, part, seen=seen, to=seen + 1)
    )
    del raised
    await self._open(part, seen + 1)
    self._epochs[part] = self._opened[part] = seen + 1


async def _end_in_redis_alone(self: Any, part: int) -> Any:
    expired = await self.expire(part, report=500)
    _, stuck = await self._fences.call(part, self._gates.stuck, count=500)
    await self._fences.call(part, self._gates.give_back, [one.hold.id for one in stuck], void=True)
    return expired, []


async def _tell_nobody(self: Any, part: int, *, every: bool = False) -> None:
    await self._fences.call(part, self._gates.left, [])


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
    self: Any, wishes: Any, _unknown: CommitUnknown, _began: float
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


BUGS: dict[str, Bug] = {
    "place does not look at void holds": Bug(
        [(placing, "_void_among", lambda *_: set())], found_at=13
    ),
    "place does not look at the fence": Bug(
        [(placing, "read_books", _after(placing.read_books, _unfenced))],
        theme="Redis comes and goes",
        found_at=32,
    ),
    "a hold past due ends in Redis alone": Bug(
        [(sweep.Sweep, "end_due", _end_in_redis_alone)], theme="all is slow", found_at=34
    ),
    "whoever comes second opens the fence as well": Bug(
        [(fences.Fences, "_rebuild", _open_whoever_raised)],
        [
            ("local stale = fence[1] and tonumber(fence[1]) >= epoch", "local stale = false"),
            ("if fence[1] and tonumber(fence[1]) >= epoch then", "if false then"),
        ],
        theme="Redis comes and goes",
        found_at=3,
    ),
    "the run of Redis is not looked at": Bug(
        lua=[("fence[2] == run", "fence[2] ~= nil")], theme="Redis comes and goes", found_at=16
    ),
    "what is told too early is applied": Bug(
        lua=[("elseif from > g.seq + 1 then", "elseif false then")]
    ),
    "an untold commit is never told": Bug([(sweep.Sweep, "tell_lacking", _tell_nobody)]),
    "an order id is refused before SQL was asked": Bug(
        [(orders.Orders, "_once", _refuse_unasked)], theme="replies are lost", found_at=3
    ),
    "an order is answered before its commit": Bug(
        [(orders.Orders, "_place", _answer_before_commit)]
    ),
    "an unknown commit is taken for none": Bug(
        [(orders.Orders, "_read_back", _unknown_is_refused)], theme="replies are lost", found_at=49
    ),
    "a cancelled order gives its units back again": Bug(
        [(closing, "finish_closing", _finish_whatever_it_is)]
    ),
    "the price that was shown is not compared": Bug(
        lua=[("(seen and seen ~= g.price)", "(seen and false)")], found_at=1
    ),
    "only the first line must be in stock": Bug(
        lua=[
            (
                "no = no or not lines[i][FOUND] and short",
                "no = no or i == 1 and not lines[i][FOUND] and short",
            )
        ],
        theme="processes are killed",
        found_at=26,
    ),
}

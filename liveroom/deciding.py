"""Whether an order can be placed: a batch of them is decided in memory, in order of arrival.

Pure: what SQL said goes in, what is to be written and answered comes out (`placing.py` reads
and writes). Nothing here does I/O, and nothing here trusts Redis: a hold of another epoch, a
void one or one beyond the stock of SQL is refused, whoever issued it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any, NamedTuple

import msgspec

from liveroom import shapes
from liveroom.errors import Invalid, LiveroomError, Refused, Unavailable
from liveroom.inventory import Hold, Told
from liveroom.money import AMOUNT_MAX


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """An order that somebody wants, with the `placing` holds it stands on."""

    order: str
    buyer: str
    room: str
    content: str
    buy_now: bool
    holds: list[Hold]


class DropRow(NamedTuple):
    """A drop's row, read after its pool was locked."""

    room: str
    state: str
    limit: int | None


class Pool(NamedTuple):
    """A pool's row, as it was when the batch locked it."""

    sku: str
    partition: int
    available: int
    seq: int
    limit: int | None
    currency: str
    drop: DropRow | None = None


class Known(NamedTuple):
    """An order that is there already: whose, of what content, and its first answer."""

    buyer: str
    content: str
    answer: shapes.Order
    holds: frozenset[str]


class Books(msgspec.Struct, kw_only=True):
    """What SQL said, read under the locks of the batch."""

    now_ms: int
    fences: dict[int, int]
    rooms: dict[str, tuple[str, bool]]
    pools: dict[str, Pool]
    known: dict[str, Known]
    void: set[str]
    taken: dict[tuple[str, str], int]


class Plan(msgspec.Struct, kw_only=True):
    """What a batch comes to: an answer for each wish, in order, and the rows that make it true.

    `orders`, `lines` and `ledger` are rows of their tables, a value for each column in order.
    `told` is what Redis must hear after the commit; `ended` names holds that serve nobody
    now, `returned` those that go back to their cart because their order was there before (a
    refused checkout gives its own back); `broken` counts holds of the present fence for which
    SQL had no stock.
    """

    at: int
    answers: list[shapes.Order | LiveroomError] = []
    orders: list[tuple[Any, ...]] = []
    lines: list[tuple[Any, ...]] = []
    ledger: list[tuple[Any, ...]] = []
    pools: list[dict[str, Any]] = []
    taken: dict[tuple[str, str], int] = {}
    void: list[str] = []
    ended: list[str] = []
    returned: list[str] = []
    placed: list[tuple[str, shapes.Order]] = []
    told: list[Told] = []
    broken: int = 0


def order_of(
    row: Any,
    lines: Iterable[Any],
    state: str | None = None,
    refunds: Sequence[shapes.Refund] = (),
) -> shapes.Order:
    """The order of a row of `orders` and its rows of `order_lines`, in order of line.

    With `state` "placed" it is the first answer, whatever came after: every other field
    stands in columns that never change.
    """
    return shapes.Order(
        id=row.id,
        state=row.state if state is None else state,
        room=row.room,
        lines=[
            shapes.OrderLine(
                sku=line.sku, qty=line.qty, price_minor=line.price_minor, drop=line.drop
            )
            for line in lines
        ],
        total_minor=row.total_minor,
        currency=row.currency,
        placed_at=row.placed_at,
        pay_by=row.pay_by,
        refunds=list(refunds),
    )


def first_answer(known: Known, buyer: str, content: str) -> shapes.Order | Invalid:
    """What a repeated order id gets: its first answer, or `id_reused`."""
    if known.buyer == buyer and known.content == content:
        return known.answer
    return Invalid("id_reused")


# ── the decision ──────────────────────────────────────────────────────────────────────────


class Tally:
    """What the batch has used up so far, beside the books that never change."""

    def __init__(self, books: Books) -> None:
        self.books = books
        self.known = dict(books.known)
        self.void = set(books.void)
        self.taken = dict(books.taken)
        self.holds: set[str] = set()
        self.free = {pool: row.available for pool, row in books.pools.items()}
        self.seq = {pool: row.seq for pool, row in books.pools.items()}
        self.ends: dict[str, list[str]] = {}

    def refusal(self, wish: Wish) -> LiveroomError | None:
        """Why the wish cannot be met, in the fixed order of refusals."""
        unfit = self._unfenced(wish) or self._too_dear(wish)
        return unfit or self._not_open(wish) or self._short(wish)

    def refusal_of_stock(self, wish: Wish) -> LiveroomError | None:
        """Why the holds themselves cannot be placed, whatever the room's state."""
        return self._unfenced(wish) or self._short(wish)

    def _unfenced(self, wish: Wish) -> LiveroomError | None:
        books = self.books
        currencies = set()
        for hold in wish.holds:
            pool = books.pools.get(hold.pool)
            if pool is None or not _is_sold_as(pool, hold, wish.room):
                return Invalid("not_found", data={"sku": hold.sku})
            if books.fences.get(pool.partition) != hold.epoch:
                return Unavailable("rebuilding")
            if hold.id in self.void or hold.id in self.holds:
                return Refused("hold_expired")
            currencies.add(pool.currency)
        if len(currencies) > 1:
            return Invalid("bad_argument", "One order is in one currency.")
        return None

    def _too_dear(self, wish: Wish) -> LiveroomError | None:
        """No payment is of more, and sums beyond it are not exact in every client."""
        if sum(hold.qty * hold.price_minor for hold in wish.holds) > AMOUNT_MAX:
            return Invalid("bad_argument", "One order comes to too much.")
        return None

    def _not_open(self, wish: Wish) -> LiveroomError | None:
        room = self.books.rooms.get(wish.room)
        if room is None:
            return Invalid("not_found")
        state, paused = room
        if wish.buy_now and state != "live":
            return Refused("not_open")
        if paused:
            return Refused("sale_paused")
        return next(
            (
                Refused("not_open", data={"sku": hold.sku, "drop": hold.drop})
                for hold in wish.holds
                if not self._drop_sells(hold, buy_now=wish.buy_now)
            ),
            None,
        )

    def _drop_sells(self, hold: Hold, *, buy_now: bool) -> bool:
        """Whether the hold's drop is open; what a cart held while it was is sold after it too."""
        drop = self.books.pools[hold.pool].drop
        if drop is None or drop.state == "open":
            return True
        return drop.state == "closed" and not buy_now

    def _short(self, wish: Wish) -> LiveroomError | None:
        wanted: dict[str, int] = {}
        for hold in wish.holds:  # the same SKU on two lines must fit as one
            wanted[hold.pool] = wanted.get(hold.pool, 0) + hold.qty
        for hold in wish.holds:
            limit = self.books.pools[hold.pool].limit
            taken = self.taken.get((hold.pool, wish.buyer), 0)
            if limit is not None and taken + wanted[hold.pool] > limit:
                return Refused("limit_reached", data={"sku": hold.sku, "limit": limit})
        for hold in wish.holds:
            if self.free[hold.pool] < wanted[hold.pool]:
                return Refused("sold_out", data={"sku": hold.sku, "left": self.free[hold.pool]})
        return None


def _is_sold_as(pool: Pool, hold: Hold, room: str) -> bool:
    """Whether the pool is of the hold's SKU, and its drop, if it is one, of the order's room."""
    return pool.sku == hold.sku and (pool.drop is None or pool.drop.room == room)


def decide(wishes: Sequence[Wish], books: Books, pay_within_ms: int) -> Plan:
    """Decide each wish in order of arrival. Pure: `books` stays as it was.

    A buy-now's holds that come to nothing are made void in the same transaction, before Redis
    ends them, so that no other request that shares them can be placed.
    """
    plan = Plan(at=books.now_ms)
    tally = Tally(books)
    for wish in wishes:
        plan.answers.append(_decide_one(wish, tally, plan, pay_within_ms))
    for pool, ends in tally.ends.items():
        row, free, seq = books.pools[pool], tally.free[pool], tally.seq[pool]
        plan.pools.append(
            {"b_pool": pool, "b_seq": row.seq, "units": row.available - free, "rows": seq - row.seq}
        )
        plan.told.append(
            Told(pool=pool, from_seq=row.seq + 1, to_seq=seq, available_after=free, holds=ends)
        )
    return plan


def _decide_one(
    wish: Wish, tally: Tally, plan: Plan, pay_within_ms: int
) -> shapes.Order | LiveroomError:
    known = tally.known.get(wish.order)
    if known is not None:
        _put_away(wish, known.holds | tally.holds, tally, plan)
        return first_answer(known, wish.buyer, wish.content)
    refusal = tally.refusal(wish)
    if refusal is not None:
        plan.broken += refusal.code == "sold_out"
        _put_away(wish, tally.holds, tally, plan)
        return refusal
    # From here on it must succeed.
    answer = _write_down(wish, tally, plan, pay_within_ms)
    holds = frozenset(hold.id for hold in wish.holds)
    tally.known[wish.order] = Known(wish.buyer, wish.content, answer, holds)
    plan.placed.append((wish.buyer, answer))
    return answer


def _put_away(wish: Wish, used: Collection[str], tally: Tally, plan: Plan) -> None:
    """The holds of this wish serve nobody, other than those that are `used`."""
    unused = [hold.id for hold in wish.holds if hold.id not in used]
    if not wish.buy_now:
        plan.returned += unused if wish.order in tally.known else []
        return
    plan.void += [hold for hold in unused if hold not in tally.void]
    plan.ended += unused
    tally.void.update(unused)


def _write_down(wish: Wish, tally: Tally, plan: Plan, pay_within_ms: int) -> shapes.Order:
    at = plan.at
    holds = sorted(wish.holds, key=lambda hold: (hold.sku, hold.drop or ""))
    lines = []
    for number, hold in enumerate(holds):
        pool, qty = hold.pool, hold.qty
        lines.append(
            shapes.OrderLine(sku=hold.sku, qty=qty, price_minor=hold.price_minor, drop=hold.drop)
        )
        tally.holds.add(hold.id)
        tally.free[pool] -= qty
        tally.seq[pool] += 1
        tally.ends.setdefault(pool, []).append(hold.id)
        taken = (pool, wish.buyer)
        tally.taken[taken] = tally.taken.get(taken, 0) + qty
        plan.taken[taken] = plan.taken.get(taken, 0) + qty
        plan.lines.append(
            (
                wish.order,
                number,
                pool,
                hold.sku,
                hold.drop,
                qty,
                hold.price_minor,
                hold.id,
                hold.bucket,
                0,
                0,
            )
        )
        free, seq = tally.free[pool], tally.seq[pool]
        plan.ledger.append(
            (pool, seq, at, "reserve", 0, qty, 0, free, wish.order, hold.id, None, None)
        )
    answer = shapes.Order(
        id=wish.order,
        state="placed",
        room=wish.room,
        lines=lines,
        total_minor=sum(line.qty * line.price_minor for line in lines),
        currency=tally.books.pools[holds[0].pool].currency,
        placed_at=at,
        pay_by=at + pay_within_ms,
    )
    plan.orders.append(
        (
            wish.order,
            wish.room,
            wish.buyer,
            "placed",
            wish.content,
            answer.total_minor,
            answer.currency,
            at,
            answer.pay_by,
            at,
        )
    )
    return answer

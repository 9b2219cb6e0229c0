"""Holds in the words of the house: what is asked for, what is granted, why it is not.

Nothing here does I/O. `liveroom.inventory` hands these out again; services import them there.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Final, Literal

import msgspec

from liveroom.buckets import UNATTRIBUTED
from liveroom.clock import Clock
from liveroom.errors import Invalid, LiveroomError, ensure, error
from liveroom.store.gates import (
    Granted,
    Held,
    HoldRow,
    LineRow,
    NotHeld,
    RequestRow,
    hold_id,
    part_of,
)
from liveroom.store.partitions import of_sku

SKEW_MS: Final = 50
"""How far two clocks may drift apart before deadlines are shown anew."""


class HoldLineRequest(msgspec.Struct, kw_only=True):
    """So many units of one pool, at the price the buyer saw (None: whatever it is).

    `bucket` is what a sale of them is owed to; a hold that is there already keeps its own.
    """

    pool: str
    sku: str
    qty: int
    drop: str | None = None
    price_minor: int | None = None
    bucket: str = UNATTRIBUTED


class HoldRequest(msgspec.Struct, kw_only=True):
    """All these lines for one buyer in one room, or none.

    `key` makes it happen once while its holds are open: the order's id for "placing" (buy
    now), the cart operation's for "held". `again` marks a buyer's retry, which is never
    answered from memory.
    """

    buyer: str
    room: str
    key: str
    lines: Sequence[HoldLineRequest]
    kind: str
    again: bool = False


class Hold(msgspec.Struct, kw_only=True):
    """Units of one pool that nobody else can have until `due`.

    For "held", `due` is when it expires, in milliseconds on the house's clock; "placing" ones
    must be placed by then. Only SQL may place a hold, and only under its fence `epoch`.
    """

    id: str
    pool: str
    sku: str
    buyer: str
    room: str
    qty: int
    price_minor: int
    state: str
    due: int
    epoch: int
    drop: str | None = None
    bucket: str = UNATTRIBUTED


class Told(msgspec.Struct, kw_only=True):
    """What a commit did to a pool: its ledger rows `from_seq` to `to_seq`, which end `holds`."""

    pool: str
    from_seq: int
    to_seq: int
    available_after: int
    holds: Sequence[str] = ()


class Swept(msgspec.Struct):
    """What a sweep ended: cart holds past their time (their buyers must be told), void ones."""

    expired: list[Hold]
    void: list[Hold]


class Deadlines:
    """Moves deadlines from the clock of Redis to the house's, where everybody is shown them.

    All move by the same amount until the two clocks have drifted apart.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._skew_ms = 0
        self._seen_ms = 0

    def holds(self, held: Held, epoch: int) -> list[Hold]:
        """These holds, made under this fence epoch."""
        self._compare(held.now_ms)
        return [self.hold(row, epoch) for row in held.holds]

    def hold(self, row: HoldRow, epoch: int) -> Hold:
        """This hold, made under this fence epoch."""
        return Hold(
            id=row.id,
            pool=row.pool,
            sku=row.sku,
            buyer=row.buyer,
            room=row.room,
            qty=row.qty,
            price_minor=row.price,
            state=row.state,
            due=row.due + self._skew_ms,
            epoch=epoch,
            drop=row.drop or None,
            bucket=row.bucket or UNATTRIBUTED,
        )

    def granted(self, answer: Granted, row: RequestRow, epoch: int) -> list[Hold]:
        """What a request was granted, a hold for each of its lines."""
        self._compare(answer.now_ms)
        return [
            Hold(
                id=grant.id,
                pool=line.pool,
                sku=line.sku,
                buyer=row.buyer,
                room=row.room,
                qty=grant.qty,
                price_minor=grant.price,
                state=grant.state,
                due=grant.due + self._skew_ms,
                epoch=epoch,
                drop=line.drop or None,
                bucket=grant.bucket or UNATTRIBUTED,
            )
            for line, grant in zip(row.lines, answer.grants, strict=True)
        ]

    def _compare(self, redis_ms: int) -> None:
        if redis_ms == self._seen_ms:  # the answers of one batch
            return
        self._seen_ms = redis_ms
        skew = self._clock.now_ms() - redis_ms
        if abs(skew - self._skew_ms) > SKEW_MS:
            self._skew_ms = skew


def by_part(holds: Iterable[str]) -> dict[int, list[str]]:
    """Holds by the partitions their ids name, in order of partition."""
    parts: dict[int, list[str]] = defaultdict(list)
    for hold in holds:
        parts[part_of(hold)].append(hold)
    return dict(sorted(parts.items()))


def by_partition(request: HoldRequest, partitions: int) -> dict[int, RequestRow]:
    """The request of each partition; the lines of one pool are one line."""
    ensure(request.kind in ("held", "placing"), "a hold begins held or placing")
    if len(request.lines) == 1:  # as most are, in a burst
        [line] = request.lines
        part = of_sku(line.sku, partitions) if partitions > 1 else 0
        lone = [_row(request, line, part)]
        return {part: RequestRow(request.buyer, request.room, _cart(request), lone)}
    rows: dict[int, RequestRow] = {}
    places: dict[str, tuple[list[LineRow], int]] = {}
    for line in request.lines:
        part = of_sku(line.sku, partitions) if partitions > 1 else 0
        if part not in rows:
            rows[part] = RequestRow(request.buyer, request.room, _cart(request), [])
        lines = rows[part].lines
        if line.pool in places:
            same, at = places[line.pool]
            same[at] = _merged(same[at], line)
            continue
        places[line.pool] = lines, len(lines)
        lines.append(_row(request, line, part))
    ensure(rows, "a request has lines")
    return rows


def _cart(request: HoldRequest) -> str | Literal[False]:
    return request.kind == "held" and f"{request.room}/{request.buyer}"


def _row(request: HoldRequest, line: HoldLineRequest, part: int) -> LineRow:
    ensure(line.qty > 0, "a line has units")
    key = f"{request.kind}:{request.key}/{line.pool}"
    price = False if line.price_minor is None else line.price_minor
    drop: str | Literal[False] = line.drop or False
    return LineRow(hold_id(part), line.pool, line.sku, drop, key, line.qty, price, line.bucket)


def _merged(row: LineRow, line: HoldLineRequest) -> LineRow:
    price = row.price if line.price_minor is None else line.price_minor
    return row._replace(qty=row.qty + line.qty, price=price)


def refusal(answer: NotHeld, row: RequestRow) -> LiveroomError:
    """The error a word of Lua stands for, about the line it names."""
    sku = next(line.sku for line in row.lines if line.pool == answer.pool)
    if answer.word == "busy":
        return Invalid("illegal_transition", "This line is being ordered.", data={"sku": sku})
    about = {"sold_out": "left", "price_changed": "price_minor"}.get(answer.word)
    return error(answer.word, data={"sku": sku} | ({about: answer.number} if about else {}))

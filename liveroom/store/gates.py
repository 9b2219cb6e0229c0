"""The stock of a partition in Redis: each script of `lua/stock_*.lua` as one call.

How a call is fenced, and what it raises where Redis is not open, is in `fenced.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from enum import IntEnum
from typing import Any, Final, Literal, NamedTuple

import msgspec

from liveroom.ids import new_id
from liveroom.store.fenced import Fenced, opened
from liveroom.store.scripts import Client, Script, pack, unpack

PLACING_MS: Final = 5_000
"""How long a hold may be placing before the sweep asks SQL what became of it."""


class Phase(IntEnum):
    """What a gate is to its buyers; it only goes up. Only the house takes from a shut drop."""

    ORDINARY = 0
    SCHEDULED = 1
    OPEN = 2
    ENDED = 3


class HoldRow(NamedTuple):
    """A hold as Redis keeps it, in this order; times are on the clock of Redis.

    What a hold does not have is False. `till` is its deadline in a cart. A hold that an older
    release made has no bucket.
    """

    id: str
    pool: str
    sku: str
    drop: str | Literal[False]
    buyer: str
    room: str
    qty: int
    price: int
    state: str
    due: int
    till: int | Literal[False]
    keys: list[str]
    order: str | Literal[False]
    shared: bool
    counted: bool
    bucket: str | Literal[False] = False


class LineRow(NamedTuple):
    """One line of a request; `key` makes it happen once, `price` is what the buyer saw.

    What it does not have is False: a nil would be a hole in Lua's array.
    """

    id: str
    pool: str
    sku: str
    drop: str | Literal[False]
    key: str
    qty: int
    price: int | Literal[False]
    bucket: str


class RequestRow(NamedTuple):
    """A request for holds of one partition, in a cart or to be placed at once (False).

    Its lines are of different pools.
    """

    buyer: str
    room: str
    cart: str | Literal[False]
    lines: list[LineRow]


class GateRow(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What opens a gate, read from SQL in one snapshot."""

    pool: str
    base: int
    seq: int
    price: int
    price_v: int = 0
    limit: int | None = None
    phase: int = Phase.ORDINARY
    waiting: bool = False


class SetRow(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What a gate asks from now on; a limit of 0 is none.

    `price_v` grows with each change of the price: an older one never replaces a newer one.
    """

    pool: str
    price: int | None = None
    price_v: int = 0
    limit: int | None = None
    phase: int | None = None
    waiting: bool | None = None


class Grant(NamedTuple):
    """What a line of a request got."""

    id: str
    qty: int
    price: int
    state: str
    due: int
    bucket: str | Literal[False]


class Granted(NamedTuple):
    """A grant for each line of a request, in order, on the clock of Redis at `now_ms`."""

    now_ms: int
    grants: list[Grant]


class Held(NamedTuple):
    """Holds, on the clock of Redis at `now_ms`."""

    now_ms: int
    holds: list[HoldRow]


class Busy(NamedTuple):
    """Another order is taking the cart, or has taken it."""

    order: str


class NotHeld(NamedTuple):
    """Why a request got nothing: Lua's word, the pool, and what the word is about."""

    word: str
    pool: str
    number: int = 0
    memorable: bool = False


class Left(NamedTuple):
    """A gate as others may see it; a limit of 0 is none."""

    left: int
    v: int
    seq: int
    price: int
    limit: int
    phase: int
    waiting: bool


class Range(NamedTuple):
    """Ledger rows of one pool: the sequence of the first and the last, and what they end."""

    pool: str
    from_seq: int
    to_seq: int
    available_after: int
    holds: Sequence[str]


class Count(NamedTuple):
    """What a buyer's orders have taken of a pool, read at a place of its ledger."""

    pool: str
    buyer: str
    seq: int
    units: int


class Expired(NamedTuple):
    """How many cart holds ended, those whose buyers must be told, and whether any are `Stuck`."""

    ended: int
    told: list[HoldRow]
    is_stuck: bool


class Stuck(NamedTuple):
    """A placing hold past due, and the ledger row its gate stood on while it was open."""

    hold: HoldRow
    seq: int


class GateState(msgspec.Struct, kw_only=True):
    """A gate as Redis keeps it."""

    base: int
    seq: int
    held: int
    n: int
    price: int
    price_v: int = 0
    limit: int | None = None
    phase: int = Phase.ORDINARY
    waiting: bool = False


class Inspection(NamedTuple):
    """A partition at one instant, for the audit."""

    gates: dict[str, GateState]
    holds: list[HoldRow]
    waiting: list[str]
    open_holds: int
    now_ms: int


class Gates(Fenced):
    """The gates of all partitions in one Redis."""

    def __init__(self, client: Client, *, held_ms: int, placing_ms: int = PLACING_MS) -> None:
        super().__init__(client)
        self._held_ms = held_ms
        self._placing_ms = placing_ms

    async def hold(
        self, part: int, epoch: int, requests: Sequence[RequestRow]
    ) -> list[Granted | NotHeld]:
        """An answer for each request, in order; one call for all of them."""
        args = self._held_ms, self._placing_ms, _flat(requests)
        now, answers = await self._call(_HOLD, part, epoch, *args)
        return [_granted(now, answer) for answer in answers]

    async def offer(
        self, part: int, epoch: int, requests: Sequence[RequestRow]
    ) -> list[Granted | NotHeld]:
        """The same for those who wait, each for one line: what there is, up to what it asked.

        From then on nobody else may hold of these pools, until `set` says that nobody waits.
        """
        now, answers = await self._call(_OFFER, part, epoch, self._held_ms, _flat(requests))
        return [_granted(now, answer) for answer in answers]

    async def place(
        self, part: int, epoch: int, cart: str, order: str, spent: Sequence[str] = ()
    ) -> Held | Busy | None:
        """The holds of a cart, placing for this order now; None where one of them is due.

        What the `spent` orders have taken of it is no part of it any more.
        """
        args = self._placing_ms, cart, order, pack(list(spent))
        now, *rest = await self._call(_PLACE, part, epoch, *args)
        if not rest:
            return None
        return Busy(rest[0]) if isinstance(rest[0], str) else Held(now, _holds(rest[0]))

    async def cart(self, part: int, epoch: int, cart: str) -> Held:
        """The holds of a cart that are neither due nor placing."""
        [held] = await self.carts(part, epoch, [cart])
        return held

    async def carts(self, part: int, epoch: int, carts: Sequence[str]) -> list[Held]:
        """The same for each of many carts, in order; one call for all of them."""
        now, found = await self._call(_CART, part, epoch, pack(list(carts)))
        return [Held(now, _holds(rows)) for rows in found]

    async def release(
        self, part: int, epoch: int, holds: Iterable[str], *, state: str = "", void: bool = False
    ) -> list[HoldRow]:
        """Those of the holds that ended; with `state` only what is in it ends."""
        want = pack([[hold, state, void] for hold in holds])
        _, rows = await self._call(_RELEASE, part, epoch, want)
        return _holds(rows)

    async def give_back(
        self, part: int, epoch: int, holds: Iterable[str], *, void: bool = False
    ) -> Held:
        """Those of the placing holds that are in their carts again; void ones under new ids."""
        want = pack([[hold, hold_id(part) if void else hold, void] for hold in holds])
        now, rows = await self._call(_RETURN, part, epoch, want)
        return Held(now, _holds(rows))

    async def tell(
        self, part: int, epoch: int, ranges: Sequence[Range], counts: Sequence[Count] = ()
    ) -> tuple[list[str], list[str]]:
        """Tell ledger ranges, and what their buyers have taken, in one step.

        Returns:
            The pools among them with a limit, and those without a gate.
        """
        want = pack([[*told[:4], list(told.holds)] for told in ranges])
        _, limited, missing = await self._call(_TELL, part, epoch, want, pack(counts))
        return list(limited), list(missing)

    async def expire(self, part: int, epoch: int, *, count: int, report: int) -> Expired:
        """End cart holds past their deadline, at most `count`, and tell of at most `report`."""
        _, ended, rows, is_stuck = await self._call(_EXPIRE, part, epoch, count, report)
        return Expired(int(ended), _holds(rows), is_stuck)

    async def stuck(self, part: int, epoch: int, *, count: int) -> list[Stuck]:
        """The placing holds past due, the oldest first."""
        _, rows = await self._call(_STUCK, part, epoch, count)
        return [Stuck(_holds([row])[0], seq) for row, seq in rows or []]

    async def left(self, part: int, epoch: int, pools: Sequence[str]) -> dict[str, Left]:
        """The gates of those pools that have one."""
        _, rows = await self._call(_LEFT, part, epoch, pack(list(pools)))
        return {pool: Left(*row) for pool, row in zip(pools, rows, strict=True) if row}

    async def set(self, part: int, epoch: int, settings: Sequence[SetRow]) -> None:
        """Set prices and limits of gates."""
        await self._call(_SET, part, epoch, pack(msgspec.to_builtins(list(settings))))

    async def count(self, part: int, epoch: int, counts: Sequence[Count]) -> None:
        """Tell what buyers' orders have taken; older counts never replace newer ones."""
        await self._call(_COUNT, part, epoch, pack([list(count) for count in counts]))

    async def add(self, part: int, epoch: int, gates: Sequence[GateRow]) -> None:
        """Make gates that are not there."""
        await self._call(_ADD, part, epoch, pack(msgspec.to_builtins(list(gates))))

    async def load(
        self, part: int, epoch: int, gates: Sequence[GateRow], counts: Sequence[Count]
    ) -> None:
        """Write gates of an epoch that is not open yet."""
        packed = pack(msgspec.to_builtins(list(gates))), pack([list(count) for count in counts])
        await self._call(_LOAD, part, epoch, *packed)

    async def inspect(self, part: int, epoch: int) -> Inspection:
        """Every gate and every open hold at one instant."""
        head, *found = await self._ask(_INSPECT, part, epoch)
        now, count = opened(unpack(head), part, epoch)
        gates, holds, *waiting = found
        states = zip(gates[::2], gates[1::2], strict=True)
        return Inspection(
            gates={p.decode(): GateState(**unpack(gate)) for p, gate in states if p != b"#"},
            holds=_holds(map(unpack, holds)),
            waiting=[hold.decode() for ids in waiting for hold in ids],
            open_holds=int(count or 0),
            now_ms=now,
        )


def hold_id(part: int) -> str:
    """A new hold's id; it names its partition."""
    return f"{part}.{new_id()}"


def part_of(hold: str) -> int:
    """The partition a hold's id names."""
    return int(hold.partition(".")[0])


def _scripts(*verbs: str) -> Iterator[Script]:
    return (Script(f"stock_{verb}") for verb in verbs)


_HOLD, _PLACE, _CART, _RELEASE, _RETURN = _scripts("hold", "place", "cart", "release", "return")
_TELL, _EXPIRE, _STUCK, _LEFT, _SET = _scripts("tell", "expire", "stuck", "left", "set")
_COUNT, _ADD, _LOAD, _INSPECT, _OFFER = _scripts("count", "add", "load", "inspect", "offer")


def _holds(rows: Any) -> list[HoldRow]:
    # An empty Lua table may arrive as an empty map.
    return [HoldRow(*row) for row in rows or ()]


def _flat(requests: Sequence[RequestRow]) -> bytes:
    flat: list[Any] = []
    for buyer, room, cart, lines in requests:
        flat += (buyer, room, cart, len(lines))
        for line in lines:
            flat += line
    return pack(flat)


def _granted(now: int, answer: list[Any]) -> Granted | NotHeld:
    if answer[0] == "ok":
        return Granted(now, [Grant(*answer[at : at + 6]) for at in range(1, len(answer), 6)])
    return NotHeld(*answer)

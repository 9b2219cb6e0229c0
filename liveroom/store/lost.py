"""Cart lines that a rebuild has ended, kept until their buyers have heard of it.

A loss of Redis also closes the room's connections, often before a node has found out whose
carts are gone: what is told then reaches nobody. So it waits here for who comes back, on
whatever node, until the line would have been due.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

from liveroom.batching import Batcher
from liveroom.clock import Clock
from liveroom.store import keys
from liveroom.store.holds import Hold
from liveroom.store.scripts import Client, Script, house_error, pack, store_errors, unpack

KEPT_MAX: Final = 200
"""How many lines are kept of one cart."""
BATCH_MAX: Final = 256
WAITING_MAX: Final = 20_000

_KEEP: Final = Script("lost_keep")


class LostLine(NamedTuple):
    """One line as its buyer knew it; `due` is on the house's clock."""

    hold: str
    sku: str
    qty: int
    due: int
    drop: str | None


class LostLines:
    """The lost lines of all carts. Lines that are past due are nowhere."""

    def __init__(self, client: Client, clock: Clock) -> None:
        self._client = client
        self._clock = clock
        self._reading: Batcher[str, list[LostLine]] = Batcher(
            self._read, size_max=BATCH_MAX, waiting_max=WAITING_MAX
        )

    async def keep(self, lines: Iterable[Hold]) -> None:
        """Keep these. May be repeated.

        Raises:
            Unavailable: `store_down`; some may be kept.
        """
        now, carts = self._clock.now_ms(), defaultdict[str, list[Hold]](list)
        for line in lines:
            if line.due > now:
                carts[keys.lost(line.room, line.buyer)].append(line)
        calls = [([cart], _lasting(mine, now)) for cart, mine in carts.items()]
        for answer in await _KEEP.each(self._client, calls) if calls else []:
            if isinstance(answer, Exception):
                raise answer

    async def of(self, buyer: str, room: str) -> list[LostLine]:
        """What was lost of this cart and is not yet `told`; asked for many buyers at once.

        Raises:
            Unavailable: `store_down`, `overloaded`.
        """
        return await self._reading.submit(keys.lost(room, buyer))

    async def told(self, buyer: str, room: str, lines: Sequence[LostLine]) -> None:
        """The buyer knows of these."""
        with store_errors():
            await self._client.execute_command(
                "SREM", keys.lost(room, buyer), *(pack(line) for line in lines)
            )

    async def _read(self, carts: Sequence[str]) -> list[list[LostLine] | Exception]:
        with store_errors():
            answers = await self._client.answers([(cart, ("SMEMBERS", cart)) for cart in carts])
        now = self._clock.now_ms()
        return [
            house_error(answer) if isinstance(answer, Exception) else _lines(answer, now)
            for answer in answers
        ]


def _lasting(lines: Sequence[Hold], now: int) -> list[Any]:
    lost = [LostLine(line.id, line.sku, line.qty, line.due, line.drop) for line in lines]
    return [max(line.due for line in lost) - now, KEPT_MAX, pack([pack(line) for line in lost])]


def _lines(members: Iterable[bytes], now: int) -> list[LostLine]:
    lines = (LostLine(*unpack(member)) for member in members)
    return sorted((line for line in lines if line.due > now), key=lambda line: line.hold)

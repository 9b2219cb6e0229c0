"""Cart lines that a rebuild has ended, kept until their buyers have heard of it.

A loss of Redis also closes the room's connections, often before a node has found out whose
carts are gone: what is told then reaches nobody. So it waits here for who comes back, on
whatever node, until the line would have been due.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
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
LOOKED_FOR_S: Final = 0.5
"""How long a node believes that nothing is lost: who keeps lines tells of them after that."""

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

    def __init__(
        self, client: Client, clock: Clock, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._client = client
        self._clock = clock
        self._monotonic = monotonic
        self._found = False
        self._looked_s = float("-inf")
        self._looking: Batcher[None, None] = Batcher(
            self._look, size_max=WAITING_MAX, waiting_max=WAITING_MAX
        )
        self._reading: Batcher[str, list[LostLine]] = Batcher(
            self._read, size_max=BATCH_MAX, waiting_max=WAITING_MAX
        )

    async def close(self) -> None:
        """Answer what was asked."""
        await self._looking.close()
        await self._reading.close()

    async def keep(self, lines: Iterable[Hold]) -> None:
        """Keep these. May be repeated. Any node knows of them after `LOOKED_FOR_S`.

        Raises:
            Unavailable: `store_down`; some may be kept.
        """
        now, carts = self._clock.now_ms(), defaultdict[str, list[Hold]](list)
        for line in lines:
            if line.due > now:
                carts[keys.lost(line.room, line.buyer)].append(line)
        if not carts:
            return
        lasts_ms = max(line.due for mine in carts.values() for line in mine) - now
        await _KEEP(self._client, [keys.LOST], [lasts_ms, 1, pack(["any"])])
        calls = [([cart], _lasting(mine, now)) for cart, mine in carts.items()]
        for answer in await _KEEP.each(self._client, calls):
            if isinstance(answer, Exception):
                raise answer

    async def of(self, buyer: str, room: str) -> list[LostLine]:
        """What was lost of this cart and is not yet `told`; asked for many buyers at once.

        Mostly nobody has lost anything: then thousands who return together cost two looks a
        second, not one each.

        Raises:
            Unavailable: `store_down`, `overloaded`.
        """
        if self._monotonic() - self._looked_s >= LOOKED_FOR_S:
            await self._looking.submit(None)
        if not self._found:
            return []
        return await self._reading.submit(keys.lost(room, buyer))

    async def told(self, buyer: str, room: str, lines: Sequence[LostLine]) -> None:
        """The buyer knows of these."""
        with store_errors():
            await self._client.execute_command(
                "SREM", keys.lost(room, buyer), *(pack(line) for line in lines)
            )

    async def _look(self, asked: Sequence[None]) -> Sequence[None]:
        began_s = self._monotonic()
        with store_errors():
            self._found = bool(await self._client.execute_command("EXISTS", keys.LOST))
        self._looked_s = began_s
        return asked

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

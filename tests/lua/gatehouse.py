"""An open partition in a real Valkey, for tables of before, call, word, after."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Self

from liveroom.store import scripts
from liveroom.store.gates import GateRow, Gates, Granted, LineRow, NotHeld, RequestRow, hold_id

EPOCH = 3


def request(
    key: str,
    *lines: tuple[str, int] | tuple[str, int, int],
    kind: str = "placing",
    buyer: str = "ann",
    bucket: str = "mia///",
) -> RequestRow:
    """A request of lines (pool, qty, price the buyer saw)."""
    rows = [
        LineRow(
            *(hold_id(0), pool, pool, False, f"{key}/{pool}", qty, seen[0] if seen else False),
            bucket,
        )
        for pool, qty, *seen in lines
    ]
    return RequestRow(buyer, "r", f"r/{buyer}" if kind == "held" else False, rows)


class Gatehouse:
    """Three pools: a has 5 units at 100, b has 2 at 200 and a limit of 1, c has none."""

    def __init__(self, url: str) -> None:
        self.client = scripts.connect(url)
        self.gates = Gates(self.client, held_ms=60_000, placing_ms=60_000)
        self.hasty = Gates(self.client, held_ms=0, placing_ms=0)

    async def __aenter__(self) -> Self:
        await self.gates.load(
            0,
            EPOCH,
            [
                GateRow(pool="a", base=5, seq=10, price=100),
                GateRow(pool="b", base=2, seq=20, price=200, limit=1),
                GateRow(pool="c", base=0, seq=30, price=300),
            ],
            [],
        )
        await self.gates.open(0, EPOCH, gates=3, counts=0)
        return self

    async def __aexit__(self, *_: object) -> None:
        inspected = await self.gates.inspect(0, EPOCH)
        held = dict.fromkeys(inspected.gates, 0)
        for hold in inspected.holds:
            held[hold.pool] += hold.qty
        assert held == {pool: gate.held for pool, gate in inspected.gates.items()}
        assert sorted(hold.id for hold in inspected.holds) == sorted(inspected.waiting)
        assert inspected.open_holds == len(inspected.holds)
        await self.client.aclose()

    async def hold(self, *requests: RequestRow, hasty: bool = False) -> list[Any]:
        gates = self.hasty if hasty else self.gates
        return await gates.hold(0, EPOCH, requests)

    async def take(self, row: RequestRow, *, hasty: bool = False) -> list[str]:
        """The ids of the holds of a request that must succeed."""
        [answer] = await self.hold(row, hasty=hasty)
        assert isinstance(answer, Granted), answer
        return [grant.id for grant in answer.grants]

    async def left(self) -> dict[str, int]:
        gates = await self.gates.left(0, EPOCH, ["a", "b", "c"])
        return {pool: gate.left for pool, gate in gates.items()}

    async def v(self, pool: str) -> int:
        return (await self.gates.left(0, EPOCH, [pool]))[pool].v


def words(answers: Sequence[Granted | NotHeld]) -> list[str]:
    """The word of each answer."""
    return ["ok" if isinstance(answer, Granted) else answer.word for answer in answers]


def inside(url: str, story: Callable[[Gatehouse], Awaitable[None]]) -> None:
    """Run a story in an open partition, and check afterwards that its holds add up."""

    async def told() -> None:
        async with asyncio.timeout(20):
            async with Gatehouse(url) as house:
                await story(house)

    asyncio.run(told())

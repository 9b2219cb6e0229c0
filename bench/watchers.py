"""Viewers who only watch while something else is measured, in a process of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from rich.console import Console

from bench.crew import Boss, Crew
from bench.seat import Seat, join
from bench.target import Target

CONNECTS_AT_ONCE: Final = 50


class Watchers:
    """So many guests in these rooms in turn, from the moment this is made until `leave`."""

    def __init__(self, target: Target, rooms: Sequence[str], count: int, console: Console) -> None:
        spec = {"url": target.url, "rooms": list(rooms), "viewers": count}
        self._crew = Crew(_work, [spec] if count else [], console)
        if count:
            try:
                self._crew.hear("watching", count)
            except BaseException:
                self._crew.close()
                raise

    def leave(self) -> int:
        """End them; how many had been cut off meanwhile."""
        try:
            self._crew.say("leave")
            return sum(self._crew.hear("leaving", 0))
        finally:
            self._crew.close()


async def _work(spec: dict[str, Any], boss: Boss) -> int:
    gate, rooms = asyncio.Semaphore(CONNECTS_AT_ONCE), spec["rooms"]
    seats: list[Seat] = []

    async def one(number: int) -> None:
        async with gate:
            seat, _ = await join(spec["url"], rooms[number % len(rooms)], number, None)
        seats.append(seat)
        if len(seats) % 500 == 0:
            boss.progress(len(seats))

    await asyncio.gather(*(one(number) for number in range(spec["viewers"])))
    await boss.go()
    return sum(seat.closed is not None for seat in seats)

"""The pulse: one timer that asks every connection of a process whether it is still there.

A timer for each connection would cost more than the ping it sends. So connections stand in
the slots of a wheel, and each slot's turn comes once in an interval.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final, Protocol

log = logging.getLogger("liveroom.wire")

SLOTS: Final = 64


class Beating(Protocol):
    """What is asked at each turn."""

    def on_beat(self) -> None:
        """Its turn has come: once in every interval."""


class Pulse:
    """A wheel of connections; its timer runs from one slot with anybody in it to the next.

    A turn is a count of steps since the wheel began; its slot is that modulo `SLOTS`.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, interval_s: float) -> None:
        self._loop = loop
        self._step_s = interval_s / SLOTS
        self._slots: list[dict[Beating, None]] = [{} for _ in range(SLOTS)]
        self._began_s = loop.time()
        self._timer: asyncio.Handle | None = None

    def add(self, one: Beating) -> int:
        """Give a connection its turn, the first one about an interval from now; its place."""
        turn = int((self._loop.time() - self._began_s) / self._step_s)
        place = turn % SLOTS
        self._slots[place][one] = None
        if self._timer is None:
            self._wake_at(turn + SLOTS)
        return place

    def remove(self, one: Beating, place: int) -> None:
        """Ask this connection no more; harmless when it is asked no more already."""
        self._slots[place].pop(one, None)

    def _wake_at(self, turn: int) -> None:
        at_s = self._began_s + turn * self._step_s
        self._timer = self._loop.call_at(at_s, self._turn, turn)

    def _turn(self, turn: int) -> None:
        """Ask those of a turn, once what came before it has been read.

        Where the process stood still, their pongs may wait unread, and more than one look at
        the sockets takes in: then the wheel stood still too, and goes on a step later.
        """
        late_s = self._loop.time() - self._began_s - turn * self._step_s
        if late_s > self._step_s:
            self._began_s += late_s + self._step_s
            self._timer = self._loop.call_later(self._step_s, self._ask, turn)
        else:  # uvloop runs what is due before it looks at the sockets, and looks in between
            self._timer = self._loop.call_soon(self._loop.call_soon, self._ask, turn)

    def _ask(self, turn: int) -> None:
        self._timer = None
        for later in range(turn + 1, turn + SLOTS + 1):
            if self._slots[later % SLOTS]:  # before anybody is asked: one's fault is not all's
                self._wake_at(later)
                break
        for one in list(self._slots[turn % SLOTS]):
            try:
                one.on_beat()
            except Exception:
                log.exception("a connection could not be asked")

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
    """A wheel of connections; its timer runs while there is one."""

    def __init__(self, loop: asyncio.AbstractEventLoop, interval_s: float) -> None:
        self._loop = loop
        self._step_s = interval_s / SLOTS
        self._slots: list[dict[Beating, None]] = [{} for _ in range(SLOTS)]
        self._at = 0
        self._count = 0
        self._timer: asyncio.TimerHandle | None = None

    def add(self, one: Beating) -> int:
        """Give a connection its turn, the first one an interval from now; its place."""
        place = self._at
        self._slots[place][one] = None
        self._count += 1
        if self._timer is None:
            self._timer = self._loop.call_later(self._step_s, self._turn)
        return place

    def remove(self, one: Beating, place: int) -> None:
        """Ask this connection no more; harmless when it is asked no more already."""
        slot = self._slots[place]
        if one in slot:
            del slot[one]
            self._count -= 1

    def _turn(self) -> None:
        self._timer = None
        self._at = (self._at + 1) % SLOTS
        if self._count:  # before anybody is asked: one's fault must not end it for all
            self._timer = self._loop.call_later(self._step_s, self._turn)
        for one in list(self._slots[self._at]):
            try:
                one.on_beat()
            except Exception:
                log.exception("a connection could not be asked")

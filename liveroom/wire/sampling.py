"""Sampling: what viewers are told of the chat they are not shown, once a second while it lasts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from liveroom.wire.lanes import ChatLane

SAMPLED_EVERY_S: Final = 1.0


class Sampling:
    """Counts what a room's chat lane shows and leaves out.

    `tell(shown, posted)` is called with what came since it was called last, where that differs.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, chat: ChatLane, tell: Callable[[int, int], None]
    ) -> None:
        self._loop = loop
        self._chat = chat
        self._tell = tell
        self._told = chat.tally
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, *, has_budget: bool) -> None:
        """After each tick: count from the first that hides a message, and not from before it.

        Without a budget what is not shown yet will be, unless too many wait.
        """
        if self._timer is not None:
            return
        now, told = self._chat.tally, self._told
        hides = has_budget and now.posted - now.shown > told.posted - told.shown
        if hides or now.overflowed > told.overflowed:
            self._timer = self._loop.call_later(SAMPLED_EVERY_S, self._say)
        else:
            self._told = now

    def _say(self) -> None:
        self._timer = None
        told, self._told = self._told, self._chat.tally
        shown, posted = self._told.shown - told.shown, self._told.posted - told.posted
        if shown < posted:
            self._tell(shown, posted)

    def close(self) -> None:
        """Say no more."""
        if self._timer is not None:
            self._timer.cancel()

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
        self._told = chat.counts
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, *, has_budget: bool) -> None:
        """After each tick: count from the first that hides a message, and not from before it.

        Without a budget what is not shown yet will be, unless too many wait.
        """
        if self._timer is not None:
            return
        (shown, posted, overflowed), told = self._chat.counts, self._told
        hides = has_budget and posted - shown > told[1] - told[0]
        if hides or overflowed > told[2]:
            self._timer = self._loop.call_later(SAMPLED_EVERY_S, self._say)
        else:
            self._told = self._chat.counts

    def _say(self) -> None:
        self._timer = None
        told, self._told = self._told, self._chat.counts
        shown, posted = self._told[0] - told[0], self._told[1] - told[1]
        if shown < posted:
            self._tell(shown, posted)

    def close(self) -> None:
        """Say no more."""
        if self._timer is not None:
            self._timer.cancel()

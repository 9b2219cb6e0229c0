"""When to come back: close codes, and a full-jitter backoff. Nothing here awaits."""

from __future__ import annotations

import json
import random
from typing import Final, NamedTuple

FIRST_S: Final = 0.5
LONGEST_S: Final = 15.0

_FINAL: Final = {
    4500: "bad_frame",
    4501: "unauthenticated",
    4502: "banned",
    4503: "room_gone",
    4504: "replaced",
}
_FRAME_AT_FAULT: Final = frozenset((1002, 1003, 1007, 1009))


class AfterClose(NamedTuple):
    """What a close code asks of the client."""

    reconnect: bool
    after_ms: int | None
    """How long the server asks us to wait; `None`: our own jitter."""
    repeat: bool
    """Whether commands without an answer may be sent again."""


def after_close(code: int, reason: str) -> AfterClose:
    """The rule of the contract for a close code; `reason` may hold `{"after_ms": n}`."""
    if 4500 <= code <= 4999:
        return AfterClose(reconnect=False, after_ms=None, repeat=False)
    repeat = code not in _FRAME_AT_FAULT
    return AfterClose(reconnect=True, after_ms=_after_ms(reason), repeat=repeat)


def close_name(code: int) -> str:
    """The word for a close code that is final."""
    return _FINAL.get(code, "closed")


def _after_ms(reason: str) -> int | None:
    try:
        hint = json.loads(reason)
    except ValueError:
        return None
    after = hint.get("after_ms") if isinstance(hint, dict) else None
    return after if isinstance(after, int) and after >= 0 else None


class Backoff:
    """Waiting times that grow, each drawn from the whole range (full jitter)."""

    def __init__(self, first_s: float = FIRST_S, longest_s: float = LONGEST_S) -> None:
        self._first_s = first_s
        self._longest_s = longest_s
        self._failures = 0

    def reset(self) -> None:
        """A connection has held: the next wait is short again."""
        self._failures = 0

    def next_s(self, after_ms: int | None = None) -> float:
        """Seconds to wait before the next try, at least what the server asked for."""
        ceiling = min(self._longest_s, self._first_s * 2 ** min(self._failures, 16))
        wait = random.uniform(0, ceiling)
        if after_ms is not None:
            # The server has spread its clients already; our own jitter only joins in when
            # coming back has failed before.
            wait = after_ms / 1000 + (wait if self._failures else 0)
        self._failures += 1
        return wait

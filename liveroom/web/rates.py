"""How often one caller may send commands over HTTP: a token bucket for each, bounded."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from starlette.requests import Request

from liveroom.auth import Member
from liveroom.clock import Clock
from liveroom.errors import Unavailable

CALLERS_MAX: Final = 10_000


class Rates:
    """`per_s` commands a second for each member, or address of a guest; 0 is no limit.

    A burst of two seconds' worth may come at once.
    """

    def __init__(self, clock: Clock, per_s: float) -> None:
        self._clock = clock
        self._per_s = per_s
        self._buckets: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def take(self, request: Request, member: Member) -> None:
        """Count one command; `rate_limited` with the time to wait when there are too many."""
        if self._per_s <= 0:
            return
        address = request.client.host if request.client is not None else ""
        key, now = f"guest:{address}" if member.guest else member.id, self._clock.now_ms()
        burst = max(1.0, 2 * self._per_s)
        left, at = self._buckets.get(key, (burst, now))
        left = min(burst, left + max(0, now - at) * self._per_s / 1000)
        if left < 1:
            wait_ms = int((1 - left) * 1000 / self._per_s) + 1
            raise Unavailable("rate_limited", retry_after_ms=wait_ms)
        self._buckets[key] = (left - 1, now)
        self._buckets.move_to_end(key)
        while len(self._buckets) > CALLERS_MAX:
            self._buckets.popitem(last=False)

"""The ring: a room's recent logged events, encoded already, so that a return costs a join.

Rule: what it holds is contiguous in `seq`; what does not follow is refused.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import islice

from liveroom.errors import ensure
from liveroom.events import Event
from liveroom.wire import codec
from liveroom.wire.codec import Format


class Encoded:
    """One event, encoded at most once for each wire format."""

    __slots__ = ("_json", "_msgpack", "event")

    def __init__(self, event: Event) -> None:
        self.event = event
        self._json: bytes | None = None
        self._msgpack: bytes | None = None

    def to(self, fmt: Format) -> bytes:
        """The event as a message of a server frame."""
        if fmt is Format.MSGPACK:
            if self._msgpack is None:
                self._msgpack = codec.encode(self.event.on_wire(), fmt)
            return self._msgpack
        if self._json is None:
            self._json = codec.encode(self.event.on_wire(), fmt)
        return self._json


def fit(events: Sequence[Encoded], bytes_max: int) -> int:
    """How many of these, from the first on, have room in so many bytes of JSON; at least one."""
    size = 0
    for count, event in enumerate(events):
        size += len(event.to(Format.JSON))
        if count and size > bytes_max:
            return count
    return len(events)


class Ring:
    """The last logged events of a room, after position `seq`.

    Bounded by `events_max` and by `bytes_max` of JSON; the oldest leaves first.
    """

    def __init__(self, seq: int, *, events_max: int, bytes_max: int) -> None:
        self.first = seq + 1
        self.last = seq
        self._events: deque[Encoded] = deque()
        self._bytes = 0
        self._events_max = events_max
        self._bytes_max = bytes_max

    def append(self, event: Encoded) -> None:
        """Add the event that follows the last one."""
        ensure(event.event.seq == self.last + 1, "a ring holds contiguous events")
        self.last += 1
        self._events.append(event)
        self._bytes += len(event.to(Format.JSON))
        while self._full() and len(self._events) > 1:
            self._bytes -= len(self._events.popleft().to(Format.JSON))
            self.first += 1

    def extend_back(self, events: list[Encoded]) -> None:
        """Add the older ones of these events, which follow each other, as far as there is room."""
        for event in reversed(events):
            seq = event.event.seq or 0
            if seq >= self.first:
                continue
            if seq != self.first - 1 or self._full(len(event.to(Format.JSON)), 1):
                return
            self._events.appendleft(event)
            self._bytes += len(event.to(Format.JSON))
            self.first = seq

    def holds(self, seq: int) -> bool:
        """Whether every event after position `seq` is here."""
        return self.first - 1 <= seq <= self.last

    def after(self, seq: int, *, until: int | None = None) -> list[Encoded]:
        """The events after `seq`, up to and with `until`; `holds(seq)` must be true."""
        ensure(self.holds(seq), "this position has left the ring")
        end = len(self._events) if until is None else until - self.first + 1
        return list(islice(self._events, seq - self.first + 1, max(0, end)))

    def _full(self, more_bytes: int = 0, more: int = 0) -> bool:
        return (
            len(self._events) + more > self._events_max
            or self._bytes + more_bytes > self._bytes_max
        )

"""What a joiner is told: the events it lacks, and the `ok` of its join, put together.

Nothing here awaits, and nothing is encoded twice: the picture is encoded once for all who
join between two flushes, an event once for all rooms' returners, the rest is the member's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from liveroom.wire import codec
from liveroom.wire.codec import Format
from liveroom.wire.live import LiveRoom
from liveroom.wire.ring import Encoded, fit

RESUME_MAX: Final = 1000
"""A returner who lacks more logged events gets a snapshot."""
RESUME_BYTES_MAX: Final = 768 * 1024
"""What an answer holds of logged events: with the rest less than the megabyte clients take."""


class Missed:
    """What a returner is told of what it lacks; `events` None means a snapshot.

    `seq` is the position after `events`: the flushed end, or before it where they are too
    large for one answer, and the ring holds the others.
    """

    __slots__ = ("events", "seq")

    def __init__(self, events: Sequence[Encoded] | None, seq: int) -> None:
        self.events = events
        self.seq = seq

    @property
    def mode(self) -> str:
        """The join's mode on the wire."""
        return "snapshot" if self.events is None else "resumed"

    @classmethod
    def of(cls, read: list[Encoded], since: int, live: LiveRoom) -> Missed | None:
        """Events read after `since`, completed from the ring, as far as an answer has room.

        None when the ring has moved past what was read.
        """
        seq = read[-1].event.seq or since if read else since
        if not live.ring.holds(seq) and seq < live.flushed:
            return None
        newer = live.ring.after(seq, until=live.flushed) if seq < live.flushed else []
        if len(read) + len(newer) > RESUME_MAX:
            return SNAPSHOT
        events = [*read, *newer]
        told = fit(events, RESUME_BYTES_MAX)
        if told == len(events):
            return cls(events, max(seq, live.flushed))
        seq = since + told
        is_followed = seq >= live.flushed or live.ring.holds(seq)
        return cls(events[:told], seq) if is_followed else SNAPSHOT


SNAPSHOT: Final = Missed(None, 0)


def join_ok(
    head: Mapping[str, Any],
    live: LiveRoom,
    mine: Mapping[str, Any],
    missed: Missed,
    fmt: Format,
) -> bytes:
    """The join's `ok`, put together from what is encoded already and what is the member's."""
    part = "snapshot" if missed.events is None else "now"
    shown = codec.put_together([live.common(part, fmt), codec.fields(mine, fmt)], fmt)
    ok = [codec.fields(head, fmt), codec.field(part, shown, fmt)]
    if missed.events is not None:
        events = codec.join([event.to(fmt) for event in missed.events], fmt)
        ok.append(codec.field("events", events, fmt))
    return codec.put_together(ok, fmt)

"""What viewers of a thinned room get: logged events whole, chat as a sample.

Logged events (`seq`) must be consecutive. Messages (`n`) may jump, since a jump says how many
were not shown, but never go back or come twice; two viewers have seen the same sample when
their digests are the same.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from typing import Any, Final

import orjson

from bench.latency import Bins
from bench.seat import Seat

FRAMES_MAX: Final = 20_000
_PRIME: Final = (1 << 61) - 1


@dataclass(slots=True)
class Viewer:
    """What one viewer has got so far."""

    seq: int
    n: int
    shown: int = 0
    hidden: int = 0
    digest: int = 0


@dataclass(slots=True)
class Frame:
    """What one payload holds; viewers that get the same bytes share it."""

    seqs: list[int]
    ns: list[int]
    sent_logged: list[float]
    sent_chat: list[float]


class Watch:
    """Checks every viewer's stream, and keeps the latencies of logged events and of chat."""

    def __init__(self) -> None:
        self._frames: dict[bytes, Frame] = {}
        self.viewers: dict[int, Viewer] = {}
        self.logged, self.chat = Bins(), Bins()
        self.authors: Counter[str] = Counter()
        self._counted_n = 0
        self.lost = self.doubled = 0
        self.first_seq = 0

    def begin(self, seat: Seat, ok: dict[str, Any]) -> None:
        """A viewer has joined; before the load starts, or again in the midst of it."""
        messages = ok["snapshot"]["messages"]
        self.viewers[seat.number] = Viewer(int(ok["seq"]), messages[-1]["n"] if messages else 0)
        self.first_seq = int(ok["seq"])
        seat.on_frame = self.take

    def take(self, seat: Seat, payload: bytes) -> None:
        """One frame of one viewer."""
        frame = self._frames.get(payload)
        if frame is None:
            frame = self._read(payload)
        viewer, now = self.viewers[seat.number], time.monotonic()
        for seq, sent in zip(frame.seqs, frame.sent_logged, strict=True):
            self.logged.add((now - sent) * 1000)
            self._logged(viewer, seq)
        for n, sent in zip(frame.ns, frame.sent_chat, strict=True):
            self.chat.add((now - sent) * 1000)
            self._message(viewer, n)

    def _logged(self, viewer: Viewer, seq: int) -> None:
        if seq <= viewer.seq:
            self.doubled += 1
            return
        self.lost += seq - viewer.seq - 1
        viewer.seq = seq

    def _message(self, viewer: Viewer, n: int) -> None:
        if n <= viewer.n:
            self.doubled += 1
            return
        viewer.hidden += n - viewer.n - 1
        viewer.shown += 1
        viewer.n = n
        viewer.digest = (viewer.digest * 1_000_003 + n) % _PRIME

    def _read(self, payload: bytes) -> Frame:
        frame = Frame([], [], [], [])
        for message in orjson.loads(payload):
            name, data = message.get("ev"), message.get("data")
            if name == "message.posted":
                frame.ns.append(message["n"])
                frame.sent_chat.append(_sent(data))
                if message["n"] > self._counted_n:
                    self._counted_n = message["n"]
                    self.authors[data["member"]] += 1
            elif name == "notice.posted":
                frame.seqs.append(message["seq"])
                frame.sent_logged.append(_sent(data))
        if len(self._frames) >= FRAMES_MAX:
            self._frames.clear()
        self._frames[payload] = frame
        return frame


def _sent(data: dict[str, Any]) -> float:
    """When it was meant to be sent: the second word of its text."""
    return float(data["text"].split(" ", 2)[1])

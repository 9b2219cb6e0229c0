"""What a room may thin: chat above its budget, and state that a later value replaces.

Nothing here awaits or reads a clock: the time comes in, in seconds.
"""

from __future__ import annotations

from collections import OrderedDict
from itertools import islice
from typing import Final, NamedTuple

from liveroom.wire.ring import Encoded, fit

CHAT_FRAME_MAX: Final = 256
CHAT_FRAME_BYTES_MAX: Final = 64 * 1024
CHAT_WAITING_MAX: Final = 4096
AUTHORS_MAX: Final = 4096
STATE_KEYS_MAX: Final = 4096
STATE_FRAME_BYTES_MAX: Final = 32 * 1024

STATE_WAIT_S: Final = 0.2
COUNTS_WAIT_S: Final = 0.8


class Tally(NamedTuple):
    """How many messages were posted, were shown to viewers, and left out as too many waited."""

    posted: int
    shown: int
    overflowed: int


class ChatLane:
    """A room's chat between two ticks: the crew gets all of it, the viewers what fits.

    The budget fills a bucket of at most one second's worth. A tick that may show `k`
    messages deals them one an author in turn, authors shown longest ago first, and shows
    them in order of `n`. While not even one may be shown, messages wait for the next tick.
    Without a budget all are shown, and what a frame has no room for waits. Of more than
    `CHAT_WAITING_MAX` that wait the oldest are left out, for the crew too.
    """

    def __init__(self) -> None:
        self._crew: list[Encoded] = []
        self._viewers: list[Encoded] = []
        self._credit = 1.0
        self._filled_s = 0.0
        self._shown_at: OrderedDict[str, int] = OrderedDict()
        self._turn = 0
        self.posted = 0
        self.shown = 0
        self.overflowed = 0

    def add(self, message: Encoded) -> None:
        """A message was posted."""
        self.posted += 1
        self._crew.append(message)
        self._viewers.append(message)
        if len(self._crew) > CHAT_WAITING_MAX:
            del self._crew[0]
        if len(self._viewers) > CHAT_WAITING_MAX:
            del self._viewers[0]
            self.overflowed += 1

    def remove(self, message: str) -> None:
        """A message is taken back: it is not shown if it still waits."""
        self._crew = [one for one in self._crew if one.event.data.get("id") != message]
        waiting = len(self._viewers)
        self._viewers = [one for one in self._viewers if one.event.data.get("id") != message]
        self.posted -= waiting - len(self._viewers)

    @property
    def tally(self) -> Tally:
        """What has become of its messages so far."""
        return Tally(self.posted, self.shown, self.overflowed)

    @property
    def crew_waiting(self) -> bool:
        """Whether the crew has something to see."""
        return bool(self._crew)

    @property
    def oldest_n(self) -> int | None:
        """The `n` of the oldest message that still waits for the viewers."""
        return self._viewers[0].event.n if self._viewers else None

    def waiting(self, after: int, until: int) -> list[Encoded]:
        """The messages of an `n` between these, `until` too, that still wait for the viewers."""
        return [one for one in self._viewers if after < (one.event.n or 0) <= until]

    def ready_in_s(self, budget: int, now_s: float) -> float | None:
        """When a waiting message may be shown: 0 for at once, None when none waits."""
        if not self._viewers:
            return None
        self._fill(budget, now_s)
        return 0.0 if budget == 0 or self._credit >= 1 else (1 - self._credit) / budget

    def take(self, budget: int, now_s: float) -> tuple[list[Encoded], list[Encoded]]:
        """What the crew and what the viewers see in this tick, each in order of `n`."""
        crew, self._crew = _cut(self._crew)
        self._fill(budget, now_s)
        share = min(CHAT_FRAME_MAX, int(self._credit))
        waiting = self._viewers
        if budget and share == 0:
            self._viewers = waiting[-CHAT_FRAME_MAX:]
            return crew, []
        all_fit = budget == 0 or len(waiting) <= share
        dealt = waiting if all_fit else self._deal(waiting, share)
        shown, self._viewers = _cut(dealt)
        self._credit -= len(shown) if budget else 0
        self.shown += len(shown)
        self._remember(shown)
        return crew, shown

    def _fill(self, budget: int, now_s: float) -> None:
        if budget:
            gained = budget * max(0.0, now_s - self._filled_s)
            self._credit = min(float(max(1, budget)), self._credit + gained)
        self._filled_s = now_s

    def _deal(self, waiting: list[Encoded], share: int) -> list[Encoded]:
        """One message an author in turn, authors shown longest ago first."""
        by_author: dict[str, list[Encoded]] = {}
        for message in waiting:
            by_author.setdefault(_author(message), []).append(message)
        hands = sorted(by_author.items(), key=lambda hand: self._shown_at.get(hand[0], -1))
        dealt: list[Encoded] = []
        depth = 0
        while len(dealt) < share:
            dealt += [hand[depth] for _, hand in hands if depth < len(hand)]
            depth += 1
        return sorted(dealt[:share], key=lambda message: message.event.n or 0)

    def _remember(self, shown: list[Encoded]) -> None:
        self._turn += 1
        for message in shown:
            author = _author(message)
            self._shown_at[author] = self._turn
            self._shown_at.move_to_end(author)
        while len(self._shown_at) > AUTHORS_MAX:
            self._shown_at.popitem(last=False)


def _cut(messages: list[Encoded]) -> tuple[list[Encoded], list[Encoded]]:
    """The first of these, as many as a frame has room for, and those that wait for the next."""
    count = fit(messages[:CHAT_FRAME_MAX], CHAT_FRAME_BYTES_MAX)
    return messages[:count], messages[count:]


def _author(message: Encoded) -> str:
    return str(message.event.data.get("member", ""))


class StateLane:
    """The latest value for each key; `v` decides which of two is later.

    Each accepted value gets the lane's next `mark`, so that a viewer who was away is told
    what changed since its own.
    """

    def __init__(self) -> None:
        self._latest: OrderedDict[str, tuple[int, int, Encoded]] = OrderedDict()
        self._dirty: dict[str, Encoded] = {}
        self._was_full = False
        self.mark = 0

    def put(self, state: Encoded) -> bool:
        """Take a value; False, and nothing changes, when a later or the same one is here."""
        key, v = state.event.key, int(state.event.data.get("v", -1))
        known = self._latest.get(key)
        if known is not None and v >= 0 and v <= known[0]:
            return False
        self._change(key, v, state)
        return True

    def _change(self, key: str, v: int, state: Encoded) -> None:
        self.mark += 1
        self._latest[key] = (v, self.mark, state)
        self._latest.move_to_end(key)
        self._dirty[key] = state
        while len(self._latest) > STATE_KEYS_MAX:
            self._latest.popitem(last=False)

    def wait_s(self) -> float | None:
        """How long after the last flush the waiting values may cause one; None: none wait."""
        if not self._dirty:
            return None
        if self._was_full:  # with so much of it, to wait for each frame would be too long
            return 0.0
        if all(state.event.name.endswith(".counted") for state in self._dirty.values()):
            return COUNTS_WAIT_S
        return STATE_WAIT_S

    def take(self) -> list[Encoded]:
        """The values that changed since the last tick, as many as a frame has room for.

        The others wait for the next one, and count as changed after this one.
        """
        dirty, self._dirty = self._dirty, {}
        count = fit(list(dirty.values()), STATE_FRAME_BYTES_MAX)
        self._was_full = count < len(dirty)
        for key, state in islice(dirty.items(), count, None):
            self._change(key, int(state.event.data.get("v", -1)), state)
        return list(islice(dirty.values(), count))

    def since(self, mark: int) -> list[tuple[int, Encoded]]:
        """The latest values that changed after `mark`, each with its own mark, in their order."""
        newer: list[tuple[int, Encoded]] = []
        for _, at, state in reversed(self._latest.values()):
            if at <= mark:
                break
            newer.append((at, state))
        return newer[::-1]

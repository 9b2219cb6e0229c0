"""What this node counts for its rooms: taps, and who watches. A beat tells both to Redis.

Rule: what was answered is told, whatever fails meanwhile, and told once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from typing import Any, Final

from liveroom.clock import Clock
from liveroom.errors import Invalid
from liveroom.events import Event
from liveroom.ids import new_id
from liveroom.store.backplane import Backplane, Item

KINDS_MAX: Final = 32
"""How many kinds of reaction one room knows."""
TAPS_ONCE_S: Final = 60
"""How long it is remembered that taps were told: tried again later, they could count twice."""
AGAIN_BEATS: Final = 3
"""After how many beats viewers are told again who stayed the same; they lapse after 7 s."""


class Taps:
    """Taps by room and kind, added up until the next beat tells them.

    `known` reads the kinds a room counts already.
    """

    def __init__(
        self, backplane: Backplane, clock: Clock, known: Callable[[str], Awaitable[Iterable[str]]]
    ) -> None:
        self._backplane = backplane
        self._clock = clock
        self._known = known
        self._waiting: dict[str, dict[str, int]] = {}
        self._untold: dict[str, Item] = {}

    async def add(self, room: str, kind: str, count: int) -> None:
        """Add to the taps of a kind; one kind too many is `bad_argument`."""
        if kind not in self._waiting.get(room, ()):
            kinds = {*await self._known(room), *self._waiting.get(room, ()), kind}
            if len(kinds) > KINDS_MAX:
                raise Invalid("bad_argument", "This room knows enough kinds of reaction.")
        # A beat may have taken what waited meanwhile: from here on nothing is waited for.
        taps = self._waiting.setdefault(room, {})
        taps[kind] = taps.get(kind, 0) + count

    async def tell(self) -> None:
        """Tell all there is; what a store did not take is kept, and told with a later beat.

        Raises:
            Unavailable: as `Backplane.publish`, once every room has been tried.
        """
        await _all(self._tell(room) for room in {*self._untold, *self._waiting})

    async def _tell(self, room: str) -> None:
        if room in self._untold:
            await self._publish(room)
        if (counts := self._waiting.pop(room, None)) is not None:
            event = Event("reactions.counted", {}, self._clock.now_ms())
            once = f"taps:{new_id()}"
            self._untold[room] = Item(event, react=counts, once=once, once_s=TAPS_ONCE_S)
            await self._publish(room)

    async def _publish(self, room: str) -> None:
        await self._backplane.publish(room, self._untold[room])
        del self._untold[room]


class Viewers:
    """How many watch each room on this node, told when it changes and before it lapses."""

    def __init__(self, backplane: Backplane, node: str) -> None:
        self._backplane = backplane
        self._node = node
        self._told: dict[str, tuple[int, int]] = {}  # how many, and in which beat
        self._beat = 0

    async def tell(self, watching: Mapping[str, int]) -> None:
        """Tell where it is due; rooms that are left out lapse.

        Raises:
            Unavailable: as `Backplane.publish`, once every room has been tried.
        """
        self._beat += 1
        self._told = {room: told for room, told in self._told.items() if room in watching}
        await _all(self._tell(room, n) for room, n in watching.items() if self._is_due(room, n))

    def tell_all_again(self) -> None:
        """Let the next beat tell every room: the store may have forgotten what it was told."""
        self._told.clear()

    def _is_due(self, room: str, viewers: int) -> bool:
        told, beat = self._told.get(room, (-1, 0))
        return viewers != told or (viewers > 0 and self._beat - beat >= AGAIN_BEATS)

    async def _tell(self, room: str, viewers: int) -> None:
        await self._backplane.count_viewers(room, self._node, viewers)
        self._told[room] = (viewers, self._beat)


async def _all(work: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Do all of it together, to its end; then raise what the first of them raised."""
    for outcome in await asyncio.gather(*work, return_exceptions=True):
        if isinstance(outcome, BaseException):
            raise outcome

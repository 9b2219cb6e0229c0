"""Event streams: what `async for event in room.events()` reads from."""

from __future__ import annotations

import asyncio
from collections import deque
from types import TracebackType
from typing import Final, Self

from liveroom_client.errors import LiveroomError
from liveroom_client.picture import Event

QUEUE_MAX: Final = 1000


class EventStream:
    """The events of a room from the moment it was made, in order, in a bounded queue.

    A reader that falls more than `queue_max` events behind loses the oldest ones and is told
    so by one `local.lagged` event (`{missed}`); `room.state` is right all the same. The
    iteration ends when the room is closed by this side, and raises when it ended for good.
    """

    def __init__(self, queue_max: int = QUEUE_MAX) -> None:
        self._queue: deque[Event] = deque()
        self._queue_max = queue_max
        self._missed = 0
        self._ended = False
        self._fault: LiveroomError | None = None
        self._news = asyncio.Event()

    def put(self, event: Event) -> None:
        """Add an event; the oldest leaves a full queue."""
        if len(self._queue) >= self._queue_max:
            self._queue.popleft()
            self._missed += 1
        self._queue.append(event)
        self._news.set()

    def end(self, fault: LiveroomError | None = None) -> None:
        """Let the reader finish what is queued, then stop (or raise `fault`)."""
        self._ended = True
        self._fault = fault
        self._news.set()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        while not self._queue:
            if self._ended:
                if self._fault is not None:
                    raise self._fault
                raise StopAsyncIteration
            self._news.clear()
            await self._news.wait()
        if self._missed:
            missed, self._missed = self._missed, 0
            return Event("local.lagged", {"missed": missed}, self._queue[0].at)
        return self._queue.popleft()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end()

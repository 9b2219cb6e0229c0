"""Batch while busy: what arrives while a batch is in flight forms the next one.

Idle, a batch holds one item and nothing waits; loaded, batches grow by themselves and the
cost for each item falls. There is no timer to tune. Events to Redis, holds on stock and
orders to SQL all burst through this one primitive.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from time import monotonic
from typing import Final, Generic, TypeVar

from liveroom.errors import Unavailable, ensure

Item = TypeVar("Item")
Answer = TypeVar("Answer")

PATIENCE_S: Final = 0.5
"""A batch that ends in `store_down` after longer than this takes what waits behind it along."""


class Batcher(Generic[Item, Answer]):
    """Gathers items and hands them to `run` in order of arrival, one batch at a time.

    With `in_flight` above 1 a full batch need not wait for the one before it: so many may be
    under way at once, and what they do must stand in any order.

    `run` gets 1 to `size_max` items and returns one answer for each, in order; an answer
    that is an exception is raised at its own caller only. When `run` itself raises, every
    caller of that batch gets that error. More than `waiting_max` waiting items are refused
    with `overloaded`. What waits behind a batch that hangs until the store is given up is
    answered `store_down` with it: a second try would only double everybody's wait.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Item]], Awaitable[Sequence[Answer | Exception]]],
        *,
        size_max: int,
        waiting_max: int,
        in_flight: int = 1,
    ) -> None:
        self._run = run
        self._size_max = size_max
        self._waiting_max = waiting_max
        self._waiting: deque[tuple[Item, asyncio.Future[Answer]]] = deque()
        self._in_flight = in_flight
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def submit(self, item: Item) -> Answer:
        """The answer to `item`. A caller that is cancelled gives up the answer, not the work."""
        if len(self._waiting) >= self._waiting_max:
            raise Unavailable("overloaded")
        if not self._tasks or self._loop is None:
            self._loop = asyncio.get_running_loop()  # a system call: not for each item
        future: asyncio.Future[Answer] = self._loop.create_future()
        self._waiting.append((item, future))
        if not self._tasks or (self._is_full() and len(self._tasks) < self._in_flight):
            self._tasks.add(self._loop.create_task(self._drain(), name="batcher"))
        return await future

    async def close(self) -> None:
        """Wait until everything submitted so far is answered."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _is_full(self) -> bool:
        return len(self._waiting) >= self._size_max

    async def _drain(self) -> None:
        try:
            while self._waiting and (len(self._tasks) == 1 or self._is_full()):
                size = min(len(self._waiting), self._size_max)
                await self._run_batch([self._waiting.popleft() for _ in range(size)])
        finally:
            task = asyncio.current_task()
            if task is not None:
                self._tasks.discard(task)

    async def _run_batch(self, batch: list[tuple[Item, asyncio.Future[Answer]]]) -> None:
        began_s = monotonic()
        try:
            answers = await self._run([item for item, _ in batch])
            ensure(len(answers) == len(batch), "a batch must get one answer for each item")
        except Exception as error:  # noqa: BLE001 - handed to every caller, not swallowed
            answers = [error] * len(batch)
        for (_, future), answer in zip(batch, answers, strict=True):
            _settle(future, answer)
        if monotonic() - began_s > PATIENCE_S and all(map(_is_away, answers)):
            while self._waiting:
                _settle(self._waiting.popleft()[1], Unavailable("store_down"))


def _settle(future: asyncio.Future[Answer], answer: Answer | Exception) -> None:
    if future.done():
        return
    if isinstance(answer, Exception):
        future.set_exception(answer)
    else:
        future.set_result(answer)


def _is_away(answer: object) -> bool:
    return isinstance(answer, Unavailable) and answer.code == "store_down"

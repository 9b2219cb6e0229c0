"""Batch while busy: what arrives while a batch is in flight forms the next one.

Idle, a batch holds one item and nothing waits; loaded, batches grow by themselves and the
cost for each item falls. There is no timer to tune. Events to Redis, holds on stock and
orders to SQL all burst through this one primitive.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from liveroom.errors import Unavailable, ensure

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class Batcher(Generic[Item, Answer]):
    """Gathers items and hands them to `run` in order of arrival, one batch at a time.

    `run` gets 1 to `size_max` items and returns one answer for each, in order; an answer
    that is an exception is raised at its own caller only. When `run` itself raises, every
    caller of that batch gets that error. More than `waiting_max` waiting items are refused
    with `overloaded`.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Item]], Awaitable[Sequence[Answer | Exception]]],
        *,
        size_max: int,
        waiting_max: int,
    ) -> None:
        self._run = run
        self._size_max = size_max
        self._waiting_max = waiting_max
        self._waiting: deque[tuple[Item, asyncio.Future[Answer]]] = deque()
        self._task: asyncio.Task[None] | None = None

    async def submit(self, item: Item) -> Answer:
        """The answer to `item`. A caller that is cancelled gives up the answer, not the work."""
        if len(self._waiting) >= self._waiting_max:
            raise Unavailable("overloaded")
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._task is None:
            self._task = asyncio.create_task(self._drain(), name="batcher")
        return await future

    async def close(self) -> None:
        """Wait until everything submitted so far is answered."""
        while self._task is not None:
            await asyncio.wait([self._task])

    async def _drain(self) -> None:
        try:
            while self._waiting:
                size = min(len(self._waiting), self._size_max)
                await self._run_batch([self._waiting.popleft() for _ in range(size)])
        finally:
            self._task = None

    async def _run_batch(self, batch: list[tuple[Item, asyncio.Future[Answer]]]) -> None:
        try:
            answers = await self._run([item for item, _ in batch])
            ensure(len(answers) == len(batch), "a batch must get one answer for each item")
        except Exception as error:  # noqa: BLE001 - handed to every caller, not swallowed
            answers = [error] * len(batch)
        for (_, future), answer in zip(batch, answers, strict=True):
            if future.done():
                continue
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)

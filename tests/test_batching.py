"""Batch while busy: order, bounds, and whose error is whose."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from liveroom import batching
from liveroom.batching import Batcher
from liveroom.errors import InvariantBroken, Unavailable


class Recorder:
    """A batch function that waits until it is let go and keeps what it was given."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.go = asyncio.Event()

    async def __call__(self, items: Sequence[int]) -> Sequence[int | Exception]:
        self.batches.append(list(items))
        await self.go.wait()
        return [ValueError(str(item)) if item < 0 else item * 10 for item in items]


def batcher(recorder: Recorder, size_max: int = 100, waiting_max: int = 100) -> Batcher[int, int]:
    return Batcher(recorder, size_max=size_max, waiting_max=waiting_max)


async def submit_all(queue: Batcher[int, int], items: Sequence[int]) -> list[asyncio.Task[int]]:
    tasks = [asyncio.create_task(queue.submit(item)) for item in items]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return tasks


def test_what_arrives_while_a_batch_is_in_flight_forms_the_next() -> None:
    """The first item waits for nothing; the rest leave together, in order of arrival."""

    async def story() -> None:
        recorder = Recorder()
        queue = batcher(recorder)
        first = await submit_all(queue, [1])
        rest = await submit_all(queue, [2, 3, 4])
        assert recorder.batches == [[1]]
        recorder.go.set()
        assert await asyncio.gather(*first, *rest) == [10, 20, 30, 40]
        assert recorder.batches == [[1], [2, 3, 4]]

    asyncio.run(story())


def test_a_batch_is_never_larger_than_its_maximum() -> None:
    """What does not fit waits for the batch after."""

    async def story() -> None:
        recorder = Recorder()
        recorder.go.set()
        queue = batcher(recorder, size_max=2)
        tasks = await submit_all(queue, [1, 2, 3, 4, 5])
        assert await asyncio.gather(*tasks) == [10, 20, 30, 40, 50]
        assert recorder.batches == [[1, 2], [3, 4], [5]]

    asyncio.run(story())


def test_an_item_that_fails_does_not_sink_its_neighbours() -> None:
    """An answer that is an exception is raised at its own caller only."""

    async def story() -> None:
        recorder = Recorder()
        recorder.go.set()
        tasks = await submit_all(batcher(recorder), [1, -2, 3])
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert answers[0] == 10
        assert isinstance(answers[1], ValueError)
        assert answers[2] == 30

    asyncio.run(story())


def test_a_batch_that_fails_whole_fails_for_each_caller_and_the_next_goes_on() -> None:
    """The batcher outlives the errors of its batches."""

    async def fails_once(items: Sequence[int]) -> Sequence[int]:
        if 1 in items:
            raise ConnectionError
        return list(items)

    async def story() -> None:
        queue = Batcher(fails_once, size_max=10, waiting_max=10)
        with pytest.raises(ConnectionError):
            await queue.submit(1)
        assert await queue.submit(2) == 2

    asyncio.run(story())


class Away:
    """A store that answers nothing: the first batch ends in `store_down` when it is let go."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.go = asyncio.Event()

    async def __call__(self, items: Sequence[int]) -> Sequence[int | Exception]:
        self.batches.append(list(items))
        if len(self.batches) > 1:
            return list(items)
        await self.go.wait()
        return [Unavailable("store_down")] * len(items)


async def answers_behind_a_store_that_is_away() -> tuple[Away, list[object]]:
    away = Away()
    queue = Batcher(away, size_max=10, waiting_max=10)
    tasks = await submit_all(queue, [1])
    tasks += await submit_all(queue, [2, 3])
    away.go.set()
    return away, [*await asyncio.gather(*tasks, return_exceptions=True), await queue.submit(4)]


def test_what_waits_behind_a_hung_store_is_not_kept_for_a_second_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A batch that was given up takes what waits along; what comes later is tried."""
    monkeypatch.setattr(batching, "PATIENCE_S", -1.0)
    away, (*gone, last) = asyncio.run(answers_behind_a_store_that_is_away())
    assert [getattr(answer, "code", answer) for answer in gone] == ["store_down"] * 3
    assert last == 4
    assert away.batches == [[1], [4]]


def test_a_store_that_fails_at_once_fails_for_nobody_who_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A connection that breaks says nothing about the next one: the next batch is tried."""
    monkeypatch.setattr(batching, "PATIENCE_S", 60.0)
    away, answers = asyncio.run(answers_behind_a_store_that_is_away())
    assert [getattr(answer, "code", answer) for answer in answers] == ["store_down", 2, 3, 4]
    assert away.batches == [[1], [2, 3], [4]]


def test_a_full_queue_refuses_with_overloaded() -> None:
    """The number of waiting items has a bound."""

    async def story() -> None:
        recorder = Recorder()
        queue = batcher(recorder, waiting_max=2)
        tasks = await submit_all(queue, [1])
        tasks += await submit_all(queue, [2, 3])
        with pytest.raises(Unavailable) as refusal:
            await queue.submit(4)
        assert refusal.value.code == "overloaded"
        recorder.go.set()
        assert await asyncio.gather(*tasks) == [10, 20, 30]

    asyncio.run(story())


def test_a_caller_that_gives_up_does_not_stop_the_batch() -> None:
    """Cancelling one caller leaves the answers of the others as they are."""

    async def story() -> None:
        recorder = Recorder()
        queue = batcher(recorder)
        gone, stays = await submit_all(queue, [1, 2])
        gone.cancel()
        recorder.go.set()
        assert await stays == 20
        await queue.close()
        assert gone.cancelled()

    asyncio.run(story())


def test_a_batch_with_missing_answers_is_a_fault_of_ours() -> None:
    """A batch function that forgets an item breaks an invariant, and every caller is told."""

    async def forgets(items: Sequence[int]) -> Sequence[int]:
        return []

    async def story() -> None:
        with pytest.raises(InvariantBroken):
            await Batcher(forgets, size_max=10, waiting_max=10).submit(1)

    asyncio.run(story())


def test_a_full_batch_leaves_beside_the_one_in_flight_where_two_may() -> None:
    """What is not full waits; however it goes, every item is in one batch and answered."""

    async def story() -> None:
        recorder = Recorder()
        queue: Batcher[int, int] = Batcher(recorder, size_max=2, waiting_max=100, in_flight=2)
        first = await submit_all(queue, [1])
        third = await submit_all(queue, [2])
        assert recorder.batches == [[1]]
        full = await submit_all(queue, [3])
        assert recorder.batches == [[1], [2, 3]]
        more = await submit_all(queue, [4, 5, 6])
        assert recorder.batches == [[1], [2, 3]]
        recorder.go.set()
        assert await asyncio.gather(*first, *third, *full, *more) == [10, 20, 30, 40, 50, 60]
        assert recorder.batches == [[1], [2, 3], [4, 5], [6]]
        await queue.close()

    asyncio.run(story())

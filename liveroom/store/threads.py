"""Threads that run jobs for the event loop, bounded in number and in how long anyone waits.

A job that has not begun in time is withdrawn and will never run; a job that has begun runs to
its end, whether or not anyone still waits for its answer.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, Generic, TypeVar

from liveroom.errors import Unavailable

T = TypeVar("T")

BEGIN_MAX_S: Final = 1.5

WAITING, BEGUN, WITHDRAWN = range(3)


class _Withdrawn(Exception):
    """Nobody waits for this job any more."""


class _Job(Generic[T]):
    """One job, and the answer that the loop waits for."""

    def __init__(
        self, run: Callable[[Callable[[], None]], T], loop: asyncio.AbstractEventLoop
    ) -> None:
        self._run = run
        self._loop = loop
        self._state = WAITING
        self._guard = threading.Lock()
        self.answer: asyncio.Future[T] = loop.create_future()

    def begin(self) -> None:
        """From here on the job cannot be withdrawn. Raises where it was already."""
        with self._guard:
            if self._state == WITHDRAWN:
                raise _Withdrawn
            self._state = BEGUN

    def withdraw(self) -> bool:
        """Whether the job had not begun; if so it never will."""
        with self._guard:
            if self._state == WAITING:
                self._state = WITHDRAWN
            return self._state == WITHDRAWN

    @property
    def withdrawn(self) -> bool:
        return self._state == WITHDRAWN

    def run(self) -> None:
        """Run it, in a thread; what comes of it goes to the loop, where that is still there."""
        result: T | None = None
        fault: BaseException | None = None
        try:
            result = self._run(self.begin)
        except BaseException as error:  # noqa: BLE001 - it belongs to whoever waits
            fault = error
        with suppress(RuntimeError):  # the loop is closed: nobody waits
            self._loop.call_soon_threadsafe(self.end, result, fault)

    def end(self, result: Any, fault: BaseException | None) -> None:
        """Answer, where anybody still waits."""
        if self.answer.done():
            return
        if fault is None:
            self.answer.set_result(result)
        else:
            self.answer.set_exception(fault)


class JobThreads:
    """A fixed number of threads over one bounded queue; started with the first job."""

    def __init__(self, name: str, *, threads: int, waiting_max: int) -> None:
        self._name = name
        self._threads_max = threads
        self._threads: list[threading.Thread] = []
        self._waiting_max = waiting_max
        self._jobs: queue.SimpleQueue[_Job[Any] | None] = queue.SimpleQueue()
        self._closed = False

    async def run(
        self,
        run: Callable[[Callable[[], None]], T],
        *,
        answer_max_s: float | None,
        late: Callable[[], Exception],
    ) -> T:
        """What `run(begin)` returns. `run` calls `begin()` once nothing can hold it up any more.

        Args:
            run: called in a thread.
            answer_max_s: seconds until a job that has begun is given up; None waits for it.
            late: makes the error of a job that was given up.

        Raises:
            Unavailable: `overloaded` when the queue is full, `store_down` when the job had
                not begun within 1.5 s, `shutting_down` after `close`.
        """
        if self._closed:
            raise Unavailable("shutting_down")
        if self._jobs.qsize() >= self._waiting_max:
            raise Unavailable("overloaded")
        loop = asyncio.get_running_loop()
        job = _Job(run, loop)
        timer: asyncio.TimerHandle

        def look() -> None:
            """What has not begun by now never will; what has is waited for a while longer."""
            nonlocal timer
            if job.withdraw():
                job.end(None, Unavailable("store_down"))
            elif answer_max_s is not None:
                rest_s = answer_max_s - BEGIN_MAX_S
                timer = loop.call_later(rest_s, lambda: job.end(None, late()))

        timer = loop.call_later(BEGIN_MAX_S, look)
        self._jobs.put(job)
        self._start_threads()
        try:
            return await job.answer
        finally:
            timer.cancel()
            job.withdraw()

    async def close(self) -> None:
        """Run what is queued, then end the threads. A thread that is stuck is left to the exit."""
        self._closed = True
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            await asyncio.to_thread(thread.join, BEGIN_MAX_S)
        self._threads.clear()

    def _start_threads(self) -> None:
        if len(self._threads) < self._threads_max:
            name = f"{self._name}-{len(self._threads)}"
            thread = threading.Thread(target=self._work, name=name, daemon=True)
            self._threads.append(thread)
            thread.start()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            if not job.withdrawn:
                job.run()

"""An event loop in virtual time, the processes that share it, and how they die, stop and give up.

Time leaps to whatever happens next. A process is a context: its tasks and timers carry it
along, so that it can stand still while everybody else goes on.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import selectors
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context, ContextVar, copy_context
from typing import Any, Final

_PROCESS: ContextVar[Process | None] = ContextVar("process", default=None)
_APART_S: Final = 1e-9
"""How far apart things happen that a pause has kept waiting: they keep their order."""


class Stuck(Exception):
    """Everybody waits and nothing is left to happen."""


class Gone(Exception):
    """There is no answer: the process that was asked has been killed, or nobody waits for it."""


class _Leap(selectors.DefaultSelector):
    """Waits for nothing: time leaps to what happens next."""

    now_s = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise Stuck
        self.now_s += max(timeout, 0.0)
        return []


class Loop(asyncio.SelectorEventLoop):
    """An event loop in virtual time, in which single processes may stand still."""

    def __init__(self) -> None:
        self._leap = _Leap()
        self._asleep: dict[Process, float] = {}
        self._waking = itertools.count()
        super().__init__(self._leap)

    def time(self) -> float:
        return self._leap.now_s

    def pause(self, process: Process, until: float) -> None:
        """Nothing of this process runs before `until`, as after a SIGSTOP: no step, no timer."""
        self._asleep[process] = until
        due = [one for one in self._scheduled if one._when < until and _owner(one) is process]
        for handle in sorted(due):
            handle._when = self._awake_at(process)
        heapq.heapify(self._scheduled)
        self.call_at(until, self._asleep.pop, process, context=Context())

    def call_soon(
        self, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        process = self._sleeper(context) if self._asleep else None
        if process is None:
            return super().call_soon(callback, *args, context=context)
        return super().call_at(self._awake_at(process), callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        process = self._sleeper(context) if self._asleep else None
        if process is not None:
            when = max(when, self._awake_at(process))
        return super().call_at(when, callback, *args, context=context)

    def _sleeper(self, context: Context | None) -> Process | None:
        process = (context or copy_context()).get(_PROCESS)
        return process if process in self._asleep else None

    def _awake_at(self, process: Process) -> float:
        return self._asleep[process] + (1 + next(self._waking)) * _APART_S


def is_dead() -> bool:
    """Whether what runs here is of a process that was killed: its timers still go off."""
    process = _PROCESS.get()
    return process is not None and process.died.is_set()


def _owner(handle: asyncio.Handle) -> Process | None:
    return handle._context.get(_PROCESS)


class Process:
    """One process: what it awaits after its death never comes."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.died = asyncio.Event()
        self._context = copy_context()
        self._context.run(_PROCESS.set, self)

    def begin(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """A task of this process."""
        return asyncio.get_running_loop().create_task(work, context=self._context.copy())

    async def do(self, work: Coroutine[Any, Any, Any], *, until_wait: int | None = None) -> Any:
        """What the process answers; `Gone` where it dies first.

        With `until_wait` whoever asked gives up at that wait of the work, counted from 0, and
        the work is cancelled there.
        """
        if self.died.is_set():
            work.close()
            raise Gone
        task = self.begin(work if until_wait is None else _cancelled_at(work, until_wait))
        dying = asyncio.ensure_future(self.died.wait())
        await asyncio.wait({task, dying}, return_when=asyncio.FIRST_COMPLETED)
        dying.cancel()
        if not task.done() or task.cancelled():
            raise Gone
        return task.result()


async def _cancelled_at(work: Coroutine[Any, Any, Any], wait: int) -> Any:
    return await _Cancelled(work, wait)


class _Cancelled:
    """Runs `work` up to its `wait`-th wait, where its task is cancelled."""

    def __init__(self, work: Coroutine[Any, Any, Any], wait: int) -> None:
        self._work = work
        self._wait = wait

    def __await__(self) -> Generator[Any, Any, Any]:
        step, given = self._work.send, None
        for number in itertools.count():
            try:
                waits_for = step(given)
            except StopIteration as done:
                return done.value
            if number == self._wait:
                task = asyncio.current_task()
                assert task is not None
                task.cancel()
            try:
                given = yield waits_for
                step = self._work.send
            except GeneratorExit:
                self._work.close()
                raise
            except BaseException as error:  # noqa: BLE001 - handed on to the work
                given, step = error, self._work.throw
        raise AssertionError

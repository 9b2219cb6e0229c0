"""Load processes: started together, let go together, heard out together.

Each runs one coroutine `work(spec, boss)` on uvloop. It says `ready`, waits for `go`, says how
far it is, and hands back a result. The parent draws the progress.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from collections.abc import Awaitable, Callable
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any

import uvloop
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from bench.target import raise_file_limit

Work = Callable[[dict[str, Any], "Boss"], Awaitable[Any]]
READY_MAX_S = 300.0


class Boss:
    """A load process's line to the parent."""

    def __init__(self, line: Connection) -> None:
        self._line = line

    async def go(self) -> Any:
        """Say ready and wait for the parent's word; what it says."""
        self._line.send(("ready", 0))
        return await asyncio.get_running_loop().run_in_executor(None, self._line.recv)

    async def ask(self, what: Any) -> Any:
        """Hand the parent something and wait for its word."""
        self._line.send(("asks", what))
        return await asyncio.get_running_loop().run_in_executor(None, self._line.recv)

    def fileno(self) -> int:
        """What becomes readable when the parent has said something."""
        return self._line.fileno()

    def heard(self) -> Any:
        """The parent's word; waits for it."""
        return self._line.recv()

    def say(self, word: str) -> None:
        """Say something and go on."""
        self._line.send((word, 0))

    def progress(self, done: int) -> None:
        """Say how far it is."""
        self._line.send(("progress", done))


class Crew:
    """Several load processes; each phase ends when all of them have come to its end."""

    def __init__(self, work: Work, specs: list[dict[str, Any]], console: Console) -> None:
        self._console = console
        self._lines: list[Connection] = []
        self._processes: list[SpawnProcess] = []
        context = multiprocessing.get_context("spawn")
        for spec in specs:
            ours, theirs = context.Pipe()
            process = context.Process(target=_main, args=(work, spec, theirs), daemon=True)
            process.start()
            theirs.close()
            self._lines.append(ours)
            self._processes.append(process)

    def hear(self, what: str, total: int, *, within_s: float = READY_MAX_S) -> list[Any]:
        """Wait until every process has said something other than progress; what each said."""
        said: dict[int, Any] = {}
        done = dict.fromkeys(range(len(self._lines)), 0)
        until = time.monotonic() + within_s
        with self._bar() as bar:
            task = bar.add_task(what, total=total)
            while len(said) < len(self._lines):
                if time.monotonic() > until:
                    raise TimeoutError(f"{what}: load processes did not finish in {within_s} s")
                waiting = [line for at, line in enumerate(self._lines) if at not in said]
                for line in wait(waiting, timeout=1.0):
                    at = self._lines.index(line)  # type: ignore[arg-type]
                    kind, value = self._recv(line)  # type: ignore[arg-type]
                    if kind == "progress":
                        done[at] = value
                        bar.update(task, completed=sum(done.values()))
                    else:
                        said[at] = value
            bar.update(task, completed=total)
        return [said[at] for at in range(len(self._lines))]

    def say(self, word: Any) -> None:
        """Let all of them go on."""
        for line in self._lines:
            line.send(word)

    def close(self) -> None:
        """End what still runs."""
        for process, line in zip(self._processes, self._lines, strict=True):
            process.terminate()
            process.join()
            process.close()
            line.close()

    def _recv(self, line: Connection) -> tuple[str, Any]:
        try:
            kind, value = line.recv()
        except EOFError:
            raise RuntimeError("A load process died.") from None
        if kind == "fault":
            raise RuntimeError(f"A load process failed: {value}")
        return kind, value

    def _bar(self) -> Progress:
        columns = (
            TextColumn("{task.description:<12}"), BarColumn(), MofNCompleteColumn(),
            TimeElapsedColumn(),
        )  # fmt: skip
        return Progress(*columns, console=self._console, transient=not self._console.is_terminal)


def _main(work: Work, spec: dict[str, Any], line: Connection) -> None:
    raise_file_limit()
    try:
        line.send(("done", uvloop.run(work(spec, Boss(line)))))  # type: ignore[arg-type]
    except Exception as fault:  # noqa: BLE001 - told to the parent, which raises it
        line.send(("fault", repr(fault)))

"""Cores: half of them for the server that is measured, the others for its load.

A viewer that wakes on the core of the server it waits for pushes the server aside, hundreds of
times a second; how often is the scheduler's mood, and no viewer in the world sits there. So
where servers are compared, each has cores that the load never uses.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self


def _use(cores: list[int]) -> None:
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)


class Cores:
    """While it lasts, this process and those it starts use one half of the cores.

    What is started within `serving` uses the other half. Nothing changes on a single core, nor
    where a process cannot say where it runs (macOS).
    """

    def __enter__(self) -> Self:
        self._all = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        half = len(self._all) // 2
        self._serving, self._loading = self._all[:half], self._all[half:]
        _use(self._loading)
        return self

    def __exit__(self, *_: object) -> None:
        _use(self._all)

    @contextmanager
    def serving(self) -> Iterator[None]:
        """What is started meanwhile is a server to be measured."""
        _use(self._serving or self._all)
        try:
            yield
        finally:
            _use(self._loading)

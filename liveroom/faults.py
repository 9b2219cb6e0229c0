"""Fault points: named places between two steps, where a test may have this process killed.

`LIVEROOM_FAULT_POINT=order.committed:3` kills the process with SIGKILL the third time it
comes by `order.committed`. Without that variable a point compares one name and returns. The points
are named where they stand; tests/faults/test_points.py has a test for each.
"""

from __future__ import annotations

import os
import signal
from typing import Final

ARMED: Final = "LIVEROOM_FAULT_POINT"

_name, _, _nth = os.environ.get(ARMED, "").partition(":")
_left = int(_nth or 1)


def point(name: str) -> None:
    """Nothing, unless this point is armed and its time has come."""
    if name == _name:
        _come_by()


def _come_by() -> None:
    global _left  # noqa: PLW0603 - one process, one armed point
    _left -= 1
    if _left == 0:
        os.write(2, f"killed at fault point {_name}\n".encode())
        os.kill(os.getpid(), signal.SIGKILL)

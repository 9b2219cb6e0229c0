"""Beats: the moments at which a process does what it does again and again by itself.

Whoever wakes finds the caches cold, so a process that nobody uses costs as much as it wakes
often. Its jobs therefore keep one beat: what is done every second wakes together with what is
done every two or ten, and what they then ask of SQL leaves together (`Database.glance`).
"""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from math import inf
from typing import Final

_OFFSET_MS: Final = random.randrange(3_600_000)
"""Where the beats of this process lie: the workers of a machine must not all wake at once."""


async def next_beat(
    every_s: float, *, within_s: float = inf, sooner: asyncio.Event | None = None
) -> None:
    """Wait for the next beat: a multiple of `every_s` on the loop's clock, with our offset.

    Whoever took longer than `every_s` has missed beats, and waits for the next one. Where
    `within_s` passes before, or `sooner` is set, the wait ends then.
    """
    now_s = asyncio.get_running_loop().time()
    wait_s = min(_beat_after_s(now_s, every_s) - now_s, within_s)
    if sooner is None:
        await asyncio.sleep(wait_s)
        return
    with suppress(TimeoutError):
        async with asyncio.timeout(wait_s):
            await sooner.wait()


def _beat_after_s(now_s: float, every_s: float) -> float:
    # In whole milliseconds, as uvloop's timers are: a fraction that is lost or gained would
    # part jobs of one beat, or wake one just before its beat, and once more at it.
    now_ms, every_ms = round(now_s * 1000), max(1, round(every_s * 1000))
    return (now_ms + every_ms - (now_ms - _OFFSET_MS) % every_ms) / 1000

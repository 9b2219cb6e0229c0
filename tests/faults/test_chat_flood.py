"""A flood of chat: what is logged never waits behind it, and both stay in order."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from tests.crowd import Viewer, agree, guests, host, staying, until
from tests.live import Live, serving

FLOODERS = 20
AT_ONCE = 15
"""Messages one flooder has under way: more than a connection's queue would stop the reading."""
PINS = 12
MESSAGES_BETWEEN = 150
CHAT = "message.posted"
PINNED = {"product.pinned", "product.unpinned"}


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Live]:
    with serving(tmp_path_factory.mktemp("flood") / "data", "--message-rate-max", "0") as live:
        yield live


async def _flood(viewer: Viewer, posted: list[int], enough: asyncio.Event) -> None:
    async def say() -> None:
        while not enough.is_set():
            posted.append((await viewer.do("message.post", text="look"))["message"]["n"])

    await asyncio.gather(*(say() for _ in range(AT_ONCE)))


async def _pin_in_the_flood(mia: Viewer, posted: list[int]) -> list[int]:
    """Pin and unpin; for each the `n` of a message posted once it was answered."""
    later = []
    for at in range(PINS):
        known = len(posted)
        await until(lambda known=known: len(posted) >= known + MESSAGES_BETWEEN)
        await mia.do("product.unpin" if at % 2 else "product.pin", product="p1")
        later.append((await mia.do("message.post", text="later"))["message"]["n"])
    return later


@pytest.mark.parametrize("budget", [0, 30])
def test_a_pin_in_a_flood_is_in_the_next_frame(server, budget):
    """No frame before the pin's holds a message posted after it, whatever the room's budget."""

    async def story() -> None:
        mia, viewers = host(server), guests(server, 10)
        flooders = [Viewer(server, f"f{number}") for number in range(FLOODERS)]
        for one in viewers:
            one.keeps_frames = True
        posted: list[int] = []
        enough = asyncio.Event()
        async with staying(mia, *viewers, *flooders):
            await mia.do("room.set", chat_per_s_max=budget)
            flooding = [asyncio.create_task(_flood(one, posted, enough)) for one in flooders]
            later = await _pin_in_the_flood(mia, posted)
            enough.set()
            await asyncio.gather(*flooding)
            await mia.do("notice.post", text="the end")
            await until(lambda: all(one.texts[-1:] == ["the end"] for one in viewers))
        agree([mia, *viewers])
        for viewer in viewers:
            _check(viewer.frames, later)

    asyncio.run(asyncio.wait_for(story(), 60))


def _check(frames: list[list[dict[str, Any]]], later: list[int]) -> None:
    """Chat is in order, and no frame before a pin's holds a message posted after it."""
    shown = [[event["n"] for event in frame if event.get("ev") == CHAT] for frame in frames]
    ns = [n for frame in shown for n in frame]
    assert ns, "nothing of the flood was shown"
    assert ns == sorted(set(ns)), "chat is out of order"
    pinned = [at for at, frame in enumerate(frames) for event in frame if event.get("ev") in PINNED]
    assert len(pinned) == len(later)
    for at, n in zip(pinned, later, strict=True):
        assert all(before < n for frame in shown[:at] for before in frame)

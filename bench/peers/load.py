"""The viewers of a peer: they connect as its clients do, and every event is checked."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final

from bench.crew import Boss
from bench.fanout import CONNECTS_AT_ONCE, SETTLE_MAX_S, Tally
from bench.seat import Seat, connect

SOCKETIO: Final = "/socket.io/?EIO=4&transport=websocket"
_EVENTS_HEAD: Final = len('42["events",')


async def work(spec: dict[str, Any], boss: Boss) -> dict[str, Any]:
    """One load process: connects its viewers, and ends when they have seen the last event."""
    tally, gate = Tally("notice.posted", "seq"), asyncio.Semaphore(CONNECTS_AT_ONCE)
    viewers: list[Seat] = []

    async def one(number: int) -> None:
        async with gate:
            seat = await _join(spec, number, tally)
        seat.expected = 1  # nothing is published before everybody is there
        viewers.append(seat)
        if len(viewers) % 50 == 0:
            boss.progress(len(viewers))

    await asyncio.gather(*(one(number) for number in range(spec["viewers"])))
    start = float(await boss.go())
    cpu = time.process_time()
    await _watch(viewers, spec["events"], start + spec["seconds"] + SETTLE_MAX_S, boss)
    tally.count_all()
    last = spec["events"]
    return {
        "delivered": sum(seat.count for seat in viewers),
        "frames": tally.frames,
        "lost": tally.lost + sum(max(0, last + 1 - seat.expected) for seat in viewers),
        "doubled": tally.doubled,
        "cut": sum(seat.closed is not None and seat.expected <= last for seat in viewers),
        "bins": tally.bins.counts,
        "spread": tally.spread,
        "cpu_s": time.process_time() - cpu,
    }


async def _join(spec: dict[str, Any], number: int, tally: Tally) -> Seat:
    if spec["path"] == SOCKETIO:
        return await _join_socketio(spec, number, tally)
    return await connect(spec["url"], spec["path"], number, on_frame=tally.take)


async def _join_socketio(spec: dict[str, Any], number: int, tally: Tally) -> Seat:
    """Engine.IO opens, Socket.IO connects to the namespace `/`; pings are answered."""
    joined = asyncio.Event()

    def on_frame(seat: Seat, payload: bytes) -> None:
        if payload.startswith(b"42"):
            tally.take(seat, payload[_EVENTS_HEAD:-1])
        elif payload.startswith(b"40"):
            joined.set()
        elif payload.startswith(b"0"):
            seat.send(b"40")
        elif payload == b"2":
            seat.send(b"3")

    seat = await connect(spec["url"], spec["path"], number, on_frame=on_frame)
    await joined.wait()
    return seat


async def _watch(viewers: list[Seat], last: int, until: float, boss: Boss) -> None:
    while time.monotonic() < until:
        boss.progress(sum(seat.count for seat in viewers))
        if all(seat.expected > last or seat.closed for seat in viewers):
            return
        await asyncio.sleep(0.1)

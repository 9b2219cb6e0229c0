"""Fan-out with websockets' own server and its `broadcast`."""

from __future__ import annotations

from typing import Any

import uvloop
from websockets.asyncio.server import ServerConnection, broadcast, serve

from bench.peers.pace import listener, pace, text_of

_viewers: set[ServerConnection] = set()


async def _view(viewer: ServerConnection) -> None:
    _viewers.add(viewer)
    try:
        await viewer.wait_closed()
    finally:
        _viewers.discard(viewer)


async def _publish(events: list[dict[str, Any]]) -> None:
    broadcast(_viewers, text_of(events))


async def _run() -> None:
    sock = listener()
    async with serve(_view, sock=sock, compression=None):
        await pace(sock.getsockname()[1], _publish)


if __name__ == "__main__":
    uvloop.run(_run())

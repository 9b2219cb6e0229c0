"""What every peer in Python does: tell the port, wait for the start, publish at the rate."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import uvicorn
import uvloop

Publish = Callable[[list[dict[str, Any]]], Awaitable[None]]


def listener() -> socket.socket:
    """A socket on a free port of the loopback."""
    return socket.create_server(("127.0.0.1", 0), backlog=4096)


async def pace(port: int, publish: Publish) -> None:
    """Publish the events of one run, each at its time; ends with stdin."""
    rate, seconds, size = float(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
    print(f"port {port}", flush=True)
    loop = asyncio.get_running_loop()
    start = float((await loop.run_in_executor(None, sys.stdin.readline)).split()[1])
    for number in range(round(rate * seconds)):
        due = start + number / rate
        if (ahead := due - time.monotonic()) > 0:
            await asyncio.sleep(ahead)
        text = f"{number} {due:.6f} ".ljust(size, ".")
        at = int(time.time() * 1000)
        await publish(
            [{"ev": "notice.posted", "seq": number + 1, "at": at, "data": {"text": text}}]
        )
    await loop.run_in_executor(None, sys.stdin.read)


def text_of(events: list[dict[str, Any]]) -> str:
    """The events as they go over the wire."""
    return json.dumps(events, separators=(",", ":"))


def serve_asgi(app: Any, publish: Publish) -> None:
    """Run an ASGI application on uvicorn, and publish through it."""

    async def run() -> None:
        sock = listener()
        config = uvicorn.Config(
            app, ws="websockets-sansio", ws_per_message_deflate=False, lifespan="off",
            log_config=None, access_log=False,
        )  # fmt: skip
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve(sockets=[sock]))
        await pace(sock.getsockname()[1], publish)
        server.should_exit = server.force_exit = True
        await serving

    uvloop.run(run())

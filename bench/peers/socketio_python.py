"""Fan-out with python-socketio: one emit to everybody, on uvicorn."""

from __future__ import annotations

from typing import Any

import socketio

from bench.peers.pace import serve_asgi

_server = socketio.AsyncServer(
    async_mode="asgi", transports=["websocket"], http_compression=False, cors_allowed_origins="*"
)


async def _publish(events: list[dict[str, Any]]) -> None:
    await _server.emit("events", events)


if __name__ == "__main__":
    serve_asgi(socketio.ASGIApp(_server), _publish)

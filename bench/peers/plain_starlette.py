"""Fan-out with Starlette as its users write it: a set of sockets and a loop of sends."""

from __future__ import annotations

from typing import Any

from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from bench.peers.pace import serve_asgi, text_of

_viewers: set[WebSocket] = set()


async def _view(viewer: WebSocket) -> None:
    await viewer.accept()
    _viewers.add(viewer)
    try:
        while True:
            await viewer.receive_text()
    except WebSocketDisconnect:
        _viewers.discard(viewer)


async def _publish(events: list[dict[str, Any]]) -> None:
    text = text_of(events)
    for viewer in list(_viewers):
        await viewer.send_text(text)


if __name__ == "__main__":
    serve_asgi(Starlette(routes=[WebSocketRoute("/", _view)]), _publish)

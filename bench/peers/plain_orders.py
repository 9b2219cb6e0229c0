"""Orders with Starlette, redis-py and sqlite3 as their users write them.

A script takes a unit from a counter in Redis, then one transaction on disk for each order. No
limits, no expiry, no holds, no retries: what is cheap here is also what is not promised.
Arguments: the database's path, the URL of Redis, the units on sale.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import uvicorn
import uvloop
from redis.asyncio import Redis
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from bench.peers.pace import listener

SOLD_OUT: Final = 0
_TAKE: Final = """
local left = tonumber(redis.call('GET', KEYS[1]))
if left < tonumber(ARGV[1]) then return 0 end
redis.call('DECRBY', KEYS[1], ARGV[1])
return 1
"""


class Shop:
    """The one SKU, its counter and its orders."""

    def __init__(self, path: str, url: str) -> None:
        self._redis: Any = Redis.from_url(url)
        self._take = self._redis.register_script(_TAKE)
        self._thread = ThreadPoolExecutor(1)
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute("CREATE TABLE orders (id TEXT PRIMARY KEY, sku TEXT, qty INTEGER)")

    async def fill(self, units: int) -> None:
        """Set the counter."""
        await self._redis.set("left", units)

    async def place(self, order: str, sku: str, qty: int) -> bool:
        """Whether there was enough; if so the order is on disk."""
        if await self._take(keys=["left"], args=[qty]) == SOLD_OUT:
            return False
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._thread, self._insert, order, sku, qty)
        return True

    def _insert(self, order: str, sku: str, qty: int) -> None:
        self._db.execute("INSERT INTO orders VALUES (?, ?, ?)", (order, sku, qty))

    async def talk(self, buyer: WebSocket) -> None:
        """Answer one buyer's commands, one after another."""
        await buyer.accept(subprotocol="liveroom.v1.json")
        try:
            while True:
                asked = json.loads(await buyer.receive_text())
                answer = {"re": asked["id"], **await self._answer(asked["cmd"], asked["data"])}
                await buyer.send_text(json.dumps([answer], separators=(",", ":")))
        except WebSocketDisconnect:
            return

    async def _answer(self, cmd: str, data: dict[str, Any]) -> dict[str, Any]:
        if cmd == "room.join":
            return {"ok": {}}
        [line] = data["lines"]
        if await self.place(data["order"], line["sku"], line["qty"]):
            return {"ok": {"order": {"id": data["order"], "state": "placed", "lines": [line]}}}
        return {"error": {"code": "sold_out", "message": "Gone.", "retry": False}}


async def _serve() -> None:
    path, url, units = sys.argv[1:]
    shop, sock = Shop(path, url), listener()
    await shop.fill(int(units))
    config = uvicorn.Config(
        Starlette(routes=[WebSocketRoute("/ws/{room}", shop.talk)]),
        ws="websockets-sansio", ws_per_message_deflate=False, lifespan="off", log_config=None,
        access_log=False,
    )  # fmt: skip
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve(sockets=[sock]))
    print(f"port {sock.getsockname()[1]}", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    server.should_exit = server.force_exit = True
    await serving


if __name__ == "__main__":
    uvloop.run(_serve())

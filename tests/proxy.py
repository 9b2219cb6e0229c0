"""A relay of our own between the server and a store, which loses, tears, delays and stalls.

It listens on a unix socket and runs on a thread of its own, so a test may use it from anywhere.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

CHUNK: Final = 1 << 18


class Proxy:
    """Relays `at` to the unix socket `to`; every store speaks first only when spoken to."""

    def __init__(self, at: Path, to: Path) -> None:
        self.at = at
        self.to = to
        self.delay_s = 0.0
        self.lost = 0
        """How many replies have been lost or torn so far."""
        self.held = 0
        """How many requests came while nothing was let through."""
        self._lose: bytes | None = None
        self._times = 0
        self._torn = False
        self._loop = asyncio.new_event_loop()
        self._flowing = asyncio.Event()
        self._lines: set[Line] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)

    def start(self) -> None:
        """Listen."""
        self._thread.start()
        self._do(self._listen())

    def close(self) -> None:
        """Cut everything and listen no more."""
        self.cut()
        self._do(self._stop_listening())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def lose_replies(self, to: bytes, *, times: int = 1, torn: bool = False) -> None:
        """Let the next requests that hold these bytes through, and lose or tear their replies.

        A reply is lost only after it has come: the request was carried out. The connection
        is cut in its place.
        """
        self._lose, self._times, self._torn = to, times, torn

    def stall(self) -> None:
        """Let nothing through any more; nothing is lost, and new connections are accepted."""
        self._loop.call_soon_threadsafe(self._flowing.clear)

    def flow(self) -> None:
        """Let what has waited through."""
        self._loop.call_soon_threadsafe(self._flowing.set)

    def cut(self) -> None:
        """End every connection that is open now."""
        self._do(self._cut())

    def turn_to(self, other: Path) -> None:
        """Relay to another store from now on, as a failover does."""
        self.to = other
        self.cut()

    def heard(self, request: bytes) -> bool:
        """Whether the reply to this request is to be lost."""
        if self._times and self._lose is not None and self._lose in request:
            self._times -= 1
            return True
        return False

    async def let(self, line: Line, reply: bytes) -> bytes | None:
        """What of a reply passes, once it may; None where the line is to end."""
        await self._flowing.wait()
        if self.delay_s:
            await asyncio.sleep(self.delay_s)
        if not line.doomed:
            return reply
        self.lost += 1
        return reply[: len(reply) // 2] if self._torn else None

    async def flowing(self) -> None:
        """Wait until requests may pass."""
        self.held += not self._flowing.is_set()
        await self._flowing.wait()

    async def _listen(self) -> None:
        self._flowing.set()
        self._server = await asyncio.start_unix_server(self._accept, str(self.at), limit=CHUNK)

    async def _stop_listening(self) -> None:
        self._server.close()
        self._flowing.set()
        while self._lines:  # noqa: ASYNC110 - each ends by itself once cut
            await asyncio.sleep(0.01)

    async def _cut(self) -> None:
        for line in self._lines:
            line.cut()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            store = await asyncio.open_unix_connection(str(self.to), limit=CHUNK)
        except OSError:
            writer.close()
            return
        line = Line(self, (reader, writer), store)
        self._lines.add(line)
        try:
            await line.relay()
        finally:
            self._lines.discard(line)

    def _do(self, what: object) -> None:
        asyncio.run_coroutine_threadsafe(what, self._loop).result(10)  # type: ignore[arg-type]


Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Line:
    """One connection, both ways."""

    def __init__(self, proxy: Proxy, client: Ends, store: Ends) -> None:
        self._proxy = proxy
        self._client, self._store = client, store
        self.doomed = False

    def cut(self) -> None:
        """End it, both ways."""
        self._client[1].transport.abort()
        self._store[1].transport.abort()

    async def relay(self) -> None:
        """Carry bytes until either end closes."""
        ways = [asyncio.create_task(self._up()), asyncio.create_task(self._down())]
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        self.cut()
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)

    async def _up(self) -> None:
        with suppress(ConnectionError):
            while request := await self._client[0].read(CHUNK):
                await self._proxy.flowing()
                self.doomed = self.doomed or self._proxy.heard(request)
                self._store[1].write(request)

    async def _down(self) -> None:
        with suppress(ConnectionError):
            while reply := await self._store[0].read(CHUNK):
                passes = await self._proxy.let(self, reply)
                if passes:
                    self._client[1].write(passes)
                    await self._client[1].drain()
                if self.doomed:
                    return


@contextmanager
def proxy(at: Path, to: Path) -> Iterator[Proxy]:
    """A relay that runs until the end of the block."""
    made = Proxy(at, to)
    made.start()
    try:
        yield made
    finally:
        made.close()

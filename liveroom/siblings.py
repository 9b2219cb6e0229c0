"""The workers of one server, told apart and asked by each other over unix sockets.

A scrape reaches whichever worker accepts it. So that it is never of a random one, every worker
listens in a folder that only they share and answers with its numbers; who is scraped asks all
of them. One that does not answer in time is left out: its own series are missing once, while
those of the others are not touched.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
import structlog

from liveroom import metrics

ANSWER_MAX_S: Final = 2.0
_BYTES_MAX: Final = 1 << 20

log = structlog.get_logger(__name__)


class Siblings:
    """One worker at its place in the shared folder; opened by `start`, closed by `close`."""

    def __init__(self, folder: Path, place: int, counters: metrics.Counters) -> None:
        self._folder = folder
        self._place = place
        self._counters = counters
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Answer from here on, in place of whoever had this place before."""
        path = self._folder / str(self._place)
        path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._answer, path)

    async def close(self) -> None:
        """Answer no more."""
        if self._server is not None:
            self._server.close()

    async def exposition(self) -> bytes:
        """The numbers of every worker as Prometheus text, each with its place as `worker`."""
        places = sorted(path.name for path in self._folder.iterdir())
        read = await asyncio.gather(*(self._ask(place) for place in places))
        found = {place: one for place, one in zip(places, read, strict=True) if one is not None}
        return metrics.exposition(found)

    async def _ask(self, place: str) -> Mapping[str, Any] | None:
        if place == str(self._place):
            return self._counters.reading()
        try:
            async with asyncio.timeout(ANSWER_MAX_S):
                reader, writer = await asyncio.open_unix_connection(
                    self._folder / place, limit=_BYTES_MAX
                )
                try:
                    return msgspec.json.decode(await reader.readuntil(), type=dict[str, Any])
                finally:
                    writer.close()
        except (OSError, EOFError, TimeoutError) as fault:
            log.warning("a worker did not tell its numbers", place=place, fault=repr(fault))
            return None

    async def _answer(self, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(msgspec.json.encode(self._counters.reading()) + b"\n")
        writer.close()

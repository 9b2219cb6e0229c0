"""A whole server whose Redis stands behind a relay of the tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis

from liveroom.store.valkey import EmbeddedValkey
from tests.live import Live, serving
from tests.proxy import Proxy, proxy


@dataclass
class Place:
    """A server, its Redis, and the relay between them."""

    server: Live
    proxy: Proxy
    valkey: EmbeddedValkey
    folder: Path

    @property
    def redis(self) -> redis.Redis:
        """A way to Redis past the relay."""
        return redis.Redis.from_url(self.valkey.url)

    def stop(self) -> None:
        """Stop Redis; its folder is left."""
        self.valkey.stop()

    def start(self) -> None:
        """Start Redis again on the folder it had, whatever is in it."""
        self.valkey = EmbeddedValkey(self.folder / "store")
        self.valkey.start()


@contextmanager
def relayed(folder: Path, *flags: str, **shop: Any) -> Iterator[Place]:
    """Such a server with a shop, whose sums must agree at the end of the block."""
    valkey = EmbeddedValkey(folder / "store")
    at = folder / "relay.sock"
    flags = ("--redis-url", f"unix://{at}", *flags)
    try:
        to = Path(valkey.start().removeprefix("unix://"))
        with proxy(at, to) as relay, serving(folder / "data", *flags, **shop) as live:
            made = Place(live, relay, valkey, folder)
            yield made
            valkey = made.valkey
    finally:
        valkey.stop()

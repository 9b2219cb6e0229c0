"""One process that serves the port: its configuration, its listening, its life around a node.

Workers share one listening socket. One that is full stops accepting, so that those who come
are taken by its siblings, and looks in again now and then: where all are full, somebody must
say 503.

A server that nobody uses should sleep: uvicorn's loop looks ten times a second whether it is
to end, ours is woken.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import functools
import gc
import resource
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, Final, cast

import msgspec
import structlog
import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.server import HANDLED_SIGNALS

from liveroom import logs, server
from liveroom.beats import next_beat
from liveroom.metrics import counters
from liveroom.settings import Settings
from liveroom.siblings import Siblings
from liveroom.wire.door import Door

log = structlog.get_logger(__name__)

BACKLOG: Final = 4096
YOUNG_OBJECTS_MAX: Final = 20_000
FILES_MAX: Final = 1 << 20
FILES_KEPT: Final = 1000
"""Files that no viewer gets: those of the stores, and connections that are refused."""
REST_S: Final = 1.0
"""How long a full worker leaves what comes to the others."""
TICK_S: Final = 1.0
"""How old the Date header of an answer may be."""
FULL_TICK_S: Final = 0.1
"""How soon a worker that was full is seen to have a place again."""


def raise_file_limit() -> None:
    """Let this process and its workers open as many files as they may: each viewer is one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES_MAX if hard == resource.RLIM_INFINITY else hard
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (ValueError, OSError) as fault:
        log.warning("the file limit could not be raised", wanted=wanted, fault=str(fault))


def connections_within_files(wanted: int) -> int:
    """The connections this process can take: `wanted` (0: all it can), within its file limit."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY:
        return wanted
    possible = max(files - FILES_KEPT, files // 2)
    if wanted > possible:
        log.warning("connections_max is above the file limit", connections_max=possible)
    return min(wanted or possible, possible)


class Config(uvicorn.Config):
    """uvicorn's configuration, made from ours; it travels to the workers by pickle.

    `shared` is the folder in which the workers of a server find each other.
    """

    def __init__(self, settings: Settings, shared: Path | None = None) -> None:
        self.settings = settings
        self.shared = shared
        self.place = 0
        self.node: server.Node | None = None
        self.door: Door | None = None
        super().__init__(
            app="liveroom.server:Node",  # load_app makes it
            factory=True,
            loop="uvloop",
            ws_max_size=server.MESSAGE_BYTES_MAX,
            ws_ping_interval=settings.ping_interval_s,
            ws_ping_timeout=settings.ping_interval_s,
            ws_per_message_deflate=False,
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            server_header=False,
            workers=settings.workers,
            forwarded_allow_ips=list(settings.trusted_proxies),
            backlog=BACKLOG,
            timeout_graceful_shutdown=max(1, round(settings.shutdown_max_s)),
        )

    def at(self, place: int) -> Config:
        """The same for the worker at a place, counted from 0."""
        one = copy.copy(self)
        one.place = place
        return one

    def configure_logging(self) -> None:
        """Log as the settings say; a spawned worker calls this before anything else."""
        logs.configure(self.settings.log_level, self.settings.log_format)

    def load(self) -> None:
        """Build this process's node and its protocols; nothing is opened yet."""
        limits = server.limits(self.settings)
        possible = connections_within_files(limits.connections_max)
        self.door = Door(msgspec.structs.replace(limits, connections_max=possible))
        self.http, self.ws = server.protocols(self.door)
        siblings = Siblings(self.shared, self.place, counters) if self.shared else None
        self.node = server.Node(self.settings, self.door, siblings)
        super().load()

    @property
    def is_full(self) -> bool:
        """Whether this process has all the connections it takes."""
        door = self.door
        return bool(
            door and door.limits.connections_max and door.connections >= door.limits.connections_max
        )

    def load_app(self) -> Any:
        """The factory of the node's app."""
        node = self.node
        return lambda: node and node.app


class Server(uvicorn.Server):
    """uvicorn's server with the node's life around it; SIGTERM ends it with status 0."""

    config: Config

    def __init__(self, config: Config, on_ready: Callable[[], None] | None = None) -> None:
        super().__init__(config)
        self._on_ready = on_ready
        self._listener: socket.socket | None = None
        self._rested_s = 0.0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._woken = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the node, then listen."""
        node = self._node
        try:
            await node.start()
        except Exception:
            log.exception("could not start")
            await node.stop()
            raise SystemExit(STARTUP_FAILURE) from None
        look_less_for_cycles()
        if sockets and self.config.workers > 1:
            self._listener = sockets[0].dup()
        await super().startup(sockets)
        if self._on_ready is not None:
            self._on_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Say so at /readyz for `drain_s`, then close the port, the viewers and the node."""
        self._node.drain()
        await self._wait(self.config.settings.drain_s)
        self._node.end_streams()
        if self._listener is not None:
            self._listener.close()
        await super().shutdown(sockets)
        await self._node.stop()

    async def main_loop(self) -> None:
        """Tick once a second, oftener while this worker is full, until the server is to end."""
        self._loop = asyncio.get_running_loop()
        if self._listener is not None and self.config.door is not None:
            self.config.door.on_full = self._woken.set
        while not await self.on_tick(0):  # uvicorn writes the date at every tenth tick from 0
            full = self._listener is not None and (self.config.is_full or not self.servers)
            await next_beat(FULL_TICK_S if full else TICK_S, sooner=self._woken)
            self._woken.clear()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """End, at once: a signal is handled in the middle of anything, also of the loop's wait."""
        super().handle_exit(sig, frame)
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._woken.set)

    async def on_tick(self, counter: int) -> bool:
        """Leave what comes to the other workers while this one is full; whether it is to end.

        One that stays full still comes back now and then, since where all are full somebody
        must say 503.
        """
        loop = asyncio.get_running_loop()
        if self._listener is not None and self.config.is_full and self.servers:
            for one in self.servers:
                one.close()
            self.servers = []
            self._rested_s = loop.time() + REST_S
        elif not self.servers and (not self.config.is_full or loop.time() >= self._rested_s):
            await self._accept_again()
        return await super().on_tick(counter)

    async def _accept_again(self) -> None:
        assert self._listener is not None
        made = functools.partial(
            cast("Callable[..., asyncio.Protocol]", self.config.http_protocol_class),
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
        )
        # A copy, since the loop closes what it listens on.
        loop, listener = asyncio.get_running_loop(), self._listener.dup()
        self.servers = [await loop.create_server(made, sock=listener, backlog=BACKLOG)]

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle SIGTERM and Ctrl-C, and do not raise them again: a drained stop is a success."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in HANDLED_SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @property
    def _node(self) -> server.Node:
        node = self.config.node
        if node is None:
            raise RuntimeError("the configuration is not loaded")
        return node

    async def _wait(self, seconds: float) -> None:
        """Wait, but no longer once a second Ctrl-C asks to stop at once."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while not self.force_exit and (left := until - loop.time()) > 0:  # noqa: ASYNC110 - set by a signal
            await asyncio.sleep(min(left, 0.1))


def look_less_for_cycles() -> None:
    """Let the collector pass over what lives as long as we do, and look at the rest seldom.

    With thousands of seats its default of 700 new objects costs more than the work they are
    for; the house makes few cycles, and counting references frees all else at once.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS_MAX, 10, 10)

"""Processes: one server, or a parent that keeps several workers serving one port.

The parent owns the data folder and the embedded Valkey, brings the database up to date and
makes stock ready before anything listens, and leaves the marks of a planned stop after the
last worker has gone. A worker dies with its parent, and is replaced when it dies. With one
worker there is no parent: the same process does all of it, in the same order.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import functools
import gc
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Final

import structlog
import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.server import HANDLED_SIGNALS
from uvicorn.supervisors import multiprocess

from liveroom import logs, server, stores
from liveroom.errors import Unavailable
from liveroom.settings import BadSetting, Settings, secret_in
from liveroom.store.folder import DataFolder, FolderInUse
from liveroom.store.scripts import StoreUnfit
from liveroom.store.valkey import EmbeddedValkey, StartFailed
from liveroom.wire.door import Door

log = structlog.get_logger(__name__)

_PR_SET_PDEATHSIG: Final = 1
_BACKLOG: Final = 4096
_START_MAX_S: Final = 30
_YOUNG_OBJECTS_MAX: Final = 20_000


def serve(settings: Settings, on_ready: Callable[[str], None]) -> None:
    """Serve until SIGTERM or Ctrl-C, then drain and return.

    `on_ready` gets the server's URL once the port answers. Raises `BadSetting` where a
    setting cannot be used here: a port in use, a data folder that another server holds.
    """
    logs.configure(settings.log_level, settings.log_format)
    signal.signal(signal.SIGTERM, _leave)
    with _owned(settings) as resolved, contextlib.closing(_bind(resolved)) as listener:
        _prepare(resolved)
        config = Config(resolved)
        ready = functools.partial(on_ready, _url(listener))
        if resolved.workers > 1:
            Supervisor(config, listener, ready).run()
        else:
            Server(config, ready).run([listener])
        if settings.redis_url is None:
            asyncio.run(stores.leave_marks(resolved))


def _prepare(settings: Settings) -> None:
    try:
        asyncio.run(stores.prepare(settings))
    except StoreUnfit as unfit:
        raise BadSetting(f"--redis-url: {unfit}") from unfit
    except Unavailable as away:
        raise BadSetting(f"--redis-url and --database-url: {away.message}") from away
    except ValueError as unfit:
        raise BadSetting(f"--database-url: {unfit}") from unfit


def _leave(_number: int, _frame: object) -> None:
    """SIGTERM before there is anything to drain: unwind, and close what is open."""
    raise SystemExit(0)


@contextlib.contextmanager
def _owned(settings: Settings) -> Iterator[Settings]:
    """The settings with every store and the secret filled in, while this process owns them."""
    with contextlib.ExitStack() as stack:
        redis_url = settings.redis_url
        try:
            stack.enter_context(contextlib.closing(DataFolder(settings.data)))
            if redis_url is None:
                valkey = EmbeddedValkey(settings.data)
                stack.callback(valkey.stop)
                redis_url = valkey.start()
                settings.running_redis.write_text(redis_url)
                stack.callback(settings.running_redis.unlink, missing_ok=True)
        except (FolderInUse, StartFailed, OSError) as error:
            raise BadSetting(f"--data: {error}") from error
        secret = settings.secret or secret_in(settings.data)
        yield replace(
            settings, redis_url=redis_url, database_url=settings.database(), secret=secret
        )


def _bind(settings: Settings) -> socket.socket:
    """The socket that will listen. What is set on it, every accepted connection inherits."""
    try:
        [(family, *_, address), *_] = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Unset, the kernel keeps up to 4 MiB for a viewer that never reads.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, settings.socket_send_bytes)
        listener.bind(address)
    except OSError as error:
        where = f"{settings.host}:{settings.port}"
        raise BadSetting(f"--host and --port: cannot listen on {where} ({error})") from error
    listener.set_inheritable(True)
    return listener


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class Config(uvicorn.Config):
    """uvicorn's configuration, made from ours; it travels to the workers by pickle."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.node: server.Node | None = None
        super().__init__(
            app="liveroom.server:Node",  # load_app makes it
            factory=True,
            loop="uvloop",
            ws_max_size=server.FRAME_BYTES_MAX,
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
            backlog=_BACKLOG,
            timeout_graceful_shutdown=max(1, round(settings.shutdown_max_s)),
        )

    def configure_logging(self) -> None:
        """Log as the settings say; a spawned worker calls this before anything else."""
        logs.configure(self.settings.log_level, self.settings.log_format)

    def load(self) -> None:
        """Build this process's node and its protocols; nothing is opened yet."""
        door = Door(server.limits(self.settings))
        self.http, self.ws = server.protocols(door)
        self.node = server.Node(self.settings, door)
        super().load()

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

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the node, then listen."""
        node = self._node
        try:
            await node.start()
        except Exception:
            log.exception("could not start")
            await node.stop()
            raise SystemExit(STARTUP_FAILURE) from None
        _look_less_for_cycles()
        await super().startup(sockets)
        if self._on_ready is not None:
            self._on_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Say so at /readyz for `drain_s`, then close the port, the viewers and the node."""
        self._node.drain()
        await self._wait(self.config.settings.drain_s)
        self._node.end_streams()
        await super().shutdown(sockets)
        await self._node.stop()

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


def _look_less_for_cycles() -> None:
    """Let the collector pass over what lives as long as we do, and look at the rest seldom.

    With thousands of seats its default of 700 new objects costs more than the work they are
    for; the house makes few cycles, and counting references frees all else at once.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS_MAX, 10, 10)


class Process(multiprocess.Process):
    """One worker: our server in it, and dead when its parent is."""

    config: Config

    def __init__(self, config: Config, sockets: list[socket.socket]) -> None:
        self._parent = os.getpid()
        super().__init__(config, sockets)

    @property
    def server(self) -> uvicorn.Server:
        """Our server; uvicorn's own property builds a plain one."""
        if self._server is None:
            self._server = Server(self.config)
        return self._server

    def target(self, sockets: list[socket.socket] | None = None) -> None:
        """Run in the child: tie it to its parent, then serve."""
        die_with_parent(self._parent)
        super().target(sockets)


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when the thread that started it ends (Linux)."""
    libc = ctypes.CDLL(None, use_errno=True)
    prctl = getattr(libc, "prctl", None)
    if prctl is not None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before the call above
        os._exit(1)


class Supervisor(multiprocess.Multiprocess):
    """Keeps `workers` processes serving the port; SIGHUP replaces them one after another."""

    config: Config
    processes: list[multiprocess.Process]

    def __init__(
        self, config: Config, listener: socket.socket, on_ready: Callable[[], None]
    ) -> None:
        super().__init__(config, [listener])
        self._on_ready = on_ready

    def init_processes(self) -> None:
        """Start every worker, and say so once all of them serve."""
        self.processes.extend(self._started() for _ in range(self.processes_num))
        if all(process.wait_until_ready(_START_MAX_S) for process in self.processes):
            self._on_ready()

    def keep_subprocess_alive(self) -> None:
        """Replace every worker that died or no longer answers."""
        for place, process in enumerate(self.processes):
            if self.should_exit.is_set():
                return
            if process.is_alive(timeout=self.config.timeout_worker_healthcheck):
                continue
            process.kill()
            process.join()
            if process.exitcode == STARTUP_FAILURE:
                log.error("a worker could not start; stopping", worker=process.pid)
                self.should_exit.set()
                return
            log.warning("a worker died; replacing it", worker=process.pid, code=process.exitcode)
            self.processes[place] = self._started()

    def restart_all(self) -> None:
        """Replace each worker, the new one serving before the old one drains."""
        for place, old in enumerate(self.processes):
            new = self._started()
            if not new.wait_until_ready(_START_MAX_S, self.should_exit):
                log.error("a new worker was not ready in time; keeping the old one")
                new.kill()
                new.join()
                return
            old.terminate()
            old.join()
            self.processes[place] = new

    def handle_ttin(self) -> None:
        """One worker more."""
        self.processes_num += 1
        self.processes.append(self._started())

    def _started(self) -> Process:
        process = Process(self.config, self.sockets)
        process.start()
        return process

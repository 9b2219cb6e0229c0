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
import importlib.util
import os
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

import structlog
import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import multiprocess

from liveroom import logs, stores
from liveroom.serving import Config, Server, raise_file_limit
from liveroom.settings import SECRET_BYTES_MIN, BadSetting, Settings, secret_in
from liveroom.store.folder import DataFolder, FolderInUse
from liveroom.store.valkey import EmbeddedValkey, StartFailed

log = structlog.get_logger(__name__)

_PR_SET_PDEATHSIG: Final = 1
_START_MAX_S: Final = 30


def serve(settings: Settings, on_ready: Callable[[str], None]) -> None:
    """Serve until SIGTERM or Ctrl-C, then drain and return.

    `on_ready` gets the server's URL once the port answers. Raises `BadSetting` where a
    setting cannot be used here: a port in use, a data folder that another server holds.
    Exits with `STARTUP_FAILURE` where a process could not start; the log says why.
    """
    _check_stripe(settings)
    logs.configure(settings.log_level, settings.log_format)
    signal.signal(signal.SIGTERM, _leave)
    raise_file_limit()
    with _owned(settings) as resolved, contextlib.closing(_bind(resolved)) as listener:
        asyncio.run(stores.check(resolved))
        ready = functools.partial(on_ready, _url(listener))
        try:
            asyncio.run(stores.prepare(resolved))
            _run(resolved, listener, ready)
        finally:
            # Also where nobody was served: carts outlive a start that fails on a bad setting.
            if settings.redis_url is None:
                asyncio.run(stores.leave_marks(resolved))


def _run(settings: Settings, listener: socket.socket, ready: Callable[[], None]) -> None:
    if settings.workers > 1:
        with tempfile.TemporaryDirectory(prefix="liveroom-") as shared:
            supervisor = Supervisor(Config(settings, Path(shared)), listener, ready)
            supervisor.run()
        if supervisor.has_failed:
            raise SystemExit(STARTUP_FAILURE)
    else:
        Server(Config(settings), ready).run([listener])


def _check_stripe(settings: Settings) -> None:
    if not settings.stripe_secret_key:
        return
    if importlib.util.find_spec("stripe") is None:
        raise BadSetting("--stripe-secret-key: it needs pip install 'liveroom[stripe]'")
    if not any(settings.stripe_webhook_secret):
        raise BadSetting("--stripe-webhook-secret: it must be set where --stripe-secret-key is")


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
        if len(secret.encode()) < SECRET_BYTES_MIN:
            log.warning("secret_short", bytes_min=SECRET_BYTES_MIN)
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


class Process(multiprocess.Process):
    """One worker: our server in it, and dead when its parent is."""

    config: Config

    def __init__(self, config: Config, sockets: list[socket.socket]) -> None:
        self._parent = os.getpid()
        self._has_answered = False
        self._may_start_until = time.monotonic() + _START_MAX_S
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

    def wait_until_ready(self, timeout: float, should_exit: threading.Event | None = None) -> bool:
        """Whether it serves within `timeout` seconds."""
        self._has_answered = super().wait_until_ready(timeout, should_exit)
        return self._has_answered

    def is_alive(self, timeout: float = 5) -> bool:
        """Whether it runs and answers within `timeout` seconds.

        One that has not answered yet is still starting, for which it has longer: on a busy
        machine one worker after another would be killed before it ever serves.
        """
        if not self._has_answered and time.monotonic() < self._may_start_until:
            self._has_answered = self.ping(0)
            return self.process.is_alive()
        with contextlib.suppress(OSError, EOFError):  # it has ended
            while self.parent_conn.poll(0):  # answers to what it was asked while it started
                self.parent_conn.recv()
        return super().is_alive(timeout)


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when the thread that started it ends (Linux)."""
    libc = ctypes.CDLL(None, use_errno=True)
    prctl = getattr(libc, "prctl", None)
    if prctl is not None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before the call above
        os._exit(1)


class _Leave(threading.Event):
    """Set once the server is asked to end, also while the asking still waits to be handled."""

    def __init__(self, signals: list[int]) -> None:
        super().__init__()
        self._signals = signals

    def is_set(self) -> bool:
        """Whether it is to end."""
        asked = signal.SIGTERM in self._signals or signal.SIGINT in self._signals
        return asked or super().is_set()


class Supervisor(multiprocess.Multiprocess):
    """Keeps `workers` processes serving the port; SIGHUP replaces them one after another.

    A replacement that is under way ends at once when the server is asked to end.
    """

    config: Config
    processes: list[multiprocess.Process]

    def __init__(
        self, config: Config, listener: socket.socket, on_ready: Callable[[], None]
    ) -> None:
        super().__init__(config, [listener])
        self.should_exit = _Leave(self.signal_queue)
        self._on_ready = on_ready
        self._has_served = False
        self.has_failed = False

    def init_processes(self) -> None:
        """Start every worker, and say so once all of them serve."""
        self.processes.extend(self._started(place) for place in range(self.processes_num))
        if all(process.wait_until_ready(_START_MAX_S) for process in self.processes):
            self._say_ready()

    def _say_ready(self) -> None:
        self._has_served = True
        self._on_ready()

    def keep_subprocess_alive(self) -> None:
        """Replace every worker that died or no longer answers.

        Until all have served once, one that ends by itself ends it all: its settings may be
        wrong, and the next would end the same way. Later a store is away, and the next one may
        find it there. One that was killed is replaced at any time.
        """
        for place, process in enumerate(self.processes):
            if self.should_exit.is_set():
                return
            if process.is_alive(timeout=self.config.timeout_worker_healthcheck):
                continue
            process.kill()
            process.join()
            code = process.exitcode  # of one that was killed, the signal's number below 0
            if code is not None and code >= 0 and not self._has_served:
                log.error("a worker could not start; stopping", worker=process.pid, code=code)
                self.should_exit.set()
                self.has_failed = True
                return
            log.warning("a worker died; replacing it", worker=process.pid, code=code)
            self.processes[place] = self._started(place)
        # One was killed, or too slow, while the others were waited for.
        if not self._has_served and all(process.is_ready() for process in self.processes):
            self._say_ready()

    def restart_all(self) -> None:
        """Replace each worker, the new one serving before the old one drains."""
        for place, old in enumerate(self.processes):
            if self.should_exit.is_set():
                return
            new = self._started(place)
            if not new.wait_until_ready(_START_MAX_S, self.should_exit):
                if not self.should_exit.is_set():
                    log.error("a new worker was not ready in time; keeping the old one")
                new.kill()
                new.join()
                return
            self.processes[place] = new
            old.terminate()
            if not self._has_ended(old):
                self.processes.append(old)  # it drains together with the others
                return

    def _has_ended(self, old: multiprocess.Process) -> bool:
        """Wait for a worker that drains; False when the server is asked to end meanwhile."""
        while old.process.is_alive():
            if self.should_exit.is_set():
                return False
            old.process.join(0.1)
        return True

    def handle_ttin(self) -> None:
        """One worker more."""
        self.processes_num += 1
        self.processes.append(self._started(len(self.processes)))

    def _started(self, place: int) -> Process:
        process = Process(self.config.at(place), self.sockets)
        process.start()
        return process

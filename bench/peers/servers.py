"""The peers: how each is started, which of them are installed, and how it is told to publish."""

from __future__ import annotations

import http.client
import importlib.util
import os
import selectors
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench.peers.load import SOCKETIO
from bench.peers.pace import text_of
from bench.target import cpu_of, raise_file_limit

HERE: Final = Path(__file__).parent
ROOT: Final = HERE.parent.parent
START_MAX_S: Final = 20.0
NCHAN: Final = (
    Path("/usr/lib/nginx/modules/ngx_nchan_module.so"),
    Path("/usr/lib64/nginx/modules/ngx_nchan_module.so"),
)


@dataclass(frozen=True)
class Load:
    """The fan-out that every peer gets."""

    viewers: int
    rate: int
    seconds: int
    event_bytes: int

    @property
    def events(self) -> int:
        """How many are published."""
        return self.rate * self.seconds


def event(number: int, due: float, size: int) -> str:
    """One event as it goes over the wire: the array of a message whose text is padded."""
    text = f"{number} {due:.6f} ".ljust(size, ".")
    at = int(time.time() * 1000)
    return text_of([{"ev": "notice.posted", "seq": number + 1, "at": at, "data": {"text": text}}])


class Server:
    """A peer that runs; `go` lets it publish, from another thread or process."""

    path = "/"

    def __init__(self, command: Sequence[str], load: Load) -> None:
        self._load = load
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)}, preexec_fn=raise_file_limit,  # noqa: PLW1509
        )  # fmt: skip

    @property
    def url(self) -> str:
        """Where it listens; waits until it does."""
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as ready:
            ready.register(self._process.stdout, selectors.EVENT_READ)
            line = self._process.stdout.readline() if ready.select(START_MAX_S) else ""
        if not line.startswith("port "):
            raise RuntimeError(f"{self._process.args!r} did not say where it listens: {line!r}")
        return f"http://127.0.0.1:{int(line.split()[1])}"

    def go(self, start: float) -> None:
        """Publish from `start` on."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"go {start:.6f}\n")
        self._process.stdin.flush()

    def cpu_s(self) -> float:
        """CPU seconds of the peer so far, user and system."""
        return cpu_of(self._process.pid)

    def stop(self) -> None:
        """End it, by force if its stdin's end does not."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(3)
        except subprocess.TimeoutExpired:
            self._process.terminate()
            self._process.wait()
        self._process.stdout.close()


class SocketIo(Server):
    """One that speaks Socket.IO."""

    path = SOCKETIO


class Nginx(Server):
    """nginx with nchan: events are posted to it over one kept connection."""

    path = "/view"

    def __init__(self, command: Sequence[str], load: Load) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="liveroom-nchan-"))
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]
        config = (HERE / "nchan.conf").read_text()
        for name, value in {"@PORT@": str(self._port), "@MODULE@": str(nchan_module())}.items():
            config = config.replace(name, value)
        (self._folder / "nginx.conf").write_text(config)
        self._publisher: threading.Thread | None = None
        super().__init__([*command, "-p", str(self._folder), "-c", "nginx.conf"], load)

    @property
    def url(self) -> str:
        """Where it listens; waits until it does."""
        until = time.monotonic() + START_MAX_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", self._port), timeout=1).close()
            except OSError:
                if self._process.poll() is not None or time.monotonic() > until:
                    raise RuntimeError("nginx did not start; see its words above") from None
                time.sleep(0.02)
            else:
                return f"http://127.0.0.1:{self._port}"

    def go(self, start: float) -> None:
        """Post from `start` on, in a thread."""
        self._publisher = threading.Thread(target=self._publish, args=(start,))
        self._publisher.start()

    def stop(self) -> None:
        """End it, and the folder with its configuration."""
        if self._publisher is not None:
            self._publisher.join()
        self._process.terminate()
        super().stop()
        shutil.rmtree(self._folder)

    def _publish(self, start: float) -> None:
        line = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        for number in range(self._load.events):
            due = start + number / self._load.rate
            time.sleep(max(0.0, due - time.monotonic()))
            line.request("POST", "/post", event(number, due, self._load.event_bytes))
            line.getresponse().read()
        line.close()


@dataclass(frozen=True)
class Peer:
    """One row of the table."""

    name: str
    title: str
    command: tuple[str, ...] = ()
    kind: type[Server] = Server
    missing: str | None = None
    """What would install it; None where it is installed."""


def nchan_module() -> Path | None:
    """Nginx's module, where a distribution puts it."""
    return next((path for path in NCHAN if path.exists()), None)


def peers(load: Load, folder: Path) -> Iterator[Peer]:
    """Every peer, also those that are not installed; `folder` takes what must be compiled."""
    numbers = (str(load.rate), str(load.seconds), str(load.event_bytes))
    yield _floor(load, folder)
    nginx = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    there = nginx is not None and nchan_module() is not None
    yield Peer("nchan", "nchan (nginx, C)", (nginx or "nginx",), Nginx,
               None if there else "apt install nginx libnginx-mod-nchan")  # fmt: skip
    yield _node("ws", "ws (Node)", Server, numbers)
    yield _node("socketio", "Socket.IO (Node)", SocketIo, numbers)
    yield _python("websockets_broadcast", "websockets.broadcast", "websockets", Server, numbers)
    yield _python("socketio_python", "python-socketio", "socketio", SocketIo, numbers)
    yield _python("plain_starlette", "plain Starlette", "starlette", Server, numbers)


def _floor(load: Load, folder: Path) -> Peer:
    binary, compiler = folder / "floor", shutil.which("cc")
    if compiler is None:
        return Peer("floor", "C loop over send()", missing="apt install gcc libc6-dev")
    subprocess.run([compiler, "-O2", "-o", binary, HERE.parent / "floor.c"], check=True)
    size = len(event(load.events, 99_999.0, load.event_bytes))
    sizes = (load.viewers, load.rate, load.seconds, size)
    return Peer("floor", "C loop over send()", (str(binary), "0", *map(str, sizes), "go"))


def _node(name: str, title: str, kind: type[Server], numbers: tuple[str, ...]) -> Peer:
    package = {"ws": "ws", "socketio": "socket.io"}[name]
    node = shutil.which("node")
    there = node is not None and (HERE / "node_modules" / package).is_dir()
    command = (node or "node", str(HERE / f"{name}.mjs"), *numbers)
    return Peer(name, title, command, kind, None if there else "make bench-peers")


def _python(
    name: str, title: str, module: str, kind: type[Server], numbers: tuple[str, ...]
) -> Peer:
    there = importlib.util.find_spec(module) is not None
    command = (sys.executable, "-m", f"bench.peers.{name}", *numbers)
    return Peer(name, title, command, kind, None if there else "make bench-peers")


@contextmanager
def running(peer: Peer, load: Load) -> Iterator[Server]:
    """The peer, started and ended."""
    server: Any = peer.kind(peer.command, load)
    try:
        yield server
    finally:
        server.stop()

"""A whole server as a process of its own, as its users meet it."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx2
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from liveroom.auth import Auth
from liveroom.settings import secret_in

START_MAX_S = 30.0
STOP_MAX_S = 20.0
ANSWER_MAX_S = 10.0


class Live:
    """One `liveroom serve` on a free port over a data folder; started, stopped, killed at will.

    `env` is added to its environment, and not to that of the audit.
    """

    def __init__(self, data: Path, *flags: str, env: dict[str, str] | None = None) -> None:
        self.data = data
        self.flags = flags
        self._env = env or {}
        self.process: subprocess.Popen[str] | None = None
        self.url = ""
        self._said = data.parent / f"{data.name}.log"

    def start(self) -> Live:
        """Start it and wait until it says where it listens."""
        command = [sys.executable, "-m", "liveroom", "serve", "--port", "0"]
        command += ["--data", str(self.data), *self.flags]
        command += [] if {"--sandbox", "--sandbox=false"} & {*self.flags} else ["--sandbox"]
        command += [] if "--drain-s" in self.flags else ["--drain-s", "0"]
        with self._said.open("a") as said:
            self.process = subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=said,
                text=True,
                env=_environment() | self._env,
            )
        line = self._first_line()
        assert line.startswith("liveroom: http://"), self.log()
        self.url = line.removeprefix("liveroom: ").strip()
        return self

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Ask it to stop; its exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        """Wait for its end, which it was asked for; its exit code."""
        assert self.process is not None
        code = self.process.wait(STOP_MAX_S)
        self._forget()
        return code

    def kill(self) -> None:
        """End it as a power cut would, as far as processes go."""
        self.stop(signal.SIGKILL)

    def close(self) -> None:
        """Stop it if it runs."""
        if self.process is not None:
            self.stop()

    def send(self, number: int) -> None:
        """Send its first process a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    def children(self) -> dict[int, str]:
        """The processes it has started, with their command lines."""
        assert self.process is not None
        pids: set[str] = set()
        for task in Path(f"/proc/{self.process.pid}/task").iterdir():
            pids.update((task / "children").read_text().split())
        lines: dict[int, str] = {}
        for pid in pids:
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
                line = Path(f"/proc/{pid}/cmdline").read_text()
                lines[int(pid)] = line.replace("\0", " ")
        return lines

    def workers(self) -> set[int]:
        """The processes that serve its port, where there are several."""
        return {pid for pid, line in self.children().items() if "spawn_main" in line}

    def log(self) -> str:
        """All it has logged."""
        return self._said.read_text()

    def token(self, sub: str, *roles: str, ttl_s: float = 3600) -> str:
        """A token signed with the server's own secret."""
        return Auth(secret_in(self.data)).issue(
            sub, name=sub.title(), roles=list(roles), ttl_s=ttl_s
        )

    def http(self, token: str | None = None) -> httpx2.Client:
        """An HTTP client, signed in where a token is given."""
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        return httpx2.Client(base_url=self.url, headers=headers, timeout=10)

    def audit(self) -> dict[str, Any]:
        """What `liveroom audit --json` finds."""
        command = [sys.executable, "-m", "liveroom", "audit", "--json", "--data", str(self.data)]
        for name, value in pairwise(self.flags):
            command += [name, value] if name in {"--redis-url", "--database-url"} else []
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=60, check=False, env=_environment()
        )
        assert done.returncode in {0, 1}, done.stderr
        assert done.stdout, done.stderr
        report = json.loads(done.stdout.splitlines()[-1])
        assert report["ok"] == (done.returncode == 0)
        return report

    def shop(self, room: str = "r1", *, stock: int = 10, skus: tuple[str, ...] = ("s1",)) -> None:
        """A shop with one product of these SKUs at 19.99, and a live room that shows it."""
        with self.http(self.token("root", "admin")) as root:
            _made(root.post("/v1/shops", json={"id": "shop", "name": "Shop"}))
            _made(root.post("/v1/creators", json={"id": "mia", "name": "Mia", "roles": ["buyer"]}))
            listed = [{"id": sku, "price_minor": 1999, "stock": stock} for sku in skus]
            product = {"id": "p1", "shop": "shop", "title": "Linen trousers", "currency": "CNY"}
            _made(root.post("/v1/products", json={**product, "skus": listed}))
            _made(
                root.post(
                    "/v1/rooms",
                    json={"id": room, "title": "Evening", "host": "mia", "shelf": ["p1"]},
                )
            )
            opened = root.post(f"/v1/rooms/{room}/commands", json={"cmd": "room.open", "data": {}})
            assert opened.status_code == 200, opened.text

    def _first_line(self) -> str:
        assert self.process is not None
        assert self.process.stdout is not None
        until = time.monotonic() + START_MAX_S
        while (left := until - time.monotonic()) > 0:
            if select.select([self.process.stdout], [], [], left)[0]:
                return self.process.stdout.readline()
        return ""

    def _forget(self) -> None:
        assert self.process is not None
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.process = None


@contextlib.contextmanager
def serving(data: Path, *flags: str, **shop: Any) -> Iterator[Live]:
    """A server with a shop, whose sums must agree at the end of the block."""
    live = Live(data, *flags)
    try:
        live.start()
        live.shop(**shop)
        yield live
        report = live.audit()
        assert report["ok"], report
    finally:
        live.close()


def _environment() -> dict[str, str]:
    """Ours without settings of the machine's own, and with the house on the path."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LIVEROOM_")}
    return kept | {"PYTHONPATH": str(Path(__file__).parent.parent), "PYTHONUNBUFFERED": "1"}


def _made(answer: httpx2.Response) -> None:
    assert answer.status_code == 201, answer.text


class Said(Exception):
    """A refusal on the wire."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(error["code"])
        self.code = error["code"]
        self.error = error


class Seat:
    """One raw WebSocket in a room: no SDK between the test and the wire (JSON)."""

    def __init__(self, server: Live, room: str = "r1", **more: Any) -> None:
        url = server.url.replace("http://", "ws://") + f"/ws/{room}"
        self._open = contextlib.ExitStack()
        connection = connect(url, subprotocols=["liveroom.v1.json"], **more)
        self.socket = self._open.enter_context(connection)
        self.heard: list[dict[str, Any]] = []
        self._last_id = 0
        self._waiting: deque[dict[str, Any]] = deque()

    def join(self, token: str | None = None, **data: Any) -> dict[str, Any]:
        """The `ok` of room.join."""
        return self.do("room.join", **({} if token is None else {"token": token}), **data)

    def do(self, cmd: str, **data: Any) -> dict[str, Any]:
        """Send a command; its `ok`, or the refusal raised. Events meanwhile are heard later."""
        self._last_id += 1
        self.send({"id": self._last_id, "cmd": cmd, "data": data})
        return self.reply(self._last_id)

    def send(self, frame: Any) -> None:
        """Send any frame: text and bytes as they are, anything else as JSON."""
        self.socket.send(frame if isinstance(frame, str | bytes) else json.dumps(frame))

    def reply(self, number: int | None) -> dict[str, Any]:
        """The answer to the command of this id."""
        while True:
            for message in self._frame():
                if "ev" in message:
                    self._waiting.append(message)
                elif message["re"] == number:
                    if "error" in message:
                        raise Said(message["error"])
                    return message["ok"]

    def refusal(self, cmd: str, **data: Any) -> str:
        """The code with which a command is refused."""
        with pytest.raises(Said) as refused:
            self.do(cmd, **data)
        return refused.value.code

    def hear(self, name: str, fits: Callable[[Any], bool] = lambda _: True) -> dict[str, Any]:
        """The next event of this name whose data fits; all events before it are in `heard`."""
        while True:
            while self._waiting:
                event = self._waiting.popleft()
                self.heard.append(event)
                if event["ev"] == name and fits(event["data"]):
                    return event
            self._waiting.extend(message for message in self._frame() if "ev" in message)

    def closed(self) -> int:
        """Read until the server closes; the close code."""
        with contextlib.suppress(ConnectionClosed):
            while True:
                self.socket.recv(timeout=ANSWER_MAX_S)
        assert self.socket.close_code is not None
        return self.socket.close_code

    def leave(self) -> None:
        """Close the connection."""
        self._open.close()

    def _frame(self) -> list[dict[str, Any]]:
        return json.loads(self.socket.recv(timeout=ANSWER_MAX_S))

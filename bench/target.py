"""The server under load: our own on a temporary data folder, or one that is named by URL."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from http import HTTPStatus
from http.client import HTTPException
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import ProxyHandler, Request, build_opener

import jwt

START_MAX_S: Final = 60.0
STOP_MAX_S: Final = 30.0
LOOK_MAX_S: Final = 10.0
TOKEN_TTL_S: Final = 24 * 3600
_ROOT: Final = Path(__file__).parent.parent
_TICKS: Final = os.sysconf("SC_CLK_TCK")
_NO_LIMITS: Final = (
    "--message-rate-max=0", "--connections-max=0", "--connections-per-address-max=0",
    "--connections-per-member-max=0", "--handshakes-per-s-max=0",
    "--drain-s=0", "--drain-spread-s=0", "--log-level=warning",
)  # fmt: skip
_BAD_USAGE: Final = 2
_opener = build_opener(ProxyHandler({}))


class Unusable(Exception):
    """The server cannot be measured as it was named; the message begins with the flag."""


class Target:
    """A server to be measured; used as a context manager.

    Without `url` it starts `liveroom serve` with `flags`, without limits, on a data folder
    that is deleted at the end. With `url`, `secret` must be that server's. `program` is a
    module that does what `liveroom` does, and more.
    """

    def __init__(
        self,
        url: str | None = None,
        secret: str | None = None,
        flags: tuple[str, ...] = (),
        *,
        program: str = "liveroom",
    ) -> None:
        self.url = (url or "").rstrip("/")
        self.secret = secret or secrets.token_urlsafe(48)
        self._own = url is None
        self._flags = flags
        self._program = program
        self._process: subprocess.Popen[str] | None = None
        self._folder: Path | None = None

    def __enter__(self) -> Self:
        if self._own:
            self._folder = Path(tempfile.mkdtemp(prefix="liveroom-bench-"))
            try:
                self.start()
            except BaseException:
                self.__exit__(None, None, None)
                raise
        else:
            self._look()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process is not None:
            self.stop()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def start(self) -> None:
        """Start our own server and wait until it says where it listens."""
        assert self._folder is not None
        port = urlsplit(self.url).port or 0  # after a kill the port it had
        command = [sys.executable, "-m", self._program, "serve", f"--port={port}", "--sandbox"]
        named = {flag.partition("=")[0] for flag in self._flags}
        command += [f"--data={self._folder / 'data'}"]
        command += [flag for flag in _NO_LIMITS if flag.partition("=")[0] not in named]
        command += self._flags
        environment = {n: v for n, v in os.environ.items() if not n.startswith("LIVEROOM_")}
        environment |= {"LIVEROOM_SECRET": self.secret, "PYTHONPATH": str(_ROOT)}
        environment |= {"PYTHONUNBUFFERED": "1"}
        log = self._folder / "server.log"
        with log.open("a") as said:
            self._process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=said, text=True, env=environment,
                start_new_session=True, preexec_fn=raise_file_limit,  # noqa: PLW1509
            )  # fmt: skip
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line.startswith("liveroom: http"):
            said = log.read_text()[-2000:]
            if not line and self._process.wait(STOP_MAX_S) == _BAD_USAGE:
                raise Unusable(f"--server: {said.strip()}")
            raise RuntimeError(f"The server did not start:\n{said}")
        self.url = line.removeprefix("liveroom: ").strip()

    def stop(self) -> None:
        """Stop our own server, by force if it takes too long."""
        assert self._process is not None
        assert self._process.stdout is not None
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_MAX_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._process = None

    def signal(self, number: int) -> None:
        """Send a signal to the process of our own server that was started."""
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL for every process of our own server, and its store, at once."""
        assert self._process is not None
        assert self._process.stdout is not None
        for pid in _family(self._process.pid):
            _kill(pid)
        self._process.wait()
        self._process.stdout.close()
        self._process = None

    def kill_valkey(self) -> None:
        """SIGKILL for the store of our own server; what starts it again is the server's."""
        assert self._process is not None
        pids = [pid for pid in _family(self._process.pid) if _stat(pid)[0].startswith("valkey")]
        if not pids:
            raise RuntimeError("The server has no Valkey of its own.")
        for pid in pids:
            _kill(pid)

    def redis_url(self) -> str:
        """Where our own server's Valkey listens."""
        assert self._folder is not None
        return (self._folder / "data" / "redis.url").read_text()

    def token(self, sub: str, *roles: str) -> str:
        """A token for this server."""
        return sign(self.secret, sub, *roles)

    def http(self, method: str, path: str, body: Any = None) -> Any:
        """One request as admin; its JSON. Raises on any refusal."""
        headers = {"Authorization": f"Bearer {self.token('bench', 'admin')}"}
        content = None if body is None else json.dumps(body).encode()
        if content is not None:
            headers["Content-Type"] = "application/json"
        request = Request(self.url + path, content, headers, method=method)
        try:
            with _opener.open(request, timeout=60) as answer:
                return json.loads(answer.read() or b"null")
        except HTTPError as refusal:
            if refusal.code == HTTPStatus.UNAUTHORIZED and not self._own:
                raise Unusable(f"--secret: it is not that of {self.url}") from refusal
            raise RuntimeError(f"{method} {path}: {refusal.read().decode()}") from refusal

    def _look(self) -> None:
        """Refuse a named server that is not there, before anything is built for it."""
        try:
            with _opener.open(self.url + "/livez", timeout=LOOK_MAX_S):
                pass
        except (OSError, HTTPException) as fault:
            why = getattr(fault, "reason", fault)
            raise Unusable(f"--url: {self.url} does not answer: {why}") from fault

    def room(self, room: str, *, stock: int = 1000) -> tuple[str, str]:
        """A live room with one product of one SKU; the room's and the SKU's id."""
        mark = secrets.token_hex(4)
        room, sku = f"{room}-{mark}", f"sku-{mark}"
        self.http("POST", "/v1/shops", {"id": f"shop-{mark}", "name": "Bench"})
        self.http("POST", "/v1/creators", {"id": f"host-{mark}", "name": "Bench"})
        skus = [{"id": sku, "price_minor": 1999, "stock": stock}]
        product = {"id": f"product-{mark}", "shop": f"shop-{mark}", "title": "Bench"}
        self.http("POST", "/v1/products", product | {"currency": "CNY", "skus": skus})
        shelf = {"shelf": [product["id"]]}
        self.http(
            "POST", "/v1/rooms", {"id": room, "title": "Bench", "host": f"host-{mark}"} | shelf
        )
        self.http("POST", f"/v1/rooms/{room}/commands", {"cmd": "room.open", "data": {}})
        return room, sku

    def cpu_s(self) -> dict[str, float] | None:
        """CPU seconds so far (user + system): `server` (its Python processes) and `store`.

        None for a server that is not ours.
        """
        if self._process is None:
            return None
        spent = {"server": 0.0, "store": 0.0}
        for pid in _family(self._process.pid):
            name, ticks = _stat(pid)
            spent["store" if name.startswith("valkey") else "server"] += ticks / _TICKS
        return spent

    def spent_since(self, before: dict[str, float] | None) -> dict[str, float]:
        """CPU seconds since `before`; empty for a server that is not ours."""
        now = self.cpu_s()
        if now is None or before is None:
            return {}
        return {name: now[name] - before[name] for name in now}

    def memory_bytes(self) -> int | None:
        """Resident bytes of the server's Python processes; None for one that is not ours."""
        if self._process is None:
            return None
        pids = [p for p in _family(self._process.pid) if not _stat(p)[0].startswith("valkey")]
        pages = (int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids)
        return sum(pages) * resource.getpagesize()


def sign(secret: str, sub: str, *roles: str) -> str:
    """A token as `liveroom token` would print it."""
    now = int(time.time())
    claims = {"sub": sub, "name": sub, "roles": list(roles), "iat": now, "exp": now + TOKEN_TTL_S}
    return jwt.encode(claims, secret, algorithm="HS256")


def cpu_of(pid: int) -> float:
    """CPU seconds (user + system) of a process and all that it started and still run."""
    return sum(_stat(one)[1] for one in _family(pid)) / _TICKS


def raise_file_limit() -> None:
    """Let this process open as many files as it may."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _family(pid: int) -> list[int]:
    """A process and all its descendants."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue  # it ended meanwhile
            parents.setdefault(parent, []).append(int(entry.name))
    found, next_ = [], [pid]
    while next_:
        found.append(next_.pop())
        next_ += parents.get(found[-1], [])
    return found


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):  # its parent's end was its own
        os.kill(pid, signal.SIGKILL)


def _stat(pid: int) -> tuple[str, int]:
    """A process's name and its CPU ticks."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return "", 0
    fields = text.rpartition(")")[2].split()
    return text[text.index("(") + 1 : text.rindex(")")], int(fields[11]) + int(fields[12])

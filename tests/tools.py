"""What tests need of the machine beyond Python: PostgreSQL, a C compiler."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any, NoReturn

import pytest

PG_HOME = Path("/usr/lib/postgresql")


def lacks(tool: str) -> NoReturn:
    """Skip the test that needs this tool; fail it where every tool must be there."""
    if os.environ.get("LIVEROOM_REQUIRE_TOOLS") == "1":
        pytest.fail(f"needs {tool}: make tools")
    pytest.skip(f"needs {tool}")


def compiled(source: Path, into: Path) -> Path:
    """A shared library for LD_PRELOAD, compiled from a C file of ours."""
    cc = shutil.which("cc")
    if cc is None:
        lacks("a C compiler")
    library = into / f"{source.stem}.so"
    options = ["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", library, source, "-ldl"]
    subprocess.run([cc, *map(str, options)], check=True)
    return library


class Postgres:
    """A PostgreSQL cluster of our own on a unix socket, in a short folder that `close` removes."""

    def __init__(self, *options: str) -> None:
        found = {int(p.parents[1].name): p.parent for p in PG_HOME.glob("[0-9]*/bin/initdb")}
        if max(found, default=0) < 15:
            lacks(f"PostgreSQL 15 or later in {PG_HOME}")
        self._binaries = found[max(found)]
        user = "postgres" if os.getuid() == 0 else pwd.getpwuid(os.getuid()).pw_name
        self._as_user: dict[str, Any] = {"user": user} if os.getuid() == 0 else {}
        self._options = options
        self.folder = Path(tempfile.mkdtemp(prefix="liveroom-pg-"))
        if self._as_user:
            shutil.chown(self.folder, user)
        data = self.folder / "data"
        self._call("initdb", "-D", data, "-U", "postgres", "-A", "trust", "-N")

    @property
    def url(self) -> str:
        """Its maintenance database."""
        return f"postgresql://postgres@/postgres?host={self.folder}"

    @property
    def socket(self) -> Path:
        """The unix socket it listens on."""
        return self.folder / ".s.PGSQL.5432"

    def start(self) -> None:
        """Start it and wait until it answers."""
        options = [f"-k {self.folder}", "-c listen_addresses=", "-c shared_buffers=32MB"]
        options += [f"-c {option}" for option in self._options]
        self._control("-o", " ".join(options), "start")

    def kill(self) -> None:
        """End it as a crash would: nothing is written out."""
        self._control("-m", "immediate", "stop")

    def close(self) -> None:
        """End it if it runs, and remove all of it."""
        if (self.folder / "data" / "postmaster.pid").exists():
            self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def fresh(self, name: str = "liveroom_test") -> str:
        """The URL of a new, empty database of that name; the one before is dropped."""
        import psycopg  # noqa: PLC0415 - an extra, installed with PostgreSQL only

        with psycopg.connect(self.url, autocommit=True) as admin:
            admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
            admin.execute(f"CREATE DATABASE {name}")
        return self.url.replace("/postgres?", f"/{name}?")

    def _control(self, *words: str) -> None:
        self._call("pg_ctl", "-D", self.folder / "data", "-w", "-l", self.folder / "log", *words)

    def _call(self, name: str, *words: object) -> None:
        subprocess.run(
            [self._binaries / name, *map(str, words)],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd=self.folder,
            **self._as_user,
        )

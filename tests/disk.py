"""A disk of the tests' own (tests/faults/disk.c): full, failing, or cut from its power."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from tests.tools import compiled

SOURCE = Path(__file__).parent / "faults" / "disk.c"


class Disk:
    """What lies under `root`, and what of it would survive a power cut."""

    def __init__(self, folder: Path, root: Path) -> None:
        self.root = root.resolve()
        self._synced = folder / "synced"
        self._fault = folder / "fault"
        self._synced.mkdir()
        self._library = compiled(SOURCE, folder)

    @property
    def env(self) -> dict[str, str]:
        """What a process needs in its environment to write to this disk."""
        return {
            "LD_PRELOAD": str(self._library),
            "DISK_ROOT": str(self.root),
            "DISK_SYNCED": str(self._synced),
            "DISK_FAULT": str(self._fault),
        }

    @contextlib.contextmanager
    def failing(self, how: str) -> Iterator[None]:
        """Until the end of the block it is `full`, or every sync is an `eio`."""
        self._fault.write_text(how)
        yield
        self._fault.unlink()

    def after_a_power_cut(self, into: Path) -> Path:
        """Build in `into` what was synced, and nothing else; no process may run any more."""
        into.mkdir(mode=0o700)
        self._build(self._id_of(self.root), into)
        return into

    def _build(self, folder: str, into: Path) -> None:
        names = self._synced / f"d-{folder}"
        for line in names.read_text().splitlines() if names.exists() else ():
            kind, one, name = line.split(" ", 2)
            if kind == "d":
                (into / name).mkdir(mode=0o700)
                self._build(one, into / name)
            elif kind == "f":
                kept = self._synced / f"f-{one}"
                (into / name).write_bytes(kept.read_bytes() if kept.exists() else b"")
                (into / name).chmod(0o600)

    def _id_of(self, folder: Path) -> str:
        [found] = [
            path.name[2:]
            for path in self._synced.glob("d-*")
            if path.name[2:].split("-")[0] == str(folder.stat().st_ino)
        ]
        return found

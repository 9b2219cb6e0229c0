"""The data folder: made private, and held by one server at a time."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


class FolderInUse(Exception):
    """Another server holds the folder."""


class DataFolder:
    """The folder all embedded state lives in, held with flock until `close` or the process ends.

    Raises `FolderInUse` when another server holds it, and OSError when it cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.expanduser().resolve()
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = os.open(
            self.path / "server.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
        )
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            self._lock = -1
            raise FolderInUse(f"another server holds the data folder {self.path}") from None

    def close(self) -> None:
        """Let another server take the folder. Closing twice does nothing."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

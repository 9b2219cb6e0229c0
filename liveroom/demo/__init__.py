"""The demo: one real server with a seeded shop, a live room and a crowd, from one command.

The server runs in this process as `liveroom serve` would; shops, products and everything that
happens in the room go through its public API, from a second process, so the demo shows
nothing that a user of the API could not do. It ends with Ctrl-C or SIGTERM, crowd first.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import shutil
from dataclasses import dataclass, replace
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.panel import Panel
from rich.text import Text

from liveroom import supervisor
from liveroom.auth import Auth
from liveroom.demo.crowd import play
from liveroom.demo.script import load
from liveroom.demo.seed import seed
from liveroom.settings import BadSetting, Settings, secret_in
from liveroom.store.folder import DataFolder, FolderInUse

MARKER: Final = "demo"
"""A file that tells a demo's data folder from any other: only such a folder is emptied."""
TOKEN_TTL_S: Final = 30 * 24 * 3600.0
_STOP_MAX_S: Final = 5.0


@dataclass(frozen=True)
class Stage:
    """What the crowd's process is told."""

    url: str
    settings: Settings
    crowd: int


def run(settings: Settings, *, crowd: int, fresh: bool) -> None:
    """Serve the demo until Ctrl-C or SIGTERM.

    With `fresh` the demo of before is forgotten. Raises `BadSetting` where the data folder
    or the port cannot be used.
    """
    data = _folder(settings.data.expanduser().resolve(), fresh=fresh)
    quiet = "warning" if settings.log_level == Settings.log_level else settings.log_level
    used = replace(settings, data=data, log_level=quiet)
    playing: list[SpawnProcess] = []

    def on_ready(url: str) -> None:
        # Spawned, not forked: the server's threads and sockets stay with the server.
        process = multiprocessing.get_context("spawn").Process(
            target=_play, args=(Stage(url, used, crowd), os.getpid()), daemon=True
        )
        process.start()
        playing.append(process)

    try:
        supervisor.serve(used, on_ready)
    finally:
        for process in playing:
            process.terminate()
            process.join(_STOP_MAX_S)


def _play(stage: Stage, parent: int) -> None:
    """The crowd's process: seed, say where to look, and play until it is ended."""
    supervisor.die_with_parent(parent)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_show(stage))


async def _show(stage: Stage) -> None:
    script = load()
    room = await seed(stage.url, _token(stage.settings, "demo", "Demo", ["admin"]), script)
    roles = [f"host:{room}", *(f"merchant:{shop['id']}" for shop in script.shops)]
    host = _token(stage.settings, script.host, script.host_name, roles)
    _say_where(stage, room, host)
    await play(stage.url, room, host, script, crowd=stage.crowd)


def _token(settings: Settings, sub: str, name: str, roles: list[str]) -> str:
    secret = settings.secret or secret_in(settings.data)
    auth = Auth(secret, issuer=settings.issuer, audience=settings.audience)
    return auth.issue(sub, name=name, roles=roles, ttl_s=TOKEN_TTL_S)


def _say_where(stage: Stage, room: str, host: str) -> None:
    viewer, console = f"{stage.url}/room/{room}", f"{stage.url}/console/{room}#token={host}"
    screen = Console(highlight=False)
    if not screen.is_terminal:
        print(f"viewer:  {viewer}\nconsole: {console}", flush=True)  # noqa: T201
        return
    words = Text()
    words.append("Watch and buy   ", style="dim")
    words.append(f"{viewer}\n", style=f"bold link {viewer}")
    words.append("Host console    ", style="dim")
    # A link of its own: a terminal that wraps the long token would break it otherwise.
    words.append(f"{stage.url}/console/{room}", style=f"bold link {console}")
    words.append("  (ctrl-click, or the whole line below)\n\n", style="dim")
    words.append(f"{stage.crowd} visitors are in the room. Pin something in the console and the ")
    words.append("host bot steps back. Ctrl-C ends the demo; the next start goes on from here.")
    screen.print(Panel(words, title="liveroom", border_style="red", expand=False))
    screen.print(console, soft_wrap=True, style="dim")


def _folder(data: Path, *, fresh: bool) -> Path:
    """The demo's data folder, emptied with `fresh`; never a folder that others have filled."""
    ours = not data.is_dir() or not any(data.iterdir()) or (data / MARKER).is_file()
    if fresh and not ours:
        raise BadSetting(f"--fresh: {data} holds other things than a demo's; nothing was deleted")
    try:
        with contextlib.closing(DataFolder(data)):
            if fresh:
                _empty(data)
            if ours:
                (data / MARKER).touch()
    except (FolderInUse, OSError) as error:
        raise BadSetting(f"--data: {error}") from error
    return data


def _empty(data: Path) -> None:
    for entry in data.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        elif entry.name not in {"server.lock", "secret"}:  # open pages keep their tokens
            entry.unlink()

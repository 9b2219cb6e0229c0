"""What a viewer weighs, line by line: `python -m bench.weight --viewers 4000`.

The server runs with tracemalloc, which names the line that allocated each block Python still
holds; between a first few viewers, which fill caches and pools, and the last, what each line
grew by is divided by the viewers. What the process grew by beyond that (tracing itself left
out) is C's: uvloop's handles and its buffers.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import tempfile
import time
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from bench.crew import Boss, Crew
from bench.seat import Seat, join
from bench.target import Target
from liveroom.cli import main as liveroom

CONNECTS_AT_ONCE: Final = 50
WEIGHED_MAX_S: Final = 60.0
LINES: Final = 18
_FILE: Final = "WEIGHT_FILE"
_ROOT: Final = Path(__file__).parent.parent


def serve(words: list[str]) -> int:
    """`liveroom` with these words, weighing itself whenever it gets SIGUSR2."""
    tracemalloc.start()
    signal.signal(signal.SIGUSR2, lambda *_: _weigh(Path(os.environ[_FILE])))
    return liveroom(words)


def _weigh(path: Path) -> None:
    snapshot = tracemalloc.take_snapshot()
    lines: Counter[str] = Counter()
    for one in snapshot.statistics("lineno"):
        frame = one.traceback[0]
        lines[f"{_short(frame.filename)}:{frame.lineno}"] += one.size
    part = path.with_suffix(".part")
    part.write_text(json.dumps(lines))
    part.rename(path)


def _short(name: str) -> str:
    """The file's name within its package."""
    roots = (root for root in sorted((str(_ROOT), *sys.path), key=len, reverse=True) if root)
    return next((name[len(root) + 1 :] for root in roots if name.startswith(root)), name)


def measure(
    viewers: int, *, few: int = 500, members: bool = False, console: Console
) -> dict[str, Any]:
    """Bytes of each viewer, of the heaviest lines and of all; `few` come before the first weighing.

    `members` have tokens, the others are guests.
    """
    with _traced() as (target, weigh):
        room, _ = target.room("weight")
        spec = {"url": target.url, "room": room, "few": few, "viewers": viewers + few}
        spec["tokens"] = [target.token(f"m{at}") for at in range(viewers + few)] if members else []
        crew = Crew(_work, [spec], console)
        try:
            crew.hear("the first", few)
            before = weigh()
            crew.say("the others")
            crew.hear("seating", viewers + few)
            after = weigh()
            crew.say("leave")
        finally:
            crew.close()
    grown = Counter(after)
    grown.subtract(before)
    lines = {line: round(size / viewers, 1) for line, size in grown.most_common(LINES)}
    return {"lines": lines, "all": round(grown.total() / viewers)}


@contextmanager
def _traced() -> Iterator[tuple[Target, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weight.json"
        os.environ[_FILE] = str(path)
        with Target(program="bench.weight") as target:

            def weigh() -> Any:
                path.unlink(missing_ok=True)
                target.signal(signal.SIGUSR2)
                until = time.monotonic() + WEIGHED_MAX_S
                while not path.exists():
                    if time.monotonic() > until:
                        raise RuntimeError("The server did not weigh itself.")
                    time.sleep(0.05)
                return json.loads(path.read_text())

            yield target, weigh


async def _work(spec: dict[str, Any], boss: Boss) -> int:
    """The load process: a few viewers, then all of them."""
    gate = asyncio.Semaphore(CONNECTS_AT_ONCE)
    seats: list[Seat] = []

    async def one(number: int) -> None:
        token = spec["tokens"][number] if spec["tokens"] else None
        async with gate:
            seat, _ = await join(spec["url"], spec["room"], number, token)
        seats.append(seat)
        if len(seats) % 100 == 0:
            boss.progress(len(seats))

    await asyncio.gather(*(one(number) for number in range(spec["few"])))
    await boss.go()
    await asyncio.gather(*(one(number) for number in range(spec["few"], spec["viewers"])))
    await boss.go()
    return len(seats)


def _show(found: dict[str, Any], console: Console) -> None:
    table = Table("line", "bytes a viewer", title="What a viewer weighs", title_justify="left")
    for line, size in found["lines"].items():
        table.add_row(line, f"{size:,.1f}")
    table.add_section()
    table.add_row("all", f"{found['all']:,}")
    console.print(table)


def main() -> int:
    """Weigh, and print a table or one line of JSON."""
    if sys.argv[1:2] == ["serve"]:
        return serve(sys.argv[1:])
    parser = argparse.ArgumentParser(prog="python -m bench.weight", description=__doc__)
    parser.add_argument("--viewers", type=int, default=4000)
    parser.add_argument("--members", action="store_true", help="with tokens, not guests")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    found = measure(asked.viewers, members=asked.members, console=Console(stderr=True))
    if asked.json:
        print(json.dumps(found))
    else:
        _show(found, Console(highlight=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())

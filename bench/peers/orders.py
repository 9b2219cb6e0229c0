"""The flash sale of `drop` on a plain server: the same buyers, the same load, one row beside ours.

The plain server is `plain_orders.py`, with a Valkey of its own that is set up as ours is.
"""

from __future__ import annotations

import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.crew import Boss, Crew
from bench.latency import Bins
from bench.peers.servers import Load, Server
from bench.target import cpu_of
from liveroom.store.valkey import EmbeddedValkey

Work = Callable[[dict[str, Any], Boss], Any]


def run(work: Work, specs: list[dict[str, Any]], units: int, console: Console) -> dict[str, Any]:
    """`plain_<figure>` of one sale: orders a second, latency, CPU, and orders on disk."""
    with tempfile.TemporaryDirectory(prefix="liveroom-plain-") as folder:
        valkey = EmbeddedValkey(Path(folder))
        path = Path(folder) / "orders.db"
        url = valkey.start()
        try:
            command = [sys.executable, "-m", "bench.peers.plain_orders", str(path), url, str(units)]
            server = Server(command, Load(0, 0, 0, 0))
            try:
                figures = _sell(server, valkey, work, specs, console)
            finally:
                server.stop()
        finally:
            valkey.stop()
        with closing(sqlite3.connect(path)) as db:
            [(figures["plain_on_disk"],)] = db.execute("SELECT count(*) FROM orders")
    return figures


def _sell(
    server: Server,
    valkey: EmbeddedValkey,
    work: Work,
    specs: list[dict[str, Any]],
    console: Console,
) -> dict[str, Any]:
    url = server.url
    crew = Crew(work, [spec | {"url": url} for spec in specs], console)
    try:
        crew.hear("connecting", sum(len(spec["numbers"]) for spec in specs))
        before = server.cpu_s(), cpu_of(valkey.pid or 0)
        crew.say(time.monotonic() + 0.5)
        results = crew.hear("ordering", 0)
        spent = server.cpu_s() - before[0], cpu_of(valkey.pid or 0) - before[1]
    finally:
        crew.close()
    orders = max(1, sum(len(one["acked"]) for one in results))
    took = max(one["last_ok"] for one in results) - min(one["began"] for one in results)
    bins = Bins().merge(Bins(one["bins"]) for one in results)
    return {
        "plain_orders": sum(len(one["acked"]) for one in results),
        "plain_orders_per_s": round(orders / took),
        **bins.figures("plain_"),
        "plain_server_cpu_us_per_order": round(spent[0] / orders * 1e6, 1),
        "plain_store_cpu_us_per_order": round(spent[1] / orders * 1e6, 1),
    }

"""What a server has written down in the end, and whether it bears out what clients were told."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from bench.checker import Books, check, read_books
from bench.history import Line, save
from tests.live import Live


def books_agree(
    server: Live,
    history: Iterable[Line],
    stock: Mapping[str, int],
    *,
    limits: Mapping[str, int] | None = None,
    prices: Mapping[str, int] | None = None,
    name: str = "history",
) -> Books:
    """The books of these pools, which bear out every line; else the history is kept in a file.

    `stock` is how many units each pool began with, by `sku:…` or `drop:…`.
    """
    lines = list(history)
    skus = [pool.removeprefix("sku:") for pool in stock if pool.startswith("sku:")]
    with server.http(server.token("root", "admin")) as root:

        def get(path: str) -> Any:
            answer = root.get(path)
            assert answer.status_code == 200, answer.text
            return answer.json()

        books = read_books(get, "r1", *skus)
    assert {"invoke", "ok"} <= {line.what for line in lines}, "there is nothing to compare"
    found = check(lines, books, stock=stock, limits=limits, prices=prices)
    if any(found.values()):
        path = server.data.parent / f"{name}.jsonl"
        save(path, lines)
        wrong = {fault: said[:3] for fault, said in found.items() if said}
        raise AssertionError(f"{wrong}\nhistory: {path}")
    return books


def audited(server: Live) -> None:
    """The audit of the running server finds nothing, and could look at the gates too."""
    with server.http(server.token("root", "admin")) as root:
        report = root.get("/v1/audit").json()
    assert report["ok"], report
    assert "note" not in report["checks"]["I3"], "the gates were not checked"

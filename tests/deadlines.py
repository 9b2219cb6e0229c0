"""Whether holds ended in time, by what their buyers were told and what others could have.

A deadline is the server's, in milliseconds of its clock; a history has monotonic seconds of the
clients'. Both must run on one machine, on which clocks do not step meanwhile.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Iterable
from typing import Any

from bench.history import Line


def untimely(
    lines: Iterable[Line], *, sku: str, stock: int, early_ms: int, late_ms: int
) -> list[str]:
    """Each hold that ended more than `early_ms` before its deadline, or `late_ms` after it.

    The history must have every order of the SKU, and every `cart.add`, `cart.show`, `cart.remove`
    and `cart.checkout` of its buyers; and `hold.expired` as `saw`, with the event's `data`. A
    hold that its buyer ended, or that a rebuild did (`why`), has no deadline any more.
    """
    timer = _Timer(sku, stock, early_ms, late_ms)
    for line in lines:
        timer.take(line)
    timer.end()
    return timer.found


class _Timer:
    def __init__(self, sku: str, stock: int, early_ms: int, late_ms: int) -> None:
        self.found: list[str] = []
        self._sku, self._stock = sku, stock
        self._early_ms, self._late_ms = early_ms, late_ms
        self._to_wall_s = time.time() - time.monotonic()
        self._open: dict[int, Line] = {}
        self._held: dict[str, dict[str, Any]] = {}
        """The cart line of each buyer, until it is known to be gone."""
        self._due: list[tuple[int, str]] = []
        self._free_again: set[tuple[int, str]] = set()
        self._kept = self._sold = 0

    def take(self, line: Line) -> None:
        """The next line."""
        if line.what == "invoke":
            self._open[line.call] = line
            if line.op in {"cart.remove", "cart.checkout"}:
                self._forget(line.client)
        elif line.what == "saw" and line.op == "hold.expired":
            self._told(line)
        elif line.what == "ok":
            asked = self._open.pop(line.call)
            if line.op in {"cart.add", "cart.show"}:
                self._shown(asked, line)
            elif line.op == "order.place":
                self._bought(line)

    def end(self) -> None:
        """Nobody may have a hold now."""
        self.found += [f"{buyer} was never told of {held}" for buyer, held in self._held.items()]

    def _shown(self, asked: Line, line: Line) -> None:
        held = next((one for one in line.value["lines"] if one["sku"] == self._sku), None)
        known = self._held.get(line.client)
        if held is not None and held != known:
            self._forget(line.client)
            self._held[line.client] = held
            self._kept += held["qty"]
            heapq.heappush(self._due, (held["expires_at"], line.client))
        elif held is not None and self._ms(asked) > held["expires_at"] + self._late_ms:
            self.found.append(f"{line.client} has {held} still")
        elif held is None and known is not None:
            self._ended(line, known)

    def _told(self, line: Line) -> None:
        known = self._held.get(line.client)
        if known is None or line.value["hold"]["sku"] != self._sku:
            return
        if "why" in line.value:
            self._forget(line.client)
        else:
            self._ended(line, known)

    def _ended(self, line: Line, known: dict[str, Any]) -> None:
        """Its buyer learns that a hold is over."""
        by_ms = self._ms(line) - known["expires_at"]
        if not -self._early_ms <= by_ms <= self._late_ms:
            self.found.append(f"{line.client}: {known} ended {by_ms:.0f} ms after its time")
        self._forget(line.client)

    def _bought(self, line: Line) -> None:
        """Units that somebody has ordered are no longer held."""
        bought = [one["qty"] for one in line.value["lines"] if one["sku"] == self._sku]
        self._sold += sum(bought)
        while self._due and self._due[0][0] - self._early_ms <= self._ms(line):
            due, buyer = heapq.heappop(self._due)
            held = self._held.get(buyer)
            is_new = (due, buyer) not in self._free_again
            if is_new and held is not None and held["expires_at"] == due:
                self._free_again.add((due, buyer))
                self._kept -= held["qty"]
        if self._sold + self._kept > self._stock:
            self.found.append(f"{line.client} has bought what is held: {line.value}")

    def _forget(self, buyer: str) -> None:
        held = self._held.pop(buyer, None)
        if held is None:
            return
        at = held["expires_at"], buyer
        if at in self._free_again:
            self._free_again.discard(at)
        else:
            self._kept -= held["qty"]

    def _ms(self, line: Line) -> float:
        return (line.at_s + self._to_wall_s) * 1000

"""One SKU as its buyers see it, and whether some order of all their calls explains the answers."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Any

import detangle

from bench.history import Line


class Units(detangle.lin.Model):
    """One SKU as its buyers see it: so many units are free.

    `take` of n answers "ok", or how many were left where that is too few; `give` adds n;
    `look` answers what is left, `count` what SQL has left once all is quiet. Under a fault Redis may promise less than there is, never
    more: unless it is `exact`, what it says is left is at most what is free, and who is refused
    because of it is refused rightly.
    """

    name = "units"

    def __init__(self, free: int, *, exact: bool = True) -> None:
        self._free = free
        self._exact = exact

    def init(self) -> Hashable:
        return self._free

    def step(self, state: int, op: detangle.lin.Operation) -> tuple[bool, int]:
        unknown = op.status != "ok"
        match op.f:
            case "take" if unknown:
                return True, state - op.arg if state >= op.arg else state
            case "take" if op.output == "ok":
                return state >= op.arg, state - op.arg
            case "take":
                return op.output < op.arg and self._may_say(op.output, state), state
            case "give":
                return True, state + op.arg
            case "count":
                return state == op.output, state
        return unknown or self._may_say(op.output, state), state

    def _may_say(self, left: int, free: int) -> bool:
        return left == free if self._exact else left <= free


def is_linearizable(lines: Iterable[Line], free: int, *, exact: bool = True) -> str | None:
    """None, or why no order of the calls explains what was answered."""
    history = detangle.History()
    open_calls: dict[int, Any] = {}
    for line in lines:
        if line.what == "invoke":
            open_calls[line.call] = history.invoke(line.client, line.op, line.value)
        elif line.what == "ok":
            history.ok(open_calls[line.call], line.value)
        else:
            history.info(open_calls[line.call])
    found = history.check(Units(free, exact=exact))
    return None if found.ok else found.explain()

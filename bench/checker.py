"""What must be true of a history and of the books after it, whatever became of the server.

One pass over the lines, one over the orders and one over the ledger. The history must hold
every call that moved units; of a sale whose orders expire unpaid the units that came back so
are not known here.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from math import inf
from typing import Any, Final, NamedTuple

from bench.history import Line

PAGE: Final = 100
FAULTS: Final = {
    "answers_differ": "one order id was answered otherwise than before, or than was asked (I5)",
    "reused": "one order id stands for two contents, or is refused as if it did (I5)",
    "lost": "an order that was answered is not in SQL, or another is in its place (I10)",
    "refused_yet_there": "an order that was refused for good is in SQL",
    "cancelled_otherwise": "an order that was said to be cancelled is not, or one that nobody "
    "cancelled is (I10)",
    "went_back": "a client saw the `v` of a stock number go back (I11)",
    "above_limit": "a buyer has more units than the limit allows (I7)",
    "oversold_midway": "at some moment more was sold than there was (P2)",
    "wrong_price": "an order has a price that was not in force while it was asked for (P9)",
    "sold_while_paused": "an order that was first asked for in a pause was taken in it",
    "ledger_breaks": "the ledger has a gap, or a row that does not follow from those before it",
    "unanswered": "a call has no end",
}
"""What is looked for, by the name under which it is reported."""

Found = dict[str, list[str]]
_ORDERING: Final = {"order.place", "cart.checkout"}
_GIVEN_BACK: Final = {"cancelled", "expired", "refunded"}
_NEVER_CANCELLED: Final = {"placed", "closing", "expired"}
"""What an order is not that was cancelled once; money that came late may have made it paid."""


class Books(NamedTuple):
    """What the server says afterwards: orders, the SKU's pools and all rows of their ledgers."""

    orders: list[dict[str, Any]]
    pools: list[dict[str, Any]]
    ledger: list[dict[str, Any]]


def read_books(get: Callable[[str], Any], room: str, *skus: str) -> Books:
    """The books of some SKUs; `get` answers an admin's GET of a path."""
    orders = _pages(get, f"/v1/orders?room={room}&limit={PAGE}")
    books = Books([item for page in orders for item in page["items"]], [], [])
    for sku in skus:
        pages = _pages(get, f"/v1/skus/{sku}/ledger?limit={PAGE}")
        books.pools.extend(pages[-1]["pools"])
        books.ledger.extend(row for page in pages for row in page["items"])
    return books


def check(
    lines: Iterable[Line],
    books: Books,
    *,
    stock: Mapping[str, int],
    limits: Mapping[str, int] | None = None,
    prices: Mapping[str, int] | None = None,
) -> Found:
    """All that is wrong, by name (see FAULTS); every name is there, most lists are empty.

    `stock` is how many units of each pool there were at first, `limits` how many of a pool one
    buyer may have, `prices` what each pool cost at first: those that are named are compared with
    every `price.set`. `lines` are in order of time.
    """
    checker = _Checker(stock, prices or {})
    for line in lines:
        checker.take(line)
    checker.end(books, limits or {})
    return checker.found


def counts(found: Found) -> dict[str, int]:
    """How often each fault was found, as a report has it."""
    return {name: len(faults) for name, faults in found.items()}


class _Order:
    """All that was asked and told under one order id."""

    __slots__ = (
        "answer", "asked", "cancels", "client", "content", "ended", "first_s", "is_cancelled",
        "not_these", "units",
    )  # fmt: skip

    def __init__(self, client: str, first_s: float) -> None:
        self.client = client
        self.first_s = first_s
        self.answer: dict[str, Any] | None = None
        self.content = ""
        self.asked: set[str] = set()
        self.not_these: set[str] = set()
        self.ended = ""
        self.units: Counter[str] = Counter()
        self.cancels = 0
        """How many calls may have cancelled it."""
        self.is_cancelled = False
        """Whether somebody was told that it is."""


class _Prices:
    """When each price of a pool was in force: at most from its asking to the next one's answer."""

    def __init__(self, first: int) -> None:
        self._last = first
        self._begun = {first: -inf}
        self._over: dict[int, float] = {}

    def asked(self, price: int, at_s: float) -> None:
        """It may be in force from now on."""
        self._begun.setdefault(price, at_s)
        self._over.pop(price, None)

    def set(self, price: int, at_s: float) -> None:
        """It is in force, and the one before it no more."""
        if price != self._last:
            self._over[self._last] = at_s
        self._last = price

    def could_be(self, price: int, from_s: float, to_s: float) -> bool:
        """Whether it may have been in force at any moment between."""
        return self._begun.get(price, inf) <= to_s and self._over.get(price, inf) >= from_s


class _Call(NamedTuple):
    """A call that is under way. `was_there`: its buyer had been told of this very order before."""

    asked: Line
    was_there: bool


class _Checker:
    def __init__(self, stock: Mapping[str, int], prices: Mapping[str, int]) -> None:
        self.found: Found = {name: [] for name in FAULTS}
        self._stock = stock
        self._there = Counter(stock)
        self._sold: Counter[str] = Counter()
        self._orders: dict[str, _Order] = {}
        self._open: dict[int, _Call] = {}
        self._seen: dict[tuple[str, str], int] = {}
        self._prices = {pool: _Prices(price) for pool, price in prices.items()}
        self._paused_s = inf

    def take(self, line: Line) -> None:
        """The next line."""
        if line.what == "saw":
            self._saw(line)
            return
        if line.what == "invoke":
            self._open[line.call] = _Call(line, self._begins(line))
            return
        call = self._open.pop(line.call)
        if line.op in _ORDERING:
            ends = {"ok": self._ok, "fail": self._fail, "info": self._info}
            ends[line.what](call, line)
        elif line.op == "order.cancel":
            self._cancelled(self._orders[call.asked.value["order"]], line)
        elif line.what == "ok":
            self._acted(line, call.asked.value)

    def end(self, books: Books, limits: Mapping[str, int]) -> None:
        """Compare with what the server says in the end."""
        for call in self._open.values():
            self._fault("unanswered", f"{call.asked.op} {call.asked.value} of {call.asked.client}")
        self._compare({order["id"]: order for order in books.orders})
        self._count_limits(books, limits)
        self._replay(books)

    # ── in order of time ──────────────────────────────────────────────────────────────────

    def _begins(self, line: Line) -> bool:
        """Take in what is asked; of an order, whether its buyer knows already that it is there.

        What is asked for may be so from now on: units that come back, a price, the pause's end.
        """
        if line.op in _ORDERING:
            order = self._orders.setdefault(line.value["order"], _Order(line.client, line.at_s))
            order.asked.add(_content(line))
            return order.answer is not None and order.content == _content(line)
        if line.op == "order.cancel":
            self._may_be_cancelled(self._orders[line.value["order"]])
        elif line.op == "stock.restock":
            self._there[f"sku:{line.value['sku']}"] += line.value["qty"]
        elif line.op == "stock.adjust":
            self._there[f"sku:{line.value['sku']}"] += max(0, line.value["delta"])
        elif line.op == "price.set" and (prices := self._prices.get(_pool(line.value))):
            prices.asked(line.value["price_minor"], line.at_s)
        elif line.op == "sale.resume":
            self._paused_s = inf
        return False

    def _acted(self, line: Line, data: dict[str, Any]) -> None:
        """What the host was told is so: from now on it holds for everybody."""
        if line.op == "stock.adjust":
            self._there[f"sku:{data['sku']}"] += min(0, data["delta"])
        elif line.op == "price.set" and (prices := self._prices.get(_pool(data))):
            prices.set(data["price_minor"], line.at_s)
        elif line.op == "sale.pause":
            self._paused_s = line.at_s

    def _ok(self, call: _Call, line: Line) -> None:
        asked, answer = call.asked, line.value
        order, content = self._orders[asked.value["order"]], _content(asked)
        order.ended = "ok"
        if content in order.not_these or (order.answer and order.content != content):
            self._fault("reused", f"{asked.value} of {asked.client}: {answer}")
        elif order.answer is None:
            order.answer, order.content = answer, content
            self._sell(order, asked)
            self._judge(order, line)
        elif order.answer != answer:
            self._fault("answers_differ", f"first {order.answer}, then {answer}")

    def _sell(self, order: _Order, asked: Line) -> None:
        answer = order.answer
        assert answer is not None
        for one in answer["lines"]:
            order.units[_pool(one)] += one["qty"]
        self._count(order)
        wanted = Counter[str]()
        for one in asked.value.get("lines", ()):
            wanted[_pool(one)] += one["qty"]
        if answer["id"] != asked.value["order"] or (wanted and wanted != order.units):
            self._fault("answers_differ", f"asked {asked.value}, answered {answer}")

    def _count(self, order: _Order) -> None:
        """Its units are sold, unless some call may have given them back."""
        if order.cancels:
            return
        self._sold.update(order.units)
        for pool in order.units:
            if pool in self._there and self._sold[pool] > self._there[pool]:
                there = f"{self._sold[pool]} sold of {self._there[pool]}"
                self._fault("oversold_midway", f"{pool}: {there} with {order.answer}")

    def _may_be_cancelled(self, order: _Order) -> None:
        """From now on its units may be somebody else's, however often it is asked for."""
        if not order.cancels:
            self._sold.subtract(order.units)
        order.cancels += 1

    def _cancelled(self, order: _Order, line: Line) -> None:
        """The end of a cancelling; a call whose end nobody knows may have done it."""
        if line.what == "info":
            return
        told = line.value if line.what == "ok" else line.value.get("data") or {}
        order.is_cancelled |= told.get("state") == "cancelled"
        if line.what == "fail":  # it was not this one
            order.cancels -= 1
            self._count(order)
        elif order.answer and _differs(told, order.answer):
            self._fault("answers_differ", f"first {order.answer}, when cancelled {told}")

    def _judge(self, order: _Order, line: Line) -> None:
        """Whether the host's word was kept: the price, and the pause."""
        for one in line.value["lines"]:
            prices = self._prices.get(_pool(one))
            if prices and not prices.could_be(one["price_minor"], order.first_s, line.at_s):
                self._fault("wrong_price", f"{line.value} of {line.client}")
        if order.first_s > self._paused_s:
            self._fault("sold_while_paused", f"{line.value} of {line.client}")

    def _fail(self, call: _Call, line: Line) -> None:
        asked, error = call.asked, line.value
        order, content = self._orders[asked.value["order"]], _content(asked)
        if error["code"] == "id_reused":
            order.not_these.add(content)
            if len(order.asked) == 1 or order.content == content:
                self._fault("reused", f"{asked.value} of {asked.client} has no other content")
        elif call.was_there:
            self._fault("refused_yet_there", f"{error['code']} to {asked.value} once it was there")
        elif order.answer is None:
            order.ended = "fail"

    def _info(self, call: _Call, _line: Line) -> None:
        order = self._orders[call.asked.value["order"]]
        if order.answer is None:
            order.ended = "info"

    def _saw(self, line: Line) -> None:
        if line.op != "stock":
            return
        place = line.client, _pool(line.value)
        if line.value["v"] < self._seen.get(place, 0):
            self._fault("went_back", f"{place}: {line.value} after v {self._seen[place]}")
        self._seen[place] = line.value["v"]

    # ── at the end ────────────────────────────────────────────────────────────────────────

    def _compare(self, on_disk: Mapping[str, dict[str, Any]]) -> None:
        for name, order in self._orders.items():
            there = on_disk.get(name)
            if order.answer is None:
                if there is not None and order.ended == "fail":
                    self._fault("refused_yet_there", name)
            elif there is None or _differs(there, order.answer):
                self._fault("lost", f"{order.answer} is {there}")
            if there is not None and not _as_told(order, there["state"]):
                self._fault("cancelled_otherwise", f"{there} after {order.cancels} cancellations")

    def _count_limits(self, books: Books, limits: Mapping[str, int]) -> None:
        taken: Counter[tuple[str, str]] = Counter()
        for one in books.orders:
            if one["state"] in _GIVEN_BACK or one["id"] not in self._orders:
                continue
            for line in one["lines"]:
                taken[_pool(line), self._orders[one["id"]].client] += line["qty"]
        for (pool, buyer), units in taken.items():
            if units > limits.get(pool, units):
                self._fault("above_limit", f"{buyer} has {units} of {pool}")

    def _replay(self, books: Books) -> None:
        """Each row's sums follow from those before it, and leave nothing below zero."""
        rows = defaultdict[str, list[dict[str, Any]]](list)
        for row in books.ledger:
            rows[row["pool"]].append(row)
        for pool in books.pools:
            name, free, reserved, sold = pool["pool"], pool["initial"], 0, 0
            # What a drop has is carved into it by the ledger.
            began = 0 if name.startswith("drop:") else self._stock.get(name, pool["initial"])
            if pool["initial"] != began:
                self._fault("ledger_breaks", f"{name} began with {pool['initial']}")
            for seq, row in enumerate(rows[name], 1):
                reserved, sold = reserved + row["reserved"], sold + row["sold"]
                free += row["adjusted"] - row["reserved"] - row["sold"]
                follows = row["seq"] == seq and row["available_after"] == free
                if not follows or min(free, reserved, sold) < 0:
                    self._fault("ledger_breaks", f"{name}: {row}, {free} free")
                    break

    def _fault(self, name: str, said: str) -> None:
        self.found[name].append(said)


_FIXED: Final = ("id", "room", "lines", "total_minor", "currency", "placed_at", "pay_by")


def _differs(now: Mapping[str, Any], first: Mapping[str, Any]) -> bool:
    """Whether an order is another one than it was at first, whatever became of it since."""
    return any(now[key] != first[key] for key in _FIXED)


def _as_told(order: _Order, state: str) -> bool:
    """Whether an order that is cancelled may be so, and one that must be so is."""
    if state == "cancelled":
        return order.cancels > 0
    return not (order.is_cancelled and state in _NEVER_CANCELLED)


def _content(line: Line) -> str:
    """What makes a command with an order id the same one: who sends it, and all but `again`."""
    data = {name: value for name, value in line.value.items() if name != "again"}
    return json.dumps([line.client, line.op, data], sort_keys=True)


def _pool(line: Mapping[str, Any]) -> str:
    return f"drop:{line['drop']}" if line.get("drop") else f"sku:{line['sku']}"


def _pages(get: Callable[[str], Any], path: str) -> list[dict[str, Any]]:
    pages = [get(path)]
    while pages[-1]["next"] is not None:
        pages.append(get(f"{path}&after={pages[-1]['next']}"))
    return pages

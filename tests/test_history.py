"""The checker of histories: what a faultless sale looks like, and every lie that must be found."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from bench.checker import FAULTS, Books, check
from bench.history import Asked, Recorder, load, merged, save

STOCK = {"sku:s1": 2}
PRICES = {"sku:s1": 100}
AGAIN = {"code": "store_down", "retry": True}
SOLD_OUT = {"code": "sold_out", "retry": False}
CANCELLED_BEFORE = {
    "code": "illegal_transition",
    "retry": False,
    "data": {"machine": "order", "state": "cancelled"},
}
PAID = CANCELLED_BEFORE | {"data": {"machine": "order", "state": "paid"}}
REUSED = {"code": "id_reused", "retry": False}


def asked(order: str, qty: int = 1) -> dict[str, Any]:
    return {"order": order, "lines": [{"sku": "s1", "qty": qty}]}


def answer(order: str, qty: int = 1) -> dict[str, Any]:
    lines = [{"sku": "s1", "qty": qty, "price_minor": 100}]
    sums = {"total_minor": 100 * qty, "currency": "EUR", "placed_at": 1, "pay_by": 2}
    return {"id": order, "state": "placed", "room": "r1", "lines": lines, **sums}


class Told(Recorder):
    """A history by hand: each call and its end at once."""

    def order(self, order: str, end: Any, *, by: str = "ann", qty: int = 1) -> None:
        self._end(self.invoke(by, "order.place", asked(order, qty)), end)

    def cancel(self, order: str, end: Any, *, by: str = "ann") -> None:
        self._end(self.invoke(by, "order.cancel", {"order": order}), end)

    def _end(self, call: Asked, end: Any) -> None:
        if end is None:
            self.info(call)
        elif "code" in end:
            self.refused(call, end)
        else:
            self.ok(call, end)


def cancelled(order: str) -> dict[str, Any]:
    return answer(order) | {"state": "cancelled"}


def books(*orders: dict[str, Any]) -> Books:
    """The books after these orders were placed, one after another; a cancelled one is so at once."""
    said = Books(list(orders), [{"pool": "sku:s1", "initial": 2}], [])
    for order in orders:
        qty = order["lines"][0]["qty"]
        move(said, qty)
        if order["state"] == "cancelled":
            move(said, -qty)
    return said


def move(said: Books, reserved: int) -> None:
    """One more row of the ledger."""
    free = said.ledger[-1]["available_after"] if said.ledger else 2
    new = {"pool": "sku:s1", "seq": len(said.ledger) + 1, "adjusted": 0, "sold": 0}
    said.ledger.append(new | {"reserved": reserved, "available_after": free - reserved})


def found(told: Recorder, said: Books, **limits: int) -> set[str]:
    """The names of what is wrong."""
    wrong = check(told.lines, said, stock=STOCK, limits={"sku:s1": 2} | limits, prices=PRICES)
    assert set(wrong) == set(FAULTS)
    return {name for name, faults in wrong.items() if faults}


def test_a_faultless_sale_passes() -> None:
    """Retries, refusals, unknown ends and what is sold in another's place are all as they should be."""
    told = Told()
    told.saw("ann", "stock", {"sku": "s1", "left": 2, "v": 5})
    told.order("o1", AGAIN)
    told.order("o1", None)
    told.order("o1", answer("o1"))
    told.order("o1", answer("o1"))
    told.order("o1", REUSED, by="bob")
    told.order("o2", answer("o2"), by="bob")
    told.order("o3", SOLD_OUT)
    told.cancel("o2", None, by="bob")
    told.order("o3", answer("o3"))
    told.saw("ann", "stock", {"sku": "s1", "left": 0, "v": 9})
    assert found(told, books(answer("o1"), cancelled("o2"), answer("o3"))) == set()


def test_a_unit_that_was_given_back_may_be_sold_again() -> None:
    """From the moment it is asked for, whatever is answered; and once, however often it is tried."""
    told = Told()
    told.order("o1", answer("o1"))
    told.order("o2", answer("o2"))
    cancelling = told.invoke("ann", "order.cancel", {"order": "o1"})
    told.order("o3", answer("o3"), by="bob")
    told.ok(cancelling, cancelled("o1"))
    told.cancel("o2", None)
    told.cancel("o2", AGAIN)
    told.cancel("o2", CANCELLED_BEFORE)
    told.order("o4", answer("o4"), by="bob")
    told.order("o1", answer("o1"))  # a late retry has the first answer
    assert found(told, books(*map(cancelled, ("o1", "o2")), answer("o3"), answer("o4"))) == set()


def test_a_cancellation_nobody_heard_the_end_of_may_come_to_nothing() -> None:
    """Then the order stands; and one that was paid meanwhile is not given back."""
    told = Told()
    for order, end in (("o1", None), ("o2", PAID)):
        told.order(order, answer(order))
        told.cancel(order, end)
    assert found(told, books(answer("o1"), answer("o2") | {"state": "paid"})) == set()


def _another_answer(told: Told) -> Books:
    told.order("o1", answer("o1"))
    told.order("o1", answer("o1") | {"placed_at": 3})
    return books(answer("o1"))


def _fewer_units_than_asked(told: Told) -> Books:
    told.order("o1", answer("o1", 1), qty=2)
    return books(answer("o1"))


def _two_contents(told: Told) -> Books:
    told.order("o1", answer("o1"))
    told.order("o1", answer("o1"), by="bob")
    return books(answer("o1"))


def _reused_by_nobody(told: Told) -> Books:
    told.order("o1", REUSED)
    return books()


def _had_after_all(told: Told) -> Books:
    told.order("o1", answer("o1"))
    told.order("o1", REUSED, by="bob")
    told.order("o1", answer("o1"), by="bob")
    return books(answer("o1"))


def _lost(told: Told) -> Books:
    told.order("o1", answer("o1"))
    return books()


def _another_in_its_place(told: Told) -> Books:
    told.order("o1", answer("o1"))
    return books(answer("o1") | {"total_minor": 1})


def _sold_out_and_there(told: Told) -> Books:
    told.order("o1", None)
    told.order("o1", SOLD_OUT)
    return books(answer("o1"))


def _sold_out_after_ok(told: Told) -> Books:
    told.order("o1", answer("o1"))
    told.order("o1", SOLD_OUT)
    return books(answer("o1"))


def _went_back(told: Told) -> Books:
    for v in (5, 4):
        told.saw("ann", "stock", {"sku": "s1", "left": 2, "v": v})
    return books()


def _above_limit(told: Told) -> Books:
    for order in ("o1", "o2", "o3"):
        told.order(order, answer(order))
    told.ok(told.invoke("mia", "stock.restock", {"sku": "s1", "qty": 1}), {})
    told.lines.insert(0, told.lines.pop(-2))  # the restock came first
    row = {"pool": "sku:s1", "seq": 1, "adjusted": 1, "reserved": 0, "sold": 0}
    said = books(answer("o1"), answer("o2"), answer("o3"))
    later = [one | {"seq": one["seq"] + 1} for one in said.ledger]
    later = [one | {"available_after": one["available_after"] + 1} for one in later]
    return Books(said.orders, said.pools, [row | {"available_after": 3}, *later])


def _oversold_for_a_moment(told: Told) -> Books:
    for order in ("o1", "o2", "o3"):
        told.order(order, answer(order), by=order)
    told.cancel("o1", cancelled("o1"), by="o1")
    return books(answer("o2"), answer("o3"), cancelled("o1"))


def _one_unit_back_is_sold_twice(told: Told) -> Books:
    for order in ("o1", "o2"):
        told.order(order, answer(order))
    told.cancel("o1", None)
    told.cancel("o1", cancelled("o1"))
    for order in ("o3", "o4"):
        told.order(order, answer(order), by="bob")
    return books(cancelled("o1"), answer("o2"), answer("o3"), answer("o4"))


def _sold_though_it_was_not_given_back(told: Told) -> Books:
    for order in ("o1", "o2"):
        told.order(order, answer(order))
    told.cancel("o1", PAID)
    told.order("o3", answer("o3"), by="bob")
    return books(answer("o1") | {"state": "paid"}, answer("o2"), answer("o3"))


def _stands_though_cancelled(told: Told) -> Books:
    told.order("o1", answer("o1"))
    told.cancel("o1", cancelled("o1"))
    return books(answer("o1"))


def _cancelled_by_nobody(told: Told) -> Books:
    told.order("o1", answer("o1"))
    return books(cancelled("o1"))


def _cancelled_before_it_was_asked_for(told: Told) -> Books:
    told.order("o1", answer("o1"))
    told.cancel("o1", CANCELLED_BEFORE)
    return books(cancelled("o1"))


def _another_when_cancelled(told: Told) -> Books:
    told.order("o1", answer("o1"))
    told.cancel("o1", cancelled("o1") | {"total_minor": 1})
    return books(cancelled("o1"))


def price(told: Told, minor: int) -> None:
    told.ok(told.invoke("mia", "price.set", {"sku": "s1", "price_minor": minor}), {})


def _at_the_price_before(told: Told) -> Books:
    price(told, 200)
    told.order("o1", answer("o1"))
    return books(answer("o1"))


def _at_a_price_of_its_own(told: Told) -> Books:
    lines = [{"sku": "s1", "qty": 1, "price_minor": 99}]
    told.order("o1", answer("o1") | {"lines": lines})
    return books(answer("o1") | {"lines": lines})


def _in_a_pause(told: Told) -> Books:
    told.ok(told.invoke("mia", "sale.pause", {}), {})
    told.order("o1", answer("o1"))
    return books(answer("o1"))


def test_a_change_under_way_excuses_both_sides_of_it() -> None:
    """While a price or a pause is not answered yet, or ends, an order may come to either side."""
    told = Told()
    pricing = told.invoke("mia", "price.set", {"sku": "s1", "price_minor": 200})
    told.order("o1", answer("o1"))
    told.ok(pricing, {})
    pausing = told.invoke("mia", "sale.pause", {})
    price(told, 100)
    ordering = told.invoke("ann", "order.place", asked("o2"))
    told.ok(pausing, {})
    told.ok(ordering, answer("o2"))
    resuming = told.invoke("mia", "sale.resume", {})
    told.order("o2", answer("o2"))
    told.ok(resuming, {})
    assert found(told, books(answer("o1"), answer("o2"))) == set()


def _a_row_is_gone(told: Told) -> Books:
    told.order("o1", answer("o1"))
    told.order("o2", answer("o2"))
    said = books(answer("o1"), answer("o2"))
    return Books(said.orders, said.pools, said.ledger[1:])


def _no_end(told: Told) -> Books:
    told.invoke("ann", "order.place", asked("o1"))
    return books()


@pytest.mark.parametrize(
    ("lie", "name"),
    [
        (_another_answer, "answers_differ"),
        (_fewer_units_than_asked, "answers_differ"),
        (_two_contents, "reused"),
        (_reused_by_nobody, "reused"),
        (_had_after_all, "reused"),
        (_lost, "lost"),
        (_another_in_its_place, "lost"),
        (_sold_out_and_there, "refused_yet_there"),
        (_sold_out_after_ok, "refused_yet_there"),
        (_went_back, "went_back"),
        (_above_limit, "above_limit"),
        (_oversold_for_a_moment, "oversold_midway"),
        (_oversold_for_a_moment, "ledger_breaks"),
        (_one_unit_back_is_sold_twice, "oversold_midway"),
        (_sold_though_it_was_not_given_back, "oversold_midway"),
        (_stands_though_cancelled, "cancelled_otherwise"),
        (_cancelled_by_nobody, "cancelled_otherwise"),
        (_cancelled_before_it_was_asked_for, "cancelled_otherwise"),
        (_another_when_cancelled, "answers_differ"),
        (_at_the_price_before, "wrong_price"),
        (_at_a_price_of_its_own, "wrong_price"),
        (_in_a_pause, "sold_while_paused"),
        (_a_row_is_gone, "ledger_breaks"),
        (_no_end, "unanswered"),
    ],
)
def test_a_planted_lie_is_found(lie, name) -> None:
    """Each of these is found, and under its own name."""
    told = Told()
    said = lie(told)
    assert name in found(told, said)


def test_a_history_is_read_as_it_was_written(tmp_path) -> None:
    """Two recorders' lines are merged by time, and their calls stay apart."""
    one, other = Told(), Told(place=1)
    one.order("o1", answer("o1"))
    other.order("o2", answer("o2"))
    lines = merged([other.lines, one.lines])
    assert [line.at_s for line in lines] == sorted(line.at_s for line in lines)
    assert len({line.call for line in lines}) == 2
    before = copy.deepcopy(lines)
    save(tmp_path / "history.jsonl", lines)
    assert load(tmp_path / "history.jsonl") == before

"""Errors, money, ids and events: the words every other part speaks."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from liveroom import errors, events, ids, money
from liveroom.errors import FAMILIES, Denied, Invalid, InvariantBroken, Refused, Unavailable


def test_no_code_stands_in_two_families() -> None:
    """Each refusal has one who must act."""
    for one, other in itertools.combinations(FAMILIES, 2):
        assert not one.codes.keys() & other.codes.keys()


@pytest.mark.parametrize("code", [code for family in FAMILIES for code in family.codes])
def test_only_unavailable_and_slow_mode_may_be_repeated(code: str) -> None:
    """`retry` tells a client whether the same request can succeed later."""
    raised = errors.error(code)
    assert raised.retry is (isinstance(raised, Unavailable) or code == "slow_mode")
    assert raised.on_wire()["retry"] is raised.retry
    assert 400 <= raised.http < 600


def test_an_error_tells_its_data_and_its_wait() -> None:
    """What is not known is left out of the wire's object."""
    full = Refused("sold_out", data={"sku": "s1", "left": 0})
    assert full.on_wire() == {
        "code": "sold_out",
        "message": "Not enough are left.",
        "retry": False,
        "data": {"sku": "s1", "left": 0},
    }
    assert Unavailable("rate_limited", retry_after_ms=500).on_wire()["retry_after_ms"] == 500
    assert "data" not in Invalid("bad_frame").on_wire()


def test_a_code_of_another_family_is_a_fault_of_ours() -> None:
    """A family raises its own codes only, and no unknown one."""
    with pytest.raises(InvariantBroken):
        Denied("sold_out")
    with pytest.raises(InvariantBroken):
        errors.error("no_such_code")


@pytest.mark.parametrize(
    ("amount", "currency", "text"),
    [
        (1999, "CNY", "19.99"),
        (5, "USD", "0.05"),
        (-1999, "EUR", "-19.99"),
        (0, "CNY", "0.00"),
        (1999, "JPY", "1999"),
        (1999, "KWD", "1.999"),
    ],
)
def test_money_is_written_with_the_digits_of_its_currency(
    amount: int, currency: str, text: str
) -> None:
    """ISO 4217 gives each currency its minor unit."""
    assert money.decimal_text(amount, currency) == text


@pytest.mark.parametrize(
    ("amount", "weights", "divided"),
    [
        (100, [1, 1, 1], [34, 33, 33]),
        (101, [750, 250], [76, 25]),
        (5, [0, 3, 0], [0, 5, 0]),
        (2, [3, 3, 5], [1, 0, 1]),
        (0, [0, 0], [0, 0]),
    ],
)
def test_an_amount_is_divided_to_the_last_unit(
    amount: int, weights: list[int], divided: list[int]
) -> None:
    """In proportion; what rounding leaves goes to the largest remainders, the first first."""
    assert money.shares(amount, weights) == divided


def test_an_amount_has_somebody_to_be_divided_among() -> None:
    """Nothing is lost where nobody may take it."""
    with pytest.raises(InvariantBroken):
        money.shares(1, [0, 0])


AMOUNTS = st.integers(0, 10**12)
SUMS = st.lists(st.tuples(AMOUNTS, AMOUNTS), min_size=1, max_size=8)


@given(SUMS, st.data())
def test_no_sum_gives_more_than_it_has(sums: list[tuple[int, int]], data: st.DataObject) -> None:
    """What is taken off adds up, is never above what is left, and touches what is wanted first."""
    wanted, left = [list(column) for column in zip(*sums, strict=True)]
    amount = data.draw(st.integers(0, sum(left)))
    taken = money.taken_off(amount, wanted, left)
    assert sum(taken) == amount
    assert all(0 <= one <= most for one, most in zip(taken, left, strict=True))
    first = [min(one, most) for one, most in zip(wanted, left, strict=True)]
    if amount <= sum(first):
        assert all(one <= most for one, most in zip(taken, first, strict=True))
    else:
        assert all(one >= least for one, least in zip(taken, first, strict=True))


@pytest.mark.parametrize("text", ["a", "A-1_b.c", "x" * 64])
def test_ids_of_the_wire(text: str) -> None:
    """1-64 characters of A-Z a-z 0-9 _ - . make an id."""
    assert ids.is_id(text)


@pytest.mark.parametrize("text", ["", "x" * 65, "a b", "a/b", "ä", "a\n", None, 7])
def test_what_is_no_id(text: object) -> None:
    """Anything else is refused, a trailing line feed too."""
    assert not ids.is_id(text)


def test_new_ids_are_ids_and_sort_by_time() -> None:
    """UUIDs of version 7 grow."""
    made = [ids.new_id() for _ in range(100)]
    assert all(ids.is_id(one) for one in made)
    assert made == sorted(made)


def test_an_addressed_event_is_direct() -> None:
    """`room.opened` is logged in its room and direct to a fan."""
    assert events.Event("room.opened", {}, 1).delivery is events.LOGGED
    assert events.Event("room.opened", {}, 1, to="fan").delivery is events.DIRECT


def test_a_state_event_is_replaced_by_its_own_key_only() -> None:
    """A SKU's ordinary stock and a drop of it are two keys."""
    of_sku = events.Event("stock.changed", {"sku": "s1", "left": 1, "v": 1}, 1)
    of_drop = events.Event("stock.changed", {"sku": "s1", "drop": "d1", "left": 1, "v": 1}, 1)
    assert of_sku.key != of_drop.key
    assert events.Event("viewers.counted", {"viewers": 1, "v": 1}, 1).key == "viewers.counted:"


def test_the_wire_leaves_out_what_an_event_does_not_have() -> None:
    """`seq` stands on logged events, `n` on messages, neither on state."""
    assert events.Event("notice.posted", {"text": "x"}, 9, seq=4).on_wire() == {
        "ev": "notice.posted",
        "seq": 4,
        "at": 9,
        "data": {"text": "x"},
    }
    assert "seq" not in events.Event("viewers.counted", {}, 9).on_wire()

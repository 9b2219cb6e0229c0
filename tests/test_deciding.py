"""The decision of a batch of orders: pure, in order of arrival, whatever Redis said."""

from __future__ import annotations

import copy

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from liveroom.deciding import Books, Known, Pool, Wish, decide
from liveroom.inventory import Hold
from liveroom.money import AMOUNT_MAX
from liveroom.shapes import Order

NOW = 1_790_000_000_000
PAY_WITHIN = 600_000


def hold(name: str = "h1", sku: str = "s1", qty: int = 1, **but) -> Hold:
    values = {
        "id": name, "pool": f"sku:{sku}", "sku": sku, "drop": None, "buyer": "ann", "room": "r1",
        "qty": qty, "price_minor": 250, "state": "placing", "due": NOW + 5000, "epoch": 7,
    }  # fmt: skip
    return Hold(**(values | but))


def wish(order: str = "o1", *holds: Hold, **but) -> Wish:
    values = {"buyer": "ann", "room": "r1", "content": "c1", "buy_now": True}
    return Wish(order=order, holds=list(holds or (hold(f"h-{order}"),)), **(values | but))


def pool(available: int = 5, **but) -> Pool:
    values = {"sku": "s1", "partition": 0, "available": available, "seq": 40, "limit": None}
    return Pool(**({"currency": "EUR"} | values | but))


def books(**but) -> Books:
    values = {
        "now_ms": NOW,
        "fences": {0: 7},
        "rooms": {"r1": ("live", False)},
        "pools": {"sku:s1": pool(), "sku:s2": pool(sku="s2"), "sku:s0": pool(sku="s0")},
        "known": {},
        "void": set(),
        "taken": {},
    }
    return Books(**(values | but))


def codes(plan) -> list[str]:
    return [answer.state if isinstance(answer, Order) else answer.code for answer in plan.answers]


def test_an_order_is_written_as_it_is_answered() -> None:
    """Lines sorted by SKU, prices of the holds, pay_by from the database's clock."""
    plan = decide(
        [wish("o1", hold("h2", "s2", 2), hold("h0", "s0", 1, price_minor=100))], books(), PAY_WITHIN
    )
    (answer,) = plan.answers
    assert [(line.sku, line.qty, line.price_minor) for line in answer.lines] == [
        ("s0", 1, 100),
        ("s2", 2, 250),
    ]
    assert (answer.total_minor, answer.currency) == (600, "EUR")
    assert (answer.placed_at, answer.pay_by) == (NOW, NOW + PAY_WITHIN)
    assert [
        (told.pool, told.from_seq, told.to_seq, told.available_after) for told in plan.told
    ] == [
        ("sku:s0", 41, 41, 4),
        ("sku:s2", 41, 41, 3),
    ]
    assert [list(told.holds) for told in plan.told] == [["h0"], ["h2"]]


def test_the_last_unit_goes_to_the_first() -> None:
    """N orders for one unit in one batch: one is placed, the rest would be broken holds."""
    plan = decide(
        [wish(f"o{n}", buyer=f"b{n}") for n in range(10)],
        books(pools={"sku:s1": pool(1)}),
        PAY_WITHIN,
    )
    assert codes(plan) == ["placed"] + ["sold_out"] * 9
    assert plan.broken == 9
    assert plan.answers[1].data == {"sku": "s1", "left": 0}


def test_one_sku_on_two_lines_must_fit_as_one_number() -> None:
    """Two lines of three do not fit into five, though each of them would."""
    plan = decide([wish("o1", hold("a", qty=3), hold("b", qty=3))], books(), PAY_WITHIN)
    assert codes(plan) == ["sold_out"]
    assert not plan.lines


def test_an_order_of_more_than_any_payment_is_refused() -> None:
    """What nobody could pay is not placed; one that comes to the largest amount is."""
    dear = [hold("a", qty=1, price_minor=AMOUNT_MAX), hold("b", "s2", 1, price_minor=1)]
    plan = decide([wish("o1", *dear), wish("o2", hold("c", price_minor=AMOUNT_MAX))], books(), 0)
    assert codes(plan) == ["bad_argument", "placed"]
    assert (plan.void, plan.ended) == (["a", "b"], ["a", "b"])


@pytest.mark.parametrize(
    ("but", "code"),
    [
        ({"fences": {0: 8}}, "rebuilding"),
        ({"fences": {}}, "rebuilding"),
        ({"pools": {}}, "not_found"),
        ({"void": {"h-o1"}}, "hold_expired"),
        ({"rooms": {}}, "not_found"),
        ({"rooms": {"r1": ("planned", False)}}, "not_open"),
        ({"rooms": {"r1": ("closed", False)}}, "not_open"),
        ({"rooms": {"r1": ("live", True)}}, "sale_paused"),
        ({"pools": {"sku:s1": pool(limit=2)}, "taken": {("sku:s1", "ann"): 2}}, "limit_reached"),
        ({"pools": {"sku:s1": pool(0)}}, "sold_out"),
    ],
)
def test_a_refused_buy_now_leaves_nothing_but_a_void_hold(but: dict, code: str) -> None:
    """Its hold is void in the same transaction, so that no retry that shares it is placed."""
    plan = decide([wish()], books(**but), PAY_WITHIN)
    assert codes(plan) == [code]
    assert not plan.orders + plan.lines + plan.ledger + plan.told
    assert plan.ended == ["h-o1"]
    assert plan.void == ([] if code == "hold_expired" else ["h-o1"])


@pytest.mark.parametrize("room", ["closed", "planned"])
def test_a_checkout_goes_on_in_a_closed_room(room: str) -> None:
    """Carts may be checked out after room.close; a pause stops them."""
    assert codes(decide([wish(buy_now=False)], books(rooms={"r1": (room, False)}), 1)) == ["placed"]
    paused = decide([wish(buy_now=False)], books(rooms={"r1": (room, True)}), 1)
    assert codes(paused) == ["sale_paused"]
    assert paused.ended + paused.void == []


def test_limits_count_what_the_batch_itself_takes() -> None:
    """Fifty tabs of one buyer at a limit of two: two orders."""
    plan = decide(
        [wish(f"o{n}") for n in range(50)],
        books(pools={"sku:s1": pool(99, limit=2)}),
        PAY_WITHIN,
    )
    assert codes(plan).count("placed") == 2
    assert plan.taken == {("sku:s1", "ann"): 2}


def test_the_same_order_twice_in_a_batch_is_one_order() -> None:
    """The second request gets the first answer; other content or another buyer, id_reused."""
    same = wish("o1", hold("h1"))
    plan = decide(
        [same, same, wish("o1", hold("h2")), wish("o1", content="c2"), wish("o1", buyer="bob")],
        books(),
        PAY_WITHIN,
    )
    assert codes(plan) == ["placed", "placed", "placed", "id_reused", "id_reused"]
    assert plan.answers[0] == plan.answers[1] == plan.answers[2]
    assert len(plan.orders) == 1
    assert "h1" not in plan.ended + plan.void
    assert "h2" in plan.ended


def test_an_order_that_is_there_gets_its_first_answer() -> None:
    """Whatever has become of it, and whatever the room or the fence says now."""
    first = decide([wish()], books(), PAY_WITHIN).answers[0]
    known = {"o1": Known("ann", "c1", first, frozenset({"h-o1"}))}
    now = books(known=known, fences={0: 9}, rooms={"r1": ("closed", True)})
    plan = decide([wish(), wish("o1", hold("h9"))], now, PAY_WITHIN)
    assert plan.answers == [first, first]
    assert plan.ended == ["h9"]
    checkout = decide([wish("o1", hold("h9"), buy_now=False)], now, PAY_WITHIN)
    assert checkout.returned == ["h9"]


def test_a_hold_serves_one_order() -> None:
    """Two orders that stand on the same hold: the second has none."""
    plan = decide([wish("o1", hold("h1")), wish("o2", hold("h1"))], books(), PAY_WITHIN)
    assert codes(plan) == ["placed", "hold_expired"]
    assert "h1" not in plan.void + plan.ended


def test_currencies_are_never_mixed() -> None:
    """One order is in one currency."""
    mixed = {"sku:s1": pool(), "sku:s2": pool(sku="s2", currency="USD")}
    plan = decide([wish("o1", hold("a"), hold("b", "s2"))], books(pools=mixed), PAY_WITHIN)
    assert codes(plan) == ["bad_argument"]


def test_one_bad_order_does_not_sink_its_batch() -> None:
    """What cannot be placed was never written; the rest is placed."""
    plan = decide([wish("o1"), wish("o2", room="nowhere"), wish("o3")], books(), PAY_WITHIN)
    assert codes(plan) == ["placed", "not_found", "placed"]
    assert [row[0] for row in plan.orders] == ["o1", "o3"]


orders = st.lists(
    st.tuples(
        st.sampled_from(["o1", "o2", "o3", "o4", "o5"]),
        st.sampled_from(["ann", "bob"]),
        st.lists(
            st.tuples(st.sampled_from(["s0", "s1", "s2"]), st.integers(1, 4)),
            min_size=1,
            max_size=3,
            unique_by=lambda line: line[0],
        ),
    ),
    max_size=12,
)


@given(orders, st.integers(0, 6), st.sampled_from([None, 1, 3]))
def test_no_batch_oversells_and_every_row_adds_up(
    asked: list, available: int, limit: int | None
) -> None:
    """For any batch: sums, sequences and limits are right, and the books stay as they were."""
    pools = {f"sku:{sku}": pool(available, sku=sku, limit=limit) for sku in ("s0", "s1", "s2")}
    wishes = [
        wish(order, *(hold(f"{n}.{sku}", sku, qty) for sku, qty in lines), buyer=buyer)
        for n, (order, buyer, lines) in enumerate(asked)
    ]
    given_books = books(pools=pools)
    before = copy.deepcopy(msgspec.to_builtins(given_books, str_keys=False, builtin_types=(tuple,)))
    plan = decide(wishes, given_books, PAY_WITHIN)
    after = msgspec.to_builtins(given_books, str_keys=False, builtin_types=(tuple,))
    assert after == before
    assert len(plan.answers) == len(wishes)
    for name, row in pools.items():
        taken = sum(line[5] for line in plan.lines if line[2] == name)
        rows = [entry for entry in plan.ledger if entry[0] == name]
        assert taken <= available
        assert [entry[1] for entry in rows] == list(range(row.seq + 1, row.seq + 1 + len(rows)))
        if rows:
            assert rows[-1][7] == available - taken
    if limit is not None:
        assert all(units <= limit for units in plan.taken.values())
    placed = {row[0] for row in plan.orders}
    assert len(placed) == len(plan.orders)
    assert not set(plan.void) & {line[7] for line in plan.lines}

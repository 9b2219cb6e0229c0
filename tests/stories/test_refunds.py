"""A merchant gives money back: the whole of it, a part, with the goods on sale again or not."""

from __future__ import annotations

import pytest

from liveroom.ids import new_id


def bought(enter, server, name, *lines):
    """A paid order of this member; the seat and the order's id."""
    buyer = enter(name)
    asked = [{"sku": sku, "qty": qty} for sku, qty in lines]
    order = buyer.do("order.place", order=new_id(), lines=asked)["order"]["id"]
    payment = buyer.do("payment.start", order=order)["payment"]["id"]
    with server.http(server.token(name)) as http:
        assert http.post(f"/v1/sandbox/payments/{payment}/succeed").status_code == 200
    return buyer, order


def refund(server, order, *who, key=None, **body):
    """Ask for a refund as somebody with these roles."""
    headers = {"idempotency-key": key} if key else {}
    with server.http(server.token(*who)) as http:
        return http.post(f"/v1/orders/{order}/refunds", json=body, headers=headers)


def test_a_part_goes_back_and_is_for_sale_again(enter, server):
    """Ann sends one of two back: she hears of her money, and everybody sees the unit again."""
    ann, order = bought(enter, server, "ann", ("s1", 2), ("s2", 1))
    # A picture may be as old as a state event may wait: what she bought must be in it.
    ann.hear("stock.changed", lambda data: data["sku"] == "s1")
    bob = enter("bob")
    before = bob.joined["snapshot"]["stock"]["s1"]["left"]

    answer = refund(
        server,
        order,
        "mei",
        "merchant:shop",
        lines=[{"sku": "s1", "qty": 1, "restock": True}],
        why="too small",
    )
    assert answer.status_code == 201, answer.text
    given = answer.json()
    assert (given["state"], given["amount_minor"], given["why"]) == ("pending", 1999, "too small")
    assert bob.hear(
        "stock.changed", lambda data: data["sku"] == "s1" and data["left"] == before + 1
    )
    told = ann.hear("order.refunded")["data"]["order"]
    assert (told["id"], told["state"]) == (order, "paid")
    assert [one["state"] for one in told["refunds"]] == ["succeeded"]
    shown = ann.do("order.show", order=order)["order"]
    assert shown["refunds"][0]["lines"] == [{"sku": "s1", "qty": 1, "restock": True}]


def test_all_of_it_goes_back_once(enter, server):
    """The same key is the same refund; without a body's lines everything goes back."""
    ann, order = bought(enter, server, "ann", ("s3", 2))
    first = refund(server, order, "mia", "host:r1", key="k1")
    again = refund(server, order, "mia", "host:r1", key="k1")
    assert first.status_code == again.status_code == 201
    assert first.json() == again.json()
    assert first.json()["amount_minor"] == 2 * 1999
    assert ann.hear("order.refunded")["data"]["order"]["state"] == "refunded"
    more = refund(server, order, "mia", "host:r1")
    assert (more.status_code, more.json()["code"]) == (409, "illegal_transition")
    other = refund(server, order, "mia", "host:r1", key="k1", amount_minor=1)
    assert (other.status_code, other.json()["code"]) == (409, "id_reused")


@pytest.mark.parametrize(
    ("who", "status"),
    [
        (("root", "admin"), 201),
        (("mia", "host:r1"), 201),
        (("mei", "merchant:shop"), 201),
        (("ann",), 403),
        (("eve",), 404),
        (("eve", "merchant:other"), 404),
        (("eve", "host:other"), 404),
        (("kim", "moderator:r1"), 404),
    ],
)
def test_who_may_give_back(enter, server, who, status):
    """The order's merchant, its room's host and an admin; its buyer may not, others see nothing."""
    _, order = bought(enter, server, "ann", ("s4", 1))
    name, *roles = who
    assert refund(server, order, name, *roles, amount_minor=1).status_code == status


@pytest.mark.parametrize(
    "body",
    [
        {"amount_minor": 0},
        {"amount_minor": -1},
        {"amount_minor": 1.5},
        {"amount_minor": "1"},
        {"amount_minor": 2**63},
        {"amount_minor": 10**11},
        {"lines": [{"sku": "s5", "qty": 0}]},
        {"lines": [{"sku": "s5", "qty": 2}]},
        {"lines": [{"sku": "s1", "qty": 1}]},
        {"lines": [{"sku": "s5", "qty": 1, "restock": "yes"}]},
        {"lines": [{"sku": "s5", "qty": 1}, {"sku": "s5", "qty": 1}]},
        {"why": 5},
    ],
)
def test_what_cannot_be_given_back(enter, server, body):
    """Amounts and units that are no such, or more than there was: bad_argument, and nothing moved."""
    _, order = bought(enter, server, "ann", ("s5", 1))
    answer = refund(server, order, "mia", "host:r1", **body)
    assert (answer.status_code, answer.json()["code"]) == (422, "bad_argument")
    restock = {"lines": [{"sku": "s5", "qty": 1, "restock": True}]}  # for the next of these
    assert refund(server, order, "mia", "host:r1", **restock).status_code == 201


def test_an_unpaid_order_has_nothing_to_give_back(enter, server):
    """A placed order is cancelled, not refunded."""
    ann = enter("ann")
    order = ann.do("order.place", order=new_id(), lines=[{"sku": "s5", "qty": 1}])["order"]["id"]
    answer = refund(server, order, "root", "admin")
    assert (answer.status_code, answer.json()["code"]) == (409, "illegal_transition")
    ann.do("order.cancel", order=order)


def test_the_books_agree_afterwards(server):
    """Every sum agrees after all of it."""
    report = server.audit()
    assert report["ok"], report

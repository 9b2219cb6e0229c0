"""Buyers: two for one unit, a cart, a payment, a price that changed."""

from __future__ import annotations

import pytest

from liveroom.ids import new_id
from tests.live import Said


def one(sku: str, qty: int = 1, **more: object) -> list[dict[str, object]]:
    return [{"sku": sku, "qty": qty, **more}]


def test_two_buyers_one_unit(enter):
    """Of two who want the last unit, one has it, and the other is told that none is left."""
    ann, bob = enter("ann"), enter("bob")
    first = ann.do("order.place", order=new_id(), lines=one("s1", 10))["order"]
    with pytest.raises(Said) as refused:
        bob.do("order.place", order=new_id(), lines=one("s1"))
    assert (first["state"], first["total_minor"]) == ("placed", 19990)
    assert refused.value.error["data"] == {"sku": "s1", "left": 0}
    assert refused.value.code == "sold_out"
    assert refused.value.error["retry"] is False
    assert bob.hear("stock.changed", lambda data: data["sku"] == "s1" and data["left"] == 0)

    ann.do("order.cancel", order=first["id"])
    assert bob.hear("stock.changed", lambda data: data["sku"] == "s1" and data["left"] == 10)
    assert bob.do("order.place", order=new_id(), lines=one("s1"))["order"]["state"] == "placed"


def test_an_order_id_gives_one_order(enter):
    """The same id and content get the first answer on any connection; others are refused."""
    ann, again, bob = enter("ann"), enter("ann"), enter("bob")
    order = new_id()
    first = ann.do("order.place", order=order, lines=one("s2", 2))
    assert again.do("order.place", order=order, lines=one("s2", 2)) == first
    assert again.do("order.place", order=order, lines=one("s2", 2), again=True) == first
    assert again.refusal("order.place", order=order, lines=one("s2", 3)) == "id_reused"
    assert bob.refusal("order.place", order=order, lines=one("s2", 2)) == "id_reused"
    assert bob.refusal("order.show", order=order) == "not_found"


def test_cart_to_paid(enter, server):
    """Ann's cart becomes an order, she pays in the sandbox, and hears that it is paid."""
    ann = enter("ann")
    cart = ann.do("cart.add", sku="s3", qty=1)["cart"]
    cart = ann.do("cart.add", sku="s3", qty=2)["cart"]
    assert [(line["sku"], line["qty"]) for line in cart["lines"]] == [("s3", 3)]
    assert (cart["total_minor"], cart["currency"]) == (3 * 1999, "CNY")

    order = ann.do("cart.checkout", order=new_id())["order"]
    assert ann.do("cart.show")["cart"]["lines"] == []
    assert ann.refusal("cart.checkout", order=new_id()) == "hold_expired"
    payment = ann.do("payment.start", order=order["id"], provider="sandbox")["payment"]
    assert payment["amount_minor"] == order["total_minor"]
    with server.http(server.token("ann")) as http:
        answer = http.post(f"/v1/sandbox/payments/{payment['id']}/succeed")
        assert answer.status_code == 200, answer.text
    assert ann.hear("order.paid")["data"]["order"]["id"] == order["id"]
    assert ann.do("order.show", order=order["id"])["order"]["state"] == "paid"


def test_a_price_that_changed_is_said(enter):
    """Who saw another price is told the new one; who agrees to it buys at it."""
    host, ann = enter("mia", "host:r1"), enter("ann")
    host.do("price.set", sku="s4", price_minor=1500)
    told = ann.hear("price.changed")["data"]
    assert (told["sku"], told["price_minor"]) == ("s4", 1500)
    with pytest.raises(Said) as refused:
        ann.do("order.place", order=new_id(), lines=one("s4", price_minor=1999))
    assert refused.value.code == "price_changed"
    assert refused.value.error["data"]["price_minor"] == 1500
    order = ann.do("order.place", order=new_id(), lines=one("s4", price_minor=1500))["order"]
    assert order["total_minor"] == 1500


def test_pause_stops_sales_at_once(enter):
    """After `ok` to sale.pause nothing is sold; after sale.resume it is again."""
    host, ann = enter("mia", "host:r1"), enter("ann")
    host.do("sale.pause")
    assert ann.refusal("order.place", order=new_id(), lines=one("s5")) == "sale_paused"
    assert ann.refusal("cart.add", sku="s5", qty=1) == "sale_paused"
    host.do("sale.resume")
    assert ann.do("order.place", order=new_id(), lines=one("s5"))["order"]["state"] == "placed"


def test_the_books_agree_afterwards(server):
    """Whatever was bought here, every sum agrees while the server runs."""
    report = server.audit()
    assert report["ok"], report

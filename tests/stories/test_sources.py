"""A brand asks where its sales came from."""

from __future__ import annotations

from liveroom.ids import new_id
from tests.live import Seat


def pay(server, seat: Seat, name: str, order: str) -> None:
    """Press the sandbox's pay button."""
    payment = seat.do("payment.start", order=order)["payment"]["id"]
    with server.http(server.token(name)) as http:
        assert http.post(f"/v1/sandbox/payments/{payment}/succeed").status_code == 200


def attribution(server) -> dict:
    """What the shop's sales are owed to, as its merchant sees it."""
    with server.http(server.token("mei", "merchant:shop")) as http:
        return http.get("/v1/shops/shop/attribution").json()


def test_a_cart_is_owed_to_what_it_was_held_for(server):
    """Ann comes from a note while p1 is pinned; a restart, an unpin and a new role change nothing."""
    mia, ann = Seat(server), Seat(server)
    mia.join(server.token("mia", "host:r1"))
    seen = ann.join(server.token("ann"))["snapshot"]["room"]
    assert (seen["host"], seen["host_roles"]) == ("mia", ["buyer"])
    mia.do("product.pin", product="p1")
    pinned = ann.hear("product.pinned")
    ann.do("cart.add", sku="s1", qty=2, source={"kind": "note", "id": "n1"})

    mia.do("product.unpin", product="p1")
    with server.http(server.token("mia")) as http:
        assert http.patch("/v1/creators/mia", json={"roles": ["manager"]}).status_code == 200
    assert ann.hear("room.changed")["data"]["room"]["host_roles"] == ["manager"]
    assert server.stop() == 0
    server.start()

    ann = Seat(server)
    epoch = ann.join(server.token("ann"))["epoch"]
    ann.do("cart.add", sku="s1", qty=1, source={"kind": "search"})
    held = ann.do("cart.checkout", order=new_id())["order"]
    pay(server, ann, "ann", held["id"])
    bought = ann.do("order.place", order=new_id(), lines=[{"sku": "s2", "qty": 1}])["order"]
    pay(server, ann, "ann", bought["id"])
    with server.http(server.token("mei", "merchant:shop")) as http:
        body = {"lines": [{"sku": "s1", "qty": 1}]}
        assert http.post(f"/v1/orders/{held['id']}/refunds", json=body).status_code == 201
    ann.hear("order.refunded")

    told = attribution(server)
    first = {"currency": "CNY", "units": 3, "paid_minor": 5997, "refunded_minor": 1999}
    later = {"currency": "CNY", "units": 1, "paid_minor": 1999, "refunded_minor": 0}
    both = {"currency": "CNY", "units": 4, "paid_minor": 7996, "refunded_minor": 1999}
    assert told["total"] == [both]
    assert told["rooms"] == [both | {"room": "r1"}]
    assert told["hosts"] == [both | {"host": "mia"}]
    assert told["roles"] == [first | {"roles": ["buyer"]}, later | {"roles": ["manager"]}]
    pin = {"pin": f"{epoch}:{pinned['seq']}", "room": "r1", "product": "p1"}
    assert told["pins"] == [first | pin, later | {"unattributed": True}]
    note = {"source": {"kind": "note", "id": "n1"}}
    assert told["sources"] == [first | note, later | {"unattributed": True}]
    assert server.audit()["ok"]

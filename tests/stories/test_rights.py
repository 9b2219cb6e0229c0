"""Guest, viewer and host, and what each may do."""

from __future__ import annotations

import pytest

from liveroom.ids import new_id
from tests.live import Live

GUEST_MAY = {"message.post": {"text": "hi"}, "reaction.send": {"kind": "heart", "count": 3}}
MEMBER_MAY = {
    "cart.show": {},
    "cart.add": {"sku": "s1", "qty": 1},
    "cart.remove": {"sku": "s1"},
    "waitlist.leave": {"sku": "s1"},
    "creator.follow": {"creator": "mia"},
    "creator.unfollow": {"creator": "mia"},
}
HOST_MAY = {
    "product.pin": {"product": "p1"},
    "product.unpin": {"product": "p1"},
    "price.set": {"sku": "s1", "price_minor": 1999},
    "stock.restock": {"sku": "s1", "qty": 1},
    "stock.adjust": {"sku": "s1", "delta": -1, "why": "broken"},
    "shelf.put": {"product": "p1"},
    "notice.post": {"text": "hello"},
    "room.set": {"slow_mode_s": 0},
    "drop.schedule": {"sku": "s3", "quantity": 1, "price_minor": 1, "lasts_ms": 600_000},
    "sale.pause": {},
    "sale.resume": {},
}


@pytest.mark.parametrize("cmd", GUEST_MAY)
def test_guest_may_talk(enter, cmd):
    """A guest may talk and react where the room allows it."""
    enter().do(cmd, **GUEST_MAY[cmd])


@pytest.mark.parametrize("cmd", [*MEMBER_MAY, *HOST_MAY])
def test_guest_is_asked_to_sign_in(enter, cmd):
    """What needs a member answers a guest with `unauthenticated`."""
    data = {**MEMBER_MAY, **HOST_MAY}[cmd]
    assert enter().refusal(cmd, **data) == "unauthenticated"


@pytest.mark.parametrize("cmd", MEMBER_MAY)
def test_viewer_may_buy(enter, cmd):
    """A member needs no role to buy and to follow."""
    enter("ann").do(cmd, **MEMBER_MAY[cmd])


@pytest.mark.parametrize("cmd", HOST_MAY)
def test_viewer_is_refused_the_hosts_commands(enter, cmd):
    """A member without the right gets `forbidden`, as does the host of another room."""
    assert enter("ann").refusal(cmd, **HOST_MAY[cmd]) == "forbidden"
    assert enter("eve", "host:other").refusal(cmd, **HOST_MAY[cmd]) == "forbidden"


@pytest.mark.parametrize("cmd", HOST_MAY)
def test_host_may(enter, cmd):
    """The room's host may do all of it."""
    enter("mia", "host:r1").do(cmd, **HOST_MAY[cmd])


def test_moderator_removes_a_message_and_sells_nothing(enter):
    """A moderator takes a message from every screen, and has none of the host's other rights."""
    ann, keeper = enter("ann"), enter("kim", "moderator:r1")
    said = ann.do("message.post", text="call 555-0100")["message"]
    assert ann.refusal("message.remove", message=said["id"]) == "forbidden"
    keeper.do("message.remove", message=said["id"])
    assert ann.hear("message.removed")["data"] == {"message": said["id"]}
    assert keeper.refusal("price.set", sku="s1", price_minor=1) == "forbidden"
    shown = enter("bob").joined["snapshot"]["messages"]
    assert said["id"] not in [message["id"] for message in shown]


def test_rooms_may_keep_guests_silent(enter):
    """Where the host lets only members talk, a guest is asked to sign in."""
    host, guest = enter("mia", "host:r1"), enter()
    host.do("room.set", members_only=True)
    assert guest.refusal("message.post", text="hi") == "unauthenticated"
    host.do("room.set", members_only=False)
    guest.do("message.post", text="hi")


def test_nobody_sees_another_persons_order(enter, server):
    """Another's order is `not_found`, over WebSocket and over HTTP."""
    ann, bob = enter("ann"), enter("bob")
    order = ann.do("order.place", order=new_id(), lines=[{"sku": "s2", "qty": 1}])["order"]["id"]
    assert bob.refusal("order.show", order=order) == "not_found"
    assert bob.refusal("order.cancel", order=order) == "not_found"
    assert bob.refusal("payment.start", order=order) == "not_found"
    with server.http(server.token("bob")) as http:
        assert http.get(f"/v1/orders/{order}").status_code == 404
    with server.http(server.token("ann")) as http:
        assert http.get(f"/v1/orders/{order}").json()["id"] == order


def test_creating_needs_the_right(server):
    """Shops are the admin's to make, and nobody's without a token."""
    body = {"id": "mine", "name": "Mine"}
    with server.http() as nobody:
        assert nobody.post("/v1/shops", json=body).json()["code"] == "unauthenticated"
    with server.http(server.token("ann")) as ann:
        assert ann.post("/v1/shops", json=body).json()["code"] == "forbidden"


@pytest.mark.parametrize(("sandbox", "status"), [("true", 201), ("false", 401)])
def test_beside_a_sign_in_service_the_secret_is_the_sandboxes(tmp_path, sandbox, status):
    """Where a JWKS signs, tokens of the server's own secret are taken in the sandbox alone."""
    live = Live(tmp_path / "data", "--jwks-url", "http://127.0.0.1:1/keys", "--sandbox", sandbox)
    try:
        live.start()
        with live.http(live.token("root", "admin")) as http:
            told = http.post("/v1/shops", json={"id": "s1", "name": "Shop"})
        assert told.status_code == status, told.text
    finally:
        live.close()

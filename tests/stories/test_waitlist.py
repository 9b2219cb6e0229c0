"""Sold out: who waits, who is offered what comes back, and who takes it."""

from __future__ import annotations

import pytest

from liveroom.ids import new_id
from tests.live import Said


def test_sold_out_and_back(enter):
    """Bob and Cyd wait; Bob is offered what Ann gives back, declines, and Cyd buys it."""
    ann, bob, cyd, eve = enter("ann"), enter("bob"), enter("cyd"), enter("eve")
    ann.do("cart.add", sku="s1", qty=10)
    assert bob.do("waitlist.join", sku="s1", qty=10)["waiting"] == {
        "sku": "s1",
        "qty": 10,
        "ahead": 0,
    }
    assert cyd.do("waitlist.join", sku="s1", qty=2)["waiting"]["ahead"] == 1
    again = enter("cyd").joined["snapshot"]
    assert again["waiting"] == [{"sku": "s1", "qty": 2}]
    assert "waiting" not in enter("dan").joined["snapshot"]
    ann.do("cart.remove", sku="s1")
    with pytest.raises(Said) as refused:
        eve.do("order.place", order=new_id(), lines=[{"sku": "s1", "qty": 1}])
    assert refused.value.error["data"] == {"sku": "s1", "left": 0}

    offer = bob.hear("waitlist.offered")["data"]
    [line] = bob.do("cart.show")["cart"]["lines"]
    assert offer == {"sku": "s1", "qty": 10, "until": line["expires_at"]}
    bob.do("cart.remove", sku="s1")

    assert cyd.hear("waitlist.offered")["data"]["qty"] == 2
    order = cyd.do("cart.checkout", order=new_id())["order"]
    assert [(one["sku"], one["qty"]) for one in order["lines"]] == [("s1", 2)]
    # Nobody waits any more: the rest is for everybody.
    assert eve.hear("stock.changed", lambda data: data["sku"] == "s1" and data["left"] == 8)
    eve.do("order.place", order=new_id(), lines=[{"sku": "s1", "qty": 8}])


def test_the_host_brings_more(enter):
    """Restocked units are offered to who waits first; the host's screen shows what is over."""
    host, ann, bob = enter("mia", "host:r1"), enter("ann"), enter("bob")
    host.do("stock.adjust", sku="s2", delta=-10, why="the box fell")
    assert ann.refusal("cart.add", sku="s2", qty=1) == "sold_out"
    ann.do("waitlist.join", sku="s2", qty=3)
    bob.do("waitlist.join", sku="s2", qty=1)
    assert bob.do("waitlist.leave", sku="s2")["waiting"]["qty"] == 0
    assert host.do("stock.restock", sku="s2", qty=5)["stock"]["left"] == 0
    assert ann.hear("waitlist.offered")["data"]["qty"] == 3
    assert host.hear("stock.changed", lambda data: data["sku"] == "s2" and data["left"] == 2)


def test_who_may_wait(enter):
    """A guest is asked to sign in; nobody waits for what is there, or for nothing."""
    ann = enter("ann")
    assert enter().refusal("waitlist.join", sku="s3", qty=1) == "unauthenticated"
    with pytest.raises(Said) as refused:
        ann.do("waitlist.join", sku="s3", qty=2)
    assert refused.value.code == "not_open"
    assert refused.value.error["data"] == {"sku": "s3", "left": 10}
    assert ann.refusal("waitlist.join", sku="s3", qty=0) == "bad_argument"
    assert ann.refusal("waitlist.join", sku="nope", qty=1) == "not_found"


def test_the_books_agree_afterwards(server):
    """Whatever was offered here, every sum agrees while the server runs."""
    report = server.audit()
    assert report["ok"], report

"""A viewer drops off and returns."""

from __future__ import annotations


def test_who_returns_hears_what_was_missed(enter):
    """Mia loses the network for two notices and hears both on return, once, in order."""
    host, viewer = enter("mia", "host:r1"), enter("ann")
    host.do("notice.post", text="one")
    seen = viewer.hear("notice.posted", lambda data: data["text"] == "one")
    viewer.leave()
    host.do("notice.post", text="two")
    host.do("notice.post", text="three")

    since = {"epoch": viewer.joined["epoch"], "seq": seen["seq"]}
    back = enter("ann", since=since)

    assert back.joined["mode"] == "resumed"
    assert [event["data"]["text"] for event in back.joined["events"]] == ["two", "three"]
    assert back.joined["seq"] == seen["seq"] + 2
    assert {"stock", "viewers", "reactions", "orders", "messages"} <= set(back.joined["now"])
    host.do("notice.post", text="four")
    assert back.hear("notice.posted")["seq"] == back.joined["seq"] + 1


def test_who_was_away_too_long_sees_the_room_anew(enter):
    """A position of another epoch, or ahead of the log, is answered with a snapshot."""
    now = enter("ann").joined
    for since in ({"epoch": "elsewhere", "seq": 0}, {"epoch": now["epoch"], "seq": now["seq"] + 9}):
        back = enter("ann", since=since).joined
        assert back["mode"] == "snapshot"
        assert back["epoch"] == now["epoch"]
        assert back["snapshot"]["room"]["id"] == "r1"


def test_who_returns_after_a_pin_sees_it(enter):
    """A pin that was set while Ann was away is in what she missed, and in a fresh picture."""
    host, ann = enter("mia", "host:r1"), enter("ann")
    ann.leave()
    host.do("product.pin", product="p1")

    back = enter("ann", since={"epoch": ann.joined["epoch"], "seq": ann.joined["seq"]})
    assert [event["ev"] for event in back.joined["events"]][-1] == "product.pinned"
    fresh = enter("bob").joined["snapshot"]
    assert [product["id"] for product in fresh["pinned"]] == ["p1"]


def test_a_hold_outlives_the_connection(enter):
    """What Ann put in her cart is there, with the same deadline, after she was away."""
    ann = enter("ann")
    kept = ann.do("cart.add", sku="s1", qty=2)["cart"]
    ann.leave()
    back = enter("ann").joined
    assert back["snapshot"]["cart"] == kept


def test_what_was_said_is_shown_to_who_comes_later(enter):
    """The last messages are in the picture, the same objects that were events."""
    ann, bob = enter("ann"), enter("bob")
    said = ann.do("message.post", text="还有M码吗?")["message"]
    assert bob.hear("message.posted", lambda data: data["id"] == said["id"])["data"] == said
    assert enter("tom").joined["snapshot"]["messages"][-1] == said

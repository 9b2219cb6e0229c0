"""Flash drops as hosts, buyers and passers-by meet them."""

from __future__ import annotations

import hashlib
from collections import Counter

import pytest

from liveroom.ids import new_id
from tests.live import Said, Seat

LONG = {"lasts_ms": 600_000}


def buy(seat: Seat, drop: dict, qty: int = 1, **more: object) -> dict:
    """Buy now in a drop."""
    line = {"sku": drop["sku"], "qty": qty, "drop": drop["id"], **more}
    return seat.do("order.place", order=new_id(), lines=[line])["order"]


def outcome(seat: Seat, drop: dict) -> str:
    """A refusal's code, or `ok`."""
    try:
        buy(seat, drop)
    except Said as refusal:
        return refusal.code
    return "ok"


def is_of(drop: dict, **about: object):
    """Whether an event's drop is this one, as it is said to be."""
    return lambda data: data["drop"].items() >= {"id": drop["id"], **about}.items()


def test_a_drop_by_hand(enter):
    """Mia opens one in a single command; Ann sees it, buys at its price, hears what is left."""
    host, ann = enter("mia", "host:r1"), enter("ann")
    asked = {"sku": "s1", "quantity": 3, "price_minor": 990, "limit_per_buyer": 2}
    drop = host.do("drop.schedule", opens_in_ms=0, **LONG, **asked)["drop"]
    assert drop.items() >= {"state": "open", "admission": "first", **asked}.items()
    assert drop["closes_at"] - drop["opens_at"] == 600_000
    assert ann.hear("drop.scheduled", is_of(drop, state="scheduled"))["seq"]
    assert ann.hear("drop.opened", is_of(drop, state="open"))["data"]["drop"] == drop

    order = buy(ann, drop, 2, price_minor=990)
    assert order["lines"] == [{"sku": "s1", "qty": 2, "price_minor": 990, "drop": drop["id"]}]
    told = ann.hear("stock.changed", lambda data: data.get("drop") and data["left"] == 1)["data"]
    assert (told["sku"], told["drop"]) == ("s1", drop["id"])
    assert outcome(ann, drop) == "limit_reached"
    ordinary = ann.do("order.place", order=new_id(), lines=[{"sku": "s1", "qty": 1}])["order"]
    assert ordinary["total_minor"] == 1999
    ann.hear("stock.changed", lambda data: "drop" not in data and data["left"] == 6)

    shown = enter("bob").joined["snapshot"]
    assert [one["left"] for one in shown["drops"] if one["id"] == drop["id"]] == [1]
    assert shown["stock"]["s1"]["left"] == 6
    ended = host.do("drop.close", drop=drop["id"])["drop"]
    assert ended["state"] == "closed"
    assert ann.hear("drop.closed", is_of(drop, state="closed"))
    assert ann.hear("stock.changed", lambda data: "drop" not in data and data["left"] == 7)
    assert outcome(enter("cy"), drop) == "not_open"
    assert host.refusal("drop.close", drop=drop["id"]) == "illegal_transition"
    assert drop["id"] not in [one["id"] for one in enter().joined["snapshot"]["drops"]]


def test_a_planned_drop_opens_by_itself(enter):
    """All phones count down to the same server time; nobody buys a moment before."""
    host, ann = enter("mia", "host:r1"), enter("ann")
    asked = {"sku": "s2", "quantity": 5, "price_minor": 500, "limit_per_buyer": 1}
    drop = host.do("drop.schedule", opens_in_ms=700, lasts_ms=700, **asked)["drop"]
    assert drop["state"] == "scheduled"
    ann.hear("drop.scheduled", is_of(drop))
    assert outcome(ann, drop) == "not_open"
    bob = enter("bob")
    [shown] = [one for one in bob.joined["snapshot"]["drops"] if one["id"] == drop["id"]]
    assert shown["opens_at"] - bob.joined["time_ms"] <= 700
    opened = bob.hear("drop.opened", is_of(drop, state="open"))
    assert opened["at"] >= drop["opens_at"]
    closed = bob.hear("drop.closed", is_of(drop, state="closed"))
    assert closed["at"] >= drop["closes_at"]
    assert bob.hear("stock.changed", lambda data: data == data | {"sku": "s2", "left": 10})


def test_a_phone_that_comes_back(enter):
    """Who was away hears each drop event missed, and is told the drop's stock as it is now."""
    host, ann = enter("mia", "host:r1"), enter("ann")
    joined = ann.joined
    since = {"epoch": joined["epoch"], "seq": joined["seq"]}
    ann.leave()
    drop = host.do("drop.schedule", sku="s3", quantity=4, price_minor=1, limit_per_buyer=4, **LONG)
    drop = drop["drop"]
    buy(enter("bob"), drop, 3)
    host.hear("stock.changed", lambda data: data.get("drop") and data["left"] == 1)
    back = enter("ann", since=since).joined
    assert back["mode"] == "resumed"
    told = [one["ev"] for one in back["events"] if one["ev"].startswith("drop.")]
    assert told[-2:] == ["drop.scheduled", "drop.opened"]
    [now] = [one for one in back["now"]["drops"] if one["id"] == drop["id"]]
    assert (now["state"], now["left"]) == ("open", 1)
    host.do("drop.close", drop=drop["id"])


def test_a_drop_called_off(enter):
    """The units are back on ordinary sale, and the room is told that it will not be."""
    host, ann = enter("mia", "host:r1"), enter("ann")
    asked = {"sku": "s4", "quantity": 10, "price_minor": 1, "limit_per_buyer": 1}
    drop = host.do("drop.schedule", opens_in_ms=600_000, **LONG, **asked)["drop"]
    with pytest.raises(Said) as refused:
        ann.do("cart.add", sku="s4", qty=1)
    assert (refused.value.code, refused.value.error["data"]) == (
        "sold_out",
        {"sku": "s4", "left": 0},
    )
    assert host.refusal("drop.schedule", **LONG, **asked) == "sold_out"
    assert host.refusal("drop.close", drop=drop["id"]) == "illegal_transition"
    assert host.do("drop.cancel", drop=drop["id"])["drop"]["state"] == "cancelled"
    assert ann.hear("drop.closed", is_of(drop, state="cancelled"))
    assert host.refusal("drop.cancel", drop=drop["id"]) == "illegal_transition"
    ann.do("cart.add", sku="s4", qty=1)
    ann.do("cart.remove", sku="s4")


def test_the_same_key_schedules_once(enter, server):
    """A host who was not answered asks again with the key, and has one drop."""
    host = enter("mia", "host:r1")
    data = {"sku": "s5", "quantity": 2, "price_minor": 1, "limit_per_buyer": 1, **LONG}
    with server.http(server.token("mia", "host:r1")) as http:

        def schedule(**but: object) -> dict:
            body = {"cmd": "drop.schedule", "data": data | but}
            key = {"Idempotency-Key": "k1"}
            return http.post("/v1/rooms/r1/commands", json=body, headers=key).json()

        first = schedule()["drop"]
        assert schedule()["drop"] == first
        assert schedule(quantity=3)["code"] == "id_reused"
    host.do("drop.close", drop=first["id"])


@pytest.mark.parametrize(
    "wrong",
    [
        *({"quantity": n} for n in (0, -1, 1.5, "1", 2**63)),
        *({"price_minor": n} for n in (-1, 0.5, 2**63)),
        *({"lasts_ms": n} for n in (0, -1, 2**53)),
        *({"opens_in_ms": n} for n in (-1, 2**53)),
        *({"limit_per_buyer": n} for n in (0, -1)),
        {"admission": "friends"},
        {"sku": "no such id!"},
    ],
)
def test_what_does_not_fit(enter, wrong):
    """Numbers out of bounds and words that are none are `bad_argument`; nothing is set aside."""
    host = enter("mia", "host:r1")
    data = {"sku": "s5", "quantity": 1, "price_minor": 1, "limit_per_buyer": 1, **LONG}
    assert host.refusal("drop.schedule", **data | wrong) == "bad_argument"
    assert [one for one in host.joined["snapshot"]["drops"] if one["sku"] == "s5"] == []


def test_a_draw(enter):
    """Nobody is first: who entered may be drawn, and the seed shows that nobody chose."""
    host = enter("mia", "host:r1")
    asked = {"sku": "s5", "quantity": 1, "price_minor": 100, "limit_per_buyer": 1}
    drop = host.do("drop.schedule", opens_in_ms=900, admission="draw", **LONG, **asked)["drop"]
    assert drop["admission"] == "draw"
    ann, bob, cy = (enter(name) for name in ("ann", "bob", "cy"))
    for seat in (ann, bob, ann):
        assert seat.do("drop.enter", drop=drop["id"])["drop"]["id"] == drop["id"]
    assert enter("ann").joined["snapshot"]["entries"] == [{"drop": drop["id"]}]
    assert enter().refusal("drop.enter", drop=drop["id"]) == "unauthenticated"
    for seat in (ann, bob, cy):
        seat.hear("drop.opened", is_of(drop))
    answers = {name: outcome(seat, drop) for name, seat in (("ann", ann), ("bob", bob))}
    assert Counter(answers.values()) == {"ok": 1, "not_open": 1}
    [winner] = [name for name, answer in answers.items() if answer == "ok"]
    assert (ann if winner == "ann" else bob).hear("drop.admitted", is_of(drop))
    [mine] = enter(winner).joined["snapshot"]["entries"]
    assert mine == {"drop": drop["id"], "admitted": True}
    assert outcome(cy, drop) == "not_open"
    assert cy.refusal("drop.enter", drop=drop["id"]) == "not_open"
    ended = host.do("drop.close", drop=drop["id"])["drop"]
    assert hashlib.sha256(bytes.fromhex(ended["seed"])).hexdigest() == drop["seed_hash"]
    assert ended["entries_digest"] == hashlib.sha256(b"ann\nbob\n").hexdigest()
    assert ended["entries"] == 2


def test_a_room_that_ends_ends_its_drops(enter, server):
    """What is open closes, what is planned is called off; the units are there again."""
    with server.http(server.token("root", "admin")) as root:
        room = {"id": "r9", "title": "Late", "host": "mia", "shelf": ["p1"]}
        assert root.post("/v1/rooms", json=room).status_code == 201
    host = enter("mia", "host:r9", room="r9")
    asked = {"sku": "s5", "quantity": 2, "price_minor": 100, "limit_per_buyer": 1}
    planned = host.do("drop.schedule", opens_in_ms=600_000, **LONG, **asked)["drop"]
    host.do("room.open")
    opened = host.do("drop.schedule", **LONG, **asked)["drop"]
    assert enter("ann").refusal("drop.enter", drop=planned["id"]) == "not_found"
    host.do("room.close")
    ended = {host.hear("drop.closed")["data"]["drop"]["id"] for _ in range(2)}
    assert ended == {planned["id"], opened["id"]}
    assert host.refusal("drop.schedule", **LONG, **asked) == "not_open"

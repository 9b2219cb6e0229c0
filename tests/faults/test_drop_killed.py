"""A flash drop while everything that serves it is killed."""

from __future__ import annotations

import time
from collections import Counter

from liveroom.ids import new_id
from tests.live import Live, Said, Seat, serving

RETURNED_MAX_S = 20.0


def outcome(seat: Seat, drop: dict) -> str:
    """What becomes of one unit bought in a drop: a refusal's code, or `ok`."""
    line = {"sku": drop["sku"], "qty": 1, "drop": drop["id"]}
    try:
        seat.do("order.place", order=new_id(), lines=[line])
    except Said as refusal:
        return refusal.code
    return "ok"


def seated(server: Live, *names: str) -> list[Seat]:
    """A seat for each of these members."""
    seats = []
    for name in names:
        seats.append(Seat(server))
        seats[-1].join(server.token(name))
    return seats


def left(server: Live) -> int:
    """What the room shows of s1's ordinary stock."""
    with server.http() as http:
        return http.get("/v1/rooms/r1").json()["stock"]["s1"]["left"]


def test_killed_in_the_middle_of_a_drop(tmp_path):
    """Two workers sell it, all are killed: it is open again, and what was due meanwhile is done."""
    with serving(tmp_path / "data", "--workers", "2", stock=60) as server:
        host = Seat(server)
        host.join(server.token("mia", "host:r1"))
        asked = {"sku": "s1", "price_minor": 100, "limit_per_buyer": 1}
        long = {"lasts_ms": 600_000}
        drop = host.do("drop.schedule", quantity=5, **long, **asked)["drop"]
        over = host.do("drop.schedule", quantity=7, lasts_ms=200, **asked)["drop"]
        due = host.do("drop.schedule", quantity=6, opens_in_ms=200, **long, **asked)["drop"]
        answers = [outcome(seat, drop) for seat in seated(server, "a", "b", "c")]
        server.kill()
        server.start()
        seats = seated(server, "a", "b", "c", "d", "e", "f")
        answers += [outcome(seat, drop) for seat in seats]
        assert Counter(answers) == {"ok": 5, "limit_reached": 3, "sold_out": 1}
        assert outcome(seats[0], over) == "not_open"
        assert outcome(seats[0], due) == "ok"
        until = time.monotonic() + RETURNED_MAX_S
        while left(server) != 49 and time.monotonic() < until:
            time.sleep(0.05)
        assert left(server) == 49

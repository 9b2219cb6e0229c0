"""Two workers on a Valkey Cluster: viewers of both see one room, and buy from one stock."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from liveroom.ids import new_id
from tests.live import Live, Seat
from tests.nodes import ValkeyCluster, cluster

SEATS = 6


@pytest.fixture
def three(tmp_path) -> Iterator[ValkeyCluster]:
    """Three masters."""
    with cluster(tmp_path / "three") as made:
        yield made


@pytest.fixture
def server(three, tmp_path) -> Iterator[Live]:
    live = Live(tmp_path / "data", "--workers", "2", "--redis-url", three.url)
    try:
        live.start()
        live.shop()
        yield live
    finally:
        live.close()


def seats_of_both_workers(server: Live) -> list[tuple[Seat, dict[str, Any]]]:
    """Seats, and what their joins were answered."""
    seats: list[tuple[Seat, dict[str, Any]]] = []
    while len(seats) < SEATS or len({ok["node"] for _, ok in seats}) < 2:
        assert len(seats) < 100, "one worker takes every connection"
        seat = Seat(server)
        seats.append((seat, seat.join()))
    return seats


def test_seats_of_both_workers_miss_nothing_while_lines_are_killed(server, three, run):
    """Every seat hears every event once, in order; the last unit count reaches all of them."""

    async def cut() -> None:
        for member in three.masters:
            await member.say("CLIENT", "KILL", "TYPE", "pubsub")

    seats = seats_of_both_workers(server)
    notice = {"cmd": "notice.post", "data": {"text": "hello"}}
    pin = {"cmd": "product.pin", "data": {"product": "p1"}}
    with server.http(server.token("mia", "host:r1")) as http:
        for _ in range(5):
            run(cut())
            for _ in range(4):
                assert http.post("/v1/rooms/r1/commands", json=notice).status_code == 200
        assert http.post("/v1/rooms/r1/commands", json=pin).status_code == 200
    for seat, ok in seats:
        seat.hear("product.pinned")
        seqs = [event["seq"] for event in seat.heard if "seq" in event]
        assert seqs == list(range(ok["seq"] + 1, ok["seq"] + 22))
    buyer = Seat(server)
    buyer.join(server.token("ann"))
    order = buyer.do("order.place", order=new_id(), lines=[{"sku": "s1", "qty": 1}])["order"]
    assert order["state"] == "placed"
    for seat, _ in seats:
        assert seat.hear("stock.changed", lambda data: data["left"] == 9)
        seat.leave()
    buyer.leave()

"""Stories are told to a whole server, started once for each of their files."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.live import Live, Seat


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A server with a shop and a live room r1: product p1, SKUs s1 … s5 of ten units each."""
    live = Live(tmp_path_factory.mktemp("story") / "data")
    try:
        live.start()
        live.shop(skus=("s1", "s2", "s3", "s4", "s5"))
        yield live
    finally:
        live.close()


@pytest.fixture
def enter(server: Live) -> Iterator[Callable[..., Seat]]:
    """Takes seats in a room and joins: with roles as a host, with a name as a member, else a guest."""
    seats = []

    def enter(name: str | None = None, *roles: str, room: str = "r1", **data: object) -> Seat:
        seat = Seat(server, room)
        seats.append(seat)
        seat.joined = seat.join(None if name is None else server.token(name, *roles), **data)
        return seat

    yield enter
    for seat in seats:
        seat.leave()

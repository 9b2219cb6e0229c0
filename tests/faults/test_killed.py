"""The server, or a worker of it, is killed in the middle of a sale."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator

import pytest
from websockets.exceptions import ConnectionClosed

from liveroom.ids import new_id
from tests.live import Live, Said, Seat, serving
from tests.sale import FEW, Sale

BUYERS = 8
BEFORE = 60
"""How many orders are acknowledged before the server is killed; buying goes on meanwhile."""
STOCK = 5000


@pytest.fixture
def server(tmp_path) -> Iterator[Live]:
    live = Live(tmp_path / "data")
    try:
        live.start()
        live.shop(stock=STOCK)
        yield live
    finally:
        live.close()


class Buyer(threading.Thread):
    """Orders one unit after another until the connection breaks; keeps what was acknowledged."""

    def __init__(self, server: Live, name: str, enough: threading.Event, all_of: list[str]) -> None:
        super().__init__(name=name, daemon=True)
        self.orders: list[str] = []
        self.unanswered: str | None = None
        self._enough = enough
        self._all = all_of
        self._seat = Seat(server)
        self._seat.join(server.token(name))

    def run(self) -> None:
        with contextlib.suppress(ConnectionClosed, OSError):
            while True:
                order = self.unanswered = new_id()
                self._seat.do("order.place", order=order, lines=[{"sku": "s1", "qty": 1}])
                self.orders.append(order)
                self._all.append(order)
                self.unanswered = None
                if len(self._all) >= BEFORE:
                    self._enough.set()


def _sale_until_killed(server: Live) -> list[Buyer]:
    enough, acknowledged = threading.Event(), []
    buyers = [Buyer(server, f"b{number}", enough, acknowledged) for number in range(BUYERS)]
    for buyer in buyers:
        buyer.start()
    assert enough.wait(30), "the sale did not get going"
    server.kill()
    for buyer in buyers:
        buyer.join(10)
        assert not buyer.is_alive()
    return buyers


def test_every_acknowledged_order_survives_sigkill(server):
    """After SIGKILL in the middle of a sale every order that was acknowledged is there."""
    buyers = _sale_until_killed(server)
    server.start()

    known = set()
    for buyer in buyers:
        seat = Seat(server)
        seat.join(server.token(buyer.name))
        for order in buyer.orders:
            assert seat.do("order.show", order=order)["order"]["state"] == "placed"
            known.add(order)
        if buyer.unanswered is not None:
            # An unanswered order is settled by asking again: there is one of it, not two.
            lines = [{"sku": "s1", "qty": 1}]
            seat.do("order.place", order=buyer.unanswered, lines=lines, again=True)
            known.add(buyer.unanswered)
        seat.leave()

    report = server.audit()
    assert report["ok"], report
    viewer = Seat(server)
    left = viewer.join()["snapshot"]["stock"]["s1"]["left"]
    assert left == STOCK - len(known)
    viewer.leave()


def test_a_stock_number_never_goes_back_over_a_restart(server):
    """`v` after a kill is higher than any `v` before it, so no viewer keeps an old number."""
    viewer = Seat(server)
    before = viewer.join()["snapshot"]["stock"]["s1"]["v"]
    server.kill()
    server.start()
    again = Seat(server)
    assert again.join()["snapshot"]["stock"]["s1"]["v"] > before
    again.leave()


def test_a_planned_stop_keeps_carts(server):
    """SIGTERM drains, exits 0 and keeps what is held: the cart is the same after the start."""
    ann = Seat(server)
    ann.join(server.token("ann"))
    cart = ann.do("cart.add", sku="s1", qty=3)["cart"]
    assert server.stop() == 0
    with pytest.raises((ConnectionClosed, OSError, Said)):
        ann.do("cart.show")
    assert ann.socket.close_code == 4000

    server.start()
    back = Seat(server)
    [kept] = back.join(server.token("ann"))["snapshot"]["cart"]["lines"]
    [line] = cart["lines"]
    # The deadline stands in Redis; shown on the new process's clock it may differ a little.
    assert abs(kept.pop("expires_at") - line.pop("expires_at")) < 1000
    assert kept == line
    back.leave()
    assert server.audit()["ok"]


def _a_worker(server: Live) -> None:
    os.kill(min(server.workers()), signal.SIGKILL)


def _everything(server: Live) -> None:
    server.kill()
    server.start()


@pytest.mark.parametrize("kill", [_a_worker, _everything])
def test_everybody_is_served_again_within_ten_seconds(tmp_path, kill: Callable[[Live], None]):
    """All who were cut return and buy: ten seconds from the kill, or from the server's start."""
    flags = ("--workers", "2", "--message-rate-max", "0")
    with serving(tmp_path / "data", *flags, stock=FEW) as server:

        async def story() -> None:
            sale = Sale(server, "s1")
            async with sale.going_on():
                await asyncio.to_thread(kill, server)
                await sale.is_normal_again()
            await sale.adds_up()

        asyncio.run(asyncio.wait_for(story(), 90))

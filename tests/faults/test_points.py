"""The server is killed between two steps of the protocol, at every point that has a name.

Each test proves that its point was come by, starts the server again, lets every buyer ask
again under the same order id, and buys whatever is left: all orders that were acknowledged
are there, no unit is sold twice, and none is forgotten. `make faults` takes every point
(`LIVEROOM_FAULT_POINTS=all`), the build those of BUILD.
"""

from __future__ import annotations

import ast
import contextlib
import itertools
import os
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from bench.history import Recorder, merged
from liveroom.faults import ARMED
from liveroom.ids import new_id
from tests.books import books_agree
from tests.live import Live

HOUSE = Path(__file__).parent.parent.parent / "liveroom"
STOCK = 40
BUYERS = 4
DIES_WITHIN_S = 30.0
QUIET_WITHIN_S = 30.0


class Shop:
    """A server with a shop, its buyers, and what they were told."""

    def __init__(self, server: Live) -> None:
        self.server = server
        self.history = Recorder()
        self.asked: dict[str, tuple[str, str, dict[str, Any]]] = {}

    def start(self, armed: str | None = None, *flags: str) -> None:
        """Start the server, with a point armed or none."""
        self.server._env = {} if armed is None else {ARMED: armed}
        self.server.flags = flags
        self.server.start()

    def died_at(self, point: str) -> None:
        """The server has killed itself, at this point."""
        assert self.server.process is not None
        assert self.server.process.wait(DIES_WITHIN_S) == -signal.SIGKILL, self.server.log()
        self.server._forget()
        assert f"killed at fault point {point}\n" in self.server.log()

    def do(self, who: str, cmd: str, *roles: str, **data: Any) -> httpx2.Response:
        """A command over HTTP; a member asks for it."""
        with self.server.http(self.server.token(who, *roles)) as http:
            return http.post("/v1/rooms/r1/commands", json={"cmd": cmd, "data": data})

    def order(self, who: str, cmd: str, **data: Any) -> str:
        """Order under a new id; the id."""
        order = new_id()
        self.asked[order] = (who, cmd, data)
        self.ask(order)
        return order

    def ask(self, order: str, **more: Any) -> httpx2.Response:
        """Send an order, for the first time or again, on record."""
        who, cmd, data = self.asked[order]
        data = {"order": order, **data, **more}
        asked = self.history.invoke(who, cmd, data)
        try:
            answer = self.do(who, cmd, **data)
        except httpx2.TransportError:
            self.history.info(asked)
            raise
        if answer.status_code == httpx2.codes.OK:
            self.history.ok(asked, answer.json()["order"])
        else:
            self.history.refused(asked, answer.json())
        return answer

    # ── what comes by the points ──────────────────────────────────────────────────────────

    def buy(self, who: str) -> None:
        self.order(who, "order.place", lines=[{"sku": "s1", "qty": 1}])

    def check_out(self, who: str) -> None:
        self.do(who, "cart.add", sku="s1", qty=1)
        self.order(who, "cart.checkout")

    def be_refused(self, who: str) -> None:
        self.buy(who)  # so that something was acknowledged before it dies
        self.do(who, "cart.add", sku="s1", qty=1)
        self.do("mia", "sale.pause", "host:r1")
        self.order(who, "cart.checkout")

    def pay(self, who: str) -> str:
        order = self.order(who, "order.place", lines=[{"sku": "s1", "qty": 1}])
        started = self.do(who, "payment.start", order=order, provider="sandbox")
        payment = _first(started.json(), "payment")["id"]
        with self.server.http(self.server.token(who)) as http:
            http.post(f"/v1/sandbox/payments/{payment}/succeed")
        return order

    def give_back(self, who: str) -> None:
        order = self.pay(who)
        with self.server.http(self.server.token("mo", "merchant:shop")) as http:
            answer = http.post(f"/v1/orders/{order}/refunds", json={})
            assert answer.status_code == httpx2.codes.CREATED, answer.text

    def count_in(self, _who: str) -> None:
        self.do("mia", "stock.restock", "host:r1", sku="s1", qty=1)

    def count_out(self, _who: str) -> None:
        self.do("mia", "stock.adjust", "host:r1", sku="s1", delta=-1, why="broken")

    # ── what must be true after it ────────────────────────────────────────────────────────

    def ask_again(self) -> None:
        """Every buyer sends the same order again, twice; what was acknowledged is there."""
        self.do("mia", "sale.resume", "host:r1")
        acknowledged = {line.value["id"] for line in self.history.lines if line.what == "ok"}
        for order, (_, cmd, _) in self.asked.items():
            more = {"again": True} if cmd == "order.place" else {}
            answer = self.ask(order, **more)
            if order in acknowledged:
                assert answer.status_code == httpx2.codes.OK, answer.text
            assert self.ask(order, **more).content == answer.content

    def sell_out(self) -> None:
        """Whatever is free is for sale: nothing was forgotten, nothing is there twice."""
        until = time.monotonic() + QUIET_WITHIN_S
        for number in itertools.count():
            free = self._free()
            if free == 0:
                break
            who = f"last{number}"
            lines = [{"sku": "s1", "qty": free}]
            answer = self.do(who, "order.place", order=new_id(), lines=lines, again=True)
            if answer.status_code != httpx2.codes.OK:  # something may be held until it is due
                assert time.monotonic() < until, f"{free} units are free, yet: {answer.text}"
                time.sleep(0.1)
        refused = self.do("late", "order.place", order=new_id(), lines=[{"sku": "s1", "qty": 1}])
        assert "sold_out" in refused.text

    def adds_up(self) -> None:
        """The audit finds nothing, and the books bear out all that anybody was answered."""
        report = self.server.audit()
        assert report["ok"], report
        if self.asked:
            books_agree(self.server, merged([self.history.lines]), {"sku:s1": STOCK})

    def _free(self) -> int:
        query = "SELECT initial + adjusted - reserved - sold FROM pools WHERE pool = 'sku:s1'"
        with sqlite3.connect(self.server.data / "liveroom.db", timeout=10) as conn:
            return int(conn.execute(query).fetchone()[0])


def _first(body: dict[str, Any], name: str) -> dict[str, Any]:
    return body[name] if name in body else body["ok"][name]


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    server = Live(tmp_path / "data")
    try:
        yield Shop(server)
    finally:
        server.close()


# Each point, and what is done until the server comes by it.
SELLING: dict[str, tuple[str, Callable[[Shop, str], Any]]] = {
    "hold.asked": ("hold.asked:5", Shop.buy),
    "hold.taken": ("hold.taken:5", Shop.buy),
    "cart.placing": ("cart.placing:5", Shop.check_out),
    "cart.returned": ("cart.returned", Shop.be_refused),
    "order.decided": ("order.decided:5", Shop.buy),
    "order.written": ("order.written:5", Shop.buy),
    "order.committed": ("order.committed:5", Shop.buy),
    "order.answering": ("order.answering:5", Shop.buy),
    "tell.told": ("tell.told:5", Shop.check_out),
    "expiry.closing": ("expiry.closing", Shop.buy),
    "expiry.payments_closed": ("expiry.payments_closed", Shop.buy),
    "expiry.committed": ("expiry.committed", Shop.buy),
    "webhook.committed": ("webhook.committed:2", Shop.pay),
    "outbox.told": ("outbox.told", Shop.give_back),
    "refund.asked": ("refund.asked", Shop.give_back),
    "stock.counted": ("stock.counted:2", Shop.count_in),
    "stock.reduction_held": ("stock.reduction_held:2", Shop.count_out),
}
STARTING = ("rebuild.raised", "rebuild.read", "rebuild.loaded", "rebuild.opened")
STOPPING = ("stop.marked_sql", "stop.marked_redis")
ADOPTING = ("start.mark_taken", "start.adopted")
VOIDING = ("void.committed", "void.ended")
WAITING = ("waiting.joined", "waiting.offered", "waiting.told", "waiting.opened")
BUILD = {
    *("hold.taken", "cart.placing", "order.written", "order.committed", "order.answering"),
    *("expiry.payments_closed", "webhook.committed", "refund.asked"),
    *("rebuild.raised", "rebuild.loaded", "stop.marked_redis", "start.mark_taken"),
    *("void.committed", "waiting.offered"),
}


def chosen(points: Iterable[str]) -> list[str]:
    """Those of the points that are to be tested this time."""
    every = os.environ.get("LIVEROOM_FAULT_POINTS") == "all"
    return [point for point in points if every or point in BUILD]


@pytest.mark.parametrize("point", chosen(SELLING))
def test_killed_while_selling(shop, point):
    """Between two steps of a hold, an order, a payment, a refund or a count."""
    armed, step = SELLING[point]
    flags = ("--pay-within-s", "1") if point.startswith("expiry.") else ()
    shop.start(armed, *flags)
    shop.server.shop(stock=STOCK)
    _until_it_breaks(shop, step)
    shop.died_at(point)

    shop.start()
    shop.ask_again()
    shop.sell_out()
    shop.adds_up()


def _until_it_breaks(shop: Shop, step: Callable[[Shop, str], Any]) -> None:
    """Several buyers at once, each again and again, until nobody answers."""
    until = time.monotonic() + DIES_WITHIN_S

    def buy(who: str) -> None:
        for _ in range(STOCK // BUYERS - 1):
            # A KeyError is a refusal: there is nothing to go on with.
            with contextlib.suppress(httpx2.TransportError, KeyError):
                step(shop, who)
            if shop.server.process.poll() is not None or time.monotonic() > until:
                return

    crowd = [threading.Thread(target=buy, args=(f"b{n}",), daemon=True) for n in range(BUYERS)]
    for buyer in crowd:
        buyer.start()
    for buyer in crowd:
        buyer.join(2 * DIES_WITHIN_S)
        assert not buyer.is_alive()


@pytest.mark.parametrize("point", chosen(STARTING))
def test_killed_while_rebuilding(shop, point):
    """A rebuild that died in the middle is begun again by the next start."""
    _sell_a_little(shop)
    shop.server.kill()
    _start_and_die(shop, point)

    shop.start()
    shop.ask_again()
    shop.sell_out()
    shop.adds_up()


@pytest.mark.parametrize("point", chosen(STOPPING))
def test_killed_while_marking_a_stop(shop, point):
    """A planned stop that died half way is no planned stop, or a whole one."""
    shop.start(point)
    _sell_a_little(shop, start=False)
    shop.server.send(signal.SIGTERM)
    shop.died_at(point)

    shop.start()
    shop.ask_again()
    shop.sell_out()
    shop.adds_up()


@pytest.mark.parametrize("point", chosen(ADOPTING))
def test_killed_while_going_on(shop, point):
    """A start that died while it took over what a planned stop had left."""
    _sell_a_little(shop)
    assert shop.server.stop() == 0
    _start_and_die(shop, point)

    shop.start()
    shop.ask_again()
    shop.sell_out()
    shop.adds_up()


@pytest.mark.parametrize("point", chosen(VOIDING))
def test_killed_while_a_hold_is_made_void(shop, point, redis_url):
    """Redis lives on with a hold that nobody placed; who sweeps it away is killed as well."""
    flags = ("--redis-url", redis_url)
    shop.start("hold.taken:5", *flags)
    shop.server.shop(stock=STOCK)
    _until_it_breaks(shop, Shop.buy)
    shop.died_at("hold.taken")
    shop.start(point, *flags)
    shop.died_at(point)

    shop.start(None, *flags)
    shop.ask_again()
    shop.sell_out()
    shop.adds_up()


@pytest.mark.parametrize("point", chosen(WAITING))
def test_killed_while_somebody_waits(shop, point, redis_url):
    """Redis lives on; who waited is offered what came back all the same, and once."""
    flags = ("--redis-url", redis_url)
    shop.start(point, *flags)
    shop.server.shop(stock=STOCK)
    shop.do("ann", "cart.add", sku="s1", qty=STOCK)
    with contextlib.suppress(httpx2.TransportError):
        shop.do("bob", "waitlist.join", sku="s1", qty=2)
        gives_up = (
            ("bob", "waitlist.leave") if point == "waiting.opened" else ("ann", "cart.remove")
        )
        shop.do(*gives_up, sku="s1")
    shop.died_at(point)

    shop.start(None, *flags)
    shop.do("ann", "cart.remove", sku="s1")
    if point != "waiting.opened":
        until = time.monotonic() + QUIET_WITHIN_S
        while not (lines := shop.do("bob", "cart.show").json()["cart"]["lines"]):
            assert time.monotonic() < until, "bob was never offered anything"
            time.sleep(0.05)
        assert [line["qty"] for line in lines] == [2]
        shop.order("bob", "cart.checkout")
    shop.ask_again()
    shop.sell_out()
    shop.adds_up()


def test_an_unlucky_commit_is_told_by_the_next_process(shop, redis_url):
    """Redis lives on and was never told of the last commit: the ledger tells it."""
    flags = ("--redis-url", redis_url)
    shop.start("order.committed:5", *flags)
    shop.server.shop(stock=STOCK)
    _until_it_breaks(shop, Shop.buy)
    shop.died_at("order.committed")

    shop.start(None, *flags)
    shop.ask_again()
    shop.sell_out()
    shop.adds_up()


def test_every_point_has_a_test():
    """A point that nobody arms proves nothing; those of drops are in tests/test_promotions.py."""
    named = set()
    for path in HOUSE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "point":
                named.add(ast.literal_eval(node.args[0]))
    elsewhere = {name for name in named if name.startswith("drop.")}
    assert named - elsewhere == {*(*SELLING, *STARTING, *STOPPING, *ADOPTING, *VOIDING, *WAITING)}


def _sell_a_little(shop: Shop, *, start: bool = True) -> None:
    if start:
        shop.start()
    shop.server.shop(stock=STOCK)
    for number in range(3):
        shop.buy(f"b{number}")
        shop.check_out(f"b{number}")


def _start_and_die(shop: Shop, point: str) -> None:
    shop.server._env = {ARMED: point}
    with pytest.raises(AssertionError):  # it never says where it listens
        shop.server.start()
    shop.died_at(point)

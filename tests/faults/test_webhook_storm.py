"""A provider that tells everything fifty times, in any order, with lies between, while a worker dies.

`LIVEROOM_FAULT_LONG`, as in `make faults`, has five times as many orders paid.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

import orjson
import pytest

from bench.history import Recorder
from liveroom.ids import new_id
from liveroom.payments import WINDOW_S, sign
from liveroom.settings import secret_in
from tests.books import audited, books_agree
from tests.crowd import RETRY_S, Cut, until
from tests.live import Live, serving
from tests.posting import Member, Poster, each, members, told

PAID = 200 if "LIVEROOM_FAULT_LONG" in os.environ else 40
"""Orders that are paid as they should be; as many lies of each kind as a fifth of them."""
LIES = PAID // 5
COPIES = 50
LINES = 50
STOCK = 10_000
PRICE = 1999
PATH = "/v1/payments/webhooks/sandbox"


@dataclass(frozen=True)
class Told:
    """One webhook as the provider sends it; `copies` times in all."""

    event: str
    kind: str
    reference: str
    amount_minor: int = PRICE
    currency: str = "CNY"
    secret: bytes = b""
    age_s: int = 0
    copies: int = COPIES

    def request(self) -> tuple[bytes, dict[str, str]]:
        said = {"type": self.kind, "reference": self.reference}
        said |= {"amount_minor": self.amount_minor, "currency": self.currency}
        body, at_s = orjson.dumps(said), int(time.time()) - self.age_s
        return body, sign(self.secret, event=self.event, at_s=at_s, body=body).headers


@pytest.fixture
def server(tmp_path) -> Iterator[Live]:
    flags = ("--workers", "2", "--message-rate-max", "0", "--pay-within-s", "0")
    with serving(tmp_path / "data", *flags, stock=STOCK) as live:
        yield live


class Provider:
    """Sends until it is answered, and looks into SQL whenever it is answered 200."""

    def __init__(self, server: Live) -> None:
        self.statuses: Counter[tuple[str, int]] = Counter()
        self.sent = 0
        self._sql = sqlite3.connect(server.data / "liveroom.db", timeout=10)

    async def send(self, poster: Poster, one: Told) -> None:
        while True:
            try:
                answer = await poster.post(PATH, *one.request())
            except Cut:
                continue
            if answer.status < 500:
                break
            await asyncio.sleep(RETRY_S)
        self.sent += 1
        self.statuses[one.event, answer.status] += 1
        if answer.status == 200:
            assert self.rows("SELECT event FROM payment_events WHERE event = ?", one.event)

    def rows(self, query: str, *values: object) -> list[tuple]:
        return self._sql.execute(query, values).fetchall()

    def close(self) -> None:
        self._sql.close()


def test_a_storm_of_webhooks_and_a_worker_that_dies(server):
    """Each order is paid once, what lies pays nothing, and 200 is said of what is committed."""
    history, storm = Recorder(), list[Told]()
    secret = secret_in(server.data).encode()

    async def order(poster: Poster, buyer: Member) -> None:
        """Order and begin to pay; what the provider will say of it."""
        data = {"order": new_id(), "lines": [{"sku": "s1", "qty": 1}]}
        assert await told(poster, history, buyer, "order.place", data) == "ok"
        started = await poster.command(buyer.token, "payment.start", {"order": data["order"]})
        reference = f"sandbox_{started.body['payment']['id']}"
        storm.append(Told(f"paid-{buyer.name}", "payment.succeeded", reference, secret=secret))

    async def story(provider: Provider) -> None:
        await each(server, members(server, PAID + 2 * LIES), order, lines=LINES)
        lies = _spoil(storm)
        posts = [one for one in storm for _ in range(one.copies)]
        random.Random(11).shuffle(posts)
        killing = asyncio.create_task(_kill_a_worker(server, provider, len(posts) // 3))
        await each(server, posts, provider.send, lines=LINES)
        await killing
        _answered_rightly(provider, storm, lies)
        await until(lambda: _went_back(provider) == 2 * LIES)

    with contextlib.closing(Provider(server)) as provider:
        asyncio.run(asyncio.wait_for(story(provider), 60 + PAID))
        _paid_once(provider)
    books = books_agree(server, history.lines, {"sku:s1": STOCK})
    assert Counter(one["state"] for one in books.orders) == {"paid": PAID, "placed": 2 * LIES}
    sold = Counter(row["order"] for row in books.ledger if row["kind"] == "sell")
    assert sorted(sold.values()) == [1] * PAID
    audited(server)


def _spoil(storm: list[Told]) -> set[str]:
    """Make some a cent short, some of another currency, and add what must be turned away.

    The events that must be turned away.
    """
    for at in range(LIES):
        storm[PAID + at] = replace(storm[PAID + at], amount_minor=PRICE - 1)
        storm[PAID + LIES + at] = replace(storm[PAID + LIES + at], currency="EUR")
    paid = storm[:PAID]
    for one in paid[:LIES]:
        storm.append(replace(one, event=f"failed-{one.event}", kind="payment.failed", copies=5))
        storm.append(replace(one, event=f"unknown-{one.event}", reference=new_id(), copies=5))
    bad = [replace(one, event=f"forged-{one.event}", secret=b"another") for one in paid[:LIES]]
    bad += [replace(one, event=f"old-{one.event}", age_s=WINDOW_S + 60) for one in paid[:LIES]]
    storm += [replace(one, copies=5) for one in bad]
    return {one.event for one in bad}


async def _kill_a_worker(server: Live, provider: Provider, after: int) -> None:
    await until(lambda: provider.sent >= after)
    killed = min(server.workers())
    os.kill(killed, signal.SIGKILL)
    await until(lambda: len(server.workers() - {killed}) == 2)


def _answered_rightly(provider: Provider, storm: list[Told], lies: set[str]) -> None:
    """Every copy was answered: 401 to what is forged or old, 200 to all else."""
    assert provider.statuses == Counter(
        {(one.event, 401 if one.event in lies else 200): one.copies for one in storm}
    )
    taken = {event for (event,) in provider.rows("SELECT event FROM payment_events")}
    said = {one.event for one in storm} - lies
    assert said <= taken
    assert not taken & lies


def _went_back(provider: Provider) -> int:
    """How many refunds the provider has carried out."""
    return len(provider.rows("SELECT id FROM refunds WHERE state = 'succeeded'"))


def _paid_once(provider: Provider) -> None:
    """What was taken is what the orders cost; money of a wrong amount went back, all of it."""
    [(orders, paid, refunded)] = provider.rows(
        "SELECT SUM(orders), SUM(paid_minor), SUM(refunded_minor) FROM takings"
    )
    assert (orders, paid, refunded) == (PAID, PAID * PRICE, 0)
    back = provider.rows("SELECT amount_minor, why FROM refunds ORDER BY amount_minor")
    short = (PRICE - 1, "amount_mismatch")
    assert back == [short] * LIES + [(PRICE, "amount_mismatch")] * LIES
    states = provider.rows("SELECT state, COUNT(*) FROM payments GROUP BY state ORDER BY state")
    assert states == [("refunded", 2 * LIES), ("succeeded", PAID)]

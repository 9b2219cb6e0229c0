"""The sweeper and the outbox: one node at a time, and no failure is anybody else's."""

from __future__ import annotations

import asyncio

import shopfloor  # noqa: F401 - tracebacks in the log as plain text
from sqlalchemy import select, update

from liveroom import outbox
from liveroom.errors import Unavailable
from liveroom.outbox import Outbox
from liveroom.store import tables
from liveroom.sweeper import Sweeper


def test_one_node_sweeps_at_a_time(run, db) -> None:
    """Who holds the lease sweeps; the other waits until it has lapsed."""

    async def story() -> None:
        swept: list[str] = []

        def node(name: str) -> Sweeper:
            async def step() -> None:
                swept.append(name)

            return Sweeper(db, {"step": step}, holder=name)

        one, two = node("one"), node("two")
        assert await one.sweep_once()
        assert not await two.sweep_once()
        assert await one.sweep_once()
        await db.write(lambda conn: conn.execute(update(tables.leases).values(until=0)) and None)
        assert await two.sweep_once()
        assert swept == ["one", "one", "two"]

    run(story())


def test_what_runs_seldom_has_a_lease_of_its_own(run, db) -> None:
    """Its lease lasts until its next time, so that many nodes do it no oftener than one."""

    async def story() -> None:
        done: list[str] = []

        def node(name: str) -> Sweeper:
            async def step() -> None:
                done.append(name)

            return Sweeper(db, {"step": step}, holder=name, every_s=3600, lease="tidier")

        assert await node("one").sweep_once()
        assert not await node("two").sweep_once()
        assert await Sweeper(db, {}, holder="two").sweep_once()
        lasts = select(tables.leases.c.until).where(tables.leases.c.name == "tidier")
        until = await db.read(lambda conn: conn.execute(lasts).scalar_one())
        assert until - await db.now_ms() > 3_500_000
        assert done == ["one"]

    run(story())


def test_a_failing_step_stops_no_other(run, db) -> None:
    """Each step runs at each sweep, whatever became of those before it."""

    async def story() -> None:
        swept: list[str] = []

        async def broken() -> None:
            swept.append("broken")
            raise ValueError

        async def away() -> None:
            swept.append("away")
            raise Unavailable("store_down")

        async def fine() -> None:
            swept.append("fine")

        sweeper = Sweeper(db, {"broken": broken, "away": away, "fine": fine}, holder="n")
        await sweeper.sweep_once()
        await sweeper.sweep_once()
        assert swept == ["broken", "away", "fine"] * 2

    run(story())


def test_the_sweeper_runs_until_it_is_closed(run, db) -> None:
    """It sweeps by itself, and after `close` never again."""

    async def story() -> None:
        sweeps, third = 0, asyncio.Event()

        async def step() -> None:
            nonlocal sweeps
            sweeps += 1
            if sweeps == 3:
                third.set()

        sweeper = Sweeper(db, {"step": step}, holder="n", every_s=0.001)
        sweeper.start()
        await third.wait()
        await sweeper.close()
        ended = sweeps
        assert await sweeper.sweep_once()
        assert sweeps == ended + 1

    run(story())


def test_what_fails_outside_is_told_later(run, db) -> None:
    """A row that fails waits longer each time, and keeps none of the others from being told."""

    async def story() -> None:
        told: list[str] = []

        async def tell(body: dict) -> None:
            told.append(body["what"])
            if body["what"] == "bad":
                raise ConnectionError

        def write(conn) -> None:
            for what in ("good", "bad", "fine"):
                outbox.add(conn, "tell", {"what": what}, 0)

        await db.write(write)
        box = Outbox(db, {"tell": tell})
        assert await box.run_once() == 2
        assert await box.run_once() == 0
        assert told == ["good", "bad", "fine"]
        rows = tables.outbox
        waiting = select(rows.c.tries, rows.c.due_at).where(rows.c.done_at.is_(None))
        [row] = await db.read(lambda conn: list(conn.execute(waiting)))
        assert row.tries == 1
        assert row.due_at > await db.now_ms()
        await db.write(lambda conn: conn.execute(update(rows).values(due_at=0)) and None)
        assert await box.run_once() == 0
        [again] = await db.read(lambda conn: list(conn.execute(waiting)))
        assert again.tries == 2
        assert again.due_at - await db.now_ms() > 1_000

    run(story())

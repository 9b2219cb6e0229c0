"""The sweeper and the outbox: one node at a time, and no failure is anybody else's."""

from __future__ import annotations

import asyncio

import pytest
import shopfloor  # noqa: F401 - tracebacks in the log as plain text
from sqlalchemy import event, func, select, update

from liveroom import carving, closing, outbox, parked
from liveroom import sweeper as sweeper_module
from liveroom.errors import Unavailable
from liveroom.outbox import Outbox
from liveroom.store import tables, waiting
from liveroom.store.leases import Lease
from liveroom.sweeper import Step, Sweeper


def test_one_node_sweeps_at_a_time(run, db) -> None:
    """Who holds the lease sweeps; the other waits until it has lapsed."""

    async def story() -> None:
        swept: list[str] = []

        def node(name: str) -> Sweeper:
            async def step() -> None:
                swept.append(name)

            return Sweeper({"step": Step(step)}, lease=Lease(db, name))

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

            return Sweeper(
                {"step": Step(step)},
                lease=Lease(db, name, name="tidier", lasts_ms=3_600_000),
                every_s=3600,
            )

        assert await node("one").sweep_once()
        assert not await node("two").sweep_once()
        assert await Sweeper({}, lease=Lease(db, "two")).sweep_once()
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

        steps = {"broken": Step(broken), "away": Step(away), "fine": Step(fine)}
        sweeper = Sweeper(steps, lease=Lease(db, "n"))
        await sweeper.sweep_once()
        await sweeper.sweep_once()
        assert swept == ["broken", "away", "fine"] * 2

    run(story())


def test_a_step_that_has_nothing_to_do_is_not_run(run, db) -> None:
    """One look at SQL tells; what comes up meanwhile is found by the next sweep."""

    async def story() -> None:
        swept: list[str] = []

        async def step() -> None:
            swept.append("outbox")

        async def always() -> None:
            swept.append("always")

        steps = {"outbox": Step(step, outbox.ANY_WAITING), "always": Step(always)}
        sweeper = Sweeper(steps, lease=Lease(db, "n"))
        await sweeper.sweep_once()
        await db.write(lambda conn: outbox.add(conn, "tell", {}, 0))
        await sweeper.sweep_once()
        assert swept == ["always", "outbox", "always"]

    run(story())


def test_a_step_is_given_what_it_looked_at(run, db) -> None:
    """What it reads of SQL is read with the rest; whether it runs is for `due` to say."""

    async def story() -> None:
        swept: list[object] = []

        async def step(found: object) -> None:
            swept.append(found)

        count = select(func.count()).select_from(tables.outbox)
        look = Step(step, look=lambda conn: conn.execute(count).scalar_one())
        steps = {"always": look, "when due": look._replace(due=outbox.ANY_WAITING)}
        sweeper = Sweeper(steps, lease=Lease(db, "n"))
        await sweeper.sweep_once()
        await db.write(lambda conn: outbox.add(conn, "tell", {}, 0))
        await sweeper.sweep_once()
        assert swept == [0, 1, 1]

    run(story())


def test_what_waits_for_somebody_outside_holds_up_nobody(run, db, monkeypatch) -> None:
    """Sweeps go on beside it and leave it out until it is done; the end stops it."""
    monkeypatch.setattr(sweeper_module, "END_MAX_S", 0.01)

    async def story() -> None:
        swept: list[str] = []
        answer, answered = asyncio.Event(), asyncio.Event()

        async def ask() -> None:
            swept.append("asked")
            await answer.wait()
            answered.set()

        async def step() -> None:
            swept.append("swept")

        sweeper = Sweeper({"step": Step(step)}, outside={"ask": Step(ask)}, lease=Lease(db, "n"))
        await sweeper.sweep_once()
        await sweeper.sweep_once()
        assert swept.count("swept") == 2
        assert swept.count("asked") == 1
        answer.set()
        await answered.wait()
        answer.clear()
        answered.clear()
        while swept.count("asked") == 1:
            await sweeper.sweep_once()
        await sweeper.close()
        answer.set()
        await sweeper.sweep_once()
        assert swept.count("asked") == 2
        assert not answered.is_set()

    run(story())


def test_a_sweep_that_finds_nothing_is_one_read(run, db) -> None:
    """What is due inside and outside and who has the lease are asked together."""

    async def story() -> None:
        async def step() -> None:
            raise AssertionError

        reads: list[object] = []
        steps = {"orders": Step(step, closing.ANY_PLACED)}
        outside = {"outbox": Step(step, outbox.ANY_WAITING)}
        one, two = (Sweeper(steps, outside=outside, lease=Lease(db, name)) for name in "ab")
        assert await one.sweep_once()
        event.listen(db._reader, "begin", reads.append)
        assert await one.sweep_once()
        assert not await two.sweep_once()
        assert await Sweeper(steps, lease=Lease(db, "a")).sweep_once()
        assert len(reads) == 3

    run(story())


LOOKS = {
    "orders to expire": lambda conn: closing.due_orders(conn, 10, (0, "")),
    "orders that are closing": lambda conn: closing.closing_orders(conn, 10, (0, "")),
    "events that wait": lambda conn: parked.due_events(conn, 10, (0, "")),
    "what must be told outside": outbox._due,
    "drops nobody was told of": carving.untold,
    "drops that have ended": carving.ended_with_units,
    "drops whose time comes": carving.due,
    "whether anything is due": lambda conn: conn.execute(
        select(
            *(closing.ANY_PLACED, closing.ANY_CLOSING, parked.ANY_DUE),
            *(outbox.ANY_WAITING, carving.ANY_TO_MEND, waiting.ANY_OPEN),
        )
    ).one(),
}


@pytest.mark.parametrize("look", LOOKS)
def test_a_look_costs_what_is_due_not_what_there_ever_was(db, look) -> None:
    """Each query of a sweep goes by an index of what is open: SQLite's own plan says so."""
    asked: list[tuple[str, object]] = []

    def keep(_conn, _cursor, statement, parameters, *_more) -> None:
        asked.append((statement, parameters))

    with db._reader.connect() as conn:
        event.listen(conn, "before_cursor_execute", keep)
        LOOKS[look](conn)
        event.remove(conn, "before_cursor_execute", keep)
        plans = [
            row[3]
            for statement, parameters in asked
            if statement.startswith("SELECT")
            for row in conn.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
        ]
    assert any("USING" in step for step in plans)
    scans = [step for step in plans if step.startswith("SCAN ") and "USING" not in step]
    assert scans in ([], ["SCAN CONSTANT ROW"])


def test_the_sweeper_runs_until_it_is_closed(run, db) -> None:
    """It sweeps by itself, and after `close` never again."""

    async def story() -> None:
        sweeps, third = 0, asyncio.Event()

        async def step() -> None:
            nonlocal sweeps
            sweeps += 1
            if sweeps == 3:
                third.set()

        sweeper = Sweeper({"step": Step(step)}, lease=Lease(db, "n"), every_s=0.001)
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

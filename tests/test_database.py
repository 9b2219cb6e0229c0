"""The database: one writer, snapshots beside it, and plain words when it is away."""

from __future__ import annotations

import asyncio
import fcntl
import os
import threading
import time

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import event, func, insert, select, text, update
from sqlalchemy.exc import DBAPIError, IntegrityError

from liveroom.errors import Unavailable
from liveroom.store import database, threads
from liveroom.store.database import CommitUnknown, Database, now_ms
from liveroom.store.fixed import Fixed
from liveroom.store.leases import Lease
from liveroom.store.tables import facts, metadata, pools

ON_POSTGRESQL = pytest.param("postgresql", marks=pytest.mark.postgres)


@pytest.fixture(params=["sqlite", ON_POSTGRESQL])
def any_db(request):
    """A fresh database of the present schema, once of each kind."""
    return request.getfixturevalue("db" if request.param == "sqlite" else "postgres_db")


@pytest.fixture
def postgres_db(postgres_url, run):
    """A fresh PostgreSQL database of the present schema."""
    postgresql = Database(postgres_url)
    postgresql.upgrade()
    yield postgresql
    run(postgresql.close())


@pytest.fixture
def beside(any_db, tmp_path, run):
    """A second Database on the same data, as another worker process has it."""
    lock = tmp_path / "sqlite.lock" if any_db.dialect == "sqlite" else None
    second = Database(any_db.url, lock_path=lock)
    yield second
    run(second.close())


def put(name: str, value: str = "0"):
    def fn(conn):
        conn.execute(insert(facts).values(name=name, value=value))
        return name

    return fn


def names(conn):
    return list(conn.scalars(select(facts.c.name).order_by(facts.c.name)))


def add_one(conn):
    """Read, then write: a lost update shows as a sum too small."""
    row = select(facts.c.value).where(facts.c.name == "sum")
    if conn.dialect.name == "postgresql":
        row = row.with_for_update()
    value = int(conn.scalar(row))
    conn.execute(update(facts).where(facts.c.name == "sum").values(value=str(value + 1)))


def total(conn):
    return int(conn.scalar(select(facts.c.value).where(facts.c.name == "sum")))


def test_migrations_make_what_the_tables_say(any_db, run):
    """After every migration the schema equals `tables.py`; a second upgrade changes nothing."""
    any_db.upgrade()

    def differences(conn):
        return compare_metadata(MigrationContext.configure(conn), metadata)

    assert run(any_db.read(differences)) == []


def test_migrations_keep_the_checks(any_db, run):
    """No row may say that more was sold than was there, whoever writes it."""

    def oversell(conn):
        values = {"pool": "sku:s", "sku": "s", "partition": 0, "initial": 1, "sold": 2}
        conn.execute(text("INSERT INTO shops (id, name, created_at) VALUES ('h', '', 0)"))
        conn.execute(
            text(
                "INSERT INTO products (id, shop, title, currency, needs, created_at)"
                " VALUES ('p', 'h', '', 'CNY', '[]', 0)"
            )
        )
        conn.execute(
            text(
                "INSERT INTO skus (id, product, position, price_minor, price_v)"
                " VALUES ('s', 'p', 0, 1, 0)"
            )
        )
        conn.execute(insert(pools).values(**values))

    with pytest.raises(IntegrityError, match="available"):
        run(any_db.write(oversell))


@pytest.mark.postgres
def test_two_nodes_may_upgrade_at_once(postgres_url, run):
    """The second waits for the first and finds nothing left to do."""
    nodes = [Database(postgres_url) for _ in range(2)]
    failures = []

    def upgrade(node):
        try:
            node.upgrade()
        except Exception as error:  # noqa: BLE001 - told to the test's own thread
            failures.append(error)

    started = [threading.Thread(target=upgrade, args=(node,)) for node in nodes]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join(20)
    assert failures == []
    assert run(nodes[0].read(names)) == []
    for node in nodes:
        run(node.close())


def test_what_is_answered_is_committed(any_db, beside, run):
    """Another connection sees it at once; its value comes back to the caller."""

    async def story():
        assert await any_db.write(put("a")) == "a"
        return await beside.read(names)

    assert run(story()) == ["a"]


def test_what_raises_changes_nothing(any_db, run):
    """The function's own error comes out, and its rows are not there."""

    def fail(conn):
        put("a")(conn)
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        run(any_db.write(fail))
    assert run(any_db.read(names)) == []


def test_a_broken_constraint_is_no_outage(any_db, run):
    """A fault of the function is told as what it is, and the next write goes on."""

    async def story():
        await any_db.write(put("a"))
        with pytest.raises(IntegrityError):
            await any_db.write(put("a"))
        await any_db.write(put("b"))
        return await any_db.read(names)

    assert run(story()) == ["a", "b"]


def test_bad_sql_is_no_outage(any_db, run):
    """Only a database that is away is store_down."""
    with pytest.raises(DBAPIError, match="nothing_like_it"):
        run(any_db.read(lambda conn: conn.execute(text("SELECT * FROM nothing_like_it"))))


def test_readers_cannot_write(any_db, run):
    """A read that tries is refused by the database itself."""
    with pytest.raises((DBAPIError, Unavailable)):
        run(any_db.read(put("a")))
    assert run(any_db.read(names)) == []


def test_writers_of_all_workers_take_turns(any_db, beside, run):
    """No update is lost between two workers."""

    async def story():
        await any_db.write(put("sum"))
        await asyncio.gather(*(node.write(add_one) for node in (any_db, beside) * 50))
        return await any_db.read(total)

    assert run(story()) == 100


def test_a_read_is_one_snapshot(any_db, run):
    """What commits while a read runs is not half seen by it."""
    first_read, written = threading.Event(), threading.Event()

    def twice(conn):
        before = names(conn)
        first_read.set()
        assert written.wait(5)
        return before, names(conn)

    async def story():
        reading = asyncio.ensure_future(any_db.read(twice))
        await asyncio.to_thread(first_read.wait, 5)
        await any_db.write(put("a"))
        written.set()
        return await reading, await any_db.read(names)

    assert run(story()) == (([], []), ["a"])


def test_glances_of_one_turn_are_one_read(any_db, run):
    """They share a snapshot: what commits between two of them is seen by neither."""
    first_read, written = threading.Event(), threading.Event()
    reads = []

    def first(conn):
        found = names(conn)
        first_read.set()
        assert written.wait(5)
        return found

    async def story():
        event.listen(any_db._reader, "begin", reads.append)
        glances = [asyncio.ensure_future(any_db.glance(fn)) for fn in (first, names, total)]
        await asyncio.to_thread(first_read.wait, 5)
        await any_db.write(put("sum", "1"))
        later = asyncio.ensure_future(any_db.glance(total))
        written.set()
        found = await asyncio.gather(*glances, return_exceptions=True)
        return found, await later

    (*found, fault), later = run(story())
    assert (found, later) == ([[], []], 1)
    assert isinstance(fault, TypeError)  # there is no sum yet
    assert len(reads) == 2


def test_what_one_glance_raises_is_its_own(any_db, run):
    """Also where SQL fails it, after which PostgreSQL answers nothing more in the transaction."""

    def bad(conn):
        conn.execute(text("SELECT nonsense FROM nowhere"))

    def refused(_conn):
        raise Unavailable("overloaded")

    async def story():
        await any_db.write(put("a"))
        fns = names, bad, names, refused, bad, names
        return await asyncio.gather(*map(any_db.glance, fns), return_exceptions=True)

    one, bad_sql, two, refusal, again, three = run(story())
    assert one == two == three == ["a"]
    assert isinstance(bad_sql, DBAPIError)
    assert isinstance(again, DBAPIError)
    assert refusal.code == "overloaded"


@pytest.mark.postgres
def test_a_glance_that_takes_too_long_is_store_down_alone(postgres_db, run):
    """One whose statement PostgreSQL ends keeps none of the others from their answers."""

    def slow(conn):
        conn.execute(text("SET LOCAL statement_timeout = 1"))
        conn.execute(text("SELECT pg_sleep(10)"))

    async def story():
        glances = map(postgres_db.glance, (names, slow, names))
        return await asyncio.gather(*glances, return_exceptions=True)

    before, late, after = run(story())
    assert before == after == []
    assert late.code == "store_down"


def test_a_select_in_fixed_words(any_db, run):
    """It answers what there is each time it is asked, whatever its own words hold."""
    odd = "it's 100% of :all"
    fixed = Fixed(select(facts.c.name, facts.c.value).where(facts.c.name == odd))

    async def story():
        before = await any_db.read(fixed.all)
        await any_db.write(put("other"))
        await any_db.write(put(odd, "1"))
        return before, await any_db.read(fixed.all), await any_db.read(fixed.all)

    assert run(story()) == ([], [(odd, "1")], [(odd, "1")])


def test_a_write_that_cannot_begin_is_withdrawn(db, tmp_path, run):
    """Another worker that is stopped inside a transaction costs an answer, never a late write."""
    lock = os.open(tmp_path / "sqlite.lock", os.O_RDWR)

    async def story():
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(Unavailable) as failure:
            await db.write(put("late"))
        fcntl.flock(lock, fcntl.LOCK_UN)
        await db.write(put("next"))
        return failure.value, await db.read(names)

    failure, found = run(story())
    os.close(lock)
    assert failure.code == "store_down"
    assert not isinstance(failure, CommitUnknown)
    assert found == ["next"]


def test_a_write_without_an_answer_in_time_is_unknown(any_db, run):
    """It has begun and may yet commit, so its caller must read back; here it did."""
    go_on = threading.Event()

    def slow(conn):
        put("slow")(conn)
        assert go_on.wait(10)

    async def story():
        with pytest.raises(CommitUnknown):
            await any_db.write(slow)
        go_on.set()
        await any_db.write(put("next"))
        return await any_db.read(names)

    assert run(story()) == ["next", "slow"]


def test_too_many_waiting_are_refused(db, run, monkeypatch):
    """The queue has a bound; who is beyond it is told at once."""
    monkeypatch.setattr(threads, "BEGIN_MAX_S", 10)
    began, go_on = threading.Event(), threading.Event()

    def hold_up(conn):
        began.set()
        assert go_on.wait(10)

    async def story():
        first = asyncio.ensure_future(db.write(hold_up))
        await asyncio.to_thread(began.wait, 5)
        beyond = 3
        count = database.WRITE_WAITING_MAX + beyond
        writes = [asyncio.ensure_future(db.write(names)) for _ in range(count)]
        _, pending = await asyncio.wait(writes, timeout=0)
        while len(pending) > database.WRITE_WAITING_MAX:
            _, pending = await asyncio.wait(writes, return_when=asyncio.FIRST_COMPLETED)
        refused = [w.exception().code for w in writes if w.done()]
        go_on.set()
        await asyncio.gather(first, *pending)
        return refused, beyond

    refused, beyond = run(story())
    assert refused == ["overloaded"] * beyond


def test_time_is_the_databases(any_db, run):
    """Integer milliseconds since 1970, moving on inside one transaction's life too."""

    async def story():
        host = time.time() * 1000
        return host, await any_db.now_ms(), await any_db.write(now_ms)

    host, first, second = run(story())
    assert abs(first - host) < 60_000
    assert first <= second


async def has(asked, holder, name="sweep", lasts_ms=60_000):
    """Whether the holder has the lease, who remembers nothing of before."""
    lease = Lease(asked, holder, name=name, lasts_ms=lasts_ms)
    return await lease.glance(lambda _conn: True) is not None


def test_a_lease_has_one_holder(any_db, beside, run):
    """It is renewed by its holder, refused to others, and free once it has lapsed."""

    async def story():
        first = await asyncio.gather(has(any_db, "a"), has(beside, "b"))
        holder, other = ("a", "b") if first[0] else ("b", "a")
        again = [await has(any_db, name) for name in (holder, other)]
        lapsed = text("UPDATE leases SET \"until\" = 0 WHERE name = 'sweep'")
        await any_db.write(lambda conn: conn.execute(lapsed).rowcount)
        taken = [await has(any_db, name) for name in (other, holder)]
        return sorted(first), again, taken, await has(any_db, holder, "else")

    assert run(story()) == ([False, True], [True, False], [True, False], True)


def test_half_a_lease_is_renewed(any_db, run):
    """A holder that asks in time never loses it, and its answer holds for half its length."""

    def left(conn):
        return conn.scalar(text("SELECT \"until\" FROM leases WHERE name = 'sweep'")) - now_ms(conn)

    async def story():
        assert await has(any_db, "a", lasts_ms=30_000)
        assert await has(any_db, "a", lasts_ms=120_000)
        return await any_db.read(left)

    assert run(story()) > 60_000


def test_sqlite_is_as_durable_as_promised(db, run):
    """An acknowledged order is on disk: WAL with a sync at each commit, and keys are checked."""

    def pragmas(conn):
        asked = ("journal_mode", "synchronous", "foreign_keys")
        return [conn.exec_driver_sql(f"PRAGMA {name}").scalar() for name in asked]

    assert run(db.write(pragmas)) == ["wal", 2, 1]


def test_a_full_disk_is_store_down(db, run):
    """Nothing of the transaction is kept, and writes go on once there is room."""

    def too_much(conn):
        pages = conn.exec_driver_sql("PRAGMA page_count").scalar()
        conn.exec_driver_sql(f"PRAGMA max_page_count = {pages + 10}")
        put("small")(conn)
        put("big", "x" * 1_000_000)(conn)

    async def story():
        with pytest.raises(Unavailable) as failure:
            await db.write(too_much)
        await db.write(lambda conn: conn.exec_driver_sql("PRAGMA max_page_count = 10000").scalar())
        await db.write(put("next"))
        return failure.value.code, await db.read(names)

    assert run(story()) == ("store_down", ["next"])


@pytest.mark.postgres
def test_postgresql_is_as_durable_and_bounded_as_promised(postgres_db, run):
    """Commits are synchronous, waits are bounded, reads see one snapshot."""

    def settings(conn):
        asked = ("synchronous_commit", "lock_timeout", "statement_timeout", "transaction_isolation")
        return [conn.exec_driver_sql(f"SHOW {name}").scalar() for name in asked]

    assert run(postgres_db.write(settings)) == ["on", "1s", "2s", "read committed"]
    assert run(postgres_db.read(settings))[-1] == "repeatable read"


@pytest.mark.postgres
def test_deadlocks_run_again(postgres_db, run):
    """Two transactions that lock rows crosswise both commit in the end."""
    second = Database(postgres_db.url)
    barrier = threading.Barrier(2)
    runs = []

    def crosswise(first_name, then_name):
        def fn(conn):
            runs.append(first_name)
            for name in (first_name, then_name):
                value = facts.c.value + "x"
                conn.execute(update(facts).where(facts.c.name == name).values(value=value))
                if len(runs) <= 2 and name == first_name:
                    barrier.wait(5)

        return fn

    async def story():
        await postgres_db.write(put("a", ""))
        await postgres_db.write(put("b", ""))
        # The lock timeout is as long as the deadlock timeout; a deadlock must be found first.
        for node in (postgres_db, second):
            await node.write(lambda conn: conn.execute(text("SET deadlock_timeout = '50ms'")))
        await asyncio.gather(
            postgres_db.write(crosswise("a", "b")), second.write(crosswise("b", "a"))
        )
        values = await postgres_db.read(lambda conn: list(conn.scalars(select(facts.c.value))))
        await second.close()
        return values

    assert run(story()) == ["xx", "xx"]
    # On a busy machine the one that runs again can meet the other's lock once more.
    assert len(runs) >= 3


@pytest.mark.postgres
def test_a_lock_that_is_not_had_in_time_is_store_down(postgres_db, run):
    """A transaction that waits for another longer than a second gives up."""
    import psycopg  # noqa: PLC0415 - an extra

    url = postgres_db.url.replace("+psycopg", "")

    async def story():
        await postgres_db.write(put("a"))
        with psycopg.connect(url) as other:
            other.execute("SELECT * FROM facts FOR UPDATE")
            with pytest.raises(Unavailable) as failure:
                await postgres_db.write(
                    lambda conn: conn.execute(postgres_db.lock(select(facts))).all()
                )
        return failure.value

    failure = run(story())
    assert failure.code == "store_down"
    assert not isinstance(failure, CommitUnknown)


def _pid(conn):
    return conn.scalar(select(func.pg_backend_pid()))


def _terminate(url: str, pid: int) -> None:
    import psycopg  # noqa: PLC0415 - an extra

    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as admin:
        admin.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))


@pytest.mark.postgres
def test_a_connection_lost_before_commit_runs_again(postgres_db, run):
    """Nothing was committed, so a restarted PostgreSQL costs nobody an answer."""

    async def story():
        _terminate(postgres_db.url, await postgres_db.write(_pid))
        await postgres_db.write(put("a"))
        return await postgres_db.read(names)

    assert run(story()) == ["a"]


@pytest.mark.postgres
@pytest.mark.parametrize("patient", [False, True])
def test_a_read_on_a_lost_connection_runs_again(postgres_db, run, patient):
    """What lay in the pool while the database went away costs no reader an answer."""

    async def story():
        await postgres_db.write(put("a"))
        _terminate(postgres_db.url, await postgres_db.read(_pid, patient=patient))
        return await postgres_db.read(names, patient=patient)

    assert run(story()) == ["a"]


@pytest.mark.postgres
def test_glances_on_a_lost_connection_run_again(postgres_db, run):
    """All of them, also those that had been answered on it."""

    async def story():
        await postgres_db.write(put("a"))
        lost = await postgres_db.read(_pid)
        asked = []

        def lose(conn):
            asked.append(_pid(conn))
            if asked == [lost]:
                _terminate(postgres_db.url, lost)
            return names(conn)

        return asked, await asyncio.gather(postgres_db.glance(names), postgres_db.glance(lose))

    asked, found = run(story())
    assert found == [["a"], ["a"]]
    assert len(asked) == 2


@pytest.mark.postgres
def test_a_connection_lost_at_commit_is_unknown(postgres_db, run):
    """COMMIT was sent and not answered: its owner must read back before answering anyone."""

    def lose(conn):
        put("a")(conn)
        _terminate(postgres_db.url, _pid(conn))

    async def story():
        with pytest.raises(CommitUnknown) as failure:
            await postgres_db.write(lose)
        await postgres_db.write(put("b"))
        return failure.value.code, await postgres_db.read(names)

    assert run(story()) == ("store_down", ["b"])


def test_a_database_that_is_away_is_store_down(run, tmp_path):
    """Nobody sees a driver's error."""
    for url in (
        f"sqlite:///{tmp_path}/no/such/folder/x.db",
        f"postgresql://nobody@/nothing?host={tmp_path}",
    ):
        away = Database(url)
        for attempt in (away.write(names), away.read(names), away.glance(names)):
            with pytest.raises(Unavailable) as failure:
                run(attempt)
            assert failure.value.code == "store_down"
        run(away.close())


@pytest.mark.parametrize("url", ["", "nonsense", "mysql://a/b", "sqlite://", "sqlite:///:memory:"])
def test_other_urls_are_refused(url):
    """The message says what a URL must be."""
    with pytest.raises(ValueError, match="must be sqlite:///path or postgresql://"):
        Database(url)


def test_close_answers_what_was_submitted(any_db, run):
    """What waits is still written; what comes later is told that we stop."""

    async def story():
        waiting = [asyncio.ensure_future(any_db.write(put(f"{n:03}"))) for n in range(50)]
        await asyncio.sleep(0)
        await any_db.close()
        with pytest.raises(Unavailable) as failure:
            await any_db.write(put("after"))
        return await asyncio.gather(*waiting), failure.value.code

    assert run(story()) == ([f"{n:03}" for n in range(50)], "shutting_down")

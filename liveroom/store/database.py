"""SQL: one writer thread whose transactions commit batches, and readers beside it.

SQLite and PostgreSQL alike. A function handed to `write` or `read` is one transaction; it may
run again after a deadlock, so it changes nothing but rows. An answer from `write` is on disk.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar, cast

from sqlalchemy import Connection, Engine, Select, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from liveroom.batching import Batcher
from liveroom.errors import Unavailable
from liveroom.store.threads import JobThreads

T = TypeVar("T")

ANSWER_MAX_S: Final = 1.75
TRIES_MAX: Final = 5
READ_WAITING_MAX: Final = 4000
WRITE_WAITING_MAX: Final = 1000
GLANCES_MAX: Final = 32
GLANCES_WAITING_MAX: Final = 1000
MIGRATIONS: Final = Path(__file__).parent / "migrations"
NOW: Final = {
    "sqlite": "CAST(ROUND((julianday('now') - 2440587.5) * 86400000.0) AS INTEGER)",
    "postgresql": "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)",
}
"""The database's time in SQL, by dialect."""

_MIGRATION_LOCK: Final = 0x6C697665  # pg_advisory_lock: one node migrates, the others wait
_SELECT_NOW: Final = {dialect: text(f"SELECT {now}") for dialect, now in NOW.items()}
_AGAIN: Final = frozenset({"40001", "40P01"})  # serialization_failure, deadlock_detected
_SQLITE: Final = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA busy_timeout = 1000",
    "PRAGMA foreign_keys = ON",
    "PRAGMA temp_store = MEMORY",
    "PRAGMA journal_size_limit = 67108864",  # what a long read let the WAL grow to is given back
)
_POSTGRESQL: Final = (
    "SET synchronous_commit = on",
    "SET lock_timeout = '1s'",
    "SET statement_timeout = '2s'",
    "SET idle_in_transaction_session_timeout = '5s'",
)
_POSTGRESQL_CONNECT: Final = {
    "connect_timeout": 2,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 5000,
}


class CommitUnknown(Unavailable):
    """Whether the transaction was committed is not known: read back before anyone is answered."""

    def __init__(self) -> None:
        super().__init__("store_down")


def now_ms(conn: Connection) -> int:
    """The time by the database's own clock, in integer milliseconds since the Unix epoch."""
    return int(conn.execute(_SELECT_NOW[conn.dialect.name]).scalar_one())


class Database:
    """One SQL database: `sqlite:///path` or `postgresql://…`.

    `lock_path` is the file whose flock the SQLite writers of all processes share; without it
    they would wait for each other by polling.

    Raises:
        ValueError: the URL names neither; the message says what it must be.
    """

    def __init__(self, url: str, *, lock_path: Path | None = None, readers: int = 2) -> None:
        self.url = _driver_url(url)
        self.dialect = "sqlite" if self.url.startswith("sqlite") else "postgresql"
        sqlite = self.dialect == "sqlite"
        make = _sqlite if sqlite else _postgresql
        self._writer = make(self.url, size=1, writes=True)
        self._reader = make(self.url, size=readers + 1, writes=False)
        self._lock = (
            os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            if (sqlite and lock_path is not None)
            else None
        )
        self._writes = JobThreads("sql-writer", threads=1, waiting_max=WRITE_WAITING_MAX)
        self._reads = JobThreads("sql-reader", threads=readers, waiting_max=READ_WAITING_MAX)
        self._patient = JobThreads("sql-patient", threads=1, waiting_max=READ_WAITING_MAX)
        self._glances: Batcher[Callable[[Connection], Any], Any] = Batcher(
            self._glance, size_max=GLANCES_MAX, waiting_max=GLANCES_WAITING_MAX
        )

    async def write(self, fn: Callable[[Connection], T]) -> T:
        """What `fn` returns, once its transaction is committed; on disk by then.

        Raises:
            CommitUnknown: COMMIT was sent, its answer did not come; or no answer within 2 s.
            Unavailable: `store_down`, nothing was changed; `overloaded`, too many wait.
            Exception: what `fn` raised; nothing was changed.
        """
        return await self._writes.run(
            lambda begun: self._write(fn, begun), answer_max_s=ANSWER_MAX_S, late=CommitUnknown
        )

    async def read(self, fn: Callable[[Connection], T], *, patient: bool = False) -> T:
        """What `fn` returns from one snapshot. `fn` changes nothing.

        A patient read (an export, an audit) may take long, in a thread of its own.

        Raises:
            Unavailable: `store_down` where the database is away or did not answer within 2 s.
        """
        threads = self._patient if patient else self._reads
        return await threads.run(
            lambda begun: self._read(fn, begun, patient=patient),
            answer_max_s=None if patient else ANSWER_MAX_S,
            late=lambda: Unavailable("store_down"),
        )

    async def glance(self, fn: Callable[[Connection], T]) -> T:
        """What `fn` returns, as `read`; what is asked in the same turn of the loop is one read.

        For short looks that nobody waits for: they share a thread's time and, where SQL fails
        none of them, a snapshot. What one raises is its own caller's alone.

        Raises:
            Unavailable: as `read`.
        """
        found: T = await self._glances.submit(fn)
        return found

    async def now_ms(self) -> int:
        """The time by the database's clock, in integer milliseconds."""
        return await self.read(now_ms)

    def lock(self, select: Select[Any], *, read: bool = False) -> Select[Any]:
        """The select, locking its rows on PostgreSQL (`read`: shared); SQLite has one writer."""
        return select if self.dialect == "sqlite" else select.with_for_update(read=read)

    def upgrade(self, to: str = "head") -> None:
        """Bring the schema to this release. Safe to call from several nodes at once.

        `to` is for tests: an older revision.

        Raises:
            Unavailable: `store_down` where the database is away.
        """
        # Here, since it takes 0.4 s that a token, an audit or a worker need not wait for.
        import alembic.command  # noqa: PLC0415
        import alembic.config  # noqa: PLC0415

        config = alembic.config.Config()
        config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
        config.set_main_option("path_separator", "os")
        with _away_as_store_down(), self._flock(), self._writer.connect() as conn, conn.begin():
            if self.dialect == "postgresql":
                conn.execute(text("SET LOCAL statement_timeout = 0"))
                conn.execute(text("SET LOCAL lock_timeout = 0"))
                conn.execute(text(f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK})"))
            config.attributes["connection"] = conn
            alembic.command.upgrade(config, to)

    async def close(self) -> None:
        """Answer what was begun, then close every connection."""
        await self._glances.close()
        for threads in (self._writes, self._reads, self._patient):
            await threads.close()
        self._writer.dispose()
        self._reader.dispose()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _write(self, fn: Callable[[Connection], T], begun: Callable[[], None]) -> T:
        for attempt in range(1, TRIES_MAX + 1):
            try:
                with _away_as_store_down(), self._flock(), self._writer.connect() as conn:
                    return self._transact(conn, fn, begun if attempt == 1 else _nothing)
            except _RunAgain as cause:
                if attempt == TRIES_MAX:
                    raise Unavailable("store_down") from cause
        raise AssertionError  # the loop returns or raises

    def _transact(
        self, conn: Connection, fn: Callable[[Connection], T], begun: Callable[[], None]
    ) -> T:
        transaction = conn.begin()
        try:
            begun()
            result = fn(conn)
        except BaseException as cause:
            _roll_back(conn)
            _raise_if_again(cause)
            if isinstance(cause, DBAPIError) and cause.connection_invalidated:
                raise _RunAgain from cause
            raise
        try:
            transaction.commit()
        except DBAPIError as cause:
            _roll_back(conn)
            _raise_if_again(cause)
            if isinstance(cause, OperationalError | InterfaceError):
                conn.invalidate()
                raise CommitUnknown from cause
            raise
        return result

    def _read(
        self, fn: Callable[[Connection], T], begun: Callable[[], None], *, patient: bool
    ) -> T:
        for attempt in range(1, TRIES_MAX + 1):
            try:
                with _away_as_store_down(), self._reader.connect() as conn, conn.begin():
                    (begun if attempt == 1 else _nothing)()
                    return self._look(conn, fn, patient=patient)
            except _RunAgain as cause:
                if attempt == TRIES_MAX:
                    raise Unavailable("store_down") from cause
        raise AssertionError  # the loop returns or raises

    async def _glance(self, fns: Sequence[Callable[[Connection], Any]]) -> list[Any]:
        answers: list[Any] = []
        while len(answers) < len(fns):
            answers += await self.read(partial(_answers, fns[len(answers) :]))
        return answers

    def _look(self, conn: Connection, fn: Callable[[Connection], T], *, patient: bool) -> T:
        with _lost_runs_again():
            if patient and self.dialect == "postgresql":
                conn.execute(text("SET LOCAL statement_timeout = 0"))
            if not patient:
                return fn(conn)
        # Out of there: an export has told some of its rows already, and cannot run again.
        return fn(conn)

    @contextmanager
    def _flock(self) -> Iterator[None]:
        if self._lock is None:
            yield
            return
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._lock, fcntl.LOCK_UN)


class _RunAgain(Exception):
    """Nothing was committed, and the same transaction may well succeed on another try."""


def _nothing() -> None:
    pass


def _raise_if_again(cause: BaseException) -> None:
    if isinstance(cause, DBAPIError) and getattr(cause.orig, "sqlstate", None) in _AGAIN:
        raise _RunAgain from cause


def _answers(fns: Sequence[Callable[[Connection], Any]], conn: Connection) -> list[Any]:
    """What each returns or raises, up to the first that SQL fails.

    After that PostgreSQL answers nothing more in this transaction: the others need a new one.
    """
    answers: list[Any] = []
    for fn in fns:
        try:
            with _away_as_store_down(), _lost_runs_again():
                answers.append(fn(conn))
        except _RunAgain:
            raise
        except Exception as error:  # noqa: BLE001 - handed to its caller, not swallowed
            answers.append(error)
            if isinstance(error, DBAPIError | Unavailable):
                break
    return answers


@contextmanager
def _lost_runs_again() -> Iterator[None]:
    """A connection that lay in the pool while the database went away is found out in use."""
    try:
        yield
    except DBAPIError as cause:
        if cause.connection_invalidated:
            raise _RunAgain from cause
        raise


def _roll_back(conn: Connection) -> None:
    """End the transaction; a connection that cannot even do that is thrown away."""
    try:
        conn.rollback()
    except DBAPIError:
        conn.invalidate()


@contextmanager
def _away_as_store_down() -> Iterator[None]:
    try:
        yield
    except (OperationalError, InterfaceError, PoolTimeout) as cause:
        if _is_fault_of_ours(cause):
            raise
        raise Unavailable("store_down") from cause


def _is_fault_of_ours(cause: Exception) -> bool:
    """SQLite's driver says OperationalError also for bad SQL (SQLITE_ERROR)."""
    orig = getattr(cause, "orig", None)
    return isinstance(orig, sqlite3.Error) and orig.sqlite_errorcode & 0xFF == sqlite3.SQLITE_ERROR


def _driver_url(url: str) -> str:
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise ValueError("it must be sqlite:///path or postgresql://user@host/name") from None
    name = parsed.get_backend_name()
    if name in {"postgresql", "postgres"}:
        parsed = parsed.set(drivername="postgresql+psycopg")
    elif name != "sqlite" or not parsed.database or parsed.database == ":memory:":
        raise ValueError("it must be sqlite:///path or postgresql://user@host/name")
    return parsed.render_as_string(hide_password=False)


def _sqlite(url: str, *, size: int, writes: bool) -> Engine:
    # Connections pass between threads one at a time; the pool sees to that.
    engine = create_engine(
        url,
        pool_size=size,
        max_overflow=0,
        pool_timeout=1.5,
        connect_args={"check_same_thread": False, "timeout": 1.0},
    )

    def prepare(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # the driver's own BEGIN is never IMMEDIATE
        for pragma in _SQLITE:
            connection.execute(pragma).close()
        if not writes:
            connection.execute("PRAGMA query_only = ON").close()

    def begin(conn: Connection) -> None:
        if writes:
            conn.exec_driver_sql("BEGIN IMMEDIATE")
        else:  # past SQLAlchemy, which would cost every read more: there is no lock to fail at
            cast("sqlite3.Connection", conn.connection.driver_connection).execute("BEGIN").close()

    event.listen(engine, "connect", prepare)
    event.listen(engine, "begin", begin)
    return engine


def _postgresql(url: str, *, size: int, writes: bool) -> Engine:
    engine = create_engine(
        url,
        isolation_level="READ COMMITTED" if writes else "REPEATABLE READ",
        pool_size=size,
        max_overflow=0,
        pool_timeout=1.5,
        connect_args=_POSTGRESQL_CONNECT,
    )

    def prepare(connection: Any, _record: Any) -> None:
        connection.autocommit = True
        for setting in _POSTGRESQL:
            connection.execute(setting)
        connection.autocommit = False
        connection.read_only = not writes

    event.listen(engine, "connect", prepare)
    return engine

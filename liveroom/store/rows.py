"""Many rows in one call, for the group commit.

Plain tuples go straight to the driver: SQLAlchemy's work for each parameter of each row costs
more than SQLite's for the row. One statement writes many rows, since Python's lock is let go
and waited for at each (the driver's `executemany` does so at each row). Names of tables and
columns come from `tables.py` and are quoted by the dialect; values are always parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from itertools import chain
from typing import Any, Final

from sqlalchemy import Column, Connection, Row, Table
from sqlalchemy.engine import Dialect

ROWS_AT_ONCE_MAX: Final = 32
"""Rows a statement writes: few enough that the texts for every number of rows can be kept."""


def insert_rows(conn: Connection, table: Table, rows: Sequence[tuple[Any, ...]]) -> None:
    """Insert rows that hold a value for every column of the table, in its order.

    Values are handed on as they are: for tables without JSON columns.
    """
    _write(conn, rows, lambda count: _insert(table, count, conn.dialect))


def add_up(
    conn: Connection,
    key: Sequence[Column[Any]],
    column: Column[int],
    rows: Sequence[tuple[Any, ...]],
) -> None:
    """For rows of (key…, number): add each number to the column, or begin a row with it.

    No key may come twice.
    """
    _write(conn, rows, lambda count: _add_up(tuple(key), column, count, conn.dialect))


def rows_among(
    conn: Connection, columns: Sequence[Column[Any]], within: Column[Any], values: Sequence[Any]
) -> Sequence[Row[Any]]:
    """Those columns of all rows whose column `within` has one of the values."""
    if not values:
        return []
    sql = _among(tuple(columns), within, len(values), conn.dialect)
    return conn.exec_driver_sql(sql, tuple(values)).all()


def _write(
    conn: Connection, rows: Sequence[tuple[Any, ...]], statement: Callable[[int], str]
) -> None:
    for first in range(0, len(rows), ROWS_AT_ONCE_MAX):
        some = rows[first : first + ROWS_AT_ONCE_MAX]
        conn.exec_driver_sql(statement(len(some)), tuple(chain.from_iterable(some)))


def _marks(count: int, dialect: Dialect) -> str:
    return ", ".join(["?" if dialect.paramstyle == "qmark" else "%s"] * count)


def _values(columns: int, rows: int, dialect: Dialect) -> str:
    return ", ".join([f"({_marks(columns, dialect)})"] * rows)


@cache
def _insert(table: Table, rows: int, dialect: Dialect) -> str:
    quote = dialect.identifier_preparer.quote
    columns = ", ".join(quote(column.name) for column in table.columns)
    values = _values(len(table.columns), rows, dialect)
    return f"INSERT INTO {quote(table.name)} ({columns}) VALUES {values}"  # noqa: S608


@cache
def _add_up(key: tuple[Column[Any], ...], column: Column[int], rows: int, dialect: Dialect) -> str:
    quote = dialect.identifier_preparer.quote
    table, total = quote(column.table.name), quote(column.name)
    names = ", ".join(quote(one.name) for one in key)
    return (
        f"INSERT INTO {table} ({names}, {total})"  # noqa: S608
        f" VALUES {_values(len(key) + 1, rows, dialect)}"
        f" ON CONFLICT ({names}) DO UPDATE SET {total} = {table}.{total} + excluded.{total}"
    )


@cache
def _among(
    columns: tuple[Column[Any], ...], within: Column[Any], count: int, dialect: Dialect
) -> str:
    quote = dialect.identifier_preparer.quote
    names = ", ".join(quote(column.name) for column in columns)
    return (
        f"SELECT {names} FROM {quote(within.table.name)}"  # noqa: S608
        f" WHERE {quote(within.name)} IN ({_marks(count, dialect)})"
    )

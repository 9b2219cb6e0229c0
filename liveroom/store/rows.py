"""Many rows in one call, for the group commit.

Plain tuples go straight to the driver: SQLAlchemy's work for each parameter of each row costs
more than SQLite's for the row. Names of tables and columns come from `tables.py` and are
quoted by the dialect; values are always parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from sqlalchemy import Column, Connection, Row, Table
from sqlalchemy.engine import Dialect


def insert_rows(conn: Connection, table: Table, rows: Sequence[tuple[Any, ...]]) -> None:
    """Insert rows that hold a value for every column of the table, in its order.

    Values are handed on as they are: for tables without JSON columns.
    """
    if rows:
        conn.exec_driver_sql(_insert(table, conn.dialect), list(rows))


def add_up(
    conn: Connection,
    key: Sequence[Column[Any]],
    column: Column[int],
    rows: Sequence[tuple[Any, ...]],
) -> None:
    """For rows of (key…, number): add each number to the column, or begin a row with it."""
    if rows:
        conn.exec_driver_sql(_add_up(tuple(key), column, conn.dialect), list(rows))


def rows_among(
    conn: Connection, columns: Sequence[Column[Any]], within: Column[Any], values: Sequence[Any]
) -> Sequence[Row[Any]]:
    """Those columns of all rows whose column `within` has one of the values."""
    if not values:
        return []
    sql = _among(tuple(columns), within, len(values), conn.dialect)
    return conn.exec_driver_sql(sql, tuple(values)).all()


def _mark(dialect: Dialect) -> str:
    return "?" if dialect.paramstyle == "qmark" else "%s"


@cache
def _insert(table: Table, dialect: Dialect) -> str:
    quote = dialect.identifier_preparer.quote
    columns = ", ".join(quote(column.name) for column in table.columns)
    marks = ", ".join([_mark(dialect)] * len(table.columns))
    return f"INSERT INTO {quote(table.name)} ({columns}) VALUES ({marks})"  # noqa: S608


@cache
def _add_up(key: tuple[Column[Any], ...], column: Column[int], dialect: Dialect) -> str:
    quote = dialect.identifier_preparer.quote
    table, total = quote(column.table.name), quote(column.name)
    names = ", ".join(quote(one.name) for one in key)
    marks = ", ".join([_mark(dialect)] * (len(key) + 1))
    return (
        f"INSERT INTO {table} ({names}, {total}) VALUES ({marks})"  # noqa: S608
        f" ON CONFLICT ({names}) DO UPDATE SET {total} = {table}.{total} + excluded.{total}"
    )


@cache
def _among(
    columns: tuple[Column[Any], ...], within: Column[Any], count: int, dialect: Dialect
) -> str:
    quote = dialect.identifier_preparer.quote
    names = ", ".join(quote(column.name) for column in columns)
    marks = ", ".join([_mark(dialect)] * count)
    return (
        f"SELECT {names} FROM {quote(within.table.name)}"  # noqa: S608
        f" WHERE {quote(within.name)} IN ({marks})"
    )

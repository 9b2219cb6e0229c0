"""Selects in fixed words, for what is asked again and again by itself."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import Connection, Row, Select


class Fixed:
    """A select without parameters that is made into SQL once.

    Whoever wakes with cold caches pays more for finding a statement in SQLAlchemy's cache than
    SQLite takes to answer it. Values come as the driver has them: numbers and text as they
    are, a truth value of SQLite as 0 or 1.
    """

    def __init__(self, query: Select[*tuple[Any, ...]]) -> None:
        self._query: Final = query
        self._sql: dict[str, str] = {}  # by dialect

    def all(self, conn: Connection) -> list[Row[*tuple[Any, ...]]]:
        """Every row."""
        sql = self._sql.get(conn.dialect.name)
        if sql is None:
            made = self._query.compile(conn, compile_kwargs={"literal_binds": True})
            sql = self._sql[conn.dialect.name] = str(made)
        return list(conn.exec_driver_sql(sql))

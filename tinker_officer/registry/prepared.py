"""Statements that are asked at every change: compiled once, and handed to the driver as they are.

SQLAlchemy takes ten times as long to run a statement as SQLite takes to answer it, and a writer keeps all
others waiting meanwhile. What is asked seldom, or put together as it is asked, goes the usual way.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa


class Prepared:
    """A statement whose text never changes; its values are bound by name.

    Args:
        statement: with a `bindparam` for each value that is given later; without an `IN` over a list.
    """

    def __init__(self, statement: sa.sql.ClauseElement) -> None:
        self._statement = statement
        self._ready: dict[str, tuple[str, tuple[str, ...] | None, dict[str, Any]]] = {}

    def rows(self, connection: sa.Connection, **values: Any) -> list[Any]:
        """Return what a query finds, as tuples."""
        found: list[Any] = self._execute(connection, values).fetchall()
        return found

    def first(self, connection: sa.Connection, **values: Any) -> Any:
        """Return the first row that a query finds, as a tuple; None where there is none."""
        return self._execute(connection, values).fetchone()

    def run(self, connection: sa.Connection, **values: Any) -> None:
        """Make a change."""
        self._execute(connection, values)

    def _execute(self, connection: sa.Connection, values: dict[str, Any]) -> Any:
        ready = self._ready.get(connection.dialect.name) or self._compile(connection.dialect)
        text, order, constants = ready
        bound = constants | values
        driver: Any = connection.connection.driver_connection
        return driver.execute(text, bound if order is None else [bound[name] for name in order])

    def _compile(self, dialect: sa.Dialect) -> tuple[str, tuple[str, ...] | None, dict[str, Any]]:
        made: Any = self._statement.compile(dialect=dialect)
        order = tuple(made.positiontup) if made.positional else None
        self._ready[dialect.name] = ready = (str(made), order, dict(made.params))
        return ready

"""A database that is only read: PostgreSQL itself refuses every change."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from notify_tasks.store.database import Connection, Database, Row

T = TypeVar("T")


class ReadOnly(Database):
    """The connections of a database, for statements that change nothing.

    Args:
        database: whose connections are used; closing this one leaves them alone.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    @property
    def url(self) -> str:
        """The address, with its password: never log it."""
        return self._database.url

    def rows(self, statement: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> list[Row]:
        """Run one statement and return its rows.

        Raises:
            DatabaseAway: as of `Database`; with SQLSTATE 25006 where the statement would change something.
        """

        def run(connection: Connection) -> list[Row]:
            cursor = connection.execute(statement, parameters)
            return cursor.fetchall() if cursor.description else []

        return self.transact(run)

    def transact(self, work: Callable[[Connection], T]) -> T:
        """Run several statements on one snapshot.

        Raises:
            DatabaseAway: as `rows`.
        """

        def run(connection: Connection) -> T:
            connection.execute("SET TRANSACTION READ ONLY")
            return work(connection)

        return self._database.transact(run)

    def close(self) -> None:
        """Nothing is its own."""

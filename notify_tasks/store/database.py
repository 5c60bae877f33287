"""Connections to PostgreSQL, and what its errors mean.

Errors are told apart by SQLSTATE, because the driver's classes mislead (a deadlock is an OperationalError, a
failover's read-only answer is not)::

    DatabaseError
    ├── BadRow        class 22 or 23: this row's data is at fault
    ├── TryAgain      class 40: serialisation or deadlock, run it again
    └── DatabaseAway  everything else: the database, the network or the schema, never a row

A statement that ends in `DatabaseAway` may have been committed: whoever ran it must be able to run it again.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import psycopg
from psycopg import sql
from psycopg.rows import dict_row
from psycopg_pool import ConnectionPool, PoolTimeout

Row = dict[str, Any]
Connection = psycopg.Connection[Row]

TRIES_AFTER_CONFLICT: Final = 5
CONNECT_SECONDS: Final = 3
STATEMENT_MILLISECONDS: Final = 30_000
_KEEPALIVE: Final[dict[str, Any]] = {
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}
"""A server that is gone without a word is noticed within half a minute."""

T = TypeVar("T")


class DatabaseError(Exception):
    """Base of what the store raises. The text holds codes, never row contents."""

    def __init__(self, sqlstate: str | None, what: str) -> None:
        super().__init__(f"{what} (SQLSTATE {sqlstate or 'none'})")
        self.sqlstate = sqlstate


class BadRow(DatabaseError):
    """The data of a row cannot be stored."""


class TryAgain(DatabaseError):
    """A serialisation failure or deadlock."""


class DatabaseAway(DatabaseError):
    """The database cannot be used now; whether the statement took effect is unknown."""


def translate(error: psycopg.Error | PoolTimeout) -> DatabaseError:
    """The store's error for a driver's error."""
    sqlstate = getattr(error, "sqlstate", None)
    if sqlstate is None:
        if isinstance(error, psycopg.DataError):  # refused by the client: a NUL in a text, say
            return BadRow("22000", "a value cannot be stored")
        return DatabaseAway(None, type(error).__name__)
    if sqlstate[:2] in {"22", "23"}:
        return BadRow(sqlstate, "a row was refused")
    if sqlstate[:2] == "40" or sqlstate == "0A000":  # 0A000: a cached plan outlived a migration
        return TryAgain(sqlstate, "the statement met another one")
    return DatabaseAway(sqlstate, type(error).__name__)


@contextmanager
def translated() -> Iterator[None]:
    """Inside, driver errors become the store's."""
    try:
        yield
    except (psycopg.Error, PoolTimeout) as error:
        raise translate(error) from None
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON may hold and UTF-8 may not
        raise BadRow("22021", "a text is no valid Unicode") from None


class Database:
    """A pool of autocommit connections: a statement is a commit.

    Args:
        url: `postgresql://...`.
        connections: the most that are open at once; a worker needs one a thread and two more.
        wait: seconds to wait for a free connection before the database counts as away.
    """

    def __init__(self, url: str, *, connections: int = 10, wait: float = 5.0, name: str = "notify") -> None:
        self._url = url
        self._pool: ConnectionPool[Connection] = ConnectionPool(
            url,
            min_size=0,
            max_size=connections,
            timeout=wait,
            max_idle=60,
            reconnect_timeout=2,
            open=False,
            kwargs={
                "autocommit": True,
                "row_factory": dict_row,
                "connect_timeout": CONNECT_SECONDS,
                "application_name": name,
                "options": (
                    f"-c statement_timeout={STATEMENT_MILLISECONDS} "
                    "-c idle_in_transaction_session_timeout=60000 -c timezone=UTC -c jit=off"
                ),
                **_KEEPALIVE,
            },
        )
        self._pool.open()

    @property
    def url(self) -> str:
        """The address, with its password: never log it."""
        return self._url

    def rows(self, statement: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> list[Row]:
        """Run one statement, which commits by itself, and return its rows.

        Raises:
            BadRow, DatabaseAway: see the module. A conflict with another statement is run again here.
        """

        def run() -> list[Row]:
            with translated(), self._pool.connection() as connection:
                cursor = connection.execute(statement, parameters)
                return cursor.fetchall() if cursor.description else []

        return _despite_conflicts(run)

    def transact(self, work: Callable[[Connection], T]) -> T:
        """Run several statements in one transaction, and again from the start after a conflict with another.

        Raises:
            BadRow, DatabaseAway: as `rows`.
        """

        def run() -> T:
            with translated(), self._pool.connection() as connection, connection.transaction():
                return work(connection)

        return _despite_conflicts(run)

    def probe(self) -> None:
        """Ask whether the database answers and can be written; drops pooled connections that a restart has broken.

        Raises:
            DatabaseAway: it does not, or it is a standby.
        """
        with translated():
            self._pool.check()
            with self._pool.connection(timeout=CONNECT_SECONDS) as connection:
                row = connection.execute("SELECT pg_is_in_recovery() AS standby").fetchone()
        if row is None or row["standby"]:
            raise DatabaseAway("25006", "the database is a standby")

    @contextmanager
    def listening(self, channel: str) -> Iterator[Callable[[float], bool]]:
        """LISTEN on a connection of its own.

        Args:
            channel: the name given to NOTIFY.

        Yields:
            a function that waits up to so many seconds for a word, and says whether there was one.

        Raises:
            DatabaseAway: from the block, too, where the connection ends.
        """
        with translated(), self._apart() as connection:
            connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))
            yield lambda seconds: any(True for _ in connection.notifies(timeout=seconds, stop_after=1))

    @contextmanager
    def alone(self, lock: int) -> Iterator[bool]:
        """Try to be the only one: whether nobody else is inside with the same number, in any process.

        The lock ends with its connection, so a process that dies lets go of it.
        """
        with translated(), self._apart() as connection:
            row = connection.execute("SELECT pg_try_advisory_lock(%s) AS mine", (lock,)).fetchone()
            yield row is not None and bool(row["mine"])

    def _apart(self) -> Connection:
        return psycopg.connect(
            self._url,
            autocommit=True,
            row_factory=dict_row,
            connect_timeout=CONNECT_SECONDS,
            application_name="notify-dedicated",
            options="-c timezone=UTC -c jit=off",
            **_KEEPALIVE,
        )

    def close(self) -> None:
        """Close the pool."""
        self._pool.close(timeout=2)


def _despite_conflicts(run: Callable[[], T]) -> T:
    for tried in range(TRIES_AFTER_CONFLICT):
        try:
            return run()
        except TryAgain:
            time.sleep(random.uniform(0, 0.02) * (tried + 1))  # noqa: S311 - spreads, guards nothing
    raise DatabaseAway("40001", f"it met others {TRIES_AFTER_CONFLICT} times")


def jsonb(value: object) -> str:
    """A `jsonb` parameter."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, default=str)


def storable(text: str | None) -> str | None:
    """A text that comes from outside, without what PostgreSQL cannot store: better a mark than no record."""
    if text is None:
        return None
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()

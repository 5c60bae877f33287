"""A call becomes a committed row: then Redis may be down, flushed or full, and the call still succeeds."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from notify_tasks.errors import MaybeAccepted, NotAccepted, NotConfigured
from notify_tasks.idle import Idle, open_by
from notify_tasks.keeping import row
from notify_tasks.notification import Notification

MOST_CONNECTIONS: Final = 8
"""Of one process; calls beyond that wait their turn, within their budget."""
LOOK_SECONDS: Final = 0.05
"""How often a waiting call looks at the clock."""

_CUT_OFF: Final = ("08", "57P")
"""SQLSTATE classes of a connection that has ended: the statement was committed or not."""

RV = TypeVar("RV")


class PostgresKeeper:
    """Keeps calls in PostgreSQL. Safe among threads and after a fork.

    Args:
        url: the fleet's database.
        timeout: seconds for one call.
        tell: whether to wake the fleet's listener; without it, the row is found within two seconds.

    Raises:
        NotConfigured: the URL is wrong.
    """

    def __init__(self, url: str, timeout: float, *, tell: bool = True) -> None:
        self._conninfo = _conninfo(url, timeout)
        self._statement = row.statement(tell=tell)
        self._idle: Idle[_Connection] = Idle(MOST_CONNECTIONS, inherited=_buried.append)
        self._free: tuple[int, threading.BoundedSemaphore] = _turns()

    def keep(self, notification: Notification, headers: Mapping[str, object], *, deadline: float) -> None:  # noqa: ARG002 - a row has no message headers
        """Commit the row."""
        turns = self._turns_here()
        if not turns.acquire(timeout=max(deadline - time.monotonic(), 0)):
            busy = f"all {MOST_CONNECTIONS} database connections were busy: slow down"
            raise NotAccepted(notification.message_id, busy)
        try:
            self._keep(notification, deadline)
        finally:
            turns.release()

    def _keep(self, notification: Notification, deadline: float) -> None:
        connection, first = self._reusable(), None
        if connection is not None:
            first = self._run(connection, notification, deadline)
            if first is None:
                return
            if not first.cut_off or time.monotonic() >= deadline:
                raise first.error
        # None was idle, or it had died in its sleep. The row is the same: writing it twice is safe.
        try:
            connection = self._connected(notification, deadline)
        except NotAccepted:
            if first is not None:
                raise first.error from None
            raise
        if failure := self._run(connection, notification, deadline):
            raise failure.error

    def close(self) -> None:
        """Close idle connections."""
        while (connection := self._idle.take()) is not None:
            connection.close()

    def _run(self, connection: _Connection, notification: Notification, deadline: float) -> _Failure | None:
        # Failures are values here, since an exception raised in the handler would carry the driver's error
        # along as its context, and that may quote the row.
        id_ = notification.message_id
        connection.deadline = deadline
        try:
            connection.execute(self._statement, row.values(notification))
        except TimeoutError:
            connection.close()
            return _Failure(MaybeAccepted(id_, "PostgreSQL gave no answer in time"), cut_off=False)
        except psycopg.Error as error:
            connection.close()
            sqlstate, kind = error.sqlstate, type(error).__name__
            if sqlstate is None or sqlstate.startswith(_CUT_OFF):
                return _Failure(
                    MaybeAccepted(id_, f"the connection to PostgreSQL ended: {kind}"), cut_off=True
                )
            return _Failure(NotAccepted(id_, row.explain(sqlstate, kind)), cut_off=False)
        except BaseException:
            connection.close()
            raise
        if not self._idle.give(connection):
            connection.close()
        return None

    def _reusable(self) -> _Connection | None:
        while (connection := self._idle.take()) is not None:
            if not connection.closed:
                return connection
        return None

    def _connected(self, notification: Notification, deadline: float) -> _Connection:
        try:
            return open_by(deadline, self._connect, _Connection.close)
        except TimeoutError:
            why = "PostgreSQL gave no answer in time"
        except psycopg.Error as error:
            why = (
                f"PostgreSQL cannot be reached ({type(error).__name__}, SQLSTATE {error.sqlstate or 'none'})"
            )
        raise NotAccepted(notification.message_id, f"{why}: call again when it is back")

    def _connect(self) -> _Connection:
        return _Connection.connect(self._conninfo, autocommit=True)

    def _turns_here(self) -> threading.BoundedSemaphore:
        if self._free[0] != os.getpid():
            self._free = _turns()
        return self._free[1]


@dataclass(frozen=True, slots=True)
class _Failure:
    """Why a row was not, or perhaps not, kept; and whether another connection may still tell."""

    error: NotAccepted | MaybeAccepted
    cut_off: bool


class _Connection(psycopg.Connection[Any]):
    """A connection whose waiting ends at a deadline, even where the server is frozen."""

    deadline = float("inf")

    def wait(self, gen: Generator[Any, Any, RV], *args: Any, **kwargs: Any) -> RV:
        kwargs["interval"] = LOOK_SECONDS
        return super().wait(self._until_deadline(gen), *args, **kwargs)

    def _until_deadline(self, gen: Generator[Any, Any, RV]) -> Generator[Any, Any, RV]:
        wanted = next(gen)
        while True:
            ready = yield wanted  # after each interval it comes back here, ready or not
            if not ready and time.monotonic() >= self.deadline:
                raise TimeoutError
            try:
                wanted = gen.send(ready)
            except StopIteration as end:
                result: RV = end.value
                return result


_buried: list[_Connection] = []
"""A parent's connections in a forked child. psycopg would warn of them as unclosed, and closing them here
would end them there."""


def _turns() -> tuple[int, threading.BoundedSemaphore]:
    return os.getpid(), threading.BoundedSemaphore(MOST_CONNECTIONS)


def _conninfo(url: str, timeout: float) -> str:
    try:
        given = conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        raise NotConfigured(
            "database_url: it cannot be read. Write it as in postgresql://user:password@host/notify, "
            "with special characters of the password percent-encoded"
        ) from None
    options = str(given.get("options") or "")
    if "statement_timeout" not in options:
        # For what the server goes on with after we have stopped waiting.
        options = f"{options} -c statement_timeout={max(int(timeout * 1000), 1)}".strip()
    defaults: dict[str, Any] = {
        "application_name": "notify-producer",
        "connect_timeout": max(int(timeout), 1),
        "keepalives_idle": 30,
    }
    return make_conninfo("", **{**defaults, **given, "options": options})

"""A call becomes a committed row: then Redis may be down, flushed or full, and the call still succeeds."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Generator, Mapping
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
        self._idle: Idle[_Connection] = Idle(MOST_CONNECTIONS)
        self._free: tuple[int, threading.BoundedSemaphore] = _turns()

    def keep(self, notification: Notification, headers: Mapping[str, object], *, deadline: float) -> None:  # noqa: ARG002 - a row has no message headers
        """Commit the row."""
        id_ = notification.message_id
        turns = self._turns_here()
        if not turns.acquire(timeout=max(deadline - time.monotonic(), 0)):
            raise NotAccepted(id_, f"all {MOST_CONNECTIONS} database connections were busy: slow down")
        try:
            doubt = self._attempt(self._reusable(), notification, deadline)
            if doubt is not None:
                # The connection had died, or died on the way. The row is the same: writing it twice is safe.
                self._attempt(self._connected(id_, deadline, doubt=doubt), notification, deadline)
        finally:
            turns.release()

    def close(self) -> None:
        """Close idle connections."""
        while (connection := self._idle.take()) is not None:
            connection.close()

    def _attempt(
        self, connection: _Connection | None, notification: Notification, deadline: float
    ) -> str | None:
        """Run the statement. Returns why its end is unknown, if another connection may still tell."""
        reused = connection is not None
        id_ = notification.message_id
        if connection is None:
            connection = self._connected(id_, deadline)
        connection.deadline = deadline
        failed: tuple[str | None, str, bool]
        try:
            connection.execute(self._statement, row.values(notification))
        except TimeoutError:
            failed = None, "it gave no answer in time", True
        except psycopg.Error as error:
            failed = error.sqlstate, type(error).__name__, connection.broken
        else:
            if not self._idle.give(connection):
                connection.close()
            return None
        # Out of the handler: what is raised here must not carry the driver's error, which may quote the row.
        sqlstate, kind, lost = failed
        if lost or sqlstate is None or sqlstate[:3] in {"08", "57P"} or sqlstate[:2] == "08":
            connection.close()
            doubt = f"PostgreSQL: {kind}"
            if reused and time.monotonic() < deadline and kind != "it gave no answer in time":
                return doubt
            raise MaybeAccepted(id_, doubt)
        connection.close()
        raise NotAccepted(id_, row.explain(sqlstate, kind))

    def _reusable(self) -> _Connection | None:
        while (connection := self._idle.take()) is not None:
            if not connection.closed:
                return connection
        return None

    def _connected(self, id_: str, deadline: float, *, doubt: str | None = None) -> _Connection:
        try:
            return open_by(deadline, self._connect, _close)
        except TimeoutError:
            why = "PostgreSQL gave no answer in time"
        except psycopg.Error as error:
            why = (
                f"PostgreSQL cannot be reached ({type(error).__name__}, SQLSTATE {error.sqlstate or 'none'})"
            )
        if doubt is not None:
            raise MaybeAccepted(id_, doubt)
        raise NotAccepted(id_, f"{why}: call again when it is back")

    def _connect(self) -> _Connection:
        return _Connection.connect(self._conninfo, autocommit=True)

    def _turns_here(self) -> threading.BoundedSemaphore:
        if self._free[0] != os.getpid():
            self._free = _turns()
        return self._free[1]


class _Connection(psycopg.Connection[Any]):
    """A connection whose waiting ends at a deadline, even where the server is frozen."""

    deadline = float("inf")

    def wait(self, gen: Generator[Any, Any, RV], *args: Any, **kwargs: Any) -> RV:  # noqa: ANN401 - psycopg's own
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


def _close(connection: _Connection) -> None:
    connection.close()


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

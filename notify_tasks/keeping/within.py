"""A call becomes a row in the caller's own transaction: it is sent if, and only if, that commits.

Any DB-API connection on the fleet's database will do, and the wrappers of Django and SQLAlchemy. Nothing here
commits, and nothing here ends the caller's transaction: a savepoint stands around the statement, for a
database that lacks the table must not cost the caller what was done before.
"""

from __future__ import annotations

import inspect
from contextlib import closing, suppress
from typing import Any, Final

from notify_tasks.errors import InvalidCall, NotAccepted
from notify_tasks.keeping import row
from notify_tasks.notification import Notification

_SAVEPOINT: Final = "notify_tasks"
_IN_TRANSACTION: Final = (2, 3)
"""libpq's PQTRANS_INTRANS and PQTRANS_INERROR."""
_WANTED: Final = (
    "Pass a psycopg or other DB-API connection, Django's `connection`, or SQLAlchemy's Connection or "
    "Session, on the fleet's database"
)


def open_transaction(connection: object) -> Any:
    """The DB-API connection under `connection`, in a transaction that its owner will end.

    Raises:
        InvalidCall: it is none, it is asynchronous, or it commits each statement by itself.
    """
    if any(inspect.iscoroutinefunction(getattr(connection, name, None)) for name in ("commit", "execute")):
        raise _wrong(
            "it is asynchronous", "Run within() in the connection's run_sync, or use a plain connection"
        )
    if _is_django(connection):
        return _under_django(connection)
    if hasattr(connection, "in_transaction") and not hasattr(connection, "cursor"):
        session = getattr(connection, "connection", None)  # SQLAlchemy's: a Session has a method here
        connection = session() if callable(session) else connection
    if hasattr(connection, "exec_driver_sql"):
        return _under_sqlalchemy(connection)
    if not all(callable(getattr(connection, name, None)) for name in ("cursor", "commit", "rollback")):
        raise _wrong(f"{type(connection).__name__} is not a database connection", _WANTED)
    return _ours_to_use(connection, "Switch autocommit off, or begin a transaction first")


def keep_within(connection: object, notification: Notification, *, tell: bool) -> None:
    """Write the call into the transaction that `connection` is in.

    Args:
        connection: see `open_transaction`.
        notification: the checked call.
        tell: whether to send the empty NOTIFY, which forbids PREPARE TRANSACTION.

    Raises:
        InvalidCall: the connection cannot be used.
        NotAccepted: the database refuses the row. The caller's transaction is as it was before.
    """
    dbapi = open_transaction(connection)
    failed: tuple[str | None, str] | None = None
    with closing(dbapi.cursor()) as cursor:
        inside = False
        try:
            cursor.execute(f"SAVEPOINT {_SAVEPOINT}")
            inside = True
            cursor.execute(row.statement(tell=tell), row.values(notification))
            cursor.execute(f"RELEASE SAVEPOINT {_SAVEPOINT}")
        except Exception as error:  # noqa: BLE001 - each driver has its own tree
            failed = _sqlstate(error), type(error).__name__
            if inside:
                with suppress(Exception):  # a lost connection has lost the transaction with it
                    cursor.execute(f"ROLLBACK TO SAVEPOINT {_SAVEPOINT}")
                    cursor.execute(f"RELEASE SAVEPOINT {_SAVEPOINT}")
    if failed is not None:
        # Out of the handler: the driver's error may quote the envelope, and must not be carried along.
        raise NotAccepted(notification.message_id, row.explain(*failed))


def _is_django(connection: object) -> bool:
    return hasattr(connection, "in_atomic_block") and hasattr(connection, "get_autocommit")


def _under_django(wrapper: Any) -> Any:
    if wrapper.vendor != "postgresql":
        raise _wrong("it is not on PostgreSQL", "Pass the connection whose database is the fleet's")
    wrapper.ensure_connection()
    if wrapper.get_autocommit():
        raise _wrong("it commits each statement by itself", "Wrap your work in transaction.atomic()")
    # Past Django's own cursor, which logs statements with their values while DEBUG is on.
    return _ours_to_use(wrapper.connection, "Wrap your work in transaction.atomic()")


def _under_sqlalchemy(connection: Any) -> Any:
    if connection.dialect.is_async:
        raise _wrong("it is asynchronous", "Use a plain engine's connection")
    if connection.dialect.name != "postgresql":
        raise _wrong(
            "it is not on PostgreSQL", "Pass a connection of the engine whose database is the fleet's"
        )
    # Past SQLAlchemy's own execution, which logs statements with their values while echo is on.
    dbapi = _ours_to_use(
        connection.connection.dbapi_connection, "Use an isolation level other than AUTOCOMMIT"
    )
    if not connection.in_transaction():
        connection.begin()  # as its own first statement would; without it, its commit() would do nothing
    return dbapi


def _ours_to_use(dbapi: Any, remedy: str) -> Any:
    if getattr(dbapi, "closed", False):
        raise _wrong("it is closed", "Pass one that is open")
    info = getattr(dbapi, "info", None)  # psycopg's and psycopg2's
    in_transaction = getattr(info, "transaction_status", None) in _IN_TRANSACTION
    if getattr(dbapi, "autocommit", False) and not in_transaction:
        raise _wrong("it commits each statement by itself, so nothing would hold yours together", remedy)
    if getattr(info, "pipeline_status", 0):
        raise _wrong(
            "it is in pipeline mode, where an error ends the whole transaction",
            "Call within() outside of the pipeline() block",
        )
    return dbapi


def _sqlstate(error: BaseException) -> str | None:
    for name in ("sqlstate", "pgcode"):
        if isinstance(state := getattr(error, name, None), str):
            return state
    return None


def _wrong(problem: str, remedy: str) -> InvalidCall:
    return InvalidCall("connection", problem, remedy)

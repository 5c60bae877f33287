"""Sending within the caller's own transaction: it is sent if that commits, and never costs that transaction."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
import sqlalchemy
from psycopg.rows import tuple_row
from sqlalchemy.orm import Session

from notify_tasks import InvalidCall, NotAccepted, configure, send_notification, settings

ROOT = Path(__file__).parents[2]
CANARY = "canary@private.example"


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    settings.reset()
    yield
    settings.reset()


@pytest.fixture
def orders(database: str) -> Iterator[Callable[[str], list[tuple[Any, ...]]]]:
    """A table of the host's, and a way to look at what is committed."""
    with psycopg.connect(database, autocommit=True, row_factory=tuple_row) as watcher:
        watcher.execute("CREATE TABLE orders (id int)")

        def look(query: str) -> list[tuple[Any, ...]]:
            cursor = watcher.execute(query)
            return cursor.fetchall() if cursor.description else []

        yield look


Look = Callable[[str], list[tuple[Any, ...]]]
ROWS = "SELECT tenant, message_id, origin FROM notify.intake ORDER BY message_id, hash"
Begin = Callable[[str], AbstractContextManager[Any]]


@contextmanager
def psycopg_connection(database: str) -> Iterator[Any]:
    with psycopg.connect(database) as connection:
        yield connection
        connection.rollback()


@contextmanager
def psycopg_transaction_block(database: str) -> Iterator[Any]:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("BEGIN")
        yield connection


@contextmanager
def engine_on(database: str, **options: Any) -> Iterator[sqlalchemy.Engine]:
    engine = sqlalchemy.create_engine(database.replace("postgresql://", "postgresql+psycopg://"), **options)
    try:
        yield engine
    finally:
        engine.dispose()


@contextmanager
def sqlalchemy_connection(database: str) -> Iterator[Any]:
    with engine_on(database) as engine, engine.connect() as connection:
        yield connection


@contextmanager
def sqlalchemy_session(database: str) -> Iterator[Any]:
    with engine_on(database) as engine, Session(engine) as session:
        yield session


@contextmanager
def sqlalchemy_raw_connection(database: str) -> Iterator[Any]:
    with engine_on(database) as engine, closing(engine.raw_connection()) as connection:
        yield connection


each_kind = pytest.mark.parametrize(
    "begin",
    [
        psycopg_connection,
        psycopg_transaction_block,
        sqlalchemy_connection,
        sqlalchemy_session,
        sqlalchemy_raw_connection,
    ],
)


def run(connection: Any, statement: str) -> None:
    """Run a statement of the host's."""
    if hasattr(connection, "cursor"):
        connection.cursor().execute(statement)
    else:
        connection.execute(sqlalchemy.text(statement))


@each_kind
def test_what_commits_is_there_with_the_hosts_own_work(begin: Begin, database: str, orders: Look) -> None:
    with begin(database) as connection:
        run(connection, "INSERT INTO orders VALUES (1)")
        result = send_notification.within(connection, "order.shipped", to="user-1", tenant="acme")
        assert orders(ROWS) == []  # not before the commit
        connection.commit()

    assert orders(ROWS) == [("acme", result.id, "producer")]
    assert orders("SELECT id FROM orders") == [(1,)]


@each_kind
def test_a_call_that_is_all_there_is_in_a_transaction_commits_too(
    begin: Begin, database: str, orders: Look
) -> None:
    with begin(database) as connection:
        result = send_notification.within(connection, "order.shipped", to="user-1")
        connection.commit()

    assert orders(ROWS) == [("default", result.id, "producer")]


@each_kind
def test_what_is_rolled_back_leaves_nothing(begin: Begin, database: str, orders: Look) -> None:
    with begin(database) as connection:
        run(connection, "INSERT INTO orders VALUES (1)")
        send_notification.within(connection, "order.shipped", to="user-1")
        connection.rollback()

    assert orders(ROWS) == []
    assert orders("SELECT id FROM orders") == []


@each_kind
def test_the_same_call_twice_is_one_row_and_another_body_a_second(
    begin: Begin, database: str, orders: Look
) -> None:
    for _ in range(2):
        with begin(database) as connection:
            for total in (1, 1, 2):
                send_notification.within(
                    connection, "order.shipped", to="user-1", message_id="same", payload={"total": total}
                )
            run(connection, "INSERT INTO orders VALUES (1)")  # the transaction goes on
            connection.commit()

    assert orders(ROWS) == [("default", "same", "producer")] * 2  # both bodies: judged at intake
    assert orders("SELECT count(*) FROM orders") == [(2,)]


@each_kind
def test_a_database_without_the_table_costs_the_host_nothing(
    begin: Begin, database: str, orders: Look
) -> None:
    orders("DROP TABLE notify.intake")
    with begin(database) as connection:
        run(connection, "INSERT INTO orders VALUES (1)")
        with pytest.raises(NotAccepted, match="notify migrate"):
            send_notification.within(connection, "order.shipped", to="user-1")
        run(connection, "INSERT INTO orders VALUES (2)")
        connection.commit()

    assert orders("SELECT id FROM orders ORDER BY id") == [(1,), (2,)]


def test_the_listener_is_told_at_the_commit_and_not_before(database: str) -> None:
    with (
        psycopg.connect(database, autocommit=True) as listener,
        psycopg.connect(database) as connection,
    ):
        listener.execute("LISTEN notify_intake")
        send_notification.within(connection, "order.shipped", to="user-1")
        assert list(listener.notifies(timeout=0.2)) == []
        connection.commit()
        [told] = listener.notifies(timeout=10, stop_after=1)

    assert (told.channel, told.payload) == ("notify_intake", "")


def test_without_the_word_a_transaction_can_be_prepared(database: str, orders: Look) -> None:
    configure(intake_notify=False)
    with psycopg.connect(database, autocommit=True) as listener, psycopg.connect(database) as connection:
        listener.execute("LISTEN notify_intake")
        send_notification.within(connection, "order.shipped", to="user-1")
        connection.commit()
        assert list(listener.notifies(timeout=0.2)) == []
    assert len(orders(ROWS)) == 1


def test_two_transactions_with_one_call_both_go_on(database: str, orders: Look) -> None:
    # Given a first transaction that has sent and not yet committed
    ended = threading.Event()
    with psycopg.connect(database) as first, psycopg.connect(database) as second:
        send_notification.within(first, "order.shipped", to="user-1", message_id="same")

        # When a second one sends the same: it waits for the first
        def send() -> None:
            send_notification.within(second, "order.shipped", to="user-1", message_id="same")
            ended.set()

        thread = threading.Thread(target=send)
        thread.start()
        first.commit()
        assert ended.wait(30)
        thread.join()

        # Then its own work goes on
        second.execute("INSERT INTO orders VALUES (1)")
        second.commit()

    assert len(orders(ROWS)) == 1
    assert orders("SELECT id FROM orders") == [(1,)]


def test_a_snapshot_that_cannot_see_the_other_call_is_told_and_goes_on(database: str, orders: Look) -> None:
    with psycopg.connect(database) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.execute("INSERT INTO orders VALUES (1)")
        with psycopg.connect(database) as other:
            send_notification.within(other, "order.shipped", to="user-1", message_id="same")

        with pytest.raises(NotAccepted, match="40001"):
            send_notification.within(connection, "order.shipped", to="user-1", message_id="same")
        connection.commit()

    assert orders("SELECT id FROM orders") == [(1,)]
    assert len(orders(ROWS)) == 1


# --- what is refused --------------------------------------------------------------------------------


def refusal(connection: object) -> InvalidCall:
    with pytest.raises(InvalidCall) as refused:
        send_notification.within(connection, "order.shipped", to="user-1")
    assert refused.value.field == "connection"
    return refused.value


def test_autocommit_is_refused(database: str, orders: Look) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        assert "autocommit off" in refusal(connection).remedy
    with (
        engine_on(database, isolation_level="AUTOCOMMIT") as engine,
        engine.connect() as connection_,
        Session(engine) as session,
    ):
        assert "isolation level" in refusal(connection_).remedy
        assert "isolation level" in refusal(session).remedy
    assert orders(ROWS) == []


def test_async_connections_are_refused(database: str) -> None:
    async def attempt() -> InvalidCall:
        async with await psycopg.AsyncConnection.connect(database) as connection:
            return refusal(connection)

    assert "asynchronous" in asyncio.run(attempt()).problem


def test_pipelines_are_refused(database: str) -> None:
    with psycopg.connect(database) as connection, connection.pipeline():
        assert "outside" in refusal(connection).remedy


@pytest.mark.parametrize("thing", [None, "postgresql://localhost", object(), 5])
def test_what_is_no_connection_is_refused(thing: object) -> None:
    assert "psycopg" in refusal(thing).remedy


def test_an_engine_is_refused_since_it_is_no_connection(database: str) -> None:
    with engine_on(database) as engine:
        assert "Connection or Session" in refusal(engine).remedy


def test_another_database_product_is_refused() -> None:
    engine = sqlalchemy.create_engine("sqlite://")
    with engine.connect() as connection:
        assert "PostgreSQL" in refusal(connection).problem
    engine.dispose()


def test_a_closed_connection_is_refused(database: str) -> None:
    connection = psycopg.connect(database)
    connection.close()
    assert "closed" in refusal(connection).problem


def test_a_failed_transaction_is_told_to_end(database: str) -> None:
    with psycopg.connect(database) as connection:
        with pytest.raises(psycopg.Error):
            connection.execute("SELECT 1/0")
        with pytest.raises(NotAccepted, match="roll it back first"):
            send_notification.within(connection, "order.shipped", to="user-1")


def test_a_bad_call_is_refused_before_the_database_is_asked(database: str) -> None:
    with psycopg.connect(database) as connection, pytest.raises(InvalidCall, match="to"):
        send_notification.within(connection, "order.shipped", to=CANARY)


def test_nothing_private_reaches_the_hosts_logs_or_errors(
    database: str, orders: Look, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with engine_on(database, echo=True) as engine, engine.connect() as connection:
        send_notification.within(connection, "order.shipped", to={"email": CANARY}, payload={"name": CANARY})
        connection.commit()
        orders("ALTER TABLE notify.intake ADD CHECK (tenant <> 'acme')")
        with pytest.raises(NotAccepted, match="23514") as refused:
            send_notification.within(connection, "order.shipped", to={"email": CANARY}, tenant="acme")

    assert CANARY not in caplog.text
    assert CANARY not in str(refused.value)
    assert refused.value.__cause__ is None
    assert refused.value.__context__ is None


# --- Django -----------------------------------------------------------------------------------------

DJANGO = """
import logging, sys
import django
from django.conf import settings
name, user, password, host, port = sys.argv[1:]
database = {"ENGINE": "django.db.backends.postgresql", "NAME": name, "USER": user, "PASSWORD": password,
            "HOST": host, "PORT": port}
settings.configure(DEBUG=True, DATABASES={"default": database, "other": {"ENGINE": "django.db.backends.sqlite3",
                   "NAME": ":memory:"}})
django.setup()
from django.db import connection, connections, transaction
from notify_tasks import InvalidCall, NotAccepted, send_notification

def rows():
    with connection.cursor() as cursor:
        cursor.execute("SELECT message_id FROM notify.intake ORDER BY message_id, hash")
        return [id_ for id_, in cursor.fetchall()]

def send(id_, **more):
    return send_notification.within(connection, "order.shipped", to="user-1", message_id=id_, **more)

try:
    send("autocommit")
except InvalidCall as error:
    assert "transaction.atomic()" in error.remedy, error
else:
    raise AssertionError("autocommit was not refused")
try:
    with transaction.atomic("other"):
        send_notification.within(connections["other"], "order.shipped", to="user-1")
except InvalidCall as error:
    assert "PostgreSQL" in error.problem, error
else:
    raise AssertionError("SQLite was not refused")

with transaction.atomic():
    send("committed")
assert rows() == ["committed"], rows()

try:
    with transaction.atomic():
        send("rolled-back")
        raise ZeroDivisionError
except ZeroDivisionError:
    pass
assert rows() == ["committed"], rows()

with transaction.atomic():
    for total in (1, 1, 2):
        send("twice", payload={"total": total})
    try:
        with transaction.atomic():  # a savepoint of Django's own
            send("inner")
            raise ZeroDivisionError
    except ZeroDivisionError:
        pass
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE django_orders (id int)")
assert rows() == ["committed", "twice", "twice"], rows()

with connection.cursor() as cursor:
    cursor.execute("ALTER TABLE notify.intake RENAME TO gone")
with transaction.atomic():
    try:
        send("no-table")
    except NotAccepted as error:
        assert "notify migrate" in str(error), error
    else:
        raise AssertionError("the missing table was not told")
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO django_orders VALUES (1)")
with connection.cursor() as cursor:
    cursor.execute("SELECT count(*) FROM django_orders")
    assert cursor.fetchone() == (1,)
assert not any("user-1" in query["sql"] for query in connection.queries)
print("all of it")
"""


def test_djangos_connection_will_do(database: str) -> None:
    parts = urlsplit(database)
    arguments = [parts.path[1:], parts.username, parts.password, parts.hostname, parts.port]
    done = subprocess.run(
        [sys.executable, "-c", DJANGO, *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.stdout == "all of it\n", done.stderr

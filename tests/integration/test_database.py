"""What PostgreSQL's errors mean to the fleet: a bad row, another try, or a database that is away."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg_pool import PoolTimeout

from notify_tasks.store.database import (
    BadRow,
    Connection,
    Database,
    DatabaseAway,
    DatabaseError,
    TryAgain,
    storable,
    translate,
    translated,
)
from tests.integration.core_world import plain, proxied, together, until

SECRET = "anna@example.com"


@pytest.fixture
def db(database: str) -> Iterator[Database]:
    opened = Database(database, connections=4, wait=0.5)
    yield opened
    opened.close()


def raising(sqlstate: str) -> str:
    return f"DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '{sqlstate}', MESSAGE = '{SECRET}'; END $$"


# --- by SQLSTATE --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sqlstate", "meaning"),
    [
        ("22P05", BadRow),  # a character that cannot be stored
        ("22003", BadRow),  # a number out of range
        ("23514", BadRow),  # a check
        ("23505", BadRow),  # a unique key
        ("57P01", DatabaseAway),  # the server is stopped
        ("57014", DatabaseAway),  # the statement took too long
        ("25006", DatabaseAway),  # read-only after a failover
        ("08006", DatabaseAway),  # the connection failed
        ("53300", DatabaseAway),  # too many connections
        ("53100", DatabaseAway),  # the disk is full
        ("42P01", DatabaseAway),  # a table is missing: the schema, never a row
        ("42703", DatabaseAway),  # a column is missing
        ("XX000", DatabaseAway),
    ],
)
def test_only_classes_22_and_23_blame_a_row(
    db: Database, sqlstate: str, meaning: type[DatabaseError]
) -> None:
    with pytest.raises(DatabaseError) as raised:
        db.rows(raising(sqlstate))

    assert type(raised.value) is meaning
    assert raised.value.sqlstate == sqlstate
    assert SECRET not in str(raised.value) + repr(raised.value)
    assert raised.value.__cause__ is None


@pytest.mark.parametrize("sqlstate", ["40001", "40P01", "0A000"])
def test_a_conflict_is_run_again_and_then_the_database_counts_as_away(db: Database, sqlstate: str) -> None:
    with pytest.raises(DatabaseAway) as raised:
        db.rows(raising(sqlstate))
    assert type(raised.value) is DatabaseAway
    with pytest.raises(TryAgain), translated():
        raise translate(psycopg.errors.lookup(sqlstate)())


def test_a_statement_that_meets_another_one_once_succeeds(db: Database) -> None:
    db.rows("CREATE SEQUENCE tries")
    db.rows(
        """CREATE FUNCTION second_time() RETURNS bigint LANGUAGE plpgsql AS $$
        DECLARE n bigint := nextval('tries');
        BEGIN IF n < 3 THEN RAISE SQLSTATE '40001'; END IF; RETURN n; END $$"""
    )
    assert db.rows("SELECT second_time() AS n") == [{"n": 3}]
    assert db.transact(lambda c: c.execute("SELECT second_time() AS n").fetchone()) == {"n": 4}


def test_a_real_deadlock_ends_well_for_both(db: Database) -> None:
    db.rows("CREATE TABLE seat (n int PRIMARY KEY, taken int NOT NULL DEFAULT 0)")
    db.rows("INSERT INTO seat SELECT generate_series(0, 1)")
    both_have_one = threading.Barrier(2)
    first = [True, True]

    def take_both(mine: int) -> None:
        def run(connection: Connection) -> None:
            connection.execute("SET LOCAL deadlock_timeout = '20ms'")
            connection.execute("UPDATE seat SET taken = taken + 1 WHERE n = %s", (mine,))
            if first[mine]:
                first[mine] = False
                both_have_one.wait(5)
            connection.execute("UPDATE seat SET taken = taken + 1 WHERE n = %s", (1 - mine,))

        db.transact(run)

    together(2, take_both)

    assert db.rows("SELECT taken FROM seat") == [{"taken": 2}, {"taken": 2}]


@pytest.mark.parametrize("text", ["\x00", "half \ud83d of a pair"])
def test_what_no_text_column_holds_blames_the_row(db: Database, text: str) -> None:
    with pytest.raises(BadRow):
        db.rows("SELECT %s::text", (text,))
    assert db.rows("SELECT %s::text AS kept", (storable(text),))[0]["kept"] == storable(text)


def test_what_can_be_stored_is_left_as_it_is() -> None:
    assert storable(None) is None
    assert storable("Grüße, 世界 🎉\n") == "Grüße, 世界 🎉\n"
    assert storable("a\x00b\ud83d") == "a�b?"


# --- a database that is away ----------------------------------------------------------------------------


def test_where_nobody_answers_everything_says_away() -> None:
    gone = Database("postgresql://u:geheim@127.0.0.1:9/none", connections=1, wait=0.5)
    try:
        with pytest.raises(DatabaseAway) as raised:
            gone.rows("SELECT 1")
        with pytest.raises(DatabaseAway):
            gone.probe()
        with pytest.raises(DatabaseAway), gone.listening("x"):
            pass
    finally:
        gone.close()
    assert "geheim" not in str(raised.value)


def test_a_connection_that_is_cut_means_away_and_the_next_one_works(db: Database, database: str) -> None:
    def slow() -> None:
        with pytest.raises(DatabaseAway):
            db.rows("SELECT pg_sleep(30)")

    thread = threading.Thread(target=slow)
    thread.start()
    with plain(database) as other:
        until(
            lambda: other.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE query LIKE 'SELECT pg_sleep%' AND pid <> pg_backend_pid()"
            ).fetchall(),
            "the statement runs",
        )
    thread.join(10)
    assert not thread.is_alive()

    db.probe()
    assert db.rows("SELECT 1 AS one") == [{"one": 1}]


def test_an_answer_that_never_arrives_means_away_not_done(database: str) -> None:
    with proxied(database) as proxy:
        db = Database(proxy.url, connections=1, wait=2)
        db.rows("CREATE TABLE seen (n int)")
        proxy.arm("lose_answer", b"INSERT INTO seen")
        with pytest.raises(DatabaseAway):
            db.rows("INSERT INTO seen VALUES (1)")
        db.close()
    with plain(database) as other:
        assert other.execute("SELECT n FROM seen").fetchall() == [(1,)]


def test_a_pool_without_a_free_connection_says_away_in_bounded_time(database: str) -> None:
    db = Database(database, connections=1, wait=0.3)
    held, release = threading.Event(), threading.Event()

    def hold(connection: Connection) -> None:
        held.set()
        release.wait(10)

    thread = threading.Thread(target=lambda: db.transact(hold))
    thread.start()
    held.wait(5)
    with pytest.raises(DatabaseAway, match="PoolTimeout"):
        db.rows("SELECT 1")
    release.set()
    thread.join(5)
    assert db.rows("SELECT 1 AS one") == [{"one": 1}]
    db.close()
    assert type(translate(PoolTimeout())) is DatabaseAway


def test_a_read_only_database_is_away_and_a_probe_says_so(db: Database) -> None:
    db.rows("SET default_transaction_read_only = on")  # of the pool's only connection so far
    with pytest.raises(DatabaseAway) as raised:
        db.rows("CREATE TABLE x ()")
    assert raised.value.sqlstate == "25006"
    db.rows("SET default_transaction_read_only = off")
    db.probe()


def test_pooled_connections_that_broke_are_cleared_by_a_probe(db: Database, database: str) -> None:
    meet = threading.Barrier(4, timeout=10)

    def hold(connection: Connection) -> None:
        connection.execute("SELECT 1")
        meet.wait()

    together(4, lambda _: db.transact(hold))  # four pooled connections
    with plain(database) as other:
        ended = other.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'notify' AND datname = current_database()"
        ).fetchall()
    assert len(ended) == 4

    db.probe()

    for _ in range(8):
        db.rows("SELECT 1")


def test_no_transaction_is_left_open(db: Database, database: str) -> None:
    def fail(connection: Connection) -> None:
        connection.execute("SELECT 1")
        connection.execute(raising("23514"))

    with pytest.raises(BadRow):
        db.transact(fail)
    with plain(database) as other:
        states = other.execute(
            "SELECT state FROM pg_stat_activity WHERE application_name = 'notify' AND datname = current_database()"
        ).fetchall()
    assert states == [("idle",)]


# --- listening, and being alone -------------------------------------------------------------------------


def test_a_word_is_heard_when_it_is_committed(db: Database) -> None:
    with db.listening("some_channel") as word_within:
        assert not word_within(0.05)
        for _ in range(3):
            db.rows("SELECT pg_notify('some_channel', '')")
            assert word_within(5)
        assert not word_within(0.05)


def test_a_listener_learns_that_its_connection_has_ended(db: Database, database: str) -> None:
    def listen() -> Any:
        with db.listening("some_channel") as word_within, plain(database) as other:
            other.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'notify-dedicated'"
                " AND datname = current_database()"
            )
            return word_within(5)

    with pytest.raises(DatabaseAway):
        listen()


def test_one_is_alone_until_it_leaves(db: Database) -> None:
    with db.alone(42) as first, db.alone(42) as second, db.alone(43) as other:
        assert (first, second, other) == (True, False, True)
    until(lambda: _alone(db), "the lock is let go of")


def _alone(db: Database) -> bool:
    with db.alone(42) as mine:
        return mine

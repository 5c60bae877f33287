"""The schema: brought up to date by one command, by any number of processes at once, and never guessed at."""

from __future__ import annotations

import itertools
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest

from notify_tasks.errors import SchemaError
from notify_tasks.store import migrate as migrating
from notify_tasks.store.database import DatabaseAway
from notify_tasks.store.migrate import FOLDER, available, check, migrate
from tests.integration.core_world import plain, together, until, waiting_for_locks

_numbers = itertools.count(1)


@pytest.fixture
def empty(postgres_url: str) -> Iterator[str]:
    """The URL of a database without anything of ours."""
    name = f"empty_{next(_numbers)}"
    with plain(postgres_url) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        yield urlunsplit(urlsplit(postgres_url)._replace(path=f"/{name}"))
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the shipped migrations, to add to and to spoil."""
    return Path(shutil.copytree(FOLDER, tmp_path / "migrations"))


def add(folder: Path, sql: str) -> int:
    """Add the next migration and return its number."""
    version = max(it.version for it in available(folder)) + 1
    (folder / f"{version:04}_added.sql").write_text(sql)
    return version


NEWEST = max(it.version for it in available())


def test_an_empty_database_gets_everything_once_and_is_told_so(empty: str) -> None:
    told: list[str] = []

    assert [it.version for it in migrate(empty, tell=told.append)] == [it.version for it in available()]
    assert told[0] == "applying 0001 initial"
    assert migrate(empty, tell=told.append) == []
    assert len(told) == len(available())
    check(empty)


def test_shipped_migrations_are_numbered_without_gaps() -> None:
    assert [it.version for it in available()] == list(range(1, NEWEST + 1))


def test_many_migrators_at_once_apply_each_file_once(empty: str) -> None:
    applied = together(6, lambda _: migrate(empty))

    assert sorted(len(it) for it in applied) == [0, 0, 0, 0, 0, len(available())]
    check(empty)


def test_a_worker_on_an_older_schema_says_what_to_type(empty: str, folder: Path) -> None:
    with pytest.raises(SchemaError, match="type `notify migrate`"):
        check(empty)

    migrate(empty)
    add(folder, "SELECT 1")
    with pytest.raises(
        SchemaError, match=f"has schema {NEWEST}, this version needs {NEWEST + 1}: type `notify migrate`"
    ):
        check(empty, folder=folder)


def test_a_worker_runs_on_a_schema_one_step_newer_and_no_further(empty: str, folder: Path) -> None:
    add(folder, "CREATE TABLE notify.one_step ()")
    migrate(empty, folder=folder)
    check(empty)

    add(folder, "CREATE TABLE notify.two_steps ()")
    migrate(empty, folder=folder)
    with pytest.raises(SchemaError, match="deploy the newer version"):
        check(empty)


def test_an_older_version_leaves_a_newer_schema_alone(empty: str, folder: Path) -> None:
    add(folder, "CREATE TABLE notify.one_step ()")
    migrate(empty, folder=folder)
    assert migrate(empty) == []


def test_a_file_changed_after_it_was_applied_is_refused(empty: str, folder: Path) -> None:
    migrate(empty)
    first = folder / "0001_initial.sql"
    first.write_text(first.read_text() + "\n-- a harmless word\n")
    added = add(folder, "CREATE TABLE notify.never ()")

    with pytest.raises(SchemaError, match=r"0001 .* was changed after it had been applied; restore the file"):
        migrate(empty, folder=folder)

    with plain(empty) as connection:
        assert connection.execute("SELECT to_regclass('notify.never')").fetchone() == (None,)
        assert (added,) not in connection.execute("SELECT version FROM notify.schema_migration").fetchall()


def test_a_migration_that_fails_leaves_nothing_behind_and_can_be_mended(empty: str, folder: Path) -> None:
    version = add(folder, "CREATE TABLE notify.half (n int); SELECT nonsense;")
    with pytest.raises(DatabaseAway, match="42703"):
        migrate(empty, folder=folder)

    (folder / f"{version:04}_added.sql").write_text("CREATE TABLE notify.half (n int)")
    assert [it.version for it in migrate(empty, folder=folder)] == [version]


def test_a_migration_gives_way_to_a_table_in_use_and_gets_through_later(
    empty: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrating, "LOCK_TIMEOUT", "200ms")
    migrate(empty)
    add(folder, "ALTER TABLE notify.delivery ADD COLUMN added int")
    with plain(empty) as reader, plain(empty) as other:
        # Given a long transaction on the table and a migration that wants to change it,
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM notify.delivery")
        migrator = threading.Thread(target=migrate, args=(empty,), kwargs={"folder": folder})
        migrator.start()
        until(waiting_for_locks(empty, 1), "the migration waits for the table")

        # when others read the table meanwhile, then they are served within the lock's timeout,
        other.execute("SET statement_timeout = '5s'")
        other.execute("SELECT * FROM notify.delivery")

        # and once the transaction has ended, the migration gets through.
        reader.execute("COMMIT")
        migrator.join(20)
    assert not migrator.is_alive()
    check(empty, folder=folder)


def test_a_table_that_never_gets_free_is_reported(
    empty: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrating, "LOCK_TIMEOUT", "50ms")
    monkeypatch.setattr(migrating, "LOCK_TRIES", 2)
    migrate(empty)
    add(folder, "ALTER TABLE notify.delivery ADD COLUMN added int")
    with plain(empty) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM notify.delivery")
        with pytest.raises(SchemaError, match="end long transactions and type `notify migrate` again"):
            migrate(empty, folder=folder)
        reader.execute("ROLLBACK")
    assert len(migrate(empty, folder=folder)) == 1


def test_a_database_that_is_away_is_no_schema_error() -> None:
    for work in (migrate, check):
        with pytest.raises(DatabaseAway):
            work("postgresql://u:p@127.0.0.1:9/none")  # type: ignore[operator]


def test_a_role_without_rights_can_check_and_is_refused_to_migrate(empty: str, postgres_url: str) -> None:
    migrate(empty)
    parts = urlsplit(empty)
    with plain(empty) as connection:
        connection.execute("CREATE ROLE guest LOGIN PASSWORD 'guest'")
        connection.execute("GRANT USAGE ON SCHEMA notify TO guest")
        connection.execute("GRANT SELECT ON notify.schema_migration TO guest")
    guest = urlunsplit(parts._replace(netloc=f"guest:guest@{parts.hostname}:{parts.port}"))
    try:
        check(guest)
        with pytest.raises(DatabaseAway, match="42501"):
            migrate(guest, folder=FOLDER)
    finally:
        with plain(empty) as connection:
            connection.execute("DROP OWNED BY guest")
            connection.execute("DROP ROLE guest")


def test_every_table_of_a_tenant_has_its_tenant(database: str) -> None:
    # What belongs to nobody in particular: the attempt is its delivery's, the rest is the fleet's own.
    none = {"attempt", "schema_migration", "marker", "sweep", "counter", "pause", "parked_message"}
    none |= {"configuration_report", "provider_report", "limit_key"}
    none |= {"step_moved"}  # a note of what became of a delivery, until the sweep has read it
    none |= {"tally", "tally_delay", "tally_mark", "tally_minute"}  # totals for the exporter
    none |= {"receipt", "receipt_request"}  # a receipt's tenant is its delivery's, once it has found that
    with psycopg.connect(database) as connection:
        tables = {
            row[0]
            for row in connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'notify'")
        }
        with_tenant = {
            row[0]
            for row in connection.execute(
                "SELECT table_name FROM information_schema.columns"
                " WHERE table_schema = 'notify' AND column_name = 'tenant' AND is_nullable = 'NO'"
            )
        }
    assert tables - with_tenant == none

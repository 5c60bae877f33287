"""Forward-only migrations: `migrations/NNNN_name.sql`, one transaction each, under an advisory lock.

A worker refuses to run on a schema older than its own, and runs on one that is a step newer, so that a rolling
deploy can migrate first and replace workers afterwards. Migrations therefore expand before they contract.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psycopg

from notify_tasks.errors import SchemaError
from notify_tasks.store.database import translated

FOLDER: Final = Path(__file__).parent / "migrations"
LOCK: Final = 0x6E6F74696679  # "notify"
LOCK_TIMEOUT: Final = "3s"
"""A migration that has to wait longer for a table's lock gives up and is run again, instead of making every
statement queue behind it."""
LOCK_TRIES: Final = 10
OLDEST_POSTGRESQL: Final = 150000

_TABLE: Final = """
CREATE TABLE IF NOT EXISTS notify.schema_migration (
    version    integer     PRIMARY KEY,
    name       text        NOT NULL,
    checksum   text        NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
)"""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file of the folder."""

    version: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        """SHA-256 of the file's text."""
        return hashlib.sha256(self.sql.encode()).hexdigest()


def available(folder: Path = FOLDER) -> list[Migration]:
    """The migrations that this version ships, in order."""
    return [
        Migration(int(path.name[:4]), path.stem[5:], path.read_text(encoding="utf-8"))
        for path in sorted(folder.glob("[0-9][0-9][0-9][0-9]_*.sql"))
    ]


def applied(connection: psycopg.Connection) -> dict[int, str]:
    """Version and checksum of what the database has."""
    found = connection.execute("SELECT to_regclass('notify.schema_migration') IS NOT NULL").fetchone()
    if found is None or not found[0]:
        return {}
    return dict(connection.execute("SELECT version, checksum FROM notify.schema_migration").fetchall())


def migrate(
    url: str, *, folder: Path = FOLDER, tell: Callable[[str], None] = lambda _: None
) -> list[Migration]:
    """Bring the database to this version's schema. Two at once are safe: the second waits and finds it done.

    Args:
        url: `postgresql://...` of a role that may create the schema `notify`.
        folder: where the migrations are.
        tell: called with one line for each migration applied.

    Returns:
        What was applied now.

    Raises:
        SchemaError: an applied migration's file has been changed, PostgreSQL is too old, or a lock could not be had.
    """
    with translated():
        connection = psycopg.connect(
            url, autocommit=True, connect_timeout=5, application_name="notify-migrate"
        )
    with connection, translated():
        if connection.info.server_version < OLDEST_POSTGRESQL:
            raise SchemaError(
                f"PostgreSQL {connection.info.server_version // 10000} is too old: version 15 or later is needed"
            )
        connection.execute("SELECT pg_advisory_lock(%s)", (LOCK,))
        connection.execute("CREATE SCHEMA IF NOT EXISTS notify")
        connection.execute(_TABLE)
        have = applied(connection)
        done = []
        for migration in available(folder):
            if migration.version in have:
                if have[migration.version] != migration.checksum:
                    raise SchemaError(
                        f"migration {migration.version:04} ({migration.name}) was changed after it had been applied; "
                        "restore the file and put the change into a new migration"
                    )
                continue
            tell(f"applying {migration.version:04} {migration.name}")
            _apply(connection, migration)
            done.append(migration)
        return done


def _apply(connection: psycopg.Connection, migration: Migration) -> None:
    for left in reversed(range(LOCK_TRIES)):
        try:
            with connection.transaction():
                connection.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
                connection.execute(migration.sql.encode())
                connection.execute(
                    "INSERT INTO notify.schema_migration (version, name, checksum) VALUES (%s, %s, %s)",
                    (migration.version, migration.name, migration.checksum),
                )
        except psycopg.errors.LockNotAvailable:
            if not left:
                raise SchemaError(
                    f"migration {migration.version:04} could not lock its tables within {LOCK_TIMEOUT}, "
                    f"{LOCK_TRIES} times; end long transactions and type `notify migrate` again"
                ) from None
            time.sleep(1)
        else:
            return


def check(url: str, *, folder: Path = FOLDER) -> None:
    """Refuse to run on a schema that does not fit.

    Raises:
        SchemaError: the schema is older than this version's, or more than one step newer; the text says what to type.
    """
    with translated():
        connection = psycopg.connect(url, autocommit=True, connect_timeout=5, application_name="notify-check")
    with connection, translated():
        have = max(applied(connection), default=0)
    own = max((migration.version for migration in available(folder)), default=0)
    if have < own:
        raise SchemaError(f"the database has schema {have}, this version needs {own}: type `notify migrate`")
    if have > own + 1:
        raise SchemaError(
            f"the database has schema {have}, this version knows {own}: deploy the newer version"
        )

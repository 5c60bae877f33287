"""Databases with the present schema, one a test, made once and cleaned for the next test.

To make one of a template and to drop it again costs more than most tests do in it. So a database whose test has left
nobody connected and has changed no schema is emptied and goes, under another name, to the next test. Any other is
dropped.
"""

from __future__ import annotations

import itertools
import time
from typing import Final
from urllib.parse import urlsplit, urlunsplit

import psycopg
from psycopg import sql

TEMPLATE: Final = "migrated"
LEAVING_SECONDS: Final = 0.2
"""So long a server may take to see that its client has gone."""

_CATALOGS: Final = (
    "pg_attrdef", "pg_attribute", "pg_constraint", "pg_db_role_setting", "pg_index", "pg_namespace", "pg_policy",
    "pg_proc", "pg_rewrite", "pg_sequence", "pg_trigger", "pg_type",
)  # fmt: skip
# Whatever changes a schema writes to one of these catalogs, and no TRUNCATE does. pg_class is written by both.
_SCHEMA: Final = (
    "SELECT concat_ws(' ', "
    + ", ".join(f"(SELECT count(*) || '-' || max(xmin::text::bigint) FROM {it})" for it in _CATALOGS)
    + ", (SELECT sum(hashtext(concat(oid, relname, relacl, reloptions))) FROM pg_class WHERE relpersistence = 'p'"
    " AND relkind IN ('r', 'v', 'S')))"
)
_TABLES: Final = (
    "SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
    " WHERE c.relkind = 'r' AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema'"
    " AND pg_relation_size(c.oid) > 0"
)
_SEQUENCES: Final = "SELECT seqrelid, pg_sequence_last_value(seqrelid), seqstart FROM pg_sequence ORDER BY 1"

Table = tuple[str, str]


_CHEAP: Final = ("autovacuum = off", "full_page_writes = off")
"""For a server whose data nobody needs after the tests."""


def make_cheap(url: str) -> None:
    """Let a server's connections and writes cost less: thousands are opened, and its data are thrown away."""
    with psycopg.connect(url, autocommit=True) as connection:
        for setting in _CHEAP:
            connection.execute(f"ALTER SYSTEM SET {setting}")
        connection.execute("SELECT pg_reload_conf()")
        # The proof of the password is most of what a connection costs.
        connection.execute("SET scram_iterations = 1")
        user, password = urlsplit(url).username or "", urlsplit(url).password or ""
        connection.execute(sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(user), password))


class Databases:
    """Lends databases of one server.

    Args:
        url: of the server's first database; its user may do everything.
    """

    def __init__(self, url: str) -> None:
        from notify_tasks.store.migrate import migrate  # noqa: PLC0415 - tests without a database do without it

        self._url = url
        self._server = psycopg.connect(url, autocommit=True)
        self._numbers = itertools.count(1)
        self._spare: list[str] = []
        self._server.execute(f"CREATE DATABASE {TEMPLATE}")
        migrate(self.url(TEMPLATE))
        with psycopg.connect(self.url(TEMPLATE), autocommit=True) as connection:
            self._schema = _schema(connection)
            self._sequences = connection.execute(_SEQUENCES).fetchall()
            self._seeds = {table: rows for table in _tables(connection) if (rows := _rows(connection, table))}

    def close(self) -> None:
        """Leave the server alone."""
        self._server.close()

    def url(self, name: str) -> str:
        """Of a database of the server."""
        return urlunsplit(urlsplit(self._url)._replace(path=f"/{name}"))

    def take(self) -> str:
        """The name of a fresh one. No two have the same, so a straggler of an earlier test finds nothing."""
        name = f"test_{next(self._numbers)}"
        if self._spare:
            self._server.execute(f"ALTER DATABASE {self._spare.pop()} RENAME TO {name}")
        else:
            self._server.execute(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
        return name

    def give_back(self, name: str) -> None:
        """Clean or drop it."""
        if self._left_alone(name) and self._clean(name) and self._left_alone(name):
            self._spare.append(name)
        else:
            self._server.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def _left_alone(self, name: str) -> bool:
        deadline = time.monotonic() + LEAVING_SECONDS
        while self._server.execute(
            "SELECT 1 FROM pg_stat_activity WHERE datname = %s AND backend_type = 'client backend'", [name]
        ).fetchone():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.005)
        return True

    def _clean(self, name: str) -> bool:
        """Empty it; False if it cannot be as it was."""
        try:
            with psycopg.connect(self.url(name), autocommit=True) as connection:
                if _schema(connection) != self._schema:
                    return False
                changed = [it for it in _tables(connection) if it not in self._seeds]
                if changed:
                    tables = sql.SQL(", ").join(sql.Identifier(*it) for it in changed)
                    connection.execute(sql.SQL("TRUNCATE {} RESTART IDENTITY CASCADE").format(tables))
                for table, rows in self._seeds.items():
                    if _rows(connection, table) != rows:
                        _write(connection, table, rows)
                for now, (sequence, last, start) in zip(
                    connection.execute(_SEQUENCES).fetchall(), self._sequences, strict=True
                ):
                    if now[1] != last:
                        value = [sequence, start, False] if last is None else [sequence, last, True]
                        connection.execute("SELECT setval(%s::regclass, %s, %s)", value)
        except psycopg.Error:  # gone, closed to connections, or locked by something that is left
            return False
        return True


def _schema(connection: psycopg.Connection) -> object:
    return connection.execute(_SCHEMA).fetchone()


def _tables(connection: psycopg.Connection) -> list[Table]:
    return connection.execute(_TABLES).fetchall()


def _rows(connection: psycopg.Connection, table: Table) -> bytes:
    with connection.cursor().copy(sql.SQL("COPY {} TO STDOUT").format(sql.Identifier(*table))) as copy:
        return b"".join(sorted(bytes(line) for line in copy))


def _write(connection: psycopg.Connection, table: Table, rows: bytes) -> None:
    name = sql.Identifier(*table)
    with connection.transaction():
        connection.execute(sql.SQL("TRUNCATE {} RESTART IDENTITY CASCADE").format(name))
        with connection.cursor().copy(sql.SQL("COPY {} FROM STDIN").format(name)) as copy:
            copy.write(rows)

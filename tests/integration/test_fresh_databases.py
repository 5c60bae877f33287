"""The tests' own databases: whatever a test does to one, the next test's is as the first was."""

from __future__ import annotations

import psycopg
import pytest
from psycopg import sql
from support.databases import Databases

ADVANCE = """
DO $$ DECLARE it record; BEGIN
    FOR it IN SELECT seqrelid::regclass AS name FROM pg_sequence LOOP PERFORM nextval(it.name); END LOOP;
END $$
"""
STATE = """
SELECT (SELECT string_agg(concat(c.oid::regclass, a.attname, a.atttypid::regtype, c.relacl), ',' ORDER BY c.oid, a.attnum)
          FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE n.nspname IN ('notify', 'public') AND c.relkind IN ('r', 'v', 'i')),
       (SELECT string_agg(concat(tgrelid::regclass, tgname, tgenabled), ',' ORDER BY oid) FROM pg_trigger),
       (SELECT string_agg(concat(seqrelid::regclass, pg_sequence_last_value(seqrelid)), ',' ORDER BY seqrelid)
          FROM pg_sequence)
"""  # noqa: E501 - SQL reads best in its own lines


def state(databases: Databases, name: str) -> object:
    """Everything in a database that a test could find changed."""
    with psycopg.connect(databases.url(name), autocommit=True) as connection:
        tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'notify'").fetchall()
        rows = {
            table: connection.execute(
                sql.SQL("SELECT array_agg(it::text ORDER BY it::text) FROM notify.{} it").format(
                    sql.Identifier(table)
                )
            ).fetchone()
            for (table,) in tables
        }
        return rows, connection.execute(STATE).fetchone()


@pytest.mark.parametrize(
    ("statement", "cleaned"),
    [
        ("INSERT INTO notify.counter (name, value) VALUES ('x', 1)", True),
        ("DELETE FROM notify.schema_migration", True),
        (ADVANCE, True),
        ("CREATE TABLE public.left_over (n int)", False),
        ("ALTER TABLE notify.delivery ADD COLUMN left_over int", False),
        ("ALTER TABLE notify.counter DISABLE TRIGGER ALL; CREATE INDEX ON notify.counter (value)", False),
        ("GRANT SELECT ON notify.delivery TO PUBLIC", False),
        ("DROP TABLE notify.counter", False),
    ],
)
def test_what_a_test_leaves_no_other_test_finds(
    databases: Databases, statement: str, *, cleaned: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("support.databases.LEAVING_SECONDS", 30)  # the machine may be busy
    # Given a database as the first test gets it,
    name = databases.take()
    fresh = state(databases, name)
    # when a test changes it,
    with psycopg.connect(databases.url(name), autocommit=True) as connection:
        connection.execute(statement)
    assert state(databases, name) != fresh
    databases.give_back(name)
    # then it is cleaned where that is possible, and the next one is as the first was.
    assert bool(databases._spare) is cleaned
    again = databases.take()
    assert state(databases, again) == fresh
    databases.give_back(again)


def test_a_database_that_somebody_still_uses_goes_to_nobody_else(databases: Databases) -> None:
    name = databases.take()
    with psycopg.connect(databases.url(name), autocommit=True) as straggler:
        straggler.execute("SELECT 1")
        databases.give_back(name)
        assert not databases._spare
        with pytest.raises(psycopg.OperationalError):
            straggler.execute("SELECT 1")

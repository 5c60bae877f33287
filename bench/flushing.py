"""P6: what a digest's flush costs for each event, with many events and with few, and how many statements it takes."""

from __future__ import annotations

import time
from typing import Any, Final

import psycopg

from bench.report import Line, progress
from bench.rig import Rig
from notify_tasks.store import digests
from notify_tasks.store.database import Connection, Database

EACH: Final = 10
"""Events in a digest."""
FEW: Final = 10_000
BATCH: Final = 500

# As ours are: in the order of time (RFC 9562, section 5.7).
_UUID7: Final = """
CREATE FUNCTION pg_temp.uuid7(n bigint) RETURNS uuid LANGUAGE sql AS $$
SELECT (lpad(to_hex(1793000000000 + n / 4), 12, '0') || '7' || substr(md5(n::text), 1, 3) || '8'
        || substr(md5(n::text), 4, 15))::uuid
$$
"""
_CALLS: Final = """
INSERT INTO notify.notification (id, tenant, message_id, event_type, occurred_at, payload, plan, state, hash)
SELECT pg_temp.uuid7(n), 'default', 'event-' || n, 'comment.mentioned', now(),
       jsonb_build_object('author', 'Ana', 'text', repeat('x', 200), 'comment_url', 'https://wiki.example/' || n),
       '{}', 'accepted', md5(n::text)
  FROM generate_series(1, %s) AS n
"""
_DIGESTS: Final = """
INSERT INTO notify.digest (id, key, tenant, recipient_id, channel, event_type, digest_type, at, sandbox, due_at, most,
                           events, opening, bytes)
SELECT pg_temp.uuid7(2000000000 + n), 'person-' || n, 'default', 'person-' || n, 'email', 'comment.mentioned',
       'comment.digest', 'hourly', false, now() - interval '1 second', 500, %s, 0, %s * 280
  FROM generate_series(0, %s - 1) AS n
"""
_MEMBERS: Final = """
INSERT INTO notify.delivery (id, notification_id, tenant, message_id, event_type, recipient_id, address, channel, lane,
                             state, reason, on_doubt, expires_at, max_attempts, digest_id)
SELECT pg_temp.uuid7(1000000000 + substr(n.message_id, 7)::bigint), n.id, n.tenant, n.message_id, n.event_type,
       g.recipient_id, g.recipient_id || '@example.com',
       'email', 'normal', 'held', 'digest', 'resend', now() + interval '3 days', 8, g.id
  FROM notify.notification n
  JOIN notify.digest g ON g.key = 'person-' || (substr(n.message_id, 7)::bigint %% %s) AND g.state = 'open'
 WHERE n.message_id LIKE 'event-%%'
 ORDER BY n.id
"""


class Counting(Database):
    """Counts the statements of its transactions."""

    statements = 0

    def transact(self, work: Any) -> Any:
        """As ever, and counted."""

        def counted(connection: Connection) -> Any:
            ask = connection.execute

            def execute(*args: Any, **kwargs: Any) -> Any:
                self.statements += 1
                return ask(*args, **kwargs)

            connection.execute = execute  # type: ignore[method-assign]
            try:
                return work(connection)
            finally:
                del connection.execute

        return super().transact(counted)


def measure(rig: Rig, *, events: int) -> tuple[list[Line], str]:
    """Flush a few events, then many.

    Args:
        rig: the servers.
        events: how many are many.
    """
    few, _ = _flushed(rig, FEW)
    many, statements = _flushed(rig, events)
    line = Line(
        f"P6 digest flush, {events:,} events / {FEW:,}",
        many * 1e6,
        few * 1e6,
        "us an event",
        1.3,
        least=False,
    )
    people = events // EACH
    return [
        line
    ], f"{statements:,} statements flushed {events:,} events of {people:,} people, {BATCH} digests at a time"


def _flushed(rig: Rig, events: int) -> tuple[float, int]:
    progress(f"P6: {events:,} events in {events // EACH:,} digests")
    people = events // EACH
    with psycopg.connect(rig.postgres.url, autocommit=True) as connection:
        connection.execute(_UUID7)
        connection.execute(_CALLS, (events,))
        connection.execute(_DIGESTS, (EACH, EACH, people))
        connection.execute(_MEMBERS, (people,))
        connection.execute("ANALYZE")
    database = Counting(rig.postgres.url, connections=1, name="bench")
    flushed = 0
    begun = time.perf_counter()
    try:
        while (done := digests.flush(database, limit=BATCH)).digests:
            flushed += done.events
    finally:
        spent = time.perf_counter() - begun
        database.close()
    if flushed != events:
        raise RuntimeError(f"{flushed:,} of {events:,} events were flushed: the rows made for it are wrong")
    ((calls,),) = rig.rows("SELECT count(*) FROM notify.intake WHERE origin = 'digest'")
    rig.execute("DELETE FROM notify.intake WHERE origin = 'digest'")
    rig.execute("TRUNCATE notify.digest, notify.notification CASCADE")
    progress(f"{calls} calls in {spent:.1f} s")
    return spent / events, database.statements

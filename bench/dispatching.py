"""How late a row is woken, of many that are due in the same second."""

from __future__ import annotations

import time
from typing import Final

from bench.machine import cpu_seconds
from bench.report import Line, columns, progress
from bench.rig import Rig, wait_until
from notify_tasks.routing import MAINT_QUEUE
from notify_tasks.supervising import celery_spec, worker_spec

AHEAD_SECONDS: Final = 3

_CALLS: Final = """
INSERT INTO notify.notification
       (id, tenant, message_id, event_type, occurred_at, payload, plan, state, hash)
SELECT gen_random_uuid(), 'default', 'due-' || n, 'order.shipped', now(), '{}', '{}', 'accepted', md5(n::text)
  FROM generate_series(1, %s) AS n
"""
_ROWS: Final = """
INSERT INTO notify.delivery
       (id, notification_id, tenant, message_id, event_type, address, channel, lane, state, reason, on_doubt, due_at,
        expires_at, max_attempts)
SELECT gen_random_uuid(), id, tenant, message_id, event_type, '+447700900101', 'sms', 'normal', 'held', 'scheduled',
       'hold', now() + interval '1 day', now() + interval '3 days', 8
  FROM notify.notification WHERE message_id LIKE 'due-%%'
"""
# The floor: what PostgreSQL alone takes to move so many rows, in one statement.
_FLOOR: Final = (
    "UPDATE notify.delivery SET due_at = now() + make_interval(secs => %s) WHERE reason = 'scheduled'"
)


def measure(rig: Rig, *, rows: int) -> tuple[list[Line], str]:
    """Store rows that are due in the same second, let the maintenance process wake them, and look how late it was.

    Its processes stay: it comes last.

    Args:
        rig: the servers.
        rows: how many.
    """
    progress(f"{rows:,} rows that are due in the same second")
    rig.supervisor.start(worker_spec("maint", [MAINT_QUEUE], threads=2))
    rig.supervisor.start(celery_spec("beat", "beat", "--loglevel", "INFO"))
    rig.execute(_CALLS, rows)
    rig.execute(_ROWS)
    rig.execute("ANALYZE notify.delivery")
    begun = time.perf_counter()
    rig.execute(_FLOOR, AHEAD_SECONDS + 60)
    floor = time.perf_counter() - begun
    rig.execute("VACUUM notify.delivery")
    ((due,),) = rig.rows("SELECT date_trunc('second', now()) + make_interval(secs => %s)", AHEAD_SECONDS)
    rig.execute("UPDATE notify.delivery SET due_at = %s WHERE reason = 'scheduled'", due)
    spent = cpu_seconds(rig.supervisor.pid("maint"))
    wait_until("every row is woken", lambda: not _held(rig), seconds=300, every=0.2)
    spent = cpu_seconds(rig.supervisor.pid("maint")) - spent
    ((median, late, last),) = rig.rows(
        "SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY lag), percentile_cont(0.99) WITHIN GROUP (ORDER BY lag),"
        " max(lag) FROM (SELECT extract(epoch FROM updated_at - %s)::float8 AS lag FROM notify.delivery"
        " WHERE message_id LIKE 'due-%%') d",
        due,
    )
    rig.execute("DELETE FROM notify.notification WHERE message_id LIKE 'due-%%'")
    told = columns(
        [
            (f"woken late, of {rows:,} due at once", "median", "99 %", "last"),
            ("seconds", *(f"{float(str(it)):.1f}" for it in (median, late, last))),
        ]
    )
    line = Line(
        "dispatch of rows due in one second / one UPDATE of them",
        float(str(last)) / rows * 1e6,
        floor / rows * 1e6,
        "us a row",
    )
    return [line], f"{told}\n{spent / rows * 1e6:,.0f} us of CPU a row in the maintenance process"


def _held(rig: Rig) -> int:
    ((n,),) = rig.rows(
        "SELECT count(*) FROM notify.delivery WHERE state = 'held' AND message_id LIKE 'due-%%'"
    )
    return int(str(n))

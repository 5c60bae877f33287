"""Recurring schedules: stored, changed, and made into calls when they are due.

An occurrence, its call in the intake table and the schedule's next time are one commit. Whatever ends a tick before it
leaves a schedule that is still due; nothing that happens after it can take the call back.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from notify_tasks import recurrence
from notify_tasks.recurrence import Kind, Missed, Rule
from notify_tasks.store.database import Connection, Database, Row, jsonb

logger = logging.getLogger(__name__)

OCCURRENCES: Final = 100
"""Of one schedule in one tick, where each missed one goes out; the rest is the next tick's."""
EDIT_TICKS: Final = 50
KEPT_DAYS: Final = 30
"""As long as message ids are remembered."""
PRUNED: Final = 1000
PROBLEM_SECONDS: Final = 600.0
"""A schedule that cannot be looked at is looked at again after so long."""
_PROBLEM: Final = (
    "a worker cannot read its rule or does not know its time zone; bring the workers up to date (package tzdata), or "
    "write the schedule anew"
)


@dataclass(frozen=True, slots=True)
class Schedule:
    """A schedule as stored. Times are in UTC.

    Args:
        event_type: of its calls.
        call: of its calls: the envelope without what each gets by itself.
        lifetime: seconds from an occurrence to its call's expiry; None for the type's own.
        rule: what it repeats by, with its zone, its start and its end.
        missed: what becomes of occurrences that nobody took up in time: `once`, `all` or `skip`.
        paused_at: since when it is paused.
        next_at: the next occurrence; None after the last.
        problem: why it could not be looked at the last time, with the remedy.
        last_at: the last occurrence that became a call, among those of the last 30 days.
        last_message_id: that call's.
    """

    id: str
    tenant: str
    event_type: str
    rule: Rule
    missed: Missed
    lifetime: float | None
    paused_at: datetime | None
    next_at: datetime | None
    problem: str | None
    last_at: datetime | None
    last_message_id: str | None
    created_at: datetime
    updated_at: datetime
    call: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Page:
    """Schedules in the order of their ids' bytes. `next` is the `after` of the next page; None at the end."""

    schedules: tuple[Schedule, ...]
    next: str | None


@dataclass(frozen=True, slots=True)
class NewSchedule:
    """What is stored of a schedule; it has been checked.

    Args:
        starts: None for the present, or for what a schedule with the same rule has.
        ends: with a zone.
    """

    id: str
    tenant: str
    kind: Kind
    rule: str
    timezone: str
    missed: Missed
    lifetime: float | None
    starts: datetime | None
    ends: datetime | None
    envelope: Mapping[str, Any] = field(repr=False)


_RULE: Final = "s.tenant, s.id, s.kind, s.rule, s.timezone, s.missed, s.starts_at, s.ends_at, s.next_at"
_READ: Final = f"""
SELECT {_RULE}, s.envelope, s.lifetime, s.paused_at, s.problem, s.created_at, s.updated_at,
       o.occurrence AS last_at, o.message_id AS last_message_id
  FROM notify.schedule s
  LEFT JOIN LATERAL (
      SELECT occurrence, message_id FROM notify.schedule_occurrence
       WHERE tenant = s.tenant AND schedule_id = s.id ORDER BY occurrence DESC LIMIT 1) o ON true
"""  # noqa: S608 - both parts are ours
_ONE: Final = _READ + " WHERE s.tenant = %(tenant)s AND s.id = %(id)s"
_FIND: Final = f"""{_READ}
 WHERE s.tenant = %(tenant)s AND s.id COLLATE "C" > %(after)s
   AND s.id COLLATE "C" >= %(prefix)s AND s.id COLLATE "C" < %(prefix)s || chr(1114111)
 ORDER BY s.id COLLATE "C" LIMIT %(limit)s
"""


def get(database: Database, schedule_id: str, *, tenant: str) -> Schedule | None:
    """One schedule."""
    rows = database.rows(_ONE, {"id": schedule_id, "tenant": tenant})
    return _schedule(rows[0]) if rows else None


def find(database: Database, *, prefix: str, after: str, limit: int, tenant: str) -> Page:
    """A page of schedules."""
    asked = {"prefix": prefix, "after": after, "limit": limit + 1, "tenant": tenant}
    found = [_schedule(row) for row in database.rows(_FIND, asked)]
    return Page(tuple(found[:limit]), found[limit - 1].id if len(found) > limit else None)


def _schedule(row: Row) -> Schedule:
    envelope = row["envelope"]
    return Schedule(
        id=row["id"],
        tenant=row["tenant"],
        event_type=envelope["event_type"],
        rule=_rule(row),
        missed=row["missed"],
        lifetime=row["lifetime"],
        paused_at=row["paused_at"],
        next_at=row["next_at"],
        problem=row["problem"],
        last_at=row["last_at"],
        last_message_id=row["last_message_id"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        call=envelope,
    )


def _rule(row: Row) -> Rule:
    return Rule(row["kind"], row["rule"], row["timezone"], row["starts_at"], row["ends_at"])


# --- changed ------------------------------------------------------------------------------------------

_NOW: Final = "SELECT now() AS now"
_HELD: Final = f"""
SELECT {_RULE}, s.paused_at, s.problem, now() AS now FROM notify.schedule s
 WHERE s.tenant = %(tenant)s AND s.id = %(id)s FOR UPDATE
"""  # noqa: S608 - both parts are ours
_PUT: Final = """
INSERT INTO notify.schedule (tenant, id, envelope, lifetime, kind, rule, timezone, missed, starts_at, ends_at, next_at)
VALUES (%(tenant)s, %(id)s, %(envelope)s::jsonb, %(lifetime)s, %(kind)s, %(rule)s, %(timezone)s, %(missed)s,
        %(starts_at)s, %(ends_at)s, %(next_at)s)
ON CONFLICT (tenant, id) DO UPDATE
   SET envelope = excluded.envelope, lifetime = excluded.lifetime, kind = excluded.kind, rule = excluded.rule,
       timezone = excluded.timezone, missed = excluded.missed, starts_at = excluded.starts_at,
       ends_at = excluded.ends_at, next_at = excluded.next_at, problem = NULL, look_at = NULL, updated_at = now()
"""


def put(database: Database, new: NewSchedule) -> Schedule:
    """Store a schedule, or replace it. What was due before goes out first, as it was.

    Raises:
        InvalidCall: the rule never occurs.
    """
    return database.transact(lambda connection: _put(connection, new))


def _put(connection: Connection, new: NewSchedule) -> Schedule:
    who = {"tenant": new.tenant, "id": new.id}
    old = _held(connection, who)
    now = old["now"] if old else _first(connection, _NOW, {})["now"]
    starts = new.starts
    if starts is None and old is not None and _same_clock(old, new):
        starts = old["starts_at"]
    rule = recurrence.read(new.kind, new.rule, new.timezone, starts=starts or now, ends=new.ends)
    same = old is not None and rule == _rule(old)
    next_at = old["next_at"] if old is not None and same else rule.first_after(now)
    connection.execute(
        _PUT,
        who
        | {
            "envelope": jsonb(new.envelope),
            "lifetime": new.lifetime,
            "kind": new.kind,
            "rule": rule.text,
            "timezone": new.timezone,
            "missed": new.missed,
            "starts_at": rule.starts,
            "ends_at": rule.ends,
            "next_at": next_at,
        },
    )
    return _schedule(_first(connection, _ONE, who))


def _held(connection: Connection, who: Mapping[str, str]) -> Row | None:
    """The schedule's row, locked, after what is due of it has become calls."""
    for _ in range(EDIT_TICKS):
        row = connection.execute(_HELD, who).fetchone()
        if row is None or row["paused_at"] or row["problem"] or not _is_due(row):
            return row
        _take_up(connection, [row], row["now"])
    return connection.execute(_HELD, who).fetchone()


def _is_due(row: Row) -> bool:
    return row["next_at"] is not None and bool(row["next_at"] <= row["now"])


def _same_clock(old: Row, new: NewSchedule) -> bool:
    return (old["kind"], old["rule"], old["timezone"]) == (new.kind, new.rule, new.timezone)


_PAUSE: Final = """
UPDATE notify.schedule SET paused_at = coalesce(paused_at, now()), updated_at = now()
 WHERE tenant = %(tenant)s AND id = %(id)s
"""
_RESUME: Final = """
UPDATE notify.schedule SET paused_at = NULL, next_at = %(next_at)s, problem = NULL, look_at = NULL, updated_at = now()
 WHERE tenant = %(tenant)s AND id = %(id)s
"""
_REMOVE: Final = "DELETE FROM notify.schedule WHERE tenant = %s AND id = %s RETURNING id"


def pause(database: Database, schedule_id: str, *, tenant: str) -> Schedule | None:
    """Let a schedule rest. None where there is none."""
    who = {"tenant": tenant, "id": schedule_id}

    def work(connection: Connection) -> Schedule | None:
        connection.execute(_PAUSE, who)
        row = connection.execute(_ONE, who).fetchone()
        return None if row is None else _schedule(row)

    return database.transact(work)


def resume(database: Database, schedule_id: str, *, tenant: str) -> Schedule | None:
    """Let a paused schedule go on with what is to come. None where there is none."""
    who = {"tenant": tenant, "id": schedule_id}

    def work(connection: Connection) -> Schedule | None:
        row = connection.execute(_HELD, who).fetchone()
        if row is None:
            return None
        if row["paused_at"] is not None:
            connection.execute(_RESUME, who | {"next_at": _rule(row).first_after(row["now"])})
        return _schedule(_first(connection, _ONE, who))

    return database.transact(work)


def remove(database: Database, schedule_id: str, *, tenant: str) -> bool:
    """Remove a schedule; whether there was one."""
    return bool(database.rows(_REMOVE, (tenant, schedule_id)))


def _first(connection: Connection, statement: str, parameters: Mapping[str, Any]) -> Row:
    row = connection.execute(statement, parameters).fetchone()
    assert row is not None
    return row


# --- due ----------------------------------------------------------------------------------------------

_DUE: Final = f"""
SELECT {_RULE}, coalesce(%(now)s::timestamptz, now()) AS now FROM notify.schedule s
 WHERE s.paused_at IS NULL AND s.next_at <= coalesce(%(now)s::timestamptz, now())
   AND (s.look_at IS NULL OR s.look_at <= now())
 ORDER BY s.next_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
"""  # noqa: S608 - both parts are ours

# The call itself never leaves the database: only what is its own comes from here.
_TAKE_UP: Final = """
WITH x AS MATERIALIZED (
    SELECT * FROM jsonb_to_recordset(%s::jsonb) AS x(tenant text, id text, occurrence timestamptz, message_id text)),
o AS (
    INSERT INTO notify.schedule_occurrence (tenant, schedule_id, occurrence, message_id)
    SELECT tenant, id, occurrence, message_id FROM x
    ON CONFLICT DO NOTHING
    RETURNING tenant, schedule_id, occurrence, message_id),
kept AS (
    INSERT INTO notify.intake (tenant, message_id, hash, envelope, origin)
    SELECT o.tenant, o.message_id, s.envelope ->> 'hash',
           s.envelope || jsonb_strip_nulls(jsonb_build_object(
               'message_id', o.message_id, 'timestamp', o.occurrence,
               'expires', o.occurrence + make_interval(secs => s.lifetime))),
           'schedule'
      FROM o JOIN notify.schedule s ON s.tenant = o.tenant AND s.id = o.schedule_id
    ON CONFLICT DO NOTHING)
SELECT count(*) AS n FROM o
"""
_MOVE: Final = """
UPDATE notify.schedule s
   SET next_at = x.next_at, problem = x.problem,
       look_at = CASE WHEN x.problem IS NOT NULL THEN now() + make_interval(secs => %(wait)s) END
  FROM jsonb_to_recordset(%(moves)s::jsonb) AS x(tenant text, id text, next_at timestamptz, problem text)
 WHERE s.tenant = x.tenant AND s.id = x.id
"""


def tick(database: Database, *, limit: int, now: datetime | None = None) -> tuple[int, int]:
    """Make calls of what is due; any number of ticks may run at once.

    Args:
        database: the store.
        limit: schedules at most.
        now: the present, with a zone; the database's own unless said.

    Returns:
        how many schedules were looked at, and how many calls they made.
    """

    def work(connection: Connection) -> tuple[int, int]:
        rows = connection.execute(_DUE, {"now": now, "limit": limit}).fetchall()
        return len(rows), _take_up(connection, rows, rows[0]["now"]) if rows else 0

    return database.transact(work)


def _take_up(connection: Connection, rows: Sequence[Row], now: datetime) -> int:
    """Occurrences and calls of schedules that the transaction has locked, and their next times."""
    calls, moves = [], []
    for row in rows:
        who = {"tenant": row["tenant"], "id": row["id"]}
        try:
            found = recurrence.due(_rule(row), row["next_at"], now, row["missed"], limit=OCCURRENCES)
        except (ValueError, KeyError, OSError, OverflowError) as error:  # one must not hold up the others
            logger.warning("schedule %s cannot be looked at (%s)", row["id"], type(error).__name__)
            moves.append(who | {"next_at": row["next_at"], "problem": _PROBLEM})
            continue
        calls += [who | {"occurrence": it, "message_id": message_id(row["id"], it)} for it in found.fire]
        moves.append(who | {"next_at": found.next_at, "problem": None})
    made = 0
    if calls:
        made = connection.execute(_TAKE_UP, (jsonb(calls),)).fetchone()["n"]  # type: ignore[index] # it counts
    connection.execute(_MOVE, {"moves": jsonb(moves), "wait": PROBLEM_SECONDS})
    return made


def message_id(schedule_id: str, occurrence: datetime) -> str:
    """The message id of an occurrence: `weekly-report@2026-11-23T08:00Z`."""
    form = "%Y-%m-%dT%H:%MZ" if not (occurrence.second or occurrence.microsecond) else "%Y-%m-%dT%H:%M:%S.%fZ"
    return f"{schedule_id}@{occurrence.astimezone(UTC):{form}}"


_PRUNE: Final = """
WITH c AS MATERIALIZED (
    SELECT ctid FROM notify.schedule_occurrence WHERE created_at < now() - make_interval(days => %s)
     ORDER BY created_at LIMIT %s FOR UPDATE SKIP LOCKED)
DELETE FROM notify.schedule_occurrence WHERE ctid = ANY(ARRAY(SELECT ctid FROM c))
"""


def prune(database: Database) -> None:
    """Forget occurrences whose message ids are forgotten, too."""
    database.rows(_PRUNE, (KEPT_DAYS, PRUNED))

"""Retention: old content is blanked, old rows are deleted, a page at a time and each page in a transaction of its own.

What is not final is never touched, nor the content of a notification of which anything has ended lately: a replay or a
late receipt may still need it. Pages are read in the order of an index from where the last one ended, so a page costs
the same however large the tables are, and whoever is stopped begins again without harm.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from notify_tasks.store.database import Connection, Database, jsonb

PAGE: Final = 500
KEYS_DAYS: Final = 30
"""So long message ids are remembered at least."""
CODE_DAYS: Final = 1
"""So long after their end, codes that were to prove an address."""
PARTS: Final = ("content", "rows", "inbox", "receipts", "requests", "ids", "occurrences", "parked", "codes")
"""What goes, in this order: content of notifications, their rows, in-app messages, receipts, requests that receipts
came in, message ids, occurrences of schedules, parked messages, codes."""


@dataclass(frozen=True, slots=True)
class Kept:
    """For how long things are kept.

    Args:
        content: seconds after the last of its deliveries has ended.
        history: seconds after a notification was accepted.
        inbox: seconds after an in-app message was stored.
    """

    content: float
    history: float
    inbox: float


@dataclass(frozen=True, slots=True)
class Page:
    """One page.

    Args:
        part: a name of `PARTS`.
        done: rows blanked or deleted, or that would be.
    """

    part: str
    done: int


@dataclass(frozen=True, slots=True)
class _Looked:
    done: int
    last: Any


_LIVE: Final = "('held', 'queued', 'retrying', 'sending')"


def pages(database: Database, kept: Kept, *, change: bool = True) -> Iterator[Page]:
    """Blank and delete what is too old, page by page; the caller may stop between two.

    Args:
        database: the store.
        kept: for how long things are kept.
        change: False counts alone.

    Raises:
        DatabaseError: what was done stays done.
    """
    now: datetime = database.rows("SELECT now() AS now")[0]["now"]
    content, history = _before(now, kept.content), _before(now, kept.history)
    ids = _before(now, max(kept.history, KEYS_DAYS * 86400.0))
    codes = _before(now, CODE_DAYS * 86400.0)
    work: dict[str, Callable[[Any], _Looked]] = {
        "content": lambda after: _blank(database, content, after, change=change),
        "rows": lambda after: _delete(database, history, content, after, change=change),
        "inbox": lambda after: _inbox(database, _before(now, kept.inbox), after, change=change),
        "receipts": lambda after: _simple(database, _RECEIPTS, history, after, change=change),
        "requests": lambda after: _simple(database, _REQUESTS, content, after, change=change),
        "ids": lambda after: _simple(database, _KEYS, ids, after, change=change),
        "occurrences": lambda after: _short(database, _OCCURRENCES, ids, after, change=change),
        "parked": lambda after: _parked(database, content, history, after, change=change),
        "codes": lambda after: _short(database, _CODES, codes, after, change=change),
    }
    for part in PARTS:
        after = None
        while True:
            looked = work[part](after)
            if looked.done:
                yield Page(part, looked.done)
            if looked.last is None:
                break
            after = looked.last
    if change:
        _said_elsewhere(database, content)


def _before(now: datetime, seconds: float) -> datetime:
    return now - timedelta(seconds=seconds)


# --- notifications ----------------------------------------------------------------------------------

_OLD: Final = f"""
WITH page AS MATERIALIZED (
    SELECT n.id, n.accepted_at FROM notify.notification n
     WHERE n.purged_at IS NULL AND n.accepted_at < %(before)s
       AND (%(at)s::timestamptz IS NULL OR (n.accepted_at, n.id) > (%(at)s, %(id)s::uuid))
     ORDER BY n.accepted_at, n.id LIMIT %(limit)s)
SELECT p.id, p.accepted_at AS at, NOT EXISTS (
           SELECT 1 FROM notify.delivery d
            WHERE d.notification_id = p.id AND (d.state IN {_LIVE} OR d.updated_at >= %(ended)s)) AS ended
  FROM page p ORDER BY p.accepted_at, p.id
"""  # noqa: S608 - all parts are ours
_OLD_BLANKED: Final = _OLD.replace("n.purged_at IS NULL", "n.purged_at IS NOT NULL")

# The order in which everybody locks: receipts, deliveries, notifications.
_LOCK_RECEIPTS: Final = """
SELECT r.id FROM notify.receipt r
 WHERE r.delivery_id IN (SELECT id FROM notify.delivery WHERE notification_id = ANY(%(ids)s))
   AND (r.address IS NOT NULL OR r.detail IS NOT NULL)
 ORDER BY r.id FOR UPDATE
"""
_LOCK_DELIVERIES: Final = """
SELECT id FROM notify.delivery WHERE notification_id = ANY(%(ids)s) ORDER BY id FOR UPDATE
"""
# A replay that was committed meanwhile has locked it and made a delivery: the look after this one sees that.
_LOCK: Final = "SELECT id FROM notify.notification WHERE id = ANY(%(ids)s) ORDER BY id FOR UPDATE SKIP LOCKED"
_STILL: Final = f"""
SELECT n.id FROM notify.notification n
 WHERE n.id = ANY(%(ids)s) AND NOT EXISTS (
       SELECT 1 FROM notify.delivery d
        WHERE d.notification_id = n.id AND (d.state IN {_LIVE} OR d.updated_at >= %(ended)s))
"""  # noqa: S608 - all parts are ours
_BLANK: Final = (
    "DELETE FROM notify.attachment WHERE notification_id = ANY(%(ids)s)",
    """
    UPDATE notify.delivery SET address = '', locale = NULL, timezone = NULL, detail = NULL
     WHERE notification_id = ANY(%(ids)s)
    """,
    """
    UPDATE notify.attempt a SET detail = NULL
      FROM notify.delivery d WHERE d.notification_id = ANY(%(ids)s) AND a.delivery_id = d.id AND a.detail IS NOT NULL
    """,
    """
    UPDATE notify.receipt r SET address = NULL, detail = NULL
      FROM notify.delivery d WHERE d.notification_id = ANY(%(ids)s) AND r.delivery_id = d.id
       AND (r.address IS NOT NULL OR r.detail IS NOT NULL)
    """,
    # What an operator has written stays: it says who did what.
    """
    UPDATE notify.status_event SET detail = NULL
     WHERE notification_id = ANY(%(ids)s) AND detail IS NOT NULL AND code IS DISTINCT FROM 'operator'
       AND kind <> 'replayed'
    """,
    """
    UPDATE notify.notification
       SET payload = '{}', attachments = NULL, envelope = NULL, detail = NULL, purged_at = now()
     WHERE id = ANY(%(ids)s)
    """,
)
_DELETE: Final = (
    "DELETE FROM notify.status_event WHERE notification_id = ANY(%(ids)s)",
    "DELETE FROM notify.notification WHERE id = ANY(%(ids)s)",  # its deliveries, attempts and attachments go with it
)


def _blank(database: Database, before: datetime, after: Any, *, change: bool) -> _Looked:
    return _notifications(database, _OLD, _BLANK, (before, before, after), change=change)


def _delete(database: Database, before: datetime, ended: datetime, after: Any, *, change: bool) -> _Looked:
    return _notifications(database, _OLD_BLANKED, _DELETE, (before, ended, after), change=change)


def _notifications(
    database: Database,
    old: str,
    statements: tuple[str, ...],
    where: tuple[datetime, datetime, Any],
    *,
    change: bool,
) -> _Looked:
    before, ended, after = where
    at, id_ = after or (None, None)
    found = database.rows(old, {"before": before, "ended": ended, "at": at, "id": id_, "limit": PAGE})
    last = (found[-1]["at"], found[-1]["id"]) if len(found) == PAGE else None
    ids = [row["id"] for row in found if row["ended"]]
    if not ids or not change:
        return _Looked(len(ids), last)

    def run(connection: Connection) -> int:
        wanted: dict[str, Any] = {"ids": ids, "ended": ended}
        connection.execute(_LOCK_RECEIPTS, wanted)
        connection.execute(_LOCK_DELIVERIES, wanted)
        wanted["ids"] = [row["id"] for row in connection.execute(_LOCK, wanted).fetchall()]
        wanted["ids"] = [row["id"] for row in connection.execute(_STILL, wanted).fetchall()]
        for statement in statements if wanted["ids"] else ():
            connection.execute(statement, wanted)
        return len(wanted["ids"])

    return _Looked(database.transact(run), last)


# --- in-app messages --------------------------------------------------------------------------------

_INBOX: Final = """
SELECT delivery_id AS id, created_at < %(before)s AS old FROM notify.inbox_item
 WHERE delivery_id > %(after)s AND delivery_id < %(bound)s ORDER BY delivery_id LIMIT %(limit)s
"""
_FIRST: Final = uuid.UUID(int=0)


def _inbox(database: Database, before: datetime, after: Any, *, change: bool) -> _Looked:
    """By the time that its id holds (UUIDv7, RFC 9562), which is never later than the one it was stored at."""
    bound = uuid.UUID(int=max(0, int(before.astimezone(UTC).timestamp() * 1000)) << 80)
    wanted = {"before": before, "after": after or _FIRST, "bound": bound, "limit": PAGE}
    found = database.rows(_INBOX, wanted)
    ids = [row["id"] for row in found if row["old"]]
    if ids and change:
        database.rows("DELETE FROM notify.inbox_item WHERE delivery_id = ANY(%s)", (ids,))
    return _Looked(len(ids), found[-1]["id"] if len(found) == PAGE else None)


# --- what stands by itself --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Table:
    """How a table is read page by page.

    Args:
        look: the page: `place`, by which it is in order, and `old` with what identifies a row as `key`.
        delete: deletes rows by `key`.
    """

    look: str
    delete: str


_RECEIPTS: Final = _Table(
    """
    SELECT id AS place, id AS key, state NOT IN ('new', 'waiting') AS old FROM notify.receipt
     WHERE id > coalesce(%(after)s, 0) AND received_at < %(before)s
       AND id <= (SELECT coalesce(max(x.id), 0) FROM (
           SELECT id FROM notify.receipt WHERE id > coalesce(%(after)s, 0) ORDER BY id LIMIT %(limit)s) x)
     ORDER BY id LIMIT %(limit)s
    """,
    "DELETE FROM notify.receipt WHERE id = ANY(%s) AND state NOT IN ('new', 'waiting')",
)
_REQUESTS: Final = _Table(
    """
    SELECT q.id AS place, q.id AS key, NOT EXISTS (
               SELECT 1 FROM notify.receipt r WHERE r.request_id = q.id AND r.state IN ('new', 'waiting')) AS old
      FROM notify.receipt_request q
     WHERE q.id > coalesce(%(after)s, 0) AND q.received_at < %(before)s ORDER BY q.id LIMIT %(limit)s
    """,
    "DELETE FROM notify.receipt_request WHERE id = ANY(%s)",
)
# An id is remembered for as long as anything of its notification is under way: it is what a cancel goes by.
_KEYS: Final = _Table(
    f"""
    SELECT to_jsonb(ARRAY[k.created_at::text, k.tenant, k.message_id]) AS place,
           jsonb_build_object('t', k.tenant, 'm', k.message_id)::text AS key,
           NOT EXISTS (SELECT 1 FROM notify.delivery d
                        WHERE d.notification_id = k.notification_id AND d.state IN {_LIVE}) AS old
      FROM notify.message_key k
     WHERE k.created_at < %(before)s
       AND (%(after)s::jsonb IS NULL OR (k.created_at, k.tenant, k.message_id)
            > ((%(after)s::jsonb ->> 0)::timestamptz, %(after)s::jsonb ->> 1, %(after)s::jsonb ->> 2))
     ORDER BY k.created_at, k.tenant, k.message_id LIMIT %(limit)s
    """,  # noqa: S608 - all parts are ours
    """
    DELETE FROM notify.message_key k USING unnest(%s::text[]) AS u(key)
     WHERE k.tenant = u.key::jsonb ->> 't' AND k.message_id = u.key::jsonb ->> 'm'
    """,
)


def _simple(database: Database, table: _Table, before: datetime, after: Any, *, change: bool) -> _Looked:
    place = jsonb(after) if isinstance(after, list) else after
    found = database.rows(table.look, {"before": before, "after": place, "limit": PAGE})
    old = [row["key"] for row in found if row["old"]]
    if old and change:
        database.rows(table.delete, (old,))
    return _Looked(len(old), found[-1]["place"] if len(found) == PAGE else None)


@dataclass(frozen=True, slots=True)
class _Short:
    """A table of which the oldest are deleted as long as there are any.

    Args:
        name: of the table.
        column: its time.
    """

    name: str
    column: str


_OCCURRENCES: Final = (_Short("schedule_occurrence", "created_at"),)
_CODES: Final = (_Short("verification", "expires_at"), _Short("verification_begun", "at"))
_OLDEST: Final = """
DELETE FROM notify.{name} WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM notify.{name} WHERE {column} < %(before)s LIMIT %(limit)s FOR UPDATE SKIP LOCKED))
RETURNING 1 AS one
"""
_COUNT_OLD: Final = "SELECT count(*)::int AS n FROM notify.{name} WHERE {column} < %(before)s"


def _short(
    database: Database, tables: tuple[_Short, ...], before: datetime, after: Any, *, change: bool
) -> _Looked:
    at: int = after or 0
    table = tables[at]
    names = {"name": table.name, "column": table.column}
    wanted = {"before": before, "limit": PAGE}
    if change:
        done = len(database.rows(_OLDEST.format(**names), wanted))
    else:
        done = database.rows(_COUNT_OLD.format(**names), wanted)[0]["n"]
    following = at if change and done == PAGE else at + 1
    return _Looked(done, following if following < len(tables) else None)


_PARKED: Final = """
SELECT id, coalesce(replayed_at < %(content)s, parked_at < %(history)s) AS old FROM notify.parked_message
 WHERE id > %(after)s ORDER BY id LIMIT %(limit)s
"""


def _parked(database: Database, content: datetime, history: datetime, after: Any, *, change: bool) -> _Looked:
    """One that was put back has done its work; one that nobody has put back in all that time is given up."""
    wanted = {"content": content, "history": history, "after": after or 0, "limit": PAGE}
    found = database.rows(_PARKED, wanted)
    ids = [row["id"] for row in found if row["old"]]
    if ids and change:
        database.rows("DELETE FROM notify.parked_message WHERE id = ANY(%s)", (ids,))
    return _Looked(len(ids), found[-1]["id"] if len(found) == PAGE else None)


# Receipts that belong to no delivery: a person's STOP, and what nobody could make anything of.
_SAID: Final = """
UPDATE notify.receipt SET address = NULL, detail = NULL
 WHERE received_at < %(before)s AND (address IS NOT NULL OR detail IS NOT NULL)
   AND (state IN ('unmatched', 'unknown', 'unreadable')
        OR (standing IN ('opted_out', 'opted_in') AND state = 'applied'))
"""


def _said_elsewhere(database: Database, before: datetime) -> None:
    database.rows(_SAID, {"before": before})

"""What providers report: kept first, applied after, so that nothing reported is lost.

A row is committed before anything is done about it. Applying moves a delivery forward only: whatever the order in
which receipts come, and however often, it ends in the highest state that any of them says.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from channels.receipts import Event
from notify_tasks.store.database import Connection, Database, Row, jsonb, storable

TAKEN_SECONDS: Final = 30
"""A row that the sweep has given to a worker is due again after so long."""
LONGEST_ID: Final = 200
LONGEST_TEXT: Final = 500

TROUBLE: Final = ("unmatched", "unknown", "unreadable")
"""States that somebody must look at."""
STATES: Final = ("new", "waiting", "applied", *TROUBLE)


# --- keep -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Kept:
    """What one request left behind.

    Args:
        new: ids of the events to apply.
        unknown: ids of those whose status nobody knows.
        repeated: how many were there already.
    """

    new: tuple[int, ...] = ()
    unknown: tuple[int, ...] = ()
    repeated: int = 0


_REQUEST: Final = "INSERT INTO notify.receipt_request (provider, raw) VALUES (%s, %s) RETURNING id"
_NO_REQUEST: Final = "DELETE FROM notify.receipt_request WHERE id = %s"
INSERT: Final = """
INSERT INTO notify.receipt AS r (provider, event_id, state, code, fate, standing, channel, delivery_id,
                                 provider_message_id, address, detail, request_id, happened_at)
SELECT %(provider)s, x.event_id, x.state, x.code, x.fate, x.standing, %(channel)s, x.delivery_id,
       x.provider_message_id, x.address, x.detail, %(request)s, x.happened_at
  FROM jsonb_to_recordset(%(events)s::jsonb) AS x(
      event_id text, state text, code text, fate text, standing text, delivery_id uuid, provider_message_id text,
      address text, detail text, happened_at timestamptz)
"""
_KEEP: Final = f"{INSERT} ON CONFLICT (provider, event_id) DO NOTHING RETURNING r.id, r.state"


def keep(database: Database, provider: str, channel: str, events: Sequence[Event], raw: bytes) -> Kept:
    """Commit what a verified request says. An event that is here already is left alone.

    Args:
        database: the store.
        provider: its configured name.
        channel: of the provider.
        events: each with the address in its stored form.
        raw: the request as it came, to be read again by a later version.

    Raises:
        BadRow: PostgreSQL refuses one of the events.
        DatabaseAway: nothing may have been kept; the provider must send it again.
    """
    return _keep(database, provider, channel, rows_of(events), raw)


def keep_unreadable(database: Database, provider: str, channel: str, raw: bytes, detail: str) -> Kept:
    """Commit a verified request that nothing could be read of; its bytes are its id.

    Raises:
        DatabaseAway: as `keep`.
    """
    row = {
        "event_id": f"unreadable:{hashlib.sha256(raw).hexdigest()}",
        "state": "unreadable",
        "detail": storable(detail[:LONGEST_TEXT]),
    }
    return _keep(database, provider, channel, [row], raw)


def _keep(
    database: Database, provider: str, channel: str, rows: Sequence[Mapping[str, Any]], raw: bytes
) -> Kept:
    if not rows:
        return Kept()

    def run(connection: Connection) -> Kept:
        request = _one(connection, _REQUEST, (provider, raw))["id"]
        wanted = {"provider": provider, "channel": channel, "request": request, "events": jsonb(rows)}
        found = connection.execute(_KEEP, wanted).fetchall()
        if not found:
            connection.execute(_NO_REQUEST, (request,))
        new = tuple(row["id"] for row in found if row["state"] == "new")
        unknown = tuple(row["id"] for row in found if row["state"] == "unknown")
        return Kept(new, unknown, len(rows) - len(found))

    return database.transact(run)


def rows_of(events: Sequence[Event]) -> list[dict[str, Any]]:
    """One row an id: what a request says twice, it says once."""
    return list({row["event_id"]: row for row in map(_row, events)}.values())


def _row(event: Event) -> dict[str, Any]:
    delivery, detail = _delivery(event)
    return {
        "event_id": _bounded_id(event.id),
        "state": "new" if event.known else "unknown",
        "code": _bounded(event.code, LONGEST_ID),
        "fate": event.fate,
        "standing": event.standing,
        "delivery_id": delivery,
        "provider_message_id": _bounded(event.provider_message_id, LONGEST_TEXT),
        "address": storable(event.address) or None,
        "detail": _bounded(detail, LONGEST_TEXT) or None,
        "happened_at": _moment(event.at),
    }


def _delivery(event: Event) -> tuple[str | None, str]:
    """Our delivery id, and the detail: with a word about one that cannot be ours."""
    if event.delivery_id is None:
        return None, event.detail
    try:
        return str(uuid.UUID(event.delivery_id)), event.detail
    except ValueError:
        return None, f"{event.detail} its delivery id is none of ours".strip()


def _bounded_id(id_: str) -> str:
    text = storable(id_) or ""
    return text if len(text) <= LONGEST_ID else f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def _bounded(text: str | None, longest: int) -> str | None:
    return None if text is None else (storable(text) or "")[:longest]


def _moment(at: datetime | None) -> str | None:
    if at is None:
        return None
    try:
        return (at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)).isoformat()
    except OverflowError:  # before the first year or after the last
        return None


# --- apply ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Applied:
    """What became of one receipt.

    Args:
        state: `applied`, `waiting` or `unmatched`.
        moved: the state that it has brought its delivery into; None where it changed none.
    """

    id: int
    provider: str
    state: str
    moved: str | None


# Whoever has a receipt applies it alone. Deliveries are locked as everywhere: in the order of their ids, before
# anything of theirs. The statement after this one sees what those that held them before have written.
_LOCK: Final = """
WITH r AS MATERIALIZED (
    SELECT id, delivery_id FROM notify.receipt WHERE id = ANY(%s) AND state IN ('new', 'waiting')
     ORDER BY id FOR UPDATE SKIP LOCKED),
d AS MATERIALIZED (
    SELECT d.id FROM notify.delivery d WHERE d.id IN (SELECT delivery_id FROM r) ORDER BY d.id FOR UPDATE)
SELECT r.id FROM r LEFT JOIN d ON d.id = r.delivery_id
"""

# `rank` is the order of channels.receipts.Fate. A receipt matches a delivery of its channel that some provider was
# asked to send. While that is being sent, the receipt only marks it as accepted, so that no answer lost can end it
# otherwise, and waits for the answer.
#   moves    the state is behind what is known now: a final one never goes back, and a doubt of 72 hours is final
#   concerns what did not arrive is said by a provider that may have had it: one that had surely refused it before
#            another took it says nothing of the other's
_APPLY: Final = """
WITH r AS MATERIALIZED (
    SELECT r.*, coalesce(r.happened_at, r.received_at) AS said_at,
           array_position(ARRAY['accepted', 'sent', 'undelivered', 'delivered', 'read'], r.fate) AS rank
      FROM notify.receipt r WHERE r.id = ANY(%(ids)s)),
m AS MATERIALIZED (
    SELECT r.id AS receipt, r.provider, r.code, r.detail, r.rank, r.provider_message_id, d.id, d.state, d.tenant,
           d.notification_id, d.address, d.unknown, d.updated_at, d.state = 'sending' AND r.rank IS NOT NULL AS early,
           r.rank <> 3 OR NOT EXISTS (
               SELECT 1 FROM notify.attempt a WHERE a.delivery_id = d.id AND a.provider = r.provider)
             OR EXISTS (
               SELECT 1 FROM notify.attempt a WHERE a.delivery_id = d.id AND a.provider = r.provider
                  AND (a.outcome IS NULL OR a.outcome IN ('accepted', 'lost', 'uncertain'))) AS concerns
      FROM r JOIN notify.delivery d ON d.id = r.delivery_id AND d.channel = r.channel AND d.fence > 0),
best AS MATERIALIZED (
    SELECT DISTINCT ON (m.id) m.*,
           CASE WHEN m.rank <= 2 THEN 'sent' WHEN m.rank = 3 THEN 'undelivered' ELSE 'delivered' END AS target
      FROM m WHERE m.rank IS NOT NULL AND m.concerns ORDER BY m.id, m.rank DESC, m.receipt),
change AS MATERIALIZED (
    SELECT b.*,
           CASE b.state WHEN 'sent' THEN b.rank >= 3
                        WHEN 'undelivered' THEN b.rank >= 4
                        WHEN 'in_doubt' THEN b.updated_at > now() - make_interval(hours => 72)
                        ELSE b.state IN ('held', 'queued', 'retrying') AND (b.rank <> 3 OR b.unknown > 0)
           END AS moves
      FROM best b),
d AS (
    UPDATE notify.delivery d
       SET state = CASE WHEN c.moves THEN c.target ELSE d.state END,
           reason = CASE WHEN NOT c.moves THEN d.reason WHEN c.target = 'undelivered' THEN c.code END,
           accepted = true,
           due_at = CASE WHEN c.moves THEN NULL ELSE d.due_at END,
           provider_message_id = CASE WHEN c.moves THEN coalesce(d.provider_message_id, c.provider_message_id)
                                      ELSE d.provider_message_id END,
           updated_at = CASE WHEN c.moves THEN now() ELSE d.updated_at END
      FROM change c WHERE d.id = c.id AND (c.moves OR c.early)
    RETURNING d.id, d.tenant, d.notification_id, d.state, c.moves, c.receipt, c.code, c.detail),
seen AS (
    SELECT DISTINCT ON (m.id) m.* FROM m
     WHERE m.rank = 5 AND NOT m.early AND NOT EXISTS (
           SELECT 1 FROM notify.status_event e
            WHERE e.notification_id = m.notification_id AND e.delivery_id = m.id AND e.kind = 'read')
     ORDER BY m.id, m.receipt),
event AS (
    INSERT INTO notify.status_event (tenant, notification_id, delivery_id, kind, code, detail)
    SELECT tenant, notification_id, id, state, code, detail FROM d WHERE moves
    UNION ALL
    SELECT tenant, notification_id, id, 'read', code, detail FROM seen),
said AS MATERIALIZED (
    SELECT r.id, r.provider, r.channel, r.standing, r.said_at, r.address AS said, m.tenant, m.address
      FROM r JOIN m ON m.receipt = r.id WHERE r.standing IS NOT NULL AND NOT m.early AND m.address <> ''
    UNION ALL
    SELECT r.id, r.provider, r.channel, r.standing, r.said_at, r.address, '*', r.address
      FROM r WHERE r.standing IS NOT NULL AND r.delivery_id IS NULL AND r.address IS NOT NULL),
-- Of a stop and a start the later one counts; both are rows before either is applied.
current AS MATERIALIZED (
    SELECT s.* FROM said s
     WHERE s.standing NOT IN ('opted_out', 'opted_in') OR NOT EXISTS (
           SELECT 1 FROM notify.receipt o
            WHERE o.standing IN ('opted_out', 'opted_in') AND o.standing <> s.standing AND o.channel = s.channel
              AND md5(o.address) = md5(s.said) AND o.address = s.said AND o.provider = s.provider
              AND (coalesce(o.happened_at, o.received_at), o.id) > (s.said_at, s.id))),
suppressed AS (
    INSERT INTO notify.suppression AS s (tenant, channel, address, reason, source)
    SELECT DISTINCT ON (c.tenant, c.channel, c.address)
           c.tenant, c.channel, c.address, c.standing, 'receipts:' || c.provider
      FROM current c WHERE c.standing <> 'opted_in'
     ORDER BY c.tenant, c.channel, c.address,
              array_position(ARRAY['opted_out', 'complained', 'address_invalid'], c.standing)
    -- What a person has said outlasts what a provider thinks of the address.
    ON CONFLICT (tenant, channel, digest) DO UPDATE SET reason = excluded.reason, source = excluded.source
     WHERE s.reason <> 'opted_out'
       AND (excluded.reason = 'opted_out' OR (excluded.reason = 'complained' AND s.reason <> 'complained'))),
lifted AS (
    DELETE FROM notify.suppression s USING current c
     WHERE c.standing = 'opted_in' AND s.tenant = c.tenant AND s.channel = c.channel AND s.digest = md5(c.address)
       AND s.address = c.address AND s.reason = 'opted_out' AND s.source = 'receipts:' || c.provider),
-- A dead token is no device any more.
removed AS (
    DELETE FROM notify.contact_point p USING current c
     WHERE c.standing = 'address_invalid' AND c.channel IN ('push', 'webpush') AND p.channel IN ('push', 'webpush')
       AND p.tenant = c.tenant AND p.channel = c.channel AND p.digest = md5(c.address) AND p.address = c.address),
next AS (
    SELECT r.id, CASE
               WHEN m.early THEN 'waiting'
               WHEN m.receipt IS NOT NULL OR (r.fate IS NULL AND r.standing IS NULL) THEN 'applied'
               WHEN r.delivery_id IS NULL AND r.standing IS NOT NULL AND r.address IS NOT NULL THEN 'applied'
               WHEN r.delivery_id IS NULL OR r.give_up_at <= now() THEN 'unmatched'
               ELSE 'waiting' END AS state,
           -- An answer comes in seconds; a delivery that is not there may never come.
           CASE WHEN m.early THEN least(2 * 2 ^ least(r.tries, 10), 30)
                ELSE least(5 * 2 ^ least(r.tries, 10), 3600) END AS wait
      FROM r LEFT JOIN m ON m.receipt = r.id)
UPDATE notify.receipt t
   SET state = n.state, tries = least(t.tries + 1, 32000), due_at = now() + make_interval(secs => n.wait),
       applied_at = CASE WHEN n.state = 'applied' THEN now() END
  FROM next n LEFT JOIN d ON d.receipt = n.id AND d.moves
 WHERE t.id = n.id
RETURNING t.id, t.provider, t.state, d.state AS moved
"""

_FORGET_REQUESTS: Final = """
DELETE FROM notify.receipt_request q
 WHERE q.id IN (SELECT request_id FROM notify.receipt WHERE id = ANY(%s))
   AND NOT EXISTS (SELECT 1 FROM notify.receipt r WHERE r.request_id = q.id AND r.state <> 'applied')
"""


def apply(database: Database, ids: Sequence[int]) -> list[Applied]:
    """Apply receipts that are new or wait. Safe to run again, and by several at once: each is applied once.

    One commit moves the deliveries, writes their events and suppressions, and says what became of each receipt.

    Raises:
        BadRow: PostgreSQL refuses something of one of them: then none was applied.
        DatabaseAway: the sweep comes back to them.
    """

    def run(connection: Connection) -> list[Applied]:
        mine = [row["id"] for row in connection.execute(_LOCK, (list(ids),)).fetchall()]
        if not mine:
            return []
        done = [Applied(**row) for row in connection.execute(_APPLY, {"ids": mine}).fetchall()]
        connection.execute(_FORGET_REQUESTS, (mine,))
        return done

    return database.transact(run)


_REFUSE: Final = """
UPDATE notify.receipt SET state = 'unreadable', detail = %s WHERE id = %s AND state IN ('new', 'waiting')
"""


def refuse(database: Database, id_: int, detail: str) -> None:
    """Put aside one that cannot be applied."""
    database.rows(_REFUSE, (storable(detail[:LONGEST_TEXT]), id_))


_DUE: Final = """
WITH c AS MATERIALIZED (
    SELECT id FROM notify.receipt WHERE state IN ('new', 'waiting') AND due_at <= now()
     ORDER BY due_at LIMIT %s FOR UPDATE SKIP LOCKED)
UPDATE notify.receipt r SET due_at = now() + make_interval(secs => %s)
  FROM c WHERE r.id = c.id
RETURNING r.id
"""


def take_due(database: Database, *, limit: int) -> list[int]:
    """Receipts to give to a worker now; they are due again in `TAKEN_SECONDS`, lest it loses them."""
    return sorted(row["id"] for row in database.rows(_DUE, (limit, TAKEN_SECONDS)))


def _one(connection: Connection, statement: str, parameters: Sequence[Any]) -> Row:
    row = connection.execute(statement, parameters).fetchone()
    assert row is not None
    return row

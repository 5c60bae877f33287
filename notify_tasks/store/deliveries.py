"""A delivery's way through a worker: read for the gates, claimed, recorded, put back."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from notify_tasks.attachments import Attached, from_about
from notify_tasks.store.database import Database, jsonb, storable


@dataclass(frozen=True, slots=True)
class Waiting:
    """What the gates ask about a delivery that may be claimed."""

    id: uuid.UUID
    tenant: str
    event_type: str
    channel: str
    lane: str
    provider: str | None
    unknown: int
    sandbox: bool
    attempts: int
    max_attempts: int
    message_id: str
    reason: str | None
    lifetime: float
    """Seconds until it expires."""
    address: str = field(repr=False)


_READ = """
SELECT id, tenant, event_type, channel, lane, provider, unknown, sandbox, attempts, max_attempts, message_id, reason,
       coalesce(extract(epoch FROM expires_at - now())::float8, 1e9) AS lifetime, address
  FROM notify.delivery
 WHERE id = ANY(%s) AND state IN ('queued', 'retrying') AND (not_before IS NULL OR not_before <= now())
"""


def read_waiting(database: Database, ids: Sequence[uuid.UUID]) -> list[Waiting]:
    """Those of `ids` that may be claimed now, in the order given."""
    found = {row["id"]: Waiting(**row) for row in database.rows(_READ, (list(ids),))}
    return [found[id_] for id_ in ids if id_ in found]


# --- claim ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ClaimRequest:
    """A wish to start one delivery. The token makes a claim that is run again the same claim."""

    id: uuid.UUID
    token: uuid.UUID
    provider: str
    lease: float
    worker: str


@dataclass(frozen=True, slots=True)
class Claimed:
    """A delivery that this worker alone may send, until its lease ends."""

    id: uuid.UUID
    token: uuid.UUID
    fence: int
    notification_id: uuid.UUID
    tenant: str
    message_id: str
    event_type: str
    recipient_id: str | None
    channel: str
    lane: str
    locale: str | None
    timezone: str | None
    attempts: int
    max_attempts: int
    unknown: int
    unknown_age: float
    """Seconds since the first attempt whose outcome is unknown; 0 where there is none."""
    lifetime: float
    """Seconds until it expires."""
    provider: str
    on_doubt: str
    sandbox: bool
    address: str = field(repr=False)
    payload: Mapping[str, Any] = field(repr=False)
    attachments: tuple[Attached, ...] = field(default=(), repr=False)
    """Claimed where it was accepted, they hold their bytes; else those are in `store.attachments`."""
    trace: str | None = None
    """The `traceparent` of the producer's call."""


_CLAIM = """
WITH r AS MATERIALIZED (
    SELECT * FROM jsonb_to_recordset(%s::jsonb) AS x(id uuid, token uuid, provider text, lease float8, worker text)),
candidate AS MATERIALIZED (
    SELECT d.id, CASE
               WHEN d.replay_of IS NULL AND EXISTS (
                   SELECT 1 FROM notify.message_key k WHERE k.tenant = d.tenant AND k.message_id = d.message_id
                      AND k.cancelled_at IS NOT NULL) THEN 'cancelled'
               WHEN d.address = '' THEN 'erased'  -- its recipient was erased while an attempt was under way
               WHEN d.expires_at <= now() THEN 'expired'
               WHEN EXISTS (
                   SELECT 1 FROM notify.suppression s WHERE s.tenant IN (d.tenant, '*') AND s.channel = d.channel
                      AND s.digest = md5(d.address) AND s.address = d.address) THEN 'suppressed'
               WHEN d.category IS NOT NULL AND coalesce((
                   SELECT NOT notify.wanted(p.settings, d.category, d.channel, d.opt_in) FROM notify.preference p
                    WHERE p.tenant = d.tenant AND p.recipient_id = d.recipient_id), d.opt_in)
               THEN 'unwanted'
               WHEN d.step_unless IS NOT NULL THEN notify.step_answered(d.id) END AS ends
      FROM notify.delivery d
     WHERE d.id IN (SELECT r.id FROM r WHERE NOT EXISTS (SELECT 1 FROM notify.attempt a WHERE a.token = r.token))
       AND d.state IN ('queued', 'retrying') AND (d.not_before IS NULL OR d.not_before <= now())
     ORDER BY d.id FOR UPDATE OF d),
ended AS (
    UPDATE notify.delivery d
       SET state = CASE WHEN d.unknown > 0 THEN 'in_doubt' WHEN c.ends = 'erased' THEN 'cancelled'
                        WHEN c.ends = 'unwanted' THEN 'suppressed'
                        WHEN c.ends IN ('read', 'delivered') THEN 'superseded' ELSE c.ends END,
           reason = CASE c.ends WHEN 'suppressed' THEN 'address_suppressed' WHEN 'erased' THEN 'recipient_erased'
                                WHEN 'unwanted' THEN 'preference_off' ELSE c.ends END,
           due_at = NULL, updated_at = now()
      FROM candidate c WHERE d.id = c.id AND c.ends IS NOT NULL
    RETURNING d.id, d.tenant, d.notification_id, d.state, d.reason),
claimed AS (
    UPDATE notify.delivery d
       SET state = 'sending', fence = d.fence + 1, attempts = d.attempts + 1, provider = r.provider,
           lease_until = now() + make_interval(secs => r.lease), due_at = NULL, not_before = NULL, updated_at = now()
      FROM candidate c JOIN r USING (id)
     WHERE d.id = c.id AND c.ends IS NULL AND (d.unknown = 0 OR d.provider = r.provider)
    RETURNING d.*, r.token, r.worker),
event AS (
    INSERT INTO notify.status_event (tenant, notification_id, delivery_id, kind, code)
    SELECT tenant, notification_id, id, state, reason FROM ended),
attempt AS (
    INSERT INTO notify.attempt (token, delivery_id, number, fence, provider, idempotency_key, worker)
    SELECT token, id, fence, fence, provider, id::text, worker FROM claimed),
mine AS (
    SELECT d.*, a.token FROM r JOIN notify.attempt a ON a.token = r.token
      JOIN notify.delivery d ON d.id = a.delivery_id AND d.fence = a.fence AND d.state = 'sending'
     WHERE d.address <> '')
SELECT c.id, c.token, c.fence, c.notification_id, c.tenant, c.message_id, c.event_type, c.recipient_id, c.channel,
       c.lane, c.locale, c.timezone, c.attempts, c.max_attempts, c.unknown, c.provider, c.on_doubt, c.sandbox,
       c.address, n.payload, n.attachments, n.trace,
       coalesce(extract(epoch FROM c.expires_at - now())::float8, 1e9) AS lifetime,
       CASE WHEN c.unknown = 0 THEN 0::float8 ELSE coalesce((
           SELECT extract(epoch FROM now() - min(a.started_at))::float8 FROM notify.attempt a
            WHERE a.delivery_id = c.id AND a.outcome IN ('lost', 'uncertain')), 0) END AS unknown_age
  FROM (SELECT id, token, fence, notification_id, tenant, message_id, event_type, recipient_id, channel, lane, locale,
               timezone, attempts, max_attempts, unknown, provider, on_doubt, sandbox, address, expires_at FROM claimed
        UNION ALL
        SELECT id, token, fence, notification_id, tenant, message_id, event_type, recipient_id, channel, lane, locale,
               timezone, attempts, max_attempts, unknown, provider, on_doubt, sandbox, address, expires_at FROM mine) c
  JOIN notify.notification n ON n.id = c.notification_id
"""


def claim(database: Database, requests: Sequence[ClaimRequest]) -> list[Claimed]:
    """Start deliveries: an attempt row, `sending`, a higher fence and a lease, in one commit.

    What was cancelled, expired, suppressed or switched off meanwhile ends here. While an attempt's outcome is
    unknown, only its own provider may claim. A claim run again with its token finds itself, unless the first run is
    being committed at this very moment: then only a third one sees it. Whatever is not in the result may not be sent.
    """
    document = jsonb(
        [
            {
                "id": str(request.id),
                "token": str(request.token),
                "provider": request.provider,
                "lease": request.lease,
                "worker": request.worker,
            }
            for request in requests
        ]
    )
    rows = database.rows(_CLAIM, (document,))
    return [Claimed(**row | {"attachments": from_about(row["attachments"])}) for row in rows]


# --- result -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Result:
    """The outcome of one attempt, and what the delivery becomes if the fence still fits.

    Args:
        outcome: `accepted`, `released` or a name of `retrying.OUTCOMES`.
        unknown: whether this attempt's outcome is unknown.
        counted: False gives the attempt back.
        due: seconds until the sweep looks at it, for `retrying` and `held`.
        not_before: seconds before which no claim is allowed (Retry-After).
        queue: the delivery's queue, for the marker number of a row that is published again.
        suppress: suppress the address for this reason.
    """

    token: uuid.UUID
    id: uuid.UUID
    fence: int
    outcome: str
    state: str
    code: str | None = None
    detail: str | None = None
    reason: str | None = None
    provider_message_id: str | None = None
    unknown: bool = False
    counted: bool = True
    due: float | None = None
    not_before: float | None = None
    queue: str = ""
    suppress: str | None = None
    template_version: str | None = None


# `change` says for each delivery whether and how it moves:
#   fenced    the worker that holds the delivery reports: its verdict applies, unless an acceptance is known
#   accepted  an acceptance counts for an open doubt, and stops a resend that has not started
#   settled   a definite refusal ends a doubt in which no other attempt is unknown
# A doubt older than 72 hours is final.
_RECORD = """
WITH r AS MATERIALIZED (
    SELECT * FROM jsonb_to_recordset(%s::jsonb) AS x(
        token uuid, id uuid, fence int, outcome text, state text, code text, detail text, reason text,
        provider_message_id text, unknown boolean, counted boolean, due float8, not_before float8, queue text,
        suppress text, template_version text)),
-- Deliveries are locked before their attempts, as the sweep does when it ends leases.
locked AS MATERIALIZED (
    SELECT d.id FROM notify.delivery d WHERE d.id IN (SELECT id FROM r) ORDER BY d.id FOR UPDATE),
before AS MATERIALIZED (
    SELECT a.token, a.outcome FROM notify.attempt a
     WHERE a.token IN (SELECT r.token FROM r JOIN locked USING (id)) ORDER BY a.token FOR UPDATE),
a AS (
    UPDATE notify.attempt t
       SET outcome = r.outcome, code = r.code, detail = r.detail, provider_message_id = r.provider_message_id,
           ended_at = now()
      FROM r JOIN before b USING (token)
     WHERE t.token = r.token AND (b.outcome IS NULL OR b.outcome IN ('lost', 'uncertain'))
    RETURNING t.token),
change AS MATERIALIZED (
    SELECT d.id, r.token, d.state AS old_state, r.outcome, r.reason, r.code, r.provider_message_id, r.counted, r.due,
           r.not_before, r.queue, r.suppress, r.template_version, r.state AS wanted,
           d.unknown + r.unknown::int - (coalesce(b.outcome, '') IN ('lost', 'uncertain'))::int AS unknown,
           d.state = 'sending' AND d.fence = r.fence AS fenced,
           d.accepted AS was_accepted,
           r.outcome = 'accepted' AND (
               (d.state = 'in_doubt' AND d.updated_at > now() - make_interval(hours => 72))
               OR (d.state IN ('held', 'queued', 'retrying') AND d.unknown > 0)) AS resolves,
           d.state = 'in_doubt' AND NOT r.unknown AND r.outcome NOT IN ('accepted')
               AND coalesce(b.outcome, '') IN ('lost', 'uncertain') AND d.unknown <= 1
               AND d.updated_at > now() - make_interval(hours => 72) AS settles
      FROM r JOIN a ON a.token = r.token JOIN before b ON b.token = r.token
      JOIN notify.delivery d ON d.id = r.id
     ORDER BY d.id FOR UPDATE OF d),
d AS (
    UPDATE notify.delivery d
       SET state = CASE
               WHEN c.resolves OR (c.fenced AND c.was_accepted) THEN 'sent'
               WHEN c.fenced AND c.unknown > 0 AND c.wanted IN ('failed', 'suppressed', 'expired', 'cancelled')
                   THEN 'in_doubt'
               WHEN c.fenced AND c.unknown <= 0 AND c.wanted = 'in_doubt' THEN 'failed'  -- cleared up meanwhile
               WHEN c.fenced THEN c.wanted
               WHEN c.settles THEN 'failed'
               ELSE d.state END,
           reason = CASE WHEN c.resolves OR (c.fenced AND c.was_accepted) THEN NULL
               WHEN c.fenced OR c.settles THEN c.reason ELSE d.reason END,
           provider_message_id = CASE WHEN c.outcome = 'accepted' AND (c.fenced OR c.resolves)
               THEN c.provider_message_id ELSE d.provider_message_id END,
           unknown = greatest(c.unknown, 0),
           accepted = d.accepted OR c.outcome = 'accepted',
           attempts = CASE WHEN c.fenced AND NOT c.counted THEN greatest(d.attempts - 1, 0) ELSE d.attempts END,
           lease_until = CASE WHEN c.fenced THEN NULL ELSE d.lease_until END,
           due_at = CASE WHEN c.fenced AND NOT c.was_accepted AND c.wanted IN ('retrying', 'held')
               THEN now() + make_interval(secs => c.due)
               WHEN c.fenced OR c.resolves OR c.settles THEN NULL ELSE d.due_at END,
           not_before = CASE WHEN c.fenced THEN now() + make_interval(secs => c.not_before) ELSE d.not_before END,
           marker = CASE WHEN c.fenced AND c.wanted = 'queued'
               THEN notify.marker_now(c.queue) ELSE d.marker END,
           template_version = coalesce(c.template_version, d.template_version),
           updated_at = CASE WHEN c.fenced OR c.resolves OR c.settles THEN now() ELSE d.updated_at END
      FROM change c WHERE d.id = c.id
    RETURNING d.id, d.tenant, d.notification_id, d.channel, d.address, d.state, d.reason, c.old_state, c.suppress,
              d.leads, c.code, c.token, c.fenced OR c.resolves OR c.settles AS applied),
event AS (
    INSERT INTO notify.status_event (tenant, notification_id, delivery_id, kind, code)
    SELECT tenant, notification_id, id, state, coalesce(code, reason) FROM d
     WHERE applied AND state IN ('sent', 'failed', 'in_doubt', 'suppressed', 'expired', 'cancelled')
       AND state <> old_state),
suppressed AS (
    INSERT INTO notify.suppression AS s (tenant, channel, address, reason, source)
    SELECT DISTINCT ON (tenant, channel, address) tenant, channel, address, suppress, 'provider' FROM d
     WHERE suppress IS NOT NULL AND address <> '' ORDER BY tenant, channel, address, suppress <> 'opted_out'
    -- What a person has said outlasts what a provider thinks of the address.
    ON CONFLICT (tenant, channel, digest) DO UPDATE SET reason = excluded.reason, source = excluded.source
     WHERE excluded.reason = 'opted_out' AND s.reason <> 'opted_out'),
-- A dead token is nobody's device any more. The address stays suppressed, for calls that bring it with them.
device AS (
    DELETE FROM notify.contact_point c
     WHERE c.channel IN ('push', 'webpush') AND (c.tenant, c.channel, c.digest) IN (
         SELECT tenant, channel, md5(address) FROM d
          WHERE suppress = 'address_invalid' AND channel IN ('push', 'webpush') AND address <> ''))
SELECT id, token, state, applied, leads FROM d
"""


_FROM_OUTSIDE: Final = ("code", "detail", "reason", "provider_message_id")
"""What a provider may have said. A result must be written whatever is in it."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """Where the delivery is after its result was recorded.

    Args:
        applied: False for a result that came too late.
        leads: another step waits for what becomes of it.
    """

    id: uuid.UUID
    token: uuid.UUID
    state: str
    applied: bool
    leads: bool


def record(database: Database, results: Sequence[Result]) -> list[Recorded]:
    """Write outcomes. The attempt row takes each one once; the delivery takes it by fence.

    Safe to run again: a result that is there already is left alone, and is missing in the answer.
    """
    document = jsonb(
        [
            {name: getattr(result, name) for name in Result.__dataclass_fields__}
            | {name: storable(getattr(result, name)) for name in _FROM_OUTSIDE}
            | {"token": str(result.token), "id": str(result.id)}
            for result in results
        ]
    )
    return [Recorded(**row) for row in database.rows(_RECORD, (document,))]


# --- gates ------------------------------------------------------------------------------------------

_HOLD = """
WITH r AS MATERIALIZED (
    SELECT * FROM jsonb_to_recordset(%s::jsonb) AS x(id uuid, wait float8, reason text)),
c AS MATERIALIZED (
    SELECT d.id FROM notify.delivery d WHERE d.id IN (SELECT id FROM r) AND d.state IN ('queued', 'retrying')
     ORDER BY d.id FOR UPDATE)
UPDATE notify.delivery d
   SET state = 'held', due_at = now() + make_interval(secs => r.wait), reason = r.reason, updated_at = now()
  FROM c JOIN r USING (id) WHERE d.id = c.id
RETURNING d.id
"""


def hold(database: Database, waits: Sequence[tuple[uuid.UUID, float, str]]) -> int:
    """Move due times forward: `(delivery, seconds, reason)` each. Returns how many were held."""
    document = jsonb([{"id": str(id_), "wait": wait, "reason": reason} for id_, wait, reason in waits])
    return len(database.rows(_HOLD, (document,)))


_END = """
WITH d AS (
    UPDATE notify.delivery
       SET state = CASE WHEN unknown > 0 THEN 'in_doubt' ELSE %s END, reason = %s, due_at = NULL, updated_at = now()
     WHERE id = %s AND state IN ('queued', 'retrying')
    RETURNING id, tenant, notification_id, state, reason)
INSERT INTO notify.status_event (tenant, notification_id, delivery_id, kind, code)
SELECT tenant, notification_id, id, state, reason FROM d
RETURNING kind
"""


def end(database: Database, id_: uuid.UUID, state: str, reason: str) -> str | None:
    """End a delivery that can never start. Returns the state it is in now; None where it waits no more."""
    rows = database.rows(_END, (state, reason, id_))
    return rows[0]["kind"] if rows else None


_REQUEUE = """
WITH c AS MATERIALIZED (
    SELECT id FROM notify.delivery WHERE id = ANY(%s) AND state IN ('queued', 'retrying') ORDER BY id FOR UPDATE)
UPDATE notify.delivery d
   SET marker = notify.marker_now(%s)
  FROM c WHERE d.id = c.id
RETURNING d.id
"""


def restamp(database: Database, ids: Sequence[uuid.UUID], queue: str) -> list[uuid.UUID]:
    """Store the queue's current marker number in rows that are about to be published again."""
    return [row["id"] for row in database.rows(_REQUEUE, (list(ids), queue))]


_PAUSES = "SELECT kind, name, reason FROM notify.pause"


def read_pauses(database: Database) -> dict[tuple[str, str], str]:
    """What is paused: `("queue" | "type" | "tenant", name)` and why."""
    return {(row["kind"], row["name"]): row["reason"] for row in database.rows(_PAUSES)}

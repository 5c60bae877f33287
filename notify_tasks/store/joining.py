"""Joining digests and taking places in throttles: in the commit that accepts what joins and what is counted.

Two statements for a whole batch, whose rows stay locked until the commit: what is gathered by one key, or counted by
one, comes one after the other. Rows are taken in the order of their keys, before anything else that accepting locks.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from notify_tasks.digesting import HOLD, MAX_BYTES
from notify_tasks.notification import canonical, uuid7
from notify_tasks.store.database import Connection, Database, DatabaseAway, jsonb

if TYPE_CHECKING:
    from notify_tasks.plans import Decision
    from notify_tasks.store.accepting import NewDelivery, NewNotification, Stored

TRIES: Final = 10

# A window that lies behind gives way to the present one. What was over in it is forgotten, but for places that were
# given away in later ones. A flood takes no places that come after its expiry.
_COUNT: Final = """
INSERT INTO notify.throttle AS t (key, tenant, recipient_id, channel, event_type, most, seconds, over, places,
                                  window_start, used, ends_at)
SELECT x.key, x.tenant, x.recipient_id, x.channel, x.event_type, x.most, x.seconds, x.over,
       x.most::bigint * CASE x.over WHEN 'hold'
           THEN 2 + floor(greatest(0, extract(epoch FROM x.expires_at - now())::float8) / x.seconds)::bigint ELSE 1 END,
       w.start, x.n,
       w.start + make_interval(secs => x.seconds * ceil(x.n::float8 / x.most))
  FROM jsonb_to_recordset(%s::jsonb) AS x(
       key text, tenant text, recipient_id text, channel text, event_type text, most integer, seconds float8,
       over text, expires_at timestamptz, n integer)
 CROSS JOIN LATERAL (
       SELECT to_timestamp(floor(extract(epoch FROM now())::float8 / x.seconds) * x.seconds) AS start) w
 ORDER BY x.key
ON CONFLICT (key) DO UPDATE
   SET places = greatest(t.places, excluded.places), window_start = greatest(t.window_start, excluded.window_start),
       used = excluded.used + notify.throttle_used(t, excluded.window_start),
       ends_at = greatest(t.window_start, excluded.window_start) + make_interval(secs =>
           t.seconds * ceil((excluded.used + notify.throttle_used(t, excluded.window_start))::float8 / t.most))
RETURNING key, window_start, used
"""

_JOIN: Final = """
INSERT INTO notify.digest AS d (id, key, tenant, recipient_id, channel, event_type, digest_type, by_value, at, sandbox,
                                state, due_at, cap_at, most, events, opening, bytes)
SELECT x.id, x.key, x.tenant, x.recipient_id, x.channel, x.event_type, x.digest_type, x.by_value, x.at, x.sandbox,
       CASE WHEN f.full THEN 'full' ELSE 'open' END, CASE WHEN f.full THEN now() ELSE x.due_at END, x.cap_at, x.most,
       x.events, x.opening, x.bytes
  FROM jsonb_to_recordset(%(rows)s::jsonb) AS x(
       id uuid, key text, tenant text, recipient_id text, channel text, event_type text, digest_type text,
       by_value jsonb, at text, sandbox boolean, due_at timestamptz, cap_at timestamptz, most integer, events integer,
       opening integer, bytes bigint)
 CROSS JOIN LATERAL (SELECT x.events >= x.most OR x.bytes >= %(heavy)s AS full) f
 ORDER BY x.key
ON CONFLICT (key) WHERE state = 'open' DO UPDATE
   SET events = d.events + excluded.events + excluded.opening, bytes = d.bytes + excluded.bytes,
       state = CASE WHEN d.events + excluded.events + excluded.opening >= excluded.most
                      OR d.bytes + excluded.bytes >= %(heavy)s THEN 'full' ELSE 'open' END,
       due_at = CASE WHEN d.events + excluded.events + excluded.opening >= excluded.most
                       OR d.bytes + excluded.bytes >= %(heavy)s THEN now()
                     WHEN d.cap_at IS NULL OR excluded.cap_at IS NULL THEN least(d.due_at, excluded.due_at)
                     ELSE least(greatest(d.due_at, excluded.due_at), d.cap_at) END
RETURNING key, id, due_at, xmax = 0 AS opened
"""


@dataclass(slots=True)
class Settled:
    """What a batch has become: its items as they are to be stored, and when something of it will be due."""

    items: list[NewNotification]
    moments: list[datetime] = field(default_factory=list)


@dataclass(slots=True)
class _Group:
    """Deliveries of one key. Those of one notification, to several devices say, are one."""

    item: NewNotification
    decision: Decision
    items: dict[uuid.UUID, NewNotification] = field(default_factory=dict)


Decided = dict[uuid.UUID, "NewDelivery"]
"""Deliveries by their ids."""


def concerns(item: NewNotification) -> bool:
    """Whether something of an item is gathered or counted, so that it needs `settle`."""
    return any(it.decision.digest or it.decision.counted for it in item.deliveries)


class _Otherwise(Exception):
    """Some items are stored, or not, other than it was taken for."""

    def __init__(self, ids: set[uuid.UUID]) -> None:
        super().__init__(f"{len(ids)} items")
        self.ids = ids


def despite_repetitions(
    database: Database,
    items: Sequence[NewNotification],
    timed: Sequence[NewNotification],
    store: Callable[[Connection, Settled], Stored],
) -> Stored:
    """Store items in one transaction, where those that are repetitions join nothing and are not counted.

    Whether one is, only its own insert tells, which comes after the joining: the transaction is then run again.

    Args:
        database: the store.
        items: all of them.
        timed: those of them that `concerns` names.
        store: the statements that store them; it may be called several times.

    Raises:
        DatabaseAway: other transactions were quicker again and again.
    """
    of_interest = {item.id for item in timed}
    known: set[uuid.UUID] = set()

    def run(connection: Connection) -> Stored:
        joining = [item for item in timed if item.id not in known]
        settled = settle(connection, joining)
        by_id = {item.id: item for item in settled.items}
        settled.items = [by_id.get(item.id, item) for item in items]
        stored = store(connection, settled)
        if other := (known & stored.new) | (of_interest - known - stored.new):
            raise _Otherwise(other)
        return stored

    for _ in range(TRIES):
        try:
            return database.transact(run)
        except _Otherwise as found:
            known ^= found.ids
    raise DatabaseAway(None, "repetitions of the same calls kept coming")


def settle(connection: Connection, items: Sequence[NewNotification]) -> Settled:
    """Let what is gathered join its digest, and what is counted take its place.

    Args:
        connection: in the transaction that stores the items after this. If one of them is not stored, because its
            message id is known, the transaction must not be committed.
        items: to be stored.

    Returns:
        the same items, with what was decided.
    """
    settled = Settled(list(items))
    decided = {it.id: it for item in items for it in item.deliveries}
    _count(connection, settled, decided)
    _join(connection, settled, decided)
    settled.items = [_with(item, decided) for item in items]
    return settled


def _with(item: NewNotification, decided: Decided) -> NewNotification:
    deliveries = tuple(decided[it.id] for it in item.deliveries)
    if deliveries == item.deliveries:
        return item
    plan = {**item.plan, "decisions": [it.decision.explained() for it in deliveries]}
    return replace(item, deliveries=deliveries, plan=plan)


def _groups(items: Sequence[NewNotification], decided: Decided, *, counted: bool) -> dict[str, _Group]:
    groups: dict[str, _Group] = {}
    for item in items:
        for it in item.deliveries:
            decision = decided[it.id].decision
            what = decision.counted if counted else decision.digest
            if what is not None:
                group = groups.setdefault(what.key, _Group(item, decision))
                group.items.setdefault(item.id, item)
    return groups


# --- throttles ----------------------------------------------------------------------------------------


def _count(connection: Connection, settled: Settled, decided: Decided) -> None:
    groups = _groups(settled.items, decided, counted=True)
    if not groups:
        return
    rows = [_throttle_row(key, group) for key, group in groups.items()]
    found = {row["key"]: row for row in connection.execute(_COUNT, (jsonb(rows),)).fetchall()}
    for key, group in groups.items():
        first = found[key]["used"] - len(group.items)
        for place, item in enumerate(group.items.values(), first):
            for it in item.deliveries:
                decision = decided[it.id].decision
                if decision.counted is not None and decision.counted.key == key:
                    decided[it.id] = _placed(decided[it.id], place, found[key]["window_start"])
                    settled.moments += [due] if (due := decided[it.id].decision.due_at) else []


def _throttle_row(key: str, group: _Group) -> dict[str, Any]:
    counted = group.decision.counted
    assert counted is not None
    rule = counted.rule
    return {
        "key": key,
        "tenant": group.item.notification.tenant,
        "recipient_id": group.decision.recipient_id,
        "channel": group.decision.channel,
        "event_type": group.item.notification.event_type,
        "most": rule.limit,
        "seconds": rule.seconds,
        "over": rule.over,
        "expires_at": max(_expiries(group, key)).isoformat(),
        "n": len(group.items),
    }


def _expiries(group: _Group, key: str) -> Iterator[datetime]:
    for item in group.items.values():
        for it in item.deliveries:
            if it.decision.counted is not None and it.decision.counted.key == key:
                yield it.decision.expires_at


def _placed(delivery: NewDelivery, place: int, window_start: datetime) -> NewDelivery:
    decision = delivery.decision
    timing, counted = decision.timing, decision.counted
    assert timing is not None
    assert timing.over is not None
    assert counted is not None
    rule = counted.rule
    told: dict[str, Any] = {"limit": str(rule)}
    if place < rule.limit:
        told |= {"place": place + 1}
        return replace(delivery, decision=replace(decision, told={**decision.told, "throttle": told}))
    start = window_start + timedelta(seconds=place // rule.limit * rule.seconds)
    told |= {"over": rule.over} | ({"from": start.isoformat()} if rule.over == HOLD else {})
    other = timing.over(start)
    return replace(delivery, decision=decision.turned(other, other.turn, throttle=told), claim=None)


# --- digests ------------------------------------------------------------------------------------------


def _join(connection: Connection, settled: Settled, decided: Decided) -> None:
    groups = _groups(settled.items, decided, counted=False)
    if not groups:
        return
    rows = [_digest_row(key, group) for key, group in groups.items()]
    found = connection.execute(_JOIN, {"rows": jsonb(rows), "heavy": MAX_BYTES}).fetchall()
    for row in found:
        group = groups[row["key"]]
        settled.moments.append(row["due_at"])
        for item in group.items.values():
            opens = row["opened"] and item is group.item
            for it in item.deliveries:
                digest = decided[it.id].decision.digest
                if digest is not None and digest.key == row["key"]:
                    decided[it.id] = _joined(decided[it.id], row, opens=opens)


def _digest_row(key: str, group: _Group) -> dict[str, Any]:
    digest, notification = group.decision.digest, group.item.notification
    assert digest is not None
    opening = int(_opening(group.decision) is not None)
    return {
        "id": str(uuid7()),
        "key": key,
        "tenant": notification.tenant,
        "recipient_id": group.decision.recipient_id,
        "channel": group.decision.channel,
        "event_type": notification.event_type,
        "digest_type": digest.type,
        "by_value": digest.by,
        "at": digest.when,
        "sandbox": notification.sandbox,
        "due_at": digest.due_at.isoformat(),
        "cap_at": digest.cap_at.isoformat() if digest.cap_at else None,
        "most": digest.most,
        "events": len(group.items) - opening,
        "opening": opening,
        "bytes": sum(len(canonical(item.notification.payload)) for item in group.items.values()),
    }


def _opening(decision: Decision) -> Any:
    return decision.timing.opening if decision.timing is not None else None


def _joined(delivery: NewDelivery, row: dict[str, Any], *, opens: bool) -> NewDelivery:
    decision = delivery.decision
    timing, digest = decision.timing, decision.digest
    assert timing is not None
    assert digest is not None
    told = {
        "id": str(row["id"]),
        "type": digest.type,
        "when": digest.when,
        "due_at": row["due_at"].isoformat(),
    }
    if opens and timing.opening is not None:
        alone = decision.turned(timing, timing.opening, digest=told | {"first": True})
        return replace(delivery, decision=alone)
    if row["opened"]:
        told |= {"opened": True}
    return replace(
        delivery, decision=replace(decision, told={**decision.told, "digest": told}), digest_id=row["id"]
    )

"""What planning needs to know of the people and addresses of some calls, in one statement."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from notify_tasks import choices
from notify_tasks.notification import Notification
from notify_tasks.plans import Profile
from notify_tasks.store.database import Database, jsonb

_CONTEXT = """
WITH input AS (SELECT %s::jsonb AS j),
person AS (SELECT x.* FROM input, jsonb_to_recordset(j->'people') AS x(tenant text, id text)),
bare AS (SELECT x.* FROM input, jsonb_to_recordset(j->'addresses') AS x(tenant text, channel text, address text))
SELECT 'person' AS kind, r.tenant, r.id, r.locale, r.timezone, c.channel, c.address,
       EXISTS (SELECT 1 FROM notify.suppression s
                WHERE s.tenant IN (c.tenant, '*') AND s.channel = c.channel
                  AND s.digest = md5(c.address) AND s.address = c.address) AS suppressed,
       c.verified_at IS NOT NULL AS verified, p.settings AS choices, now() AS now
  FROM person
  JOIN notify.recipient r USING (tenant, id)
  LEFT JOIN notify.preference p ON p.tenant = r.tenant AND p.recipient_id = r.id
  LEFT JOIN notify.contact_point c ON c.tenant = r.tenant AND c.recipient_id = r.id
UNION ALL
SELECT 'address', bare.tenant, NULL, NULL, NULL, s.channel, s.address, true, false, NULL, now()
  FROM bare JOIN notify.suppression s ON s.tenant IN (bare.tenant, '*') AND s.channel = bare.channel
        AND s.digest = md5(bare.address) AND s.address = bare.address
UNION ALL
SELECT 'now', NULL, NULL, NULL, NULL, NULL, NULL, false, false, NULL, now()
"""


@dataclass(slots=True)
class Context:
    """What planning needs to know, as of `now` (the database's)."""

    now: datetime
    profiles: dict[tuple[str, str], Profile] = field(default_factory=dict)
    suppressed: dict[str, set[tuple[str, str]]] = field(default_factory=dict)

    def of(self, notification: Notification) -> tuple[dict[str, Profile], set[tuple[str, str]]]:
        """Profiles by id and suppressed pairs of one notification's tenant."""
        tenant = notification.tenant
        known = {
            ref.id: self.profiles[tenant, ref.id]
            for ref in notification.to
            if ref.id is not None and (tenant, ref.id) in self.profiles
        }
        return known, self.suppressed.get(tenant, set())


def read_context(  # noqa: C901 - a question and its answer, row by row
    database: Database, notifications: Iterable[Notification]
) -> Context:
    """Recipients, their addresses and preferences, and which addresses are suppressed, in one statement."""
    people, addresses = set(), set()
    for notification in notifications:
        for ref in notification.to:
            if ref.id is not None:
                people.add((notification.tenant, ref.id))
            for channel, address in ref.addresses.items():
                addresses.add((notification.tenant, channel, address))
    rows = database.rows(
        _CONTEXT,
        (
            jsonb(
                {
                    "people": [{"tenant": tenant, "id": id_} for tenant, id_ in people],
                    "addresses": [
                        {"tenant": tenant, "channel": channel, "address": address}
                        for tenant, channel, address in addresses
                    ],
                }
            ),
        ),
    )
    context = Context(now=rows[-1]["now"])
    found: dict[tuple[str, str], tuple[dict[str, Any], dict[str, tuple[str, ...]]]] = {}
    unverified: dict[tuple[str, str], set[tuple[str, str]]] = {}
    for row in rows:
        if row["kind"] == "now":
            continue
        if row["suppressed"]:
            context.suppressed.setdefault(row["tenant"], set()).add((row["channel"], row["address"]))
        if row["kind"] == "person":
            _, by_channel = found.setdefault((row["tenant"], row["id"]), (row, {}))
            if row["channel"] is not None:
                by_channel[row["channel"]] = (*by_channel.get(row["channel"], ()), row["address"])
                if not row["verified"]:
                    unverified.setdefault((row["tenant"], row["id"]), set()).add(
                        (row["channel"], row["address"])
                    )
    for (tenant, id_), (person, by_channel) in found.items():
        context.profiles[tenant, id_] = Profile(
            id_,
            by_channel,
            person["locale"],
            person["timezone"],
            frozenset(unverified.get((tenant, id_), ())),
            choices.read(person["choices"]),
        )
    return context

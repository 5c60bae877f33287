"""Recipients and their contact points."""

from __future__ import annotations

from collections.abc import Mapping

from notify_tasks.store.database import Connection, Database

_PERSON = """
INSERT INTO notify.recipient AS r (tenant, id, locale, timezone) VALUES (%s, %s, %s, %s)
ON CONFLICT (tenant, id) DO UPDATE
   SET locale = coalesce(excluded.locale, r.locale), timezone = coalesce(excluded.timezone, r.timezone),
       updated_at = now()
"""
_FORGET = "DELETE FROM notify.contact_point WHERE tenant = %s AND recipient_id = %s AND channel = %s"
_ADD = """
INSERT INTO notify.contact_point (tenant, recipient_id, channel, address) VALUES (%s, %s, %s, %s)
ON CONFLICT DO NOTHING
"""


def upsert(
    database: Database,
    recipient_id: str,
    addresses: Mapping[str, str],
    *,
    tenant: str = "default",
    locale: str | None = None,
    timezone: str | None = None,
) -> None:
    """Store a recipient; the address of each channel named replaces those it had there."""

    def run(connection: Connection) -> None:
        connection.execute(_PERSON, (tenant, recipient_id, locale, timezone))
        for channel, address in addresses.items():
            connection.execute(_FORGET, (tenant, recipient_id, channel))
            connection.execute(_ADD, (tenant, recipient_id, channel, address))

    database.transact(run)


_SUPPRESS = """
INSERT INTO notify.suppression (tenant, channel, address, reason, source) VALUES (%s, %s, %s, %s, %s)
ON CONFLICT DO NOTHING
"""


def suppress(
    database: Database,
    channel: str,
    address: str,
    *,
    reason: str,
    source: str = "operator",
    tenant: str = "default",
) -> None:
    """Write to this address no more. Deliveries that wait are stopped when they are claimed."""
    database.rows(_SUPPRESS, (tenant, channel, address, reason, source))

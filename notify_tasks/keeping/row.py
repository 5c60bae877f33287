"""The statement that keeps a call in the `intake` table, shared by both ways that end there.

It stands here and not in `store`, because a producer that only writes this row needs no driver of ours.
"""

from __future__ import annotations

import json
from typing import Final

from notify_tasks.notification import Notification

# The hash is a part of the key: two bodies under one id are both kept, and judged at intake. So nothing here
# can conflict with what is there already.
KEEP: Final = (
    "INSERT INTO notify.intake (tenant, message_id, hash, envelope, origin) "
    "VALUES (%s, %s, %s, CAST(%s AS jsonb), 'producer') ON CONFLICT DO NOTHING"
)
KEEP_AND_TELL: Final = f"WITH kept AS ({KEEP}) SELECT pg_notify('notify_intake', '')"
"""One round trip. PostgreSQL delivers the word when the transaction commits."""


def statement(*, tell: bool) -> str:
    """The statement, with a word to the listener or without."""
    return KEEP_AND_TELL if tell else KEEP


def values(notification: Notification) -> tuple[str, str, str, str]:
    """Its parameters."""
    envelope = json.dumps(notification.to_wire(), separators=(",", ":"))
    return notification.tenant, notification.message_id, notification.hash, envelope


def explain(sqlstate: str | None, kind: str) -> str:
    """What an error of this statement means. The driver's own text is left out: it may quote the envelope."""
    known = {
        "25006": "the database takes no writes now: name the primary",
        "25P02": "the transaction had failed before: roll it back first",
        "3F000": "the schema notify is missing: run `notify migrate` on this database",
        "40001": "another transaction has kept the same call: repeat yours",
        "40P01": "it was in a deadlock with another transaction: repeat yours",
        "42501": "the user lacks a right: GRANT USAGE ON SCHEMA notify, and INSERT ON notify.intake",
        "42P01": "the table notify.intake is missing: run `notify migrate` on this database",
        "57014": "the statement took too long: another transaction may hold the same row",
    }
    if sqlstate in known:
        return f"{known[sqlstate]} (SQLSTATE {sqlstate})"
    return f"PostgreSQL did not keep it ({kind}, SQLSTATE {sqlstate or 'none'}): see its log"

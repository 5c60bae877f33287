"""The bytes that calls carried: stored with their notification, read by the deliveries that carry them."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from typing import Final

from notify_tasks.attachments import Attached
from notify_tasks.store.database import Connection, Database

_STORE: Final = """
INSERT INTO notify.attachment (notification_id, position, tenant, content) VALUES (%s, %s, %s, %b)
"""


def store(
    connection: Connection, notifications: Iterable[tuple[uuid.UUID, str, tuple[Attached, ...]]]
) -> None:
    """Store the contents of notifications that are new in this transaction.

    Args:
        connection: in the transaction that stores them.
        notifications: the id, the tenant and the attachments of each.
    """
    rows = [
        (id_, position, tenant, each.content)
        for id_, tenant, attachments in notifications
        for position, each in enumerate(attachments)
        if each.content is not None
    ]
    if rows:
        with connection.cursor() as cursor:
            cursor.executemany(_STORE, rows)


_READ: Final = "SELECT position, content FROM notify.attachment WHERE notification_id = %s"


def read(database: Database, notification_id: uuid.UUID) -> dict[int, bytes]:
    """The contents of a notification's attachments, by their place among them."""
    return {row["position"]: row["content"] for row in database.rows(_READ, (notification_id,))}

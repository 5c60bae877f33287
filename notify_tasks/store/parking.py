"""Messages that cannot be processed: parked with a reason, listed, replayable, never discarded."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from notify_tasks.store.database import Database, jsonb, storable


@dataclass(frozen=True, slots=True)
class Parked:
    """A message and why nobody could process it."""

    queue: str
    reason: str
    raw: bytes = field(repr=False)
    detail: str | None = None
    at: str = ""


_PARK = """
INSERT INTO notify.parked_message (digest, queue, reason, detail, raw)
SELECT DISTINCT ON (x.digest) x.digest, x.queue, x.reason, x.detail, decode(x.raw, 'base64')
  FROM jsonb_to_recordset(%s::jsonb) AS x(digest text, queue text, reason text, detail text, raw text)
 ORDER BY x.digest
ON CONFLICT (digest) DO UPDATE SET replayed_at = NULL WHERE parked_message.replayed_at IS NOT NULL
"""


def park(database: Database, messages: Sequence[Parked]) -> None:
    """Store them; storing the same one (queue, time, bytes) twice is storing it once.

    One that was put back and comes again shows again.
    """
    database.rows(
        _PARK,
        (
            jsonb(
                [
                    {
                        "digest": hashlib.sha256(
                            f"{message.queue}\0{message.at}\0".encode(errors="backslashreplace") + message.raw
                        ).hexdigest(),
                        "queue": storable(message.queue),
                        "reason": storable(message.reason),
                        "detail": storable(message.detail),
                        "raw": base64.b64encode(message.raw).decode(),
                    }
                    for message in messages
                ]
            ),
        ),
    )


@dataclass(frozen=True, slots=True)
class ParkedRow:
    """A parked message as it is listed: without its content."""

    id: int
    queue: str
    reason: str
    detail: str | None
    size: int
    parked_at: datetime
    replayed_at: datetime | None


_LIST = """
SELECT id, queue, reason, detail, length(raw) AS size, parked_at, replayed_at
  FROM notify.parked_message ORDER BY id DESC LIMIT %s
"""


def parked(database: Database, *, limit: int = 100) -> list[ParkedRow]:
    """The newest parked messages."""
    return [ParkedRow(**row) for row in database.rows(_LIST, (limit,))]


_READ = "SELECT queue, raw FROM notify.parked_message WHERE id = %s"


def read(database: Database, id_: int) -> tuple[str, bytes] | None:
    """The queue and the bytes of one; None where there is none."""
    rows = database.rows(_READ, (id_,))
    return (rows[0]["queue"], bytes(rows[0]["raw"])) if rows else None


_REPLAYED = "UPDATE notify.parked_message SET replayed_at = now() WHERE id = %s"


def replayed(database: Database, id_: int) -> None:
    """Note that one was put back: it is kept, and no longer listed among those that wait."""
    database.rows(_REPLAYED, (id_,))

"""Moves parked messages from Redis, where a worker can put them at once, into PostgreSQL, where they are kept."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any, Final

import redis

from notify_tasks.routing import PARKED_KEY
from notify_tasks.store import parking
from notify_tasks.store.database import Database
from notify_tasks.store.parking import Parked

PAGE: Final = 200


class Parking:
    """Parks messages, and collects those that others parked."""

    def __init__(self, database: Database, client: redis.Redis) -> None:
        self._database = database
        self._redis = client

    def park(self, queue: str, raw: bytes, reason: str, detail: str | None = None, at: str = "") -> None:
        """Keep a message that nobody can process.

        Args:
            queue: where it was.
            raw: its bytes.
            reason: a code.
            detail: a sentence without its content.
            at: what tells it from an equal one (a time, a task id).
        """
        parking.park(self._database, [Parked(queue, reason, raw, detail, at)])

    def park_ledger(self, queue: str, entries: Mapping[str, Any]) -> None:
        """Keep ledger entries that cannot be read."""
        parking.park(
            self._database,
            [
                Parked(
                    queue,
                    "ledger_unreadable",
                    json.dumps(value).encode(),
                    "a ledger entry is no envelope",
                    field,
                )
                for field, value in entries.items()
            ],
        )

    def collect(self) -> int:
        """Move what workers parked in Redis. Storing twice is storing once, so a crash in between is harmless."""
        moved = 0
        client: Any = self._redis
        while records := client.lrange(PARKED_KEY, -PAGE, -1):
            parking.park(self._database, [_read(record) for record in records])
            pipe = client.pipeline(transaction=False)
            for record in records:  # by value: another sweep may be collecting too
                pipe.lrem(PARKED_KEY, -1, record)
            pipe.execute()
            moved += len(records)
        return moved


def _read(record: bytes) -> Parked:
    try:
        found = json.loads(record)
        return Parked(
            queue=str(found["queue"]),
            reason=str(found["reason"]),
            raw=base64.b64decode(found["raw"]),
            detail=found.get("detail"),
            at=str(found.get("at", "")),
        )
    except (ValueError, KeyError, TypeError):
        return Parked(
            "unknown", "parked_record_unreadable", record, "the parked record itself cannot be read"
        )

"""Moves parked messages from Redis, where a worker can put them at once, into PostgreSQL, where they are kept."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any, Final

import redis

from notify_tasks.errors import NotHere, WireError
from notify_tasks.notification import Notification
from notify_tasks.routing import ALL_QUEUES, INTAKE, PARKED_KEY
from notify_tasks.store import intakes, parking
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

    def park_ledger(self, queue: str, entries: Mapping[bytes, Any], reason: str) -> None:
        """Keep ledger entries that nobody can plan.

        Args:
            queue: of their messages.
            entries: by field; what was no JSON at all as its bytes.
            reason: a code.
        """
        if not entries:
            return
        parking.park(
            self._database,
            [
                Parked(
                    queue,
                    reason,
                    value if isinstance(value, bytes) else json.dumps(value).encode(),
                    "a ledger entry",
                    field.decode(errors="backslashreplace"),
                )
                for field, value in entries.items()
            ],
        )

    def put_back(self, number: int) -> str | None:
        """Put a parked message back where it was.

        It is noted as put back afterwards: a crash in between can put it back twice, which does no harm.

        Args:
            number: its id.

        Returns:
            the queue, or `intake` for the intake table; None where there is no such message.

        Raises:
            NotHere: it is not one that a queue can take.
            redis.RedisError: Redis does not take it, and it stays parked.
        """
        found = parking.read(self._database, number)
        if found is None:
            return None
        queue, raw = found
        if queue in ALL_QUEUES and not _is_envelope(raw):
            self._redis.lpush(queue, raw)
        else:
            self._keep(number, raw)
            queue = INTAKE
        parking.replayed(self._database, number)
        return queue

    def _keep(self, number: int, raw: bytes) -> None:
        try:
            notification = Notification.from_wire(json.loads(raw))
        except (ValueError, WireError) as error:
            why = str(error) if isinstance(error, WireError) else "it is not JSON"
            raise NotHere(
                f"parked message {number} can still not be read: {why}. Deploy what can read it"
            ) from None
        intakes.keep(self._database, [notification.to_wire()], origin="replay")

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


def _is_envelope(raw: bytes) -> bool:
    """Whether it is a call by itself, as the ledger and the intake table hold it, and not a Celery message."""
    try:
        found = json.loads(raw)
    except ValueError:
        return False
    return isinstance(found, dict) and "message_id" in found and "properties" not in found


def _read(record: bytes) -> Parked:
    try:
        found = json.loads(record)
        return Parked(
            queue=str(found["queue"]),
            reason=str(found["reason"]),
            raw=base64.b64decode(found["raw"]),
            detail=None if found.get("detail") is None else str(found["detail"]),
            at=str(found.get("at", "")),
        )
    except (ValueError, KeyError, TypeError):
        return Parked(
            "unknown", "parked_record_unreadable", record, "the parked record itself cannot be read"
        )

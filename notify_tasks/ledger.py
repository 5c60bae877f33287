"""The worker's side of the ledger: entries of accepted messages go, entries of lost messages are found.

A producer writes the envelope into a Redis hash in the same transaction that queues the message. Stock Celery on
Redis can lose a message between popping and registering it; the entry is what is left of it then.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable
from typing import Any, Final

import redis

from notify_tasks import routing

FLUSH_SECONDS: Final = 0.1
"""Accepted entries are removed together. A process killed with some in hand leaves them to the sweep, which finds
their messages accepted already."""


class Ledger:
    """Entries in Redis, by `(key, field)`.

    Args:
        client: of the broker's Redis.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client
        self._lock = threading.Lock()
        self._gone: list[tuple[str, str]] = []
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None

    def forget(self, key: str, field: str) -> None:
        """The message is accepted: remove its entry soon."""
        with self._lock:
            self._gone.append((key, field))
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="notify-ledger", daemon=True)
                self._thread.start()
        self._wake.set()

    def _run(self) -> None:
        while True:
            self._wake.wait()
            threading.Event().wait(FLUSH_SECONDS)
            self._wake.clear()
            self.flush()

    def flush(self) -> None:
        """Remove what has been collected. Redis away: the sweep will meet the entries."""
        with self._lock:
            gone, self._gone = self._gone, []
        if not gone:
            return
        by_key: dict[str, list[str]] = {}
        for key, field in gone:
            by_key.setdefault(key, []).append(field)
        pipe = self._redis.pipeline(transaction=False)
        for key, fields in by_key.items():
            pipe.hdel(key, *fields)
        try:
            pipe.execute()
        except redis.RedisError:
            return

    def keys(self) -> dict[str, tuple[int, str]]:
        """Every hash there is, with its bucket and queue. The broker's database holds little else to scan."""
        found = {}
        raw: Any
        for raw in self._redis.scan_iter(match=f"{routing.LEDGER_PREFIX}*", count=1000, _type="HASH"):
            try:
                key = raw.decode()
                found[key] = routing.ledger_place(key)
            except ValueError:
                continue
        return found

    def entries(self, key: str, limit: int) -> dict[bytes, dict[str, Any] | bytes]:
        """Up to about `limit` entries of a hash: field and envelope; as it is where that cannot be read."""
        page: Any
        _, page = self._redis.hscan(key, count=limit)
        found: dict[bytes, dict[str, Any] | bytes] = {}
        for field, value in page.items():
            try:
                envelope = json.loads(value)["envelope"]
            except (ValueError, KeyError, TypeError, RecursionError):
                envelope = None
            found[field] = envelope if isinstance(envelope, dict) else value
        return found

    def remove(self, key: str, fields: Iterable[bytes]) -> None:
        """Remove entries now."""
        names = list(fields)
        if names:
            self._redis.hdel(key, *names)

    def bucket_now(self) -> int:
        """The current bucket, by the clock of Redis."""
        seconds, _ = self._redis.time()
        return int(seconds) // routing.LEDGER_BUCKET_SECONDS

"""What Redis tells of the fleet: queues, what workers hold, the ledger, memory and files.

Keys are kombu's (`unacked`, `unacked_index`, a list for each queue) and ours, each behind the prefix that all processes
of the fleet share (kombu's `global_keyprefix`).
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import redis

from notify_tasks.routing import (
    ALL_QUEUES,
    LEDGER_BUCKET_SECONDS,
    LEDGER_PREFIX,
    SENT_AT_HEADER,
    ledger_place,
)

UNACKED: Final = "unacked"
UNACKED_INDEX: Final = "unacked_index"
UNACKED_READ: Final = 5000
"""So many messages that workers hold are told apart by queue: of more, the rest is not looked at."""
PAGE: Final = 500
LEFTOVER_SECONDS: Final = 60
_ROUTE: Final = re.compile(rb'"((?:[^"\\]|\\.)*)"\s*\]\s*$')
"""kombu stores `[message, exchange, routing_key]`; the queue is the last text of it."""
_UUID_7: Final = 7


@dataclass(frozen=True, slots=True)
class BrokerNow:
    """What Redis tells at a moment.

    Args:
        depth: messages that wait, by queue.
        oldest: seconds since the oldest of them was published, by queue; only where that is known.
        unacked: messages that workers hold, by queue.
        unacked_oldest: seconds for which the oldest of those is held.
        ledger: entries.
        leftovers: entries of more than a minute ago.
        facts: of INFO.
    """

    depth: Mapping[str, int]
    oldest: Mapping[str, float]
    unacked: Mapping[str, int]
    unacked_oldest: float
    ledger: int
    leftovers: int
    facts: Mapping[str, Any] = field(repr=False)


def look(client: redis.Redis, prefix: str = "") -> BrokerNow:
    """Ask Redis.

    Args:
        client: of the fleet's database.
        prefix: in front of every key.

    Raises:
        RedisError: it does not answer.
    """
    pipe = client.pipeline(transaction=False)
    for queue in ALL_QUEUES:
        pipe.llen(f"{prefix}{queue}")
        pipe.lindex(f"{prefix}{queue}", -1)
    pipe.zrange(f"{prefix}{UNACKED_INDEX}", 0, 0, withscores=True)
    pipe.time()
    pipe.info()
    *pairs, held, (seconds, microseconds), facts = pipe.execute()
    now = seconds + microseconds / 1e6
    depth = dict(zip(ALL_QUEUES, pairs[::2], strict=True))
    sent = {queue: _sent_at(item) for queue, item in zip(ALL_QUEUES, pairs[1::2], strict=True)}
    ledger, leftovers = _ledger(client, prefix, now)
    return BrokerNow(
        depth=depth,
        oldest={queue: max(0.0, now - at) for queue, at in sent.items() if at is not None},
        unacked=_unacked(client, prefix),
        unacked_oldest=max(0.0, now - float(held[0][1])) if held else 0.0,
        ledger=ledger,
        leftovers=leftovers,
        facts=facts,
    )


def _sent_at(item: bytes | None) -> float | None:
    """When a message was published: as its header says, or its id, where that tells a time (RFC 9562, version 7)."""
    if item is None:
        return None
    try:
        headers = json.loads(item)["headers"]
        at = headers.get(SENT_AT_HEADER)
        if isinstance(at, int | float):
            return float(at)
        id_ = uuid.UUID(headers["id"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return (id_.int >> 80) / 1000 if id_.version == _UUID_7 else None


def _unacked(client: redis.Redis, prefix: str) -> dict[str, int]:
    found: dict[str, int] = {}
    read, cursor = 0, 0
    seen: set[bytes] = set()
    while read < UNACKED_READ:
        page: Any
        cursor, page = client.hscan(f"{prefix}{UNACKED}", cursor, count=PAGE)
        for tag, value in page.items():
            if tag in seen:  # HSCAN may tell of one twice
                continue
            seen.add(tag)
            queue = _queue_of(value)
            if queue is not None:
                found[queue] = found.get(queue, 0) + 1
        read += max(len(page), 1)
        if not cursor:
            break
    return found


def _queue_of(value: bytes) -> str | None:
    """The queue of a message that a worker holds, where it is one of ours."""
    match = _ROUTE.search(value[-300:])
    queue = match[1].decode(errors="replace") if match else ""
    return queue if queue in ALL_QUEUES else None


def _ledger(client: redis.Redis, prefix: str, now: float) -> tuple[int, int]:
    keys: list[str] = []
    for raw in client.scan_iter(match=f"{prefix}{LEDGER_PREFIX}*", count=1000, _type="HASH"):
        assert isinstance(raw, bytes)
        keys.append(raw.decode(errors="replace"))
    if not keys:
        return 0, 0
    pipe = client.pipeline(transaction=False)
    for key in keys:
        pipe.hlen(key)
    total = leftovers = 0
    for key, entries in zip(keys, pipe.execute(), strict=True):
        try:
            bucket, _ = ledger_place(key.removeprefix(prefix))
        except ValueError:
            continue
        total += entries
        if now - (bucket + 1) * LEDGER_BUCKET_SECONDS > LEFTOVER_SECONDS:
            leftovers += entries
    return total, leftovers

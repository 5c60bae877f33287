"""P3: `send_notification.delay()` with its ledger entry against a bare Celery `.delay()`."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any, Final

import redis

from bench import noop
from bench.report import Line, progress
from bench.rig import Rig
from bench.sending import PAYLOAD, PHONE
from notify_tasks import send_notification

CHUNK: Final = 50
GOAL: Final = 1.2


def measure(rig: Rig, *, calls: int) -> list[Line]:
    """Call both in turns, 50 at a time, in this one process.

    Args:
        rig: the servers; the queues are emptied afterwards.
        calls: of each.
    """
    kinds: dict[str, Callable[[], Any]] = {
        "bare": lambda: noop.noop.delay(
            "order.shipped", to={"phone": PHONE}, channels=["sms"], payload=PAYLOAD
        ),
        "ours": lambda: send_notification.delay(
            "order.shipped", to={"phone": PHONE}, channels=["sms"], payload=PAYLOAD
        ),
    }
    progress(f"P3: {calls} calls of each kind")
    cpu: dict[str, list[float]] = {name: [] for name in kinds}
    wall: dict[str, list[float]] = {name: [] for name in kinds}
    for call in kinds.values():
        for _ in range(CHUNK):
            call()
    for _ in range(max(1, calls // CHUNK)):
        for name, call in kinds.items():
            cpu_before, before = time.process_time(), time.perf_counter()
            for _ in range(CHUNK):
                call()
            wall[name].append((time.perf_counter() - before) / CHUNK * 1e6)
            cpu[name].append((time.process_time() - cpu_before) / CHUNK * 1e6)
    client: redis.Redis = redis.Redis.from_url(rig.redis.url)
    client.flushall()
    client.close()
    middle = statistics.median
    return [
        Line(
            "P3 .delay() with ledger, client CPU",
            middle(cpu["ours"]),
            middle(cpu["bare"]),
            "us",
            GOAL,
            least=False,
        ),
        Line(
            "P3 .delay() with ledger, wall",
            middle(wall["ours"]),
            middle(wall["bare"]),
            "us",
            GOAL,
            least=False,
        ),
    ]

"""`notify exporter`: looks at Redis and PostgreSQL on threads, and answers from what they have found.

An answer never waits for a server that hangs: it asks for fresh numbers, gives them a moment, and then tells the last
ones, their age, and that the part is down.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from typing import Any, Final

import redis
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from notify_tasks import metrics
from notify_tasks.exporter import broker, families
from notify_tasks.exporter.broker import BrokerNow
from notify_tasks.exporter.parts import Part
from notify_tasks.exposing import Exposed, Page, words
from notify_tasks.metrics import DELAY, OBJECTIVE_SECONDS, WINDOWS
from notify_tasks.redis_place import client
from notify_tasks.settings import Settings
from notify_tasks.store import sampling, tallying
from notify_tasks.store.database import Database, DatabaseError
from notify_tasks.store.sampling import Now, Waiting
from notify_tasks.store.tallying import Totals

logger = logging.getLogger(__name__)

ANSWER_SECONDS: Final = 1.2
"""So long an answer waits for fresh numbers: less than the 2 s that it may take itself."""
FRESH_SECONDS: Final = 0.25
"""Numbers that are not older are not asked for again."""
REDIS_SECONDS: Final = 2.0
EVERY: Final = 5.0
WAITING_EVERY: Final = 15.0
HUNG_AFTER: Final = 3.0
"""Seconds after which a server that has not answered counts as away, though it takes connections."""


class Exporter:
    """The metrics of one fleet.

    Args:
        settings: name the servers.
        prefix: begins every key in Redis (kombu's `global_keyprefix`).
    """

    def __init__(self, settings: Settings, *, prefix: str = "") -> None:
        self._redis: redis.Redis = client(
            settings.need_broker_url(), seconds=REDIS_SECONDS, health_check_interval=15
        )
        self._database = Database(
            settings.need_database_url(), connections=4, wait=REDIS_SECONDS, name="notify-exporter"
        )
        away: dict[str, Any] = {"expected": (DatabaseError,), "hung_after": HUNG_AFTER}
        self.broker: Part[BrokerNow] = Part(
            "broker",
            lambda: broker.look(self._redis, prefix),
            every=EVERY,
            expected=(redis.RedisError,),
            hung_after=HUNG_AFTER,
        )
        self.postgres: Part[Now] = Part("postgres", lambda: sampling.now(self._database), every=EVERY, **away)
        self.waiting: Part[Waiting] = Part(
            "waiting",
            lambda: sampling.waiting(self._database, objective=OBJECTIVE_SECONDS),
            every=WAITING_EVERY,
            **away,
        )
        self.totals: Part[Totals] = Part("totals", self._count, every=EVERY, **away)
        self.parts: tuple[Part[Any], ...] = (self.broker, self.postgres, self.waiting, self.totals)
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def start(self) -> None:
        """Begin to look."""
        for part in self.parts:
            part.start()

    def stop(self) -> None:
        """End, and let go of the connections."""
        for part in self.parts:
            part.stop()
        threading.Thread(target=self._database.close, daemon=True).start()  # it may hang with its server
        self._redis.close()

    def _count(self) -> Totals:
        tallying.count(self._database, bounds=DELAY, objective=OBJECTIVE_SECONDS)
        return tallying.read(self._database, WINDOWS)

    # --- pages ----------------------------------------------------------------------------------------

    def metrics(self) -> Page:
        """`/metrics`."""
        asked = time.monotonic()
        old = [part for part in self.parts if part.age > FRESH_SECONDS]
        for part in old:
            part.ask()
        for part in old:
            # One that leaves itself more time, or hangs, is told of as it was.
            part.wait(asked - FRESH_SECONDS, asked + ANSWER_SECONDS)
        return Page(generate_latest(self._registry), CONTENT_TYPE_LATEST)

    def live(self) -> Page:
        """`/livez`: it answers, and none of its threads has ended."""
        ended = [part.name for part in self.parts if not part.alive]
        return words(f"nobody looks at {', '.join(ended)}", 503) if ended else words("alive")

    def ready(self) -> Page:
        """`/readyz`: it has numbers to tell, if only that a part is away."""
        waiting = [part.name for part in self.parts if not part.tried]
        return words(f"not looked at yet: {', '.join(waiting)}", 503) if waiting else words("ready")

    # --- numbers --------------------------------------------------------------------------------------

    def collect(self) -> Iterator[Any]:
        """As prometheus_client asks a collector."""
        yield families.family(
            metrics.UP, (((part.name,), float(part.up)) for part in (self.broker, self.postgres))
        )
        yield families.family(
            metrics.SAMPLE_AGE_SECONDS, (((part.name,), part.age) for part in self.parts if part.last)
        )
        yield families.family(
            metrics.SAMPLE_SECONDS, (((part.name,), part.last.took) for part in self.parts if part.last)
        )
        if self.broker.up and (found := self.broker.last):
            yield from families.of_broker(found.found)
        if self.postgres.up and (now := self.postgres.last):
            yield from families.of_now(now.found)
        waiting = self.waiting.last
        if waiting and self.postgres.up:
            yield from families.of_waiting(waiting.found)
        if totals := self.totals.last:
            yield from families.of_totals(totals.found, waiting.found if waiting else None)

    def describe(self) -> list[Any]:
        """Nothing: it is asked before the first look."""
        return []


def serve(settings: Settings, host: str, port: int, *, prefix: str = "") -> tuple[Exporter, Exposed]:
    """Begin to look and to answer.

    Args:
        settings: name the servers.
        host: the address to listen on.
        port: the port; 0 takes a free one.
        prefix: begins every key in Redis (kombu's `global_keyprefix`).

    Raises:
        NotConfigured: a setting is missing or wrong, or the port cannot be had.
    """
    exporter = Exporter(settings, prefix=prefix)
    exposed = Exposed(
        host, port, {"/metrics": exporter.metrics, "/livez": exporter.live, "/readyz": exporter.ready}
    )
    exporter.start()
    exposed.start()
    return exporter, exposed

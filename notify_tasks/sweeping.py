"""The sweep: every obligation is a row, and this finds those that nobody is working on.

It wakes what is due, ends leases that ran out, expires what is worthless, and publishes again what was lost on the
way. Any number of sweeps may run at once. When none has run for a while, any worker does it (`Guard`).
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import redis

from notify_tasks import digests, metering
from notify_tasks.intake import Intake
from notify_tasks.ledger import Ledger
from notify_tasks.notification import Notification
from notify_tasks.parked import Parking
from notify_tasks.providers import Pools
from notify_tasks.routing import CHANNELS, LANES, WORK_QUEUES, queue_for
from notify_tasks.store import digests as stored_digests
from notify_tasks.store import intakes, receipts, schedules, sweeps
from notify_tasks.store.database import BadRow, Database, DatabaseError
from notify_tasks.store.sweeps import Passed, Wake

logger = logging.getLogger(__name__)

BATCH: Final = 1000
BATCHES: Final = 20
"""Rows at most in one go, and how often in one sweep: the rest is the next sweep's."""
SCHEDULES: Final = 200
"""Recurring schedules in one go: between its commits, rules are reckoned."""
LEDGER_PAGE: Final = 500
TAKEOVER_SECONDS: Final = 10.0
"""Less than `sweeps.GAP_SECONDS`, or the take-over itself would be the gap that keeps leases from ending."""
GUARD_LOOKS_EVERY: Final = 2.0
GUARD_SWEEPS_EVERY: Final = 5.0
GUARD_LOCK: Final = 0x7377656570  # "sweep"

_CHANNEL_QUEUES: Final = [(queue_for(channel, lane), channel, lane) for channel in CHANNELS for lane in LANES]


@dataclass(slots=True)
class Swept:
    """What one sweep did."""

    due: int = 0
    expired: int = 0
    leases_ended: int = 0
    rewoken_as_lost: int = 0
    occurrences: int = 0
    digests: int = 0
    intake: int = 0
    parked: int = 0
    receipts: int = 0
    markers: int = 0
    problems: list[str] = field(default_factory=list)

    def numbers(self) -> dict[str, int]:
        """How many of each."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "problems"}

    def __str__(self) -> str:
        said = ", ".join(f"{name} {value}" for name, value in self.numbers().items() if value)
        return said or "nothing to do"


@dataclass(frozen=True, slots=True)
class Publishing:
    """How a sweep publishes what it finds, at best effort: what does not arrive, the next one finds.

    Args:
        wake: deliveries, on their queues.
        mark: marker messages `(queue, number)`.
        receipts: receipts to apply.
    """

    wake: Callable[[Sequence[Wake]], None]
    mark: Callable[[Sequence[tuple[str, int]]], None]
    receipts: Callable[[Sequence[int]], None]


class Sweeper:
    """Sweeps.

    Args:
        publish: what it publishes by.
        worker: this process's name.
        later: told in how many seconds `wake_due` is to run again, where more was due than it takes at once.
        steps: gives later steps their turn, and returns how many of them were woken.
    """

    def __init__(  # noqa: PLR0913 - one for each part that it works with
        self,
        *,
        database: Database,
        pools: Pools,
        ledger: Ledger,
        intake: Intake,
        parking: Parking,
        publish: Publishing,
        worker: str,
        later: Callable[[float], None] = lambda _: None,
        steps: Callable[[], int] = lambda: 0,
    ) -> None:
        self._database = database
        self._pools = pools
        self._ledger = ledger
        self._intake = intake
        self._parking = parking
        self._later = later
        self._wake = publish.wake
        self._mark = publish.mark
        self._wake_receipts = publish.receipts
        self._worker = worker
        self._steps = steps

    def sweep(self) -> Swept:
        """One sweep. Redis away stops only what needs Redis.

        Raises:
            DatabaseError: PostgreSQL is away; the next sweep goes on.
        """
        began, swept = metering.now(), Swept()
        begun = sweeps.begin(self._database, by=self._worker, lease=self._pools.longest_lease())
        if begun.leases_open:
            self._end_leases(swept)
        self._expire(swept)
        swept.due = self.wake_due()
        self._schedules(swept)
        self._digests(swept)
        self._intake_rows(swept)
        self._receipts(swept)
        passed = sweeps.passed_markers(self._database)
        self._lost(swept, passed)
        try:
            ledgers = self._ledger.keys()
            self._lost_messages(swept, ledgers, passed)
            self._markers(swept, {queue for _, queue in ledgers.values()})
            swept.parked = self._parking.collect()
        except redis.RedisError as error:
            swept.problems.append(f"Redis: {type(error).__name__}")
        sweeps.prune_markers(self._database)
        metering.swept(began, swept.numbers())
        return swept

    def _end_leases(self, swept: Swept) -> None:
        knowable = self._pools.knowable()
        for _ in range(BATCHES):
            wakes, ended = sweeps.end_leases(self._database, knowable=knowable, limit=BATCH)
            swept.leases_ended += ended
            self._wake(wakes)
            if ended < BATCH:
                break
        sweeps.count(self._database, "leases_ended", swept.leases_ended)

    def _expire(self, swept: Swept) -> None:
        for _ in range(BATCHES):
            expired = sweeps.expire(self._database, limit=BATCH)
            swept.expired += expired
            if expired < BATCH:
                break

    def wake_due(self) -> int:
        """Wake what is due now; returns how many that were.

        Raises:
            DatabaseError: as `sweep`.
        """
        found = self._steps()
        for _ in range(BATCHES):
            wakes = sweeps.take_due(self._database, limit=BATCH)
            full = len(wakes) == BATCH
            if full:  # the high lane does not wait behind what has been due for longer
                wakes += sweeps.take_due(self._database, limit=BATCH, lane="high")
            found += len(wakes)
            self._wake(wakes)
            if not full:
                break
        else:  # many at the same second: the rest need not wait for the next sweep, and this one has more to do
            self._later(0.0)
        return found

    def ring(self) -> None:
        """What an alarm does: what is due now goes, gathered or by itself.

        Raises:
            DatabaseError: as `sweep`.
        """
        self.wake_due()
        swept = Swept()
        self._digests(swept)
        if swept.digests:
            self._intake_rows(swept)

    def _digests(self, swept: Swept) -> None:
        """Digests that are due become calls in the intake table."""
        try:
            swept.digests = digests.flush(self._database)
            stored_digests.prune(self._database)
        except BadRow as error:  # as with schedules
            swept.problems.append(f"digests: {error}")
            logger.error("digests are not sent: %s", error)  # noqa: TRY400 - the words hold no row

    def _schedules(self, swept: Swept) -> None:
        """What recurs and is due becomes calls in the intake table."""
        try:
            for _ in range(BATCHES):
                looked_at, made = schedules.tick(self._database, limit=SCHEDULES)
                swept.occurrences += made
                if not looked_at:
                    break
            schedules.prune(self._database)
        except BadRow as error:  # everything else goes on
            swept.problems.append(f"schedules: {error}")
            logger.error("recurring schedules are not taken up: %s", error)  # noqa: TRY400 - the words hold no row

    def _intake_rows(self, swept: Swept) -> None:
        for _ in range(BATCH):  # rows that had been taken before come one by one
            taken = self._intake.drain()
            swept.intake += taken
            if not taken:
                break

    def _receipts(self, swept: Swept) -> None:
        for _ in range(BATCHES):
            ids = receipts.take_due(self._database, limit=BATCH)
            swept.receipts += len(ids)
            self._wake_receipts(ids)
            if len(ids) < BATCH:
                break

    def _lost(self, swept: Swept, passed: dict[str, Passed]) -> None:
        """Rows whose wake-up is gone."""
        targets = [
            (channel, lane, passed[queue].n) for queue, channel, lane in _CHANNEL_QUEUES if queue in passed
        ]
        if not targets:
            return
        found = 0
        for _ in range(BATCHES):
            wakes = sweeps.take_lost(self._database, targets, limit=BATCH)
            found += len(wakes)
            self._wake(wakes)
            if len(wakes) < BATCH:
                break
        self._count_lost(swept, found, "wake-ups")

    def _lost_messages(
        self, swept: Swept, ledgers: dict[str, tuple[int, str]], passed: dict[str, Passed]
    ) -> None:
        """Ledger entries whose message is gone: into the intake table, and planned from there."""
        found = 0
        for key, (bucket, queue) in ledgers.items():
            mark = passed.get(queue)
            if mark is None or mark.bucket is None or bucket >= mark.bucket - 1:
                continue
            entries = self._ledger.entries(key, LEDGER_PAGE)
            found += self._keep(queue, entries)
            self._ledger.remove(key, entries)
        if found:
            self._count_lost(swept, found, "messages")
            self._intake_rows(swept)

    def _keep(self, queue: str, entries: Mapping[bytes, dict[str, Any] | bytes]) -> int:
        """Store the envelopes; park what is none, and what PostgreSQL refuses. Returns how many were new."""
        envelopes = {f: e for f, e in entries.items() if isinstance(e, dict) and _readable(e)}
        unreadable = {f: e for f, e in entries.items() if f not in envelopes}
        self._parking.park_ledger(queue, unreadable, "ledger_unreadable")
        if not envelopes:
            return 0
        try:
            return intakes.keep(self._database, list(envelopes.values()), origin="ledger")
        except BadRow:
            return sum(self._keep_one(queue, field, one) for field, one in envelopes.items())

    def _keep_one(self, queue: str, field: bytes, envelope: dict[str, Any]) -> int:
        try:
            return intakes.keep(self._database, [envelope], origin="ledger")
        except BadRow:
            self._parking.park_ledger(queue, {field: envelope}, "refused_by_database")
            return 0

    def _count_lost(self, swept: Swept, found: int, what: str) -> None:
        if found:
            swept.rewoken_as_lost += found
            sweeps.count(self._database, "rewoken_as_lost", found)
            logger.warning("%d lost %s published again", found, what)

    def _markers(self, swept: Swept, ledger_queues: set[str]) -> None:
        waiting = set(sweeps.queues_with_waiting_rows(self._database, _CHANNEL_QUEUES))
        queues = sorted((waiting | ledger_queues) & set(WORK_QUEUES))
        if not queues:
            return
        numbered = sweeps.new_markers(self._database, queues, self._ledger.bucket_now())
        self._mark(numbered)
        swept.markers = len(numbered)


def _readable(envelope: dict[str, Any]) -> bool:
    try:
        Notification.from_wire(envelope)
    except Exception:  # noqa: BLE001 - whatever is wrong with one entry, the sweep goes on
        return False
    return True


class Guard:
    """Sweeps when nobody else does: no beat, no maintenance process and no Redis can stop it.

    Every worker process has one. The first that finds the last sweep too old takes a PostgreSQL lock and goes on
    sweeping until a sweep of somebody else shows up.
    """

    def __init__(self, database: Database, sweeper: Sweeper) -> None:
        self._database = database
        self._sweeper = sweeper
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="notify-sweep-guard", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def stop(self) -> None:
        """End; a sweep that runs is finished by its database."""
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.wait(GUARD_LOOKS_EVERY * random.uniform(0.8, 1.2)):  # noqa: S311 - a spread
            try:
                age = sweeps.last_age(self._database)
                if age is None or age > TAKEOVER_SECONDS:
                    self._take_over()
            except DatabaseError:
                continue
            except Exception:
                logger.exception("the sweep guard met a problem and goes on")

    def _take_over(self) -> None:
        with self._database.alone(GUARD_LOCK) as mine:
            if not mine:
                return
            logger.warning("no sweep for %.0f s: this worker sweeps until another one does", TAKEOVER_SECONDS)
            while not self._stop.is_set():
                self._sweeper.sweep()
                if self._stop.wait(GUARD_SWEEPS_EVERY):
                    return
                age = sweeps.last_age(self._database)
                if age is not None and age < GUARD_SWEEPS_EVERY * 0.8:
                    return

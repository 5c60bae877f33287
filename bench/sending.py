"""P2: single sends over one named channel, the full durable path, against stock workers with a no-op task.

Workers are started and warmed, stopped (SIGSTOP), their queue is loaded, and they are let go (SIGCONT). Rate and
CPU count from there until the queue and the unacknowledged messages are gone. The variants take turns.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from bench import noop
from bench.machine import cpu_seconds, thread_seconds
from bench.report import Line, columns, progress
from bench.rig import INAPP_QUEUE, SMS_QUEUE, Rig, Workers
from notify_tasks import send_notification

PAYLOAD: Final = {
    "order_id": 981,
    "carrier": "DHL",
    "tracking_url": "https://track.example.com/parcel?id=JD0146&lang=any",
    "customer_name": "Ana Silva",
    "items": [{"name": "Coffee grinder", "quantity": 1}, {"name": "Paper filters, size 4", "quantity": 3}],
}
PHONE: Final = "+4915112345678"
PERSON: Final = "user-42"
GOAL: Final = 0.5
WARM_UP: Final = 60
LONGEST: Final = 120.0
"""Seconds in which a queue must be drained."""


@dataclass(frozen=True, slots=True)
class Spent:
    """One drained queue: messages a second, and microseconds of CPU a message."""

    rate: float
    worker: float
    redis: float
    postgres: float
    far: float
    main_threads: float
    pool_threads: float

    @property
    def total(self) -> float:
        """CPU without the far end's, which is the provider's own."""
        return self.worker + self.redis + self.postgres


@dataclass(slots=True)
class Variant:
    """One kind of worker and what is put on its queue."""

    title: str
    workers: Workers
    put: Callable[[], Any]
    runs: list[Spent] = field(default_factory=list)

    def median(self, figure: str) -> float:
        """The median of one figure over the runs."""
        return float(statistics.median(getattr(run, figure) for run in self.runs))


def start(rig: Rig, *, processes: int, threads: int) -> list[Variant]:
    """Start the workers of each variant, one kind after the other, warm them and stop them. The baseline is first."""
    rig.rows("INSERT INTO notify.recipient (tenant, id) VALUES ('default', %s) RETURNING id", PERSON)
    many = {"processes": processes, "threads": threads}
    kinds: list[tuple[str, str, str, Callable[[], Any]]] = [
        (
            "no-op",
            noop.QUEUE,
            "bench.noop",
            lambda: noop.noop.delay("order.shipped", to={"phone": PHONE}, channels=["sms"], payload=PAYLOAD),
        ),
        (
            "sms",
            SMS_QUEUE,
            "notify_tasks",
            lambda: send_notification.delay(
                "order.shipped", to={"phone": PHONE}, channels=["sms"], payload=PAYLOAD
            ),
        ),
        (
            "inapp",
            INAPP_QUEUE,
            "notify_tasks",
            lambda: send_notification.delay("order.shipped", to=PERSON, channels=["inapp"], payload=PAYLOAD),
        ),
    ]
    variants = []
    for title, queue, app, put in kinds:
        progress(f"P2: start of the workers for {title}")
        workers = rig.start(title, queue, app=app, **many)
        for _ in range(WARM_UP):
            put()
        workers.drain(seconds=LONGEST)
        workers.freeze()
        variants.append(Variant(title, workers, put))
    return variants


def measure(rig: Rig, variants: list[Variant], *, messages: int, repeats: int) -> list[Line]:
    """Drain each variant's queue, in turns.

    Args:
        rig: the servers.
        variants: as `start` made them.
        messages: on the queue in each run.
        repeats: runs of each variant.
    """
    for repeat in range(1, repeats + 1):
        for variant in variants:
            spent = drain(rig, variant, messages)
            variant.runs.append(spent)
            progress(
                f"P2 {repeat}/{repeats} {variant.title}: {spent.rate:.0f}/s, {spent.total:.0f} us CPU a message"
            )
    _check(rig, messages * repeats + WARM_UP)
    base, *ours = variants
    lines = []
    for variant in ours:
        name = f"P2 single send, {variant.title}"
        lines += [
            Line(f"{name}, rate", variant.median("rate"), base.median("rate"), "/s", GOAL),
            Line(f"{name}, CPU", variant.median("total"), base.median("total"), "us"),
        ]
    return lines


def breakdown(variants: list[Variant]) -> str:
    """Where the CPU goes, in microseconds a message."""
    names = ("total", "worker", "main_threads", "pool_threads", "redis", "postgres", "far")
    heads = (
        "us CPU a message",
        "total",
        "worker",
        "of it consumer",
        "of it tasks",
        "Redis",
        "PostgreSQL",
        "far end",
    )
    spans = [
        f"{min(run.rate for run in variant.runs):.0f}-{max(run.rate for run in variant.runs):.0f}"
        for variant in variants
    ]
    return columns(
        [
            (*heads, "rate/s, min-max"),
            *(
                (variant.title, *(f"{variant.median(name):,.0f}" for name in names), span)
                for variant, span in zip(variants, spans, strict=True)
            ),
        ]
    )


def count(rig: Rig, variants: list[Variant], *, messages: int) -> str:
    """One more run of each, in which the commands and statements of a message are counted, not its time."""
    rows = [("a message", "Redis commands", "SQL commits", "the most frequent Redis commands")]
    before = _commits(rig)
    for number, variant in enumerate(variants):
        client = variant.workers.client
        _load(variant, messages)
        client.config_resetstat()
        variant.workers.thaw()
        variant.workers.drain(seconds=LONGEST)
        stats: dict[str, dict[str, int]] = client.info("commandstats")
        variant.workers.freeze()
        calls = {name.removeprefix("cmdstat_"): int(it["calls"]) for name, it in stats.items()}
        most = sorted(calls.items(), key=lambda it: -it[1])[:8]
        after = before if number == 0 else _commits(rig)  # the baseline has no database
        rows.append(
            (
                variant.title,
                f"{sum(calls.values()) / messages:.1f}",
                f"{(after - before) / messages:.1f}",
                ", ".join(f"{name} {n / messages:.1f}" for name, n in most),
            )
        )
        before = after
    return columns(rows)


def drain(rig: Rig, variant: Variant, messages: int) -> Spent:
    """Load a stopped variant's queue, let it go, and say what that took until the queue was empty."""
    workers = variant.workers
    _load(variant, messages)
    pids = workers.pids()
    servers = [(rig.redis.pid or 0,), (rig.postgres.pid or 0,), (rig.sandbox.pid,)]
    threads_before = thread_seconds(pids)
    cpu_before = [cpu_seconds(*pids), *(cpu_seconds(*roots) for roots in servers)]
    begun = time.perf_counter()
    workers.thaw()
    took = workers.drain(seconds=LONGEST) - begun
    cpu_after = [cpu_seconds(*pids), *(cpu_seconds(*roots) for roots in servers)]
    threads_after = thread_seconds(pids)
    workers.freeze()
    if workers.pids() != pids:
        raise RuntimeError(
            f"a worker for {variant.title} was started anew during a run; see why with `notify doctor`"
        )
    each = [(after - before) / messages * 1e6 for before, after in zip(cpu_before, cpu_after, strict=True)]
    main, pool = (
        (after - before) / messages * 1e6 for before, after in zip(threads_before, threads_after, strict=True)
    )
    worker, store, postgres, far = each
    return Spent(messages / took, worker, store, postgres, far, main, pool)


def _load(variant: Variant, messages: int) -> None:
    for _ in range(messages):
        variant.put()
    if (found := variant.workers.left()) != messages:
        raise RuntimeError(
            f"{variant.title}: {found} of {messages} messages are on the queue; run the benchmark again"
        )


def _check(rig: Rig, expected: int) -> None:
    """Every message was sent once, by one attempt: a rate of anything less would be worth nothing."""
    found = {
        str(channel): (sent, attempts)
        for channel, sent, attempts in rig.rows(
            "SELECT d.channel, count(*) FILTER (WHERE d.state = 'sent'), sum(d.attempts)"
            " FROM notify.delivery d GROUP BY 1"
        )
    }
    for channel in ("sms", "inapp"):
        if found.get(channel) != (expected, expected):
            raise RuntimeError(
                f"{channel}: {found.get(channel)} sent and attempts, and not {expected} of each"
            )


def _commits(rig: Rig) -> int:
    """Commits so far. A backend that idles reports its own within ten seconds."""
    time.sleep(11)
    ((value,),) = rig.rows("SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()")
    return int(str(value))

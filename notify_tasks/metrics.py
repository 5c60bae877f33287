"""Every metric of the fleet: its name, labels, unit and help. Pure: what counts them is `metering` and `exporter`.

Names follow prometheus.io/docs/practices/naming: base units (seconds, bytes), `_total` for what only grows, and labels
whose values are few. No label holds a tenant, an address, an id or a host.

    WORKER    counted in each worker process. They are for rates: a process that is killed takes its numbers with it,
              and a new one begins at 0, which `rate()` and `increase()` allow for.
    FLEET     told by `notify exporter`, of Redis and PostgreSQL. Its totals are rows: they survive every process,
              and agree with what was sent to the last notification.

The values that a label may have:

    type      a name in the catalogue, else `other`
    channel   email, sms, push, webpush, inapp, webhook, chat
    lane      high, normal, bulk
    provider  a name in `notify.toml`
    queue     a queue of `routing.ALL_QUEUES`
    reason    one of `REASONS`, else `other`; empty where there is none
    others    listed beside the metric
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from notify_tasks.routing import ALL_QUEUES, CHANNELS, LANES
from notify_tasks.states import FINAL, State

OTHER: Final = "other"
"""The value of a label whose own is not among those that it may have."""


class Kind(StrEnum):
    """Of a metric, as Prometheus names it."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric.

    Args:
        name: in full: a counter's ends in `_total`, and the last word of another is its unit, where it has one.
        kind: counter, gauge or histogram.
        help: one sentence.
        labels: their names.
        buckets: of a histogram: upper bounds, in the unit.
    """

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()

    @property
    def unit(self) -> str:
        """Its unit: `seconds`, `bytes`, `ratio`; empty for a number of things."""
        last = self.name.removesuffix("_total").rpartition("_")[2]
        return last if last in UNITS else ""


UNITS: Final = ("seconds", "bytes", "ratio")

FAST: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
"""Seconds of what happens inside a process."""
CALL: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Seconds of a provider's call, which ends after 60 at most."""
DELAY: Final = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 21600.0, 86400.0)
"""Seconds that a person waits. 10 is the objective, and must stay a bound."""
OBJECTIVE_SECONDS: Final = 10.0
"""The objective: a notification is sent so soon after it was accepted, or after the time for which it was planned."""
WINDOWS: Final = {"5m": 300, "1h": 3600}
"""Of the objective: name and seconds."""

_FINAL: Final = ", ".join(sorted(FINAL))


def _counter(name: str, help_: str, *labels: str) -> Metric:
    return Metric(f"notify_{name}_total", Kind.COUNTER, help_, labels)


def _gauge(name: str, help_: str, *labels: str) -> Metric:
    return Metric(f"notify_{name}", Kind.GAUGE, help_, labels)


def _histogram(name: str, help_: str, *labels: str, buckets: tuple[float, ...]) -> Metric:
    return Metric(f"notify_{name}", Kind.HISTOGRAM, help_, labels, buckets)


# --- of each worker process ---------------------------------------------------------------------------

CALLS: Final = _counter(
    "calls",
    "Calls of producers that this process took in: accepted, repeated, conflict, rejected, cancelled, or waiting for "
    "their type's folder; a rejection has its reason.",
    "type", "result", "reason",
)  # fmt: skip
PLANNED: Final = _counter(
    "planned",
    "Decisions of plans: send, hold, digest or drop, and why.",
    "channel", "decision", "reason",
)  # fmt: skip
ATTEMPTS: Final = _counter(
    "attempts",
    "Attempts that ended: accepted, a class of error (throttled, try_later, unavailable, unroutable, misconfigured, "
    "uncertain, refused, address_invalid, opted_out), or released, where nothing was sent.",
    "channel", "provider", "type", "outcome",
)  # fmt: skip
RESULTS: Final = _counter(
    "results",
    "What deliveries became by an attempt or a closed gate: a final state, or queued, retrying, held.",
    "channel", "type", "state",
)  # fmt: skip
RENDER_SECONDS: Final = _histogram(
    "render_seconds", "Time to make a message from its templates.", "channel", buckets=FAST
)
PROVIDER_SECONDS: Final = _histogram(
    "provider_seconds", "Time of a provider's call, whatever came of it.", "channel", "provider", buckets=CALL
)
QUEUE_WAIT_SECONDS: Final = _histogram(
    "queue_wait_seconds",
    "Time from publishing a message to its start in a worker, by the clocks of the two; countdowns are left out.",
    "queue", buckets=DELAY,
)  # fmt: skip
GATE_CLOSED: Final = _counter(
    "gate_closed",
    "Deliveries that a closed gate kept from starting: paused, rate, provider_share_full, no_provider_ready, "
    "recipient_limit, country_not_allowed.",
    "channel", "gate",
)  # fmt: skip
LIMITER_WAIT_SECONDS: Final = _histogram(
    "limiter_wait_seconds", "Waits given to deliveries by a provider's rate.", "provider", buckets=DELAY
)
LIMITER_ALONE: Final = _counter(
    "limiter_alone", "Times that Redis did not answer for a rate and this process went on with its own share."
)
BREAKER_OPEN: Final = _gauge(
    "breaker_open", "1 while this process leaves the provider out, else 0.", "provider"
)
BREAKER_OPENINGS: Final = _counter(
    "breaker_openings", "Times that this process began to leave a provider out: down, misconfigured.",
    "provider", "reason",
)  # fmt: skip
FENCED_WRITES: Final = _counter(
    "fenced_writes", "Results that came after their lease had ended; the attempt took them, the delivery did not.",
    "channel",
)  # fmt: skip
RECEIPTS: Final = _counter(
    "receipts",
    "Receipts that this process looked at: applied, waiting for their delivery, unmatched, refused by PostgreSQL.",
    "provider", "result",
)  # fmt: skip
SWEEP_SECONDS: Final = _histogram("sweep_seconds", "Time of one sweep.", buckets=CALL)
SWEPT: Final = _counter(
    "swept",
    "What sweeps of this process found: due, expired, leases_ended, rewoken_as_lost, occurrences, intake, parked, "
    "receipts, markers, digests.",
    "what",
)  # fmt: skip
THREADS: Final = _gauge("threads", "Tasks that this worker can run at once.")
THREADS_BUSY: Final = _gauge("threads_busy", "Tasks that this worker runs now.")
CONSUMING: Final = _gauge(
    "consuming", "1 while this worker fetches messages, 0 while it waits for what is away."
)

COUNTED: Final = (
    CALLS, PLANNED, ATTEMPTS, RESULTS, RENDER_SECONDS, PROVIDER_SECONDS, QUEUE_WAIT_SECONDS, GATE_CLOSED,
    LIMITER_WAIT_SECONDS, LIMITER_ALONE, BREAKER_OPEN, BREAKER_OPENINGS, FENCED_WRITES, RECEIPTS, SWEEP_SECONDS, SWEPT,
)  # fmt: skip
"""What a process counts as it goes; the other three are looked up when they are asked for."""
WORKER: Final = (*COUNTED, THREADS, THREADS_BUSY, CONSUMING)

# --- of the fleet: `notify exporter` --------------------------------------------------------------------

UP: Final = _gauge("up", "1 while the part answers, else 0: broker, postgres.", "part")
SAMPLE_AGE_SECONDS: Final = _gauge(
    "sample_age_seconds",
    "Age of the numbers below: of the broker, of postgres, of what is waiting there, and of the totals.",
    "part",
)  # fmt: skip
SAMPLE_SECONDS: Final = _gauge(
    "sample_seconds", "What taking the last sample took: broker, postgres, waiting, totals.", "part"
)

QUEUE_MESSAGES: Final = _gauge("queue_messages", "Messages that wait in a queue.", "queue")
QUEUE_UNACKED: Final = _gauge(
    "queue_unacked", "Messages of a queue that workers hold: taken, and not yet acknowledged.", "queue"
)
QUEUE_OLDEST_SECONDS: Final = _gauge(
    "queue_oldest_seconds", "Age of the oldest message that waits in a queue; 0 where none does.", "queue"
)
QUEUE_CONSUMERS: Final = _gauge(
    "queue_consumers",
    "Worker processes that take messages from a queue, by their last word within 45 s.",
    "queue",
)
QUEUE_MARKER_SECONDS: Final = _gauge(
    "queue_marker_seconds",
    "Time for which the oldest marker of a queue has not come back: its workers are that far behind, or there is none.",
    "queue",
)  # fmt: skip
UNACKED_OLDEST_SECONDS: Final = _gauge(
    "unacked_oldest_seconds", "Time for which the oldest message is held by a worker; 300 puts it back."
)
LEDGER_ENTRIES: Final = _gauge("ledger_entries", "Calls in the ledger: published, and not yet accepted.")
LEDGER_LEFTOVERS: Final = _gauge(
    "ledger_leftovers",
    "Calls in the ledger for more than a minute: they wait in a queue, or were lost on the way.",
)
REDIS_MEMORY_BYTES: Final = _gauge("redis_memory_bytes", "Memory that Redis uses.")
REDIS_MEMORY_MAX_BYTES: Final = _gauge(
    "redis_memory_max_bytes", "Memory that Redis may use; 0 is without a limit."
)
REDIS_AOF_ENABLED: Final = _gauge("redis_aof_enabled", "1 where Redis has an append-only file, else 0.")
REDIS_AOF_OK: Final = _gauge("redis_aof_ok", "1 where the last write of that file, and its rewrite, worked.")
REDIS_NOEVICTION: Final = _gauge(
    "redis_noeviction", "1 where Redis evicts nothing; 0 where it may drop messages."
)
REDIS_CLIENTS: Final = _gauge("redis_clients", "Connections to Redis.")

DELIVERIES: Final = _counter(
    "deliveries",
    f"Deliveries that came into a final state, from PostgreSQL: {_FINAL}. One that is sent and then delivered counts "
    "in both.",
    "channel", "type", "state",
)  # fmt: skip
NOTIFICATIONS: Final = _counter(
    "notifications",
    "Notifications that ended by themselves, from PostgreSQL: rejected, digested, cancelled.",
    "type", "state",
)  # fmt: skip
SENT_DELAY_SECONDS: Final = _histogram(
    "accept_to_sent_seconds",
    "Time from acceptance, or from the time for which it was planned, until a provider took it; from PostgreSQL.",
    "channel", "lane", buckets=DELAY,
)  # fmt: skip
DELIVERED_DELAY_SECONDS: Final = _histogram(
    "accept_to_delivered_seconds", "The same until its receipt said delivered; from PostgreSQL.",
    "channel", "lane", buckets=DELAY,
)  # fmt: skip
SLO_SENT: Final = _gauge("slo_sent", "Deliveries sent within the window: 5m, 1h.", "window", "lane")
SLO_IN_TIME: Final = _gauge(
    "slo_sent_in_time", "Those of them that were sent within 10 s of their time.", "window", "lane"
)
SLO_OVERDUE: Final = _gauge(
    "slo_overdue", "Deliveries that should have been sent 10 s ago, and still wait.", "lane"
)
SLO_RATIO: Final = _gauge(
    "slo_in_time_ratio",
    "Share of deliveries sent within 10 s, of those sent within the window (5m, 1h) and those overdue now; 1 where "
    "there was none.",
    "window",
)  # fmt: skip

WAITING: Final = _gauge(
    "deliveries_waiting",
    "Deliveries that are not final: held, queued, retrying, sending.",
    "channel",
    "lane",
    "state",
)
OLDEST_SECONDS: Final = _gauge(
    "deliveries_oldest_seconds",
    "How late the oldest delivery is that is not final, from acceptance or from the time for which it was planned.",
    "channel", "state",
)  # fmt: skip
IN_DOUBT: Final = _gauge(
    "deliveries_in_doubt", "Deliveries of which nobody knows whether they were sent.", "channel"
)
FAILED: Final = _gauge(
    "deliveries_failed", "Dead letters: failed deliveries that nobody has sent again.", "channel"
)
INTAKE_WAITING: Final = _gauge("intake_waiting", "Calls kept in PostgreSQL that are not planned yet.")
INTAKE_OLDEST_SECONDS: Final = _gauge("intake_oldest_seconds", "Age of the oldest of them.")
PARKED: Final = _gauge("parked_messages", "Messages that cannot be processed and that nobody has put back.")
RECEIPTS_PENDING: Final = _gauge(
    "receipts_pending", "Receipts that are kept and not applied yet: new, waiting.", "state"
)
RECEIPTS_TROUBLE: Final = _gauge(
    "receipts_trouble", "Receipts that need somebody to look: unmatched, unknown, unreadable.", "state"
)
DIGESTS_OPEN: Final = _gauge("digests_open", "Digests that collect.")
DIGESTS_DUE: Final = _gauge("digests_due", "Digests whose time has come and that are not flushed.")
DIGEST_LAG_SECONDS: Final = _gauge("digest_lag_seconds", "How late the latest of them is.")
SCHEDULES_DUE: Final = _gauge("schedules_due", "Recurring schedules whose next occurrence is not taken up.")
SCHEDULE_LAG_SECONDS: Final = _gauge("schedule_lag_seconds", "How late the latest of them is.")
SCHEDULE_PROBLEMS: Final = _gauge("schedule_problems", "Recurring schedules that could not be looked at.")
SWEEP_AGE_SECONDS: Final = _gauge("sweep_age_seconds", "Time since a sweep began, whoever did it.")
BEAT_AGE_SECONDS: Final = _gauge(
    "beat_age_seconds", "Time since a tick of beat was worked off; beat sends one every 5 s."
)
PROVIDER_LEFT_OUT: Final = _gauge(
    "provider_left_out",
    "Worker processes that leave the provider out: down, misconfigured.",
    "provider",
    "reason",
)
PAUSES: Final = _gauge("pauses", "What an operator has paused: queue, type, tenant.", "kind")
WORKERS: Final = _gauge("workers", "Processes that have given their word within 45 s.")
CONFIGURATION_PROBLEMS: Final = _gauge(
    "configuration_problems", "Processes that keep an old configuration because a newer file is wrong."
)
CONFIGURATIONS: Final = _gauge(
    "configurations", "Different configurations in force; more than 1 for long is a fault."
)
REWOKEN: Final = _counter(
    "rewoken_as_lost", "Messages and wake-ups that were lost and published again by the sweep."
)
LEASES_ENDED: Final = _counter("leases_ended", "Leases that ran out: their worker was gone.")
RECEIPTS_FORGED: Final = _counter(
    "receipts_forged", "Receipts refused because their provider did not send them."
)

FLEET: Final = (
    UP, SAMPLE_AGE_SECONDS, SAMPLE_SECONDS, QUEUE_MESSAGES, QUEUE_UNACKED, QUEUE_OLDEST_SECONDS, QUEUE_CONSUMERS,
    QUEUE_MARKER_SECONDS, UNACKED_OLDEST_SECONDS, LEDGER_ENTRIES, LEDGER_LEFTOVERS, REDIS_MEMORY_BYTES,
    REDIS_MEMORY_MAX_BYTES, REDIS_AOF_ENABLED, REDIS_AOF_OK, REDIS_NOEVICTION, REDIS_CLIENTS, DELIVERIES,
    NOTIFICATIONS, SENT_DELAY_SECONDS, DELIVERED_DELAY_SECONDS, SLO_SENT, SLO_IN_TIME, SLO_OVERDUE, SLO_RATIO, WAITING,
    OLDEST_SECONDS, IN_DOUBT, FAILED, INTAKE_WAITING, INTAKE_OLDEST_SECONDS, PARKED, RECEIPTS_PENDING,
    RECEIPTS_TROUBLE, DIGESTS_OPEN, DIGESTS_DUE, DIGEST_LAG_SECONDS, SCHEDULES_DUE, SCHEDULE_LAG_SECONDS,
    SCHEDULE_PROBLEMS, SWEEP_AGE_SECONDS, BEAT_AGE_SECONDS, PROVIDER_LEFT_OUT, PAUSES, WORKERS,
    CONFIGURATION_PROBLEMS, CONFIGURATIONS, REWOKEN, LEASES_ENDED, RECEIPTS_FORGED,
)  # fmt: skip

ALL: Final = (*WORKER, *FLEET)

# --- values of labels -----------------------------------------------------------------------------------

REASONS: Final = frozenset(
    {
        # why a call is rejected
        *("unknown_event_type", "broken_event_type", "payload_invalid", "no_template", "address_invalid"),
        *("unknown_recipient", "no_address", "not_verified", "country_not_allowed", "conflict"),
        # why a plan drops, holds or gathers
        *("address_suppressed", "preference_off", "expired_before_planning", "same_address", "scheduled"),
        *("vacation", "quiet_hours", "expires_in_vacation", "expires_in_quiet_hours"),
        *(
            "expires_before_at",
            "expires_in_throttle",
            "expires_in_digest",
            "local_time",
            "local_time_utc",
            "local_time_passed",
            "step",
            "digest",
            "throttled",
        ),
        # gates
        *("paused", "rate", "provider_share_full", "no_provider_ready", "recipient_limit"),
    }
)
"""Every reason that a label may have."""

_VALUES: Final = {
    "channel": frozenset(CHANNELS),
    "lane": frozenset(LANES),
    "queue": frozenset(ALL_QUEUES),
    "state": frozenset({*map(str, State), "rejected", "digested", "cancelled"}),
}


def reason(words: str | None) -> str:
    """A reason as a label: its word, without the provider, time or person that follows it."""
    if not words:
        return ""
    word = words.partition(":")[0].partition(" ")[0]
    return word if word in REASONS else OTHER


def bounded(label: str, value: str | None) -> str:
    """A value of `channel`, `lane`, `queue` or `state`, where it is one."""
    return value if value is not None and value in _VALUES[label] else OTHER


def markdown() -> str:
    """The tables of the documentation."""
    titles = {
        "Each worker, by `NOTIFY_METRICS_PORT`: for rates": WORKER,
        "`notify exporter`: the fleet": FLEET,
    }
    lines: list[str] = []
    for title, some in titles.items():
        lines += [f"### {title}", "", "| metric | kind | labels | what it says |", "|---|---|---|---|"]
        lines += [f"| `{it.name}` | {it.kind} | {', '.join(it.labels)} | {it.help} |" for it in some]
        lines.append("")
    return "\n".join(lines).strip()

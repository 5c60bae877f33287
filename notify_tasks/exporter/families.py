"""The numbers of the parts under their names in `metrics`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.utils import floatToGoString

from notify_tasks import metrics
from notify_tasks.exporter.broker import BrokerNow
from notify_tasks.metrics import DELAY, OTHER, WINDOWS, Kind, Metric, bounded
from notify_tasks.routing import ALL_QUEUES, CHANNELS, LANES
from notify_tasks.store.sampling import Now, Waiting
from notify_tasks.store.tallying import Delays, Tally, Totals

TYPES: Final = 500
"""Event types that have series of their own: those with the most deliveries. The rest is `other`."""
Family = Any
Values = Iterable[tuple[tuple[str, ...], float]]


def family(metric: Metric, values: Values | float | None) -> Family:
    """One metric with its series. Without labels it is one value; None has none."""
    make = CounterMetricFamily if metric.kind is Kind.COUNTER else GaugeMetricFamily
    name = metric.name.removesuffix("_total")
    made = make(name, metric.help, labels=metric.labels)
    if values is None:
        return made
    series: Values = [((), float(values))] if isinstance(values, int | float) else values
    for labels, value in series:
        made.add_metric(labels, value)
    return made


# --- Redis --------------------------------------------------------------------------------------------


def of_broker(now: BrokerNow) -> Iterator[Family]:
    """What Redis tells."""
    yield family(metrics.QUEUE_MESSAGES, (((queue,), n) for queue, n in now.depth.items()))
    yield family(metrics.QUEUE_UNACKED, (((queue,), now.unacked.get(queue, 0)) for queue in ALL_QUEUES))
    # One whose time is not known shows none; an empty queue shows 0.
    yield family(
        metrics.QUEUE_OLDEST_SECONDS,
        (
            ((queue,), now.oldest.get(queue, 0.0))
            for queue, n in now.depth.items()
            if queue in now.oldest or not n
        ),
    )
    yield family(metrics.UNACKED_OLDEST_SECONDS, now.unacked_oldest)
    yield family(metrics.LEDGER_ENTRIES, now.ledger)
    yield family(metrics.LEDGER_LEFTOVERS, now.leftovers)
    facts = now.facts
    yield family(metrics.REDIS_MEMORY_BYTES, facts.get("used_memory"))
    yield family(metrics.REDIS_MEMORY_MAX_BYTES, facts.get("maxmemory"))
    yield family(metrics.REDIS_AOF_ENABLED, facts.get("aof_enabled"))
    sound = all(facts.get(f"aof_last_{each}_status", "ok") == "ok" for each in ("write", "bgrewrite"))
    yield family(metrics.REDIS_AOF_OK, float(sound))
    yield family(metrics.REDIS_NOEVICTION, float(facts.get("maxmemory_policy") == "noeviction"))
    yield family(metrics.REDIS_CLIENTS, facts.get("connected_clients"))


# --- PostgreSQL ---------------------------------------------------------------------------------------

_FACTS: Final = {
    metrics.SWEEP_AGE_SECONDS: "sweep_age",
    metrics.BEAT_AGE_SECONDS: "beat_age",
    metrics.SCHEDULES_DUE: "schedules_due",
    metrics.SCHEDULE_LAG_SECONDS: "schedule_lag",
    metrics.SCHEDULE_PROBLEMS: "schedule_problems",
    metrics.DIGESTS_OPEN: "digests_open",
    metrics.DIGESTS_DUE: "digests_due",
    metrics.DIGEST_LAG_SECONDS: "digest_lag",
    metrics.PARKED: "parked",
    metrics.INTAKE_OLDEST_SECONDS: "intake_oldest",
}
_AGES: Final = frozenset({metrics.SWEEP_AGE_SECONDS, metrics.BEAT_AGE_SECONDS})
"""Before the first there is none; the others are 0 where nothing is late."""
_COUNTERS: Final = {
    metrics.REWOKEN: "rewoken_as_lost",
    metrics.LEASES_ENDED: "leases_ended",
    metrics.RECEIPTS_FORGED: "receipts_forged",
}


def of_now(now: Now) -> Iterator[Family]:
    """The small numbers of PostgreSQL."""
    for metric, column in _FACTS.items():
        value = now.facts.get(column)
        yield family(metric, value if value is not None or metric in _AGES else 0.0)
    for metric, name in _COUNTERS.items():
        yield family(metric, now.counters.get(name, 0))
    yield family(metrics.RECEIPTS_PENDING, _by_state(now.receipts, ("new", "waiting")))
    yield family(metrics.RECEIPTS_TROUBLE, _by_state(now.receipts, ("unmatched", "unknown", "unreadable")))
    yield family(
        metrics.PROVIDER_LEFT_OUT,
        (
            ((provider, "misconfigured" if wrong else "down"), n)
            for (provider, wrong), n in now.left_out.items()
        ),
    )
    yield family(metrics.PAUSES, (((kind,), now.pauses.get(kind, 0)) for kind in ("queue", "type", "tenant")))
    yield family(metrics.QUEUE_CONSUMERS, (((queue,), now.consumers.get(queue, 0)) for queue in ALL_QUEUES))
    yield family(
        metrics.QUEUE_MARKER_SECONDS, (((queue,), now.markers.get(queue, 0)) for queue in ALL_QUEUES)
    )
    yield family(metrics.WORKERS, now.workers)
    yield family(metrics.CONFIGURATION_PROBLEMS, now.problems)
    yield family(metrics.CONFIGURATIONS, now.configurations)


def _by_state(found: Mapping[str, int], states: Sequence[str]) -> Values:
    return [((state,), found.get(state, 0)) for state in states]


_STATES: Final = ("held", "queued", "retrying", "sending")


def of_waiting(waiting: Waiting) -> Iterator[Family]:
    """What waits, and what is in trouble."""
    groups = waiting.groups
    number = {(channel, lane, state): 0 for channel in CHANNELS for lane in LANES for state in _STATES}
    number |= {(it.channel, it.lane, it.state): it.n for it in groups}
    yield family(metrics.WAITING, number.items())
    oldest: dict[tuple[str, ...], float] = {
        (channel, state): 0.0 for channel in CHANNELS for state in _STATES
    }
    for it in groups:
        oldest[it.channel, it.state] = max(oldest.get((it.channel, it.state), 0.0), it.oldest)
    yield family(metrics.OLDEST_SECONDS, oldest.items())
    for metric, state in ((metrics.IN_DOUBT, "in_doubt"), (metrics.FAILED, "failed")):
        yield family(
            metric, (((channel,), waiting.troubled.get((channel, state), 0)) for channel in CHANNELS)
        )
    yield family(metrics.INTAKE_WAITING, waiting.intake)
    overdue = _overdue(waiting)
    yield family(metrics.SLO_OVERDUE, (((lane,), overdue[lane]) for lane in LANES))


def _overdue(waiting: Waiting | None) -> Counter[str]:
    found: Counter[str] = Counter()
    for it in waiting.groups if waiting else ():
        found[it.lane] += it.overdue
    return found


def of_totals(totals: Totals, waiting: Waiting | None) -> Iterator[Family]:
    """What has been counted, and the objective: of it, and of what waits now."""
    kept = _kept(totals.tallies)
    deliveries: Counter[tuple[str, ...]] = Counter()
    notifications: Counter[tuple[str, ...]] = Counter()
    for it in totals.tallies:
        event_type = it.event_type if it.event_type in kept else OTHER
        if it.channel:
            deliveries[bounded("channel", it.channel), event_type, it.state] += it.value
        else:
            notifications[event_type, it.state] += it.value
    yield family(metrics.DELIVERIES, deliveries.items())
    yield family(metrics.NOTIFICATIONS, notifications.items())
    for metric, state in (
        (metrics.SENT_DELAY_SECONDS, "sent"),
        (metrics.DELIVERED_DELAY_SECONDS, "delivered"),
    ):
        yield _histogram(metric, [it for it in totals.delays if it.state == state])
    yield from _objective(totals, sum(_overdue(waiting).values()))


def _kept(tallies: Sequence[Tally]) -> set[str]:
    sizes: Counter[str] = Counter()
    for it in tallies:
        sizes[it.event_type] += it.value
    return {name for name, _ in sizes.most_common(TYPES)}


def _histogram(metric: Metric, delays: Sequence[Delays]) -> Family:
    made = HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)
    bounds = [*DELAY, float("inf")]
    for it in delays:
        so_far, buckets = 0, []
        for bound in bounds:
            so_far += it.counts.get(bound, 0)
            buckets.append((floatToGoString(bound), so_far))  # type: ignore[no-untyped-call]
        made.add_metric((bounded("channel", it.channel), bounded("lane", it.lane)), buckets, it.seconds)
    return made


def _objective(totals: Totals, overdue: int) -> Iterator[Family]:
    sent = {(name, lane): 0 for name in WINDOWS for lane in LANES}
    in_time = dict(sent)
    for name, lanes in totals.punctual.items():
        for it in lanes:
            sent[name, it.lane], in_time[name, it.lane] = it.sent, it.in_time
    yield family(metrics.SLO_SENT, sent.items())
    yield family(metrics.SLO_IN_TIME, in_time.items())
    ratios = []
    for name in WINDOWS:
        of = sum(sent[name, lane] for lane in LANES) + overdue
        ratios.append(((name,), sum(in_time[name, lane] for lane in LANES) / of if of else 1.0))
    yield family(metrics.SLO_RATIO, ratios)

"""Counts what this process does, under the names in `metrics`.

Nothing is counted before `start`, and each call then costs a look at one variable. Observing is cheap: a series is
looked up by a tuple in a dict, and its lock is held for an addition.

A forked child begins with instruments of its own (`restart`): the parent's may have been held by one of its threads.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, values
from prometheus_client.values import MutexValue

from notify_tasks import metrics
from notify_tasks.metrics import OTHER, Kind, Metric, bounded, reason

TYPES_EVERY: Final = 10.0
"""Seconds between two looks at the catalogue for a type that is not known."""
now: Final = time.perf_counter
"""The clock of what is timed here."""


class Meter:
    """The instruments of one process.

    Args:
        value: what keeps a number: in this process's memory, or in a file that its parent reads.
    """

    def __init__(self, value: type[Any] = MutexValue) -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        self._lock = threading.Lock()
        self._series: dict[tuple[str, ...], Any] = {}
        disable_created_metrics()  # type: ignore[no-untyped-call] # a series more for each, which nobody asks for
        values.ValueClass = value
        self._instruments: Mapping[str, Any] = {
            each.name: _instrument(each, self.registry) for each in metrics.COUNTED
        }

    def series(self, metric: Metric, labels: tuple[str, ...]) -> Any:
        """The series of these labels."""
        key = (metric.name, *labels)
        found = self._series.get(key)
        if found is None:
            with self._lock:
                instrument = self._instruments[metric.name]
                found = self._series[key] = instrument.labels(*labels) if labels else instrument
        return found


def _instrument(metric: Metric, registry: CollectorRegistry) -> Any:
    match metric.kind:
        case Kind.COUNTER:
            return Counter(metric.name, metric.help, metric.labels, registry=registry)
        case Kind.GAUGE:
            return Gauge(
                metric.name, metric.help, metric.labels, registry=registry, multiprocess_mode="livemax"
            )
        case _:
            return Histogram(
                metric.name, metric.help, metric.labels, registry=registry, buckets=metric.buckets
            )


_meter: Meter | None = None
_types_of: Callable[[], Collection[str]] = tuple
_types: Collection[str] = frozenset()
_types_at: float = float("-inf")


def start(value: type[Any] = MutexValue) -> Meter:
    """Begin to count in this process, from 0.

    Args:
        value: as for `Meter`.
    """
    global _meter  # noqa: PLW0603 - one of each process: what observes does not carry it about
    _meter = Meter(value)
    return _meter


def stop() -> None:
    """Count no more."""
    global _meter  # noqa: PLW0603 - as in `start`
    _meter = None


def know_types(names: Callable[[], Collection[str]]) -> None:
    """Say which event types there are: another one is counted as `other`, whatever a producer sends."""
    global _types_of, _types, _types_at
    _types_of, _types, _types_at = names, frozenset(), float("-inf")


def _type(name: str) -> str:
    global _types, _types_at  # noqa: PLW0603 - as in `start`
    if name in _types:
        return name
    if time.monotonic() - _types_at > TYPES_EVERY:
        _types_at = time.monotonic()
        _types = frozenset(_types_of())
    return name if name in _types else OTHER


def _add(metric: Metric, *labels: str, by: float = 1) -> None:
    meter = _meter
    if meter is not None:
        meter.series(metric, labels).inc(by)


def _observe(metric: Metric, seconds: float, *labels: str) -> None:
    meter = _meter
    if meter is not None:
        meter.series(metric, labels).observe(max(seconds, 0.0))


# --- what is counted, in the words of who counts it ---------------------------------------------------


def taken(event_type: str, result: str, why: str | None = None) -> None:
    """A call was taken in: accepted, repeated, conflict, rejected, cancelled, waiting."""
    if _meter is not None:
        _add(metrics.CALLS, _type(event_type), result, reason(why))


def planned(channel: str, state: str, why: str | None) -> None:
    """A plan has decided on one channel: the state in which a delivery begins, or `drop` where there is none."""
    if _meter is not None:
        _add(metrics.PLANNED, bounded("channel", channel), DECISIONS.get(state, "drop"), reason(why))


DECISIONS: Final = {"queued": "send", "sending": "send", "held": "hold", "digested": "digest"}


def attempted(channel: str, provider: str, event_type: str, outcome: str) -> None:
    """An attempt has ended. Its outcome is a word of ours."""
    if _meter is not None:
        _add(metrics.ATTEMPTS, bounded("channel", channel), provider, _type(event_type), outcome)


def became(channel: str, event_type: str, state: str) -> None:
    """A delivery has come into this state."""
    if _meter is not None:
        _add(metrics.RESULTS, bounded("channel", channel), _type(event_type), bounded("state", state))


def fenced(channel: str) -> None:
    """A result came after its lease had ended."""
    _add(metrics.FENCED_WRITES, bounded("channel", channel))


def rendered(channel: str, since: float) -> None:
    """A message was made, which began at `since` by `now()`."""
    _observe(metrics.RENDER_SECONDS, now() - since, bounded("channel", channel))


def called(channel: str, provider: str, since: float) -> None:
    """A provider's call has ended, which began at `since` by `now()`."""
    _observe(metrics.PROVIDER_SECONDS, now() - since, bounded("channel", channel), provider)


def waited(queue: str, sent_at: object) -> None:
    """A message has come out of its queue; `sent_at` is what its header says (seconds since 1970)."""
    if _meter is not None and isinstance(sent_at, int | float) and not isinstance(sent_at, bool):
        _observe(metrics.QUEUE_WAIT_SECONDS, time.time() - sent_at, bounded("queue", queue))


def gate_closed(channel: str, why: str) -> None:
    """A gate kept a delivery from starting."""
    _add(metrics.GATE_CLOSED, bounded("channel", channel), reason(why))


def limited(provider: str, seconds: float) -> None:
    """A provider's rate has given a delivery this wait."""
    _observe(metrics.LIMITER_WAIT_SECONDS, seconds, provider)


def limiter_alone() -> None:
    """Redis did not answer for a rate."""
    _add(metrics.LIMITER_ALONE)


def breaker_opened(provider: str, why: str) -> None:
    """A provider is left out from now on: `down` or `misconfigured`."""
    _add(metrics.BREAKER_OPENINGS, provider, why)


def breaker(provider: str, *, is_open: bool) -> None:
    """Whether a provider is left out."""
    meter = _meter
    if meter is not None:
        meter.series(metrics.BREAKER_OPEN, (provider,)).set(float(is_open))


def receipts(provider: str, result: str, number: int) -> None:
    """So many receipts were looked at: applied, waiting, unmatched, refused."""
    _add(metrics.RECEIPTS, provider, result, by=number)


def swept(since: float, found: Mapping[str, int]) -> None:
    """A sweep has ended, which began at `since` by `now()`, and what it found by name."""
    _observe(metrics.SWEEP_SECONDS, now() - since)
    for what, number in found.items():
        if number:
            _add(metrics.SWEPT, what, by=number)


# --- what is asked for when somebody looks -------------------------------------------------------------


class Looked:
    """Gauges whose values are looked up when they are asked for.

    Args:
        look: gives the values by metric.
    """

    def __init__(self, look: Callable[[], Mapping[Metric, float]]) -> None:
        self._look = look

    def collect(self) -> Iterator[Any]:
        """As prometheus_client asks a collector."""
        from prometheus_client.core import GaugeMetricFamily  # noqa: PLC0415 - only where somebody looks

        for metric, value in self._look().items():
            yield GaugeMetricFamily(metric.name, metric.help, value=value)

"""What to do with an attempt's outcome. Pure: a decision is a value, and one place turns it into a retry.

Short waits belong to Celery's autoretry (`BACKOFF` says how it draws them); long ones are a due time in the
row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from channels.contract import (
    AddressInvalid,
    Capability,
    ChannelError,
    Misconfigured,
    OptedOut,
    Refused,
    Throttled,
    TryLater,
    Unavailable,
    Uncertain,
    Unroutable,
)
from notify_tasks.event_type import HOLD
from notify_tasks.states import State

BACKOFF: Final = 4
"""Seconds: Celery's `retry_backoff`. The first wait is at most this, each next one twice that; they are drawn
evenly from 0 (full jitter)."""
BACKOFF_MAX: Final = 60
"""Seconds: Celery's `retry_backoff_max`, and the longest wait that is Celery's at all."""
SHORT: Final = 4
"""So many retries are short; then come the long ones."""
LONG: Final = (120.0, 600.0, 1800.0, 3600.0)
"""Seconds of the later waits; the last one repeats."""
SCHEDULES: Final[Mapping[str, tuple[float, ...]]] = {
    "webhook": (5.0, 300.0, 1800.0, 7200.0, 18000.0, 36000.0, 36000.0),
}
"""Seconds of every wait, for channels with a schedule of their own; the last one repeats. A webhook's is the one that
receivers know from others (docs.svix.com/retries): customers mend their servers in hours, not in minutes."""
AT_LEAST_ONCE: Final = frozenset({"webhook"})
"""Channels whose receivers are told that a message may come twice, and know it again by its id, however late it is."""
DEAD: Final = "address_invalid"
"""Why the address of an `AddressInvalid` is suppressed."""
LOST_MESSAGE_MARGIN: Final = 90.0
"""Seconds after which the sweep wakes a row whose short retry never came."""
MISCONFIGURED_WAIT: Final = 60.0
THROTTLE_DEFAULT: Final = 30.0
LONGEST_RETRY_AFTER: Final = 24 * 3600.0
SHORTEST_RETRY_AFTER: Final = 1.0
"""Seconds; a provider that says "again at once" while it refuses us is not asked in a hot loop."""
KEY_WINDOW: Final = 24 * 3600.0
"""Seconds for which a provider is trusted to remember an idempotency key."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of the delivery.

    Args:
        state: its next state. `queued` means: the next provider, now. `retrying` waits first.
        reason: code kept with the row.
        delay: seconds to wait; None leaves the drawing of a short wait to Celery's backoff.
        counted: whether the attempt is spent.
        unknown: whether this attempt's outcome is unknown.
        suppress: reason to suppress the address with, or None.
    """

    state: State
    reason: str | None = None
    delay: float | None = None
    counted: bool = True
    unknown: bool = False
    suppress: str | None = None


@dataclass(frozen=True, slots=True)
class Situation:
    """What a decision needs to know besides the error.

    Args:
        attempts: attempts spent, this one included.
        max_attempts: the type's limit.
        unknown: whether an earlier attempt's outcome is unknown.
        capability: of the provider that was called.
        on_doubt: `resend` or `hold`.
        other_provider: whether another provider of the pool is ready now.
        alternatives: whether the pool has another provider that was not asked in this run, ready or not.
        channel: of the delivery; some have waits of their own.
        lifetime: seconds until the delivery expires.
        age: seconds since the first attempt whose outcome is unknown; 0 where there is none.
    """

    attempts: int
    max_attempts: int
    unknown: bool
    capability: Capability
    on_doubt: str
    other_provider: bool
    lifetime: float
    age: float = 0.0
    alternatives: bool = False
    channel: str = ""


OUTCOMES: Final[dict[type[ChannelError], str]] = {
    Throttled: "throttled",
    TryLater: "try_later",
    Unavailable: "unavailable",
    Unroutable: "unroutable",
    Misconfigured: "misconfigured",
    Uncertain: "uncertain",
    Refused: "refused",
    AddressInvalid: "address_invalid",
    OptedOut: "opted_out",
}
"""How an attempt's row names its outcome."""


def outcome_of(error: ChannelError) -> str:
    """The stored name of an error; a subclass takes its parent's."""
    for cls in type(error).__mro__:
        if cls in OUTCOMES:
            return OUTCOMES[cls]
    return OUTCOMES[Uncertain]


def decide(error: ChannelError, situation: Situation) -> Verdict:
    """The verdict on a failed attempt (see the table in `channels.contract`)."""
    verdict = _judge(error, situation)
    if verdict.state is State.RETRYING and _forgotten(situation, verdict.delay or 0.0):
        return replace(verdict, state=State.IN_DOUBT, delay=None)
    return verdict


def lost(situation: Situation) -> Verdict:
    """The verdict on an attempt whose lease ended without a result: its worker is gone."""
    return decide(Uncertain("lease_expired"), situation)


def key_forgotten(capability: Capability, unknown_age: float, channel: str = "") -> bool:
    """Whether a request of unknown outcome is too old to be repeated under its key, or asked for by it.

    Args:
        capability: of the provider that took it.
        unknown_age: seconds since the first attempt whose outcome is unknown; 0 where there is none.
        channel: of the delivery.
    """
    if channel in AT_LEAST_ONCE:
        return False
    return capability is not Capability.OPAQUE and unknown_age > KEY_WINDOW


def _forgotten(situation: Situation, delay: float) -> bool:
    return situation.unknown and key_forgotten(situation.capability, situation.age + delay, situation.channel)


def _judge(error: ChannelError, situation: Situation) -> Verdict:  # noqa: C901, PLR0911 - one line of the table each
    other = situation.other_provider and not situation.unknown
    match error:
        case Throttled():
            wait = THROTTLE_DEFAULT if error.retry_after is None else error.retry_after
            return _wait(situation, "throttled", _asked(wait), counted=False)
        case Misconfigured():
            if other:
                return Verdict(State.QUEUED, "misconfigured", counted=False)
            return _wait(situation, "misconfigured", MISCONFIGURED_WAIT, counted=False)
        case Unavailable():
            if other and situation.attempts < situation.max_attempts:
                return Verdict(State.QUEUED, "unavailable")
            return _spent(situation, "unavailable", error.retry_after)
        case Unroutable():
            return _handed_on(error, situation)
        case TryLater():
            return _spent(situation, error.code, error.retry_after)
        case Refused():
            return Verdict(_end(State.FAILED, situation), error.code)
        case AddressInvalid():
            return Verdict(_end(State.FAILED, situation), error.code, suppress=DEAD)
        case OptedOut():
            return Verdict(_end(State.SUPPRESSED, situation), error.code, suppress="opted_out")
        case _:
            return _doubt(situation, error)


def _handed_on(error: Unroutable, situation: Situation) -> Verdict:
    if situation.other_provider and not situation.unknown:
        return Verdict(State.QUEUED, "unroutable", counted=False)
    if situation.alternatives:  # one that is down now; it costs attempts, or this could go round for ever
        return _spent(situation, "unroutable", None)
    return Verdict(_end(State.FAILED, situation), error.code)


def _doubt(situation: Situation, error: ChannelError) -> Verdict:
    knowable = situation.capability is not Capability.OPAQUE
    give_up = (not knowable and situation.on_doubt == HOLD) or situation.attempts >= situation.max_attempts
    delay = _delay(situation)
    if give_up or (delay or 0.0) >= situation.lifetime:
        return Verdict(State.IN_DOUBT, error.code, unknown=True)
    return Verdict(State.RETRYING, error.code, delay, unknown=True)


def _spent(situation: Situation, reason: str, retry_after: float | None) -> Verdict:
    if situation.attempts >= situation.max_attempts:
        return Verdict(_end(State.FAILED, situation), "retries_spent")
    wait = _delay(situation)
    if retry_after is not None:
        wait = max(_asked(retry_after), wait or 0.0)
    return _wait(situation, reason, wait, counted=True)


def _asked(retry_after: float) -> float:
    return min(max(retry_after, SHORTEST_RETRY_AFTER), LONGEST_RETRY_AFTER)


def _delay(situation: Situation) -> float | None:
    """Seconds before the retry after so many attempts; None for a short wait, which Celery draws."""
    attempts = max(situation.attempts, 1)
    schedule = SCHEDULES.get(situation.channel)
    if schedule is not None:
        return schedule[min(attempts, len(schedule)) - 1]
    if attempts <= SHORT:
        return None
    return LONG[min(attempts - SHORT - 1, len(LONG) - 1)]


def short_wait(attempts: int, draw: float) -> float:
    """Seconds of a short wait drawn as Celery draws it, for the cases in which Celery does not.

    Args:
        attempts: attempts spent.
        draw: an even draw from 0 to 1.
    """
    return draw * min(BACKOFF_MAX, BACKOFF << min(max(attempts - 1, 0), 10))


def _wait(situation: Situation, reason: str, wait: float | None, *, counted: bool) -> Verdict:
    if (wait or 0.0) >= situation.lifetime:
        return Verdict(_end(State.EXPIRED, situation), reason, counted=counted)
    return Verdict(State.RETRYING, reason, wait, counted=counted)


def _end(wanted: State, situation: Situation) -> State:
    return State.IN_DOUBT if situation.unknown else wanted

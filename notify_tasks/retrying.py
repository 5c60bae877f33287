"""What to do with an attempt's outcome. Pure: a decision is a value, and one place turns it into a retry.

Short waits belong to Celery's autoretry (`SHORT` says how it draws them); long ones are a due time in the row.
"""

from __future__ import annotations

from dataclasses import dataclass
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
)

from notify_tasks.event_type import HOLD
from notify_tasks.states import State

BACKOFF: Final = 4
"""Seconds: Celery's `retry_backoff`. The n-th wait is at most `BACKOFF * 2**n`, drawn evenly from 0 (full jitter)."""
BACKOFF_MAX: Final = 60
"""Seconds: Celery's `retry_backoff_max`, and the longest wait that is Celery's at all."""
SHORT: Final = 4
"""So many retries are short; then come the long ones."""
LONG: Final = (120.0, 600.0, 1800.0, 3600.0)
"""Seconds of the later waits; the last one repeats."""
LOST_MESSAGE_MARGIN: Final = 90.0
"""Seconds after which the sweep wakes a row whose short retry never came."""
MISCONFIGURED_WAIT: Final = 60.0
THROTTLE_DEFAULT: Final = 30.0
LONGEST_RETRY_AFTER: Final = 24 * 3600.0
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


OUTCOMES: Final[dict[type[ChannelError], str]] = {
    Throttled: "throttled",
    TryLater: "try_later",
    Unavailable: "unavailable",
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
    if isinstance(error, Throttled):
        wait = min(error.retry_after if error.retry_after is not None else THROTTLE_DEFAULT, LONGEST_RETRY_AFTER)
        return _wait(situation, "throttled", wait, counted=False)
    if isinstance(error, Misconfigured):
        if situation.other_provider and not situation.unknown:
            return Verdict(State.QUEUED, "misconfigured", counted=False)
        return _wait(situation, "misconfigured", MISCONFIGURED_WAIT, counted=False)
    if isinstance(error, Unavailable):
        if situation.other_provider and not situation.unknown:
            return Verdict(State.QUEUED, "unavailable")
        return _spent(situation, "unavailable", error.retry_after)
    if isinstance(error, TryLater):
        return _spent(situation, error.code, error.retry_after)
    if isinstance(error, Refused):
        return Verdict(_end(State.FAILED, situation), error.code)
    if isinstance(error, AddressInvalid):
        return Verdict(_end(State.FAILED, situation), error.code, suppress="address_invalid")
    if isinstance(error, OptedOut):
        return Verdict(_end(State.SUPPRESSED, situation), error.code, suppress="opted_out")
    return _doubt(situation, error)


def lost(situation: Situation) -> Verdict:
    """The verdict on an attempt whose lease ended without a result: the worker is gone, the outcome unknown."""
    return _doubt(situation, Uncertain("lease_expired"))


def _doubt(situation: Situation, error: ChannelError) -> Verdict:
    knowable = situation.capability is not Capability.OPAQUE
    give_up = (
        (not knowable and situation.on_doubt == HOLD)
        or situation.attempts >= situation.max_attempts
        or (knowable and situation.age > KEY_WINDOW)
    )
    if give_up:
        return Verdict(State.IN_DOUBT, error.code, unknown=True)
    waiting = _wait(situation, error.code, _delay(situation.attempts), counted=True)
    if waiting.state is not State.RETRYING:
        return Verdict(State.IN_DOUBT, error.code, unknown=True)
    return Verdict(State.RETRYING, error.code, waiting.delay, unknown=True)


def _spent(situation: Situation, reason: str, retry_after: float | None) -> Verdict:
    if situation.attempts >= situation.max_attempts:
        return Verdict(_end(State.FAILED, situation), "retries_spent")
    wait = _delay(situation.attempts)
    if retry_after is not None:
        wait = min(max(retry_after, wait or 0.0), LONGEST_RETRY_AFTER)
    return _wait(situation, reason, wait, counted=True)


def _delay(attempts: int) -> float | None:
    """Seconds before the retry after so many attempts; None for a short wait, which Celery draws."""
    if attempts <= SHORT:
        return None
    return LONG[min(attempts - SHORT - 1, len(LONG) - 1)]


def short_wait(attempts: int, draw: float) -> float:
    """Seconds of a short wait drawn as Celery draws it, for the cases in which Celery does not.

    Args:
        attempts: attempts spent.
        draw: an even draw from 0 to 1.
    """
    return draw * min(BACKOFF_MAX, BACKOFF * 2 ** max(attempts - 1, 0))


def _wait(situation: Situation, reason: str, wait: float | None, *, counted: bool) -> Verdict:
    if (wait or 0.0) >= situation.lifetime:
        return Verdict(_end(State.EXPIRED, situation), reason, counted=counted)
    return Verdict(State.RETRYING, reason, wait, counted=counted)


def _end(wanted: State, situation: Situation) -> State:
    return State.IN_DOUBT if situation.unknown else wanted

"""Which digest a delivery joins and which count it takes its place in, and what becomes of it either way. Pure.

Planning decides what is known before anything is stored. Whether a delivery opens its digest, or comes too many, only
the store knows, in the commit that accepts it: for that, a decision carries both of its ways.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final, Protocol

from notify_tasks.choices import DROP, Choices
from notify_tasks.digesting import DIGEST, HOLD, OFF, Gathering, Throttling, When, key_of, value_at
from notify_tasks.event_type import EventType
from notify_tasks.notification import Notification
from notify_tasks.states import State

GATHERED: Final = "digest"
"""The reason of a delivery that waits for its digest."""
THROTTLED: Final = "throttled"
NO_DIGEST_TYPE: Final = "no_digest_type"
"""A digest is wanted, and the type has none: it goes by itself."""
EXPIRES_IN_DIGEST: Final = "expires_in_digest"
EXPIRES_IN_THROTTLE: Final = "expires_in_throttle"
SOURCE: Final = "notify.digest"
"""Whom the call of a digest comes from."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One way that a delivery can begin."""

    state: State
    reasons: tuple[str, ...]
    due_at: datetime | None
    expires_at: datetime

    @property
    def ended(self) -> bool:
        """Whether nothing is sent, and nothing gathered."""
        return self.state in (State.SUPPRESSED, State.EXPIRED)


@dataclass(frozen=True, slots=True)
class Timing:
    """How a delivery is gathered and counted.

    Args:
        turn: how it begins, where the store does not say otherwise.
        digest: what it then joins; None where it goes by itself.
        opening: how it begins where it opens the digest, and that goes at once; None where it is gathered all the same.
        throttle: the count that it takes its place in.
        over: what becomes of it beyond the limit, by the moment at which it would have a place.
    """

    turn: Turn
    digest: Gathering | None = None
    opening: Turn | None = None
    throttle: Throttling | None = None
    over: Callable[[datetime], Timing] | None = field(default=None, repr=False, compare=False)


class Wait(Protocol):
    """A reason to send later; for good where `until` is None."""

    @property
    def reason(self) -> str: ...
    @property
    def until(self) -> datetime | None: ...


@dataclass(frozen=True, slots=True)
class Case:
    """One delivery as planning knows it.

    Args:
        to: the recipient's id, or None and the bare address.
        waits: what holds it back that could go at a moment.
        expires_first: the reason of what is worthless before a wait is over, by the reason of the wait.
    """

    notification: Notification
    event_type: EventType
    choices: Choices
    timezone: str | None
    to: tuple[str | None, str]
    channel: str
    waits: Callable[[datetime], Iterable[Wait]] = field(repr=False)
    expires_first: Mapping[str, str]


def timing(turn: Turn, case: Case, now: datetime) -> Timing:
    """How a delivery is gathered and counted that would begin with `turn` by itself.

    What is planned for a later time goes by itself then, and is counted now.
    """
    at = case.notification.not_before(case.timezone)
    when, wanted = (None, False) if at is not None and at > now else _when(case)
    if when is None and wanted:
        turn = replace(turn, reasons=(*turn.reasons, NO_DIGEST_TYPE))
    usual = Timing(turn) if when is None else _gathered(turn, case, when, now)
    rule = case.event_type.throttle
    if rule is None or usual.turn.ended:
        return usual
    throttling = Throttling(_key(case, "throttle", rule.by, case.event_type.name, str(rule)), rule)
    return replace(usual, throttle=throttling, over=lambda place: _over(turn, case, place, now))


def _when(case: Case) -> tuple[When | None, bool]:
    """When the digest is due that it belongs into; None for none, and whether one was wanted."""
    event_type, notification = case.event_type, case.notification
    if event_type.required or notification.source == SOURCE:
        return None, False
    asked = case.choices.gathered(event_type.category, case.channel)
    if asked is None and notification.digest != OFF:
        asked = notification.digest
    rule = event_type.digest
    if rule is None or not rule.takes(case.channel):
        return None, asked is not None
    if asked is not None:
        return rule.asked(asked), True
    return (rule.when, True) if event_type.gathers and notification.digest != OFF else (None, False)


def _gathered(turn: Turn, case: Case, when: When, now: datetime, *before: str) -> Timing:
    rule, call = case.event_type.digest, case.notification
    assert rule is not None
    away = case.choices.vacation
    if turn.state is State.SUPPRESSED and away is not None and away.mode == DROP and away.covers(now):
        return Timing(turn)
    due_at, cap_at = when.due(now, case.timezone), when.cap(now)
    expires_at = turn.expires_at
    if (
        call.expires is None
    ):  # it is worth something for as long as its digest may wait, and the digest after that
        expires_at = max(expires_at, (cap_at or due_at) + timedelta(seconds=case.event_type.expires))
    reasons = (*(each for each in turn.reasons if each.startswith("local_time")), *before, GATHERED)
    if due_at >= expires_at:
        return Timing(Turn(State.EXPIRED, (*reasons, EXPIRES_IN_DIGEST), None, expires_at))
    digest = Gathering(
        key=_key(case, "digest", rule.by, rule.type, case.notification.sandbox),
        type=rule.type,
        when=str(when),
        due_at=due_at,
        cap_at=cap_at,
        by=value_at(call.payload, rule.by),
        first=rule.first and not before,
        most=rule.most,
    )
    opening = turn if digest.first and not turn.ended else None
    return Timing(Turn(State.HELD, reasons, None, expires_at), digest, opening)


def _over(turn: Turn, case: Case, place: datetime, now: datetime) -> Timing:
    rule, digest = case.event_type.throttle, case.event_type.digest
    assert rule is not None
    if rule.over == DIGEST and digest is not None and digest.takes(case.channel):
        when = _when(case)[0] or digest.when
        assert when is not None, "the folder is checked for it"
        return _gathered(turn, case, when, now, THROTTLED)
    if rule.over != HOLD:
        return Timing(Turn(State.SUPPRESSED, (*turn.reasons, THROTTLED), None, turn.expires_at))
    at = case.notification.not_before(case.timezone)
    start = place if at is None else max(at, place)
    before = tuple(each for each in turn.reasons if each not in case.expires_first)
    return Timing(_held(Turn(State.HELD, (*before, THROTTLED), start, turn.expires_at), case))


def _held(turn: Turn, case: Case) -> Turn:
    """From its place in the count on, it waits as any other does."""
    reasons, until = list(turn.reasons), turn.due_at
    assert until is not None
    if until >= turn.expires_at:
        return Turn(State.EXPIRED, (*reasons, EXPIRES_IN_THROTTLE), None, turn.expires_at)
    for wait in case.waits(until):
        reasons.append(wait.reason)
        if wait.until is None:
            return Turn(State.SUPPRESSED, tuple(reasons), None, turn.expires_at)
        if wait.until >= turn.expires_at:
            reasons.append(case.expires_first[wait.reason])
            return Turn(State.EXPIRED, tuple(reasons), None, turn.expires_at)
        until = wait.until
    return Turn(State.HELD, tuple(reasons), until, turn.expires_at)


def _key(case: Case, kind: str, by: str | None, *more: object) -> str:
    id_, address = case.to
    to = ["id", id_] if id_ is not None else ["address", address]
    return key_of(
        kind, case.notification.tenant, to, case.channel, value_at(case.notification.payload, by), *more
    )

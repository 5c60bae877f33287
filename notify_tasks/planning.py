"""The pure decision: what a notification becomes for each recipient and channel, and why.

`plan` does no I/O and takes `now` as an argument: the same inputs give the same plan at any time. Each delivery passes
the same gates, in this order:

    suppressed?    nothing is sent to the address
    expired?       it is worthless by now
    preference?    the person has switched the category off on this channel, or has not switched it on
    schedule?      `at` lies ahead
    throttle?      there were too many: dropped, held, or gathered (`gathering`)
    digest?        gathered, and sent together; the two gates below are then the digest's own
    vacation?      the person is away: dropped, or held until they are back
    quiet hours?   held until they end
    expiry?        what could only be sent when it is worthless is not held for that
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Final

from notify_tasks import escalation
from notify_tasks.choices import DROP, NO_CHOICES, Choices
from notify_tasks.escalation import Place
from notify_tasks.event_type import EventType, Step
from notify_tasks.gathering import Case, Timing, Turn, timing
from notify_tasks.notification import Notification, RecipientRef
from notify_tasks.plans import (
    ADDRESS_SUPPRESSED,
    COUNTRY_NOT_ALLOWED,
    EXPIRED,
    EXPIRES_FIRST,
    INAPP,
    LOCAL_TIME,
    LOCAL_TIME_PASSED,
    LOCAL_TIME_UTC,
    NO_ADDRESS,
    NOT_VERIFIED,
    PREFERENCE_OFF,
    QUIET_HOURS,
    SCHEDULED,
    STEP,
    VACATION,
    Decision,
    Dropped,
    Plan,
    Profile,
    Rejection,
    Timed,
)
from notify_tasks.states import FINAL, State

_ROUNDS: Final = 3
"""After a vacation there may be quiet hours, and after these, at most, the vacation that begins in them."""


def plan(
    notification: Notification,
    event_type: EventType,
    profiles: Mapping[str, Profile],
    suppressed: AbstractSet[tuple[str, str]],
    now: datetime,
    refused: Mapping[int, str] = MappingProxyType({}),
    abroad: Mapping[tuple[str, str], str] = MappingProxyType({}),
) -> Plan:
    """Decide.

    Args:
        notification: the call.
        event_type: its type's policy.
        profiles: the known recipients among `to`, by id.
        suppressed: pairs of channel and address that must not be written to.
        now: the instant of the decision, in UTC.
        refused: what is wrong with an address of the call, by its place in `to`: nothing goes to that recipient.
        abroad: pairs of channel and address whose country is not allowed, with a sentence that says so.
    """
    decisions: list[Decision] = []
    dropped: list[Dropped] = []
    rejections: list[Rejection] = []
    seen: set[tuple[str, str]] = set()  # a delivery is one notification to one address over one channel
    for index, ref in enumerate(notification.to):
        if index in refused:
            rejections.append(Rejection(index, "address_invalid", refused[index]))
            continue
        profile = profiles.get(ref.id or "")  # no id is empty
        if profile is None and ref.id is not None and not ref.addresses:
            rejections.append(
                Rejection(
                    index,
                    "unknown_recipient",
                    "no recipient has this id; add it, or give an address in the call",
                )
            )
            continue
        found = False
        without: dict[str, str] = {}
        mine: list[tuple[Step, Decision]] = []
        choices = profile.choices if profile else NO_CHOICES
        for step, channel in escalation.in_turn(event_type, notification.channels, choices):
            addresses, missing = _addresses(channel, ref, profile, event_type)
            if missing is not None:
                without[channel] = missing
                dropped.append(Dropped(index, channel, missing))
            for address in addresses:
                if (channel, address) in abroad:
                    without[channel] = abroad[channel, address]
                    dropped.append(Dropped(index, channel, COUNTRY_NOT_ALLOWED))
                    continue
                found = True
                if (channel, address) in seen:
                    dropped.append(Dropped(index, channel, "same_address"))
                    continue
                decision = _decide(
                    notification, event_type, (index, ref, profile), (channel, address), suppressed, now
                )
                mine.append((step, decision))
                seen |= _served(mine)
        decisions += _chained(mine, notification)
        if not found:
            rejections.append(_unreachable(index, without, abroad.values()))
    return Plan(tuple(decisions), tuple(dropped), tuple(rejections), _timed(notification, event_type))


def _served(mine: Sequence[tuple[Step, Decision]]) -> set[tuple[str, str]]:
    """The last address, where it needs no second message.

    Where one person does not want it, or only a later step may go there, who shares the address may get it.
    """
    step, decision = mine[-1]
    later = any(before is not step and each.state not in FINAL for before, each in mine)
    unserved = later or decision.reason == PREFERENCE_OFF
    return set() if unserved else {(decision.channel, decision.address)}


def _chained(mine: Sequence[tuple[Step, Decision]], notification: Notification) -> list[Decision]:
    """One recipient's decisions, each in its place: what comes after a step that goes waits for it."""
    steps: dict[Step, list[Decision]] = {}
    for step, decision in mine:
        steps.setdefault(step, []).append(decision)
    places = escalation.places(
        [(step, all(each.state in FINAL for each in decided)) for step, decided in steps.items()]
    )
    if not any(place.waits for place in places):
        return [decision for _, decision in mine]
    return [
        _waiting(decision, place, notification) if place.waits else replace(decision, place=place)
        for place, decided in zip(places, steps.values(), strict=True)
        for decision in decided
    ]


def _waiting(decision: Decision, place: Place, notification: Notification) -> Decision:
    """What no gate has asked yet: the person may want something else by the time it has its turn."""
    longer = timedelta(seconds=place.delay if notification.expires is None else 0.0)
    return replace(
        decision,
        place=place,
        state=State.HELD,
        reason=STEP,
        reasons=(STEP,),
        due_at=None,
        expires_at=decision.expires_at + longer,
    )


def _addresses(
    channel: str, ref: RecipientRef, profile: Profile | None, event_type: EventType
) -> tuple[tuple[str, ...], str | None]:
    """Where a channel's message goes, and why some of it goes nowhere.

    An address of the call goes before the stored ones, and is the producer's word. The in-app inbox belongs to the id
    itself.
    """
    found: tuple[str, ...]
    if channel == INAPP:
        found = (ref.id,) if ref.id is not None else ()
    elif channel in ref.addresses:
        found = (ref.addresses[channel],)
    else:
        stored = profile.addresses.get(channel, ()) if profile is not None else ()
        unproved = profile.unverified if profile is not None and event_type.verified_only else frozenset()
        found = tuple(address for address in stored if (channel, address) not in unproved)
        if len(found) < len(stored):
            return found, NOT_VERIFIED
    return found, None if found else NO_ADDRESS


def _unreachable(index: int, without: Mapping[str, str], abroad: Collection[str]) -> Rejection:
    foreign = [said for said in without.values() if said in abroad]
    if foreign:
        return Rejection(index, COUNTRY_NOT_ALLOWED, foreign[0])
    unverified = [channel for channel, reason in without.items() if reason == NOT_VERIFIED]
    if unverified:
        return Rejection(
            index,
            NOT_VERIFIED,
            f"the recipient's address for {', '.join(unverified)} is not verified, and the type goes to verified "
            "ones alone; verify it, or give it in the call",
        )
    return Rejection(index, NO_ADDRESS, f"the recipient has no address for {', '.join(without)}")


def _decide(
    notification: Notification,
    event_type: EventType,
    who: tuple[int, RecipientRef, Profile | None],
    target: tuple[str, str],
    suppressed: AbstractSet[tuple[str, str]],
    now: datetime,
) -> Decision:
    index, ref, profile = who
    channel, address = target
    timezone = ref.timezone or (profile.timezone if profile else None)
    choices = profile.choices if profile else NO_CHOICES
    at = notification.not_before(timezone)
    expires_at = expiry(notification, event_type, now, at)
    state, reasons, due_at = State.QUEUED, _of_local_time(notification, timezone, now), None
    if target in suppressed:
        state, reasons = State.SUPPRESSED, [ADDRESS_SUPPRESSED]
    elif expires_at <= now:
        state, reasons = State.EXPIRED, [*reasons, EXPIRED]
    elif not _wanted(event_type, choices, channel):
        state, reasons = State.SUPPRESSED, [PREFERENCE_OFF]
    else:
        for gate in _waits(at, event_type, choices, timezone, now):
            reasons.append(gate.reason)
            state, due_at = State.HELD, gate.until
            if due_at is None:
                state = State.SUPPRESSED
            elif gate.reason in EXPIRES_FIRST and due_at >= expires_at:
                state, due_at = State.EXPIRED, None
                reasons.append(EXPIRES_FIRST[gate.reason])
            if state is not State.HELD:
                break
    decision = Decision(
        recipient=index,
        recipient_id=ref.id,
        channel=channel,
        address=address,
        locale=notification.locale or ref.locale or (profile.locale if profile else None),
        timezone=timezone,
        lane=notification.priority or event_type.lane,
        state=state,
        reason=reasons[-1] if reasons and state is not State.QUEUED else None,
        due_at=due_at,
        expires_at=expires_at,
        on_doubt=event_type.on_doubt_for(channel),
        max_attempts=event_type.attempts,
        reasons=tuple(reasons),
        category=None if event_type.required or ref.id is None else event_type.category,
        opt_in=event_type.opt_in,
    )
    if decision.reason in (ADDRESS_SUPPRESSED, EXPIRED, PREFERENCE_OFF):
        return decision
    return _gathered_and_counted(decision, notification, event_type, choices, now)


def _gathered_and_counted(
    decision: Decision, notification: Notification, event_type: EventType, choices: Choices, now: datetime
) -> Decision:
    """The same, where what else there is for the person has a say in when it goes."""
    if event_type.digest is None and event_type.throttle is None and not choices.categories:
        return decision
    timezone = decision.timezone
    turn = Turn(decision.state, decision.reasons, decision.due_at, decision.expires_at)
    case = Case(
        notification=notification,
        event_type=event_type,
        choices=choices,
        timezone=timezone,
        to=(decision.recipient_id, decision.address),
        channel=decision.channel,
        waits=lambda start: held_up(start, event_type, choices, timezone),
        expires_first=EXPIRES_FIRST,
    )
    found = timing(turn, case, now)
    return decision if found == Timing(turn) else decision.turned(found, found.turn)


# --- the gates ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Wait:
    """A reason to send later; for good where `until` is None."""

    reason: str
    until: datetime | None


def _wanted(event_type: EventType, choices: Choices, channel: str) -> bool:
    return event_type.required or choices.wants(event_type.category, channel, default=not event_type.opt_in)


def _waits(
    at: datetime | None, event_type: EventType, choices: Choices, timezone: str | None, now: datetime
) -> Iterator[_Wait]:
    """What holds a delivery back, each from the moment at which the one before lets it go."""
    start = now
    if at is not None and at > now:
        start = at
        yield _Wait(SCHEDULED, at)
    yield from held_up(start, event_type, choices, timezone)


def held_up(
    start: datetime, event_type: EventType | Timed, choices: Choices, timezone: str | None
) -> Iterator[_Wait]:
    """What the person's own wishes hold back that could go at `start`."""
    if event_type.required:
        return
    away = choices.vacation
    quiet = None if event_type.ignores_quiet_hours else choices.quiet_hours
    for _ in range(_ROUNDS):
        if away is not None and away.covers(start):
            yield _Wait(VACATION, None if away.mode == DROP else away.until)
            start = away.until
        ends = quiet.ends(start, timezone) if quiet is not None else None
        if ends is None:
            return
        yield _Wait(QUIET_HOURS, ends)
        start = ends


def expiry(
    notification: Notification, event_type: EventType, now: datetime, at: datetime | None = None
) -> datetime:
    """When the notification is worthless.

    It counts from the producer's timestamp, so that an outage before intake counts too, but never from the
    future: a producer's clock that is ahead gains nothing. Where it was to go later, it counts from then.

    Args:
        notification: the call.
        event_type: its type's policy.
        now: the present.
        at: when it was to go to this recipient; None for the call's own `at`.
    """
    if notification.expires is not None:
        return notification.expires
    start = min(notification.timestamp, now)
    at = at or notification.at
    if at is not None:
        start = max(start, at)
    return start + timedelta(seconds=event_type.expires)


def _timed(notification: Notification, event_type: EventType) -> Timed | None:
    if notification.at is None and notification.at_local is None:
        return None
    return Timed(
        event_type.expires if notification.expires is None else None,
        event_type.required,
        event_type.ignores_quiet_hours,
    )


def _of_local_time(notification: Notification, timezone: str | None, now: datetime) -> list[str]:
    """Which clock a local time was read on, and whether it has passed there."""
    if notification.at_local is None:
        return []
    clock = LOCAL_TIME_UTC if timezone is None else LOCAL_TIME
    passed = notification.at_local.instant(timezone) <= now
    return [clock, LOCAL_TIME_PASSED] if passed else [clock]

"""The pure decision: what a notification becomes for each recipient and channel, and why.

`plan` does no I/O and takes `now` as an argument: the same inputs give the same plan at any time. Each delivery passes
the same gates, in this order:

    suppressed?    nothing is sent to the address
    expired?       it is worthless by now
    preference?    the person has switched the category off on this channel, or has not switched it on
    schedule?      `at` lies ahead
    vacation?      the person is away: dropped, or held until they are back
    quiet hours?   held until they end
    expiry?        what could only be sent when it is worthless is not held for that
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any, Final

from notify_tasks.choices import DROP, NO_CHOICES, Choices
from notify_tasks.event_type import EventType
from notify_tasks.notification import Notification, RecipientRef
from notify_tasks.states import State

INAPP: Final = "inapp"
NO_ADDRESS: Final = "no_address"
NOT_VERIFIED: Final = "not_verified"
COUNTRY_NOT_ALLOWED: Final = "country_not_allowed"
ADDRESS_SUPPRESSED: Final = "address_suppressed"
PREFERENCE_OFF: Final = "preference_off"
SCHEDULED: Final = "scheduled"
VACATION: Final = "vacation"
QUIET_HOURS: Final = "quiet_hours"
EXPIRED: Final = "expired_before_planning"
EXPIRES_FIRST: Final = {VACATION: "expires_in_vacation", QUIET_HOURS: "expires_in_quiet_hours"}
"""The reason of what would have had to wait until it is worthless."""
_ROUNDS: Final = 3
"""After a vacation there may be quiet hours, and after these, at most, the vacation that begins in them."""


@dataclass(frozen=True, slots=True)
class Profile:
    """A recipient as stored: addresses by channel, locale, zone."""

    id: str
    addresses: Mapping[str, tuple[str, ...]] = field(default_factory=dict, repr=False)
    locale: str | None = None
    timezone: str | None = None
    unverified: frozenset[tuple[str, str]] = field(default=frozenset(), repr=False)
    """Pairs of channel and address that the person has not proved to be theirs."""
    choices: Choices = NO_CHOICES


@dataclass(frozen=True, slots=True)
class Decision:
    """What happens to one notification for one address over one channel.

    `state` is where its delivery begins: `queued` (send now), `held` (until `due_at`), or a final state with the
    reason why nothing is sent. `reasons` are all that held it back, in the order in which they did; `reason` is the
    last.
    """

    recipient: int
    """Which entry of `to`."""
    recipient_id: str | None
    channel: str
    address: str = field(repr=False)
    locale: str | None
    timezone: str | None
    lane: str
    state: State
    reason: str | None
    due_at: datetime | None
    expires_at: datetime
    on_doubt: str
    max_attempts: int
    reasons: tuple[str, ...] = ()
    category: str | None = None
    """What the person may switch off, which the claim asks again; None where they may not."""
    opt_in: bool = False


@dataclass(frozen=True, slots=True)
class Dropped:
    """A channel that one recipient does not get, and why: no address, one that gets it already, one not verified."""

    recipient: int
    channel: str
    reason: str


@dataclass(frozen=True, slots=True)
class Rejection:
    """A recipient to whom nothing can go."""

    recipient: int
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Plan:
    """Every decision about one notification."""

    decisions: tuple[Decision, ...] = ()
    dropped: tuple[Dropped, ...] = ()
    rejections: tuple[Rejection, ...] = ()

    def explained(self) -> dict[str, Any]:
        """The plan as it is stored with the notification: reasons, without addresses."""
        return {
            "decisions": [
                {
                    "to": decision.recipient,
                    "channel": decision.channel,
                    "lane": decision.lane,
                    "state": decision.state,
                    **({"reason": decision.reason} if decision.reason else {}),
                    **({"reasons": list(decision.reasons)} if len(decision.reasons) > 1 else {}),
                    **({"due_at": decision.due_at.isoformat()} if decision.due_at else {}),
                    "expires_at": decision.expires_at.isoformat(),
                }
                for decision in self.decisions
            ],
            "dropped": [
                {"to": drop.recipient, "channel": drop.channel, "reason": drop.reason}
                for drop in self.dropped
            ],
            "rejected": [
                {"to": no.recipient, "reason": no.reason, "detail": no.detail} for no in self.rejections
            ],
        }


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
    channels = notification.channels or event_type.channels
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
        for channel in channels:
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
                decisions.append(decision)
                seen |= _served(decision)
        if not found:
            rejections.append(_unreachable(index, without, abroad.values()))
    return Plan(tuple(decisions), tuple(dropped), tuple(rejections))


def _served(decision: Decision) -> set[tuple[str, str]]:
    """The address that needs no second message. Where one person does not want it, who shares the address may."""
    return set() if decision.reason == PREFERENCE_OFF else {(decision.channel, decision.address)}


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
    expires_at = expiry(notification, event_type, now)
    state, reasons, due_at = State.QUEUED, [], None
    if target in suppressed:
        state, reasons = State.SUPPRESSED, [ADDRESS_SUPPRESSED]
    elif expires_at <= now:
        state, reasons = State.EXPIRED, [EXPIRED]
    elif not _wanted(event_type, choices, channel):
        state, reasons = State.SUPPRESSED, [PREFERENCE_OFF]
    else:
        for gate in _waits(notification.at, event_type, choices, timezone, now):
            reasons.append(gate.reason)
            state, due_at = State.HELD, gate.until
            if due_at is None:
                state = State.SUPPRESSED
            elif gate.reason in EXPIRES_FIRST and due_at >= expires_at:
                state, due_at = State.EXPIRED, None
                reasons.append(EXPIRES_FIRST[gate.reason])
            if state is not State.HELD:
                break
    return Decision(
        recipient=index,
        recipient_id=ref.id,
        channel=channel,
        address=address,
        locale=notification.locale or ref.locale or (profile.locale if profile else None),
        timezone=timezone,
        lane=notification.priority or event_type.lane,
        state=state,
        reason=reasons[-1] if reasons else None,
        due_at=due_at,
        expires_at=expires_at,
        on_doubt=event_type.on_doubt_for(channel),
        max_attempts=event_type.attempts,
        reasons=tuple(reasons),
        category=None if event_type.required or ref.id is None else event_type.category,
        opt_in=event_type.opt_in,
    )


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


def expiry(notification: Notification, event_type: EventType, now: datetime) -> datetime:
    """When the notification is worthless.

    It counts from the producer's timestamp, so that an outage before intake counts too, but never from the
    future: a producer's clock that is ahead gains nothing.
    """
    if notification.expires is not None:
        return notification.expires
    start = min(notification.timestamp, now)
    if notification.at is not None:
        start = max(start, notification.at)
    return start + timedelta(seconds=event_type.expires)

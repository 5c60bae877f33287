"""What planning says, as values: people as they are stored, decisions with their reasons, and whole plans. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import Any, Final

from notify_tasks.choices import NO_CHOICES, Choices
from notify_tasks.digesting import Gathering, Throttling
from notify_tasks.escalation import Place
from notify_tasks.gathering import GATHERED, Timing, Turn
from notify_tasks.states import FINAL, State

INAPP: Final = "inapp"
NO_ADDRESS: Final = "no_address"
NOT_VERIFIED: Final = "not_verified"
COUNTRY_NOT_ALLOWED: Final = "country_not_allowed"
ADDRESS_SUPPRESSED: Final = "address_suppressed"
PREFERENCE_OFF: Final = "preference_off"
SCHEDULED: Final = "scheduled"
LOCAL_TIME: Final = "local_time"
"""Its `at` was read on the clock of the recipient's zone."""
LOCAL_TIME_UTC: Final = "local_time_utc"
"""Its `at` was read as UTC, since the recipient's zone is not known."""
LOCAL_TIME_PASSED: Final = "local_time_passed"
"""On the recipient's clock its `at` had passed, so that it goes at once."""
VACATION: Final = "vacation"
QUIET_HOURS: Final = "quiet_hours"
STEP: Final = "step"
"""It waits for the step before it."""
EXPIRED: Final = "expired_before_planning"
EXPIRES_FIRST: Final = {
    SCHEDULED: "expires_before_at",
    VACATION: "expires_in_vacation",
    QUIET_HOURS: "expires_in_quiet_hours",
}
"""The reason of what would have had to wait until it is worthless."""


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
    place: Place | None = None
    """Where it stands in its recipient's steps. One that waits there has no due time; `expires_at` is then the latest
    that is possible."""
    timing: Timing | None = field(default=None, repr=False)
    """How it is gathered and counted; None where it is neither."""
    told: Mapping[str, Any] = field(default_factory=dict)
    """What the store has decided, in plain values."""

    @property
    def digest(self) -> Gathering | None:
        """The digest that it joins."""
        return self.timing.digest if self.timing is not None and self.reason == GATHERED else None

    @property
    def counted(self) -> Throttling | None:
        """The count that it takes its place in now."""
        if self.timing is None or self.reason == STEP or self.state in FINAL:
            return None
        return self.timing.throttle

    def turned(self, timing: Timing, turn: Turn, **told: Any) -> Decision:
        """The same delivery, beginning another way."""
        return replace(
            self,
            state=turn.state,
            reason=turn.reasons[-1] if turn.reasons and turn.state is not State.QUEUED else None,
            reasons=turn.reasons,
            due_at=turn.due_at,
            expires_at=turn.expires_at,
            timing=timing if timing.digest is not None or timing.throttle is not None else None,
            told={**self.told, **told},
        )

    def explained(self) -> dict[str, Any]:
        """As it is stored with the plan."""
        due_at = self.due_at or (self.digest.due_at if self.digest else None)
        return {
            "to": self.recipient,
            **({"id": self.recipient_id} if self.recipient_id else {}),
            "channel": self.channel,
            "lane": self.lane,
            "state": self.state,
            **({"reason": self.reason} if self.reason else {}),
            **({"reasons": list(self.reasons)} if self.reasons not in ((), (self.reason,)) else {}),
            **({"due_at": due_at.isoformat()} if due_at else {}),
            **({"timezone": self.timezone} if LOCAL_TIME in self.reasons else {}),
            "expires_at": self.expires_at.isoformat(),
            **(self.place.explained() if self.place else {}),
            **(_gathered_into(self.digest) if self.digest else {}),
            **self.told,
        }


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
class Timed:
    """What a call with an `at` keeps of its type, so that it can be moved to another time without its templates.

    Args:
        expires_after: seconds from its time to its expiry; None where the call itself says when it is worthless.
        required: it waits for nobody's quiet hours or vacation.
        ignores_quiet_hours: it does not wait for the end of quiet hours.
    """

    expires_after: float | None = None
    required: bool = False
    ignores_quiet_hours: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """Every decision about one notification. `timed` is set where it was asked for at a time."""

    decisions: tuple[Decision, ...] = ()
    dropped: tuple[Dropped, ...] = ()
    rejections: tuple[Rejection, ...] = ()
    timed: Timed | None = None

    def explained(self) -> dict[str, Any]:
        """The plan as it is stored with the notification: reasons, without addresses."""
        return {
            "decisions": [decision.explained() for decision in self.decisions],
            "dropped": [
                {"to": drop.recipient, "channel": drop.channel, "reason": drop.reason}
                for drop in self.dropped
            ],
            "rejected": [
                {"to": no.recipient, "reason": no.reason, "detail": no.detail} for no in self.rejections
            ],
            **({} if self.timed is None else {"timed": asdict(self.timed)}),
        }


def _gathered_into(digest: Gathering) -> dict[str, Any]:
    return {"digest": {"type": digest.type, "when": digest.when, "due_at": digest.due_at.isoformat()}}

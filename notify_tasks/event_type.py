"""What a type's folder says about sending it, as a frozen value. Pure: `rendering` reads the folder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from notify_tasks.digesting import DIGEST, DigestRule, ThrottleRule
from notify_tasks.rates import Rate

DEFAULT_EXPIRY: Final = 3 * 24 * 3600.0
"""Seconds after which a notification is worthless where its type does not say. Every type has an expiry."""

DEFAULT_ATTEMPTS: Final = 8

HOLD: Final = "hold"
RESEND: Final = "resend"

READ: Final = "read"
DELIVERED: Final = "delivered"


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a type: channels that go together.

    Args:
        channels: which.
        after: seconds since the step before was sent; 0 for the first.
        unless: what makes it needless when its time has come: `read`, or `delivered`, which what was read is as well.
    """

    channels: tuple[str, ...]
    after: float = 0.0
    unless: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class EventType:
    """The policy of an event type.

    Args:
        name: `order.shipped`, also the folder's name.
        version: content hash of the folder, stored with each delivery.
        channels: the channels it goes over where the call names none; all of its steps', where it has steps.
        category: what a person switches on and off (`security`, `orders`).
        lane: high, normal or bulk.
        expires: seconds after acceptance (or after `at`) when it is worthless.
        on_doubt: `resend` or `hold` for a request whose answer was lost; None takes the channel's default.
        attempts: how many attempts may be spent; throttling spends none.
        language: the language of the files in the folder itself (`en`): how they write dates and amounts.
        per_recipient: how often it may write to one recipient over one channel; each must hold.
        verified_only: send to stored addresses only where the person has proved that they are theirs.
        opt_in: it goes only to people who have switched it on; False for all who have not switched it off.
        required: nobody can switch it off, and it waits for nobody's quiet hours or vacation.
        unsubscribe: its mails carry a link by which the person switches its category off for mail.
        ignores_quiet_hours: it does not wait for the end of quiet hours.
        digest: how it is gathered; None where each goes by itself.
        throttle: how many go to one person over one channel, and what becomes of the others.
        steps: where it has any, its channels go one after another, and only as far as is needed.
    """

    name: str
    version: str
    channels: tuple[str, ...]
    category: str = "general"
    lane: str = "normal"
    expires: float = DEFAULT_EXPIRY
    on_doubt: str | None = None
    attempts: int = DEFAULT_ATTEMPTS
    language: str = "en"
    verified_only: bool = False
    per_recipient: tuple[Rate, ...] = ()
    opt_in: bool = False
    required: bool = False
    unsubscribe: bool = False
    ignores_quiet_hours: bool = False
    digest: DigestRule | None = None
    throttle: ThrottleRule | None = None
    steps: tuple[Step, ...] = ()

    @property
    def gathers(self) -> bool:
        """Whether it is gathered of itself, and not only where somebody asks for it or there are too many."""
        if self.digest is None or self.digest.when is None:
            return False
        return self.throttle is None or self.throttle.over != DIGEST

    def on_doubt_for(self, channel: str) -> str:
        """`resend` unless the type says otherwise; an SMS costs money and annoys, so it is held."""
        return self.on_doubt or (HOLD if channel == "sms" else RESEND)

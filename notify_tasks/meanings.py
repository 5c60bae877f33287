"""What reasons and codes mean, in words for whoever asks why: each is a clause that goes on after "because". Pure.

Everything that planning, the gates, the store, the retries and receipts write as a reason has its clause here; what a
provider says in codes of its own is shown as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

PLANNED: Final[Mapping[str, str]] = {
    "no_address": "the recipient has no address for it",
    "not_verified": "the address is not verified, and this type goes to verified addresses alone",
    "country_not_allowed": "the number is of a country that the fleet's configuration does not allow",
    "same_address": "another recipient of the same call has this address and gets it",
    "unknown_recipient": "no recipient has this id, and the call gave no address",
    "address_invalid": "the address is not valid",
    "address_suppressed": "the address is suppressed: nothing is sent to it",
    "preference_off": "the recipient does not want this category on this channel",
    "scheduled": "the call asked for this time",
    "local_time": "the call's time is read on the recipient's own clock",
    "local_time_utc": "the recipient's time zone is not known, so the call's time is read as UTC",
    "local_time_passed": "the call's time had passed on the recipient's clock, so it goes at once",
    "vacation": "the recipient is away",
    "quiet_hours": "the recipient does not want to be disturbed at this time",
    "step": "it waits for what becomes of the step before it",
    "expired_before_planning": "it was worthless before a worker saw it",
    "expires_before_at": "it would have been worthless by the time that the call asked for",
    "expires_in_vacation": "it would have been worthless by the time the recipient is back",
    "expires_in_quiet_hours": "it would have been worthless by the end of the recipient's quiet hours",
    "digest": "it is gathered, and goes out with a digest",
    "digested": "it went out with a digest",
    "no_digest_type": "a digest was asked for, and its type has none, so that it goes by itself",
    "expires_in_digest": "it would have been worthless by the time its digest goes out",
    "throttled": "the recipient has had as many of this type as it allows in this time",
    "expires_in_throttle": "it would have been worthless by the time the recipient may have another of this type",
}
"""Reasons of a plan."""

REJECTED: Final[Mapping[str, str]] = {
    "unknown_event_type": "there is no type of this name in the fleet's templates",
    "broken_event_type": "the templates of its type are broken",
    "payload_invalid": "the payload does not fit the type",
    "no_template": "the type has no template for a channel that the call named",
    "conflict": "its message id had been used before, with other content",
}
"""Why a whole call was rejected."""

HELD: Final[Mapping[str, str]] = {
    "no_provider_ready": "no provider of its channel can be called now",
    "provider_share_full": "its provider is busy with other messages",
    "recipient_limit": "the recipient gets no more for now by the fleet's limits",
    "rate": "it waits for its turn in the provider's rate",
    "paused": "an operator has paused it",
    "due": "its time has come already",
}
"""What a closed gate says; of `rate:NAME` and `paused: WHY` the first word."""

ENDED: Final[Mapping[str, str]] = {
    "cancelled": "it was cancelled",
    "expired": "it was worthless by then",
    "recipient_erased": "the recipient was erased",
    "lease_expired": "the worker that was sending it ended before the provider's answer was written",
    "retries_spent": "all attempts that its type allows were spent",
    "key_window_passed": "the provider can no longer tell whether it has had it",
    "endpoint_disabled": "the webhook's endpoint is disabled",
    "opted_out": "the person said stop",
    "complained": "the person called a message spam",
    "operator": "an operator decided so",
    "read": "an earlier step was read",
    "delivered": "an earlier step was delivered",
}
"""Why it ended, or was stopped."""

ATTEMPTED: Final[Mapping[str, str]] = {
    "accepted": "the provider took it",
    "released": "nothing was sent, and it was put back",
    "lost": "the worker ended before the answer was written, so the outcome is unknown",
    "throttled": "the provider asked to slow down",
    "try_later": "the provider could not take it now",
    "unavailable": "the provider was down",
    "unroutable": "this provider cannot carry it",
    "misconfigured": "the fleet's account or settings at the provider are wrong",
    "uncertain": "the answer was lost, so the outcome is unknown",
    "refused": "the provider will not take this message",
    "address_invalid": "the provider says that the address is dead",
    "opted_out": "the provider says that the person said stop",
}
"""The outcomes of an attempt."""

OURS: Final[Mapping[str, str]] = {
    "provider_gone": "its provider was taken out of the configuration",
    "provider_bug": "the code of the provider failed",
    "lease_too_short": "the worker had stood still for too long to begin a call",
    "secret_key_missing": "the key that signs webhooks is not set",
    "secret_key_wrong": "the key that signs webhooks is not the one that they were stored with",
    "render_failed": "its template could not be filled in",
    "render_bug": "its template could not be filled in because of a fault of the fleet",
    "broken_type": "the templates of its type are broken",
    "unknown_type": "the templates of its type are gone",
    "attachment_removed": "a file that it carries is deleted",
    "attachment_missing": "a file that it carries is not in the fleet's folder",
    "attachment_not_a_file": "what it carries is no file",
    "attachment_too_large": "the files that it carries are too large together",
    "attachment_unreadable": "a file that it carries cannot be read",
}
"""Codes of the fleet's own, beside those that a provider gives."""

STANDING: Final[Mapping[str, str]] = {
    "address_invalid": "the provider reported that the address is dead",
    "opted_out": "the person said stop",
    "complained": "the person called a message spam",
    "opted_in": "the person wants messages again",
}
"""Why an address is suppressed."""

MEANINGS: Final[Mapping[str, str]] = {**ATTEMPTED, **OURS, **ENDED, **HELD, **REJECTED, **PLANNED}


def known(code: str | None) -> str | None:
    """The clause of a reason; None for one of a provider's own, or none."""
    if code is None:
        return None
    return MEANINGS.get(code) or (MEANINGS.get(code.partition(":")[0]) if ":" in code else None)


def because(code: str | None) -> str:
    """`because` and the clause of a reason; what has none is shown as it is."""
    if code is None:
        return "for no reason that was written down"
    return f"because {clause}" if (clause := known(code)) else f"with the code {code}"

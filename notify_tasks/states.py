"""The states of a delivery and of a notification, and the moves between them. Pure.

SQL applies a move with `WHERE state IN (...)`; the sets here are what those lists are made of.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class State(StrEnum):
    """Where a delivery is."""

    HELD = "held"
    QUEUED = "queued"
    RETRYING = "retrying"
    SENDING = "sending"
    SENT = "sent"
    DELIVERED = "delivered"
    UNDELIVERED = "undelivered"
    FAILED = "failed"
    IN_DOUBT = "in_doubt"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    SUPPRESSED = "suppressed"
    SUPERSEDED = "superseded"
    DIGESTED = "digested"
    """It went into a digest, which is a notification of its own."""


class NotificationState(StrEnum):
    """Where a notification by itself is; its deliveries have their own states."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    DIGESTED = "digested"
    CANCELLED = "cancelled"


WAITING: Final = frozenset({State.HELD, State.QUEUED, State.RETRYING})
"""Nothing is being sent right now; cancel, expiry and suppression may still stop it."""

CLAIMABLE: Final = frozenset({State.QUEUED, State.RETRYING})
"""A worker may claim it."""

MOVES: Final[dict[State, frozenset[State]]] = {
    State.HELD: frozenset(
        {
            State.QUEUED,
            State.SENT,
            State.DELIVERED,
            State.UNDELIVERED,
            State.IN_DOUBT,
            State.CANCELLED,
            State.EXPIRED,
            State.SUPPRESSED,
            State.SUPERSEDED,
            State.DIGESTED,
        }
    ),
    State.QUEUED: frozenset(
        {
            State.HELD,
            State.SENDING,
            State.SENT,
            State.DELIVERED,
            State.UNDELIVERED,
            State.IN_DOUBT,
            State.FAILED,
            State.CANCELLED,
            State.EXPIRED,
            State.SUPPRESSED,
            State.SUPERSEDED,
        }
    ),
    State.RETRYING: frozenset(
        {
            State.HELD,
            State.QUEUED,
            State.SENDING,
            State.SENT,
            State.DELIVERED,
            State.UNDELIVERED,
            State.IN_DOUBT,
            State.FAILED,
            State.CANCELLED,
            State.EXPIRED,
            State.SUPPRESSED,
            State.SUPERSEDED,
        }
    ),
    State.SENDING: frozenset(
        {
            State.QUEUED,
            State.RETRYING,
            State.HELD,
            State.SENT,
            State.FAILED,
            State.IN_DOUBT,
            State.SUPPRESSED,
            State.EXPIRED,
        }
    ),
    State.SENT: frozenset({State.DELIVERED, State.UNDELIVERED}),
    State.IN_DOUBT: frozenset({State.SENT, State.DELIVERED, State.UNDELIVERED, State.FAILED}),
    State.DELIVERED: frozenset(),
    State.UNDELIVERED: frozenset({State.DELIVERED}),
    State.FAILED: frozenset(),
    State.CANCELLED: frozenset(),
    State.EXPIRED: frozenset(),
    State.SUPPRESSED: frozenset(),
    State.SUPERSEDED: frozenset(),
    State.DIGESTED: frozenset(),
}
"""Every legal move. `held`, `queued` and `retrying` reach `sent` when a late acceptance of an earlier attempt
stops a resend, `delivered` and `undelivered` when a receipt tells of one, and `in_doubt` when they end while such an
attempt is unknown."""

FINAL: Final = frozenset(State) - WAITING - {State.SENDING}
"""The fleet does no more of itself. `sent` and `in_doubt` may still be completed by a late answer or receipt."""

UNKNOWN_ENDS: Final = frozenset({State.SENT, State.DELIVERED, State.UNDELIVERED, State.IN_DOUBT})
"""The only ends of a delivery that has an attempt of unknown outcome."""


def end(wanted: State, *, unknown: bool) -> State:
    """The final state that `wanted` becomes when an earlier attempt's outcome may be unknown."""
    return State.IN_DOUBT if unknown and wanted not in UNKNOWN_ENDS else wanted


def may_move(old: State, new: State) -> bool:
    """Whether a delivery may go from `old` to `new`."""
    return new in MOVES[old]

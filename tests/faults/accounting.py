"""Accounts for every notification: what was accepted, what the far end saw, what the rows say.

I1: nothing accepted is lost.
I2: sent means one effect. I3: what ended otherwise had none. I5: no request without its attempt.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from faults.fleet import KIND, RunningFleet

from notify_tasks.errors import MaybeAccepted, NotAccepted
from notify_tasks.producer import send_notification

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Ledgers:
    """What the client knows: **A** surely accepted, by message id with its channels."""

    accepted: dict[str, tuple[str, ...]] = field(default_factory=dict)
    maybe: set[str] = field(default_factory=set)


def send(
    ledgers: Ledgers, n: int, channels: tuple[str, ...] | None, *, event_type: str = "fault.ping"
) -> str:
    """One call, repeated with its id until the answer is definite."""
    message_id: str | None = None
    to = {
        "sms": "+4915112345678",
        "push": f"token-{n}",
        "chat": f"room-{n}",
        "email": f"person-{n}@example.com",
    }
    while True:
        try:
            result = send_notification.delay(
                event_type,
                to=to,
                payload={"n": n},
                channels=None if channels is None else list(channels),
                message_id=message_id,
            )
        except (MaybeAccepted, NotAccepted) as error:
            message_id = error.message_id
            ledgers.maybe.add(error.message_id)
            time.sleep(0.2)
        else:
            ledgers.accepted[result.id] = channels or ("sms", "push", "chat")
            return str(result.id)


def mix(n: int) -> tuple[str, ...] | None:
    """Channels of the n-th call: each alone (one hop), and all three through intake."""
    return (("sms",), ("push",), ("chat",), None)[n % 4]


@dataclass(slots=True)
class Account:
    """What the accounting found. `problems` is empty where every promise was kept."""

    deliveries: int = 0
    states: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    duplicates: list[str] = field(default_factory=list)
    phantoms: list[str] = field(default_factory=list)
    false_ends: list[str] = field(default_factory=list)
    in_doubt: Counter[str] = field(default_factory=Counter)

    @property
    def problems(self) -> list[str]:
        """One line for each broken promise."""
        found = {
            "I1 lost": self.lost,
            "I2 sent twice": self.duplicates,
            "I3 ended without being sent, yet accepted by the far end": self.false_ends,
            "I5 requests without an attempt": self.phantoms,
        }
        return [f"{name}: {len(ids)}, such as {ids[:3]}" for name, ids in found.items() if ids]


def account(fleet: RunningFleet, ledgers: Ledgers, *, may_repeat: Iterable[str] = ()) -> Account:
    """Compare the ledgers. Call it after quiescence.

    Args:
        fleet: it.
        ledgers: the client's.
        may_repeat: channels whose far end is opaque and whose type says `resend`: a second effect there is what was
            asked for after a lost answer.
    """
    found = Account()
    requests = [it for it in fleet.sandbox.requests() if it.action == "send"]
    effects: Counter[str] = Counter(it.delivery_id or "?" for it in requests if it.accepted)
    rows = fleet.rows(
        "SELECT d.id::text, d.message_id, d.channel, d.state FROM notify.delivery d"
        " JOIN notify.notification n ON n.id = d.notification_id"
    )
    by_message: dict[str, set[str]] = {}
    for id_, message_id, channel, state in (map(str, row) for row in rows):
        found.deliveries += 1
        found.states[state] += 1
        by_message.setdefault(message_id, set()).add(channel)
        if state in ("held", "queued", "retrying", "sending"):
            found.lost.append(f"{message_id}/{channel} is {state}")
        elif state == "sent":
            if effects[id_] == 0:
                found.lost.append(f"{message_id}/{channel} is sent, but the far end has nothing")
            elif effects[id_] > 1 and channel not in may_repeat:
                found.duplicates.append(f"{message_id}/{channel} x{effects[id_]}")
        elif state == "in_doubt":
            found.in_doubt[KIND.get(channel, "opaque")] += 1
            if effects[id_] > 1 and channel not in may_repeat:
                found.duplicates.append(f"{message_id}/{channel} in doubt x{effects[id_]}")
        elif effects[id_]:
            found.false_ends.append(f"{message_id}/{channel} is {state}")
    for message_id, channels in ledgers.accepted.items():
        missing = set(channels) - by_message.get(message_id, set())
        found.lost += [f"{message_id}/{channel} is not there" for channel in missing]
    known = {str(row[0]) for row in fleet.rows("SELECT DISTINCT delivery_id::text FROM notify.attempt")}
    found.phantoms += [it.delivery_id or "?" for it in requests if it.delivery_id not in known]
    found.phantoms += [id_ for id_ in by_message if id_ not in ledgers.accepted and id_ not in ledgers.maybe]
    log.info(
        "%d accepted, %d deliveries: %s; in doubt: %s",
        len(ledgers.accepted),
        found.deliveries,
        dict(found.states),
        dict(found.in_doubt),
    )
    return found

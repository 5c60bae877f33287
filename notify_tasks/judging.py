"""Judging a call: its type, its payload, its recipients' plans. What comes out is what accepting stores.

Nothing is written here. A call whose type is not there yet waits for it; what can never be sent is rejected, with the
reason.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from notify_tasks import countries, planning
from notify_tasks.contacts import Vetted
from notify_tasks.digesting import OFF
from notify_tasks.gates import Gates
from notify_tasks.notification import Notification, uuid7
from notify_tasks.plans import Decision, Plan, Profile
from notify_tasks.providers import Configured
from notify_tasks.rates import Rate
from notify_tasks.rendering import BrokenType, Catalog, LoadedType, PayloadInvalid
from notify_tasks.routing import queue_for
from notify_tasks.store.accepting import Claim, NewDelivery, NewNotification
from notify_tasks.store.deliveries import Claimed
from notify_tasks.store.known import Context

SMS: Final = "sms"
NO_DIGEST: Final = (
    "the call asks for a digest, and type {0} has none; add [digest] with the digest's type to {0}/notification.toml, "
    "or leave digest out of the call"
)


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of one call.

    Args:
        kind: `accepted`, `repeated`, `conflict`, `rejected`, `cancelled`, or `waiting` (for its type's folder).
        claimed: the delivery that was claimed with it, for the worker to perform now.
        asked: the monotonic time just before that claim.
        lease: seconds of that claim.
    """

    notification: Notification
    kind: str
    detail: str | None = None
    deliveries: int = 0
    claimed: Claimed | None = None
    asked: float = 0.0
    lease: float | None = None


@dataclass(slots=True)
class Judged:
    """One call on its way through: either an item to store, or a wait for its type."""

    notification: Notification
    item: NewNotification | None = None
    plan: Plan | None = None
    waits: str | None = None
    one_hop: tuple[Configured, Decision] | None = None
    now: datetime | None = None
    """When it was judged, by the database's clock."""
    limits: tuple[Rate, ...] = ()
    """How often its type may write to one recipient."""
    taken: Taken | None = None
    claim: Claim | None = None


class Judge:
    """Judges calls.

    Args:
        catalog: the types.
        gates: they know which countries are allowed.
        unknown_type_wait: seconds for which a call waits for a type that is not there.
    """

    def __init__(self, catalog: Catalog, gates: Gates, unknown_type_wait: float) -> None:
        self._catalog = catalog
        self._gates = gates
        self._unknown_type_wait = unknown_type_wait

    def judge(self, notification: Notification, vetted: Vetted, context: Context, *, waited: float) -> Judged:
        """Judge one call: what is to be stored of it, or what it waits for.

        Args:
            notification: the call as it came.
            vetted: the same, with its addresses checked.
            context: what is stored of its people.
            waited: seconds for which it has waited for its type.
        """
        judged = Judged(notification, now=context.now)
        loaded = self._load(judged, waited)
        if loaded is None:
            return judged
        try:
            loaded.check_payload(notification.payload)
        except PayloadInvalid as error:
            return self._reject(judged, "payload_invalid", str(error))
        missing = [name for name in notification.channels or () if name not in loaded.available]
        if missing:
            return self._reject(
                judged,
                "no_template",
                f"type {notification.event_type} has no template for {', '.join(missing)}; "
                f"it has {', '.join(sorted(loaded.available))}",
            )
        if notification.digest not in (None, OFF) and loaded.policy.digest is None:
            return self._reject(judged, "no_digest_type", NO_DIGEST.format(notification.event_type))
        profiles, suppressed = context.of(vetted.notification)
        plan = planning.plan(
            vetted.notification,
            loaded.policy,
            profiles,
            suppressed,
            context.now.astimezone(UTC),
            {index: str(error) for index, error in vetted.refused.items()},
            self._abroad(vetted.notification, profiles.values()),
        )
        if not plan.decisions:
            first = plan.rejections[0]
            return self._reject(judged, first.reason, first.detail, plan)
        judged.plan = plan
        judged.limits = loaded.policy.per_recipient
        judged.item = NewNotification(
            id=uuid7(),
            notification=vetted.notification,
            plan=plan.explained() | vetted.explained(),
            deliveries=tuple(
                NewDelivery(uuid7(), decision, queue_for(decision.channel, decision.lane))
                for decision in plan.decisions
            ),
        )
        return judged

    def _abroad(self, notification: Notification, profiles: Iterable[Profile]) -> dict[tuple[str, str], str]:
        """The numbers of its recipients whose country is not allowed, and why."""
        allowed = self._gates.countries(SMS, sandbox=notification.sandbox)
        if allowed is None:
            return {}
        numbers = {ref.addresses[SMS] for ref in notification.to if SMS in ref.addresses}
        numbers |= {number for it in profiles for number in it.addresses.get(SMS, ())}
        found = {number: countries.of_number(number) for number in numbers}
        return {
            (SMS, number): f"the number is of {country or 'no country'}, and channels.sms.countries has "
            f"{', '.join(sorted(allowed))}; add its country there, or use another number or channel"
            for number, country in found.items()
            if country not in allowed
        }

    def _load(self, judged: Judged, waited: float) -> LoadedType | None:
        name = judged.notification.event_type
        try:
            loaded = self._catalog.get(name)
            problem = ("unknown_event_type", f"there is no folder for {name!r} under the templates")
        except BrokenType as error:
            loaded, problem = None, ("broken_event_type", f"the folder of {name!r} is broken: {error}"[:500])
        if loaded is None:
            if waited < self._unknown_type_wait:
                judged.waits = problem[0]
            else:
                self._reject(judged, *problem)
        return loaded

    @staticmethod
    def _reject(judged: Judged, reason: str, detail: str, plan: Plan | None = None) -> Judged:
        judged.item = NewNotification(
            id=uuid7(),
            notification=judged.notification,
            plan=plan.explained() if plan else {},
            state="rejected",
            reason=reason,
            detail=detail,
        )
        return judged

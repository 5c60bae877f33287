"""Why a notification was sent, or was not, in sentences that can be given to whoever asks. Pure: facts -> sentences.

Addresses are shortened, also in what providers have said. Nothing of a payload is here, nor the names of machines.
Times are in UTC.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from notify_tasks import choices, meanings
from notify_tasks.meanings import because
from notify_tasks.plans import EXPIRES_FIRST, PREFERENCE_OFF, QUIET_HOURS, VACATION
from notify_tasks.states import WAITING
from notify_tasks.store.facts import Facts, More, Suppressed, Version
from notify_tasks.store.statuses import AttemptStatus, DeliveryStatus, Event, Status
from notify_tasks.wording import detailed, of_plan, scrubbed, times, when, whom

_OF_QUIET: Final = (QUIET_HOURS, EXPIRES_FIRST[QUIET_HOURS])
_OF_VACATION: Final = (VACATION, EXPIRES_FIRST[VACATION])


@dataclass(frozen=True, slots=True)
class Told:
    """One sentence.

    Args:
        text: it.
        about: channel and recipient; empty where it is about the whole call.
        at: when it happened, in UTC; None for what holds now.
    """

    text: str
    about: str = ""
    at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Explanation:
    """Everything that can be said of one call.

    Args:
        event_type: None where nothing is known of the call but a cancel.
        sentences: in the order in which they are best read.
    """

    message_id: str
    tenant: str
    event_type: str | None
    sentences: tuple[Told, ...]

    @property
    def text(self) -> str:
        """All of it, ready to be pasted."""
        lines, about = [f"{self.message_id}" + (f" ({self.event_type})" if self.event_type else "")], ""
        for told in self.sentences:
            if told.about != about:
                about = told.about
                lines += [f"- {about}"] if about else []
            lines.append(f"{'    ' if told.about else '  '}{told.text}")
        return "\n".join(lines)

    def as_json(self) -> dict[str, Any]:
        """Plain values, for machines; times in RFC 3339."""
        made = asdict(self)
        for told in made["sentences"]:
            told["at"] = told["at"] and told["at"].isoformat()
        return made


def explanation(facts: Facts, now: datetime) -> Explanation:
    """Say all that is known of a call.

    Args:
        facts: what the store knows.
        now: the present, in UTC.
    """
    found = facts.found
    sentences = [*_of_call(facts, now)]
    for status in found.notifications:
        sentences += _of_notification(status, facts, now)
    kinds = [status.event_type for status in found.notifications] + [it.event_type for it in facts.kept]
    return Explanation(facts.message_id, facts.tenant, kinds[0] if kinds else None, tuple(sentences))


# --- the call -----------------------------------------------------------------------------------------


def _of_call(facts: Facts, now: datetime) -> Iterator[Told]:
    found = facts.found
    if found.schedule is not None and found.occurrence is not None:
        yield Told(
            f"It was made by the recurring schedule {found.schedule}, for its occurrence of {when(found.occurrence)}.",
            at=found.occurrence,
        )
    for kept in facts.kept:
        tried = f" It was taken up {times(kept.tries)} without an end." if kept.tries else ""
        later = f" It is looked at again at {when(kept.due_at)}." if kept.due_at > now else ""
        origin = _ORIGINS.get(kept.origin, kept.origin)
        yield Told(
            f"It is stored since {when(kept.since)} and not planned yet ({origin}).{tried}{later}",
            at=kept.since,
        )
    if found.cancelled_at is not None and not found.notifications:
        yield Told(
            f"It was cancelled at {when(found.cancelled_at)}, before any worker had planned it: nothing was sent, "
            "and nothing will be.",
            at=found.cancelled_at,
        )


_ORIGINS: Final = {
    "producer": "the producer stored it in the database",
    "ledger": "its message was lost on the way and found again",
    "unknown_type": "there is no type of its name yet",
    "replay": "an operator has it planned again",
    "schedule": "a recurring schedule has made it",
    "digest": "it is a digest",
}


def _of_notification(status: Status, facts: Facts, now: datetime) -> Iterator[Told]:
    source = f" by {scrubbed(status.source)}" if status.source else ""
    called = f"It was called for at {when(status.occurred_at)}{source}"
    if status.state == "rejected":
        yield Told(
            f"{called}, and rejected at {when(status.accepted_at)}: nothing was sent.", at=status.accepted_at
        )
        detail = f" ({scrubbed(status.detail)})" if status.detail else ""
        yield Told(f"That is {because(status.reason)}{detail}.", at=status.accepted_at)
    else:
        yield Told(f"{called}, and accepted at {when(status.accepted_at)}.", at=status.accepted_at)
    if status.purged_at is not None:
        yield Told(
            f"Its content and addresses were removed at {when(status.purged_at)}, for their age; it cannot be sent "
            "again.",
            at=status.purged_at,
        )
    if facts.members:
        yield Told(f"It is a digest of {', '.join(facts.members)}.", at=status.accepted_at)
    yield from _without_delivery(status, facts)
    yield from _ignored(status)
    for event in status.events:
        if event.kind != status.state:
            yield _event(event, "")
    for delivery in status.deliveries:
        if facts.recipient_id in (None, delivery.recipient_id):
            yield from of_delivery(status, delivery, facts, now)


def _without_delivery(status: Status, facts: Facts) -> Iterator[Told]:
    """Whom, and where, the plan has left out."""
    names = facts.left_out.get(status.id, {})
    reasons = [(each, f"by {each['channel']} ") for each in status.plan.get("dropped", ())]
    reasons += [(each, "") for each in status.plan.get("rejected", ())]
    for each, by in reasons:
        name = names.get(each["to"])
        if facts.recipient_id is not None and name not in (None, facts.recipient_id):
            continue
        yield Told(
            f"Nothing goes {by}to {name or _nth(each['to'])}, {because(each['reason'])}{detailed(each)}.",
            at=status.accepted_at,
        )


def _ignored(status: Status) -> Iterator[Told]:
    for each in status.plan.get("ignored", ()):
        name = each["field"].replace("timezone", "time zone")
        yield Told(
            f"The {name} that the call gave for {_nth(each['to'])} is not known and was left out.",
            at=status.accepted_at,
        )


def _nth(place: int) -> str:
    return f"recipient number {place + 1} of the call"


# --- one delivery -------------------------------------------------------------------------------------


def of_delivery(status: Status, delivery: DeliveryStatus, facts: Facts, now: datetime) -> Iterator[Told]:
    """What was decided about a delivery, what was tried, what was answered, and what is next."""
    about = whom(delivery.channel, delivery.recipient_id, delivery.address)
    more = facts.more.get(delivery.id)
    versions = facts.versions.get(delivery.recipient_id or "", ())
    planned = None if delivery.replay_of is not None else decision_of(status.plan, delivery)
    if delivery.replay_of is not None:
        yield Told("It is a replay of one that had ended without arriving.", about, delivery.created_at)
    elif planned is not None:
        yield Told(of_plan(planned), about, status.accepted_at)
        for code in planned.get("reasons", [planned.get("reason")]):
            yield from _wishes(code, about, more, versions, status.accepted_at)
    happened: list[tuple[datetime, Told]] = []
    for attempt in delivery.attempts:
        happened += [(told.at or now, told) for told in _attempt(attempt, about)]
    for event in delivery.events:
        happened.append((event.at, _event(event, about)))
    happened.sort(key=lambda pair: pair[0])
    yield from (told for _, told in happened)
    off = next((event for event in delivery.events if event.code == PREFERENCE_OFF), None)
    if off is not None and (planned is None or planned.get("reason") != PREFERENCE_OFF):
        yield from _wishes(PREFERENCE_OFF, about, more, versions, off.at)
    if delivery.state not in ("sent", "delivered") and more is not None and more.suppressed is not None:
        yield Told(_suppression(more.suppressed), about, more.suppressed.since)
    yield Told(_stands(delivery, more, now), about)


def decision_of(plan: Mapping[str, Any], delivery: DeliveryStatus) -> Mapping[str, Any] | None:
    """What the plan had decided about a delivery, where that can be told from what it decided about others."""
    same = [
        each
        for each in plan.get("decisions", ())
        if each["channel"] == delivery.channel
        and each.get("id", delivery.recipient_id) == delivery.recipient_id
    ]
    said = [{key: each.get(key) for key in ("state", "reason", "reasons", "due_at")} for each in same]
    return same[0] if same and all(each == said[0] for each in said) else None


def _wishes(
    code: str | None, about: str, more: More | None, versions: Sequence[Version], at: datetime
) -> Iterator[Told]:
    """Which version of the person's preferences has decided, who made it, and when."""
    if code == PREFERENCE_OFF:
        yield _switched_off(about, more, versions, at)
        return
    part = "quiet_hours" if code in _OF_QUIET else "vacation" if code in _OF_VACATION else None
    said = part and next((it for it in _since(versions, at) if it.settings.get(part)), None)
    if part is None or not said:
        return
    what = said.settings[part]
    # The version that brought it, of all that had it since.
    for older in _since(versions, said.changed_at):
        if older.settings.get(part) != what:
            break
        said = older
    if part == "quiet_hours":
        zone = what.get("timezone") or (more.timezone if more else None) or "UTC"
        shown = f"quiet hours are {what['from']} to {what['to']} ({zone})"
    else:
        shown = (
            f"vacation is {when(datetime.fromisoformat(what['from']))} to "
            f"{when(datetime.fromisoformat(what['until']))} ({what['mode']})"
        )
    yield Told(f"The recipient's {shown}, {_made(said)}.", about, said.changed_at)


def _since(versions: Sequence[Version], at: datetime) -> list[Version]:
    """Those in force at a time or before, newest first. What a plan has read may be a moment older than its commit."""
    return [it for it in versions if it.changed_at <= at + timedelta(seconds=1)]


def _switched_off(about: str, more: More | None, versions: Sequence[Version], at: datetime) -> Told:
    category = more.category if more and more.category else None
    channel = about.partition(" ")[0]
    if category is None:
        return Told("Its category is switched off in the recipient's preferences.", about)
    decided: Version | None = None
    for it in _since(versions, at):
        if choices.read(it.settings).wants(category, channel, default=not (more and more.opt_in)):
            break
        decided = it
    if decided is None or (more and more.opt_in and not _says(decided, category, channel)):
        return Told(
            f"The category {category} goes by {channel} only to those who have switched it on, and the recipient had "
            "not." if more and more.opt_in else
            f"The recipient's preferences have switched off the category {category} on {channel}.",
            about,
        )  # fmt: skip
    return Told(
        f"The category {category} is switched off for them on {channel}, {_made(decided)}.",
        about,
        decided.changed_at,
    )


def _says(version: Version, category: str, channel: str) -> bool:
    groups = version.settings.get("categories", {})
    return any(
        way in groups.get(group, {}) for group in (category, choices.ANY) for way in (channel, choices.ANY)
    )


def _made(version: Version) -> str:
    by = f" by {scrubbed(version.changed_by)}" if version.changed_by else ""
    return f"as set{by} at {when(version.changed_at)} (version {version.version} of their preferences)"


def _suppression(it: Suppressed) -> str:
    whom_ = " for every tenant" if it.everywhere else ""
    why = meanings.STANDING.get(it.reason, scrubbed(it.reason))
    return (
        f"The address is suppressed{whom_} since {when(it.since)} by {scrubbed(it.source)}: {why}. "
        "`notify suppressions` lists and lifts suppressions."
    )


def _attempt(attempt: AttemptStatus, about: str) -> Iterator[Told]:
    name = f"Attempt {attempt.number} via {attempt.provider}"
    if attempt.ended_at is None:
        yield Told(
            f"{name} began at {when(attempt.started_at)} and has no answer yet.", about, attempt.started_at
        )
        return
    outcome = attempt.outcome or ""
    said = meanings.ATTEMPTED.get(outcome, outcome)
    code = meanings.known(attempt.code) if outcome == "released" else attempt.code
    answer = ", ".join(scrubbed(part) for part in (code, attempt.detail) if part)
    shown = f" ({answer})" if answer else ""
    yield Told(f"{name} ended at {when(attempt.ended_at)}: {said}{shown}.", about, attempt.ended_at)


_HAPPENED: Final[Mapping[str, str]] = {
    "sent": "It was sent",
    "delivered": "The provider reported that it arrived",
    "undelivered": "The provider reported that it did not arrive",
    "read": "It was read",
    "failed": "It failed for good",
    "in_doubt": "It came into doubt: nobody knows whether it arrived, and it is not sent again by itself",
    "cancelled": "It was cancelled",
    "expired": "It expired",
    "suppressed": "It was stopped",
    "superseded": "It was not needed any more",
    "rejected": "It was rejected",
    "digested": "It went out in a digest",
    "replayed": "An operator had it sent again",
    "rescheduled": "It was given another time",
    "lease_ended": "Its worker ended during an attempt, so that it was queued again",
    "retention": "Its content was deleted when its time was over",
}
"""Kinds of events."""
_REPORTED: Final = ("sent", "delivered", "undelivered", "read")
"""Those whose code is a provider's own."""


def _event(event: Event, about: str) -> Told:
    what = _HAPPENED.get(event.kind, f"It became {event.kind.replace('_', ' ')}")
    clause = None if event.kind in _REPORTED else meanings.known(event.code)
    why = ""
    if event.kind not in (event.code, "lease_ended"):
        why = f", because {clause}" if clause else f" ({scrubbed(event.code)})" if event.code else ""
    detail = f": {scrubbed(event.detail)}" if event.detail else ""
    return Told(f"{what} at {when(event.at)}{why}{detail}.", about, event.at)


_STANDS: Final[Mapping[str, str]] = {
    "queued": "Now it waits for a worker.",
    "sending": "Now a worker is sending it.",
    "sent": "Now it is sent: the provider has it, and has reported no arrival.",
    "delivered": "Now it has arrived.",
    "digested": "Now it is part of that digest; `notify explain` with the digest's id tells what became of it.",
    "in_doubt": "Now it is in doubt: a late report settles it within 72 hours, or an operator does.",
}


def _stands(delivery: DeliveryStatus, more: More | None, now: datetime) -> str:
    """How it stands now, and what is next."""
    tried = meanings.ATTEMPTED.get(delivery.reason or "") if delivery.attempts else None
    why = f", because {tried}" if tried else f", {because(delivery.reason)}" if delivery.reason else ""
    turn = delivery.due_at or delivery.step_at
    due = "" if turn is None else f" until {when(turn)}"
    soon = " It goes at any moment." if delivery.due_at is not None and delivery.due_at <= now else ""
    expires = ""
    if delivery.state in WAITING and delivery.expires_at is not None:
        expires = f" It is worthless after {when(delivery.expires_at)}."
    if delivery.state == "held" and more is not None and more.digest_due is not None:
        return (
            f"Now it waits for its digest, with {more.digest_events} in it, due at {when(more.digest_due)}."
        )
    if delivery.state in _STANDS:
        return f"{_STANDS[delivery.state]}{expires}"
    if delivery.state in ("held", "retrying"):
        waits = "is held" if delivery.state == "held" else "waits to be tried again"
        return f"Now it {waits}{due}{why}.{soon}{expires}"
    why = "" if delivery.reason == delivery.state else why
    return f"Now it is {delivery.state.replace('_', ' ')}{why}, and nothing more is sent."

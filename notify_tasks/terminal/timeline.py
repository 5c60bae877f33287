"""The timeline of a notification: one line an event, with what was decided, tried and answered. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from notify_tasks.gathering import GATHERED
from notify_tasks.routing import queue_for
from notify_tasks.store.doubts import OPERATOR
from notify_tasks.store.statuses import AttemptStatus, DeliveryStatus, Event, Found, Status
from notify_tasks.terminal.looks import MARKS, clock, counted, duration, word
from notify_tasks.terminal.output import Line, Span, bold, dim, state

_WHY: Final[Mapping[str, str]] = {
    "no_provider_ready": "no provider of its channel can be called now; it goes as soon as one can",
    "recipient_limit": "its recipient gets no more for now; see per_recipient in notify.toml and in its type",
    "country_not_allowed": "its number's country is not in channels.sms.countries; add it there, or use another number",
    "throttled": "more of its type came for the person than [throttle] lets through",
    "expires_in_throttle": "its place in the throttle comes when it is worthless; raise `limit`, or `expires`",
    "expires_in_digest": "its digest is due when it is worthless; leave `expires` out, or gather it for less",
    "provider_share_full": "its provider has half of the worker's threads, and all of them are busy",
}
"""What a reason means, and what to do about it where it does not end by itself."""
_REPORTED: Final = ("sent", "delivered", "undelivered", "read")
"""Kinds of events that, where no attempt ended with them, a provider's receipt has brought."""
_UNKNOWN: Final = "its worker ended before the answer was written, so the outcome is unknown"


@dataclass(frozen=True, slots=True)
class Moment:
    """One line of a timeline.

    Args:
        at: when it happened.
        state: whose mark and colour it takes.
        what: its word.
        whom: channel and recipient; empty where it is about the notification.
        detail: the rest, without addresses or contents.
    """

    at: datetime
    state: str
    what: str
    whom: str = ""
    detail: str = ""


def moments(status: Status) -> list[Moment]:
    """Everything that happened to one notification, in the order of time."""
    found = [*_about_itself(status)]
    for delivery in status.deliveries:
        found += _about_delivery(delivery)
    return sorted(found, key=lambda moment: moment.at)


def pending(status: Status, now: datetime) -> list[Moment]:
    """What happens next, for each delivery that has not ended.

    Args:
        status: the notification.
        now: the present.
    """
    found = []
    for it in status.deliveries:
        due = _in_words(it.due_at, now)
        why = f", {explained(it.reason)}" if it.reason else ""
        detail = {
            "held": _unscheduled(it, status, now) if it.due_at is None else f"until {due}{why}",
            "retrying": f"again by {due}{why}",
            "queued": f"waits for a worker on {queue_for(it.channel, it.lane)}{why}",
            "sending": "a worker has it",
        }.get(it.state)
        if detail is not None:
            found.append(Moment(now, it.state, it.state, whom(it), detail))
    return found


def _in_words(due: datetime | None, now: datetime) -> str:
    return "" if due is None else f"{clock(due)} ({_from_now(due, now)})"


def _unscheduled(it: DeliveryStatus, status: Status, now: datetime) -> str:
    """What a delivery waits for that has no time of its own."""
    if it.reason != GATHERED:
        return _its_turn(it, status, now)
    if it.digest_due_at is None:
        return "gathered: waits for the next sweep"
    return f"gathered: its digest goes {_in_words(it.digest_due_at, now)}"


def _its_turn(it: DeliveryStatus, status: Status, now: datetime) -> str:
    """What a later step waits for."""
    planned: Mapping[str, Any] = next(
        (
            each
            for each in status.plan.get("decisions", ())
            if (each["to"], each.get("step")) == (it.chain, it.step)
        ),
        {},
    )
    unless = it.step_unless or ()
    if it.step_at is None:
        return f"waits: {_behind(planned.get('behind', ()), it.step_after or 0.0, unless)}"
    why = f", {explained(it.reason)}" if it.reason != "step" else ""
    return f"waits until {_in_words(it.step_at, now)}{why}{_condition(unless)}"


def _behind(before: Iterable[str], after: float, unless: Sequence[str]) -> str:
    """`10 min after push was sent, or at once if it could not be, unless read`."""
    channels = list(dict.fromkeys(before)) or ["the step before"]
    failed = "none could be" if len(channels) > 1 else "it could not be"
    sent = f"{duration(after)} after {' or '.join(channels)} was sent"
    return f"{sent}, or at once if {failed}{_condition(unless)}"


def _condition(unless: Sequence[str]) -> str:
    return f", unless {' or '.join(unless)}" if unless else ""


def explained(reason: str | None) -> str:
    """A reason with its meaning, where its word does not say enough."""
    if reason is None:
        return ""
    if reason.startswith("rate:"):
        return f"{reason}, its turn in the rate of that provider"
    return f"{reason}: {_WHY[reason]}" if reason in _WHY else reason


def whom(delivery: DeliveryStatus) -> str:
    """Channel and recipient: by id where there is one, else by a shortened address."""
    return f"{delivery.channel} {delivery.recipient_id or delivery.address}"


def lines(found: Found, now: datetime) -> Iterator[Line]:
    """The timelines of a message id, ready to be written.

    Args:
        found: what the store knows of the id; something, or there is nothing to write.
        now: the present.
    """
    for position, status in enumerate(found.notifications):
        if position:
            yield ""
        yield from timeline(status, now)
    if found.schedule is not None and found.occurrence is not None:
        of = f"of the schedule {found.schedule}, for {clock(found.occurrence)}"
        yield [dim(f"  {of}: `notify schedules show {found.schedule}`")]
    if not found.notifications and found.kept_since is not None:
        age = duration((now - found.kept_since).total_seconds())
        yield [state("queued"), f" in the intake table for {age}: it is stored, and not yet planned"]
    if not found.notifications and found.cancelled_at is not None:
        yield [state("cancelled"), f" at {clock(found.cancelled_at)}, before any worker had seen it"]


def timeline(status: Status, now: datetime) -> Iterator[Line]:
    """One notification: a headline, what happened, what comes next."""
    source = f" from {status.source}" if status.source else ""
    yield [bold(status.message_id), f"  {status.event_type}", dim(f"  {clock(status.accepted_at)}{source}")]
    happened, next_ = moments(status), pending(status, now)
    width = max(len(moment.whom) for moment in [*happened, *next_])
    for moment in happened:
        since = duration(max(0.0, (moment.at - status.accepted_at).total_seconds()))
        yield _line(since, moment, width)
    for moment in next_:
        yield _line("now", moment, width)


def _line(when: str, moment: Moment, width: int) -> list[Span | str]:
    mark = Span(f"{MARKS.get(moment.state, '·')} {word(moment.what):<12}", moment.state)
    whom_ = f"{moment.whom:<{width}}  " if width else ""
    return [dim(f"{when:>10}  "), mark, whom_, dim(moment.detail)]


def _about_itself(status: Status) -> Iterator[Moment]:
    if status.state == "accepted":
        channels = ", ".join(dict.fromkeys(it.channel for it in status.deliveries))
        count = counted(len([it for it in status.deliveries if it.replay_of is None]), "delivery")
        yield Moment(status.accepted_at, "accepted", "accepted", "", f"{count}: {channels}")
        for planned in status.plan.get("decisions", ()):
            if "behind" in planned:
                behind = _behind(planned["behind"], planned["after"], planned.get("unless", ()))
                yield Moment(status.accepted_at, "held", "held", "", f"{planned['channel']} waits: {behind}")
            elif planned["state"] == "held":
                due = clock(datetime.fromisoformat(planned["due_at"]))
                detail = f"{planned['channel']} until {due}, {planned['reason']}"
                yield Moment(status.accepted_at, "held", "held", "", detail)
    else:
        detail = ": ".join(part for part in (status.reason, status.detail) if part)
        yield Moment(status.accepted_at, status.state, status.state, "", detail)
    for dropped in status.plan.get("dropped", ()):
        yield Moment(
            status.accepted_at,
            "suppressed",
            "dropped",
            "",
            f"{dropped['channel']}, {explained(dropped['reason'])}",
        )
    for refused in status.plan.get("rejected", ()) if status.state == "accepted" else ():
        yield Moment(
            status.accepted_at, "rejected", "rejected", "", f"{refused['reason']}: {refused['detail']}"
        )
    if status.purged_at is not None:
        detail = "payload and addresses, for their age (NOTIFY_CONTENT_KEPT): it cannot be sent again"
        yield Moment(status.purged_at, "expired", "removed", "", detail)
    for event in status.events:
        if event.kind != status.state:
            mark = "queued" if event.kind == "replayed" else event.kind
            yield Moment(event.at, mark, event.kind, "", event.code or "")


def _about_delivery(delivery: DeliveryStatus) -> Iterator[Moment]:
    # An attempt's end and the move that follows from it are written in one statement, at one time.
    by_time: dict[datetime, list[Event]] = {}
    for event in delivery.events:
        by_time.setdefault(event.at, []).append(event)
    for attempt in delivery.attempts:
        events = by_time.pop(attempt.ended_at, []) if attempt.ended_at else []
        if attempt.ended_at is None or attempt.outcome == "lost":
            yield _begun(delivery, attempt)
        if attempt.ended_at is not None:
            yield _ended(delivery, attempt, attempt.ended_at, events)
    for event in (event for events in by_time.values() for event in events):
        mark = "queued" if event.kind == "replayed" else event.kind
        detail = ", ".join(part for part in (explained(event.code), event.detail) if part)
        if event.kind == "superseded":
            detail = f"not needed any more: what went before was {event.code}"
        if detail and event.kind in _REPORTED and event.code != OPERATOR:
            detail = f"reported: {detail}"
        yield Moment(event.at, mark, event.kind, whom(delivery), detail)


def _begun(delivery: DeliveryStatus, attempt: AttemptStatus) -> Moment:
    detail = f"attempt {attempt.number} via {attempt.provider}, by worker {attempt.worker}"
    return Moment(attempt.started_at, "sending", "sending", whom(delivery), detail)


def _ended(delivery: DeliveryStatus, attempt: AttemptStatus, at: datetime, events: Sequence[Event]) -> Moment:
    call = f"attempt {attempt.number} via {attempt.provider}"
    moved = events[0].kind if events else _moved(attempt)
    if attempt.outcome == "lost":
        then = ", and it is queued again" if moved == "lease_ended" else ""
        what = "lost" if then else moved
        return Moment(at, "in_doubt", what, whom(delivery), f"{call}: {_UNKNOWN}{then}")
    answer = ", ".join(part for part in (attempt.code, attempt.detail) if part) or attempt.outcome
    unknown = ", its outcome is unknown" if attempt.outcome == "uncertain" else ""
    took = duration((at - attempt.started_at).total_seconds())
    mark = moved if moved in MARKS else "queued"
    return Moment(at, mark, moved, whom(delivery), f"{call}: {answer}, {took}{unknown}")


def _moved(attempt: AttemptStatus) -> str:
    """What an attempt led to where no event says so."""
    return {"accepted": "sent", "released": "queued"}.get(attempt.outcome or "", "retrying")


def _from_now(moment: datetime, now: datetime) -> str:
    seconds = (moment - now).total_seconds()
    return f"in {duration(seconds)}" if seconds >= 0 else "now"

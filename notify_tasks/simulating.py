"""What would become of a call: planned as intake plans it, on a database that is only read, and told in sentences."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn, Unpack

from notify_tasks import settings
from notify_tasks.api_connections import database
from notify_tasks.calls import Call, build_notification
from notify_tasks.errors import InvalidCall
from notify_tasks.explaining import Told
from notify_tasks.gates import Gates
from notify_tasks.intake import Intake
from notify_tasks.meanings import because
from notify_tasks.notification import Notification
from notify_tasks.plans import Decision
from notify_tasks.providers import Pools
from notify_tasks.reloading import load
from notify_tasks.rendering import Catalog
from notify_tasks.store import deliveries
from notify_tasks.store.accepting import NewNotification
from notify_tasks.store.foreseeing import foresee
from notify_tasks.store.reading import ReadOnly
from notify_tasks.store.statuses import shortened
from notify_tasks.wording import detailed, of_plan, scrubbed, whom


@dataclass(frozen=True, slots=True)
class Foreseen:
    """What would happen to the call for one address over one channel.

    Args:
        recipient: which entry of `to`, from 0.
        address: shortened.
        state: where its delivery would begin: `queued` (sent at once), `held`, or a final state.
        reasons: all that decides it, in their order.
        due_at: when it would go, in UTC; None for at once, or never.
        sentence: the same in words.
    """

    recipient: int
    recipient_id: str | None
    channel: str
    address: str
    lane: str
    locale: str | None
    timezone: str | None
    state: str
    reasons: tuple[str, ...]
    due_at: datetime | None
    expires_at: datetime
    sentence: str


@dataclass(frozen=True, slots=True)
class Without:
    """A recipient, or one of their channels, that would get nothing.

    Args:
        channel: None where it is the recipient as a whole.
    """

    recipient: int
    recipient_id: str | None
    channel: str | None
    reason: str
    sentence: str


@dataclass(frozen=True, slots=True)
class Simulation:
    """The plan of a call that was not made.

    Args:
        now: the instant at which it would be made and planned, in UTC.
        state: `accepted` or `rejected`.
        reason: why it would be rejected.
        decisions: one for each address.
        without: recipients and channels that would get nothing.
        sentences: all of it in words.
    """

    event_type: str
    tenant: str
    now: datetime
    state: str
    reason: str | None
    decisions: tuple[Foreseen, ...]
    without: tuple[Without, ...]
    sentences: tuple[Told, ...]

    @property
    def text(self) -> str:
        """All the sentences, one a line."""
        return "\n".join(f"{it.about}: {it.text}" if it.about else it.text for it in self.sentences)

    def as_json(self) -> dict[str, Any]:
        """Plain values, for machines; times in RFC 3339."""
        made: dict[str, Any] = _plain(asdict(self))
        return made


def simulate(event_type: str, *, now: datetime | None = None, **call: Unpack[Call]) -> Simulation:
    """Plan a call and tell the plan; see `send_notification.simulate`.

    Raises:
        InvalidCall: an argument is wrong.
        NotConfigured: no database, no templates or no readable configuration.
        DatabaseAway: the database cannot be used now.
    """
    instant = datetime.now(UTC)
    if now is not None:
        if now.utcoffset() is None:
            raise InvalidCall(
                "now", "it is not a time with a zone", "Write datetime(2030, 1, 31, tzinfo=UTC)"
            )
        instant = now.astimezone(UTC)
    notification = build_notification(event_type, now=instant, **call)
    current = settings.get()
    store = ReadOnly(database())
    pools = Pools(load(current))
    try:
        gates = Gates(pools, threads=1, channels=(), pauses=lambda: deliveries.read_pauses(store))
        intake = Intake(
            database=store,
            catalog=Catalog(Path(current.templates)),
            gates=gates,
            wake=_never,
            unknown_type_wait=0.0,
            worker="simulate",
            run_again=_never,
        )
        item = foresee(store, intake.foresee(notification, instant), instant)
        return _told(notification, item, instant)
    finally:
        pools.close()


def _never(*_: object) -> NoReturn:
    raise AssertionError("a simulation sends nothing")


def _told(notification: Notification, item: NewNotification, now: datetime) -> Simulation:
    decisions = tuple(_foreseen(it.decision) for it in item.deliveries)
    without = (*_without(notification, item),)
    sentences = []
    if item.state != "accepted":
        detail = f" ({scrubbed(item.detail)})" if item.detail else ""
        sentences.append(Told(f"It would be rejected, {because(item.reason)}{detail}."))
    sentences += [Told(it.sentence, whom(it.channel, it.recipient_id, it.address)) for it in decisions]
    sentences += [Told(it.sentence) for it in without]
    for each in item.plan.get("ignored", ()):
        name = each["field"].replace("timezone", "time zone")
        sentences.append(
            Told(f"The {name} given for recipient number {each['to'] + 1} is not known and is left out.")
        )
    return Simulation(
        notification.event_type,
        notification.tenant,
        now,
        item.state,
        item.reason,
        decisions,
        without,
        tuple(sentences),
    )


def _foreseen(decision: Decision) -> Foreseen:
    sentence = of_plan(decision.explained()).replace("It was planned to be", "It would be", 1)
    sentence = sentence.replace("It was planned not to be", "It would not be", 1)
    if decision.opt_in and decision.reason == "preference_off":
        sentence += " This type goes only to those who have switched it on."
    return Foreseen(
        recipient=decision.recipient,
        recipient_id=decision.recipient_id,
        channel=decision.channel,
        address=shortened(decision.address),
        lane=decision.lane,
        locale=decision.locale,
        timezone=decision.timezone,
        state=str(decision.state),
        reasons=decision.reasons,
        due_at=decision.due_at,
        expires_at=decision.expires_at,
        sentence=sentence,
    )


def _without(notification: Notification, item: NewNotification) -> list[Without]:
    found = []
    for each in item.plan.get("dropped", ()):
        who = notification.to[each["to"]].id
        text = (
            f"Nothing would go by {each['channel']} to {_name(who, each['to'])}, {because(each['reason'])}."
        )
        found.append(Without(each["to"], who, each["channel"], each["reason"], text))
    for each in item.plan.get("rejected", ()):
        who = notification.to[each["to"]].id
        text = f"Nothing would go to {_name(who, each['to'])}, {because(each['reason'])}{detailed(each)}."
        found.append(Without(each["to"], who, None, each["reason"], text))
    return found


def _name(recipient_id: str | None, place: int) -> str:
    return recipient_id or f"recipient number {place + 1}"


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value

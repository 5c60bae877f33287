"""Steps: as a folder writes them, as planning chains them, and as each is judged when it has its turn."""

from __future__ import annotations

import uuid
from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notify_tasks.choices import Choices, QuietHours, Vacation, read
from notify_tasks.escalating import judge
from notify_tasks.event_type import EventType, Step
from notify_tasks.notification import Notification, RecipientRef
from notify_tasks.planning import plan
from notify_tasks.plans import Decision, Plan, Profile
from notify_tasks.rendering import BrokenType, LoadedType
from notify_tasks.routing import CHANNELS
from notify_tasks.states import FINAL, State
from notify_tasks.store.statuses import DeliveryStatus, Status
from notify_tasks.store.steps import Due, Verdict
from notify_tasks.terminal import timeline

NOW = datetime(2030, 5, 1, 12, 0, tzinfo=UTC)
PUSH, SMS, MAIL = Step(("push", "inapp")), Step(("sms",), 600.0, ("read",)), Step(("email",), 3600.0)
TYPE = EventType(
    "account.new_sign_in",
    "v1",
    ("push", "inapp", "sms", "email"),
    category="security",
    expires=86400.0,
    steps=(PUSH, SMS, MAIL),
)
ANN = Profile(
    "ann", {"push": ("token-1", "token-2"), "sms": ("+4915112345678",), "email": ("ann@example.com",)}
)


def call(*to: RecipientRef, **options: Any) -> Notification:
    given: dict[str, Any] = {"message_id": "m-1", "event_type": TYPE.name, "timestamp": NOW}
    return Notification(**(given | {"to": to or (RecipientRef("ann"),)} | options))


def planned(event_type: EventType = TYPE, person: Profile = ANN, **options: Any) -> Plan:
    suppressed = options.pop("suppressed", frozenset())
    return plan(call(**options), event_type, {"ann": person}, suppressed, NOW)


def told(made: Plan) -> list[tuple[Any, ...]]:
    """Channel, state, number, whether it leads, and for how long it waits for what."""
    return [
        (it.channel, str(it.state), it.place.number, it.place.leads, it.place.after, it.place.behind)
        for it in made.decisions
        if it.place is not None
    ]


# --- the folder ---------------------------------------------------------------------------------------


def policy(root: Path, words: str) -> EventType:
    folder = root / "a.type"
    folder.mkdir()
    (folder / "notification.toml").write_text(words)
    for part in ("sms.txt", "push.json", "inapp.json", "email.subject.txt", "email.txt"):
        (folder / part).write_text('{"title": "Ping"}' if part.endswith("json") else "Ping")
    return LoadedType(root, "a.type").policy


def test_steps_stand_in_the_folder_one_below_another(tmp_path: Path) -> None:
    words = """
category = "security"
[[steps]]
channels = ["push", "inapp"]
[[steps]]
channel = "sms"
after = "10m"
unless = ["read"]
[[steps]]
channel = "email"
after = "1h"
"""
    found = policy(tmp_path, words)
    assert found.steps == (PUSH, SMS, MAIL)
    assert found.channels == ("push", "inapp", "sms", "email")


FIRST = '[[steps]]\nchannel = "push"\n'
SECOND = '[[steps]]\nchannel = "sms"\nafter = "10m"\n'


@pytest.mark.parametrize(
    ("words", "line", "problem", "remedy"),
    [
        (f'channels = ["sms"]\n{FIRST}{SECOND}', 1, "channels and steps are both there", "Take channels out"),
        (FIRST, 1, "one step alone", "write channels instead"),
        (f'{FIRST}after = "10m"\n{SECOND}', 1, "the first: after has nothing to wait for", "Take after out"),
        (f'{FIRST}unless = ["read"]\n{SECOND}', 1, "the first: unless has nothing to wait for", "unless out"),
        (f'{FIRST}[[steps]]\nchannel = "sms"\n', 3, "the second: after is missing", 'after = "10m"'),
        (f'{FIRST}[[steps]]\nchannel = "sms"\nafter = 10\n', 3, "after is not a duration", "one unit"),
        (f'{FIRST}[[steps]]\nchannel = "sms"\nafter = "0m"\n', 3, "after is not a duration", "one unit"),
        (f'{FIRST}{SECOND}unless = ["seen"]\n', 3, "not a list of read and delivered", '["read"]'),
        (f'{FIRST}{SECOND}unless = "read"\n', 3, "not a list of read and delivered", '["read"]'),
        (f'{FIRST}{SECOND}chanel = "sms"\n', 3, "unknown key 'chanel'", "Did you mean 'channel'?"),
        (f'{FIRST}{SECOND}lane = "high"\n', 3, "unknown key 'lane'", "stands above the first [[steps]]"),
        (f'{FIRST}{SECOND}channels = ["email"]\n', 3, "both channel and channels", 'channel = "push"'),
        (f'{FIRST}[[steps]]\nafter = "1m"\n', 3, "it names no channel", 'channel = "push"'),
        (
            f'{FIRST}[[steps]]\nchannel = "smss"\nafter = "1m"\n',
            3,
            "no channel 'smss'",
            "Did you mean 'sms'?",
        ),
        (f'{FIRST}[[steps]]\nchannels = []\nafter = "1m"\n', 3, "not a list of channels", "channels = ["),
        (f'{FIRST}[[steps]]\nchannel = "push"\nafter = "1m"\n', 3, "push is in an earlier step", "one step"),
        (f'{FIRST}[[steps]]\nchannel = "chat"\nafter = "1m"\n', 3, "there is no chat.md", "out of steps"),
        ('steps = "push"\n', 1, "steps is not a list of tables", "Write [[steps]]"),
        (
            f'throttle = {{ limit = "3/h", over = "drop" }}\n{FIRST}{SECOND}',
            1,
            "throttle and steps are both there",
            "would go by the next",
        ),
    ],
)
def test_what_is_wrong_with_them_is_named_with_line_and_remedy(
    tmp_path: Path, words: str, line: int, problem: str, remedy: str
) -> None:
    with pytest.raises(BrokenType) as broken:
        policy(tmp_path, words)
    (found,) = broken.value.problems
    assert (found.file, found.line) == ("a.type/notification.toml", line)
    assert problem in found.problem
    assert remedy in found.remedy


# --- the plan -----------------------------------------------------------------------------------------


def test_the_first_step_goes_and_the_others_wait_for_the_one_before() -> None:
    made = planned()
    assert told(made) == [
        ("push", "queued", 0, True, 0.0, ()),
        ("push", "queued", 0, True, 0.0, ()),
        ("inapp", "queued", 0, True, 0.0, ()),
        ("sms", "held", 1, True, 600.0, ("push", "inapp")),
        ("email", "held", 2, False, 3600.0, ("sms",)),
    ]
    *_, sms, mail = made.decisions
    assert (sms.reason, sms.due_at) == ("step", None)
    stored = made.explained()["decisions"][3]
    assert {
        key: stored[key] for key in ("channel", "state", "reason", "step", "after", "behind", "unless")
    } == {
        "channel": "sms",
        "state": "held",
        "reason": "step",
        "step": 1,
        "after": 600.0,
        "behind": ["push", "inapp"],
        "unless": ["read"],
    }
    assert "due_at" not in stored
    # What waits is worthless so much later: at the latest then, and never after the call itself says so.
    day = timedelta(days=1)
    assert [it.expires_at - NOW for it in (sms, mail)] == [
        day + timedelta(seconds=600),
        day + timedelta(seconds=4200),
    ]
    assert {it.expires_at for it in planned(expires=NOW + day).decisions} == {NOW + day}


def test_channels_that_the_call_names_go_before_the_steps() -> None:
    made = planned(channels=("sms", "email"))
    assert [(it.channel, it.state, it.place) for it in made.decisions] == [
        ("sms", State.QUEUED, None),
        ("email", State.QUEUED, None),
    ]


def test_a_step_that_cannot_reach_the_person_is_skipped() -> None:
    no_phone = replace(ANN, addresses={"push": ("token-1",), "email": ("ann@example.com",)})
    assert told(planned(person=no_phone)) == [
        ("push", "queued", 0, True, 0.0, ()),
        ("inapp", "queued", 0, True, 0.0, ()),
        ("email", "held", 1, False, 3600.0, ("push", "inapp")),
    ]
    assert [(it.channel, it.reason) for it in planned(person=no_phone).dropped] == [("sms", "no_address")]
    # A bare number has one step alone: the message goes at once.
    (only,) = plan(call(RecipientRef(None, {"sms": "+4915112345678"})), TYPE, {}, frozenset(), NOW).decisions
    assert (only.channel, only.state, only.place) == ("sms", State.QUEUED, None)


def test_a_step_that_has_ended_before_it_began_is_followed_at_once() -> None:
    off = replace(ANN, choices=Choices({"security": {"push": "off", "inapp": "off"}}))
    assert told(planned(person=off)) == [
        ("push", "suppressed", 0, False, 0.0, ()),
        ("push", "suppressed", 0, False, 0.0, ()),
        ("inapp", "suppressed", 0, False, 0.0, ()),
        ("sms", "queued", 1, True, 0.0, ()),
        ("email", "held", 2, False, 3600.0, ("sms",)),
    ]
    # What may be switched off by then is asked then.
    no_sms = replace(ANN, choices=Choices({"security": {"sms": "off"}}))
    assert told(planned(person=no_sms))[3][:2] == ("sms", "held")
    assert told(planned(suppressed={("sms", "+4915112345678")}))[3][:2] == ("sms", "held")


def test_a_later_step_leaves_its_address_to_others() -> None:
    # Ben has Ann's phone; Ann's push may be read, which would leave Ben with nothing.
    ben = Profile("ben", {"sms": ("+4915112345678",)})
    short = replace(TYPE, steps=(Step(("push",)), SMS), channels=("push", "sms"))
    to = (RecipientRef("ann"), RecipientRef("ben"))
    made = plan(call(*to), short, {"ann": ANN, "ben": ben}, frozenset(), NOW)
    assert [(it.recipient_id, it.channel, str(it.state)) for it in made.decisions] == [
        ("ann", "push", "queued"),
        ("ann", "push", "queued"),
        ("ann", "sms", "held"),
        ("ben", "sms", "queued"),
    ]


def test_a_person_orders_the_steps_and_the_delays_stay() -> None:
    sms_first = replace(ANN, choices=Choices(order={"*": ("sms",)}))
    assert [it[:1] + it[2:5] for it in told(planned(person=sms_first))] == [
        ("sms", 0, True, 0.0),
        ("push", 1, True, 600.0),
        ("push", 1, True, 600.0),
        ("inapp", 1, True, 600.0),
        ("email", 2, False, 3600.0),
    ]
    whole = Choices(order={"*": ("sms",), "security": ("email", "sms", "push")})
    assert list(dict.fromkeys(it[0] for it in told(planned(person=replace(ANN, choices=whole))))) == [
        "email", "sms", "push", "inapp",
    ]  # fmt: skip
    # A type that is required asks nobody.
    required = replace(TYPE, required=True)
    assert told(planned(required, person=sms_first)) == told(planned(required))
    assert read(whole.stored()) == whole


_steps = st.lists(st.sampled_from(CHANNELS), unique=True, min_size=2, max_size=6).flatmap(
    lambda channels: st.lists(
        st.integers(min_value=1, max_value=len(channels) - 1), unique=True, min_size=1
    ).map(lambda cuts: _cut(channels, sorted(cuts)))
)


def _cut(channels: list[str], cuts: list[int]) -> tuple[Step, ...]:
    bounds = [0, *cuts, len(channels)]
    return tuple(Step(tuple(channels[a:b]), 60.0 * (a > 0), ("read",) * (a > 0)) for a, b in pairwise(bounds))


@given(
    _steps,
    st.sets(st.sampled_from(CHANNELS)),
    st.sets(st.sampled_from(CHANNELS)),
    st.lists(st.sampled_from(CHANNELS), unique=True),
)
def test_whatever_the_steps_each_chain_has_one_beginning_and_no_gap(
    steps: tuple[Step, ...], has: set[str], off: set[str], order: list[str]
) -> None:
    wanted = Choices({"*": dict.fromkeys(off, "off")}, order={"*": tuple(order)} if order else {})
    person = Profile("ann", {channel: (f"at-{channel}",) for channel in has}, choices=wanted)
    channels = tuple(channel for step in steps for channel in step.channels)
    event_type = replace(TYPE, steps=steps, channels=channels)
    decisions = planned(event_type, person=person).decisions
    assert {it.channel for it in decisions} == {it for it in channels if it in has or it == "inapp"}
    chained = [it for it in decisions if it.place is not None]
    if not chained:
        return
    assert chained == list(decisions)
    numbers = [it.place.number for it in chained if it.place]
    assert sorted(set(numbers)) == list(range(max(numbers) + 1))
    for it in chained:
        assert it.place is not None
        assert it.place.waits == (it.reason == "step") == (it.state is State.HELD)
        assert not (it.place.waits and it.due_at)
    # Exactly one step goes; what stands before it has ended, and what comes after waits for the one before.
    going = {it.place.number for it in chained if it.place and it.state is State.QUEUED}
    assert len(going) == 1
    (goes,) = going
    for it in chained:
        assert it.place is not None
        assert (it.place.number > goes) == it.place.waits
        assert it.place.number >= goes or it.state in FINAL
        assert it.place.leads == (goes <= it.place.number < max(numbers))


# --- its turn -----------------------------------------------------------------------------------------

DUE = Due(uuid.UUID(int=1), TYPE.name, "Europe/Berlin", NOW, NOW + timedelta(hours=12), None, None, NOW)
NIGHT = {"quiet_hours": {"from": "13:00", "to": "22:00", "days": ["wed"]}}  # at 14:00 in Berlin, a Wednesday


def verdict(step: Due = DUE, policy: EventType | None = TYPE) -> tuple[str, str | None, datetime | None]:
    found: Verdict = judge(step, policy)
    assert (found.id, found.step_at) == (step.id, step.step_at)
    return found.state, found.reason, found.until


def test_a_step_is_judged_by_what_holds_when_it_has_its_turn() -> None:
    assert verdict() == ("queued", None, None)
    assert verdict(replace(DUE, answered="read")) == ("superseded", "read", None)
    assert verdict(replace(DUE, expires_at=NOW)) == ("expired", "expired", None)
    assert verdict(replace(DUE, expires_at=None)) == ("queued", None, None)

    quiet = replace(DUE, choices=NIGHT)
    assert verdict(quiet) == ("held", "quiet_hours", NOW + timedelta(hours=8))
    assert verdict(quiet, replace(TYPE, ignores_quiet_hours=True)) == ("queued", None, None)
    assert verdict(quiet, replace(TYPE, required=True)) == ("queued", None, None)
    assert verdict(quiet, None) == ("queued", None, None)  # sending says what is wrong with the type
    late = replace(quiet, expires_at=NOW + timedelta(hours=1))
    assert verdict(late) == ("expired", "expires_in_quiet_hours", None)

    away = Choices(vacation=Vacation(NOW - timedelta(days=1), NOW + timedelta(hours=1), "drop"))
    assert verdict(replace(DUE, choices=away.stored())) == ("suppressed", "vacation", None)
    both = Choices(
        quiet_hours=QuietHours(time(15), time(16)),
        vacation=Vacation(NOW - timedelta(days=1), NOW + timedelta(hours=1)),
    )
    # The vacation ends in quiet hours: it waits for the end of both.
    assert verdict(replace(DUE, choices=both.stored())) == ("held", "quiet_hours", NOW + timedelta(hours=2))


# --- in words -----------------------------------------------------------------------------------------


def test_what_waits_says_for_what() -> None:
    made = planned()
    sms: Decision = made.decisions[3]
    waiting = DeliveryStatus(
        id=uuid.UUID(int=1),
        recipient_id="ann",
        address="+4…78",
        channel="sms",
        lane="normal",
        state="held",
        reason=sms.reason,
        provider=None,
        provider_message_id=None,
        template_version=None,
        attempts_spent=0,
        due_at=None,
        expires_at=None,
        created_at=NOW,
        replay_of=None,
        chain=0,
        step=1,
        step_after=600.0,
        step_unless=["read", "delivered"],
    )
    status = Status(
        id=uuid.UUID(int=2),
        message_id="m-1",
        event_type=TYPE.name,
        state="accepted",
        reason=None,
        detail=None,
        source=None,
        occurred_at=NOW,
        accepted_at=NOW,
        plan=made.explained(),
        deliveries=[waiting],
    )
    behind = "10 min after push or inapp was sent, or at once if none could be, unless read"
    (now,) = timeline.pending(status, NOW)
    assert now.detail == f"waits: {behind} or delivered"
    assert [it.detail for it in timeline.moments(status) if it.what == "held"] == [
        f"sms waits: {behind}",
        "email waits: 1 h after sms was sent, or at once if it could not be",
    ]
    # When the first has been sent, it has a time; and when somebody does not want to be disturbed, a reason.
    soon = replace(waiting, step_at=NOW + timedelta(minutes=10))
    (now,) = timeline.pending(replace(status, deliveries=[soon]), NOW)
    assert "waits until " in now.detail
    assert now.detail.endswith("(in 10 min), unless read or delivered")
    (now,) = timeline.pending(replace(status, deliveries=[replace(soon, reason="quiet_hours")]), NOW)
    assert now.detail.endswith("(in 10 min), quiet_hours, unless read or delivered")

"""What a person has chosen, in the plan: off, away, asleep; against a model of choices, and clocks that change."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from notify_tasks.choices import (
    ANY,
    DROP,
    HOLD,
    NO_CHOICES,
    OFF,
    ON,
    Choices,
    QuietHours,
    Vacation,
    instant,
    read,
)
from notify_tasks.event_type import EventType
from notify_tasks.notification import Notification, RecipientRef
from notify_tasks.planning import plan
from notify_tasks.plans import Decision, Plan, Profile
from notify_tasks.states import State

BERLIN = ZoneInfo("Europe/Berlin")
NIGHT = datetime(2030, 5, 1, 21, 30, tzinfo=UTC)  # half past eleven in Berlin, a Wednesday
MORNING = datetime(2030, 5, 2, 5, 0, tzinfo=UTC)  # seven
ASLEEP = QuietHours(time(22), time(7))
NEWS = EventType("shop.news", "v1", ("email", "sms"), category="news", expires=3 * 86400)


def planned(choices: Choices, *, event_type: EventType = NEWS, now: datetime = NIGHT, **options: Any) -> Plan:
    ann = Profile(
        "ann",
        {"email": ("ann@example.com",), "sms": ("+15550100",)},
        timezone="Europe/Berlin",
        choices=choices,
    )
    call: dict[str, Any] = {
        "message_id": "m-1",
        "event_type": event_type.name,
        "timestamp": now,
        "to": (RecipientRef("ann"),),
    }
    return plan(Notification(**call | options), event_type, {"ann": ann}, frozenset(), now)


def first(made: Plan) -> Decision:
    return made.decisions[0]


# --- switched off -------------------------------------------------------------------------------------


def test_a_category_that_is_off_on_a_channel_is_not_sent_there_and_the_plan_says_why() -> None:
    made = planned(Choices({"news": {"sms": OFF}}))
    assert [(it.channel, it.state, it.reason) for it in made.decisions] == [
        ("email", State.QUEUED, None),
        ("sms", State.SUPPRESSED, "preference_off"),
    ]
    assert made.explained()["decisions"][1]["reason"] == "preference_off"


@pytest.mark.parametrize(
    ("categories", "wanted"),
    [
        ({"*": {"*": OFF}}, []),
        ({"*": {"*": OFF}, "news": {"*": ON}}, ["email", "sms"]),
        ({"*": {"sms": OFF}, "news": {"*": ON}}, ["email", "sms"]),  # the category goes before the channel
        ({"*": {"*": OFF, "email": ON}}, ["email"]),
        ({"news": {"*": OFF, "sms": ON}}, ["sms"]),
        ({"orders": {"*": OFF}}, ["email", "sms"]),
    ],
)
def test_the_most_specific_choice_holds(categories: dict[str, dict[str, str]], wanted: list[str]) -> None:
    made = planned(Choices(categories))
    assert [it.channel for it in made.decisions if it.state is State.QUEUED] == wanted


def test_what_is_off_by_default_goes_only_to_those_who_have_switched_it_on() -> None:
    opt_in = replace(NEWS, opt_in=True)
    assert {it.reason for it in planned(NO_CHOICES, event_type=opt_in).decisions} == {"preference_off"}
    made = planned(Choices({"news": {"email": ON}}), event_type=opt_in)
    assert [it.state for it in made.decisions] == [State.QUEUED, State.SUPPRESSED]


def test_what_is_required_asks_nobody() -> None:
    everything = Choices(
        {ANY: {ANY: OFF}}, ASLEEP, Vacation(NIGHT - timedelta(days=1), NIGHT + timedelta(days=1), DROP)
    )
    made = planned(everything, event_type=replace(NEWS, required=True, category="security"))
    assert [(it.state, it.reason, it.category) for it in made.decisions] == [(State.QUEUED, None, None)] * 2


def test_one_who_does_not_want_it_does_not_keep_it_from_another_at_the_same_address() -> None:
    shared = {"email": ("home@example.com",)}
    people = {
        "ann": Profile("ann", shared, choices=Choices({ANY: {ANY: OFF}})),
        "bob": Profile("bob", shared),
    }
    call = Notification(
        message_id="m", event_type="x", timestamp=NIGHT, to=(RecipientRef("ann"), RecipientRef("bob"))
    )
    made = plan(call, replace(NEWS, channels=("email",)), people, frozenset(), NIGHT)
    assert [(it.recipient_id, it.state) for it in made.decisions] == [
        ("ann", State.SUPPRESSED),
        ("bob", State.QUEUED),
    ]


# --- quiet hours --------------------------------------------------------------------------------------


def test_quiet_hours_hold_until_their_end_in_the_persons_zone() -> None:
    it = first(planned(Choices(quiet_hours=ASLEEP)))
    assert (it.state, it.reason, it.due_at) == (State.HELD, "quiet_hours", MORNING)


def test_the_zone_of_the_quiet_hours_goes_before_the_persons() -> None:
    tokyo = replace(ASLEEP, timezone="Asia/Tokyo")  # half past six there
    assert first(planned(Choices(quiet_hours=tokyo))).due_at == datetime(2030, 5, 1, 22, 0, tzinfo=UTC)


def test_quiet_hours_begin_on_their_days_alone() -> None:
    thursdays = replace(ASLEEP, days=frozenset({3}))
    assert first(planned(Choices(quiet_hours=thursdays))).state is State.QUEUED
    assert first(planned(Choices(quiet_hours=thursdays), now=NIGHT + timedelta(days=1))).state is State.HELD


@pytest.mark.parametrize(
    ("at", "held"), [(time(21, 59, 59), False), (time(22), True), (time(6, 59, 59), True), (time(7), False)]
)
def test_quiet_hours_have_their_first_moment_and_not_their_last(at: time, *, held: bool) -> None:
    now = datetime.combine(date(2030, 5, 1), at, BERLIN).astimezone(UTC)
    assert (first(planned(Choices(quiet_hours=ASLEEP), now=now)).state is State.HELD) == held


def test_a_type_may_go_through_quiet_hours_and_the_lane_alone_does_not() -> None:
    choices = Choices(quiet_hours=ASLEEP)
    assert first(planned(choices, event_type=replace(NEWS, lane="high"))).state is State.HELD
    assert first(planned(choices, event_type=replace(NEWS, ignores_quiet_hours=True))).state is State.QUEUED


def test_what_expires_in_quiet_hours_is_not_held_for_nothing() -> None:
    it = first(planned(Choices(quiet_hours=ASLEEP), event_type=replace(NEWS, expires=3600)))
    assert (it.state, it.due_at) == (State.EXPIRED, None)
    assert it.reasons == ("quiet_hours", "expires_in_quiet_hours")
    assert it.reason == "expires_in_quiet_hours"


def test_a_time_that_is_skipped_is_the_moment_of_the_change() -> None:
    spring = date(2030, 3, 31)  # 02:00 is followed by 03:00
    change = datetime(2030, 3, 31, 1, 0, tzinfo=UTC)
    assert instant(spring, time(2, 30), BERLIN) == instant(spring, time(2, 0), BERLIN) == change
    assert QuietHours(time(22), time(2, 30)).ends(change - timedelta(hours=2), "Europe/Berlin") == change


def test_a_time_that_comes_twice_ends_quiet_hours_the_second_time() -> None:
    second = datetime(2030, 10, 27, 1, 30, tzinfo=UTC)
    quiet = QuietHours(time(22), time(2, 30))
    assert quiet.ends(second - timedelta(minutes=59), "Europe/Berlin") == second
    assert quiet.ends(second, "Europe/Berlin") is None


# --- away ---------------------------------------------------------------------------------------------

AWAY = Vacation(NIGHT - timedelta(days=1), NIGHT + timedelta(days=1))


def test_a_vacation_holds_until_the_person_is_back_and_awake() -> None:
    away = first(planned(Choices(vacation=AWAY)))
    assert (away.state, away.reason, away.due_at) == (State.HELD, "vacation", AWAY.until)

    both = first(planned(Choices(vacation=AWAY, quiet_hours=ASLEEP)))
    assert (both.reasons, both.due_at) == (("vacation", "quiet_hours"), MORNING + timedelta(days=1))


def test_a_vacation_that_drops_says_so() -> None:
    it = first(planned(Choices(vacation=replace(AWAY, mode=DROP))))
    assert (it.state, it.reason, it.due_at) == (State.SUPPRESSED, "vacation", None)


def test_what_expires_in_a_vacation_is_not_held_for_nothing() -> None:
    it = first(planned(Choices(vacation=AWAY), event_type=replace(NEWS, expires=86400)))
    assert (it.state, it.reason) == (State.EXPIRED, "expires_in_vacation")


def test_a_scheduled_one_is_judged_by_the_night_it_is_due_in() -> None:
    noon, night = NIGHT - timedelta(hours=12), NIGHT
    it = first(planned(Choices(quiet_hours=ASLEEP), now=noon, at=night))
    assert (it.state, it.reasons, it.due_at) == (State.HELD, ("scheduled", "quiet_hours"), MORNING)
    assert planned(Choices(quiet_hours=ASLEEP), now=noon, at=night).explained()["decisions"][0][
        "reasons"
    ] == [
        "scheduled",
        "quiet_hours",
    ]


# --- against a model ----------------------------------------------------------------------------------

CHANNELS = ("email", "sms", "push")
words = st.sampled_from((ON, OFF))
categories = st.dictionaries(
    st.sampled_from(("news", "orders", ANY)),
    st.dictionaries(st.sampled_from((*CHANNELS, ANY)), words, max_size=4),
)
zones = st.sampled_from(("Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Australia/Lord_Howe", "UTC"))
minutes = st.integers(0, 1439).map(lambda n: time(n // 60, n % 60))
changes = st.builds(
    lambda change, minutes: change + timedelta(minutes=minutes),
    st.sampled_from(
        (
            datetime(2030, 3, 31, 1, tzinfo=UTC),
            datetime(2030, 10, 27, 1, tzinfo=UTC),
            datetime(2030, 3, 10, 7, tzinfo=UTC),
            datetime(2030, 11, 3, 6, tzinfo=UTC),
            datetime(2030, 10, 5, 15, 30, tzinfo=UTC),
        )
    ),
    st.integers(-1500, 1500),
)
instants = changes | st.integers(0, 2 * 366 * 24 * 60).map(
    lambda minutes: datetime(2029, 1, 1, tzinfo=UTC) + timedelta(minutes=minutes)
)


@settings(max_examples=300, deadline=None)
@given(chosen=categories, opt_in=st.booleans(), required=st.booleans(), channel=st.sampled_from(CHANNELS))
def test_on_and_off_follow_the_model(
    *, chosen: dict[str, dict[str, str]], opt_in: bool, required: bool, channel: str
) -> None:
    kind = EventType("t", "v", (channel,), category="news", opt_in=opt_in, required=required)
    said = [
        chosen.get(group, {}).get(way)
        for group in ("news", ANY)
        for way in (channel, ANY)
    ]  # fmt: skip
    last = next((it for it in said if it), OFF if opt_in else ON)
    made = plan(
        Notification(message_id="m", event_type="t", timestamp=NIGHT, to=(RecipientRef("ann"),)),
        kind,
        {"ann": Profile("ann", {channel: ("there",)}, choices=read(Choices(chosen).stored()))},
        frozenset(),
        NIGHT,
    )
    assert (first(made).state is State.QUEUED) == (required or last == ON)


@settings(max_examples=600, deadline=None)
@given(minutes, minutes, st.sets(st.integers(0, 6), min_size=1), zones, instants)
def test_what_is_held_is_due_at_the_first_minute_that_is_not_quiet(
    begin: time, end: time, days: set[int], zone: str, now: datetime
) -> None:
    if begin == end:
        return
    quiet = QuietHours(begin, end, frozenset(days), zone)
    choices = read(Choices(quiet_hours=quiet).stored())
    assert choices.quiet_hours == quiet
    it = first(planned(choices, now=now))
    assert it.state in (State.QUEUED, State.HELD)
    if it.due_at is None:
        return
    local = it.due_at.astimezone(ZoneInfo(zone))
    assert now < it.due_at <= now + timedelta(hours=26)
    assert quiet.ends(it.due_at, zone) is None
    assert quiet.ends(it.due_at - timedelta(seconds=1), zone) == it.due_at
    skipped = (it.due_at - timedelta(seconds=1)).astimezone(ZoneInfo(zone)).utcoffset() != local.utcoffset()
    assert local.time() == end or skipped


def test_choices_are_stored_and_read_again() -> None:
    chosen = Choices(
        {"news": {"sms": OFF}}, replace(ASLEEP, days=frozenset({0, 6}), timezone="Asia/Tokyo"), AWAY
    )
    assert read(chosen.stored()) == chosen
    assert read({}) is NO_CHOICES
    assert AWAY.mode == HOLD

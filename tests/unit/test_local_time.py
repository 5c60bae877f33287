"""A time on each recipient's own clock, and the times of a call that cannot be."""

from __future__ import annotations

import json
from datetime import UTC, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from notify_tasks import LocalTime
from notify_tasks.calls import build_notification
from notify_tasks.choices import Choices, QuietHours, Vacation
from notify_tasks.errors import InvalidCall, WireError
from notify_tasks.event_type import EventType
from notify_tasks.moving import move
from notify_tasks.notification import Notification, RecipientRef
from notify_tasks.planning import plan
from notify_tasks.plans import Plan, Profile, Timed
from notify_tasks.states import State

NOW = datetime(2030, 4, 30, 20, 0, tzinfo=UTC)
EIGHT = LocalTime(2030, 5, 1, 8, 0)
LATER = LocalTime(2030, 5, 3, 8, 0)
HOUR = timedelta(hours=1)
ORDER = EventType("order.shipped", "v1", ("email",), expires=3600)
ZONES = sorted(available_timezones() - {"Factory", "localtime", "posixrules"})


def call(**options: Any) -> Notification:
    given: dict[str, Any] = {"now": NOW, "to": "ann", "at": EIGHT}
    return build_notification("order.shipped", **(given | options))


def profile(id_: str, timezone: str | None) -> Profile:
    return Profile(id_, {"email": (f"{id_}@example.com",)}, timezone=timezone)


def planned(
    notification: Notification, *people: Profile, now: datetime = NOW, kind: EventType = ORDER
) -> Plan:
    return plan(notification, kind, {it.id: it for it in people}, frozenset(), now)


# --- the value ------------------------------------------------------------------------------------------


def test_it_is_written_and_read() -> None:
    assert str(EIGHT) == "2030-05-01T08:00:00"
    assert LocalTime.parse("2030-05-01T08:00") == LocalTime.parse("2030-05-01 08:00:00") == EIGHT
    assert LocalTime(2030, 5, 1) < EIGHT


@pytest.mark.parametrize(
    "parts",
    [
        (2030, 2, 30),
        (2030, 13, 1),
        (2030, 5, 1, 24),
        (2030, 5, 1, 8, 60),
        (1, 1, 1),
        (9999, 1, 1),
        ("a", 1, 1),
    ],
)
def test_a_day_that_is_none_is_refused(parts: Any) -> None:
    with pytest.raises(InvalidCall, match=r"at: .*(Write a day|before the year)"):
        LocalTime(*parts)


@pytest.mark.parametrize(
    "text", ["2030-05-01", "08:00", "2030-05-01T08:00Z", "2030-05-01T08:00+02:00", "", None, "x"]
)
def test_a_text_that_is_no_local_time_is_refused(text: Any) -> None:
    with pytest.raises(InvalidCall, match="2030-05-01T08:00"):
        LocalTime.parse(text)


@pytest.mark.parametrize(
    ("local", "zone", "instant"),
    [
        (EIGHT, "Europe/Berlin", "2030-05-01T06:00Z"),
        (EIGHT, "America/Los_Angeles", "2030-05-01T15:00Z"),
        (EIGHT, None, "2030-05-01T08:00Z"),
        (
            LocalTime(2030, 3, 31, 2, 30),
            "Europe/Berlin",
            "2030-03-31T01:00Z",
        ),  # skipped: the moment of the change
        (LocalTime(2030, 10, 27, 2, 30), "Europe/Berlin", "2030-10-27T00:30Z"),  # twice: the first
        (LocalTime(2011, 12, 30, 12), "Pacific/Apia", "2011-12-30T10:00Z"),  # a day that Samoa has left out
    ],
)
def test_it_is_an_instant_in_a_zone(local: LocalTime, zone: str | None, instant: str) -> None:
    assert local.instant(zone) == datetime.fromisoformat(instant)


@given(st.datetimes(*map(datetime.fromisoformat, ("1990-01-01", "2037-01-01"))), st.sampled_from(ZONES))
def test_wherever_it_is_it_lies_between_the_first_zone_and_the_last(naive: datetime, zone: str) -> None:
    """Against the other way round: the instant, on that clock, is the local time, unless there was none."""
    local = LocalTime(naive.year, naive.month, naive.day, naive.hour, naive.minute, naive.second)
    instant = local.instant(zone)

    shown = instant.astimezone(ZoneInfo(zone)).replace(tzinfo=None)
    wanted = naive.replace(microsecond=0)
    assert shown >= wanted
    if shown != wanted:  # a gap, which the clock jumps over at this very moment
        before = (instant - timedelta(seconds=1)).astimezone(ZoneInfo(zone)).replace(tzinfo=None)
        assert before < wanted
    skipped_day = abs(shown - wanted) > timedelta(hours=3)
    assert skipped_day or local.earliest <= instant <= local.latest


# --- the call -------------------------------------------------------------------------------------------


def test_a_worker_that_does_not_know_it_refuses_the_call_whole() -> None:
    wire = json.loads(json.dumps(call().to_wire()))

    assert (wire["v"], wire["at_local"]) == (3, "2030-05-01T08:00:00")
    assert "at" not in wire
    assert Notification.from_wire(wire) == call(message_id=wire["message_id"])
    assert call(at=None).to_wire()["v"] == 1
    # What an older worker reads it would have to half-understand, so that no envelope of its versions has the key.
    assert Notification.from_wire(wire | {"v": 1}).at_local is None
    with pytest.raises(WireError, match="at_local"):
        Notification.from_wire(wire | {"at_local": "2030-05-01T08:00Z"})


def test_it_goes_with_attachments_and_is_a_part_of_the_calls_hash() -> None:
    both = call(attachments=[{"name": "a.txt", "content": b"x"}])

    assert Notification.from_wire(both.to_wire()) == both
    assert call().hash == call().hash
    assert call().hash != call(at=LocalTime(2030, 5, 1, 8, 1)).hash
    assert call().hash != call(at=datetime(2030, 5, 1, 8, tzinfo=UTC)).hash


def test_it_is_too_late_only_where_it_has_passed_everywhere() -> None:
    assert call(now=EIGHT.latest - timedelta(seconds=1)).at_local == EIGHT
    with pytest.raises(InvalidCall, match="everywhere on earth"):
        call(now=EIGHT.latest)


@pytest.mark.parametrize(
    ("options", "field", "said"),
    [
        ({"at": NOW - timedelta(hours=2)}, "at", "passed already"),
        ({"at": datetime(2030, 5, 1, 8)}, "at", "LocalTime|tzinfo="),  # noqa: DTZ001 - that is the mistake
        ({"at": "2030-05-01T08:00"}, "at", "LocalTime"),
        ({"expires": NOW - HOUR}, "expires", "still to come"),
        ({"at": NOW + HOUR, "expires": NOW + HOUR}, "expires", "not after `at`"),
        ({"at": LATER, "expires": LATER.earliest}, "expires", "anywhere on earth"),
        ({"to": {"id": "ann", "timezone": "Europe/Berln"}}, "to.timezone", "no such time zone"),
        ({"to": ["ann", {"id": "bob", "timezone": "Mars/Base"}]}, r"to\[1\].timezone", "no such time zone"),
    ],
)
def test_times_that_cannot_be_are_errors_that_name_field_and_remedy(
    options: dict[str, Any], field: str, said: str
) -> None:
    with pytest.raises(InvalidCall, match=f"^{field}: .*({said})"):
        call(**options)


def test_a_time_that_has_just_passed_means_now_so_that_a_call_can_be_repeated() -> None:
    repeated = call(at=NOW - timedelta(minutes=59))
    decision = planned(repeated, profile("ann", None)).decisions[0]
    assert (decision.state, decision.due_at) == (State.QUEUED, None)


# --- the plan -------------------------------------------------------------------------------------------


def test_each_recipient_gets_it_at_eight_on_their_own_clock() -> None:
    people = [
        profile("ann", "Europe/Berlin"), profile("bob", "America/Los_Angeles"), profile("cem", None),
        profile("dan", "Pacific/Kiritimati"),
    ]  # fmt: skip
    to = ["ann", "bob", "cem", "dan", {"id": "ann", "email": "a2@example.com", "timezone": "Asia/Tokyo"}]
    made = planned(call(to=to), *people)

    due = {it.address: it.due_at and it.due_at.isoformat(timespec="minutes")[:16] for it in made.decisions}
    assert due == {
        "ann@example.com": "2030-05-01T06:00",
        "bob@example.com": "2030-05-01T15:00",
        "cem@example.com": "2030-05-01T08:00",
        "dan@example.com": None,  # it was eight there two hours ago: now
        "a2@example.com": "2030-04-30T23:00",  # the call's zone goes before the stored one
    }
    assert [it.reasons for it in made.decisions] == [
        ("local_time", "scheduled"),
        ("local_time", "scheduled"),
        ("local_time_utc", "scheduled"),
        ("local_time", "local_time_passed"),
        ("local_time", "scheduled"),
    ]
    assert [it.state for it in made.decisions] == [State.HELD] * 3 + [State.QUEUED, State.HELD]
    assert [each.get("timezone") for each in made.explained()["decisions"]][:3] == [
        "Europe/Berlin", "America/Los_Angeles", None,
    ]  # fmt: skip


def test_expiry_counts_from_each_recipients_own_time() -> None:
    made = planned(
        call(to=["ann", "bob"]), profile("ann", "Europe/Berlin"), profile("bob", "America/Los_Angeles")
    )
    assert [it.expires_at - it.due_at for it in made.decisions if it.due_at] == [HOUR, HOUR]


def test_who_would_get_it_when_it_is_worthless_does_not_get_it() -> None:
    made = planned(
        call(to=["ann", "bob"], expires=datetime(2030, 5, 1, 12, tzinfo=UTC)),
        profile("ann", "Europe/Berlin"),
        profile("bob", "America/Los_Angeles"),
    )
    assert [(it.state, it.reason) for it in made.decisions] == [
        (State.HELD, "scheduled"), (State.EXPIRED, "expires_before_at"),
    ]  # fmt: skip


def test_quiet_hours_are_asked_from_that_time_on() -> None:
    late = Choices(quiet_hours=QuietHours(time(22), time(9)))
    ann = Profile("ann", {"email": ("ann@example.com",)}, timezone="Europe/Berlin", choices=late)
    (decision,) = planned(
        call(), ann, kind=EventType("order.shipped", "v1", ("email",), expires=86400)
    ).decisions
    assert decision.reasons == ("local_time", "scheduled", "quiet_hours")
    assert decision.due_at == datetime(2030, 5, 1, 7, tzinfo=UTC)


# --- another time ---------------------------------------------------------------------------------------

_wishes = st.builds(
    Choices,
    quiet_hours=st.none() | st.builds(QuietHours, st.times(), st.times()),
    vacation=st.none()
    | st.builds(
        lambda start, days, mode: Vacation(NOW + start, NOW + start + days, mode),
        st.timedeltas(-timedelta(days=3), timedelta(days=3)),
        st.timedeltas(timedelta(hours=1), timedelta(days=3)),
        st.sampled_from(["hold", "drop"]),
    ),
)


@given(_wishes, st.sampled_from(ZONES), st.timedeltas(-HOUR, timedelta(days=9)), st.booleans(), st.booleans())
def test_a_moved_call_goes_when_a_new_one_for_that_time_would(
    wishes: Choices,
    zone: str,
    later: timedelta,
    required: bool,  # noqa: FBT001 - hypothesis gives them
    quiet: bool,  # noqa: FBT001 - as above
) -> None:
    assume(wishes.quiet_hours is None or wishes.quiet_hours.begin != wishes.quiet_hours.end)
    kind = EventType(
        "order.shipped", "v1", ("email",), expires=86400, required=required, ignores_quiet_hours=quiet
    )
    ann = Profile("ann", {"email": ("ann@example.com",)}, timezone=zone, choices=wishes)
    new = planned(call(at=NOW + later), ann, kind=kind).decisions[0]
    old = planned(call(at=NOW + HOUR), ann, kind=kind)
    assert old.timed is not None

    moved = move(old.timed, NOW + later, NOW, wishes, zone, NOW)

    if new.state in (State.HELD, State.QUEUED):
        assert moved.due_at == (new.due_at or NOW)
        if later > timedelta(0):
            assert (moved.reason, moved.expires_at) == (new.reason, new.expires_at)
    else:
        assert (moved.due_at, moved.reason) == (None, new.reason)


def test_an_expiry_of_the_calls_own_stays_where_it_is() -> None:
    timed = planned(call(expires=datetime(2030, 5, 2, tzinfo=UTC)), profile("ann", None)).timed
    assert timed == Timed(None)
    expires = datetime(2030, 5, 2, tzinfo=UTC)
    assert move(timed, expires - HOUR, expires, Choices(), None, NOW).expires_at == expires
    late = move(timed, expires, expires, Choices(), None, NOW)
    assert (late.due_at, late.reason) == (None, "expires_before_at")


def test_a_bare_address_has_the_calls_zone() -> None:
    to = {"email": "x@example.com", "timezone": "Asia/Tokyo"}
    (decision,) = planned(call(to=to)).decisions
    assert (decision.recipient_id, decision.due_at) == (None, datetime(2030, 4, 30, 23, tzinfo=UTC))
    assert RecipientRef().timezone is None

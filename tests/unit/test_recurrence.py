"""When something that repeats is due: against an oracle that knows nothing but a zone's clock, minute by minute."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice, takewhile
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

import pytest

from notify_tasks.errors import InvalidCall
from notify_tasks.recurrence import Due, Rule, due, read

MINUTE = timedelta(minutes=1)
BERLIN = "Europe/Berlin"
NEW_YORK = "America/New_York"


def at(text: str) -> datetime:
    """An instant in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def cron(text: str, zone: str = "UTC", starts: str = "2026-01-01T00:00", **more: Any) -> Rule:
    return read("cron", text, zone, starts=at(starts), **more)


def rrule(text: str, zone: str = "UTC", starts: str = "2026-01-01T00:00", **more: Any) -> Rule:
    return read("rrule", text, zone, starts=at(starts), **more)


def said(rule: Rule, after: str, count: int) -> list[str]:
    return [f"{it:%Y-%m-%dT%H:%M}" for it in islice(rule.after(at(after)), count)]


# --- the oracle ---------------------------------------------------------------------------------------

Matches = Callable[[datetime], bool]
RULES: dict[str, tuple[str, str, Matches]] = {
    "daily 02:30": (
        "30 2 * * *",
        "FREQ=DAILY;BYHOUR=2;BYMINUTE=30",
        lambda wall: (wall.hour, wall.minute) == (2, 30),
    ),
    "hourly": ("0 * * * *", "FREQ=HOURLY;BYMINUTE=0", lambda wall: wall.minute == 0),
    "weekly": (
        "15 0 * * SUN",
        "FREQ=WEEKLY;BYDAY=SU;BYHOUR=0;BYMINUTE=15",
        lambda wall: (wall.weekday(), wall.hour, wall.minute) == (6, 0, 15),
    ),
    "monthly 31st": (
        "30 2 31 * *",
        "FREQ=MONTHLY;BYMONTHDAY=31;BYHOUR=2;BYMINUTE=30",
        lambda wall: (wall.day, wall.hour, wall.minute) == (31, 2, 30),
    ),
}


def walls_between(before: datetime, after: datetime) -> Iterator[datetime]:
    while before < after:
        yield before
        before += MINUTE


def minutes_of(zone: ZoneInfo, begin: datetime, end: datetime) -> list[tuple[datetime, set[datetime]]]:
    """Each UTC minute with the wall times that fall on it: shown for the first time, or jumped over to get there.

    A clock that is watched, minute by minute; nothing is known of offsets and transitions.
    """
    found, highest = [], begin.astimezone(zone).replace(tzinfo=None) - MINUTE
    now = begin
    while now < end:
        wall = now.astimezone(zone).replace(tzinfo=None)
        fresh: set[datetime] = set()
        if wall > highest:
            fresh = set(walls_between(highest + MINUTE, wall + MINUTE))
            highest = wall
        found.append((now, fresh))
        now += MINUTE
    return found


def transitions(zone: ZoneInfo, first: int, last: int) -> list[datetime]:
    """Hours of UTC within which the zone's clock is set."""
    found, day = [], datetime(first, 1, 1, tzinfo=UTC)
    while day.year < last:
        following = day + timedelta(days=1)
        if day.astimezone(zone).utcoffset() != following.astimezone(zone).utcoffset():
            hours = [day + timedelta(hours=hour) for hour in range(25)]
            offsets = [hour.astimezone(zone).utcoffset() for hour in hours]
            found.append(next(hours[n] for n in range(24) if offsets[n] != offsets[n + 1]))
        day = following
    return found


def test_ten_thousand_days_on_which_clocks_change_are_as_a_watched_clock_has_them() -> None:
    names = sorted(name for name in available_timezones() if "/" in name and not name.startswith("Etc/"))
    drawn = random.Random(20260329)
    drawn.shuffle(names)
    names = [BERLIN, NEW_YORK, "Australia/Lord_Howe", "Pacific/Apia", "Africa/Casablanca", *names]
    cases = 0
    for name in names:
        zone = ZoneInfo(name)
        moments = transitions(zone, 2005, 2036)
        for moment in drawn.sample(moments, min(len(moments), 24)):
            begin, end = moment - timedelta(hours=2), moment + timedelta(hours=3)
            watched = minutes_of(zone, begin, end)
            for kind, (as_cron, as_rrule, matches) in RULES.items():
                expected = [now for now, walls in watched if any(map(matches, walls))]
                form, text = drawn.choice((("cron", as_cron), ("rrule", as_rrule)))
                rule = Rule(form, text, name, moment - timedelta(days=40))  # type: ignore[arg-type]
                found = list(takewhile(lambda it, end=end: it < end, rule.after(begin - MINUTE)))  # type: ignore[misc]
                assert found == expected, (name, moment, kind, form)
                cases += 1
        if cases >= 10_000:
            return
    raise AssertionError(cases)


# --- clocks that change -------------------------------------------------------------------------------


def test_a_time_that_is_left_out_is_the_first_minute_after_it() -> None:
    # Berlin goes from 02:00 to 03:00 on 29 March 2026, New York on 8 March.
    assert said(cron("30 2 * * *", BERLIN), "2026-03-28T00:00", 3) == [
        "2026-03-28T01:30", "2026-03-29T01:00", "2026-03-30T00:30",
    ]  # fmt: skip
    assert said(rrule("FREQ=DAILY;BYHOUR=2;BYMINUTE=30", NEW_YORK), "2026-03-08T00:00", 2) == [
        "2026-03-08T07:00", "2026-03-09T06:30",
    ]  # fmt: skip
    # A whole day that an island left out.
    assert said(cron("0 9 * * *", "Pacific/Apia", "2011-12-01T00:00"), "2011-12-29T00:00", 3) == [
        "2011-12-29T19:00", "2011-12-30T10:00", "2011-12-30T19:00",
    ]  # fmt: skip


def test_a_time_that_comes_twice_counts_once() -> None:
    # Berlin goes from 03:00 back to 02:00 on 25 October 2026.
    assert said(cron("30 2 * * *", BERLIN), "2026-10-24T12:00", 2) == ["2026-10-25T00:30", "2026-10-26T01:30"]
    # The rule is silent in the second of two equal hours, also when it is asked in the midst of it.
    assert said(cron("*/30 * * * *", BERLIN), "2026-10-25T00:29", 3) == [
        "2026-10-25T00:30", "2026-10-25T02:00", "2026-10-25T02:30",
    ]  # fmt: skip
    assert said(cron("*/30 * * * *", BERLIN), "2026-10-25T01:10", 1) == ["2026-10-25T02:00"]
    assert said(cron("*/30 * * * *"), "2026-10-25T00:29", 3) == [
        "2026-10-25T00:30", "2026-10-25T01:00", "2026-10-25T01:30",
    ]  # fmt: skip


def test_times_that_become_one_instant_are_one_occurrence() -> None:
    assert said(cron("*/20 * * * *", BERLIN), "2026-03-29T00:30", 3) == [
        "2026-03-29T00:40", "2026-03-29T01:00", "2026-03-29T01:20",
    ]  # fmt: skip


# --- rules --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("@daily", ["2026-11-24T00:00", "2026-11-25T00:00"]),
        ("@Hourly", ["2026-11-23T11:00", "2026-11-23T12:00"]),
        ("30 8 * * mon-fri", ["2026-11-24T08:30", "2026-11-25T08:30"]),
        ("0 12 L FEB *", ["2027-02-28T12:00", "2028-02-29T12:00"]),
        ("0 0 13 * FRI", ["2026-11-27T00:00", "2026-12-04T00:00"]),
    ],
)
def test_cron_is_read_as_cron_reads_it(text: str, expected: list[str]) -> None:
    assert said(cron(text), "2026-11-23T10:00", 2) == expected


def test_an_rrule_counts_from_its_start_and_ends_where_it_says() -> None:
    fortnightly = rrule("RRULE:FREQ=WEEKLY;INTERVAL=2;BYDAY=MO;BYHOUR=9", starts="2026-01-05T09:00:30")
    assert said(fortnightly, "2026-11-01T00:00", 2) == ["2026-11-09T09:00", "2026-11-23T09:00"]
    assert said(rrule("FREQ=DAILY;COUNT=2", starts="2026-01-05T09:00"), "2026-01-01T00:00", 9) == [
        "2026-01-05T09:00", "2026-01-06T09:00",
    ]  # fmt: skip
    until = rrule("FREQ=HOURLY;UNTIL=20260105T083000Z", BERLIN, "2026-01-05T07:15")
    assert said(until, "2026-01-01T00:00", 9) == ["2026-01-05T07:15", "2026-01-05T08:15"]
    ending = cron("@daily", ends=at("2026-01-03T00:00"))
    assert said(ending, "2026-01-01T00:00", 9) == ["2026-01-02T00:00", "2026-01-03T00:00"]


def test_an_old_rule_is_found_as_fast_as_a_new_one_and_the_same() -> None:
    drawn = random.Random(7)
    for _ in range(200):
        step, starts = drawn.randint(1, 40), datetime(2025, 1, 1, 5, 7, tzinfo=UTC)
        frequency, unit = drawn.choice((("HOURLY", "hours"), ("DAILY", "days"), ("WEEKLY", "weeks")))
        rule = read("rrule", f"FREQ={frequency};INTERVAL={step}", "UTC", starts=starts)
        asked = starts + timedelta(minutes=drawn.randint(0, 2_000_000))
        period = timedelta(**{unit: step})
        assert rule.first_after(asked) == starts + ((asked - starts) // period + 1) * period


@pytest.mark.parametrize(
    ("kind", "text", "problem"),
    [
        ("cron", "0 0 30 2 *", "it never occurs"),
        ("cron", "0 0 31 4,6,9,11 *", "it never occurs"),
        ("cron", "61 * * * *", "its minute is none"),
        ("cron", "0 0 * * XYZ", "its day of week is none"),
        ("cron", "*/10 * * * * *", "it has 6 fields"),
        ("cron", "@weeky", "Did you mean @weekly?"),
        ("cron", " ", "it is empty"),
        ("rrule", "FREQ=DAILY;BYMONTH=2;BYMONTHDAY=30", "it never occurs"),
        ("rrule", "FREQ=MINUTELY;BYMONTH=2;BYMONTHDAY=30", "it never occurs"),
        ("rrule", "FREQ=SECONDLY", "more often than once a minute"),
        ("rrule", "FREQ=MINUTELY;BYSECOND=0,30", "BYSECOND is finer"),
        ("rrule", "FREQ=DAILY;INTERVAL=0", "INTERVAL is not a number from 1"),
        ("rrule", "FREQ=DAILY;BYHOUR=24", "BYHOUR has a value that is none"),
        ("rrule", "FREQ=DAILY;COUNT=9;UNTIL=20300101T000000Z", "COUNT and UNTIL"),
        ("rrule", "FREQ=DAILY;UNTIL=20300101", "UNTIL is not a time"),
        ("rrule", "FREQ=DAILY;UNTIL=20309901T000000Z", "do not fit"),
        ("rrule", "FREQ=WEEKLY;BYDAY=XX", "do not fit"),
        ("rrule", "DTSTART:20260101T000000Z\nRRULE:FREQ=DAILY", "more than one rule"),
        ("rrule", "every day", "is no part of a rule"),
        ("rrule", "INTERVAL=2", "it has no FREQ"),
        ("rrule", "FREQ=DAILY;UNTIL=20200101T000000Z", "it never occurs"),
    ],
)
def test_what_is_wrong_with_a_rule_is_said_with_its_field_and_a_remedy(
    kind: Any, text: str, problem: str
) -> None:
    with pytest.raises(InvalidCall) as raised:
        read(kind, text, "UTC", starts=at("2026-01-01T00:00"))

    assert raised.value.field == kind
    assert problem in str(raised.value)
    assert raised.value.remedy


def test_an_unknown_zone_is_refused_with_the_one_that_was_meant() -> None:
    with pytest.raises(
        InvalidCall, match=r"timezone: there is no such time zone. Did you mean Europe/Berlin\?"
    ):
        cron("@daily", "Europe/Berlyn")


# --- missed -------------------------------------------------------------------------------------------


def fired(missed: Any, now: str, *, text: str = "@hourly", limit: int = 100) -> tuple[list[str], str | None]:
    found: Due = due(cron(text), at("2026-11-23T08:00"), at(now), missed, limit=limit)
    return [f"{it:%H:%M}" for it in found.fire], found.next_at and f"{found.next_at:%H:%M}"


def test_what_was_missed_goes_out_as_its_policy_says() -> None:
    # In time, all policies are one.
    for missed in ("once", "all", "skip"):
        assert fired(missed, "2026-11-23T08:00:59") == (["08:00"], "09:00")
    # After an outage, the latest, each of them, or none.
    assert fired("once", "2026-11-23T10:30") == (["10:00"], "11:00")
    assert fired("all", "2026-11-23T10:30") == (["08:00", "09:00", "10:00"], "11:00")
    assert fired("skip", "2026-11-23T10:30") == ([], "11:00")
    # What is in time after an outage is not missed.
    assert fired("skip", "2026-11-23T10:00:05") == (["10:00"], "11:00")
    # A long list is left in part for the next look.
    assert fired("all", "2026-11-23T10:30", limit=2) == (["08:00", "09:00"], "10:00")


def test_the_latest_of_a_year_of_missed_minutes_is_found() -> None:
    found = due(cron("* * * * *"), at("2026-01-01T00:00"), at("2026-12-31T23:59:30"), "once", limit=100)
    assert found == Due((at("2026-12-31T23:59"),), at("2027-01-01T00:00"))
    rare = due(cron("0 0 29 2 *"), at("2028-02-29T00:00"), at("2031-12-31T00:00"), "once", limit=100)
    assert rare == Due((at("2028-02-29T00:00"),), at("2032-02-29T00:00"))

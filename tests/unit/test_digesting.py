"""When digests are due, against an oracle that walks along the clock; and what notification.toml and calls may say."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from notify_tasks.choices import Choices, Vacation
from notify_tasks.digesting import DigestRule, ThrottleRule, When, key_of, value_at
from notify_tasks.event_type import EventType
from notify_tasks.notification import Notification, RecipientRef
from notify_tasks.planning import plan
from notify_tasks.plans import Decision, Profile
from notify_tasks.rendering import BrokenType, LoadedType
from notify_tasks.states import State
from notify_tasks.templates_check import check

MINUTE = timedelta(minutes=1)
NOW = datetime(2030, 5, 1, 12, 0, tzinfo=UTC)

# --- on a clock ---------------------------------------------------------------------------------------

CHANGES = {
    "Europe/Berlin": ["2026-03-29T01:00", "2026-10-25T01:00"],
    "America/New_York": ["2026-03-08T07:00", "2026-11-01T06:00"],
    "America/St_Johns": ["2026-03-08T05:30", "2026-11-01T04:30"],
    "Australia/Lord_Howe": ["2026-10-03T15:30", "2026-04-04T15:00"],  # half an hour
    "Asia/Beirut": ["2026-03-28T22:00", "2026-10-24T21:00"],  # at midnight
    "Asia/Kathmandu": ["2026-06-01T00:00"],  # no change
    "Pacific/Apia": ["2011-12-30T10:00"],  # a day that was not
    "UTC": ["2026-12-31T23:59"],
}
PLACES = [(zone, change) for zone, changes in CHANGES.items() for change in changes]
NEAR = st.integers(-130, 130) | st.integers(-1500, 1500)
"""Minutes from a change."""
SPANS = (1, 5, 7, 15, 30, 45, 60, 90, 120, 180, 240, 360, 420, 720, 1440)


def crossed(before: datetime, after: datetime) -> list[datetime]:
    """The minutes that a clock shows, or skips, when it goes on by a minute of real time."""
    step, shown = before + MINUTE, []
    if after <= before:  # put back: it shows what it has shown before
        return [after]
    while step <= after:
        shown.append(step)
        step += MINUTE
    return shown


def oracle(now: datetime, zone: str, hits: Any, *, once: bool) -> datetime:
    """The next minute at which the clock shows, or skips, a time that `hits`."""
    at = now.replace(second=0, microsecond=0)
    place = ZoneInfo(zone)
    seen: set[datetime] = set()
    # Whatever the clock has shown in the hours before now counts as seen, where a time counts once.
    back = [(at - timedelta(hours=4) + n * MINUTE).astimezone(place).replace(tzinfo=None) for n in range(241)]
    for before, after in pairwise(back):
        seen.update(each.replace(fold=0) for each in crossed(before, after))
    shown = back[-1]
    while True:
        at += MINUTE
        local = at.astimezone(place).replace(tzinfo=None, fold=0)
        for each in crossed(shown.replace(fold=0), local):
            if hits(each) and not (once and each in seen):
                return at
            seen.add(each)
        shown = local


@settings(max_examples=400)
@given(st.sampled_from(PLACES), NEAR, st.sampled_from(SPANS))
def test_windows_end_where_the_clock_says_so(place: tuple[str, str], minutes: int, span: int) -> None:
    zone, change = place
    now = datetime.fromisoformat(change).replace(tzinfo=UTC) + minutes * MINUTE

    def hits(shown: datetime) -> bool:
        return (shown.hour * 60 + shown.minute) % span == 0

    assert When.parse(f"every {span}m").due(now, zone) == oracle(now, zone, hits, once=False)


@settings(max_examples=400)
@given(
    st.sampled_from(PLACES),
    NEAR,
    st.sampled_from(
        [time(0), time(2, 30), time(2), time(3), time(1, 45), time(0, 15), time(23, 59), time(8)]
    ),
)
def test_a_time_of_day_comes_once_a_day(place: tuple[str, str], minutes: int, at: time) -> None:
    zone, change = place
    now = datetime.fromisoformat(change).replace(tzinfo=UTC) + minutes * MINUTE

    def hits(shown: datetime) -> bool:
        return shown.time() == at

    assert When.parse(f"daily {at:%H:%M}").due(now, zone) == oracle(now, zone, hits, once=True)


@pytest.mark.parametrize(
    ("when", "now", "zone", "due"),
    [
        ("weekly mon 08:00", "2026-03-28T12:00", "Europe/Berlin", "2026-03-30T06:00"),
        ("weekly mon 08:00", "2026-03-30T06:00", "Europe/Berlin", "2026-04-06T06:00"),
        ("weekly sun 02:30", "2026-03-28T12:00", "Europe/Berlin", "2026-03-29T01:00"),
        ("daily 08:00", "2026-03-30T05:59:59", "Europe/Berlin", "2026-03-30T06:00"),
        ("daily 08:00", "2026-03-30T05:00", None, "2026-03-30T08:00"),
        ("daily 08:00", "2026-03-30T05:00", "Mars/Olympus", "2026-03-30T08:00"),
        ("every 1s", "2026-03-30T05:00:00.5", None, "2026-03-30T05:00:01"),
        ("every 1d", "2026-03-30T05:00", "Asia/Tokyo", "2026-03-30T15:00"),
        ("after 10m at most 1h", "2026-03-30T05:00:07", "Asia/Tokyo", "2026-03-30T05:10:07"),
    ],
)
def test_examples(when: str, now: str, zone: str | None, due: str) -> None:
    at = datetime.fromisoformat(now).replace(tzinfo=UTC)
    found = When.parse(when)
    assert found.due(at, zone) == datetime.fromisoformat(due).replace(tzinfo=UTC)
    assert str(found) == when
    assert (found.cap(at) is None) == (not when.startswith("after"))


@pytest.mark.parametrize(
    "text",
    ["", "often", "every", "every 0m", "every 2d", "daily 8:00", "daily 24:00", "weekly 08:00 mon", "after 10m",
     "after 1h at most 10m", "weekly mon tue", "daily 08:00 09:00"],
)  # fmt: skip
def test_what_says_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"\. Write"):
        When.parse(text)


def test_values_of_a_payload_by_path() -> None:
    payload = {"post": {"id": 7}, "room": "a"}
    assert [value_at(payload, it) for it in ("post.id", "room", "room.x", "x", None)] == [
        7,
        "a",
        None,
        None,
        None,
    ]
    assert key_of("a", {"x": 1, "y": 2}) == key_of("a", {"y": 2, "x": 1}) != key_of("a", {"x": 1})
    assert key_of(1) != key_of("1")


# --- in a plan ----------------------------------------------------------------------------------------

HOURLY = DigestRule("post.digest", When.parse("every 1h"))
POST = EventType("post.new", "v1", ("email",), category="posts", expires=86400, digest=HOURLY)
ANN = Profile("ann", {"email": ("ann@example.com",)}, timezone="Europe/Berlin")


def planned(event_type: EventType = POST, profile: Profile = ANN, **options: Any) -> Decision:
    made = Notification("m-1", "post.new", NOW, (RecipientRef("ann"),), **options)
    (decision,) = plan(made, event_type, {"ann": profile}, frozenset(), NOW).decisions
    return decision


def test_planning_says_which_digest_and_leaves_the_rest_to_the_store() -> None:
    decision = planned()
    assert (decision.state, decision.reason, decision.due_at) == (State.HELD, "digest", None)
    assert decision.digest is not None
    assert decision.digest.due_at == NOW + timedelta(hours=1)
    assert decision.explained()["due_at"] == decision.digest.due_at.isoformat()
    # The second that is planned in the same hour has the same key; another person's has not.
    assert planned().digest == decision.digest
    assert planned(sandbox=True).digest.key != decision.digest.key  # type: ignore[union-attr] # it has one


def test_a_vacation_in_which_all_is_dropped_is_asked_of_the_event_and_one_that_holds_is_the_digest_s() -> (
    None
):
    def away(mode: str) -> Profile:
        return replace(ANN, choices=Choices(vacation=Vacation(NOW, NOW + timedelta(days=9), mode)))

    assert planned(profile=away("drop")).state is State.SUPPRESSED
    assert planned(profile=away("hold")).reason == "digest"


def test_what_has_a_time_of_its_own_goes_by_itself() -> None:
    decision = planned(at=NOW + timedelta(hours=3))
    assert (decision.reason, decision.digest) == ("scheduled", None)


def test_only_the_channels_that_the_digest_has_are_gathered() -> None:
    sms = replace(POST, digest=replace(HOURLY, channels=("sms",)))
    assert planned(sms).state is State.QUEUED
    daily = Choices(categories={"posts": {"email": "daily"}})
    decision = planned(sms, replace(ANN, choices=daily))
    assert (decision.state, decision.reasons) == (State.QUEUED, ("no_digest_type",))


def test_a_type_that_says_no_time_is_gathered_for_whoever_asks() -> None:
    asked = replace(POST, digest=DigestRule("post.digest"))
    assert planned(asked).state is State.QUEUED
    for options, when in (({"digest": "daily"}, "daily 08:00"), ({"digest": "every 2h"}, "every 2h")):
        decision = planned(asked, **options)
        assert decision.digest is not None
        assert decision.digest.when == when


def test_a_throttle_carries_both_ways() -> None:
    decision = planned(replace(POST, digest=None, throttle=ThrottleRule(3, 3600.0, "drop")))
    assert decision.state is State.QUEUED
    assert decision.counted is not None
    assert decision.timing is not None
    assert decision.timing.over is not None
    over = decision.timing.over(NOW)
    assert (over.turn.state, over.turn.reasons) == (State.SUPPRESSED, ("throttled",))
    assert str(decision.counted.rule) == "3/h"
    assert str(ThrottleRule(5, 600.0, "drop")) == "5/10m"


# --- in notification.toml -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "problem", "remedy"),
    [
        ('[digest]\nevery = "1h"', "digest.type names no type", "comment.digest"),
        ('[digest]\ntype = "a.b"\nat_most = "1h"', "after needs it", 'after = "10m"'),
        ('[digest]\ntype = "a.b"\nevery = "1h"\ndaily = "08:00"', "says every and daily", "Write one of"),
        ('[digest]\ntype = "a.b"\nevery = "2d"', "digest.every: a window is", 'weekly = "mon 08:00"'),
        ('[digest]\ntype = "a.b"\nevery = 3600', "digest.every: it is no span", '"10m"'),
        ('[digest]\ntype = "a.b"\ndaily = "8"', "digest.daily: it is no time of day", '"08:00"'),
        ('[digest]\ntype = "a.b"\nweekly = "08:00"', "digest.weekly does not say when", "mon 08:00"),
        ('[digest]\ntype = "a.b"\nafter = "10m"', "after needs it", "at_most"),
        ('[digest]\ntype = "a.b"\nafter = "10m"\nat_most = "5m"', "at_most is not longer", '"1h"'),
        ('[digest]\ntype = "a.b"\nevery = "1h"\nfirst = true', 'first is not "now"', "leave it out"),
        ('[digest]\ntype = "a.b"\nevery = "1h"\nby = "a b"', "names no field", "post_id"),
        ('[digest]\ntype = "a.b"\nevery = "1h"\nmost = 0', "digest.most", "most = 500"),
        ('[digest]\ntype = "a.b"\nevery = "1h"\nchannels = ["fax"]', "no list of channels", "email"),
        ('[digest]\ntype = "a.b"\nevry = "1h"', "unknown key 'evry'", "'every'"),
        ('[digest]\ntype = "post.new"\nevery = "1h"', "the type itself", "Name another"),
        ('required = true\n[digest]\ntype = "a.b"\nevery = "1h"', "required, and gathers", "out"),
        ('[throttle]\nlimit = "3"\nover = "drop"', "throttle.limit: it is no limit", "3/h"),
        ('[throttle]\nlimit = "3/0m"\nover = "drop"', "it is no limit", "5/10m"),
        ('[throttle]\nlimit = "3/60d"\nover = "drop"', "longer than 31 days", "30d"),
        ('[throttle]\nlimit = "3/h"', "throttle.over is none of", "drop"),
        ('[throttle]\nlimit = "3/h"\nover = "digest"', "no [digest] says when", "Add [digest]"),
        ('[digest]\ntype = "a.b"\n[throttle]\nlimit = "3/h"\nover = "digest"', "no [digest] says", "due"),
        (
            '[digest]\ntype = "a.b"\nevery = "1h"\n[throttle]\nlimit = "3/h"\nover = "hold"',
            "waits already",
            'over = "digest"',
        ),
    ],
)
def test_a_wrong_table_is_named_with_its_remedy(
    tmp_path: Path, table: str, problem: str, remedy: str
) -> None:
    folder = tmp_path / "post.new"
    folder.mkdir()
    (folder / "notification.toml").write_text(f'channels = ["sms"]\n{table}\n')
    (folder / "sms.txt").write_text("a")
    with pytest.raises(BrokenType) as broken:
        LoadedType(tmp_path, "post.new")
    (found,) = broken.value.problems
    assert problem in found.problem
    assert remedy in found.remedy


def test_a_right_one_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "post.new"
    folder.mkdir()
    (folder / "notification.toml").write_text(
        'channels = ["sms"]\n[digest]\ntype = "post.digest"\nafter = "10m"\nat_most = "1h"\nfirst = "now"\n'
        'by = "payload.post.id"\nmost = 50\nchannels = ["sms"]\n'
        '[throttle]\nlimit = "5/10m"\nover = "digest"\nby = "room"\n'
    )
    (folder / "sms.txt").write_text("a")
    policy = LoadedType(tmp_path, "post.new").policy
    assert policy.digest == DigestRule(
        "post.digest",
        When.parse("after 10m at most 1h"),
        first=True,
        by="post.id",
        most=50,
        channels=("sms",),
    )
    assert policy.throttle == ThrottleRule(5, 600.0, "digest", "room")
    assert not policy.gathers, "only what is over is gathered"


def test_the_check_looks_at_a_type_s_digest_too(tmp_path: Path) -> None:
    def write(name: str, policy: str, example: str, *files: str) -> None:
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / "notification.toml").write_text(policy)
        (tmp_path / name / "example.json").write_text(example)
        for file in files:
            (tmp_path / name / file).write_text('{"title": "a"}' if file.endswith("json") else "a")

    gathers = 'channels = ["sms", "push"]\n[digest]\ntype = "post.all"\n'
    write("post.new", gathers, '{"n": 1}', "sms.txt", "push.json")
    (missing,) = check(tmp_path)
    assert "there is no type 'post.all'" in missing.problem

    schema = '[payload.properties.events.items.properties.payload]\nrequired = ["title"]\n'
    write("post.all", f'channels = ["sms"]\n{schema}', '{"events": []}', "sms.txt")
    channel, payload = check(tmp_path)
    assert "gathered on push, and post.all has no files" in channel.problem
    assert (
        "post.all does not take its example.json gathered: payload.events[0].payload.title" in payload.problem
    )

    write("post.new", gathers + 'channels = ["sms"]\n', '{"title": "b"}')
    assert check(tmp_path) == []

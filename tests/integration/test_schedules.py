"""Recurring schedules on a real PostgreSQL: each occurrence is one call, however many sweeps run, meet or die."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from notify_tasks import people, schedules, settings
from notify_tasks.errors import InvalidCall
from notify_tasks.notification import Notification
from notify_tasks.store import schedules as stored
from notify_tasks.store import statuses
from notify_tasks.store.database import DatabaseAway
from notify_tasks.terminal.timeline import lines
from tests.integration.core_world import World, plain, proxied, together, until, waiting_for_locks, world

DAILY = {"cron": "30 2 * * *", "to": "ann", "starts": datetime(2026, 1, 1, tzinfo=UTC)}
BERLIN = "Europe/Berlin"
NEW_YORK = "America/New_York"


def at(text: str) -> datetime:
    """An instant in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.fixture
def it(database: str) -> Iterator[World]:
    settings.configure(database_url=database)
    with world(database, connections=20) as opened:
        yield opened
    schedules.close()
    settings.reset()


def put(id_: str = "report", event_type: str = "test.ping", **options: Any) -> schedules.Schedule:
    return schedules.put(id_, event_type, **(DAILY | options))


def move(it: World, next_at: datetime, id_: str = "report") -> None:
    """As if it had been stored long ago, and its time had come."""
    it.rows("UPDATE notify.schedule SET next_at = %s WHERE id = %s", next_at, id_)


def tick(it: World, now: datetime | None = None) -> int:
    """One tick of a sweep at some time; how many calls it made."""
    return stored.tick(it.db, limit=200, now=now)[1]


def calls(it: World) -> list[str]:
    """The message ids of the calls that wait for their planning, in the order of their times."""
    found = it.rows(
        "SELECT message_id FROM notify.intake ORDER BY (envelope ->> 'timestamp')::timestamptz, message_id"
    )
    return [row["message_id"] for row in found]


def occurrences(it: World) -> list[datetime]:
    return [
        row["at"] for row in it.rows("SELECT occurrence AS at FROM notify.schedule_occurrence ORDER BY 1")
    ]


# --- an occurrence is a call --------------------------------------------------------------------------


def test_a_due_schedule_becomes_the_call_that_was_stored(it: World) -> None:
    made = put(
        payload={"n": 7}, channels=["sms"], priority="high", source="billing", expires=timedelta(hours=6)
    )
    move(it, at("2026-03-01T02:30"))

    assert tick(it, at("2026-03-01T02:30:03")) == 1

    (row,) = it.rows("SELECT * FROM notify.intake")
    call = Notification.from_wire(row["envelope"])
    assert call.message_id == row["message_id"] == "report@2026-03-01T02:30Z"
    assert (call.event_type, call.to[0].id, call.payload) == ("test.ping", "ann", {"n": 7})
    assert (call.channels, call.priority, call.source) == (("sms",), "high", "billing")
    assert (call.timestamp, call.expires) == (at("2026-03-01T02:30"), at("2026-03-01T08:30"))
    assert call.hash == row["hash"] == made.call["hash"]
    found = schedules.get("report")
    assert found is not None
    assert (found.next_at, found.last_at) == (at("2026-03-02T02:30"), at("2026-03-01T02:30"))
    assert found.last_message_id == call.message_id


def test_nothing_is_due_before_its_time(it: World) -> None:
    put()
    move(it, at("2026-03-01T02:30"))

    assert tick(it, at("2026-03-01T02:29:59")) == 0
    assert calls(it) == []


def test_five_sweeps_at_once_make_each_occurrence_one_call(it: World) -> None:
    # Given forty schedules that have missed three days each,
    for n in range(40):
        put(f"s{n:02}", missed="all")
        move(it, at("2026-03-01T02:30"), f"s{n:02}")

    # when five sweeps go at them again and again,
    def sweep(_: int) -> int:
        return sum(stored.tick(it.db, limit=7, now=at("2026-03-03T12:00"))[1] for _ in range(20))

    made = together(5, sweep)

    # then each of them has made its three calls.
    assert sum(made) == 120
    assert calls(it) == [f"s{n:02}@2026-03-0{day}T02:30Z" for day in (1, 2, 3) for n in range(40)]
    assert len(occurrences(it)) == 120


def test_a_tick_that_is_killed_has_done_nothing_and_the_next_one_does_it(it: World) -> None:
    put()
    move(it, at("2026-03-01T02:30"))
    # Given a sweep that writes the occurrence and its call, and waits for a lock before its commit,
    with plain(it.url) as blocker, blocker.transaction():
        blocker.execute("LOCK TABLE notify.intake IN ACCESS EXCLUSIVE MODE")
        failed: list[BaseException] = []

        def doomed() -> None:
            try:
                tick(it, at("2026-03-01T02:30:03"))
            except DatabaseAway as error:
                failed.append(error)

        thread = threading.Thread(target=doomed)
        thread.start()
        until(waiting_for_locks(it.url, 1), "the tick waits")
        # another one passes by what it holds,
        assert stored.tick(it.db, limit=10, now=at("2026-03-01T02:30:04")) == (0, 0)
        # when the first is killed,
        with plain(it.url) as killer:
            killer.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
        thread.join(10)
    assert len(failed) == 1
    assert (calls(it), occurrences(it)) == ([], [])

    # then the occurrence is still due, once.
    assert tick(it, at("2026-03-01T02:30:09")) == 1
    assert tick(it, at("2026-03-01T02:30:14")) == 0
    assert calls(it) == ["report@2026-03-01T02:30Z"]


def test_a_commit_whose_answer_is_lost_is_not_made_twice(it: World) -> None:
    put()
    move(it, at("2026-03-01T02:30"))
    with proxied(it.url) as proxy, world(proxy.url) as far:
        far.rows("SELECT 1")
        proxy.arm("lose_answer", b"COMMIT")
        with pytest.raises(DatabaseAway):
            tick(far, at("2026-03-01T02:30:03"))
    assert proxy.cuts == 1

    assert tick(it, at("2026-03-01T02:30:08")) == 0
    assert calls(it) == ["report@2026-03-01T02:30Z"]


def test_an_occurrence_that_was_a_call_before_is_none_again(it: World) -> None:
    put()
    for _ in range(2):  # as a database that was restored to a moment between has it
        move(it, at("2026-03-01T02:30"))
        tick(it, at("2026-03-01T02:30:03"))
    # Nor is that of another schedule with the same name.
    schedules.remove("report")
    put()
    move(it, at("2026-03-01T02:30"))
    tick(it, at("2026-03-01T02:30:03"))

    assert calls(it) == ["report@2026-03-01T02:30Z"]


def test_a_tick_of_many_schedules_takes_few_statements(it: World) -> None:
    for n in range(60):
        put(f"s{n:02}")
        move(it, at("2026-03-01T02:30"), f"s{n:02}")
    said: list[str] = []
    original = psycopg.Connection.execute

    class Counting(psycopg.Connection[Any]):
        pass

    def execute(self: Any, query: Any, *args: Any, **more: Any) -> Any:
        said.append(str(query))
        return original(self, query, *args, **more)

    psycopg.Connection.execute = execute  # type: ignore[method-assign] # to count, and nothing else
    try:
        assert tick(it, at("2026-03-01T02:30:03")) == 60
    finally:
        psycopg.Connection.execute = original  # type: ignore[method-assign]
    assert len(said) == 3


def test_one_that_cannot_be_looked_at_holds_up_no_other_and_says_why(it: World) -> None:
    put("good")
    put("bad")
    for id_ in ("good", "bad"):
        move(it, at("2026-03-01T02:30"), id_)
    it.rows("UPDATE notify.schedule SET timezone = 'Mars/Olympus' WHERE id = 'bad'")

    assert tick(it, at("2026-03-01T02:30:03")) == 1
    assert calls(it) == ["good@2026-03-01T02:30Z"]
    found = schedules.get("bad")
    assert found is not None
    assert "bring the workers up to date" in str(found.problem)
    assert found.next_at == at("2026-03-01T02:30")
    # Once a worker knows the zone, nothing was lost.
    it.rows(
        "UPDATE notify.schedule SET timezone = 'UTC', look_at = now() - interval '1 second' WHERE id = 'bad'"
    )
    assert tick(it, at("2026-03-01T12:00")) == 1
    found = schedules.get("bad")
    assert found is not None
    assert found.problem is None


# --- clocks that change -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("zone", "first", "expected"),
    [
        (BERLIN, "2026-03-28T01:30", ["2026-03-28T01:30", "2026-03-29T01:00", "2026-03-30T00:30"]),
        (BERLIN, "2026-10-24T00:30", ["2026-10-24T00:30", "2026-10-25T00:30", "2026-10-26T01:30"]),
        (NEW_YORK, "2026-03-07T07:30", ["2026-03-07T07:30", "2026-03-08T07:00", "2026-03-09T06:30"]),
        (NEW_YORK, "2026-10-31T05:30", ["2026-10-31T05:30", "2026-11-01T05:30", "2026-11-02T06:30"]),
    ],
)
def test_a_day_on_which_clocks_change_has_one_occurrence(
    it: World, zone: str, first: str, expected: list[str]
) -> None:
    # In autumn, New York has 01:30 twice and 02:30 once.
    autumn = first.startswith("2026-10-31")
    put(timezone=zone, cron="30 1 * * *" if autumn else "30 2 * * *", starts=at("2026-01-01T00:00"))
    move(it, at(first))

    now = at(first) - timedelta(hours=2)
    while now < at(expected[-1]) + timedelta(minutes=10):  # a sweep every ten minutes, for three days
        tick(it, now)
        now += timedelta(minutes=10)

    assert occurrences(it) == [at(each) for each in expected]


# --- missed -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("missed", "expected"),
    [
        ("once", ["report@2026-03-04T02:30Z"]),
        ("all", [f"report@2026-03-0{day}T02:30Z" for day in (1, 2, 3, 4)]),
        ("skip", []),
    ],
)
def test_what_an_outage_missed_goes_out_as_declared(it: World, missed: str, expected: list[str]) -> None:
    put(missed=missed)
    move(it, at("2026-03-01T02:30"))

    tick(it, at("2026-03-04T12:00"))

    assert calls(it) == expected
    found = schedules.get("report")
    assert found is not None
    assert found.next_at == at("2026-03-05T02:30")


def test_a_long_list_of_missed_ones_goes_out_in_bounded_ticks(it: World) -> None:
    put(cron="* * * * *", missed="all")
    move(it, at("2026-03-01T00:00"))

    assert [tick(it, at("2026-03-01T04:00:30")) for _ in range(4)] == [100, 100, 41, 0]
    assert len(set(calls(it))) == 241


# --- changed ------------------------------------------------------------------------------------------


def test_a_pause_holds_and_what_fell_into_it_does_not_go_out(it: World) -> None:
    put()
    move(it, at("2026-03-01T02:30"))

    paused = schedules.pause("report")
    assert paused is not None
    assert paused.paused_at is not None
    assert tick(it, at("2026-03-05T12:00")) == 0
    assert put().paused_at is not None, "storing it again does not wake it"

    resumed = schedules.resume("report")
    assert resumed is not None
    assert (resumed.paused_at, calls(it)) == (None, [])
    assert resumed.next_at is not None
    assert resumed.next_at > datetime.now(UTC)
    assert resumed.next_at == schedules.upcoming("report", 1)[0]
    assert schedules.pause("nobody") is None
    assert schedules.resume("nobody") is None


def test_one_that_is_edited_while_it_is_due_goes_out_once_as_it_was(it: World) -> None:
    put(payload={"n": 1})
    due = datetime.now(UTC).replace(second=0, microsecond=0)
    move(it, due)

    changed = put(payload={"n": 2}, cron="0 9 * * *")
    tick(it)

    (row,) = it.rows("SELECT envelope FROM notify.intake")
    assert row["envelope"]["payload"] == {"n": 1}
    assert occurrences(it) == [due]
    assert changed.next_at is not None
    assert changed.next_at > due
    assert f"{changed.next_at:%H:%M}" == "09:00"


def test_edits_that_meet_ticks_lose_and_double_nothing(it: World) -> None:
    due = datetime.now(UTC).replace(second=0, microsecond=0)
    for n in range(20):
        put(f"s{n:02}")
        move(it, due, f"s{n:02}")

    def work(who: int) -> None:
        for n in range(20):
            if who % 2:
                put(f"s{n:02}", payload={"n": who})
            else:
                stored.tick(it.db, limit=3)

    together(4, work)
    while tick(it):
        pass

    assert calls(it) == [f"s{n:02}@{due:%Y-%m-%dT%H:%M}Z" for n in range(20)]


def test_storing_the_same_again_changes_no_times(it: World) -> None:
    first = put(rrule="FREQ=DAILY;INTERVAL=3", cron=None, starts=at("2026-01-01T09:00"))
    soon = datetime.now(UTC) + timedelta(minutes=5)
    move(it, soon)

    again = put(rrule="freq=daily; interval=3", cron=None, payload={"n": 2}, starts=None)

    assert (again.rule, again.next_at) == (first.rule, soon)
    assert again.call["payload"] == {"n": 2}


def test_schedules_are_found_page_by_page_and_removed(it: World) -> None:
    for id_ in ("b", "a.2", "a.1"):
        put(id_)
    put("other", tenant="shop")

    page = schedules.find(limit=2)
    assert ([each.id for each in page.schedules], page.next) == (["a.1", "a.2"], "a.2")
    page = schedules.find(limit=2, after=page.next)
    assert ([each.id for each in page.schedules], page.next) == (["b"], None)
    assert [each.id for each in schedules.find(prefix="a.").schedules] == ["a.1", "a.2"]
    assert schedules.remove("b")
    assert not schedules.remove("b")
    assert schedules.get("b") is None
    assert schedules.upcoming("b") == ()


def test_one_that_has_ended_says_so(it: World) -> None:
    put(cron="@daily", starts=at("2026-03-01T00:00"), ends=at("2099-01-01T00:00"))
    it.rows("UPDATE notify.schedule SET ends_at = '2026-03-03T12:00Z'")
    move(it, at("2026-03-03T00:00"))

    assert tick(it, at("2026-03-03T00:00:03")) == 1
    found = schedules.get("report")
    assert found is not None
    assert found.next_at is None
    assert schedules.upcoming("report") == ()


# --- wrong --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("id", {"id_": "a@b"}),
        ("event_type", {"event_type": "Not A Type"}),
        ("to", {"to": "ann@example.com"}),
        ("payload.when", {"payload": {"when": datetime(2026, 1, 1)}}),  # noqa: DTZ001 - refused
        ("channels[0]", {"channels": ["pigeon"]}),
        ("cron", {"cron": "0 0 30 2 *"}),
        ("cron", {"cron": None}),
        ("cron", {"rrule": "FREQ=DAILY"}),
        ("rrule", {"cron": None, "rrule": "FREQ=SOMETIMES"}),
        ("timezone", {"timezone": "Europe/Berlyn"}),
        ("missed", {"missed": "maybe"}),
        ("starts", {"starts": datetime(2026, 1, 1)}),  # noqa: DTZ001 - refused
        ("cron", {"ends": datetime(2026, 1, 1, tzinfo=UTC)}),
        ("expires", {"expires": datetime(2026, 1, 1, tzinfo=UTC)}),
        ("at", {"at": timedelta(hours=1)}),
        ("message_id", {"message_id": "x"}),
        ("zone", {"zone": BERLIN}),
        ("tenant", {"tenant": "*"}),
    ],
)
def test_what_is_wrong_is_named_and_nothing_is_stored(it: World, field: str, changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidCall) as raised:
        put(**changes)

    assert raised.value.field == field
    assert raised.value.remedy
    assert schedules.find().schedules == ()


# --- beside the rest ----------------------------------------------------------------------------------


def test_an_occurrence_tells_which_schedule_it_is_of(it: World) -> None:
    put()
    move(it, at("2026-03-01T02:30"))
    tick(it, at("2026-03-01T02:30:03"))

    found = statuses.read(it.db, "report@2026-03-01T02:30Z")

    assert (found.schedule, found.occurrence) == ("report", at("2026-03-01T02:30"))
    told = "".join(
        str(getattr(part, "text", part)) for line in lines(found, datetime.now(UTC)) for part in line
    )
    assert "of the schedule report, for" in told
    assert statuses.read(it.db, "another").schedule is None


def test_an_erased_person_is_in_no_schedule_any_more(it: World) -> None:
    put("alone", to={"id": "ann", "sms": "+4915112345678"})
    put("shared", to=["ann", "bob"])
    put("without", to="bob")

    assert people.erase("ann").calls == 2

    assert [each.id for each in schedules.find().schedules] == ["shared", "without"]
    shared = schedules.get("shared")
    assert shared is not None
    assert shared.call["to"] == [{"id": "bob"}]


def test_old_occurrences_are_forgotten_with_their_message_ids(it: World) -> None:
    put()
    for day in (1, 2):
        move(it, at(f"2026-03-0{day}T02:30"))
        tick(it, at(f"2026-03-0{day}T02:30:03"))
    it.rows(
        "UPDATE notify.schedule_occurrence SET created_at = now() - interval '31 days' WHERE occurrence = %s",
        at("2026-03-01T02:30"),
    )

    stored.prune(it.db)

    assert occurrences(it) == [at("2026-03-02T02:30")]

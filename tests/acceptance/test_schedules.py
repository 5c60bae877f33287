"""Recurring schedules as their user has them: typed at the command line, and delivered by a running fleet."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from faults.fleet import beat, running_fleet, workers

from notify_tasks import schedules, settings
from notify_tasks.cli import main
from notify_tasks.store import statuses
from notify_tasks.store.database import Database

Notify = Callable[..., tuple[int, str, str]]
COMMANDS = ["add", "list", "show", "pause", "resume", "remove"]


@pytest.fixture
def notify(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Notify]:
    """Type a command in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "110")

    def run(*words: str) -> tuple[int, str, str]:
        settings.reset()
        capsys.readouterr()
        status = main(list(words))
        written = capsys.readouterr()
        return status, written.out, written.err

    yield run
    settings.reset()


@pytest.fixture
def fleet(database: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("NOTIFY_DATABASE_URL", database)
    return database


def test_help_teaches_each_command_with_examples(notify: Notify) -> None:
    assert re.findall(r"^ {4}([a-z]+) {2,}\S", notify("schedules", "--help")[1], re.MULTILINE) == COMMANDS
    for command in COMMANDS:
        status, out, _ = notify("schedules", command, "--help")
        assert status == 0
        assert f"notify schedules {command}" in out.partition("examples:")[2]
        assert max(len(line) for line in out.splitlines()) <= 120


@pytest.mark.usefixtures("fleet")
def test_a_schedule_is_added_listed_shown_paused_resumed_and_removed(notify: Notify) -> None:
    add = ("schedules", "add", "weekly-report", "report.weekly", "--cron", "30 8 * * mon", "--to", "user-42")
    status, out, _ = notify(
        *add, "--timezone", "Europe/Berlin", "--payload", '{"flat": 3}', "--expires", "6h"
    )
    assert status == 0
    assert out.startswith("weekly-report is stored: report.weekly by 30 8 * * MON, in Europe/Berlin\n")
    assert len(re.findall(r"^  Mon \d{4}-\d\d-\d\d 08:30 CES?T  \(.* UTC\)$", out, re.MULTILINE)) == 3

    _, out, _ = notify("schedules", "list")
    assert re.search(r"^id +type +rule +zone +next +last$", out, re.MULTILINE)
    assert re.search(r"^weekly-report +report\.weekly +30 8 \* \* MON +Europe/Berlin +20", out, re.MULTILINE)
    _, out, _ = notify("schedules", "list", "--json")
    assert json.loads(out)["next_at"].endswith(":30:00+00:00")

    assert notify("schedules", "pause", "weekly-report")[0] == 0
    _, out, _ = notify("schedules", "show", "weekly-report", "--next", "7")
    assert re.search(r"paused +since .*: `notify schedules resume weekly-report`", out)
    assert re.search(r"expires +6h after its time", out)
    assert out.count(" 08:30 CE") == 7
    assert "user-42" not in out
    assert notify("schedules", "resume", "weekly-report")[1].startswith("weekly-report goes on: next ")
    _, out, _ = notify("schedules", "show", "weekly-report", "--json")
    assert json.loads(out)["call"]["payload"] == {"flat": 3}

    assert notify("schedules", "remove", "weekly-report")[:2] == (0, "weekly-report is removed\n")
    status, _, err = notify("schedules", "show", "weekly-report")
    assert status == 1
    assert "Type `notify schedules list` for those there are" in err
    assert notify("schedules", "list")[1] == "no schedules\n"


@pytest.mark.usefixtures("fleet")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--cron", "0 0 30 2 *"), "--cron: it never occurs from"),
        (("--rrule", "FREQ=SECONDLY"), "--rrule: FREQ=SECONDLY is more often than once a minute"),
        (("--cron", "@daily", "--timezone", "Berlin"), "--timezone: there is no such time zone"),
        ((), "--cron: nothing says when. Write one of --cron"),
        (("--cron", "@daily", "--missed", "some"), "--missed: there is no such policy"),
        (("--cron", "@daily", "--expires", "soon"), "--expires: "),
        (("--cron", "@daily", "--channel", "pigeon"), "--channel: "),
    ],
)
def test_what_is_typed_wrong_is_named_as_it_was_typed(
    notify: Notify, words: tuple[str, ...], said: str
) -> None:
    status, out, err = notify("schedules", "add", "x", "report.weekly", "--to", "user-42", *words)

    assert status != 0
    assert out == ""
    assert said in err
    assert err.count("\n") == 1


def test_an_every_minute_rule_that_is_due_is_delivered_once(tmp_path: Path) -> None:
    # Given a fleet with two beats, and a schedule of every minute,
    with running_fleet(tmp_path, [*workers(count=1, channels=["sms"]), beat(1), beat(2)]) as fleet:
        settings.configure(database_url=fleet.postgres.url)
        schedules.put(
            "pulse",
            "fault.ping",
            cron="* * * * *",
            to={"sms": "+4915112345678"},
            payload={"n": 1},
            channels=["sms"],
        )
        # when its time has come (and the next is an hour away, so that the test has one to count),
        due = datetime.now(UTC).replace(second=0, microsecond=0)
        fleet.rows(
            "UPDATE notify.schedule SET next_at = %s, ends_at = %s RETURNING id",
            due,
            due + timedelta(seconds=1),
        )
        message_id = f"pulse@{due:%Y-%m-%dT%H:%M}Z"
        store = Database(fleet.postgres.url, connections=2)
        try:

            def sent() -> bool:
                found = statuses.read(store, message_id).notifications
                return bool(found) and [it.state for it in found[0].deliveries] == ["sent"]

            # then a sweep makes the call, a worker sends it,
            fleet.wait("the occurrence is sent", sent, 40)
            assert statuses.read(store, message_id).schedule == "pulse"
            begun = fleet.rows("SELECT last_at FROM notify.sweep")
            fleet.wait("another sweep", lambda: fleet.rows("SELECT last_at FROM notify.sweep") != begun, 30)
        finally:
            store.close()
            schedules.close()
            settings.reset()
        # and nothing is sent twice.
        assert sum(it.accepted for it in fleet.sandbox.requests()) == 1
        assert fleet.rows("SELECT count(*) FROM notify.notification") == [(1,)]

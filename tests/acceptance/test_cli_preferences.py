"""`notify preferences`: what a person wants is shown, changed, reset and told from its beginning on."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from notify_tasks import people, settings
from notify_tasks.cli import main


@dataclass(frozen=True, slots=True)
class Said:
    """What a command returned and wrote."""

    status: int
    out: str
    err: str


Notify = Callable[..., Said]


@pytest.fixture
def notify(
    tmp_path: Path, database: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Notify]:
    """Type a command where a person `ann` is stored."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "110")
    monkeypatch.setenv("NOTIFY_DATABASE_URL", database)
    settings.reset()
    people.upsert("ann", email="ann@example.com", timezone="Europe/Berlin")

    def run(*words: str) -> Said:
        settings.reset()
        capsys.readouterr()
        status = main(["preferences", *words])
        written = capsys.readouterr()
        return Said(status, written.out, written.err)

    yield run
    people.close()
    settings.reset()


def test_choices_are_set_shown_told_and_reset(notify: Notify) -> None:
    assert "nothing chosen: the types' defaults hold" in notify("show", "ann").out

    said = notify(
        "set", "ann", "--off", "orders:sms", "--off", "*:chat", "--on", "news", "--daily", "posts:email",
        "--quiet-hours", "22:00-07:00", "--days", "mon,tue", "--timezone", "Europe/Berlin",
    )  # fmt: skip
    assert said.status == 0, said.err
    for line in (
        "off    orders on sms",
        "on     news on every channel",
        "off    every category on chat",
        "daily  posts on email",
        "quiet hours 22:00 to 07:00 on mon, tue, Europe/Berlin",
    ):
        assert line in said.out

    shown = json.loads(notify("show", "ann", "--json").out)
    assert shown["version"] == 1
    assert shown["settings"]["categories"]["orders"] == {"sms": "off"}
    assert shown["changed_by"].startswith("cli:")

    away = notify("set", "ann", "--vacation", "2040-07-15T08:00+02:00", "--drop", "--quiet-hours", "none")
    assert "2040-07-15T06:00:00+00:00: what comes is dropped" in away.out
    assert "quiet hours" not in away.out

    ordered = notify("set", "ann", "--order", "sms,push", "--order", "orders:email,sms")
    assert "tries sms, then push\n" in ordered.out
    assert "tries email, then sms for orders\n" in ordered.out
    assert "for orders" not in notify("set", "ann", "--order", "orders:none").out

    assert notify("reset", "ann").status == 0
    told = [json.loads(line)["version"] for line in notify("history", "ann", "--json").out.splitlines()]
    assert told == [5, 4, 3, 2, 1]
    assert "nothing chosen" in notify("history", "ann").out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["set", "ann"], "nothing is to be changed"),
        (["set", "ann", "--days", "mon"], "Add --quiet-hours"),
        (["set", "ann", "--drop"], "Add --vacation"),
        (["set", "ann", "--off", "orders:fax"], "names a channel that does not exist"),
        (["set", "ann", "--order", "sms,fax"], "--order: it names a channel that does not exist"),
        (["set", "ann", "--quiet-hours", "22-7"], "--quiet-hours: it is no time of day"),
        (["set", "ann", "--vacation", "tomorrow"], "--vacation: it is no instant"),
        (["set", "ann", "--off", "orders", "--if-version", "7"], "--if-version: the stored version is 0"),
        (["set", "bob", "--off", "orders"], "ID: nobody has this id"),
        (["history", "ann", "--limit", "0"], "--limit: 0 is out of range"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(notify: Notify, words: list[str], said: str) -> None:
    found = notify(*words)
    assert found.status != 0
    assert said in found.err
    assert len(found.err.splitlines()) == 1


def test_an_unknown_person_is_told_from_one_who_chose_nothing(notify: Notify) -> None:
    assert (notify("show", "bob").status, notify("show", "ann").status) == (1, 0)

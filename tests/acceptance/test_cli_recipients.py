"""`notify recipients`: a person is added, shown, listed and erased at the command line."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from notify_tasks import settings
from notify_tasks.cli import main

ROOT = Path(__file__).parents[2]
SUBSCRIPTION = '{"endpoint": "https://push.example/canary", "keys": {"auth": "a", "p256dh": "p"}}'
PROGRAM = "import sys; from notify_tasks.cli import main; sys.exit(main())"


@dataclass(frozen=True, slots=True)
class Said:
    """What a command returned and wrote."""

    status: int
    out: str
    err: str


Notify = Callable[..., Said]


@pytest.fixture
def notify(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Notify]:
    """Type a command in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "110")

    def run(*words: str) -> Said:
        settings.reset()
        capsys.readouterr()
        status = main(["recipients", *words])
        written = capsys.readouterr()
        return Said(status, written.out, written.err)

    yield run
    settings.reset()


@pytest.fixture
def fleet(database: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("NOTIFY_DATABASE_URL", database)
    return database


def test_help_teaches_each_command_with_examples(notify: Notify) -> None:
    assert re.findall(r"^ {4}([a-z]+) {2,}\S", notify("--help").out, re.MULTILINE) == [
        "add", "show", "list", "verify", "erase",
    ]  # fmt: skip
    for command in ("add", "show", "list", "verify", "erase"):
        said = notify(command, "--help")
        assert said.status == 0
        assert f"notify recipients {command}" in said.out.partition("examples:")[2]
        assert max(len(line) for line in said.out.splitlines()) <= 120


@pytest.mark.usefixtures("fleet")
def test_a_person_is_added_changed_shown_listed_and_erased(notify: Notify) -> None:
    # Given a person who is stored,
    said = notify(
        "add", "ann", "--email", "canary@EXAMPLE.com", "--sms", "+49 151 12345678", "--locale", "de-at"
    )
    assert (said.status, said.out) == (0, "ann is stored, to be reached by email, sms\n")
    # and changed in part,
    assert notify("add", "ann", "--push", "phone-token-1", "--push", "tablet-token-2").status == 0
    assert notify("add", "ann", "--remove", "sms", "--timezone", "Europe/Vienna").out.endswith(
        "email, push\n"
    )

    # then they are shown, with addresses shortened,
    shown = notify("show", "ann")
    assert shown.status == 0
    assert re.search(r"^ann  changed ", shown.out)
    for line in (
        "locale    de-AT",
        "timezone  Europe/Vienna",
        "email     ca…@example.com",
        "push      pho…-1",
    ):
        assert line in shown.out
    assert "canary" not in shown.out
    # and in full for machines.
    told = json.loads(notify("show", "ann", "--json").out)
    assert told["addresses"] == {"email": ["canary@example.com"], "push": ["phone-token-1", "tablet-token-2"]}
    assert told["locale"] == "de-AT"
    assert "T" in told["created_at"]

    listed = notify("list")
    assert re.search(r"^id +locale +timezone +addresses$", listed.out, re.MULTILINE)
    assert re.search(
        r"^ann +de-AT +Europe/Vienna +email ca…@example\.com, push pho…-1 \+1$", listed.out, re.MULTILINE
    )

    erased = notify("erase", "ann", "--yes")
    assert erased.status == 0
    assert erased.out.startswith("ann is erased\n  3 contact points deleted\n")
    assert "suppressed addresses stay" in erased.out
    assert notify("list").out == "no recipients\n"
    gone = notify("show", "ann")
    assert (gone.status, gone.out) == (1, "")
    assert "no recipient has the id ann. Type `notify recipients list`" in gone.err
    assert notify("erase", "ann", "--yes").status == 1


@pytest.mark.usefixtures("fleet")
def test_lists_go_on_page_by_page_and_are_filtered(notify: Notify) -> None:
    for n in range(5):
        notify("add", f"user-{n}", "--push", f"token-number-{n}")
    notify("add", "shop", "--webhook", "https://shop.example/hooks/canary", "--webpush", SUBSCRIPTION)
    notify("add", "user-0", "--tenant", "other")

    first = notify("list", "--prefix", "user-", "--limit", "2")
    assert re.findall(r"^user-\d", first.out, re.MULTILINE) == ["user-0", "user-1"]
    assert first.err == "there are more: add --after user-1\n"
    last = notify("list", "--prefix", "user-", "--limit", "3", "--after", "user-1")
    assert re.findall(r"^user-\d", last.out, re.MULTILINE) == ["user-2", "user-3", "user-4"]
    assert last.err == ""

    hooks = notify("list", "--channel", "webhook").out
    assert "webhook shop.example/…, webpush push.example/…" in hooks
    assert "canary" not in hooks
    told = [json.loads(line) for line in notify("list", "--json").out.splitlines()]
    assert [person["id"] for person in told] == ["shop", "user-0", "user-1", "user-2", "user-3", "user-4"]
    assert notify("list", "--prefix", "x").out == "no recipients match\n"
    assert notify("list", "--tenant", "other").out.count("\n") == 2


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["add", "ann", "--email", "canary"], "--email: it is not an e-mail address. Write one address"),
        (
            ["add", "ann", "--push", "good", "--push", "can ary"],
            "--push (number 2): a device token has no spaces",
        ),
        (
            ["add", "ann", "--sms", "+493012345678"],
            "--sms: it is the number of a fixed line, which gets no SMS",
        ),
        (["add", "ann", "--locale", "xx"], "--locale: no such language is known. Write it as in de"),
        (
            ["add", "ann", "--timezone", "Berlin"],
            "--timezone: there is no such time zone. Write it as in Europe/B",
        ),
        (["add", "ann", "--remove", "mail"], "--remove: there is no such field. Did you mean email?"),
        (["add", "ann", "--sms", "+4915112345678", "--remove", "sms"], "--remove: --sms is given as well"),
        (["add", ""], "ID: 0 characters is out of range"),
        (["add", "ann", "--webpush", "{}"], "--webpush.keys: they are missing. Write the browser's"),
        (["list", "--channel", "emial"], "channel: no addresses are kept for it. Did you mean email?"),
        (["list", "--limit", "0"], "limit: 0 is out of range. Write 1 to 1000"),
        (["erase", "ann"], "--yes: erasing cannot be undone, and there is no terminal to ask. Add --yes"),
        (["earse", "ann"], "notify recipients --help"),
    ],
)
def test_a_mistake_is_one_line_that_says_what_to_write(
    notify: Notify, monkeypatch: pytest.MonkeyPatch, words: list[str], sentence: str
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    said = notify(*words)
    assert said.status == 2
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert sentence in said.err
    assert "canary" not in said.err
    assert "can ary" not in said.err


@pytest.mark.usefixtures("fleet")
@pytest.mark.parametrize(("typed", "status"), [("ann\n", 0), ("yes\n", 1), ("\n", 1)])
def test_on_a_terminal_it_asks_for_the_id_before_it_erases(notify: Notify, typed: str, status: int) -> None:
    notify("add", "ann", "--email", "canary@example.com")
    terminal, far = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "recipients", "erase", "ann"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=far,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(far)
    os.write(terminal, typed.encode())
    try:
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
        os.close(terminal)

    assert process.returncode == status
    assert "This erases ann and what was sent to them. It cannot be undone." in err
    assert "Type the id to go on: " in err
    assert ("ann is erased" in out) == (status == 0)
    assert ("nothing was erased" in err) == (status == 1)
    assert notify("show", "ann").status == (1 if status == 0 else 0)


def test_without_a_database_it_says_what_to_set(notify: Notify) -> None:
    for words in (["add", "ann"], ["show", "ann"], ["list"], ["erase", "ann", "--yes"]):
        said = notify(*words)
        assert said.status == 1
        assert "NOTIFY_DATABASE_URL" in said.err


def test_a_database_that_is_away_or_older_is_said_in_words(
    notify: Notify, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_DATABASE_URL", "postgresql://ana:canary@127.0.0.1:1/notify")
    said = notify("add", "ann", "--email", "canary@example.com")
    assert said.status == 1
    assert "PostgreSQL at 127.0.0.1:1 cannot be used: nobody listens there" in said.err
    assert "canary" not in said.err
    monkeypatch.setenv("NOTIFY_DATABASE_URL", postgres_url)
    assert notify("list").err == "notify: the database has no schema that fits: type `notify migrate`\n"

"""`notify devices`, `notify endpoints`, `notify recipients verify`: what an operator types, and reads."""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from notify_tasks import settings
from notify_tasks.cli import main

URL = "https://shop.example/hooks/canary"
SUBSCRIPTION = '{"endpoint": "https://push.example/canary", "keys": {"auth": "a", "p256dh": "p"}}'


def new_key() -> str:
    return base64.urlsafe_b64encode(os.urandom(32)).decode()


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
    monkeypatch.setenv("COLUMNS", "120")

    def run(*words: str) -> Said:
        settings.reset()
        capsys.readouterr()
        status = main(words)
        written = capsys.readouterr()
        return Said(status, written.out, written.err)

    yield run
    settings.reset()


@pytest.fixture
def fleet(database: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("NOTIFY_DATABASE_URL", database)
    monkeypatch.setenv("NOTIFY_SECRET_KEY", new_key())
    return database


@pytest.mark.parametrize(
    ("group", "commands"),
    [
        ("devices", ["list", "add", "remove", "prune"]),
        ("endpoints", ["list", "show", "register", "rotate", "disable", "enable", "reencrypt"]),
    ],
)
def test_help_teaches_each_command_with_examples(notify: Notify, group: str, commands: list[str]) -> None:
    assert re.findall(r"^ {4}([a-z]+) {2,}\S", notify(group, "--help").out, re.MULTILINE) == commands
    for command in commands:
        said = notify(group, command, "--help")
        assert said.status == 0
        assert f"notify {group} {command}" in said.out.partition("examples:")[2]
        assert max(len(line) for line in said.out.splitlines()) <= 120


@pytest.mark.usefixtures("fleet")
def test_devices_are_registered_looked_at_and_removed(notify: Notify) -> None:
    assert notify("devices", "list", "ann").out == "no devices\n"
    said = notify(
        "devices", "add", "ann", "phone-canary-token", "--platform", "android", "--label", "Ann's phone"
    )
    assert said.status == 0
    assert "is a device of ann: push goes there" in said.out
    assert "canary" not in said.out
    assert (
        notify("devices", "add", "ann", SUBSCRIPTION, "--channel", "webpush", "--platform", "web").status == 0
    )

    listed = notify("devices", "list", "ann").out
    assert re.search(r"^push +pho…en +android +Ann's phone +\d", listed, re.MULTILINE)
    assert re.search(r"^webpush +push\.example/… +web ", listed, re.MULTILINE)
    assert "canary" not in listed
    rows = [json.loads(line) for line in notify("devices", "list", "ann", "--json").out.splitlines()]
    assert [row["token"] for row in rows if row["channel"] == "push"] == ["phone-canary-token"]
    shown = notify("recipients", "show", "ann").out
    assert re.search(r"push +pho…en +verified, android, Ann's phone, seen \d", shown)

    assert notify("devices", "remove", "ann", "phone-canary-token").out == "ann has that device no more\n"
    again = notify("devices", "remove", "ann", "phone-canary-token")
    assert (again.status, again.out) == (1, "")
    assert "Type `notify devices list ann`" in again.err


@pytest.mark.usefixtures("fleet")
def test_silent_devices_are_pruned(notify: Notify) -> None:
    assert notify("devices", "prune").out == "0 devices removed\n"
    wrong = notify("devices", "prune", "--older-than", "10m")
    assert wrong.status == 2
    assert wrong.err.startswith("notify: --older-than: ")
    assert notify("devices", "prune", "--older-than", "long").status == 2


@pytest.mark.usefixtures("fleet")
def test_a_mistyped_device_names_what_was_typed(notify: Notify) -> None:
    assert "notify: TOKEN: " in notify("devices", "add", "ann", "two words").err
    assert (
        "notify: --channel: it has no devices" in notify("devices", "add", "ann", "t", "--channel", "sms").err
    )


@pytest.mark.usefixtures("fleet")
def test_an_address_is_verified_on_an_operators_word(notify: Notify) -> None:
    notify("recipients", "add", "ann", "--email", "ann@example.com", "--sms", "+4915112345678")
    said = notify("recipients", "verify", "ann", "email", "ann@EXAMPLE.com")
    assert said.status == 0
    assert said.out.startswith("that email address of ann is verified since ")

    shown = notify("recipients", "show", "ann").out
    assert re.search(r"email +an…@example\.com +verified$", shown, re.MULTILINE)
    assert re.search(r"sms +\+49…78 *$", shown, re.MULTILINE)
    points = json.loads(notify("recipients", "show", "ann", "--json").out)["points"]
    assert [(it["channel"], it["verified_at"] is not None) for it in points] == [
        ("email", True),
        ("sms", False),
    ]

    unknown = notify("recipients", "verify", "ann", "email", "bob@example.com")
    assert unknown.status == 2
    assert "notify: ADDRESS: it is not stored for this recipient" in unknown.err


@pytest.mark.usefixtures("fleet")
def test_an_endpoint_is_registered_rotated_disabled_and_enabled(notify: Notify) -> None:
    # Given an endpoint whose secret is printed once, alone on standard output,
    made = notify("endpoints", "register", URL)
    assert re.fullmatch(r"whsec_[A-Za-z0-9+/]{43}=\n", made.out)
    (id_,) = re.findall(r"endpoint ([0-9a-f]{12}) ", made.err)

    # it is listed and shown without the secret, and without its path;
    listed = notify("endpoints", "list").out
    assert re.search(rf"^{id_} +shop\.example/… +own secret +well", listed, re.MULTILINE)
    for words in (("list",), ("list", "--json"), ("show", URL), ("show", id_, "--json")):
        said = notify("endpoints", *words)
        assert said.status == 0
        assert "whsec" not in said.out
        assert ("canary" in said.out) == ("--json" in words)

    # rotated, both secrets sign for a while;
    rotated = notify("endpoints", "rotate", id_, "--keep", "2d")
    assert re.fullmatch(r"whsec_\S+\n", rotated.out)
    assert rotated.out != made.out
    assert "signs beside the old one until " in rotated.err
    assert "signs until " in notify("endpoints", "show", id_).out
    assert "signs alone" in notify("endpoints", "rotate", URL, "--keep", "0").err

    # disabled, it says so, and can be enabled again.
    assert notify("endpoints", "disable", URL, "--reason", "contract_ended").status == 0
    assert re.search(
        rf"^{id_} .* disabled since .*: contract_ended", notify("endpoints", "list").out, re.MULTILINE
    )
    assert id_ in notify("endpoints", "list", "--disabled").out
    assert "is sent to again" in notify("endpoints", "enable", id_).out
    assert notify("endpoints", "list", "--disabled").out == "no endpoints match\n"


def test_the_key_is_changed(notify: Notify, fleet: str, monkeypatch: pytest.MonkeyPatch) -> None:
    notify("endpoints", "register", URL)
    old, new = os.environ["NOTIFY_SECRET_KEY"], new_key()
    monkeypatch.setenv("NOTIFY_SECRET_KEY", new)
    wrong = notify("endpoints", "reencrypt")
    assert wrong.status == 1
    assert "Put that key behind the others" in wrong.err

    monkeypatch.setenv("NOTIFY_SECRET_KEY", f"{new} {old}")
    assert notify("endpoints", "reencrypt").out.startswith("1 endpoint: encrypted under the first key")
    monkeypatch.setenv("NOTIFY_SECRET_KEY", new)
    assert notify("endpoints", "reencrypt").status == 0


def test_what_cannot_be_done_says_what_to_type(
    notify: Notify, fleet: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    notify("endpoints", "register", URL)
    again = notify("endpoints", "register", URL)
    assert (again.status, again.out) == (2, "")
    assert "notify: URL: it is registered already. " in again.err
    assert "`notify endpoints rotate`" in again.err
    assert notify("endpoints", "show", "https://nobody.example/").status == 1
    assert "notify: URL: nothing is stored of it" in notify("endpoints", "enable", "0123456789ab").err

    monkeypatch.delenv("NOTIFY_SECRET_KEY")
    missing = notify("endpoints", "register", "https://other.example/")
    assert missing.status == 1
    assert "NOTIFY_SECRET_KEY: no key is set" in missing.err
    assert "openssl rand -base64 32" in missing.err
    monkeypatch.setenv("NOTIFY_SECRET_KEY", "canary-key")
    wrong = notify("endpoints", "register", "https://other.example/")
    assert wrong.status == 1
    assert "32 bytes in URL-safe base64" in wrong.err
    assert "canary" not in wrong.err


def test_no_command_shows_the_key(notify: Notify, fleet: str) -> None:
    key = os.environ["NOTIFY_SECRET_KEY"]
    shown = notify("config", "show")
    assert "NOTIFY_SECRET_KEY" in shown.out + shown.err or "secret_key" in shown.out
    assert key not in shown.out + shown.err

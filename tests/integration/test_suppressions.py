"""Suppressed addresses: listed, added and lifted by functions and at the command line, however they are spelled."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from channels.contract import AddressInvalid, OptedOut
from notify_tasks import api_connections, settings, suppressions
from notify_tasks.cli import main
from notify_tasks.errors import InvalidCall, NotConfigured
from notify_tasks.event_type import EventType
from notify_tasks.plans import Profile
from notify_tasks.store import suppressions as stored
from notify_tasks.store.database import DatabaseAway
from tests.integration.core_shop import Shop, shop
from tests.integration.core_world import PHONE, World, call, plain, together, until, waiting_for_locks, world

ROOT = Path(__file__).parents[2]
TYPED = "+49 (151) 123-45678"
LANDLINE = "+493012345678"
SUBSCRIPTION = {"endpoint": "https://push.example/canary", "keys": {"p256dh": "p", "auth": "a"}}


@pytest.fixture
def it(database: str) -> Iterator[World]:
    settings.configure(database_url=database)
    with world(database, connections=20) as opened:
        yield opened
    suppressions.close()
    settings.reset()


@pytest.fixture
def desk(it: World, tmp_path: Path) -> Iterator[Shop]:
    with shop(tmp_path, it.db) as opened:
        yield opened


def states(it: World) -> list[str]:
    return [row["state"] for row in it.rows("SELECT state FROM notify.delivery ORDER BY created_at")]


# --- what lifting means -------------------------------------------------------------------------------


@pytest.mark.parametrize("spelled", [PHONE, TYPED, "+4901511 2345678"])
def test_an_address_called_dead_gets_nothing_until_it_is_lifted(it: World, desk: Shop, spelled: str) -> None:
    # Given a number that a provider called dead once,
    desk.scripts["a"].will(AddressInvalid("550"))
    desk.send(call("m-1"))
    assert desk.take(call("m-2")).claimed is None
    (found,) = suppressions.find(channel="sms", address=spelled).suppressions
    assert (found.address, found.reason, found.source) == (PHONE, "address_invalid", "provider")

    # when it is lifted, however it is spelled,
    assert suppressions.lift("sms", spelled) == found

    # then the next one goes out, and what was suppressed stays so.
    desk.send(call("m-3"))
    assert states(it) == ["failed", "suppressed", "sent"]
    assert suppressions.find().suppressions == ()
    assert suppressions.lift("sms", spelled) is None


def test_an_opt_out_is_lifted_only_where_that_is_said(it: World, desk: Shop) -> None:
    desk.scripts["a"].will(OptedOut("21610"))
    desk.send(call("m-1"))

    with pytest.raises(InvalidCall) as refused:
        suppressions.lift("sms", PHONE)
    assert refused.value.field == "opted_out"
    assert "only they can take that back" in refused.value.problem
    assert "opted_out=True" in refused.value.remedy
    assert PHONE not in str(refused.value)
    assert desk.take(call("m-2")).claimed is None

    lifted = suppressions.lift("sms", PHONE, opted_out=True)
    assert lifted is not None
    assert lifted.reason == "opted_out"
    desk.send(call("m-3"))
    assert states(it)[-1] == "sent"


def test_an_opt_out_outlasts_every_other_reason(it: World) -> None:
    first = suppressions.suppress("sms", PHONE, reason="address_invalid")
    later = suppressions.suppress("sms", TYPED, reason="opted_out", source="shop")
    assert (later.id, later.reason, later.source) == (first.id, "opted_out", "shop")
    again = suppressions.suppress("sms", PHONE, reason="address_invalid")
    assert again == later, "a dead address may be tried again, and that person may not"
    with pytest.raises(InvalidCall):
        suppressions.lift("sms", PHONE)


def test_an_opt_out_that_comes_while_an_address_is_lifted_is_not_lost(it: World) -> None:
    suppressions.suppress("sms", PHONE, reason="address_invalid")
    with ThreadPoolExecutor(1) as other:
        # Given a person who says stop at this moment,
        with plain(it.url) as connection, connection.transaction():
            connection.execute("UPDATE notify.suppression SET reason = 'opted_out'")
            # when an operator lifts what they saw as a dead address,
            lift = other.submit(suppressions.lift, "sms", PHONE)
            until(waiting_for_locks(it.url, 1), "the lift waits")
        # then it is refused, and the opt-out stands.
        with pytest.raises(InvalidCall, match="opted_out"):
            lift.result(30)
    assert suppressions.find().suppressions[0].reason == "opted_out"


def test_of_many_who_lift_one_address_at_once_one_has_lifted_it(it: World) -> None:
    for _ in range(5):
        made = together(6, lambda _: suppressions.suppress("sms", PHONE))
        assert len({each.id for each in made}) == 1
        found = together(6, lambda _: suppressions.lift("sms", PHONE))
        assert sum(each is not None for each in found) == 1


# --- spellings, channels, tenants ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("channel", "stored_as", "typed"),
    [
        ("email", "ann@example.com", "ann@EXAMPLE.com"),
        ("sms", PHONE, TYPED),
        ("webpush", SUBSCRIPTION, json.dumps(SUBSCRIPTION, indent=1)),
        ("push", "token-1", "token-1"),
        ("webhook", "https://shop.example/hooks", "https://shop.example/hooks"),
        ("chat", "ops-room", "ops-room"),
        ("inapp", "user-42", "user-42"),
    ],
)
def test_every_channels_address_is_suppressed_and_lifted(
    it: World, channel: str, stored_as: Any, typed: str
) -> None:
    made = suppressions.suppress(channel, stored_as)
    assert (made.channel, made.reason, made.source, made.tenant) == (
        channel, "by_operator", "operator", "default",
    )  # fmt: skip
    assert made.created_at.utcoffset() == timedelta(0)
    assert suppressions.find(channel=channel, address=typed).suppressions == (made,)
    assert suppressions.lift(channel, typed) == made


def test_an_in_app_inbox_is_suppressed_and_lifted_by_its_recipients_id(it: World) -> None:
    bell = EventType(name="test.ping", version="v1", channels=("inapp",), on_doubt="resend")

    def accept() -> str:
        notification = call(to="ann", channels=["inapp"])
        return it.state(it.accept(notification, event_type=bell, profiles={"ann": Profile("ann")}))

    suppressions.suppress("inapp", "ann")
    assert accept() == "suppressed"
    suppressions.lift("inapp", "ann")
    assert accept() == "queued"


def test_another_channel_and_another_tenant_go_on(it: World, desk: Shop) -> None:
    suppressions.suppress("chat", "ops-room")
    suppressions.suppress("sms", PHONE, tenant="other")

    assert desk.take(call("m-1")).claimed is not None
    assert desk.take(call("m-2", tenant="other")).claimed is None
    assert suppressions.lift("sms", PHONE) is None, "it is another tenant's"
    assert suppressions.lift("push", "ops-room") is None
    assert [each.channel for each in suppressions.find().suppressions] == ["chat"]
    assert [each.channel for each in suppressions.find(tenant="other").suppressions] == ["sms"]
    assert suppressions.lift("sms", PHONE, tenant="other") is not None


def test_what_was_stored_under_older_checks_is_found_and_lifted_as_written(it: World) -> None:
    stored.suppress(it.db, "sms", LANDLINE, reason="address_invalid")
    (found,) = suppressions.find(channel="sms", address=LANDLINE).suppressions
    assert suppressions.lift("sms", LANDLINE) == found
    # Where there is none, the checks have the word.
    with pytest.raises(InvalidCall, match="a fixed line"):
        suppressions.lift("sms", LANDLINE)
    with pytest.raises(InvalidCall, match="a fixed line"):
        suppressions.suppress("sms", LANDLINE)


# --- lists --------------------------------------------------------------------------------------------


def test_lists_are_newest_first_and_what_is_stored_meanwhile_shifts_nothing(it: World) -> None:
    for n in range(7):
        suppressions.suppress("push", f"token-{n}")
    first = suppressions.find(limit=3)
    suppressions.suppress("push", "token-new")
    second = suppressions.find(limit=3, after=first.next)
    last = suppressions.find(limit=3, after=second.next)

    pages = [[each.address[-1] for each in page.suppressions] for page in (first, second, last)]
    assert pages == [["6", "5", "4"], ["3", "2", "1"], ["0"]]
    assert last.next is None
    exactly = suppressions.find(limit=4, after=first.next)
    assert (len(exactly.suppressions), exactly.next) == (4, None)


def test_a_page_is_read_by_its_index_and_an_address_by_its_key(it: World) -> None:
    it.rows(
        "INSERT INTO notify.suppression (tenant, channel, address, reason, source)"
        " SELECT 'default', 'push', 'token-' || n, 'x', 'y' FROM generate_series(1, 20000) n"
    )
    it.rows("ANALYZE notify.suppression")
    page = {"channel": None, "after": 15000, "limit": 5, "tenant": "default"}
    one = {"channel": "push", "address": "token-7", "tenant": "default"}
    with plain(it.url) as connection:
        assert "suppression_page" in str(connection.execute(f"EXPLAIN {stored._FIND}", page).fetchall())
        assert "suppression_pkey" in str(connection.execute(f"EXPLAIN {stored._AT}", one).fetchall())


# --- mistakes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("work", "field", "remedy"),
    [
        (lambda: suppressions.find(channel="mail"), "channel", "Did you mean email?"),
        (lambda: suppressions.find(address=PHONE), "address", "Name the channel"),
        (lambda: suppressions.find(limit=0), "limit", "1 to 1000"),
        (lambda: suppressions.find(after=-1), "after", "`next`"),
        (lambda: suppressions.lift("phone", PHONE), "channel", "Did you mean sms?"),
        (lambda: suppressions.lift("email", "canary"), "address", "ann@example.com"),
        (lambda: suppressions.lift("chat", "can\x00ary"), "address", ""),
        (lambda: suppressions.suppress("email", "canary"), "address", "ann@example.com"),
        (lambda: suppressions.suppress("chat", "room", reason="Because I say so"), "reason", "one word"),
        (lambda: suppressions.suppress("chat", "room", reason="optout"), "reason", "Write opted_out"),
        (lambda: suppressions.suppress("chat", "room", tenant=""), "tenant", "1 to 200"),
        (lambda: suppressions.suppress("inapp", "x" * 201), "address", "1 to 200"),
    ],
)
def test_a_mistake_names_the_argument_and_the_remedy(
    it: World, work: Callable[[], object], field: str, remedy: str
) -> None:
    with pytest.raises(InvalidCall) as refused:
        work()
    assert refused.value.field == field
    assert remedy in refused.value.remedy
    assert "canary" not in str(refused.value)
    assert it.rows("SELECT 1 FROM notify.suppression") == []


def test_no_address_is_in_a_repr(it: World) -> None:
    suppressions.suppress("email", "canary@example.com")
    assert "canary" not in repr(suppressions.find())


def test_without_a_database_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_connections, "WAIT_SECONDS", 0.2)
    settings.reset()
    with pytest.raises(NotConfigured, match="database_url"):
        suppressions.find()
    settings.configure(database_url="postgresql://nobody:canary@127.0.0.1:1/notify")
    with pytest.raises(DatabaseAway) as away:
        suppressions.lift("chat", "room")
    assert "canary" not in str(away.value)
    suppressions.close()
    settings.reset()


def test_without_its_libraries_it_says_what_to_install() -> None:
    program = "import sys; sys.modules['psycopg'] = None; from notify_tasks import suppressions"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert "psycopg, which is not installed here" in done.stderr
    assert "pip install 'notify-tasks[worker]'" in done.stderr


def test_it_is_loaded_when_it_is_first_used() -> None:
    program = (
        "import sys, notify_tasks as n; assert 'psycopg' not in sys.modules; "
        "from notify_tasks import suppressions; assert n.suppressions.find is suppressions.find"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", program], cwd=ROOT, check=True, timeout=60)


# --- at the command line ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Said:
    """What a command returned and wrote."""

    status: int
    out: str
    err: str


Notify = Callable[..., Said]


@pytest.fixture
def notify(
    it: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Notify:
    """Type a command in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "110")
    monkeypatch.setenv("NOTIFY_DATABASE_URL", it.url)

    def run(*words: str) -> Said:
        settings.reset()
        capsys.readouterr()
        status = main(["suppressions", *words])
        written = capsys.readouterr()
        return Said(status, written.out, written.err)

    return run


def test_help_teaches_each_command_with_examples(notify: Notify) -> None:
    commands = ["list", "add", "lift"]
    assert re.findall(r"^ {4}([a-z]+) {2,}\S", notify("--help").out, re.MULTILINE) == commands
    for command in commands:
        said = notify(command, "--help")
        assert said.status == 0
        assert f"notify suppressions {command}" in said.out.partition("examples:")[2]
        assert max(len(line) for line in said.out.splitlines()) <= 120


def test_an_operator_adds_lists_and_lifts(notify: Notify, it: World) -> None:
    stored.suppress(it.db, "chat", "room-of-canary-watchers", reason="address_invalid", source="provider")
    added = notify("add", "email", "canary@EXAMPLE.com", "--reason", "complaint")
    assert added.status == 0
    assert added.out.startswith("ca…@example.com gets no email any more: complaint, since ")

    listed = notify("list")
    assert re.search(r"^number +channel +address +reason +by +since$", listed.out, re.MULTILINE)
    assert re.search(r"^\d+ +email +ca…@example\.com +complaint +operator", listed.out, re.MULTILINE)
    assert re.search(r"^\d+ +chat +roo…rs +address_invalid +provider", listed.out, re.MULTILINE)
    assert "canary" not in listed.out + added.out
    (told,) = [json.loads(line) for line in notify("list", "--json", "--channel", "email").out.splitlines()]
    assert told["address"] == "canary@example.com"
    assert (told["channel"], told["reason"], told["source"]) == ("email", "complaint", "operator")
    assert "T" in told["created_at"]

    lifted = notify("lift", "chat", "room-of-canary-watchers")
    assert lifted.status == 0
    assert "roo…rs is lifted: the next chat notification to it goes out again\n" in lifted.out
    assert "`notify replay ID` sends it" in lifted.out
    assert "it was suppressed as address_invalid: if that is still so, it will be again" in lifted.out
    again = notify("lift", "chat", "room-of-canary-watchers")
    assert (again.status, again.out) == (1, "")
    assert (
        "that address is not suppressed on chat. Type `notify suppressions list --channel chat`" in again.err
    )
    assert "canary" not in again.err


def test_a_list_goes_on_page_by_page(notify: Notify) -> None:
    for n in range(3):
        notify("add", "push", f"token-number-{n}")
    first = notify("list", "--limit", "2")
    number = first.err.removeprefix("there are more: add --after ").strip()
    assert number.isdigit()
    rest = notify("list", "--limit", "2", "--after", number)
    assert re.findall(r"tok…-\d", first.out + rest.out) == ["tok…-2", "tok…-1", "tok…-0"]
    assert rest.err == ""
    assert notify("list", "--channel", "sms").out == "no suppressed addresses match\n"
    assert notify("list", "--tenant", "other").out == "no suppressed addresses\n"
    one = notify("list", "--channel", "push", "--address", "token-number-1").out
    assert re.findall(r"tok…-\d", one) == ["tok…-1"]


def test_a_persons_stop_takes_a_word_of_its_own(notify: Notify) -> None:
    notify("add", "sms", TYPED, "--reason", "opted_out")
    refused = notify("lift", "sms", PHONE)
    assert refused.status == 2
    assert refused.err == (
        "notify: --opted-out: the person said stop, and only they can take that back. "
        "Once they have asked for messages again, add --opted-out\n"
    )
    lifted = notify("lift", "sms", PHONE, "--opted-out")
    assert (lifted.status, "is lifted" in lifted.out) == (0, True)
    assert notify("list").out == "no suppressed addresses\n"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["lift", "email", "canary"], "address: it is not an e-mail address"),
        (["add", "emial", "canary"], "channel: there is no such channel. Did you mean email?"),
        (["list", "--address", "canary"], "address: its usual form depends on its channel. Name the"),
        (["lift", "chat"], "the following arguments are required: ADDRESS"),
    ],
)
def test_a_mistyped_command_is_one_line_that_says_what_to_write(
    notify: Notify, words: list[str], sentence: str
) -> None:
    said = notify(*words)
    assert said.status == 2
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert sentence in said.err
    assert "canary" not in said.err

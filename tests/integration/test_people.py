"""Recipients: stored, changed in part, listed page by page, and brought by the calls that name them."""

from __future__ import annotations

import logging
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from notify_tasks import people, settings
from notify_tasks.errors import InvalidCall, NotConfigured
from notify_tasks.notification import Notification
from notify_tasks.store import intakes, recipients, statuses
from notify_tasks.store.database import DatabaseAway
from notify_tasks.store.known import read_context
from notify_tasks.terminal.timeline import lines
from tests.integration.core_shop import Shop, one_row, shop
from tests.integration.core_world import PHONE, World, call, plain, together, world

ROOT = Path(__file__).parents[2]
INTAKE = "notify.intake"
LANDLINE = "+493012345678"


@pytest.fixture
def it(database: str) -> Iterator[World]:
    settings.configure(database_url=database)
    with world(database, connections=20) as opened:
        yield opened
    people.close()
    settings.reset()


@pytest.fixture
def desk(it: World, tmp_path: Path) -> Iterator[Shop]:
    with shop(tmp_path, it.db) as opened:
        yield opened


def stored(it: World, id_: str = "ann", tenant: str = "default") -> dict[str, tuple[str, ...]]:
    """Addresses as planning sees them, in alphabetical order."""
    profiles, _ = read_context(it.db, [call(to=id_, tenant=tenant)]).of(call(to=id_, tenant=tenant))
    return {channel: tuple(sorted(found)) for channel, found in profiles[id_].addresses.items()}


# --- one recipient ------------------------------------------------------------------------------------


def test_a_recipient_is_stored_as_checked_and_read_again(it: World) -> None:
    made = people.upsert(
        "ann", email="Ann@EXAMPLE.com", sms="+49 151 12345678", locale="de-at", timezone="Europe/Vienna"
    )

    assert made.addresses == {"email": ("Ann@example.com",), "sms": (PHONE,)}
    assert (made.locale, made.timezone, made.tenant) == ("de-AT", "Europe/Vienna", "default")
    assert people.get("ann") == made
    assert made.created_at.utcoffset() is not None
    assert people.get("bob") is None
    assert people.get("ann", tenant="other") is None


def test_what_is_not_named_stays_and_none_removes(it: World) -> None:
    people.upsert("ann", email="a@example.com", sms=PHONE, locale="de", timezone="Europe/Berlin")

    assert people.upsert("ann", timezone="Europe/Vienna").addresses == {
        "email": ("a@example.com",),
        "sms": (PHONE,),
    }
    changed = people.upsert("ann", sms=None, locale=None)
    assert changed.addresses == {"email": ("a@example.com",)}
    assert (changed.locale, changed.timezone) == (None, "Europe/Vienna")
    assert people.upsert("ann") == replace(changed, updated_at=people.get("ann").updated_at)  # type: ignore[union-attr]


def test_a_channel_has_the_addresses_that_are_given_for_it(it: World) -> None:
    people.upsert("ann", push=["phone", "tablet", "phone"], email="a@example.com")
    assert stored(it) == {"push": ("phone", "tablet"), "email": ("a@example.com",)}

    changed = people.upsert("ann", push=("tablet", "watch"))
    assert changed.addresses["push"] == ("tablet", "watch")
    assert people.upsert("ann", push=[]).addresses == {"email": ("a@example.com",)}


def test_a_browsers_subscription_is_taken_as_it_comes(it: World) -> None:
    subscription = {"endpoint": "https://push.example/1", "keys": {"auth": "a", "p256dh": "p"}}
    (only,) = people.upsert("ann", webpush=subscription).addresses["webpush"]  # type: ignore[typeddict-item]
    assert only == '{"endpoint":"https://push.example/1","keys":{"auth":"a","p256dh":"p"}}'


def test_an_address_as_long_as_may_be_is_kept_sent_to_and_suppressed(it: World) -> None:
    token = secrets.token_urlsafe(3072)  # 4,096 characters that do not compress
    people.upsert("ann", push=token)
    recipients.suppress(it.db, "push", token, reason="gone")
    recipients.suppress(it.db, "push", token, reason="gone")

    profiles, suppressed = read_context(it.db, [call(to="ann")]).of(call(to="ann"))
    assert profiles["ann"].addresses == {"push": (token,)}
    assert suppressed == {("push", token)}
    assert it.rows("SELECT count(*) AS n FROM notify.suppression") == [{"n": 1}]


@pytest.mark.parametrize(
    ("fields", "field", "remedy"),
    [
        ({"email": "canary"}, "email", "ann@example.com"),
        ({"email": ["a@example.com", "canary"]}, "email[1]", "ann@example.com"),
        ({"sms": LANDLINE}, "sms", "a mobile number"),
        ({"mail": "a@example.com"}, "mail", "Did you mean email?"),
        ({"canary@example.com": "a"}, "[key 2]", "There are email"),
        ({"phone": PHONE, "sms": PHONE}, "sms", "Keep one"),
        ({"push": [str(n) for n in range(21)]}, "push", "Keep 20"),
        ({"locale": "xx"}, "locale", "zh-Hans-CN"),
        ({"timezone": "Berlin"}, "timezone", "Europe/Berlin"),
    ],
)
def test_what_is_wrong_is_refused_at_once_and_nothing_is_stored(
    it: World, fields: dict[str, Any], field: str, remedy: str
) -> None:
    people.upsert("ann", email="a@example.com")
    with pytest.raises(InvalidCall) as refused:
        people.upsert("ann", **({"chat": "new"} | fields))

    assert refused.value.field == field
    assert remedy in refused.value.remedy
    assert "canary" not in str(refused.value)
    assert LANDLINE not in str(refused.value)
    assert stored(it) == {"email": ("a@example.com",)}


@pytest.mark.parametrize("id_", ["", "x" * 201, "a\x00", 7])
def test_an_id_that_cannot_be_is_refused(it: World, id_: Any) -> None:
    for work in (people.upsert, people.get, people.erase):
        with pytest.raises(InvalidCall, match="id"):
            work(id_)


def test_two_changes_at_once_leave_one_of_them_whole(it: World) -> None:
    for _ in range(10):
        together(4, lambda n: people.upsert("ann", email=f"a{n}@example.com", push=[f"p{n}", f"q{n}"]))
        found = stored(it)
        n = found["email"][0][1]
        assert found == {"email": (f"a{n}@example.com",), "push": (f"p{n}", f"q{n}")}


def test_without_a_database_it_says_what_to_set() -> None:
    settings.reset()
    with pytest.raises(NotConfigured, match="NOTIFY_DATABASE_URL"):
        people.get("ann")


def test_a_database_that_is_away_says_so_without_an_address(caplog: pytest.LogCaptureFixture) -> None:
    settings.configure(database_url="postgresql://u:p@127.0.0.1:9/none")
    try:
        with caplog.at_level(logging.DEBUG), pytest.raises(DatabaseAway) as away:
            people.upsert("ann", email="canary@example.com")
    finally:
        people.close()
        settings.reset()
    assert "canary" not in str(away.value) + repr(away.value) + caplog.text


def test_a_fork_opens_connections_of_its_own(it: World) -> None:
    code = (
        "import os\n"
        "from notify_tasks import api_connections, people\n"
        "people.upsert('ann', locale='de')\n"
        "def backend():\n"
        "    return api_connections.database().rows('SELECT pg_backend_pid() AS pid')[0]['pid']\n"
        "mine = backend()\n"
        "child = os.fork()\n"
        "if not child:\n"
        "    own = backend() != mine and people.get('ann').locale == 'de'\n"
        "    os._exit(0 if own else 1)\n"
        "code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])\n"
        "raise SystemExit(code or backend() != mine)\n"
    )
    environment = os.environ | {"NOTIFY_DATABASE_URL": it.url, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, timeout=60, check=False)
    assert done.returncode == 0


def test_where_the_libraries_are_not_installed_it_says_what_to_install() -> None:
    # A finder that hides a package stands for an environment without it; the packaging tests build real ones.
    for missing in ("psycopg", "email_validator", "phonenumbers"):
        code = (
            "import sys\n"
            f"sys.modules[{missing!r}] = None\n"
            "import notify_tasks\n"
            "from notify_tasks import send_notification\n"
            "try:\n"
            "    from notify_tasks import people\n"
            "except notify_tasks.NotHere as error:\n"
            "    print(error)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True
        )
        assert f"needs {missing}" in done.stdout
        assert "pip install 'notify-tasks[worker]'" in done.stdout


# --- lists --------------------------------------------------------------------------------------------


def test_lists_are_read_page_by_page_and_what_comes_meanwhile_shifts_nothing(it: World) -> None:
    ids = sorted(
        [f"user-{n}" for n in range(23)] + ["User-1", "zoé", "Äbc", "user", "user-2/x"], key=str.encode
    )
    for id_ in ids:
        people.upsert(id_, push=id_)
    people.upsert("user-0", tenant="other")

    seen: list[str] = []
    after = None
    while True:
        page = people.find(after=after, limit=5)
        assert len(page.people) <= 5
        seen += [person.id for person in page.people]
        people.upsert("aaa-first", locale="de")  # before the page: it was read
        after = page.next
        if after is None:
            break
    assert seen == ids


def test_lists_are_filtered_by_how_ids_begin_and_by_channel(it: World) -> None:
    people.upsert("user-1", email="a@example.com")
    people.upsert("user-2", sms=PHONE, email="b@example.com")
    people.upsert("user-10")
    people.upsert("shop_1", sms="+4915112345679")
    people.upsert("shop%1", sms="+4915112345679")

    def ids(**wanted: Any) -> list[str]:
        return [person.id for person in people.find(**wanted).people]

    assert ids(prefix="user-") == ["user-1", "user-10", "user-2"]
    assert ids(prefix="user-", after="user-1") == ["user-10", "user-2"]
    assert ids(channel="sms") == ["shop%1", "shop_1", "user-2"]
    assert ids(prefix="user-", channel="sms") == ["user-2"]
    assert ids(prefix="shop_") == ["shop_1"]
    assert ids(prefix="x") == []
    exactly = people.find(prefix="user-", limit=3)
    assert (len(exactly.people), exactly.next) == (3, None)


@pytest.mark.parametrize(
    ("wanted", "remedy"),
    [({"channel": "mail"}, "email"), ({"limit": 0}, "1 to 1000"), ({"limit": 1001}, "1000")],
)
def test_a_list_that_cannot_be_is_refused(it: World, wanted: dict[str, Any], remedy: str) -> None:
    with pytest.raises(InvalidCall, match=remedy):
        people.find(**wanted)


def test_a_page_is_read_by_its_index(it: World) -> None:
    it.rows(
        "INSERT INTO notify.recipient (tenant, id) SELECT 'default', 'u' || n FROM generate_series(1, 20000) n"
    )
    it.rows("ANALYZE notify.recipient")
    wanted = {"prefix": "u19", "channel": None, "after": "u191", "limit": 5, "tenant": "default"}
    with plain(it.url) as connection:
        explained = connection.execute(f"EXPLAIN {recipients._FIND}", wanted).fetchall()
    assert "recipient_page" in str(explained)
    assert "Seq Scan on recipient" not in str(explained)


# --- brought by calls ---------------------------------------------------------------------------------


def bringing(message_id: str, *to: Any, **options: Any) -> Notification:
    """A call as it comes over the wire from a caller that checks less than ours."""
    made = call(message_id, to=list(to), **options)
    return Notification.from_wire(made.to_wire())


def test_a_call_stores_whom_it_brings_and_a_later_one_needs_the_id_alone(it: World, desk: Shop) -> None:
    desk.take(
        call("m-1", to={"id": "ann", "sms": "+49015112345678", "email": "a@EXAMPLE.com", "locale": "DE"}),
        INTAKE,
    )

    assert stored(it) == {"sms": (PHONE,), "email": ("a@example.com",)}
    assert one_row(it)["address"] == PHONE
    taken = desk.take(call("m-2", to="ann"), "notify.sms")
    assert taken.claimed is not None
    assert (taken.claimed.address, taken.claimed.locale) == (PHONE, "de")


def test_two_calls_at_once_for_one_new_id_agree(it: World, desk: Shop) -> None:
    for round_ in range(15):
        id_ = f"new-{round_}"

        def take(n: int, id_: str = id_) -> str:
            to = {"id": id_, "email": f"e{n}@example.com", "push": f"device-{n}"}
            return desk.take(call(f"{id_}-{n}", to=to, channels=["push"]), INTAKE).kind

        assert together(2, take) == ["accepted", "accepted"]
        found = stored(it, id_)
        assert len(found["email"]) == 1, "an address replaces the one before"
        assert sorted(found["push"]) == ["device-0", "device-1"], "devices add up"


def test_a_bad_address_rejects_its_recipient_alone_with_the_reason(it: World, desk: Shop) -> None:
    taken = desk.take(
        bringing("m-1", {"sms": PHONE}, {"id": "eve", "sms": LANDLINE, "email": "eve@example.com"}), INTAKE
    )

    assert (taken.kind, taken.deliveries) == ("accepted", 1)
    (row,) = it.rows("SELECT plan FROM notify.notification")
    (refused,) = row["plan"]["rejected"]
    assert (refused["to"], refused["reason"]) == (1, "address_invalid")
    assert "to[1].sms" in refused["detail"]
    assert "a fixed line, which gets no SMS. Write a mobile number" in refused["detail"]
    assert LANDLINE not in str(row)
    assert it.rows("SELECT 1 FROM notify.recipient") == []
    # and `notify status` tells it.
    told = "\n".join(
        line if isinstance(line, str) else "".join(getattr(span, "text", span) for span in line)
        for line in lines(statuses.read(it.db, "m-1"), datetime.now(UTC))
    )
    assert "rejected" in told
    assert f"address_invalid: {refused['detail']}" in told


def test_a_call_with_nothing_but_a_bad_address_is_rejected_and_can_be_replayed(
    it: World, desk: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    notification = call("m-1", to={"sms": LANDLINE})
    taken = desk.take(notification, "notify.sms")

    assert (taken.kind, taken.claimed) == ("rejected", None)
    (row,) = it.rows("SELECT id, state, reason, detail, envelope FROM notify.notification")
    assert (row["state"], row["reason"]) == ("rejected", "address_invalid")
    assert LANDLINE not in row["detail"] + str(taken.detail)
    assert it.events(row["id"]) == ["rejected"]
    assert Notification.from_wire(row["envelope"]) == notification

    # When the rules know better, in a later version,
    from notify_tasks import contacts  # noqa: PLC0415 - only here
    from notify_tasks.store import replaying  # noqa: PLC0415 - only here

    monkeypatch.setattr(contacts, "_NO_SMS", {})
    assert replaying.replay(it.db, "m-1").calls == 1
    desk.intake.drain()
    assert one_row(it)["address"] == LANDLINE


def test_calls_from_the_table_are_judged_alike_and_their_neighbours_are_unharmed(
    it: World, desk: Shop
) -> None:
    calls = [
        call("good"),
        bringing("bad", {"sms": LANDLINE}),
        bringing("odd", {"email": "x@y.local"}, channels=["sms"]),
    ]
    intakes.keep(it.db, [each.to_wire() for each in calls], origin="producer")

    desk.intake.drain()

    found = it.rows("SELECT message_id, state, reason FROM notify.notification ORDER BY 1")
    assert [tuple(row.values()) for row in found] == [
        ("bad", "rejected", "address_invalid"),
        ("good", "accepted", None),
        ("odd", "rejected", "address_invalid"),
    ]
    assert intakes.waiting(it.db) == 0


def test_an_unknown_locale_of_a_call_stops_nobody_and_is_not_stored(it: World, desk: Shop) -> None:
    people.upsert("ann", locale="de")
    taken = desk.take(bringing("m-1", {"id": "ann", "sms": PHONE, "locale": "tlh"}), INTAKE)

    assert taken.kind == "accepted"
    (row,) = it.rows("SELECT plan FROM notify.notification")
    assert row["plan"]["ignored"] == [{"to": 0, "field": "locale"}]
    person = people.get("ann")
    assert person is not None
    assert (person.locale, one_row(it)["locale"]) == ("de", "de")


def test_a_suppressed_address_is_known_in_any_spelling(it: World, desk: Shop) -> None:
    recipients.suppress(it.db, "sms", PHONE, reason="opted_out")
    taken = desk.take(bringing("m-1", {"sms": "+49015112345678"}), "notify.sms")
    assert taken.claimed is None
    assert one_row(it)["state"] == "suppressed"


def test_a_refused_call_changes_no_recipient(it: World, desk: Shop) -> None:
    desk.take(call("m-1", to={"id": "ann", "sms": PHONE}), INTAKE)
    evil = {"id": "ann", "sms": "+4915112345679"}
    assert desk.take(call("m-1", to=evil), INTAKE).kind == "conflict"
    assert desk.take(call("m-2", to=evil, payload={}), INTAKE).kind == "rejected"
    assert stored(it) == {"sms": (PHONE,)}


def test_no_address_reaches_a_log_or_an_error(
    it: World, desk: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    said: list[str] = []
    bad = [
        {"email": "canary@@example.com"},
        {"email": "canary@example.invalid", "id": "canary-is-no-id"},
        {"sms": LANDLINE},
        {"push": "can ary"},
        {"webhook": "ftp://canary.example/hook"},
        {"webpush": '{"endpoint": "http://canary.example"}'},
        {"chat": "can\x07ary"},
        {"canary@example.com": "x"},
    ]
    with caplog.at_level(logging.DEBUG):
        for n, addresses in enumerate(bad):
            wire = call(f"m-{n}", to="ann").to_wire() | {"to": [addresses]}
            said.append(str(desk.take(Notification.from_wire(wire), INTAKE)))
            for channel, value in addresses.items():
                if channel == "id":
                    continue
                try:
                    people.upsert("ann", **{channel: value})  # type: ignore[misc]
                except InvalidCall as error:
                    said.append(repr(error))
        said.append(repr(people.upsert("ann", email="canary@example.com", push="canary")))
        said.append(repr(people.find()))
    rows = it.rows("SELECT reason, detail, plan FROM notify.notification")
    assert len(rows) == len(bad)
    shown = caplog.text + "".join(said) + str(rows)
    assert "canary" not in shown.replace("canary-is-no-id", "")
    assert "can ary" not in shown
    assert LANDLINE not in shown

"""Devices: registered by their apps, one beside the other, handed on, forgotten, and dead when a provider says so."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from channels.contract import AddressInvalid, Refused
from notify_tasks import devices, people, settings, suppressions
from notify_tasks.devices import Device
from notify_tasks.errors import InvalidCall
from notify_tasks.states import State
from tests.integration.core_shop import Shop, shop
from tests.integration.core_world import World, call, plain, until, waiting_for_locks, world

ROOT = Path(__file__).parents[2]
BROWSER = {"endpoint": "https://push.example/canary", "keys": {"auth": "a", "p256dh": "p"}}


@pytest.fixture
def it(database: str) -> Iterator[World]:
    settings.configure(database_url=database)
    with world(database, connections=20) as opened:
        yield opened
    devices.close()
    settings.reset()


@pytest.fixture
def desk(it: World, tmp_path: Path) -> Iterator[Shop]:
    with shop(tmp_path, it.db, channel="push") as opened:
        yield opened


def tokens(who: str = "ann", tenant: str = "default") -> list[str]:
    return [device.address for device in devices.find(who, tenant=tenant)]


def aged(it: World, token: str, days: float) -> None:
    """As if the device had been seen so long ago."""
    it.rows(
        "UPDATE notify.contact_point SET last_seen_at = now() - make_interval(days => %s) WHERE address = %s",
        days,
        token,
    )


# --- registering --------------------------------------------------------------------------------------


def test_an_app_registers_and_the_others_stay(it: World) -> None:
    people.upsert("ann", push="tablet", email="a@example.com")

    made = devices.register("ann", "phone", platform="android", label="Ann's phone")

    assert (made.channel, made.address, made.platform, made.label) == (
        "push", "phone", "android", "Ann's phone",
    )  # fmt: skip
    assert made.last_seen_at is not None
    assert abs(datetime.now(UTC) - made.last_seen_at) < timedelta(minutes=1)
    assert devices.find("ann")[0] == made
    person = people.get("ann")
    assert person is not None
    assert set(person.addresses["push"]) == {"phone", "tablet"}
    assert person.addresses["email"] == ("a@example.com",)
    phone = next(point for point in person.points if point.address == "phone")
    assert (phone.platform, phone.label, phone.last_seen_at) == ("android", "Ann's phone", made.last_seen_at)
    assert phone.verified_at is not None  # its own app told it
    assert people.find(channel="push").people == (person,)


def test_registering_again_is_being_seen(it: World) -> None:
    first = devices.register("ann", "phone", platform="android", label="Ann's phone")
    aged(it, "phone", 100)

    again = devices.register("ann", "phone")

    assert (again.platform, again.label, again.created_at) == ("android", "Ann's phone", first.created_at)
    assert again.last_seen_at is not None
    assert again.last_seen_at > datetime.now(UTC) - timedelta(minutes=1)
    assert tokens() == ["phone"]


def test_seen_tells_whether_the_device_is_this_persons(it: World) -> None:
    devices.register("ann", "phone")
    aged(it, "phone", 100)

    assert devices.seen("ann", "phone")
    assert not devices.seen("bob", "phone")
    assert not devices.seen("ann", "phone", tenant="other")
    (phone,) = devices.find("ann")
    assert phone.last_seen_at is not None
    assert phone.last_seen_at > datetime.now(UTC) - timedelta(minutes=1)


def test_a_browser_is_a_device_too(it: World) -> None:
    devices.register("ann", BROWSER, channel="webpush", platform="web")  # type: ignore[arg-type]
    devices.register("ann", "phone")

    assert [device.channel for device in devices.find("ann")] == ["push", "webpush"]
    assert devices.remove("ann", BROWSER, channel="webpush")  # type: ignore[arg-type]
    assert not devices.remove("ann", BROWSER, channel="webpush")  # type: ignore[arg-type]
    assert tokens() == ["phone"]


def test_of_twenty_one_the_one_seen_longest_ago_gives_way(it: World) -> None:
    for n in range(20):
        devices.register("ann", f"phone-{n}")
        aged(it, f"phone-{n}", 1 + n % 7 + n)
    people.upsert("bob", push="another")

    devices.register("ann", "phone-new")

    assert len(tokens()) == 20
    assert tokens()[0] == "phone-new"
    assert "phone-19" not in tokens()
    assert tokens("bob") == ["another"]


def test_devices_that_come_at_once_are_counted_one_after_the_other(it: World) -> None:
    people.upsert("ann", push=[f"old-{n}" for n in range(19)])
    with plain(it.url) as connection, ThreadPoolExecutor(4) as pool:
        with connection.transaction():  # so that all have begun when the first one ends
            connection.execute("LOCK TABLE notify.suppression IN SHARE MODE")
            asked = [pool.submit(devices.register, "ann", f"new-{n}") for n in range(4)]
            until(waiting_for_locks(it.url, 4), "all of them wait")
        made = [each.result().address for each in asked]

    assert len(tokens()) == 20
    assert set(made) <= set(tokens())


def test_a_device_that_moves_to_another_person_leaves_the_first(it: World) -> None:
    devices.register("ann", "phone", label="Ann's phone")
    devices.register("ann", "tablet")
    devices.register("eve", "phone", tenant="other")

    moved = devices.register("bob", "phone")

    assert tokens() == ["tablet"]
    assert moved.label is None
    assert tokens("bob") == ["phone"]
    assert tokens("eve", "other") == ["phone"]


def test_registering_revives_a_dead_token_and_no_opt_out(it: World) -> None:
    for token, reason in (("phone", "address_invalid"), ("tablet", "opted_out"), ("watch", "by_operator")):
        suppressions.suppress("push", token, reason=reason)
        devices.register("ann", token)
    suppressions.suppress("push", "another", reason="address_invalid")

    left = {each.address: each.reason for each in suppressions.find().suppressions}
    assert left == {"tablet": "opted_out", "watch": "by_operator", "another": "address_invalid"}


@pytest.mark.parametrize(
    ("given", "field", "remedy"),
    [
        ({"token": "two words"}, "token", "as the device gave it"),
        ({"token": {"endpoint": "x"}, "channel": "webpush"}, "token.keys", "PushSubscription.toJSON()"),
        ({"channel": "sms"}, "channel", "push, webpush"),
        ({"channel": "web"}, "channel", "Did you mean webpush?"),
        ({"platform": "Android 14"}, "platform", "android, ios or web"),
        ({"label": "x" * 101}, "label", "1 to 100"),
        ({"recipient_id": ""}, "recipient_id", "1 to 200"),
    ],
)
def test_a_wrong_argument_is_named_with_its_remedy(
    it: World, given: dict[str, Any], field: str, remedy: str
) -> None:
    with pytest.raises(InvalidCall, match=f"^{field}: ") as refused:
        devices.register(**({"recipient_id": "ann", "token": "canary"} | given))
    assert remedy in refused.value.remedy
    assert it.rows("SELECT 1 AS one FROM notify.recipient") == []


def test_no_repr_shows_a_token(it: World) -> None:
    made = devices.register("ann", "canary-token", label="canary-label")
    assert "canary" not in repr(made)
    assert "canary" not in repr(people.get("ann"))
    assert isinstance(made, Device)


def test_where_the_libraries_are_not_installed_each_says_what_to_install() -> None:
    # A finder that hides a package stands for an environment without it; the packaging tests build real ones.
    code = (
        "import importlib, sys\n"
        "import notify_tasks\n"
        "needed = {'verification': 'phonenumbers', 'devices': 'psycopg', 'endpoints': 'cryptography'}\n"
        "for name, missing in needed.items():\n"
        "    sys.modules[missing] = None\n"
        "    try:\n"
        "        importlib.import_module(f'notify_tasks.{name}')\n"
        "    except notify_tasks.NotHere as error:\n"
        "        print(error)\n"
        "    del sys.modules[missing]\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    for line, missing in zip(
        done.stdout.splitlines(), ("phonenumbers", "psycopg", "cryptography"), strict=True
    ):
        assert f"need {missing}" in line or f"needs {missing}" in line
        assert "pip install 'notify-tasks[worker]'" in line


# --- pruning ------------------------------------------------------------------------------------------


def test_what_was_silent_for_long_is_pruned(it: World) -> None:
    for n, days in enumerate((10, 269, 271, 400)):
        devices.register(f"user-{n}", f"phone-{n}")
        aged(it, f"phone-{n}", days)
    people.upsert("old", push="never-registered", sms="+4915112345678")
    devices.register("eve", "elsewhere", tenant="other")
    aged(it, "elsewhere", 400)

    assert devices.prune() == 2
    assert devices.prune() == 0
    assert [tokens(f"user-{n}") for n in range(4)] == [["phone-0"], ["phone-1"], [], []]
    assert tokens("old") == ["never-registered"]
    assert devices.prune(5 * 86400) == 2
    assert tokens("eve", "other") == ["elsewhere"]
    with pytest.raises(InvalidCall, match=r"^older_than: "):
        devices.prune(60)


def test_many_are_pruned_page_by_page(it: World) -> None:
    people.upsert("ann")
    it.rows(
        "INSERT INTO notify.contact_point (tenant, recipient_id, channel, address, last_seen_at)"
        " SELECT 'default', 'ann', 'push', 't-' || n, now() - make_interval(days => 300)"
        " FROM generate_series(1, 2500) n"
    )
    devices.register("zoe", "phone")

    assert devices.prune() == 2500
    assert tokens("zoe") == ["phone"]


# --- dead tokens --------------------------------------------------------------------------------------


def test_a_dead_token_removes_the_device_with_the_result(it: World, desk: Shop) -> None:
    devices.register("ann", "phone")
    devices.register("ann", "tablet")
    people.upsert("eve", tenant="other", push="phone")
    people.upsert("bob", chat="phone")
    desk.scripts["a"].will(AddressInvalid("UNREGISTERED", "the app was removed"))

    outcome = desk.send(call(to={"push": "phone"}, channels=["push"]))

    assert (outcome.state, outcome.code) == (State.FAILED, "UNREGISTERED")
    assert tokens() == ["tablet"]
    assert tokens("eve", "other") == ["phone"]
    assert people.get("bob").addresses == {"chat": ("phone",)}  # type: ignore[union-attr]
    # A call that brings the token with it does not go there either.
    (left,) = suppressions.find().suppressions
    assert (left.channel, left.address, left.reason) == ("push", "phone", "address_invalid")


def test_a_refused_message_removes_no_device(it: World, desk: Shop) -> None:
    devices.register("ann", "phone")
    desk.scripts["a"].will(Refused("400", "the message is wrong"))

    assert desk.send(call(to={"push": "phone"}, channels=["push"])).state is State.FAILED
    assert tokens() == ["phone"]


def test_a_dead_number_stays_the_persons(it: World, tmp_path: Path) -> None:
    people.upsert("ann", sms="+4915112345678")
    with shop(tmp_path, it.db) as sms:
        sms.scripts["a"].will(AddressInvalid("30005", "unknown number"))
        sms.send(call(to={"sms": "+4915112345678"}, channels=["sms"]))

    person = people.get("ann")
    assert person is not None
    assert person.addresses == {"sms": ("+4915112345678",)}
    assert [each.channel for each in suppressions.find().suppressions] == ["sms"]


def test_nothing_of_a_device_is_logged(it: World, desk: Shop, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    devices.register("ann", "canary")
    desk.scripts["a"].will(AddressInvalid("UNREGISTERED"))
    desk.send(call(to={"push": "canary"}, channels=["push"]))
    assert "canary" not in caplog.text

"""Verification: a code proves an address, a few tries long, and types may insist on proof."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from notify_tasks import people, settings, verification
from notify_tasks.errors import InvalidCall
from notify_tasks.store import statuses
from notify_tasks.terminal.timeline import lines
from tests.integration.core_shop import Shop, one_row, shop
from tests.integration.core_world import PHONE, World, call, plain, together, until, waiting_for_locks, world

ANN = ("ann", "sms", PHONE)


@pytest.fixture
def it(database: str) -> Iterator[World]:
    settings.configure(database_url=database)
    with world(database, connections=20) as opened:
        people.upsert("ann", sms=PHONE, email="ann@example.com")
        yield opened
    verification.close()
    settings.reset()


def verified(who: str = "ann", channel: str = "sms") -> bool:
    person = people.get(who)
    assert person is not None
    return all(point.verified_at is not None for point in person.points if point.channel == channel)


def wrong(code: str) -> str:
    return f"{(int(code) + 1) % 10**6:06}"


# --- codes --------------------------------------------------------------------------------------------


def test_the_code_that_was_sent_proves_the_address(it: World) -> None:
    code = verification.begin("ann", "sms", "+49 151 12345678")
    assert re.fullmatch("[0-9]{6}", code)
    assert not verified()

    assert not verification.confirm(*ANN, wrong(code))
    assert not verified()
    assert verification.confirm(*ANN, f" {code[:3]}-{code[3:]} ")
    assert verified()
    assert not verified(channel="email")
    assert not verification.confirm(*ANN, code)  # it is used up
    assert verified()


def test_a_code_is_for_one_row_alone(it: World) -> None:
    people.upsert("bob", sms=PHONE)
    people.upsert("ann", sms=PHONE, tenant="other")
    code = verification.begin(*ANN)

    assert not verification.confirm("bob", "sms", PHONE, code)
    assert not verification.confirm(*ANN, code, tenant="other")
    assert not verification.confirm("ann", "email", "ann@example.com", code)
    # Copied to another row, the hash fits no code of it.
    it.rows(
        "INSERT INTO notify.verification SELECT tenant, 'bob', channel, digest, code_hash, tries_left, expires_at"
        " FROM notify.verification"
    )
    assert not verification.confirm("bob", "sms", PHONE, code)
    assert verification.confirm(*ANN, code)


def test_no_code_is_stored(it: World) -> None:
    code = verification.begin(*ANN)
    (row,) = it.rows("SELECT * FROM notify.verification")
    assert code not in str(row["code_hash"])
    assert PHONE not in str(row)


def test_five_tries_spend_a_code(it: World) -> None:
    code = verification.begin(*ANN)

    assert not any(verification.confirm(*ANN, wrong(code)) for _ in range(4))
    assert not verification.confirm(*ANN, "what?")  # which spends none
    assert not verification.confirm(*ANN, wrong(code))
    assert not verification.confirm(*ANN, code)
    assert not verified()


def test_many_guesses_at_once_have_no_more_tries(it: World) -> None:
    code = verification.begin(*ANN)
    guesses = [wrong(code)] * 6 + [code]

    found = together(12, lambda n: verification.confirm(*ANN, guesses[0] if n < 11 else wrong(code)))

    assert not any(found)
    assert not verification.confirm(*ANN, code)
    assert it.rows("SELECT tries_left FROM notify.verification") == [{"tries_left": 0}]


def test_a_code_is_good_for_ten_minutes(it: World) -> None:
    code = verification.begin(*ANN)
    ((seconds,),) = [
        row.values()
        for row in it.rows(
            "SELECT extract(epoch FROM expires_at - now())::int AS left FROM notify.verification"
        )
    ]
    assert 590 <= seconds <= 600

    it.rows("UPDATE notify.verification SET expires_at = now()")
    assert not verification.confirm(*ANN, code)
    assert not verified()


def test_a_new_code_takes_the_place_of_the_old(it: World) -> None:
    old, new = verification.begin(*ANN), verification.begin(*ANN)
    if old != new:  # one time in a million
        assert not verification.confirm(*ANN, old)
    assert verification.confirm(*ANN, new)


def test_the_fourth_code_within_ten_minutes_is_refused_whoever_asks(it: World) -> None:
    people.upsert("bob", sms=PHONE)
    verification.begin(*ANN)
    people.upsert("ann", sms=None)
    people.upsert("ann", sms=PHONE)  # to take it out and in again does not help
    verification.begin(*ANN)
    verification.begin("bob", "sms", PHONE)

    for who in ("ann", "bob"):
        with pytest.raises(InvalidCall, match=r"^address: 3 codes .* within 10 minutes") as refused:
            verification.begin(who, "sms", PHONE)
        assert "Wait" in refused.value.remedy
        assert PHONE not in str(refused.value)
    verification.begin("ann", "email", "ann@example.com")

    it.rows("UPDATE notify.verification_begun SET at = now() - interval '601 seconds'")
    verification.begin(*ANN)
    assert it.rows("SELECT count(*) AS n FROM notify.verification_begun") == [{"n": 1}]


def test_codes_that_are_asked_for_at_once_are_three_at_most(it: World) -> None:
    for n in range(4):
        people.upsert(f"user-{n}", sms=PHONE)

    def ask(n: int) -> bool:
        try:
            verification.begin(f"user-{n}", "sms", PHONE)
        except InvalidCall:
            return False
        return True

    with plain(it.url) as connection, ThreadPoolExecutor(4) as pool:
        with connection.transaction():  # so that all have begun when the first one counts
            connection.execute("LOCK TABLE notify.verification_begun IN SHARE ROW EXCLUSIVE MODE")
            asked = [pool.submit(ask, n) for n in range(4)]
            until(waiting_for_locks(it.url, 4), "all of them wait")
        assert sum(each.result() for each in asked) == 3


@pytest.mark.parametrize(
    ("who", "channel", "address", "field", "remedy"),
    [
        ("ann", "sms", "+4915112345679", "address", "people.upsert"),
        ("nobody", "sms", PHONE, "address", "people.upsert"),
        ("ann", "inapp", "ann", "channel", "email"),
        ("ann", "sms", "canary", "address", "country code"),
    ],
)
def test_only_a_stored_address_can_be_proved(
    it: World, who: str, channel: str, address: str, field: str, remedy: str
) -> None:
    for act in (verification.begin, verification.mark):
        with pytest.raises(InvalidCall, match=f"^{field}: ") as refused:
            act(who, channel, address)
        assert remedy in refused.value.remedy
        assert "canary" not in str(refused.value)


def test_a_service_may_vouch_by_itself(it: World) -> None:
    since = verification.mark(*ANN)
    person = people.get("ann")
    assert person is not None
    assert [point.verified_at for point in person.points if point.channel == "sms"] == [since]


def test_what_stays_stays_verified_and_what_comes_anew_does_not(it: World, tmp_path: Path) -> None:
    verification.mark(*ANN)
    people.upsert("ann", sms=[PHONE, "+4915112345679"], email=None)
    person = people.get("ann")
    assert person is not None
    assert [point.verified_at is not None for point in person.points] == [True, False]

    with shop(tmp_path, it.db) as desk:  # and so does a call that brings the address with the id
        desk.take(call(to={"id": "ann", "sms": PHONE}))
    assert verified()
    people.upsert("ann", sms=None)
    people.upsert("ann", sms=PHONE)
    assert not verified()


def test_erasing_leaves_no_trace_of_a_code(it: World) -> None:
    verification.begin(*ANN)
    people.erase("ann")
    assert it.rows("SELECT 1 AS one FROM notify.verification") == []
    assert it.rows("SELECT 1 AS one FROM notify.verification_begun") == []


# --- types that insist on it --------------------------------------------------------------------------


@pytest.fixture
def desk(it: World, tmp_path: Path) -> Iterator[Shop]:
    with shop(tmp_path, it.db) as opened:
        policy = opened.types / "test.ping" / "notification.toml"
        policy.write_text(f"verified_only = true\n{policy.read_text()}")
        yield opened


def told(it: World, message_id: str) -> str:
    found = statuses.read(it.db, message_id)
    return "\n".join(
        "".join(part if isinstance(part, str) else part.text for part in line)
        for line in lines(found, found.notifications[0].accepted_at)
    )


def send(desk: Shop, **options: Any) -> Any:
    return desk.take(call("m-1", **{"to": "ann", "channels": None} | options), "notify.intake")


def test_a_type_for_verified_addresses_leaves_out_the_others_and_says_so(it: World, desk: Shop) -> None:
    people.upsert("ann", sms=[PHONE, "+4915112345679"], push="phone")
    verification.mark(*ANN)

    assert send(desk).kind == "accepted"

    assert one_row(it)["address"] == PHONE
    assert re.search(r"dropped +sms, not_verified", told(it, "m-1"))
    assert re.search(r"dropped +push, not_verified", told(it, "m-1"))


def test_where_nothing_is_verified_the_call_is_rejected_with_the_remedy(it: World, desk: Shop) -> None:
    assert send(desk).kind == "rejected"

    assert "not_verified: the recipient's address for sms is not verified" in told(it, "m-1")
    assert "verify it" in told(it, "m-1")


def test_an_address_in_the_call_is_the_producers_word(it: World, desk: Shop) -> None:
    assert send(desk, to={"id": "ann", "sms": PHONE}).kind == "accepted"
    assert one_row(it)["address"] == PHONE

"""Accepting a call: one commit, however often and from however many threads it comes."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from notify_tasks.notification import Notification, RecipientRef
from notify_tasks.states import State
from notify_tasks.store import cancelling, recipients
from notify_tasks.store.accepting import NewNotification, accept
from notify_tasks.store.database import BadRow, DatabaseAway
from notify_tasks.store.known import read_context
from tests.integration.core_world import (
    PHONE,
    World,
    call,
    one_claim,
    plain,
    planned,
    proxied,
    together,
    until,
    waiting_for_locks,
    world,
)


@pytest.fixture
def it(database: str) -> Iterator[World]:
    with world(database, connections=20) as opened:
        yield opened


def counts(it: World) -> dict[str, int]:
    tables = ("message_key", "notification", "delivery", "attempt", "status_event")
    return {name: it.rows(f"SELECT count(*) AS n FROM notify.{name}")[0]["n"] for name in tables}


# --- once ---------------------------------------------------------------------------------------------


def test_a_hundred_threads_with_one_message_id_make_one_notification(it: World) -> None:
    notification = call("m-1")
    items = [planned(notification) for _ in range(100)]

    stored = together(100, lambda n: accept(it.db, [items[n]]))

    (winner,) = [n for n, one in enumerate(stored) if one.new]
    for n, one in enumerate(stored):
        if n != winner:  # every other one is told what is there
            found = one.existing[items[n].id]
            assert (found.notification_id, found.hash) == (items[winner].id, notification.hash)
    assert counts(it) | {"status_event": 0} == {
        "message_key": 1,
        "notification": 1,
        "delivery": 1,
        "attempt": 0,
        "status_event": 0,
    }


def test_a_batch_that_repeats_itself_stores_each_id_once(it: World) -> None:
    first, again, other = planned(call("m-1")), planned(call("m-1")), planned(call("m-2"))

    stored = accept(it.db, [first, again, other])

    assert len(stored.new) == 2
    (left,) = {first.id, again.id} - stored.new
    assert stored.existing[left].notification_id in stored.new
    assert counts(it)["delivery"] == 2


def test_one_message_id_in_two_tenants_is_two_notifications(it: World) -> None:
    stored = accept(it.db, [planned(call("m-1", tenant="a")), planned(call("m-1", tenant="b"))])
    assert len(stored.new) == 2


def test_another_body_under_a_known_id_is_told_whose_it_is(it: World) -> None:
    first, other = call("m-1", payload={"n": 1}), call("m-1", payload={"n": 2})
    item = planned(first)
    accept(it.db, [item])

    second = planned(other)
    found = accept(it.db, [second]).existing[second.id]

    assert (found.hash, found.notification_id) == (first.hash, item.id)
    assert found.hash != other.hash


def test_a_refused_conflict_is_stored_once_however_often_it_comes(it: World) -> None:
    accept(it.db, [planned(call("m-1"))])
    conflict = NewNotification(
        id=uuid.uuid5(uuid.NAMESPACE_OID, "m-1"),
        notification=call("m-1", payload={"n": 2}),
        plan={},
        state="rejected",
        reason="conflict",
        detail="with another body",
        keyed=False,
    )

    together(8, lambda _: accept(it.db, [conflict]))
    accept(it.db, [conflict])

    stored = it.rows("SELECT state, reason, envelope FROM notify.notification WHERE id = %s", conflict.id)
    assert [(row["state"], row["reason"]) for row in stored] == [("rejected", "conflict")]
    assert stored[0]["envelope"]["payload"] == {"n": 2}
    assert it.events(conflict.id) == ["rejected"]


def test_a_rejected_call_keeps_its_envelope_and_says_why(it: World) -> None:
    item = replace(planned(call("m-1")), deliveries=(), state="rejected", reason="x", detail="y")
    accept(it.db, [item])

    (row,) = it.rows("SELECT state, reason, detail, envelope FROM notify.notification")
    assert (row["state"], row["reason"], row["detail"]) == ("rejected", "x", "y")
    assert Notification.from_wire(row["envelope"]) == item.notification
    assert it.events(item.id) == ["rejected"]


def test_a_cancelled_id_is_never_accepted_again(it: World) -> None:
    assert cancelling.cancel(it.db, "default", "m-1").before_intake

    item = planned(call("m-1"))
    found = accept(it.db, [item]).existing[item.id]

    assert (found.cancelled, found.notification_id) == (True, None)
    assert counts(it)["delivery"] == 0


# --- with a claim -------------------------------------------------------------------------------------


def test_an_accepted_delivery_may_start_in_the_same_commit(it: World) -> None:
    claim = one_claim()
    item = planned(call(), claim=claim)

    stored = accept(it.db, [item])

    (delivery,) = item.deliveries
    assert stored.states == {delivery.id: State.SENDING}
    row = it.row(delivery.id)
    assert (row["state"], row["fence"], row["attempts"], row["provider"]) == ("sending", 1, 1, "a")
    (attempt,) = it.attempts(delivery.id)
    assert (attempt["token"], attempt["fence"], attempt["outcome"]) == (claim.token, 1, None)
    assert attempt["idempotency_key"] == str(delivery.id)
    left = it.rows("SELECT extract(epoch FROM lease_until - now())::float8 AS s FROM notify.delivery")[0]["s"]
    assert 30 < left <= 40


def test_an_address_suppressed_meanwhile_is_not_written_to(it: World) -> None:
    recipients.suppress(it.db, "sms", PHONE, reason="opted_out")
    item = planned(call(), claim=one_claim())

    stored = accept(it.db, [item])

    (delivery,) = item.deliveries
    assert stored.states == {delivery.id: State.SUPPRESSED}
    row = it.row(delivery.id)
    assert (row["state"], row["reason"], row["lease_until"]) == ("suppressed", "address_suppressed", None)
    assert it.attempts(delivery.id) == []
    assert it.events(delivery.id) == ["suppressed"]


def test_a_row_remembers_the_marker_that_was_last_when_it_was_accepted(it: World) -> None:
    it.rows(
        "INSERT INTO notify.marker (queue, n) VALUES ('notify.sms', 2), ('notify.sms', 3), ('notify.sms.high', 9)"
    )
    assert it.row(it.accept())["marker"] == 3
    assert it.row(it.accept(call(priority="high")))["marker"] == 9


# --- commit unknown -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "to", [{"sms": PHONE}, {"id": "ann", "sms": PHONE}], ids=["statement", "transaction"]
)
@pytest.mark.parametrize("how", ["lose_question", "lose_answer"])
def test_a_commit_whose_answer_was_lost_finds_itself(database: str, how: str, to: dict[str, str]) -> None:
    with proxied(database) as proxy, world(proxy.url, connections=1) as it:
        item = planned(call(to=to), claim=one_claim())
        in_a_transaction = "id" in to
        proxy.arm(how, b"COMMIT" if in_a_transaction else b"INSERT INTO notify.message_key")

        with pytest.raises(DatabaseAway):
            accept(it.db, [item])
        until(lambda: proxy.cuts, "the cut")
        stored = accept(it.db, [item])

        if how == "lose_answer":
            assert not stored.new
            assert stored.existing[item.id].notification_id == item.id
        else:
            assert stored.new == {item.id}
        assert counts(it) == {
            "message_key": 1,
            "notification": 1,
            "delivery": 1,
            "attempt": 1,
            "status_event": 0,
        }


def test_a_run_whose_first_is_still_committing_finds_itself_too(it: World) -> None:
    # Given a first run that the server is still working on, held up by somebody else's key of the same id,
    item = planned(call("m-1"))
    with plain(it.url) as blocker:
        blocker.execute("BEGIN")
        blocker.execute("INSERT INTO notify.message_key (tenant, message_id) VALUES ('default', 'm-1')")
        with proxied(it.url) as proxy, world(proxy.url, connections=1) as cut:
            proxy.arm("hang_up", b"INSERT INTO notify.message_key")
            with pytest.raises(DatabaseAway):
                accept(cut.db, [item])
        until(waiting_for_locks(it.url, 1), "the server goes on with the first run")

        # when the worker runs it again and both can go on,
        def again(n: int) -> Any:
            if n == 1:
                until(waiting_for_locks(it.url, 2), "the second run waits, too")
                blocker.execute("ROLLBACK")
                return None
            return accept(it.db, [item])

        stored, _ = together(2, again)

    # then it is stored once, and the second run knows it as its own.
    mine = stored.new | {key for key, found in stored.existing.items() if found.notification_id == item.id}
    assert mine == {item.id}
    assert counts(it)["delivery"] == 1


# --- recipients of the call -----------------------------------------------------------------------------


def test_a_recipient_with_addresses_is_stored_with_its_call(it: World) -> None:
    accept(it.db, [planned(call(to={"id": "ann", "sms": PHONE, "email": "a@example.com", "locale": "de"}))])
    accept(it.db, [planned(call(to={"id": "ann", "email": "b@example.com", "timezone": "Europe/Berlin"}))])

    context = read_context(it.db, [call(to="ann")])
    profile = context.profiles["default", "ann"]
    assert profile.addresses == {"sms": (PHONE,), "email": ("b@example.com",)}
    assert (profile.locale, profile.timezone) == ("de", "Europe/Berlin")


def test_devices_add_up_and_single_addresses_are_replaced(it: World) -> None:
    for token in ("t-1", "t-2"):
        accept(it.db, [planned(call(to={"id": "ann", "push": token}, channels=["push"]))])
    profile = read_context(it.db, [call(to="ann")]).profiles["default", "ann"]
    assert set(profile.addresses["push"]) == {"t-1", "t-2"}


def test_a_repeated_or_conflicting_call_changes_no_recipient(it: World) -> None:
    accept(it.db, [planned(call("m-1", to={"id": "ann", "email": "a@example.com"}))])
    accept(it.db, [planned(call("m-1", to={"id": "ann", "email": "evil@example.com"}))])
    profile = read_context(it.db, [call(to="ann")]).profiles["default", "ann"]
    assert profile.addresses == {"email": ("a@example.com",)}


def test_calls_that_name_the_same_people_in_another_order_do_not_end_each_other(it: World) -> None:
    people = [{"id": f"p-{n}", "email": f"p-{n}@example.com"} for n in range(40)]

    def store(n: int) -> int:
        mine = people if n % 2 else people[::-1]
        return sum(len(accept(it.db, [planned(call(to=mine, channels=["email"]))]).new) for _ in range(5))

    assert together(6, store) == [5] * 6
    assert it.rows("SELECT count(*) AS n FROM notify.contact_point") == [{"n": 40}]


def test_what_planning_needs_comes_in_one_read(it: World) -> None:
    recipients.upsert(it.db, "ann", {"email": "a@example.com", "sms": PHONE}, locale="de")
    recipients.upsert(it.db, "ann", {"email": "other@example.com"}, tenant="other")
    recipients.suppress(it.db, "sms", PHONE, reason="opted_out")
    recipients.suppress(it.db, "email", "bare@example.com", reason="bounced")
    recipients.suppress(it.db, "email", "a@example.com", reason="bounced", tenant="other")
    ann, bare = call(to="ann"), call(to={"email": "bare@example.com"}, channels=["email"])

    context = read_context(it.db, [ann, bare, call(to="nobody")])

    profiles, suppressed = context.of(ann)
    assert profiles["ann"].addresses == {"email": ("a@example.com",), "sms": (PHONE,)}
    assert suppressed == {("sms", PHONE), ("email", "bare@example.com")}
    assert abs(context.now - datetime.now(UTC)) < timedelta(minutes=1)
    assert context.of(call(to="nobody"))[0] == {}


# --- what cannot be stored ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spoil",
    [{"payload": {"a": "\x00"}}, {"payload": {"a": "\ud800"}}, {"priority": "urgent"}, {"source": "\x00"}],
    ids=["nul", "surrogate", "lane", "nul-in-text"],
)
def test_a_call_that_postgresql_refuses_blames_the_row(it: World, spoil: dict[str, Any]) -> None:
    with pytest.raises(BadRow):
        accept(it.db, [planned(replace(call(), **spoil))])
    assert counts(it)["message_key"] == 0


def test_one_bad_call_takes_its_batch_along_so_that_it_can_be_run_one_by_one(it: World) -> None:
    good = [planned(call(f"m-{n}")) for n in range(5)]
    bad = planned(replace(call("bad"), payload={"a": "\x00"}))
    with pytest.raises(BadRow):
        accept(it.db, [*good, bad])
    assert counts(it)["message_key"] == 0
    assert all(accept(it.db, [item]).new for item in good)


def test_addresses_of_the_call_are_not_shown_by_anything_printable(it: World) -> None:
    item = planned(call(to={"sms": PHONE}))
    shown = repr(item.notification) + repr(item.deliveries) + repr(RecipientRef(None, {"sms": PHONE}))
    assert PHONE not in shown

"""Intake: a call from a queue or the table is judged, planned, stored once and woken."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from notify_tasks.notification import Notification
from notify_tasks.rendering import LoadedType
from notify_tasks.routing import queue_for
from notify_tasks.states import State
from notify_tasks.store import cancelling, intakes, parking, recipients
from notify_tasks.store.database import BadRow, DatabaseAway
from tests.integration.core_shop import Shop, one_row, shop, write_type
from tests.integration.core_world import (
    PHONE,
    World,
    call,
    plain,
    proxied,
    together,
    until,
    waiting_for_locks,
    world,
)

INTAKE = "notify.intake"


@pytest.fixture
def it(database: str) -> Iterator[World]:
    with world(database, connections=20) as opened:
        yield opened


@pytest.fixture
def desk(it: World, tmp_path: Path) -> Iterator[Shop]:
    with shop(tmp_path, it.db) as opened:
        yield opened


def keep(it: World, *calls: Notification, origin: str = "producer") -> None:
    intakes.keep(it.db, [notification.to_wire() for notification in calls], origin=origin)


def due_now(it: World) -> None:
    """As if the half minute had passed that a taken row is left to its taker."""
    it.rows("UPDATE notify.intake SET due_at = due_at - interval '31 s'")


def states(it: World) -> dict[str, str]:
    """State (of the notification) by message id."""
    return {
        row["message_id"]: row["state"]
        for row in it.rows("SELECT message_id, state FROM notify.notification")
    }


# --- one hop ------------------------------------------------------------------------------------------


def test_one_recipient_and_one_channel_are_claimed_with_their_acceptance(it: World, desk: Shop) -> None:
    taken = desk.take(call("m-1"), "notify.sms")

    assert taken.kind == "accepted"
    assert taken.claimed is not None
    row = one_row(it)
    assert (row["state"], row["fence"], row["provider"]) == ("sending", 1, "a")
    assert (taken.claimed.id, taken.claimed.fence, taken.claimed.address) == (row["id"], 1, PHONE)
    assert desk.wakes == []
    stored = it.claim(row["id"], token=taken.claimed.token)
    assert stored is not None  # and what the worker holds is what the row says
    assert replace(taken.claimed, lifetime=0) == replace(stored, lifetime=0)
    assert taken.claimed.lifetime == pytest.approx(stored.lifetime, abs=5)


@pytest.mark.parametrize(
    ("options", "queue"),
    [
        ({}, INTAKE),
        ({"priority": "high"}, "notify.sms"),
        ({"to": [{"sms": PHONE}, {"sms": "+4915112345679"}]}, "notify.sms"),
        ({"channels": ["sms", "push"], "to": {"sms": PHONE, "push": "t"}}, "notify.sms"),
        ({"at": timedelta(minutes=5)}, "notify.sms"),
    ],
    ids=["by-way-of-intake", "wrong-lane", "two-people", "two-channels", "later"],
)
def test_anything_else_is_stored_and_woken_on_its_own_queue(
    it: World, desk: Shop, options: dict[str, Any], queue: str
) -> None:
    taken = desk.take(call("m-1", **options), queue)

    assert (taken.kind, taken.claimed) == ("accepted", None)
    rows = it.rows("SELECT id, state, channel, lane FROM notify.delivery")
    assert {row["state"] for row in rows} <= {"queued", "held"}
    woken = {(wake.id, wake.channel, wake.lane) for wake in desk.wakes}
    assert woken == {(row["id"], row["channel"], row["lane"]) for row in rows if row["state"] == "queued"}


def test_a_type_of_the_high_lane_is_woken_there(it: World, desk: Shop) -> None:
    write_type(desk.types, "test.urgent", lane="high")
    taken = desk.take(call(event_type="test.urgent"), "notify.sms")
    assert taken.claimed is None
    assert [queue_for(wake.channel, wake.lane) for wake in desk.wakes] == ["notify.sms.high"]
    assert desk.take(call(event_type="test.urgent"), "notify.sms.high").claimed is not None


def test_a_closed_gate_holds_the_call_without_an_attempt(it: World, desk: Shop) -> None:
    it.rows("INSERT INTO notify.pause (kind, name, reason) VALUES ('type', 'test.ping', 'incident 7')")

    taken = desk.take(call(), "notify.sms")

    assert (taken.kind, taken.claimed) == ("accepted", None)
    row = one_row(it)
    assert (row["state"], row["reason"], row["attempts"]) == ("held", "paused: incident 7", 0)
    assert row["due_at"] > datetime.now(UTC)
    assert it.attempts(row["id"]) == []
    assert desk.wakes == []


def test_a_suppressed_address_is_accepted_and_not_written_to(it: World, desk: Shop) -> None:
    recipients.suppress(it.db, "sms", PHONE, reason="opted_out")
    taken = desk.take(call(), "notify.sms")
    assert (taken.kind, taken.claimed) == ("accepted", None)
    assert it.state(one_row(it)["id"]) == "suppressed"


def test_a_workers_clock_does_not_shorten_a_delivery(
    it: World, desk: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a worker whose clock is two hours ahead, and a type that expires after one,
    class Ahead(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.now(tz) + timedelta(hours=2)

    monkeypatch.setattr("notify_tasks.intake.datetime", Ahead)
    taken = desk.take(call(), "notify.sms")

    # then what is left of the delivery's time is what the database says.
    assert taken.claimed is not None
    assert taken.claimed.lifetime == pytest.approx(3600, abs=30)


# --- repeated, conflicting, cancelled ---------------------------------------------------------------------


def test_a_hundred_threads_with_one_call_send_it_once(it: World, desk: Shop) -> None:
    notification = call("m-1")
    taken = together(100, lambda _: desk.take(notification, "notify.sms"))
    assert sorted(one.kind for one in taken) == ["accepted"] + ["repeated"] * 99
    assert sum(one.claimed is not None for one in taken) == 1
    assert it.rows("SELECT count(*) AS n FROM notify.attempt") == [{"n": 1}]


def test_the_same_id_with_another_body_is_a_conflict_that_names_both(it: World, desk: Shop) -> None:
    first, other = call("m-1", payload={"n": 1}), call("m-1", payload={"n": 2})
    desk.take(first, INTAKE)

    taken = [desk.take(other, INTAKE) for _ in range(3)]

    assert {one.kind for one in taken} == {"conflict"}
    rows = it.rows("SELECT id, state, reason, detail FROM notify.notification WHERE hash = %s", other.hash)
    (row,) = rows  # stored once, however often it is repeated
    assert (row["state"], row["reason"]) == ("rejected", "conflict")
    for hash_ in (first.hash, other.hash):
        assert hash_ in row["detail"]
        assert hash_ in (taken[0].detail or "")
    assert it.events(row["id"]) == ["rejected"]
    assert desk.take(first, INTAKE).kind == "repeated"
    assert it.rows("SELECT count(*) AS n FROM notify.delivery") == [{"n": 1}]


def test_each_other_body_is_a_conflict_of_its_own(it: World, desk: Shop) -> None:
    for n in (1, 2, 3, 2, 3):
        desk.take(call("m-1", payload={"n": n}), INTAKE)
    assert it.rows("SELECT count(*) AS n FROM notify.notification WHERE reason = 'conflict'") == [{"n": 2}]


def test_a_call_that_was_cancelled_before_is_not_sent(it: World, desk: Shop) -> None:
    cancelling.cancel(it.db, "default", "m-1")
    assert desk.take(call("m-1"), "notify.sms").kind == "cancelled"
    assert it.rows("SELECT 1 FROM notify.delivery") == []


# --- rejected -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "reason", "names_it"),
    [
        ({"payload": {"n": "one"}}, "payload_invalid", "n"),
        ({"payload": {}}, "payload_invalid", "n"),
        ({"channels": ["chat"], "to": {"chat": "r"}}, "no_template", "chat"),
        ({"to": "nobody"}, "unknown_recipient", "id"),
        ({"to": {"push": "t"}}, "no_address", "sms"),
    ],
    ids=["type", "missing", "channel", "person", "address"],
)
def test_what_only_a_worker_can_know_is_a_rejected_call_with_its_reason(
    it: World, desk: Shop, options: dict[str, Any], reason: str, names_it: str
) -> None:
    notification = call("m-1", **options)

    taken = desk.take(notification, INTAKE)

    assert taken.kind == "rejected"
    (row,) = it.rows("SELECT id, state, reason, detail, envelope FROM notify.notification")
    assert (row["state"], row["reason"]) == ("rejected", reason)
    assert names_it in row["detail"]
    assert it.events(row["id"]) == ["rejected"]
    assert Notification.from_wire(row["envelope"]) == notification  # replayable
    assert desk.take(notification, INTAKE).kind == "repeated"


def test_a_bad_recipient_is_rejected_alone(it: World, desk: Shop) -> None:
    taken = desk.take(call(to=["nobody", {"sms": PHONE}]), INTAKE)
    assert (taken.kind, taken.deliveries) == ("accepted", 1)
    (row,) = it.rows("SELECT plan FROM notify.notification")
    assert [entry["reason"] for entry in row["plan"]["rejected"]] == ["unknown_recipient"]


def test_a_call_that_postgresql_refuses_says_so_for_the_worker_to_park(it: World, desk: Shop) -> None:
    with pytest.raises(BadRow):
        desk.take(replace(call(), priority="urgent"), INTAKE)
    assert it.rows("SELECT 1 FROM notify.notification") == []


# --- a type that is not there -----------------------------------------------------------------------------


def test_an_unknown_type_waits_in_the_table_until_it_is_there(it: World, desk: Shop) -> None:
    taken = desk.take(call("m-1", event_type="test.new"), "notify.sms")
    assert (taken.kind, taken.detail) == ("waiting", "unknown_event_type")
    (row,) = it.rows("SELECT origin, due_at > now() AS later FROM notify.intake")
    assert (row["origin"], row["later"]) == ("unknown_type", True)
    assert desk.intake.drain() == 0  # not yet due

    for _ in range(5):  # looked at many times, it is still no suspect
        due_now(it)
        assert desk.intake.drain() == 1
    assert states(it) == {}

    write_type(desk.types, "test.new")
    due_now(it)
    desk.intake.drain()
    assert states(it) == {"m-1": "accepted"}
    assert intakes.waiting(it.db) == 0
    assert len(desk.wakes) == 1


def test_an_unknown_type_is_rejected_after_its_wait(it: World, desk: Shop) -> None:
    desk.take(call("m-1", event_type="test.new"), INTAKE)
    it.rows("UPDATE notify.intake SET due_at = now(), created_at = now() - interval '899 s'")
    desk.intake.drain()
    assert states(it) == {}

    it.rows("UPDATE notify.intake SET due_at = now(), created_at = now() - interval '901 s'")
    desk.intake.drain()
    (row,) = it.rows("SELECT state, reason, detail FROM notify.notification")
    assert (row["state"], row["reason"]) == ("rejected", "unknown_event_type")
    assert "test.new" in row["detail"]
    assert intakes.waiting(it.db) == 0


def test_a_wait_of_zero_rejects_at_once(it: World, tmp_path: Path) -> None:
    with shop(tmp_path, it.db, unknown_type_wait=0) as desk:
        assert desk.take(call(event_type="test.new"), INTAKE).kind == "rejected"


def test_a_broken_type_waits_to_be_mended_and_says_what_is_wrong(it: World, desk: Shop) -> None:
    folder = write_type(desk.types, "test.broken")
    (folder / "sms.txt").write_text("{{ payload.n ")
    assert desk.take(call("m-1", event_type="test.broken"), INTAKE).detail == "broken_event_type"

    it.rows("UPDATE notify.intake SET due_at = now(), created_at = now() - interval '1 h'")
    desk.intake.drain()
    (row,) = it.rows("SELECT reason, detail FROM notify.notification")
    assert row["reason"] == "broken_event_type"
    assert "sms.txt" in row["detail"]


# --- from the table ---------------------------------------------------------------------------------------


def test_calls_of_the_table_are_planned_in_one_go_and_woken(it: World, desk: Shop) -> None:
    keep(it, *(call(f"m-{n}") for n in range(30)))
    assert desk.intake.drain() == 30
    assert set(states(it).values()) == {"accepted"}
    assert len(desk.wakes) == 30
    assert intakes.waiting(it.db) == 0
    assert desk.intake.drain() == 0


def test_two_bodies_under_one_id_in_the_table_are_judged_there(it: World, desk: Shop) -> None:
    keep(it, call("m-1", payload={"n": 1}), call("m-1", payload={"n": 2}), call("m-1", payload={"n": 1}))
    desk.intake.drain()
    rows = it.rows("SELECT state, reason FROM notify.notification ORDER BY state")
    assert [tuple(row.values()) for row in rows] == [("accepted", None), ("rejected", "conflict")]
    assert intakes.waiting(it.db) == 0


def test_a_call_of_the_table_that_is_known_already_is_done(it: World, desk: Shop) -> None:
    notification = call("m-1")
    desk.take(notification, "notify.sms")
    keep(it, notification, origin="ledger")
    desk.intake.drain()
    assert intakes.waiting(it.db) == 0
    assert it.rows("SELECT count(*) AS n FROM notify.delivery") == [{"n": 1}]


def test_drains_at_once_take_each_call_once(it: World, desk: Shop) -> None:
    keep(it, *(call(f"m-{n}") for n in range(60)))
    taken = together(4, lambda _: sum(desk.intake.drain(limit=10) for _ in range(8)))
    assert sum(taken) == 60
    assert len(desk.wakes) == 60


def test_a_row_that_somebody_took_is_his_for_half_a_minute(it: World, desk: Shop) -> None:
    keep(it, call("m-1"))
    assert len(intakes.take(it.db, limit=10)) == 1
    assert desk.intake.drain() == 0
    it.rows("UPDATE notify.intake SET due_at = due_at - interval '31 s'")
    assert desk.intake.drain() == 1
    assert states(it) == {"m-1": "accepted"}


def test_one_bad_row_among_two_hundred_is_parked_and_its_neighbours_are_unharmed(
    it: World, desk: Shop
) -> None:
    bad = replace(call("bad"), priority="urgent")  # there is no such lane, and the database says so
    keep(it, *(call(f"m-{n}") for n in range(100)), bad, *(call(f"m-{n}") for n in range(100, 199)))

    assert desk.intake.drain(limit=200) == 200

    assert len(states(it)) == 199
    assert set(states(it).values()) == {"accepted"}
    assert {wake.lane for wake in desk.wakes} == {"normal"}
    assert len(desk.wakes) == 199
    (parked,) = parking.parked(it.db)
    assert (parked.queue, parked.reason) == ("intake", "refused_by_database")
    assert "23514" in (parked.detail or "")
    assert intakes.waiting(it.db) == 0


def test_what_cannot_be_read_is_parked_byte_for_byte(it: World, desk: Shop) -> None:
    wire = call("m-1").to_wire() | {"v": 99}
    intakes.keep(it.db, [wire], origin="producer")
    keep(it, call("m-2"))

    desk.intake.drain()

    (parked,) = parking.parked(it.db)
    assert (parked.reason, "99" in (parked.detail or "")) == ("unreadable", True)
    _, raw = parking.read(it.db, parked.id) or ("", b"")
    assert b'"v": 99' in raw
    assert states(it) == {"m-2": "accepted"}


# --- takers that do not come to an end ----------------------------------------------------------------------


class Crash(BaseException):
    """The worker dies on the spot."""


@pytest.fixture
def poison(monkeypatch: pytest.MonkeyPatch) -> str:
    """A payload that ends whoever checks it: scripted, since no real part does that on demand."""
    check = LoadedType.check_payload

    def check_or_die(self: LoadedType, payload: Any) -> None:
        if payload.get("n") == 666:
            raise Crash
        check(self, payload)

    monkeypatch.setattr(LoadedType, "check_payload", check_or_die)
    return "poison"


def test_a_row_that_ends_its_taker_is_parked_after_three_takes_and_its_neighbours_are_unharmed(
    it: World, desk: Shop, poison: str
) -> None:
    # Given two hundred rows, of which one ends every process that plans it,
    keep(it, *(call(f"m-{n}") for n in range(100)), call(poison, payload={"n": 666}))
    keep(it, *(call(f"m-{n}") for n in range(100, 199)))

    # when worker after worker takes what is due, half a minute after the last one's death,
    deaths = 0
    for _ in range(300):
        due_now(it)
        try:
            if not desk.intake.drain():
                break
        except Crash:
            deaths += 1

    # then it has cost three of them, and the others have had their end.
    assert deaths == intakes.TAKES
    assert len(states(it)) == 199
    assert set(states(it).values()) == {"accepted"}
    (parked,) = parking.parked(it.db)
    assert (parked.reason, "3 times" in (parked.detail or "")) == ("taken_without_end", True)
    assert intakes.waiting(it.db) == 0


def test_a_database_that_goes_away_again_and_again_condemns_nobody(
    it: World, desk: Shop, database: str, tmp_path: Path
) -> None:
    keep(it, *(call(f"m-{n}") for n in range(20)))
    with (
        proxied(database) as proxy,
        world(proxy.url, connections=1) as shaky,
        shop(tmp_path, shaky.db) as weak,
    ):
        for _ in range(8):
            due_now(it)
            proxy.arm("lose_question", b"INSERT INTO notify.message_key")
            with pytest.raises(DatabaseAway):
                weak.intake.drain()
    for _ in range(30):
        due_now(it)
        desk.intake.drain()
    assert len(states(it)) == 20
    assert parking.parked(it.db) == []


# --- a commit whose answer is lost --------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["lose_question", "lose_answer"])
def test_one_hop_is_run_until_its_end_is_known_and_is_ours(
    it: World, database: str, tmp_path: Path, how: str
) -> None:
    with proxied(database) as proxy, world(proxy.url, connections=2) as cut, shop(tmp_path, cut.db) as desk:
        proxy.arm(how, b"INSERT INTO notify.message_key")

        taken = desk.take(call("m-1"), "notify.sms")

        assert proxy.cuts == 1
        assert len(desk.aways) == 1
        assert taken.claimed is not None
        (attempt,) = it.attempts(taken.claimed.id)
        assert (attempt["token"], attempt["fence"]) == (taken.claimed.token, taken.claimed.fence)


def test_one_hop_to_an_address_suppressed_meanwhile_is_never_ours_by_mistake(
    it: World, database: str, tmp_path: Path
) -> None:
    # Given an address that is suppressed between the plan and the commit, whose answer is lost, too,
    with proxied(database) as proxy, world(proxy.url, connections=2) as cut, shop(tmp_path, cut.db) as desk:
        proxy.arm("lose_answer", b"INSERT INTO notify.message_key")
        ask = desk.gates.ask

        def suppress_and_ask(*args: Any, **kwargs: Any) -> Any:
            recipients.suppress(it.db, "sms", PHONE, reason="opted_out")
            return ask(*args, **kwargs)

        desk.gates.ask = suppress_and_ask  # type: ignore[method-assign]
        taken = desk.take(call("m-1"), "notify.sms")

        # then nothing is to be sent: there is no attempt.
        assert taken.claimed is None
        assert it.state(one_row(it)["id"]) == "suppressed"
        assert it.rows("SELECT 1 FROM notify.attempt") == []


def test_one_hop_whose_lease_was_ended_meanwhile_is_not_ours_any_more(
    it: World, database: str, tmp_path: Path
) -> None:
    with proxied(database) as proxy, world(proxy.url, connections=2) as cut, shop(tmp_path, cut.db) as desk:
        proxy.arm("lose_answer", b"INSERT INTO notify.message_key")

        def end_the_lease(_: DatabaseAway) -> None:
            until(lambda: it.rows("SELECT 1 FROM notify.delivery"), "the commit")
            it.end_lease(one_row(it)["id"])

        desk.deliverer._away = end_the_lease
        taken = desk.take(call("m-1"), "notify.sms")

    assert (taken.kind, taken.claimed) == ("accepted", None)
    assert (one_row(it)["state"], one_row(it)["unknown"]) == ("queued", 1)


def test_one_hop_whose_first_run_is_still_being_committed_is_ours(
    it: World, database: str, tmp_path: Path
) -> None:
    # Given a first run that waits on the server for somebody else's lock when its connection is cut,
    with (
        plain(database) as blocker,
        proxied(database) as proxy,
        world(proxy.url, connections=2) as cut,
        shop(tmp_path, cut.db) as desk,
    ):
        blocker.execute("BEGIN")
        blocker.execute("INSERT INTO notify.message_key (tenant, message_id) VALUES ('default', 'm-1')")
        proxy.arm("hang_up", b"INSERT INTO notify.message_key")

        def run(which: int) -> Any:
            if which:
                return desk.take(call("m-1"), "notify.sms")
            until(waiting_for_locks(database, 2), "both runs wait")
            return blocker.execute("ROLLBACK")

        _, taken = together(2, run)

    # then exactly one of its runs stored it, and the worker knows that it may send.
    assert taken.kind == "accepted"
    assert taken.claimed is not None
    assert (one_row(it)["state"], len(it.attempts(taken.claimed.id))) == (State.SENDING, 1)


def test_without_a_claim_an_absent_database_is_told_and_nothing_is_known(
    database: str, tmp_path: Path, it: World
) -> None:
    with proxied(database) as proxy, world(proxy.url, connections=2) as cut, shop(tmp_path, cut.db) as desk:
        proxy.arm("lose_answer", b"INSERT INTO notify.message_key")
        notification = call("m-1")
        with pytest.raises(DatabaseAway):
            desk.take(notification, INTAKE)
        assert desk.take(notification, INTAKE).kind == "repeated"
    assert one_row(it)["state"] == "queued"  # its wake-up was never sent: the sweep will


def test_nothing_private_is_logged(it: World, desk: Shop, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        desk.take(call("m-1"), "notify.sms")
        desk.take(call("m-2", payload={"n": "hunter2"}), INTAKE)
        keep(it, replace(call("bad"), priority="urgent"))
        desk.intake.drain()
    assert PHONE not in caplog.text
    assert "hunter2" not in caplog.text
    (row,) = it.rows("SELECT detail FROM notify.notification WHERE message_id = 'm-2'")
    assert "hunter2" not in row["detail"]

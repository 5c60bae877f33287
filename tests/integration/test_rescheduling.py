"""Rescheduling: what is held for its time gets another one; moved or sent, never both, and the caller is told which."""

from __future__ import annotations

import importlib
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import notify_tasks
from notify_tasks import LocalTime, api_connections
from notify_tasks.choices import Choices, QuietHours
from notify_tasks.errors import InvalidCall, NotConfigured, NotHere
from notify_tasks.plans import Profile
from notify_tasks.results import NotificationResult
from notify_tasks.states import FINAL, State
from notify_tasks.store import accepting, cancelling, intakes, statuses, sweeps
from notify_tasks.store.database import jsonb
from notify_tasks.store.rescheduling import Rescheduled, reschedule
from tests.integration.core_shop import shop
from tests.integration.core_world import (
    PHONE,
    World,
    call,
    plain,
    planned,
    together,
    until,
    waiting_for_locks,
    world,
)

HOUR = timedelta(hours=1)
START = datetime.now(UTC).replace(microsecond=0)


@pytest.fixture
def it(database: str) -> Iterator[World]:
    with world(database, connections=20) as opened:
        yield opened


@contextmanager
def configured(url: str) -> Iterator[None]:
    notify_tasks.configure(database_url=url)
    try:
        yield
    finally:
        api_connections.close()
        notify_tasks.settings.reset()


def soon(hours: float = 1.0) -> datetime:
    return START + hours * HOUR


def move(
    it: World, at: datetime | LocalTime, message_id: str = "m-1", tenant: str = "default"
) -> Rescheduled:
    return reschedule(it.db, message_id, at, tenant=tenant)


def test_what_is_held_for_its_time_moves_with_the_expiry_that_counts_from_it(it: World) -> None:
    id_ = it.accept(call("m-1", at=soon(1)))
    before = it.row(id_)

    done = move(it, soon(5))

    row = it.row(id_)
    assert (done.where, done.moved, done.too_late, done.complete) == ("deliveries", 1, 0, True)
    assert (row["state"], row["reason"], row["due_at"]) == ("held", "scheduled", soon(5))
    assert row["expires_at"] - row["due_at"] == before["expires_at"] - before["due_at"]
    assert (done.deliveries[0].before, done.deliveries[0].due_at) == (soon(1), soon(5))
    assert it.events(id_) == ["rescheduled"]
    # It may be moved back and forth, and to now.
    assert move(it, soon(-0.5)).complete
    assert it.row(id_)["due_at"] <= datetime.now(UTC)
    assert [wake.id for wake in sweeps.take_due(it.db, limit=10)] == [id_]


@pytest.mark.parametrize("state", sorted(FINAL | {State.QUEUED, State.RETRYING, State.SENDING}))
def test_what_waits_no_more_is_too_late_and_stays_as_it_is(it: World, state: State) -> None:
    id_ = it.accept(call("m-1", at=soon()))
    it.rows("UPDATE notify.delivery SET state = %s, reason = NULL", state)
    before = it.row(id_)

    done = move(it, soon(5))

    assert (done.moved, done.too_late, done.complete) == (0, 1, False)
    assert done.deliveries[0].state == state
    assert it.row(id_) == before
    assert it.events(id_) == []


def test_each_delivery_is_answered_for(it: World) -> None:
    item = planned(
        call("m-1", at=soon(), to={"sms": PHONE, "push": "t", "chat": "r"}, channels=["sms", "push", "chat"])
    )
    accepting.accept(it.db, [item])
    sent, due, _ = (delivery.id for delivery in item.deliveries)
    it.shift(sent, due_at=-1)
    sweeps.take_due(it.db, limit=10)
    it.record(it.claimed(sent), "accepted", State.SENT)
    it.shift(due, due_at=-1)

    done = move(it, soon(5))

    assert (done.moved, done.too_late) == (1, 2)
    assert {each.channel: (each.moved, each.state, each.reason) for each in done.deliveries} == {
        "sms": (False, "sent", None),
        "push": (False, "held", "due"),
        "chat": (True, "held", "scheduled"),
    }
    assert PHONE not in repr(done)


def test_a_call_that_would_be_worthless_by_then_stays(it: World) -> None:
    id_ = it.accept(call("m-1", at=soon(1), expires=soon(2)))
    before = it.row(id_)

    done = move(it, soon(3))

    assert (done.moved, done.too_late, done.deliveries[0].reason) == (0, 0, "expires_before_at")
    assert it.row(id_) == before
    assert move(it, soon(1.5)).complete
    assert it.row(id_)["expires_at"] == soon(2)


def test_a_call_that_was_for_no_time_is_not_moved(it: World) -> None:
    """One that waits for its person's quiet hours alone was to go at once."""
    id_ = it.accept(call("m-1"))
    it.rows("UPDATE notify.delivery SET state = 'held', reason = 'quiet_hours', due_at = %s", soon())

    done = move(it, soon(3))

    assert (done.moved, done.deliveries[0].reason) == (0, "quiet_hours")
    assert it.row(id_)["due_at"] == soon()


@pytest.mark.parametrize("reason", ["digest", "throttled", "step"])
def test_what_waits_for_something_else_stays_and_is_not_too_late(it: World, reason: str) -> None:
    id_ = it.accept(call("m-1"))
    it.rows("UPDATE notify.delivery SET state = 'held', reason = %s, due_at = %s", reason, soon())

    done = move(it, soon(3))

    assert (done.moved, done.too_late, done.deliveries[0].stays) == (0, 0, True)
    assert it.row(id_)["due_at"] == soon()


def test_each_recipients_own_clock_and_quiet_hours_are_asked_anew(it: World) -> None:
    # Given somebody in Tokyo who is not to be disturbed before nine,
    wishes = Choices(quiet_hours=QuietHours(datetime.min.time(), datetime.min.time().replace(hour=9)))
    ann = Profile("ann", {"sms": (PHONE,)}, timezone="Asia/Tokyo", choices=wishes)
    it.rows("INSERT INTO notify.recipient (tenant, id, timezone) VALUES ('default', 'ann', 'Asia/Tokyo')")
    it.rows(
        "INSERT INTO notify.preference (tenant, recipient_id, version, settings, changed_by)"
        " VALUES ('default', 'ann', 1, %s::jsonb, 'test')",
        jsonb(wishes.stored()),
    )
    id_ = it.accept(call("m-1", to="ann", at=LocalTime(2030, 5, 1, 12)), profiles={"ann": ann})
    assert it.row(id_)["due_at"] == datetime(2030, 5, 1, 3, tzinfo=UTC)

    # when the call is moved to another time on their clock, and to one in their quiet hours,
    move(it, LocalTime(2030, 5, 2, 10))
    assert it.row(id_)["due_at"] == datetime(2030, 5, 2, 1, tzinfo=UTC)
    done = move(it, LocalTime(2030, 5, 3, 8))

    # then it goes when these are over, and can still be moved.
    assert (it.row(id_)["reason"], it.row(id_)["due_at"]) == (
        "quiet_hours",
        datetime(2030, 5, 3, 0, tzinfo=UTC),
    )
    assert done.deliveries[0].reason == "quiet_hours"
    assert move(it, LocalTime(2030, 5, 4, 10)).complete
    assert it.row(id_)["reason"] == "scheduled"


def test_what_an_older_worker_has_planned_moves_up_to_its_expiry(it: World) -> None:
    id_ = it.accept(call("m-1", at=soon(1)))
    it.rows("UPDATE notify.notification SET plan = plan - 'timed'")
    expires = it.row(id_)["expires_at"]

    assert move(it, soon(5)).complete
    assert it.row(id_)["expires_at"] == expires
    assert not move(it, expires).complete


# --- before intake has seen it ----------------------------------------------------------------------------


def test_a_call_in_the_intake_table_gets_its_time_there(it: World, tmp_path: Path) -> None:
    kept = call("m-1", at=soon(1))
    intakes.keep(it.db, [kept.to_wire()], origin="producer")

    done = move(it, LocalTime(2030, 5, 1, 8))

    assert (done.where, done.complete) == ("intake", True)
    with shop(tmp_path, it.db) as fleet:
        fleet.intake.drain()
        (row,) = it.rows("SELECT * FROM notify.delivery")
        assert row["due_at"] == datetime(2030, 5, 1, 8, tzinfo=UTC)
        # The same call made again is still the same call.
        assert fleet.take(kept, "notify.intake").kind == "repeated"
    assert move(it, soon(2)).where == "deliveries"


def test_a_call_in_the_intake_table_that_would_be_worthless_is_refused(it: World) -> None:
    intakes.keep(it.db, [call("m-1", at=soon(1), expires=soon(2)).to_wire()], origin="producer")

    with pytest.raises(InvalidCall, match=r"expires: .* not after `at`"):
        move(it, soon(3))
    assert it.rows("SELECT envelope->>'at' AS at FROM notify.intake")[0]["at"] == soon(1).isoformat()


def test_a_row_that_a_worker_has_taken_is_left_alone(it: World) -> None:
    intakes.keep(it.db, [call("m-1", at=soon(1)).to_wire()], origin="producer")
    (row,) = intakes.take(it.db, limit=1)

    assert move(it, soon(3)).where == "being_planned"
    # Put back (its type is not there yet), it can be moved again.
    intakes.later(it.db, [row], wait=15)
    assert move(it, soon(3)).where == "intake"


def test_the_function_waits_for_a_worker_that_is_planning_it(it: World, tmp_path: Path) -> None:
    intakes.keep(it.db, [call("m-1", at=soon(1)).to_wire()], origin="producer")
    rows = intakes.take(it.db, limit=1)
    asked: list[float] = []
    real = time.sleep

    def sleep(seconds: float) -> None:
        if not asked:  # the worker gets on with it
            asked.append(seconds)
            accepting.accept(it.db, [planned(call("m-1", at=soon(1)))])
            intakes.done(it.db, rows)
        real(0)

    with configured(it.url), pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "sleep", sleep)
        done = notify_tasks.reschedule("m-1", at=soon(3))

    assert (done.where, done.complete, bool(asked)) == ("deliveries", True, True)


@pytest.mark.parametrize("place", ["unknown", "cancelled", "rejected"])
def test_what_cannot_be_moved_says_where_it_is(it: World, place: str) -> None:
    if place == "cancelled":
        cancelling.cancel(it.db, "default", "m-1")
    if place == "rejected":
        it.accept(call("m-1"))
        it.rows("UPDATE notify.notification SET state = 'rejected'")
    done = move(it, soon())
    assert (done.where, done.deliveries, done.complete) == (place, (), False)
    assert move(it, soon(), tenant="other").where == "unknown"


# --- races ------------------------------------------------------------------------------------------------


def test_a_reschedule_waits_for_a_sweep_that_takes_it_and_comes_too_late(it: World) -> None:
    id_ = it.accept(call("m-1", at=soon()))
    with plain(it.url) as sweeping:
        sweeping.execute("BEGIN")
        sweeping.execute("UPDATE notify.delivery SET state = 'queued', due_at = NULL WHERE id = %s", (id_,))

        def run(which: int) -> Any:
            if which:
                return move(it, soon(5))
            until(waiting_for_locks(it.url, 1), "the reschedule waits for the sweep", 30)
            return sweeping.execute("COMMIT")

        _, done = together(2, run)

    assert (done.moved, done.too_late) == (0, 1)
    assert it.state(id_) == "queued"


def test_two_hundred_races_end_moved_or_sent(it: World, tmp_path: Path) -> None:
    """What is due is taken, claimed and sent while it is moved."""
    with shop(tmp_path, it.db) as fleet:
        items = [planned(call(f"m-{n}", at=soon(1))) for n in range(200)]
        accepting.accept(it.db, items)
        it.rows("UPDATE notify.delivery SET due_at = now() + random() * interval '0.6 s'")
        order = list(range(200))
        random.Random(3).shuffle(order)
        answers: dict[int, Rescheduled] = {}

        def mover() -> None:
            for n in order:
                answers[n] = move(it, soon(5), f"m-{n}")

        def sender() -> None:
            while len(answers) < len(items) or it.rows(
                "SELECT 1 FROM notify.delivery WHERE state = 'queued' LIMIT 1"
            ):
                for wake in sweeps.take_due(it.db, limit=7):
                    fleet.deliver(wake.id)

        together(3, lambda n: mover() if n == 0 else sender())

        arrived = {message.delivery_id for message in fleet.scripts["a"].sent}
        for n, item in enumerate(items):
            id_ = item.deliveries[0].id
            if answers[n].moved:
                assert it.state(id_) == "held"
                assert str(id_) not in arrived
            elif str(id_) not in arrived:  # it was due already, and not taken yet
                assert answers[n].deliveries[0].reason == "due"
        assert arrived
        assert any(answer.moved for answer in answers.values())


# --- what a producer calls --------------------------------------------------------------------------------


def test_a_result_reschedules_itself_and_the_timeline_tells(it: World) -> None:
    it.accept(call("m-1", at=soon(1)))
    with configured(it.url):
        done = NotificationResult("m-1", tenant="default").reschedule(timedelta(hours=2))
    assert done.complete
    (found,) = statuses.read(it.db, "m-1").notifications
    (event,) = found.deliveries[0].events
    assert event.kind == "rescheduled"
    assert event.detail is not None
    assert event.detail.startswith(f"from {soon(1):%Y-%m-%d %H:%M:%S} UTC to ")


@pytest.mark.parametrize(
    ("options", "field"),
    [({"at": datetime.now(UTC) - 2 * HOUR}, "at"), ({"at": None}, "at"), ({"at": "tomorrow"}, "at"),
     ({"at": LocalTime(2020, 1, 1)}, "at"), ({"at": HOUR, "tenant": "*"}, "tenant")],
)  # fmt: skip
def test_a_wrong_argument_is_named(options: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidCall, match=f"^{field}: "):
        notify_tasks.reschedule("m-1", **options)


def test_without_a_database_or_its_driver_the_remedy_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotConfigured, match="NOTIFY_DATABASE_URL"):
        notify_tasks.reschedule("m-1", at=HOUR)

    def missing(name: str) -> Any:
        raise ModuleNotFoundError(name, name="psycopg")

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(NotHere, match=r"psycopg.*notify-tasks\[postgres\]"):
        notify_tasks.reschedule("m-1", at=HOUR)


def test_a_call_that_is_still_to_be_made_cannot_be_rescheduled() -> None:
    with pytest.raises(InvalidCall, match="Send it first"):
        NotificationResult("m-1").reschedule(HOUR)

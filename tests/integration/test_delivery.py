"""A worker's way with a delivery: nothing is sent without a claim, nothing twice, and every result is written."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from channels.contract import (
    Accepted,
    AddressInvalid,
    Capability,
    ChannelError,
    Deadline,
    Message,
    Misconfigured,
    OptedOut,
    Refused,
    Throttled,
    TryLater,
    Unavailable,
    Uncertain,
)
from notify_tasks import delivery as delivery_module
from notify_tasks import retrying
from notify_tasks.breaker import FAILURES_TO_OPEN
from notify_tasks.notification import uuid7
from notify_tasks.outcomes import COUNTDOWNS_A_MINUTE, Countdowns, Outcome, describe
from notify_tasks.providers import LEASE_MARGIN
from notify_tasks.states import State
from notify_tasks.store import recipients, sweeps
from notify_tasks.store.database import DatabaseAway
from tests.integration.core_shop import Shop, one_row, shop, stopped_for, write_type
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

OPAQUE, IDEMPOTENT, QUERYABLE = Capability.OPAQUE, Capability.IDEMPOTENT, Capability.QUERYABLE


@pytest.fixture
def it(database: str) -> Iterator[World]:
    with world(database, connections=20) as opened:
        yield opened


@pytest.fixture
def desk(it: World, tmp_path: Path) -> Iterator[Shop]:
    """A worker with one opaque provider, `a`."""
    with shop(tmp_path, it.db) as opened:
        yield opened


@pytest.fixture
def two(it: World, tmp_path: Path) -> Iterator[Shop]:
    """A worker with two opaque providers, `a` and then `b`."""
    with shop(tmp_path, it.db, kinds=(OPAQUE, OPAQUE)) as opened:
        yield opened


def end_lease(it: World, id_: Any, *, knowable: tuple[str, ...] = ()) -> None:
    """The lease ends while its worker is still at it."""
    it.end_lease(id_, knowable=knowable)


# --- the straight way -----------------------------------------------------------------------------------


def test_a_delivery_is_claimed_rendered_sent_and_recorded(it: World, desk: Shop) -> None:
    id_ = it.accept(call(payload={"n": 7}))

    def look(message: Message, deadline: Deadline) -> Accepted:
        # While the call is made, the attempt is committed and no database connection is held.
        assert it.state(id_) == "sending"
        assert len(it.attempts(id_)) == 1
        assert deadline.remaining() > 5
        return Accepted("p-1", "202")

    desk.scripts["a"].will(look)
    outcome = desk.deliver(id_)

    assert outcome is not None
    assert (outcome.state, outcome.provider, outcome.code) == (State.SENT, "a", "202")
    assert describe(outcome) == "sent via a"
    (message,) = desk.scripts["a"].sent
    assert (message.address, getattr(message.content, "text", None)) == (PHONE, "Ping 7")
    assert message.delivery_id == message.idempotency_key == str(id_)
    row = it.row(id_)
    assert (row["state"], row["provider_message_id"]) == ("sent", "p-1")
    assert row["template_version"]
    assert it.events(id_) == ["sent"]


def test_one_hop_goes_all_the_way(it: World, desk: Shop) -> None:
    assert desk.send(call()).state is State.SENT
    assert len(desk.scripts["a"].sent) == 1
    assert one_row(it)["state"] == "sent"


def test_threads_with_the_same_wake_up_send_once(it: World, desk: Shop) -> None:
    ids = [it.accept() for _ in range(10)]
    outcomes = together(8, lambda _: [desk.deliver(id_) for id_ in ids])
    assert len(desk.scripts["a"].sent) == 10
    sent = [one for many in outcomes for one in many if one is not None and one.state is State.SENT]
    assert len(sent) == 10


@pytest.mark.parametrize("state", ["held", "sending", "sent", "failed", "cancelled"])
def test_a_wake_up_for_what_does_not_wait_does_nothing(it: World, desk: Shop, state: str) -> None:
    id_ = it.accept()
    it.rows("UPDATE notify.delivery SET state = %s", state)
    assert desk.deliver(id_) is None
    assert desk.deliver(uuid7()) is None
    assert desk.scripts["a"].sent == []


def test_a_delivery_claimed_between_reading_and_claiming_is_left_alone(it: World, desk: Shop) -> None:
    id_ = it.accept()
    (waiting,) = desk.deliverer.read([id_])
    it.claimed(id_)
    outcome = desk.deliverer.deliver(waiting)
    assert (outcome.state, describe(outcome)) == (None, "nothing to do")
    assert desk.scripts["a"].sent == []


def test_a_closed_gate_holds_it_without_an_attempt(it: World, desk: Shop) -> None:
    id_ = it.accept()
    it.rows("INSERT INTO notify.pause (kind, name, reason) VALUES ('queue', 'notify.sms', 'incident 7')")
    outcome = desk.deliver(id_)
    assert outcome is not None
    assert (outcome.state, describe(outcome)) == (State.HELD, "held: paused: incident 7")
    assert (it.state(id_), it.attempts(id_)) == ("held", [])


# --- each error -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "state", "outcome"),
    [
        (Refused("554"), "failed", "refused"),
        (AddressInvalid("550"), "failed", "address_invalid"),
        (OptedOut("21610"), "suppressed", "opted_out"),
        (TryLater("450"), "retrying", "try_later"),
        (Throttled("429", retry_after=5), "retrying", "throttled"),
        (Unavailable("connect"), "retrying", "unavailable"),
        (Misconfigured("401"), "retrying", "misconfigured"),
        (Uncertain("reset"), "retrying", "uncertain"),
        (ValueError("a bug with +4915112345678 in it"), "retrying", "uncertain"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_each_error_leaves_its_state_and_its_attempt(
    it: World, desk: Shop, caplog: pytest.LogCaptureFixture, error: Exception, state: str, outcome: str
) -> None:
    id_ = it.accept()
    desk.scripts["a"].will(error)
    with caplog.at_level(logging.DEBUG):
        found = desk.deliver(id_)

    assert found is not None
    assert found.state == it.state(id_) == state
    (attempt,) = it.attempts(id_)
    assert attempt["outcome"] == outcome
    row = it.row(id_)
    assert row["unknown"] == (outcome == "uncertain")
    assert row["attempts"] == (outcome not in {"throttled", "misconfigured"})
    assert PHONE not in caplog.text
    assert PHONE not in str(attempt)
    assert (found.retry is not None) == (state == "retrying")


def test_a_dead_address_is_not_written_to_again(it: World, desk: Shop) -> None:
    desk.scripts["a"].will(AddressInvalid("550"))
    desk.send(call())
    assert desk.take(call(), "notify.sms").claimed is None
    assert it.claim(it.accept()) is None
    assert len(desk.scripts["a"].sent) == 1


def test_a_provider_that_says_when_is_asked_then(it: World, desk: Shop) -> None:
    desk.scripts["a"].will(Throttled("429", retry_after=20))
    outcome = desk.send(call())

    assert (outcome.countdown, outcome.queue) == (20, "notify.sms")
    assert desk.deliver(outcome.id) is None  # a message that comes too early does nothing
    (waits,) = it.rows(
        "SELECT extract(epoch FROM not_before - now())::float8 AS earliest,"
        " extract(epoch FROM due_at - now())::float8 AS due FROM notify.delivery"
    )
    assert 18 < waits["earliest"] <= 20
    assert 85 < waits["due"] <= retrying.LOST_MESSAGE_MARGIN


def test_a_short_wait_is_celerys_to_draw_and_may_come_at_once(it: World, desk: Shop) -> None:
    desk.scripts["a"].will(TryLater("450"))
    outcome = desk.send(call())
    assert (outcome.countdown, outcome.attempts) == (None, 1)
    assert isinstance(outcome.retry, TryLater)
    assert one_row(it)["not_before"] is None

    again = desk.deliver(outcome.id)
    assert again is not None
    assert again.state is State.SENT
    assert one_row(it)["attempts"] == 2


def test_a_long_wait_is_the_rows_alone(it: World, desk: Shop) -> None:
    desk.scripts["a"].will(TryLater("503", retry_after=300))
    outcome = desk.send(call())
    assert (outcome.state, outcome.retry) == (State.RETRYING, None)
    (waits,) = it.rows("SELECT extract(epoch FROM due_at - now())::float8 AS due FROM notify.delivery")
    assert 290 < waits["due"] <= 300


def test_beyond_a_hundred_countdowns_a_minute_the_row_waits_by_itself(it: World, desk: Shop) -> None:
    for _ in range(COUNTDOWNS_A_MINUTE):
        assert desk.deliverer._countdowns.spend()
    desk.scripts["a"].will(TryLater("450"))
    outcome = desk.send(call())
    assert (outcome.state, outcome.retry) == (State.RETRYING, None)
    (waits,) = it.rows("SELECT extract(epoch FROM due_at - now())::float8 AS due FROM notify.delivery")
    assert waits["due"] <= retrying.BACKOFF
    assert one_row(it)["not_before"] is not None


def test_countdowns_come_back_after_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: clock)
    countdowns = Countdowns(limit=2)
    assert [countdowns.spend() for _ in range(3)] == [True, True, False]
    clock += 61
    assert countdowns.spend()


def test_spent_attempts_end_it_with_the_reason(it: World, desk: Shop) -> None:
    id_ = it.accept()
    it.rows("UPDATE notify.delivery SET max_attempts = 2")
    for _ in range(2):
        desk.scripts["a"].will(TryLater("450"))
        it.rows("UPDATE notify.delivery SET not_before = NULL")
        desk.deliver(id_)
    assert (it.state(id_), it.row(id_)["reason"], it.row(id_)["attempts"]) == ("failed", "retries_spent", 2)
    assert it.events(id_) == ["failed"]


def test_a_missing_variable_fails_it_before_anything_is_sent(it: World, desk: Shop) -> None:
    outcome = desk.send(call(payload={"n": 13}))
    assert (outcome.state, outcome.code) == (State.FAILED, "render_failed")
    assert desk.scripts["a"].sent == []
    assert "missing" in it.attempts(outcome.id)[0]["detail"]


def test_a_type_that_is_gone_or_broken_is_waited_for(it: World, desk: Shop) -> None:
    folder = write_type(desk.types, "test.other")
    first, second = (it.accept(call(event_type="test.other")) for _ in range(2))
    (folder / "notification.toml").rename(folder / "away")
    outcome = desk.deliver(first)
    assert outcome is not None
    assert (outcome.state, outcome.code) == (State.RETRYING, "unknown_type")

    (folder / "away").rename(folder / "notification.toml")
    outcome = desk.deliver(second)
    assert outcome is not None
    assert outcome.state is State.SENT


def test_a_bug_in_rendering_leaves_no_delivery_behind(
    it: World, desk: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def buggy(*_: Any, **__: Any) -> Any:
        raise AttributeError("a bug")

    monkeypatch.setattr("notify_tasks.rendering.LoadedType.render", buggy)
    outcome = desk.send(call())
    assert (outcome.state, outcome.code) == (State.RETRYING, "render_bug")
    assert it.row(outcome.id)["unknown"] == 0
    assert desk.scripts["a"].sent == []


# --- other providers ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error", [Unavailable("connect"), Misconfigured("401")], ids=lambda e: type(e).__name__
)
@pytest.mark.parametrize("hop", ["one", "two"])
def test_the_next_provider_is_called_at_once(it: World, two: Shop, error: ChannelError, hop: str) -> None:
    two.scripts["a"].will(error)
    outcome = two.send(call()) if hop == "one" else two.deliver(it.accept())

    assert outcome is not None
    assert (outcome.state, outcome.provider) == (State.SENT, "b")
    row = one_row(it)
    assert (row["fence"], row["provider"]) == (2, "b")
    assert row["attempts"] == (2 if isinstance(error, Unavailable) else 1)
    assert [attempt["provider"] for attempt in it.attempts(row["id"])] == ["a", "b"]


def test_when_all_are_down_it_waits_and_each_was_called_once(it: World, two: Shop) -> None:
    two.scripts["a"].will(Unavailable("connect"))
    two.scripts["b"].will(Unavailable("connect"))
    outcome = two.send(call())
    assert outcome.state is State.RETRYING
    assert [len(script.sent) for script in two.scripts.values()] == [1, 1]


def test_a_misconfigured_provider_is_left_out_at_once_and_one_that_is_down_after_a_few(
    it: World, two: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    two.scripts["a"].will(*[Unavailable("connect")] * FAILURES_TO_OPEN)
    for _ in range(FAILURES_TO_OPEN + 3):
        two.send(call())
    assert len(two.scripts["a"].sent) == FAILURES_TO_OPEN

    two.scripts["b"].will(Misconfigured("401"))
    two.send(call())
    assert "b is misconfigured: 401" in caplog.text
    assert not two.provider("b").breaker.closed()
    held = two.take(call("m-held"), "notify.sms")
    assert held.claimed is None


def test_an_unknown_outcome_keeps_its_provider(it: World, two: Shop) -> None:
    two.scripts["a"].will(Uncertain("reset"), Unavailable("connect"), Unavailable("connect"))
    id_ = it.accept()
    for _ in range(4):
        it.rows("UPDATE notify.delivery SET not_before = NULL")
        two.deliver(id_)
    assert it.state(id_) == "sent"
    assert [attempt["provider"] for attempt in it.attempts(id_)] == ["a"] * 4
    assert two.scripts["b"].sent == []
    assert len({message.idempotency_key for message in two.scripts["a"].sent}) == 1


def test_a_full_share_gives_the_claim_back(it: World, two: Shop) -> None:
    # Given a share that fills up between a delivery's gates and its call,
    taken = two.take(call(), "notify.sms")
    assert taken.claimed is not None
    for _ in range(4):
        assert two.gates.enter("a") is None

    outcome = two.deliverer.perform(taken.claimed, asked=taken.asked)

    row = one_row(it)
    assert (outcome.state, row["state"], row["reason"]) == (State.HELD, "held", "provider_share_full")
    assert (row["attempts"], it.attempts(row["id"])[0]["outcome"]) == (0, "released")
    assert two.scripts["a"].sent == []


def test_a_provider_that_is_gone_from_the_configuration_gives_the_claim_back(it: World, desk: Shop) -> None:
    claimed = it.claimed(provider="retired")
    outcome = desk.deliverer.perform(claimed, asked=time.monotonic())
    assert (outcome.state, outcome.wake, it.row(claimed.id)["reason"]) == (
        State.QUEUED,
        True,
        "provider_gone",
    )


# --- doubt ----------------------------------------------------------------------------------------------


def test_an_opaque_doubt_is_held_where_the_type_says_so(it: World, desk: Shop) -> None:
    write_type(desk.types, "test.once", on_doubt="hold")
    desk.scripts["a"].will(Uncertain("reset"))
    outcome = desk.send(call(event_type="test.once"))
    assert (outcome.state, it.row(outcome.id)["unknown"]) == (State.IN_DOUBT, 1)
    assert it.events(outcome.id) == ["in_doubt"]


def test_a_provider_that_can_be_asked_is_asked_before_anything_is_sent_again(
    it: World, tmp_path: Path
) -> None:
    with shop(tmp_path, it.db, kinds=(QUERYABLE,)) as desk:
        script = desk.scripts["a"]
        id_ = it.accept()

        def take_and_drop(message: Message, _: Deadline) -> Accepted:
            script.accepted.append(message.idempotency_key)
            raise Uncertain("reset")

        script.will(take_and_drop)
        desk.deliver(id_)
        outcome = desk.deliver(id_)

        assert outcome is not None
        assert (outcome.state, outcome.code) == (State.SENT, "200")
        assert (len(script.sent), script.asked) == (1, 1)


def test_a_provider_that_has_nothing_is_sent_it_again(it: World, tmp_path: Path) -> None:
    with shop(tmp_path, it.db, kinds=(QUERYABLE,)) as desk:
        id_ = it.accept()
        desk.scripts["a"].will(Uncertain("reset"))
        desk.deliver(id_)
        assert desk.scripts["a"].asked == 0  # nothing was unknown before
        desk.deliver(id_)
        assert it.state(id_) == "sent"
        assert (len(desk.scripts["a"].sent), desk.scripts["a"].asked) == (2, 1)


@pytest.mark.parametrize(
    ("kind", "state"), [(IDEMPOTENT, "in_doubt"), (QUERYABLE, "in_doubt"), (OPAQUE, "sent")]
)
def test_a_key_that_the_provider_may_have_forgotten_is_not_used_again(
    it: World, tmp_path: Path, kind: Capability, state: str
) -> None:
    with shop(tmp_path, it.db, kinds=(kind,)) as desk:
        id_ = it.accept()
        desk.scripts["a"].will(Uncertain("reset"))
        desk.deliver(id_)
        it.rows("UPDATE notify.attempt SET started_at = now() - interval '25 h'")
        desk.deliver(id_)
        assert it.state(id_) == state
        assert len(desk.scripts["a"].sent) == (2 if state == "sent" else 1)
        if state == "in_doubt":
            assert it.row(id_)["reason"] == "key_window_passed"
            assert [attempt["outcome"] for attempt in it.attempts(id_)] == ["uncertain", "released"]
            assert it.events(id_) == ["in_doubt"]


@pytest.mark.parametrize("end", ["expired", "spent", "refused"])
def test_while_an_outcome_is_unknown_every_other_end_is_in_doubt(it: World, desk: Shop, end: str) -> None:
    id_ = it.accept()
    desk.scripts["a"].will(Uncertain("reset"))
    desk.deliver(id_)
    if end == "expired":
        it.shift(id_, expires_at=-1)
        desk.deliver(id_)
    elif end == "spent":
        it.rows("UPDATE notify.delivery SET max_attempts = 2")
        desk.scripts["a"].will(TryLater("450"))
        desk.deliver(id_)
    else:
        desk.scripts["a"].will(Refused("554"))
        desk.deliver(id_)
    assert it.state(id_) == "in_doubt"
    assert it.events(id_) == ["in_doubt"]


# --- leases that end too soon -----------------------------------------------------------------------------


def test_a_worker_that_stood_still_past_its_lease_sends_nothing(it: World, desk: Shop) -> None:
    # Given a claim whose worker then stood still, until another one has sent it,
    taken = desk.take(call(), "notify.sms")
    assert taken.claimed is not None
    end_lease(it, taken.claimed.id)
    desk.deliver(taken.claimed.id)
    assert len(desk.scripts["a"].sent) == 1

    # when it goes on,
    outcome = desk.deliverer.perform(taken.claimed, asked=stopped_for(60))

    # then it sends nothing and changes nothing; its attempt says that nothing was sent.
    assert len(desk.scripts["a"].sent) == 1
    assert outcome.state in {None, State.SENT}
    assert (it.state(taken.claimed.id), it.row(taken.claimed.id)["unknown"]) == ("sent", 0)
    assert [attempt["outcome"] for attempt in it.attempts(taken.claimed.id)] == ["released", "accepted"]
    assert it.events(taken.claimed.id) == ["lease_ended", "sent"]


@pytest.mark.parametrize(("stood", "sends"), [(LEASE_MARGIN - 2, True), (LEASE_MARGIN + 0.5, False)])
def test_a_call_begins_only_if_the_lease_covers_its_deadline(
    it: World, desk: Shop, stood: float, *, sends: bool
) -> None:
    taken = desk.take(call(), "notify.sms")
    assert taken.claimed is not None
    outcome = desk.deliverer.perform(taken.claimed, asked=stopped_for(stood))
    assert len(desk.scripts["a"].sent) == sends
    if not sends:
        assert (outcome.state, outcome.code, outcome.wake) == (State.QUEUED, "lease_too_short", True)
        assert one_row(it)["attempts"] == 0


def test_a_call_that_begins_after_a_standstill_finds_its_deadline_passed(it: World, desk: Shop) -> None:
    # Given a process that stands still between its look at the lease and the call,
    clock = time.monotonic
    enter = desk.gates.enter
    later = 0.0

    def stand_still(provider: str) -> Any:
        nonlocal later
        later = 3600.0
        return enter(provider)

    desk.gates.enter = stand_still  # type: ignore[method-assign]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "monotonic", lambda: clock() + later)

        def look(_: Message, deadline: Deadline) -> Accepted:
            deadline.remaining()  # as every provider does before it writes
            raise AssertionError("there was time left")

        def first_of_all(message: Message, deadline: Deadline) -> Accepted:
            try:
                return look(message, deadline)
            except TimeoutError:
                raise TryLater("deadline") from None

        desk.scripts["a"].will(first_of_all)
        outcome = desk.send(call())
    assert outcome.code == "deadline"
    assert desk.scripts["a"].accepted == []


def test_an_acceptance_that_comes_after_the_lease_stops_the_resend(it: World, desk: Shop) -> None:
    id_ = it.accept()

    def slow(_: Message, __: Deadline) -> Accepted:
        end_lease(it, id_)
        assert it.state(id_) == "queued"
        return Accepted("p-1", "202")

    desk.scripts["a"].will(slow)
    outcome = desk.deliver(id_)

    assert outcome is not None
    assert outcome.state is State.SENT
    assert desk.deliver(id_) is None
    assert it.events(id_) == ["lease_ended", "sent"]


def test_an_acceptance_that_comes_during_the_resend_settles_it(
    it: World, desk: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    id_ = it.accept()
    inner: list[Outcome | None] = []

    def slow(_: Message, __: Deadline) -> Accepted:
        end_lease(it, id_)
        inner.append(desk.deliver(id_))
        return Accepted("p-1", "202")

    def meanwhile(_: Message, __: Deadline) -> Accepted:
        raise Refused("554")

    desk.scripts["a"].will(slow, meanwhile)
    desk.deliver(id_)

    # The second attempt was refused while the first was unknown, and then the first turned out well.
    assert inner[0] is not None
    assert inner[0].state is State.IN_DOUBT
    assert it.state(id_) == "sent"
    assert it.events(id_) == ["lease_ended", "in_doubt", "sent"]


@pytest.mark.parametrize("late", [TryLater("450"), Uncertain("reset"), Refused("554")], ids=lambda e: e.code)
def test_a_late_no_is_noted_and_its_worker_does_not_go_on_by_itself(
    it: World, two: Shop, caplog: pytest.LogCaptureFixture, late: ChannelError
) -> None:
    # Given a call that fails after its lease has ended and the sweep has queued the delivery again,
    id_ = it.accept()

    def slow(_: Message, __: Deadline) -> Accepted:
        end_lease(it, id_)
        raise late

    two.scripts["a"].will(slow)
    outcome = two.deliver(id_)

    # then this worker takes it neither to another provider nor to a retry: it is the sweep's by now.
    assert outcome is not None
    assert (outcome.state, outcome.retry, outcome.wake) == (None, None, False)
    assert [len(script.sent) for script in two.scripts.values()] == [1, 0]
    assert (it.state(id_), it.row(id_)["unknown"]) == ("queued", int(isinstance(late, Uncertain)))
    assert "after its lease had ended" in caplog.text


# --- a database that is away --------------------------------------------------------------------------------


def test_before_the_claim_an_absent_database_is_told_to_the_message(tmp_path: Path) -> None:
    with world("postgresql://u:p@127.0.0.1:9/none", wait=0.2) as gone, shop(tmp_path, gone.db) as desk:
        with pytest.raises(DatabaseAway):
            desk.deliver(uuid7())


@pytest.mark.parametrize("how", ["lose_question", "lose_answer"])
def test_a_claim_whose_commit_is_unknown_is_run_until_it_is_known(
    it: World, database: str, tmp_path: Path, how: str
) -> None:
    with proxied(database) as proxy, world(proxy.url, connections=2) as cut, shop(tmp_path, cut.db) as desk:
        id_ = it.accept()
        proxy.arm(how, b"INSERT INTO notify.attempt")
        outcome = desk.deliver(id_)

        assert outcome is not None
        assert outcome.state is State.SENT
        assert (proxy.cuts, len(desk.aways)) == (1, 1)
        assert len(desk.scripts["a"].sent) == 1
        assert len(it.attempts(id_)) == 1


def test_a_claim_whose_first_run_is_still_being_committed_is_found(
    it: World, database: str, tmp_path: Path
) -> None:
    # Given a claim that waits on the server for somebody else's lock when its connection is cut,
    id_ = it.accept()
    with (
        plain(database) as blocker,
        proxied(database) as proxy,
        world(proxy.url, connections=2) as cut,
        shop(tmp_path, cut.db) as desk,
    ):
        blocker.execute("BEGIN")
        blocker.execute("SELECT 1 FROM notify.delivery FOR UPDATE")
        proxy.arm("hang_up", b"INSERT INTO notify.attempt")

        def run(which: int) -> Any:
            if which:
                return desk.deliver(id_)
            until(waiting_for_locks(database, 2), "both runs wait")
            return blocker.execute("ROLLBACK")

        _, outcome = together(2, run)

        # then the worker knows that it has it, and the delivery is not left to its lease's end.
        assert outcome is not None
        assert outcome.state is State.SENT
        assert len(it.attempts(id_)) == 1


@pytest.mark.parametrize("how", ["lose_question", "lose_answer"])
@pytest.mark.parametrize("act", [Accepted("p-1", "202"), Refused("554")], ids=["accepted", "refused"])
def test_a_result_is_written_until_it_is_there(
    it: World, database: str, tmp_path: Path, how: str, act: Any
) -> None:
    with proxied(database) as proxy, world(proxy.url, connections=2) as cut, shop(tmp_path, cut.db) as desk:
        id_ = it.accept()
        proxy.arm(how, b"UPDATE notify.attempt")
        desk.scripts["a"].will(act)
        outcome = desk.deliver(id_)

        expected = "sent" if isinstance(act, Accepted) else "failed"
        assert outcome is not None
        assert outcome.state == it.state(id_) == expected
        assert it.events(id_) == [expected]
        assert len(desk.scripts["a"].sent) == 1
        assert proxy.cuts == 1


def test_a_result_waits_for_a_database_that_is_away_for_a_while(
    it: World, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery_module, "AWAY_RETRY_SECONDS", 0.01)
    with proxied(database) as proxy, world(proxy.url, connections=2) as cut, shop(tmp_path, cut.db) as desk:
        id_ = it.accept()
        proxy.arm("lose_question", b"UPDATE notify.attempt", times=20)
        outcome = desk.deliver(id_)
        assert outcome is not None
        assert outcome.state is State.SENT
        assert len(desk.aways) >= 20
        assert len(desk.scripts["a"].sent) == 1


@pytest.mark.parametrize("said", ["a\x00b", "half \ud83d of a pair"])
def test_whatever_a_provider_says_is_no_reason_to_send_again(it: World, desk: Shop, said: str) -> None:
    desk.scripts["a"].will(Accepted(said, said))
    assert desk.send(call()).state is State.SENT
    desk.scripts["a"].will(Refused(said, said))
    assert desk.send(call()).state is State.FAILED


def test_an_address_suppressed_after_reading_is_not_written_to(it: World, desk: Shop) -> None:
    id_ = it.accept()
    (waiting,) = desk.deliverer.read([id_])
    recipients.suppress(it.db, "sms", PHONE, reason="opted_out")
    assert desk.deliverer.deliver(waiting).state is None
    assert it.state(id_) == "suppressed"
    assert desk.scripts["a"].sent == []


# --- a process that is really stopped -----------------------------------------------------------------------

_STOPPED_WORKER = """
import sys, time, uuid
from pathlib import Path
from notify_tasks import providers
providers.LEASE_MARGIN = 2.0
from notify_tasks.store import deliveries
from tests.integration.core_shop import shop
from tests.integration.core_world import world

claim = deliveries.claim
def claim_and_tell(*arguments):
    found = claim(*arguments)
    print("claimed", flush=True)
    time.sleep(0.3)  # here the test stops the process
    return found
deliveries.claim = claim_and_tell

url, root, id_ = sys.argv[1], Path(sys.argv[2]), uuid.UUID(sys.argv[3])
with world(url) as it, shop(root, it.db, worker="stopped", timeout=1.0) as desk:
    outcome = desk.deliver(id_)
    print(f"sent {len(desk.scripts['a'].sent)} {outcome.code}", flush=True)
"""


def test_a_process_stopped_past_its_lease_and_continued_sends_nothing_again(
    it: World, database: str, tmp_path: Path
) -> None:
    root = Path(__file__).parents[2]
    with shop(tmp_path, it.db) as desk:
        # Given a worker that is stopped right after its claim,
        id_ = it.accept()
        process = subprocess.Popen(
            [sys.executable, "-c", _STOPPED_WORKER, database, str(tmp_path), str(id_)],
            cwd=root,
            env={**os.environ, "PYTHONPATH": str(root)},
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "claimed\n"
            os.kill(process.pid, signal.SIGSTOP)

            # when its lease runs out, the sweep ends it, and another worker sends,
            until(
                lambda: it.rows("SELECT 1 FROM notify.delivery WHERE lease_until < now()"),
                "the lease runs out",
            )
            sweeps.end_leases(it.db, knowable=[], limit=10)
            outcome = desk.deliver(id_)
            assert outcome is not None
            assert outcome.state is State.SENT

            # then the stopped one, continued, sends nothing and changes nothing.
            os.kill(process.pid, signal.SIGCONT)
            assert process.communicate(timeout=20)[0] == "sent 0 lease_too_short\n"
        finally:
            process.kill()
            process.wait()
    assert it.state(id_) == "sent"
    assert [(row["worker"], row["outcome"]) for row in it.attempts(id_)] == [
        ("stopped", "released"),
        ("worker-1", "accepted"),
    ]


# --- many at once -------------------------------------------------------------------------------------------


def test_no_connection_is_held_while_providers_take_their_time(database: str, tmp_path: Path) -> None:
    # Given more calls under way than there are database connections,
    with world(database, connections=2, wait=1.0) as it, shop(tmp_path, it.db, threads=12) as desk:
        ids = [it.accept() for _ in range(12)]
        all_there = threading.Barrier(12)

        def wait_for_the_others(_: Message, __: Deadline) -> Accepted:
            all_there.wait(30)
            return Accepted("p", "202")

        desk.scripts["a"].will(*[wait_for_the_others] * 12)
        outcomes = together(12, lambda n: desk.deliver(ids[n]))
        assert [one.state for one in outcomes if one] == [State.SENT] * 12
        assert desk.aways == []


@pytest.mark.parametrize(
    ("outcome", "said"),
    [
        (Outcome(uuid7(), State.SENT, "a", "202"), "sent via a"),
        (Outcome(uuid7(), State.FAILED, "a", "554"), "failed: 554"),
        (Outcome(uuid7(), State.RETRYING, "a", "450"), "retrying after 450 from a"),
        (Outcome(uuid7(), State.HELD, None, "paused: x"), "held: paused: x"),
        (Outcome(uuid7(), None), "nothing to do"),
    ],
)
def test_flower_shows_a_phrase(outcome: Outcome, said: str) -> None:
    assert describe(outcome) == said

"""Cancelling: sent or cancelled, never both, and whoever cancels is told which."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from notify_tasks.notification import Notification
from notify_tasks.states import FINAL, WAITING, State
from notify_tasks.store import accepting, cancelling, intakes
from notify_tasks.store.cancelling import Cancelled
from notify_tasks.store.database import BadRow, DatabaseAway
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


def cancel(it: World, message_id: str = "m-1", tenant: str = "default") -> Cancelled:
    return cancelling.cancel(it.db, tenant, message_id)


BEFORE_INTAKE = Cancelled(before_intake=True, cancelled=0, too_late=0, stopped_before=0)


@pytest.mark.parametrize("state", sorted(WAITING))
def test_what_waits_is_cancelled(it: World, state: State) -> None:
    id_ = it.accept(call("m-1"))
    it.rows("UPDATE notify.delivery SET state = %s, due_at = now()", state)

    answer = cancel(it)

    assert answer == Cancelled(before_intake=False, cancelled=1, too_late=0, stopped_before=0)
    assert answer.complete
    row = it.row(id_)
    assert (row["state"], row["reason"], row["due_at"]) == ("cancelled", "cancelled", None)
    assert it.events(id_) == ["cancelled"]
    assert it.claim(id_) is None


def test_what_is_being_sent_goes_on_and_the_caller_knows(it: World) -> None:
    claimed = it.claimed(it.accept(call("m-1")))

    answer = cancel(it)

    assert answer == Cancelled(before_intake=False, cancelled=0, too_late=1, stopped_before=0)
    assert not answer.complete
    it.record(claimed, "accepted", State.SENT)
    assert it.state(claimed.id) == "sent"


@pytest.mark.parametrize("state", sorted(FINAL))
def test_what_has_ended_stays_as_it_is(it: World, state: State) -> None:
    id_ = it.accept(call("m-1"))
    it.rows("UPDATE notify.delivery SET state = %s", state)

    answer = cancel(it)

    assert it.state(id_) == state
    assert it.events(id_) == []
    sent = state in {State.SENT, State.DELIVERED, State.UNDELIVERED, State.IN_DOUBT, State.DIGESTED}
    assert answer.too_late == sent
    assert answer.complete == (not sent)
    assert answer.cancelled + answer.stopped_before == (not sent)


def test_with_an_attempt_of_unknown_outcome_it_ends_in_doubt_and_says_so(it: World) -> None:
    id_ = it.claimed(it.accept(call("m-1"))).id
    it.end_lease(id_)

    answer = cancel(it)

    assert (it.state(id_), it.row(id_)["reason"]) == ("in_doubt", "cancelled")
    assert (answer.cancelled, answer.too_late) == (0, 1)
    assert it.events(id_) == ["lease_ended", "in_doubt"]


def test_each_delivery_of_a_call_is_answered_for(it: World) -> None:
    item = planned(call("m-1", to={"sms": PHONE, "push": "t", "chat": "r"}, channels=["sms", "push", "chat"]))
    accepting.accept(it.db, [item])
    first, second, _ = (delivery.id for delivery in item.deliveries)
    it.record(it.claimed(first), "accepted", State.SENT)
    it.record(it.claimed(second), "refused", State.FAILED)

    assert cancel(it) == Cancelled(before_intake=False, cancelled=1, too_late=1, stopped_before=1)


def test_before_anybody_has_seen_the_call_the_cancel_is_what_it_finds(it: World) -> None:
    assert cancel(it) == BEFORE_INTAKE
    item = planned(call("m-1"), claim=one_claim())
    stored = accepting.accept(it.db, [item])
    assert not stored.new
    assert stored.existing[item.id].cancelled
    assert it.rows("SELECT 1 FROM notify.attempt") == []


def test_a_call_that_waits_in_the_intake_table_goes_and_its_neighbours_stay(it: World) -> None:
    kept: list[Notification] = [call("m-1"), call("m-1", payload={"n": 2}), call("m-2")]
    kept.append(call("m-1", tenant="other"))
    intakes.keep(it.db, [notification.to_wire() for notification in kept], origin="producer")

    assert cancel(it) == BEFORE_INTAKE

    left = it.rows("SELECT tenant, message_id FROM notify.intake ORDER BY 1, 2")
    assert [tuple(row.values()) for row in left] == [("default", "m-2"), ("other", "m-1")]


def test_cancelling_again_gives_the_same_answer_and_the_first_time(it: World) -> None:
    assert cancel(it) == cancel(it) == BEFORE_INTAKE
    (first,) = it.rows("SELECT cancelled_at FROM notify.message_key")
    cancel(it)
    assert it.rows("SELECT cancelled_at FROM notify.message_key") == [first]

    id_ = it.accept(call("m-2"))
    assert cancel(it, "m-2") == cancel(it, "m-2")
    assert it.events(id_) == ["cancelled"]


def test_a_cancel_is_its_tenants_own(it: World) -> None:
    id_ = it.accept(call("m-1"))
    assert cancel(it, tenant="other") == BEFORE_INTAKE
    assert it.state(id_) == "queued"


def test_accept_and_cancel_at_once_agree(it: World) -> None:
    # Given calls that are accepted and cancelled in the same moment, some with a claim and some without,
    outcomes = set()
    for n in range(40):
        item = planned(call(f"m-{n}"), claim=one_claim() if n % 2 else None)

        def run(which: int, n: int = n, item: Any = item) -> Any:
            return cancel(it, f"m-{n}") if which else accepting.accept(it.db, [item])

        stored, cancelled = together(2, run)

        # then exactly one of them has come first, and both say the same.
        id_ = item.deliveries[0].id
        if stored.new:
            assert not cancelled.before_intake
            assert it.state(id_) == ("sending" if n % 2 else "cancelled")
            assert cancelled.too_late == n % 2
        else:
            assert cancelled.before_intake
            assert stored.existing[item.id].cancelled
            assert it.rows("SELECT 1 FROM notify.delivery WHERE id = %s", id_) == []
        outcomes.add(bool(stored.new))
    assert outcomes == {True, False}, "both orders should have happened in forty tries"


def test_a_cancel_waits_for_a_claim_in_progress_and_comes_too_late(it: World) -> None:
    id_ = it.accept(call("m-1"))
    with plain(it.url) as claiming:
        claiming.execute("BEGIN")
        claiming.execute("UPDATE notify.delivery SET state = 'sending' WHERE id = %s", (id_,))

        def run(which: int) -> Any:
            if which:
                return cancel(it)
            until(waiting_for_locks(it.url, 1), "the cancel waits for the claim")
            return claiming.execute("COMMIT")

        _, answer = together(2, run)

    assert answer == Cancelled(before_intake=False, cancelled=0, too_late=1, stopped_before=0)
    assert it.state(id_) == "sending"


def test_a_cancel_whose_answer_was_lost_can_be_repeated(database: str) -> None:
    with proxied(database) as proxy, world(proxy.url, connections=1) as it:
        id_ = it.accept(call("m-1"))
        proxy.arm("lose_answer", b"COMMIT")
        with pytest.raises(DatabaseAway):
            cancel(it)
        until(lambda: proxy.cuts, "the cut")
        assert cancel(it).cancelled == 1
        assert it.events(id_) == ["cancelled"]


def test_an_id_that_cannot_be_stored_is_the_callers_fault(it: World) -> None:
    with pytest.raises(BadRow):
        cancel(it, "m\x00")

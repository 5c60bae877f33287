"""Replaying: what ended unsent gets a new delivery that is linked to the old one, once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from notify_tasks.states import FINAL, State
from notify_tasks.store import accepting, intakes
from notify_tasks.store.replaying import REPLAYABLE, Replayed, replay
from tests.integration.core_world import PHONE, World, call, planned, together, world

NOTHING = Replayed([], 0)


@pytest.fixture
def it(database: str) -> Iterator[World]:
    with world(database, connections=20) as opened:
        yield opened


def ended(it: World, state: str = "failed", message_id: str = "m-1", **options: Any) -> Any:
    id_ = it.accept(call(message_id, **options))
    it.rows("UPDATE notify.delivery SET state = %s WHERE id = %s", state, id_)
    return id_


def rejected(it: World, message_id: str = "m-1", reason: str = "unknown_event_type") -> Any:
    item = replace(planned(call(message_id)), deliveries=(), state="rejected", reason=reason, detail="d")
    accepting.accept(it.db, [item])
    return item


@pytest.mark.parametrize("state", sorted(State))
def test_only_what_ended_unsent_is_sent_again(it: World, state: State) -> None:
    ended(it, state)
    found = replay(it.db, "m-1")
    assert len(found.wakes) == (state in REPLAYABLE)
    assert set(REPLAYABLE) <= {str(it) for it in FINAL}


def test_the_new_delivery_is_fresh_and_linked_and_the_old_one_stays(it: World) -> None:
    old = ended(it, "failed")
    it.rows(
        "UPDATE notify.delivery SET attempts = 8, unknown = 2, fence = 8, provider = 'a', not_before = now() + '1 h'"
    )
    it.rows("INSERT INTO notify.marker (queue, n) VALUES ('notify.sms', 6)")

    (wake,) = replay(it.db, "m-1").wakes

    row = it.row(wake.id)
    assert (row["state"], row["replay_of"], row["marker"]) == ("queued", old, 6)
    assert (row["attempts"], row["unknown"], row["fence"], row["provider"], row["not_before"]) == (
        0,
        0,
        0,
        None,
        None,
    )
    assert (wake.channel, wake.lane, row["address"]) == ("sms", "normal", PHONE)
    assert it.state(old) == "failed"
    assert it.events(old) == ["replayed"]
    claimed = it.claimed(wake.id)
    assert claimed.payload == {"n": 1}


def test_a_replay_is_done_once_and_its_own_end_can_be_replayed(it: World) -> None:
    ended(it)
    (first,) = replay(it.db, "m-1").wakes
    assert replay(it.db, "m-1") == NOTHING

    it.rows("UPDATE notify.delivery SET state = 'failed' WHERE id = %s", first.id)
    (second,) = replay(it.db, "m-1").wakes
    assert it.row(second.id)["replay_of"] == first.id


def test_two_operators_at_once_send_it_once_more(it: World) -> None:
    for n in range(10):
        ended(it, message_id=f"m-{n}")
        found = together(5, lambda _, n=n: replay(it.db, f"m-{n}"))
        assert sum(len(one.wakes) for one in found) == 1
    assert it.rows("SELECT count(*) AS n FROM notify.delivery") == [{"n": 20}]


def test_an_expired_delivery_gets_its_time_anew(it: World) -> None:
    old = ended(it, "expired", expires=timedelta(hours=2))
    it.shift(old, created_at=-7200, expires_at=0)
    (wake,) = replay(it.db, "m-1").wakes
    assert it.claimed(wake.id).lifetime == pytest.approx(7200, abs=60)


def test_what_had_expired_before_it_was_planned_gets_some_time_at_all(it: World) -> None:
    old = ended(it, "expired")
    it.shift(old, created_at=-10, expires_at=-5000)
    (wake,) = replay(it.db, "m-1").wakes
    assert it.claimed(wake.id).lifetime > 300


def test_a_replay_respects_what_was_suppressed(it: World) -> None:
    ended(it, "suppressed")
    it.rows(
        "INSERT INTO notify.suppression (tenant, channel, address, reason, source)"
        " VALUES ('default', 'sms', %s, 'x', 'y')",
        PHONE,
    )
    (wake,) = replay(it.db, "m-1").wakes
    assert it.claim(wake.id) is None
    assert it.state(wake.id) == "suppressed"


# --- rejected calls -------------------------------------------------------------------------------------


def test_a_rejected_call_is_planned_again(it: World) -> None:
    item = rejected(it)

    assert replay(it.db, "m-1") == Replayed([], 1)

    (row,) = intakes.take(it.db, limit=10)
    assert (row.origin, row.message_id, row.hash) == ("replay", "m-1", item.notification.hash)
    assert row.envelope == item.notification.to_wire()
    assert it.rows("SELECT 1 FROM notify.message_key") == []
    assert it.events(item.id) == ["rejected", "replayed"]


def test_a_rejected_call_goes_back_once(it: World) -> None:
    rejected(it)
    found = together(6, lambda _: replay(it.db, "m-1"))
    assert sum(one.calls for one in found) == 1
    assert replay(it.db, "m-1") == NOTHING


def test_a_call_that_was_accepted_after_its_replay_is_not_planned_a_third_time(it: World) -> None:
    rejected(it)
    replay(it.db, "m-1")
    it.accept(call("m-1"))
    assert replay(it.db, "m-1") == NOTHING


def test_a_refused_conflict_is_not_replayed(it: World) -> None:
    it.accept(call("m-1"))
    conflict = replace(
        planned(call("m-1", payload={"n": 2})),
        deliveries=(),
        state="rejected",
        reason="conflict",
        keyed=False,
    )
    accepting.accept(it.db, [conflict])
    assert replay(it.db, "m-1") == NOTHING


def test_nothing_is_known_of_a_strange_id_or_tenant(it: World) -> None:
    ended(it)
    assert replay(it.db, "m-2") == NOTHING
    assert replay(it.db, "m-1", tenant="other") == NOTHING

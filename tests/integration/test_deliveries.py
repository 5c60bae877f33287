"""A delivery between workers: one claims it, its result is written once, and late results do no harm."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest

from notify_tasks.notification import uuid7
from notify_tasks.states import CLAIMABLE, State
from notify_tasks.store import cancelling, deliveries, recipients, replaying, sweeps
from notify_tasks.store.database import DatabaseAway
from notify_tasks.store.deliveries import ClaimRequest, claim, hold, read_waiting, record, restamp
from tests.integration.core_world import (
    LEASE,
    PHONE,
    World,
    call,
    plain,
    proxied,
    result,
    together,
    until,
    world,
)

FINAL_AND_SENDING = sorted(set(State) - CLAIMABLE - {State.HELD})


@pytest.fixture
def it(database: str) -> Iterator[World]:
    with world(database, connections=20) as opened:
        yield opened


def put(it: World, state: str, **columns: Any) -> Any:
    """A delivery in some state."""
    id_ = it.accept()
    for name, value in {"state": state, **columns}.items():
        it.rows(f"UPDATE notify.delivery SET {name} = %s WHERE id = %s", value, id_)
    return id_


# --- claim --------------------------------------------------------------------------------------------


def test_of_two_claims_at_once_one_wins(it: World) -> None:
    ids = [it.accept() for _ in range(10)]

    claims = together(20, lambda n: [it.claim(id_, f"p-{n}") for id_ in ids])

    for index, id_ in enumerate(ids):
        (winner,) = [found[index] for found in claims if found[index] is not None]
        assert winner.fence == 1
        assert [row["token"] for row in it.attempts(id_)] == [winner.token]
        assert it.row(id_)["provider"] == winner.provider


def test_a_claim_is_an_attempt_a_fence_and_a_lease_in_one_commit(it: World) -> None:
    id_ = it.accept(call(payload={"n": 7}))

    claimed = it.claimed(id_)

    row = it.row(id_)
    assert (row["state"], row["fence"], row["attempts"], row["provider"]) == ("sending", 1, 1, "a")
    (attempt,) = it.attempts(id_)
    assert (attempt["token"], attempt["fence"], attempt["number"], attempt["outcome"]) == (
        claimed.token,
        1,
        1,
        None,
    )
    assert attempt["idempotency_key"] == str(id_)
    assert (claimed.address, claimed.payload, claimed.unknown, claimed.unknown_age) == (
        PHONE,
        {"n": 7},
        0,
        0.0,
    )
    assert 0 < claimed.lifetime <= 3 * 24 * 3600
    assert PHONE not in repr(claimed)
    (left,) = it.rows("SELECT extract(epoch FROM lease_until - now())::float8 AS s FROM notify.delivery")
    assert LEASE - 10 < left["s"] <= LEASE


@pytest.mark.parametrize("state", [State.HELD, *FINAL_AND_SENDING])
def test_only_what_waits_for_a_worker_can_be_claimed(it: World, state: State) -> None:
    id_ = put(it, state)
    assert it.claim(id_) is None
    assert it.state(id_) == state
    assert it.attempts(id_) == []


def test_nothing_is_claimed_before_the_time_that_the_provider_named(it: World) -> None:
    id_ = put(it, "retrying")
    it.shift(id_, not_before=30)
    assert it.claim(id_) is None
    assert read_waiting(it.db, [id_]) == []
    it.shift(id_, not_before=-0.1)
    assert [waiting.id for waiting in read_waiting(it.db, [id_])] == [id_]
    assert it.claim(id_) is not None


@pytest.mark.parametrize("unknown", [0, 1])
def test_a_claim_ends_what_has_expired_meanwhile(it: World, unknown: int) -> None:
    id_ = put(it, "queued", unknown=unknown, provider="a")
    it.shift(id_, expires_at=-1)

    assert it.claim(id_) is None

    assert it.state(id_) == ("in_doubt" if unknown else "expired")
    assert it.row(id_)["reason"] == "expired"
    assert it.events(id_) == [it.state(id_)]
    assert it.attempts(id_) == []


@pytest.mark.parametrize("unknown", [0, 1])
def test_a_claim_ends_what_was_suppressed_meanwhile(it: World, unknown: int) -> None:
    id_ = put(it, "queued", unknown=unknown, provider="a")
    recipients.suppress(it.db, "sms", PHONE, reason="opted_out")

    assert it.claim(id_) is None

    assert it.state(id_) == ("in_doubt" if unknown else "suppressed")
    assert it.events(id_) == [it.state(id_)]


@pytest.mark.parametrize("outcome", ["try_later", "uncertain"])
def test_a_cancel_that_came_during_a_call_stops_its_retry(it: World, outcome: str) -> None:
    claimed = it.claimed(it.accept(call("m-1")))
    assert cancelling.cancel(it.db, "default", "m-1").too_late == 1
    it.record(claimed, outcome, State.RETRYING, unknown=outcome == "uncertain", due=90)

    assert it.claim(claimed.id) is None

    assert it.state(claimed.id) == ("in_doubt" if outcome == "uncertain" else "cancelled")
    assert it.row(claimed.id)["reason"] == "cancelled"
    assert it.events(claimed.id) == [it.state(claimed.id)]


def test_a_replay_is_not_stopped_by_the_cancel_of_what_it_replays(it: World) -> None:
    it.accept(call("m-1"))
    cancelling.cancel(it.db, "default", "m-1")
    (wake,) = replaying.replay(it.db, "m-1").wakes
    assert it.claim(wake.id) is not None


def test_a_delivery_without_an_expiry_can_be_sent(it: World) -> None:
    id_ = put(it, "queued", expires_at=None)
    claimed = it.claim(id_)
    assert claimed is not None
    assert claimed.lifetime > 24 * 3600


def test_while_an_outcome_is_unknown_only_its_own_provider_may_claim(it: World) -> None:
    claimed = it.claimed(provider="a")
    it.end_lease(claimed.id)

    assert it.claim(claimed.id, "b") is None
    assert it.state(claimed.id) == "queued"

    again = it.claimed(claimed.id, "a")
    assert (again.fence, again.unknown) == (2, 1)


def test_the_age_of_a_doubt_is_that_of_its_first_attempt(it: World) -> None:
    id_ = it.claimed().id
    it.end_lease(id_)
    it.rows("UPDATE notify.attempt SET started_at = now() - interval '3 hours'")
    second = it.claimed(id_)
    assert 3 * 3600 <= second.unknown_age < 3 * 3600 + 60
    it.record(second, "uncertain", State.RETRYING, unknown=True, due=0)
    assert it.claimed(id_).unknown_age == pytest.approx(second.unknown_age, abs=60)


def test_a_delivery_may_be_throttled_very_often(it: World) -> None:
    id_ = put(it, "queued", fence=40_000)
    assert it.claimed(id_).fence == 40_001


def test_a_batch_of_claims_answers_each_by_itself(it: World) -> None:
    ids = [it.accept() for _ in range(50)]
    for id_ in ids[:10]:
        it.claim(id_)
    requests = [ClaimRequest(id_, uuid7(), "a", LEASE, "w") for id_ in ids]
    random.Random(7).shuffle(requests)

    found = claim(it.db, requests)

    tokens = {request.id: request.token for request in requests}
    assert {one.id: one.token for one in found} == {id_: tokens[id_] for id_ in ids[10:]}


def test_one_delivery_wanted_twice_in_a_batch_starts_once(it: World) -> None:
    id_ = it.accept()
    found = claim(it.db, [ClaimRequest(id_, uuid7(), "a", LEASE, "w") for _ in range(2)])
    assert len(found) == 1
    assert [row["token"] for row in it.attempts(id_)] == [found[0].token]


def test_batches_in_another_order_do_not_end_each_other(it: World) -> None:
    ids = [it.accept() for _ in range(60)]

    def run(n: int) -> int:
        mine = random.Random(n).sample(ids, len(ids))
        return len(claim(it.db, [ClaimRequest(id_, uuid7(), "a", LEASE, "w") for id_ in mine]))

    assert sum(together(8, run)) == len(ids)
    assert _deadlocks(it) == 0


def test_a_cancel_and_a_claim_at_once_agree_on_what_happened(it: World) -> None:
    for n in range(15):
        id_ = it.accept(call(f"m-{n}"))
        claimed, cancelled = together(
            2, lambda k, n=n, id_=id_: it.claim(id_) if k else cancelling.cancel(it.db, "default", f"m-{n}")
        )[::-1]
        assert (claimed is None) == (cancelled.cancelled == 1) == (it.state(id_) == "cancelled")
        assert cancelled.too_late == (0 if claimed is None else 1)


# --- a claim whose commit is unknown --------------------------------------------------------------------


@pytest.mark.parametrize("how", ["lose_question", "lose_answer"])
def test_the_same_claim_run_again_finds_itself(database: str, how: str) -> None:
    with world(database) as it, proxied(database) as proxy, world(proxy.url, connections=1) as cut:
        id_, token = it.accept(), uuid7()
        proxy.arm(how, b"INSERT INTO notify.attempt")

        with pytest.raises(DatabaseAway):
            cut.claim(id_, token=token)
        until(lambda: proxy.cuts, "the cut")
        again = cut.claim(id_, token=token)

        assert again is not None
        assert (again.token, again.fence) == (token, 1)
        assert len(it.attempts(id_)) == 1


def test_a_claim_run_again_after_its_lease_ended_finds_nothing(it: World) -> None:
    id_, token = it.accept(), uuid7()
    assert it.claim(id_, token=token) is not None
    it.end_lease(id_)
    assert it.claim(id_, token=token) is None
    other = it.claimed(id_)
    assert it.claim(id_, token=token) is None
    again = it.claim(id_, token=other.token)
    assert again is not None
    assert (again.token, again.fence) == (other.token, 2)


# --- result -------------------------------------------------------------------------------------------


def test_an_acceptance_is_written_once(it: World) -> None:
    claimed = it.claimed()
    accepted = result(
        claimed, "accepted", State.SENT, code="250", provider_message_id="p-1", template_version="v9"
    )

    (first,) = record(it.db, [accepted])
    assert (first.state, first.applied) == ("sent", True)
    before = it.row(claimed.id), it.attempts(claimed.id)
    assert record(it.db, [accepted]) == []

    assert (it.row(claimed.id), it.attempts(claimed.id)) == before
    row, (attempt,) = before
    assert (row["provider_message_id"], row["template_version"], row["lease_until"]) == ("p-1", "v9", None)
    assert (attempt["outcome"], attempt["code"], attempt["provider_message_id"]) == ("accepted", "250", "p-1")
    assert it.events(claimed.id) == ["sent"]


@pytest.mark.parametrize("how", ["lose_question", "lose_answer"])
def test_a_result_whose_commit_is_unknown_is_run_again(database: str, how: str) -> None:
    with world(database) as it, proxied(database) as proxy, world(proxy.url, connections=1) as cut:
        claimed = it.claimed()
        proxy.arm(how, b"UPDATE notify.attempt")

        with pytest.raises(DatabaseAway):
            cut.record(claimed, "accepted", State.SENT)
        until(lambda: proxy.cuts, "the cut")
        again = cut.record(claimed, "accepted", State.SENT)

        assert (again is None) == (how == "lose_answer")
        assert it.state(claimed.id) == "sent"
        assert it.events(claimed.id) == ["sent"]


@pytest.mark.parametrize(
    ("outcome", "state"),
    [
        ("refused", State.FAILED),
        ("opted_out", State.SUPPRESSED),
        ("try_later", State.EXPIRED),
        ("uncertain", State.IN_DOUBT),
    ],
)
def test_every_final_result_has_its_event(it: World, outcome: str, state: State) -> None:
    claimed = it.claimed()
    it.record(claimed, outcome, state, code="554", reason="why", unknown=state is State.IN_DOUBT)
    assert (it.state(claimed.id), it.row(claimed.id)["reason"]) == (state, "why")
    assert it.events(claimed.id) == [state]


def test_a_retry_waits_and_keeps_its_count(it: World) -> None:
    claimed = it.claimed()
    it.record(claimed, "try_later", State.RETRYING, due=90, not_before=30, reason="450")
    row = it.row(claimed.id)
    assert (row["state"], row["attempts"], row["lease_until"]) == ("retrying", 1, None)
    (waits,) = it.rows(
        "SELECT extract(epoch FROM due_at - now())::float8 AS due,"
        " extract(epoch FROM not_before - now())::float8 AS earliest FROM notify.delivery"
    )
    assert 80 < waits["due"] <= 90
    assert 20 < waits["earliest"] <= 30
    assert it.events(claimed.id) == []


def test_a_throttled_attempt_is_given_back(it: World) -> None:
    claimed = it.claimed()
    it.record(claimed, "throttled", State.RETRYING, due=1, counted=False)
    assert (it.row(claimed.id)["attempts"], it.row(claimed.id)["fence"]) == (0, 1)


def test_a_released_delivery_is_published_anew_and_has_the_marker_for_it(it: World) -> None:
    claimed = it.claimed()
    it.rows("INSERT INTO notify.marker (queue, n) VALUES ('notify.sms', 5)")
    it.record(claimed, "released", State.QUEUED, counted=False)
    row = it.row(claimed.id)
    assert (row["state"], row["marker"], row["attempts"], row["unknown"]) == ("queued", 5, 0, 0)


def test_an_opt_out_outlasts_a_dead_address(it: World) -> None:
    claimed = [it.claimed() for _ in range(3)]
    for one, (outcome, state, reason) in zip(
        claimed,
        [
            ("address_invalid", State.FAILED, "address_invalid"),
            ("opted_out", State.SUPPRESSED, "opted_out"),
            ("address_invalid", State.FAILED, "address_invalid"),
        ],
        strict=True,
    ):
        it.record(one, outcome, state, suppress=reason)
    assert [row["reason"] for row in it.rows("SELECT reason FROM notify.suppression")] == ["opted_out"]


def test_a_dead_address_is_suppressed_with_its_result(it: World) -> None:
    for claimed in [it.claimed(), it.claimed()]:
        it.record(claimed, "address_invalid", State.FAILED, suppress="address_invalid")
    rows = it.rows("SELECT tenant, channel, address, reason, source FROM notify.suppression")
    assert [tuple(row.values()) for row in rows] == [("default", "sms", PHONE, "address_invalid", "provider")]


@pytest.mark.parametrize("field", ["code", "detail", "reason", "provider_message_id"])
@pytest.mark.parametrize("text", ["250 \x00 ok", "\ud83d", "ü" * 4000])
def test_whatever_a_provider_says_its_result_is_written(it: World, field: str, text: str) -> None:
    claimed = it.claimed()
    it.record(claimed, "accepted", State.SENT, **{field: text})
    assert it.state(claimed.id) == "sent"


def test_two_hundred_results_are_one_statement(it: World) -> None:
    claimed = [it.claimed() for _ in range(200)]
    found = record(it.db, [result(one, "accepted", State.SENT) for one in claimed])
    assert {one.id: one.state for one in found} == {one.id: "sent" for one in claimed}


# --- rule 6: while an attempt's outcome is unknown --------------------------------------------------------


@pytest.mark.parametrize("wanted", [State.FAILED, State.SUPPRESSED, State.EXPIRED])
def test_a_definite_end_after_an_unknown_attempt_is_in_doubt(it: World, wanted: State) -> None:
    id_ = it.claimed().id
    it.end_lease(id_)
    it.record(it.claimed(id_), "refused", wanted)
    assert it.state(id_) == "in_doubt"
    assert it.events(id_) == ["lease_ended", "in_doubt"]


def test_a_doubt_that_was_cleared_up_meanwhile_is_none(it: World) -> None:
    # Given a second attempt whose worker was told that the first is unknown,
    first = it.claimed()
    it.end_lease(first.id)
    second = it.claimed(first.id)

    # when the first one's refusal comes late, and then the second is refused, too,
    it.record(first, "refused", State.FAILED)
    it.record(second, "refused", State.IN_DOUBT, reason="554")

    # then nothing is unknown any more.
    row = it.row(first.id)
    assert (row["state"], row["unknown"]) == ("failed", 0)


def test_an_acceptance_ends_it_well_whatever_was_unknown_before(it: World) -> None:
    id_ = it.claimed().id
    it.end_lease(id_)
    it.record(it.claimed(id_), "accepted", State.SENT)
    assert it.state(id_) == "sent"


# --- late results ---------------------------------------------------------------------------------------


def test_a_late_acceptance_stops_a_resend_that_has_not_started(it: World) -> None:
    for state in ("queued", "retrying", "held"):
        claimed = it.claimed()
        it.end_lease(claimed.id)
        it.rows("UPDATE notify.delivery SET state = %s, due_at = now() WHERE id = %s", state, claimed.id)

        late = it.record(claimed, "accepted", State.SENT, provider_message_id="p-1")

        assert late is not None
        assert (late.state, late.applied) == ("sent", True)
        row = it.row(claimed.id)
        assert (row["unknown"], row["provider_message_id"], row["due_at"], row["reason"]) == (
            0,
            "p-1",
            None,
            None,
        )
        assert it.events(claimed.id) == ["lease_ended", "sent"]
        assert it.claim(claimed.id) is None


@pytest.mark.parametrize("outcome", ["refused", "try_later", "uncertain", "lost"])
def test_a_late_acceptance_during_a_resend_settles_it_when_that_ends(it: World, outcome: str) -> None:
    first = it.claimed()
    it.end_lease(first.id)
    second = it.claimed(first.id)

    late = it.record(first, "accepted", State.SENT)
    assert late is not None
    assert (late.state, late.applied) == ("sending", False)
    if outcome == "lost":
        it.end_lease(first.id)
    else:
        wanted = State.FAILED if outcome == "refused" else State.RETRYING
        it.record(second, outcome, wanted, unknown=outcome == "uncertain", due=5, reason="why")

    row = it.row(first.id)
    assert (row["state"], row["reason"], row["due_at"]) == ("sent", None, None)
    assert it.events(first.id)[-1] == "sent"
    assert it.events(first.id).count("sent") == 1


def test_a_late_acceptance_resolves_a_doubt(it: World) -> None:
    claimed = it.claimed()
    it.rows("UPDATE notify.delivery SET on_doubt = 'hold'")
    assert it.end_lease(claimed.id) == "in_doubt"

    it.record(claimed, "accepted", State.SENT)

    assert (it.state(claimed.id), it.row(claimed.id)["unknown"]) == ("sent", 0)
    assert it.events(claimed.id) == ["in_doubt", "sent"]


@pytest.mark.parametrize("outcome", ["refused", "released", "try_later"])
def test_a_late_no_settles_a_doubt_in_which_nothing_else_is_unknown(it: World, outcome: str) -> None:
    claimed = it.claimed()
    it.rows("UPDATE notify.delivery SET on_doubt = 'hold'")
    it.end_lease(claimed.id)

    it.record(claimed, outcome, State.FAILED, reason="why")

    assert (it.state(claimed.id), it.row(claimed.id)["unknown"]) == ("failed", 0)
    assert it.events(claimed.id) == ["in_doubt", "failed"]


def test_a_late_no_leaves_a_doubt_in_which_another_attempt_is_unknown(it: World) -> None:
    first = it.claimed()
    it.end_lease(first.id)
    second = it.claimed(first.id)
    it.record(second, "uncertain", State.IN_DOUBT, unknown=True)

    it.record(first, "refused", State.FAILED)

    assert (it.state(first.id), it.row(first.id)["unknown"]) == ("in_doubt", 1)


@pytest.mark.parametrize("outcome", ["accepted", "refused"])
def test_a_doubt_is_final_after_three_days_and_the_attempt_still_takes_its_result(
    it: World, outcome: str
) -> None:
    claimed = it.claimed()
    it.rows("UPDATE notify.delivery SET on_doubt = 'hold'")
    it.end_lease(claimed.id)
    for hours, state in ((73, "in_doubt"), (71, None)):
        it.rows("UPDATE notify.delivery SET updated_at = now() - make_interval(hours => %s)", hours)
        late = it.record(claimed, outcome, State.SENT if outcome == "accepted" else State.FAILED)
        assert late is not None
        assert late.applied == (state is None)
        assert it.attempts(claimed.id)[0]["outcome"] == outcome
        assert it.state(claimed.id) == (state or ("sent" if outcome == "accepted" else "failed"))
        # The second round begins where the first did.
        it.rows("UPDATE notify.attempt SET outcome = 'lost'")
        it.rows("UPDATE notify.delivery SET unknown = 1, accepted = false")


@pytest.mark.parametrize(
    ("state", "outcome"),
    list(
        product(sorted(set(State) - {State.SENDING, State.IN_DOUBT}), ["refused", "try_later", "uncertain"])
    ),
)
def test_a_late_no_moves_nothing_else(it: World, state: State, outcome: str) -> None:
    claimed = it.claimed()
    it.end_lease(claimed.id)
    it.rows("UPDATE notify.delivery SET state = %s WHERE id = %s", state, claimed.id)

    late = it.record(claimed, outcome, State.FAILED, unknown=outcome == "uncertain")

    assert late is not None
    assert (late.state, late.applied) == (state, False)
    assert it.attempts(claimed.id)[0]["outcome"] == outcome
    assert it.row(claimed.id)["unknown"] == (1 if outcome == "uncertain" else 0)
    assert it.events(claimed.id) == ["lease_ended"]


def test_results_and_the_end_of_their_leases_at_once_leave_consistent_rows(it: World) -> None:
    # Given deliveries whose workers report in the very moment in which a sweep ends their leases,
    claimed = [it.claimed() for _ in range(120)]
    it.rows("UPDATE notify.delivery SET lease_until = now()")
    order = random.Random(3).sample(claimed, len(claimed))

    def run(n: int) -> None:
        if n == 0:
            for _ in range(12):
                sweeps.end_leases(it.db, knowable=[], limit=10)
        else:
            for start in range(n - 1, len(order), 12):
                outcome = "accepted" if n % 2 else "refused"
                wanted = State.SENT if n % 2 else State.FAILED
                record(it.db, [result(one, outcome, wanted) for one in order[start : start + 4]])

    together(5, run)

    # then each attempt has one outcome, its delivery counts the unknown ones, and what was accepted is sent.
    for one in claimed:
        row, (attempt,) = it.row(one.id), it.attempts(one.id)
        assert row["unknown"] == (attempt["outcome"] == "lost")
        if attempt["outcome"] == "accepted":
            assert row["state"] == "sent"
        elif attempt["outcome"] == "refused":
            assert row["state"] in {"failed", "queued"}
        else:
            assert row["state"] in {"queued", "sending"}
        finals = [kind for kind in it.events(one.id) if kind != "lease_ended"]
        assert len(finals) == (row["state"] in {"sent", "failed"})
    assert _deadlocks(it) == 0


def _deadlocks(it: World) -> int:
    it.rows("SELECT pg_stat_force_next_flush()")
    with plain(it.url) as connection:
        row = connection.execute(
            "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
        ).fetchone()
    assert row is not None
    return int(row[0])


# --- put back -------------------------------------------------------------------------------------------


def test_a_closed_gate_holds_what_waits_and_nothing_else(it: World) -> None:
    ids = {state: put(it, state) for state in State}

    held = hold(it.db, [(id_, 30.0, "paused") for id_ in ids.values()])

    assert held == len(CLAIMABLE)
    for state, id_ in ids.items():
        row = it.row(id_)
        if state in CLAIMABLE:
            assert (row["state"], row["reason"]) == ("held", "paused")
            assert row["due_at"] is not None
        else:
            assert row["state"] == state
    assert it.rows("SELECT 1 FROM notify.attempt") == []


def test_a_rest_that_is_woken_again_has_the_present_marker(it: World) -> None:
    ids = {state: put(it, state) for state in State}
    it.rows("INSERT INTO notify.marker (queue, n) VALUES ('notify.sms', 4)")

    assert set(restamp(it.db, list(ids.values()), "notify.sms")) == {ids[state] for state in CLAIMABLE}
    assert {it.row(ids[state])["marker"] for state in CLAIMABLE} == {4}
    assert it.row(ids[State.SENT])["marker"] == 0


def test_waiting_rows_come_in_the_order_of_the_message(it: World) -> None:
    ids = [it.accept() for _ in range(20)]
    random.Random(5).shuffle(ids)
    assert [waiting.id for waiting in read_waiting(it.db, [uuid7(), *ids])] == ids


def test_pauses_are_read_by_kind_and_name(it: World) -> None:
    it.rows("INSERT INTO notify.pause (kind, name, reason) VALUES ('type', 'x', 'incident 7')")
    assert deliveries.read_pauses(it.db) == {("type", "x"): "incident 7"}

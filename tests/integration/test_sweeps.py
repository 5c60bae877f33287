"""The sweep: it finds what nobody works on, wakes only what was lost, and never takes a backlog for a loss."""

from __future__ import annotations

import itertools
import json
import re
import uuid
from collections import Counter
from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest
from psycopg import sql

from channels.contract import Capability
from notify_tasks import retrying
from notify_tasks.notification import uuid7
from notify_tasks.retrying import Situation
from notify_tasks.routing import CHANNELS, LANES, queue_for
from notify_tasks.states import WAITING, State
from notify_tasks.store import accepting, deliveries, sweeps
from notify_tasks.store.deliveries import ClaimRequest
from tests.integration.core_world import (
    LEASE,
    World,
    call,
    one_claim,
    plain,
    planned,
    result,
    together,
    world,
)

QUEUES = [(queue_for(channel, lane), channel, lane) for channel in CHANNELS for lane in LANES]
NOT_WAITING = sorted(set(State) - WAITING)


@pytest.fixture
def it(database: str) -> Iterator[World]:
    with world(database) as opened:
        yield opened


def put(it: World, state: str, **columns: Any) -> uuid.UUID:
    """A delivery in some state."""
    id_ = it.accept()
    for name, value in {"state": state, **columns}.items():
        it.rows(f"UPDATE notify.delivery SET {name} = %s WHERE id = %s", value, id_)
    return id_


def ids(wakes: list[sweeps.Wake]) -> list[uuid.UUID]:
    return sorted(wake.id for wake in wakes)


# --- leases -------------------------------------------------------------------------------------------


def begin(it: World, *, seconds_later: float = 0.0) -> bool:
    """Begin a sweep so many seconds after the last one; whether leases may be ended in it."""
    it.rows("UPDATE notify.sweep SET last_at = last_at - make_interval(secs => %s)", seconds_later)
    it.rows("UPDATE notify.sweep SET leases_from = leases_from - make_interval(secs => %s)", seconds_later)
    return sweeps.begin(it.db, by="test", lease=LEASE).leases_open


def test_the_very_first_sweep_ends_no_lease_for_one_full_lease(it: World) -> None:
    assert sweeps.last_age(it.db) is None
    assert not begin(it)
    assert sweeps.last_age(it.db) == pytest.approx(0, abs=5)
    for _ in range(7):
        assert not begin(it, seconds_later=LEASE / 8)
    assert begin(it, seconds_later=LEASE / 8 + 1)


def test_after_a_gap_in_the_sweeps_no_lease_ends_for_one_full_lease(it: World) -> None:
    begin(it)
    while not begin(it, seconds_later=10):
        pass
    assert begin(it, seconds_later=14)

    assert not begin(it, seconds_later=16)
    assert not begin(it, seconds_later=14)
    assert not begin(it, seconds_later=14)
    assert begin(it, seconds_later=13)


def test_another_gap_begins_the_wait_anew(it: World) -> None:
    begin(it)
    assert not begin(it, seconds_later=100)
    assert not begin(it, seconds_later=100)
    assert not begin(it, seconds_later=14)


@pytest.mark.parametrize("accepted", [False, True])
def test_a_lease_ends_as_the_rules_of_retrying_say(it: World, *, accepted: bool) -> None:
    cases = list(
        product((1, 8), ("hold", "resend"), (Capability.OPAQUE, Capability.IDEMPOTENT), (60.0, -60.0))
    )
    claimed = {case: it.claimed(provider=str(case[2])) for case in cases}
    for (attempts, on_doubt, _, lifetime), one in claimed.items():
        it.rows(
            "UPDATE notify.delivery SET attempts = %s, on_doubt = %s, accepted = %s,"
            " expires_at = now() + make_interval(secs => %s), lease_until = now() WHERE id = %s",
            *(attempts, on_doubt, accepted, lifetime, one.id),
        )

    wakes, ended = sweeps.end_leases(it.db, knowable=["idempotent"], limit=1000)

    assert ended == len(cases)
    expected_wakes = []
    for case, one in claimed.items():
        attempts, on_doubt, capability, lifetime = case
        verdict = retrying.lost(
            Situation(
                attempts=attempts,
                max_attempts=8,
                unknown=False,
                capability=capability,
                on_doubt=on_doubt,
                other_provider=True,
                lifetime=lifetime,
            )
        )
        row = it.row(one.id)
        expected = "sent" if accepted else "in_doubt" if verdict.state is State.IN_DOUBT else "queued"
        assert row["state"] == expected, case
        assert (row["unknown"], row["lease_until"], row["attempts"]) == (1, None, attempts)
        (attempt,) = it.attempts(one.id)
        assert (attempt["outcome"], attempt["code"]) == ("lost", "lease_expired")
        assert it.events(one.id) == ["lease_ended" if expected == "queued" else expected]
        if expected == "queued":
            expected_wakes.append(one.id)
    assert ids(wakes) == sorted(expected_wakes)


def test_without_any_knowable_provider_every_held_type_goes_into_doubt(it: World) -> None:
    one = it.claimed()
    it.rows("UPDATE notify.delivery SET on_doubt = 'hold'")
    assert it.end_lease(one.id, knowable=[]) == "in_doubt"


def test_a_lease_that_runs_is_left_alone(it: World) -> None:
    one = it.claimed()
    assert sweeps.end_leases(it.db, knowable=[], limit=10) == ([], 0)
    assert it.state(one.id) == "sending"


def test_two_sweeps_at_once_do_everything_once(it: World) -> None:
    leased = [it.claimed().id for _ in range(40)]
    it.rows("UPDATE notify.delivery SET lease_until = now()")
    due = [put(it, "held") for _ in range(40)]
    expiring = [put(it, "queued") for _ in range(40)]
    for id_ in due:
        it.shift(id_, due_at=-1)
    for id_ in expiring:
        it.shift(id_, expires_at=-1)

    def sweep(_: int) -> list[uuid.UUID]:
        woken: list[uuid.UUID] = []
        for _ in range(8):
            woken += ids(sweeps.end_leases(it.db, knowable=[], limit=7)[0])
            sweeps.expire(it.db, limit=7)
            woken += ids(sweeps.take_due(it.db, limit=7))
        return woken

    woken = Counter(id_ for one in together(4, sweep) for id_ in one)

    assert woken == Counter(leased + due)
    assert {it.state(id_) for id_ in expiring} == {"expired"}
    assert all(it.events(id_) == ["expired"] for id_ in expiring)
    assert all(it.row(id_)["unknown"] == 1 for id_ in leased)


# --- due and expired ----------------------------------------------------------------------------------


def test_what_is_due_is_queued_with_the_present_marker(it: World) -> None:
    found = {state: put(it, state, not_before="2020-01-01") for state in State}
    for id_ in found.values():
        it.shift(id_, due_at=-1)
    later = put(it, "held")
    it.shift(later, due_at=60)
    it.rows("INSERT INTO notify.marker (queue, n) VALUES ('notify.sms', 7)")

    wakes = sweeps.take_due(it.db, limit=100)

    assert ids(wakes) == sorted([found[State.HELD], found[State.RETRYING]])
    for id_ in ids(wakes):
        row = it.row(id_)
        assert (row["state"], row["due_at"], row["not_before"], row["marker"]) == ("queued", None, None, 7)
    assert it.state(later) == "held"


def test_the_oldest_are_taken_first_and_the_rest_next_time(it: World) -> None:
    waiting = [put(it, "held") for _ in range(5)]
    for seconds, id_ in enumerate(waiting):
        it.shift(id_, due_at=-100 + seconds)
    assert ids(sweeps.take_due(it.db, limit=2)) == sorted(waiting[:2])
    assert ids(sweeps.take_due(it.db, limit=9)) == sorted(waiting[2:])


@pytest.mark.parametrize("unknown", [0, 1])
def test_what_waits_past_its_expiry_ends(it: World, unknown: int) -> None:
    found = {state: put(it, state, unknown=unknown) for state in State}
    for id_ in found.values():
        it.shift(id_, expires_at=-1)
    alive = put(it, "queued")

    assert sweeps.expire(it.db, limit=100) == len(WAITING)

    for state in WAITING:
        assert it.state(found[state]) == ("in_doubt" if unknown else "expired")
        assert it.events(found[state]) == [it.state(found[state])]
    for state in NOT_WAITING:
        assert it.state(found[state]) == state
    assert it.state(alive) == "queued"


# --- markers ------------------------------------------------------------------------------------------


def pass_time(it: World, seconds: float) -> None:
    """As if so many seconds had passed for the markers."""
    it.rows(
        "UPDATE notify.marker SET sent_at = sent_at - make_interval(secs => %s),"
        " ran_at = ran_at - make_interval(secs => %s)",
        *(seconds, seconds),
    )


def send_marker(it: World, queue: str = "notify.sms") -> int:
    """The sweep sends the queue's next marker, ten seconds after the last one."""
    pass_time(it, 10)
    ((_, n),) = sweeps.new_markers(it.db, [queue], bucket=100)
    return n


def test_a_queue_gets_one_marker_every_ten_seconds(it: World) -> None:
    assert sorted(sweeps.new_markers(it.db, ["notify.sms", "notify.push"], bucket=5)) == [
        ("notify.push", 1),
        ("notify.sms", 1),
    ]
    assert sweeps.new_markers(it.db, ["notify.sms"], bucket=5) == []
    pass_time(it, 9)
    assert sweeps.new_markers(it.db, ["notify.sms"], bucket=6) == []
    pass_time(it, 1)
    assert sweeps.new_markers(it.db, ["notify.sms"], bucket=6) == [("notify.sms", 2)]


def test_sweeps_at_once_send_one_marker(it: World) -> None:
    sent = together(6, lambda _: sweeps.new_markers(it.db, ["notify.sms"], bucket=5))
    assert [marker for one in sent for marker in one] == [("notify.sms", 1)]


def test_the_highest_marker_that_ran_ten_seconds_ago_counts(it: World) -> None:
    numbers = [send_marker(it) for _ in range(4)]
    assert numbers == [1, 2, 3, 4]
    for n in (3, 1):  # an older one may come later
        sweeps.marker_ran(it.db, "notify.sms", n)
    assert sweeps.passed_markers(it.db) == {}

    pass_time(it, 9)
    assert sweeps.passed_markers(it.db) == {}
    pass_time(it, 2)
    sweeps.marker_ran(it.db, "notify.sms", 4)

    assert sweeps.passed_markers(it.db) == {"notify.sms": sweeps.Passed("notify.sms", 3, 100)}


def test_a_marker_that_comes_twice_ran_when_it_first_came(it: World) -> None:
    n = send_marker(it)
    sweeps.marker_ran(it.db, "notify.sms", n)
    pass_time(it, 11)
    sweeps.marker_ran(it.db, "notify.sms", n)
    assert sweeps.passed_markers(it.db)["notify.sms"].n == n


def test_a_queue_whose_markers_do_not_come_back_is_silent(it: World) -> None:
    sweeps.marker_ran(it.db, "notify.sms", send_marker(it))
    assert sweeps.silent_queues(it.db) == {}
    for _ in range(3):
        send_marker(it)
    pass_time(it, 5)
    assert sweeps.silent_queues(it.db) == {"notify.sms": pytest.approx(25, abs=5)}


def test_old_markers_are_forgotten_and_numbers_never_begin_anew(it: World) -> None:
    it.rows(
        "INSERT INTO notify.marker (queue, n, ran_at) SELECT 'notify.sms', generate_series(1, 200), now()"
    )
    sweeps.prune_markers(it.db)
    (row,) = it.rows("SELECT min(n) AS low, max(n) AS high FROM notify.marker")
    assert (row["low"], row["high"]) == (200 - sweeps.MARKERS_KEPT, 200)
    assert send_marker(it) == 201


# --- lost or only behind --------------------------------------------------------------------------------


def find_lost(it: World) -> list[uuid.UUID]:
    """What a sweep wakes again."""
    passed = sweeps.passed_markers(it.db)
    targets = [(channel, lane, passed[queue].n) for queue, channel, lane in QUEUES if queue in passed]
    return ids(sweeps.take_lost(it.db, targets, limit=100)) if targets else []


def come_back(it: World, n: int) -> None:
    """Marker n runs, and its ten seconds pass."""
    sweeps.marker_ran(it.db, "notify.sms", n)
    pass_time(it, 11)


def test_a_row_is_lost_once_two_markers_after_it_have_come_back(it: World) -> None:
    come_back(it, send_marker(it))
    lost = it.accept()
    assert it.row(lost)["marker"] == 1

    # The very next marker may have overtaken its message, which is published after its commit;
    come_back(it, send_marker(it))
    assert find_lost(it) == []

    # the one after that cannot.
    come_back(it, send_marker(it))
    assert find_lost(it) == [lost]

    # Woken again, it is as new.
    assert it.row(lost)["marker"] == 3
    assert find_lost(it) == []
    come_back(it, send_marker(it))
    assert find_lost(it) == []
    come_back(it, send_marker(it))
    assert find_lost(it) == [lost]


def test_a_backlog_is_not_a_loss(it: World) -> None:
    # Given rows behind a slow provider: their markers are in the queue, too, and none comes back,
    waiting = [it.accept() for _ in range(5)]
    for _ in range(30):
        send_marker(it)
        assert find_lost(it) == []

    # when a marker from before them comes back, they are still only waiting.
    later = it.accept()
    come_back(it, 1)
    assert find_lost(it) == []
    come_back(it, 2)
    assert find_lost(it) == sorted(waiting)
    assert it.row(later)["marker"] == 30


def test_without_a_marker_nothing_is_published_however_old_it_is(it: World) -> None:
    id_ = it.accept()
    it.shift(id_, created_at=-1e6, updated_at=-1e6)
    send_marker(it)
    assert find_lost(it) == []


def test_one_queues_markers_say_nothing_of_another(it: World) -> None:
    normal, high = it.accept(), it.accept(call(priority="high"))
    for _ in range(3):
        come_back(it, send_marker(it))
    assert find_lost(it) == [normal]
    assert it.row(high)["marker"] == 0


def test_only_queued_rows_are_woken_as_lost(it: World) -> None:
    found = {state: put(it, state) for state in State}
    for _ in range(3):
        come_back(it, send_marker(it))
    assert find_lost(it) == [found[State.QUEUED]]


def test_a_message_that_was_put_back_may_be_woken_twice_and_is_sent_once(it: World) -> None:
    # Given a message that a worker put back behind its markers,
    id_ = it.accept()
    for _ in range(3):
        come_back(it, send_marker(it))
    assert find_lost(it) == [id_]

    # when both wake-ups arrive, then one claims and the other finds nothing to do.
    assert [it.claim(id_) is None for _ in range(2)] == [False, True]
    assert deliveries.read_waiting(it.db, [id_]) == []


def test_two_sweeps_at_once_wake_a_lost_row_once(it: World) -> None:
    lost = [it.accept() for _ in range(60)]
    for _ in range(3):
        come_back(it, send_marker(it))
    found = together(4, lambda _: find_lost(it))
    assert sorted(id_ for one in found for id_ in one) == sorted(lost)


def test_a_row_that_somebody_else_is_working_on_is_passed_over(it: World) -> None:
    # Given a lost row, a due one, an expired one and an ended lease, each in the hands of another transaction,
    it.accept()
    for _ in range(3):
        come_back(it, send_marker(it))
    it.shift(put(it, "held"), due_at=-1)
    it.shift(put(it, "retrying"), expires_at=-1)
    it.shift(it.claimed().id, lease_until=-1)

    def hold_and_look(connection: Any) -> list[Any]:
        connection.execute("SELECT 1 FROM notify.delivery FOR UPDATE")
        return [
            find_lost(it),
            sweeps.take_due(it.db, limit=10),
            sweeps.expire(it.db, limit=10),
            sweeps.end_leases(it.db, knowable=[], limit=10)[1],
        ]

    # then a sweep neither takes them nor waits for them, and the next one does.
    assert it.db.transact(hold_and_look) == [[], [], 0, 0]
    assert len(find_lost(it)) == len(sweeps.take_due(it.db, limit=10)) == sweeps.expire(it.db, limit=10) == 1
    assert sweeps.end_leases(it.db, knowable=[], limit=10)[1] == 1


def test_queues_with_waiting_rows_are_those_that_need_a_marker(it: World) -> None:
    for state in State:
        put(it, state)
    it.accept(call(to={"push": "t-1"}, channels=["push"], priority="bulk"))
    assert sweeps.queues_with_waiting_rows(it.db, QUEUES) == ["notify.sms", "notify.push.bulk"]
    it.rows("UPDATE notify.delivery SET state = 'sent'")
    assert sweeps.queues_with_waiting_rows(it.db, QUEUES) == []


def test_totals_add_up(it: World) -> None:
    together(5, lambda _: sweeps.count(it.db, "rewoken_as_lost", 3))
    sweeps.count(it.db, "leases_ended", 0)
    assert sweeps.counters(it.db) == {"rewoken_as_lost": 15}


# --- the plans of the hot statements ----------------------------------------------------------------------

FINISHED = 200_000


@pytest.fixture
def history(it: World) -> World:
    """Two hundred thousand finished deliveries, a few that wait, and fresh statistics."""
    it.rows(
        """WITH n AS (
            INSERT INTO notify.notification (id, tenant, message_id, event_type, occurred_at, payload, plan,
                                             state, hash)
            SELECT gen_random_uuid(), 'default', 'old-' || k, 'test.ping', now(), '{}', '{}', 'accepted', 'h'
              FROM generate_series(1, 2000) k RETURNING id, message_id)
        INSERT INTO notify.delivery (id, notification_id, tenant, message_id, event_type, address, channel, lane, state,
                                     on_doubt, max_attempts, fence, attempts, provider, expires_at)
        SELECT gen_random_uuid(), n.id, 'default', n.message_id, 'test.ping', 'a', 'sms', 'normal',
               (ARRAY['sent', 'failed', 'delivered', 'expired'])[1 + k %% 4], 'hold', 8, 1, 1, 'a', now()
          FROM n, generate_series(1, %s) k""",
        FINISHED // 2000,
    )
    it.rows(
        "INSERT INTO notify.attempt (token, delivery_id, number, fence, provider, idempotency_key, worker, outcome)"
        " SELECT gen_random_uuid(), id, 1, 1, 'a', 'k', 'w', 'accepted' FROM notify.delivery"
    )
    it.rows(
        "INSERT INTO notify.message_key (tenant, message_id, hash, notification_id)"
        " SELECT 'default', id::text, 'h', id FROM notify.delivery"
    )
    for _ in range(30):
        put(it, "held")
        it.accept()
        it.accept(claim=one_claim())
    for table in ("delivery", "attempt", "notification", "message_key"):
        it.rows(f"ANALYZE notify.{table}")
    return it


def nodes(plan: Any) -> Iterator[dict[str, Any]]:
    """Every node of a plan as EXPLAIN (FORMAT JSON) gives it."""
    if isinstance(plan, dict):
        yield plan
        plan = list(plan.values())
    if isinstance(plan, list):
        for inner in plan:
            yield from nodes(inner)


def plans(it: World, statement: str, parameters: Any) -> Iterator[tuple[str, Any]]:
    """The plan of a statement that is planned each time, and that of one that is prepared for any parameters."""
    numbers = itertools.count(1)
    prepared = re.sub("%s", lambda _: f"${next(numbers)}", statement)
    with plain(it.url) as connection:
        values = sql.SQL(", ").join(sql.Literal(value) for value in parameters)
        connection.execute(f"PREPARE it AS {prepared}")
        for mode in ("custom", "generic"):
            connection.execute(f"SET plan_cache_mode = force_{mode}_plan")
            explain = sql.SQL("EXPLAIN (FORMAT JSON) EXECUTE it ({})").format(values)
            row = connection.execute(explain).fetchone()
            assert row is not None
            yield mode, row[0]


def test_history_does_not_slow_the_hot_statements(history: World) -> None:
    it = history
    waiting = it.rows("SELECT id FROM notify.delivery WHERE state = 'queued' LIMIT 1")[0]["id"]
    sending = it.rows("SELECT id FROM notify.delivery WHERE state = 'sending' LIMIT 1")[0]["id"]
    (token,) = [row["token"] for row in it.attempts(sending)]
    asked: list[tuple[str, Any]] = []

    class Recorder:
        """A database that notes what it is asked and answers nothing."""

        def rows(self, statement: str, parameters: Any = ()) -> list[Any]:
            asked.append((statement, parameters))
            return []

    recorder: Any = Recorder()
    claimed = deliveries.Claimed(
        **dict.fromkeys(deliveries.Claimed.__dataclass_fields__)
        | {"id": sending, "token": token, "fence": 1, "channel": "sms", "lane": "normal"}
    )
    calls: dict[str, Any] = {
        "take_due": lambda: sweeps.take_due(recorder, limit=1000),
        "take_lost": lambda: sweeps.take_lost(recorder, [("sms", "normal", 9)], limit=1000),
        "end_leases": lambda: sweeps.end_leases(recorder, knowable=["a"], limit=1000),
        "expire": lambda: sweeps.expire(recorder, limit=1000),
        "queues_with_waiting_rows": lambda: sweeps.queues_with_waiting_rows(recorder, QUEUES),
        "claim": lambda: deliveries.claim(recorder, [ClaimRequest(waiting, uuid7(), "a", LEASE, "w")]),
        "record": lambda: deliveries.record(recorder, [result(claimed, "accepted", State.SENT)]),
        "read_waiting": lambda: deliveries.read_waiting(recorder, [waiting]),
        "hold": lambda: deliveries.hold(recorder, [(waiting, 5.0, "x")]),
        "restamp": lambda: deliveries.restamp(recorder, [waiting], "notify.sms"),
        "accept": lambda: accepting.accept(recorder, [planned(call())]),
    }
    partial = {
        "take_due": "delivery_due",
        "take_lost": "delivery_queued",
        "end_leases": "delivery_leased",
        "expire": "delivery_expiring",
        "queues_with_waiting_rows": "delivery_queued",
    }
    for name, ask in calls.items():
        asked.clear()
        ask()
        for mode, plan in plans(it, *asked[0]):
            found = list(nodes(plan))
            scans = {
                node["Relation Name"]
                for node in found
                if node.get("Node Type") == "Seq Scan"
                and node["Relation Name"] in {"delivery", "attempt", "notification", "message_key"}
            }
            assert not scans, f"{name} ({mode}) reads all of {scans}: {json.dumps(plan)[:3000]}"
            if name in partial:
                assert partial[name] in {node.get("Index Name") for node in found}, (name, mode)


# --- places in a provider's rate ------------------------------------------------------------------------


def test_what_waits_for_a_rate_gets_new_places_in_its_order(it: World) -> None:
    late, early, other = (put(it, "held") for _ in range(3))
    for id_, reason, due in ((late, "rate:a", 900), (early, "rate:a", 60), (other, "rate:b", 60)):
        it.rows(
            "UPDATE notify.delivery SET reason = %s, due_at = now() + make_interval(secs => %s) WHERE id = %s",
            reason, due, id_,
        )  # fmt: skip

    assert sorted(sweeps.respread(it.db, "rate:a", 0.5)) == [0.5, 1.0]

    waits = {
        row["id"]: row["wait"]
        for row in it.rows(
            "SELECT id, extract(epoch FROM due_at - now())::float8 AS wait FROM notify.delivery"
        )
    }
    assert waits[early] <= 0.5 < waits[late] <= 1.0
    assert waits[other] > 50

    assert sweeps.respread(it.db, "rate:a", 0.0) == [0.0, 0.0]  # no rate any more
    assert set(ids(sweeps.take_due(it.db, limit=10))) == {early, late}

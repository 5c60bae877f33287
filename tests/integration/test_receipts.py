"""Receipts: kept before anything is done about them, applied once, forward only, and never to somebody else."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from channels.receipts import Event, Fate, Receipt, Standing
from notify_tasks import doctor, receipts
from notify_tasks.broker import Broker
from notify_tasks.calls import build_notification
from notify_tasks.notification import uuid7
from notify_tasks.states import State, may_move
from notify_tasks.store import accepting, erasing, receipts_seen, recipients, suppressions, sweeps
from notify_tasks.store import receipts as stored
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
from tests.integration.gateway_app import ReportingProvider

ACCEPTED, SENT, UNDELIVERED, DELIVERED, READ = Fate
_numbers = itertools.count(1)


@pytest.fixture
def it(database: str) -> Iterator[World]:
    with world(database) as opened:
        yield opened


def event(fate: Fate | None = None, of: uuid.UUID | None = None, **more: Any) -> Event:
    given = {"id": f"e{next(_numbers)}", "code": fate or "word", "fate": fate}
    return Event(**given | {"delivery_id": None if of is None else str(of)} | more)


def keep(it: World, *events: Event, provider: str = "a", channel: str = "sms") -> list[int]:
    return list(stored.keep(it.db, provider, channel, events, b"{}\nwhat came").new)


def report(it: World, *events: Event, **options: Any) -> list[str]:
    """Keep and apply, each event in a request of its own; what became of each."""
    return [applied.state for one in events for applied in stored.apply(it.db, keep(it, one, **options))]


def sent(it: World, **options: Any) -> uuid.UUID:
    one = it.claimed(**options)
    it.record(one, "accepted", State.SENT, code="250")
    return one.id


def in_doubt(it: World) -> uuid.UUID:
    one = it.claimed()
    it.record(one, "uncertain", State.IN_DOUBT, unknown=True)
    return one.id


def waiting(it: World, state: str) -> uuid.UUID:
    """One that is sent again soon, since nobody knows whether the first attempt got through."""
    one = it.claimed()
    assert it.end_lease(one.id) == "queued"
    it.rows(
        "UPDATE notify.delivery SET state = %s, due_at = now() + interval '1 min' WHERE id = %s",
        state,
        one.id,
    )
    return one.id


def receipt_rows(it: World) -> list[dict[str, Any]]:
    return it.rows("SELECT * FROM notify.receipt ORDER BY id")


def make_due(it: World) -> list[int]:
    it.rows("UPDATE notify.receipt SET due_at = now()")
    return stored.take_due(it.db, limit=100)


# --- forward only ---------------------------------------------------------------------------------------


def test_in_all_orders_and_three_times_each_a_delivery_ends_in_the_highest_state(it: World) -> None:
    orders = list(itertools.permutations(Fate))
    ids = [sent(it) for _ in orders]
    for id_, order in zip(ids, orders, strict=True):
        one_each = {fate: event(fate, id_, id=f"{id_}:{fate}") for fate in order}
        moves = ["sent"]
        for fate in order * 2 + tuple(reversed(order)):
            report(it, one_each[fate])
            if (now := it.state(id_)) != moves[-1]:
                moves.append(now)
        assert it.state(id_) == "delivered", order
        assert all(may_move(State(old), State(new)) for old, new in itertools.pairwise(moves)), moves
        assert sorted(it.events(id_)) == sorted(["sent", *moves[1:], "read"]), order
    assert len(receipt_rows(it)) == len(orders) * len(Fate)


def test_several_events_of_one_request_count_as_the_highest(it: World) -> None:
    for order in itertools.permutations((ACCEPTED, UNDELIVERED, DELIVERED)):
        id_ = sent(it)
        stored.apply(it.db, keep(it, *(event(fate, id_) for fate in order)))
        assert it.events(id_) == ["sent", "delivered"]


def test_two_workers_with_the_same_receipts_apply_each_once(it: World) -> None:
    ids = [sent(it) for _ in range(20)]
    kept = keep(it, *(event(fate, id_) for id_ in ids for fate in (DELIVERED, READ)))
    done = together(4, lambda _: stored.apply(it.db, kept))
    assert sorted(one.id for each in done for one in each) == kept
    assert {tuple(it.events(id_)) for id_ in ids} == {("sent", "delivered", "read")}


def test_what_ended_otherwise_stays_so(it: World) -> None:
    for state in ("failed", "cancelled", "expired", "suppressed", "superseded"):
        id_ = sent(it)
        it.rows("UPDATE notify.delivery SET state = %s WHERE id = %s", state, id_)
        assert report(it, *(event(fate, id_) for fate in Fate)) == ["applied"] * 5
        assert it.state(id_) == state


def test_its_event_has_the_providers_code_and_our_sentence(it: World) -> None:
    id_ = sent(it)
    report(it, event(UNDELIVERED, id_, code="30003", detail="the handset is off"))
    (found,) = it.rows("SELECT tenant, kind, code, detail FROM notify.status_event WHERE kind <> 'sent'")
    assert found == {
        "tenant": "default", "kind": "undelivered", "code": "30003", "detail": "the handset is off",
    }  # fmt: skip
    assert it.row(id_)["reason"] == "30003"


# --- doubts ---------------------------------------------------------------------------------------------

RESOLVED = [
    (ACCEPTED, "sent"),
    (SENT, "sent"),
    (UNDELIVERED, "undelivered"),
    (DELIVERED, "delivered"),
    (READ, "delivered"),
]


def test_a_doubt_is_resolved(it: World) -> None:
    for fate, state in RESOLVED:
        id_ = in_doubt(it)
        report(it, event(fate, id_, provider_message_id="SM1"))
        assert it.state(id_) == state, fate
        assert it.events(id_)[:2] == ["in_doubt", state]
        row = it.row(id_)
        assert (row["accepted"], row["provider_message_id"], row["unknown"]) == (True, "SM1", 1)


def test_a_doubt_of_more_than_72_hours_is_final(it: World) -> None:
    young, old = in_doubt(it), in_doubt(it)
    it.shift(young, updated_at=-71 * 3600)
    it.shift(old, updated_at=-73 * 3600)
    assert report(it, event(DELIVERED, young), event(DELIVERED, old)) == ["applied"] * 2
    assert (it.state(young), it.state(old)) == ("delivered", "in_doubt")


def test_a_resend_that_waits_is_stopped(it: World) -> None:
    for state, (fate, end) in itertools.product(("held", "queued", "retrying"), RESOLVED):
        id_ = waiting(it, state)
        report(it, event(fate, id_))
        assert (it.state(id_), it.row(id_)["due_at"]) == (end, None), (state, fate)
        assert may_move(State(state), State(end))
        assert it.claim(id_) is None
        sweeps.take_due(it.db, limit=10)
        assert it.state(id_) == end


def test_what_was_surely_not_accepted_is_tried_again_after_a_refusal_that_comes_twice(it: World) -> None:
    one = it.claimed()
    it.record(one, "try_later", State.RETRYING, due=60.0)
    assert report(it, event(UNDELIVERED, one.id)) == ["applied"]
    assert it.state(one.id) == "retrying"
    report(it, event(DELIVERED, one.id))  # but one that has arrived is not sent again
    assert it.state(one.id) == "delivered"


def test_what_one_provider_refused_does_not_undo_what_another_took(it: World) -> None:
    first = it.claimed(provider="a")
    it.record(first, "unavailable", State.QUEUED)
    second = it.claimed(first.id, "b")
    it.record(second, "accepted", State.SENT)
    assert report(it, event(UNDELIVERED, first.id), provider="a") == ["applied"]
    assert it.state(first.id) == "sent"
    report(it, event(UNDELIVERED, first.id), provider="b")
    assert it.state(first.id) == "undelivered"


# --- before the response ----------------------------------------------------------------------------------


def test_a_receipt_before_the_response_waits_and_then_counts(it: World) -> None:
    # Given a call that is on its way,
    one = it.claimed()
    # when the provider reports before it has answered,
    assert report(it, event(DELIVERED, one.id)) == ["waiting"]
    assert (it.state(one.id), it.row(one.id)["accepted"]) == ("sending", True)
    (row,) = receipt_rows(it)
    assert 0 < (row["due_at"] - datetime.now(UTC)).total_seconds() < 5
    # and then answers,
    it.record(one, "accepted", State.SENT)
    # then the receipt counts at its next try.
    assert [done.moved for done in stored.apply(it.db, make_due(it))] == ["delivered"]
    assert it.events(one.id) == ["sent", "delivered"]


def test_an_answer_that_is_lost_after_a_receipt_leaves_no_doubt_and_no_resend(it: World) -> None:
    for end in ("lease", "uncertain", "try_later"):
        one = it.claimed()
        report(it, event(ACCEPTED, one.id))
        if end == "lease":
            assert it.end_lease(one.id) == "sent"
        else:
            it.record(one, end, State.RETRYING, unknown=end == "uncertain", due=1.0)
            assert it.state(one.id) == "sent", end


# --- whose it is ----------------------------------------------------------------------------------------


def test_only_a_delivery_of_the_channel_that_was_tried_is_matched(it: World) -> None:
    untried, other = it.accept(), sent(it)
    assert report(it, event(DELIVERED, untried), event(DELIVERED, uuid7())) == ["waiting"] * 2
    assert report(it, event(DELIVERED, other), channel="email") == ["waiting"]
    assert (it.state(untried), it.state(other)) == ("queued", "sent")


def test_one_that_matches_nothing_is_tried_again_and_given_up_after_72_hours(
    it: World, caplog: pytest.LogCaptureFixture
) -> None:
    ids = keep(it, event(DELIVERED, uuid7(), address=PHONE))
    waits = []
    for _ in range(14):
        assert receipts.apply(it.db, ids).waiting == 1
        (row,) = receipt_rows(it)
        waits.append(round((row["due_at"] - datetime.now(UTC)).total_seconds()))
        assert stored.take_due(it.db, limit=10) == []
        assert make_due(it) == ids
    assert waits == sorted(waits)
    assert waits[0] == pytest.approx(5, abs=3)
    assert waits[-1] == pytest.approx(3600, abs=5)

    it.rows("UPDATE notify.receipt SET give_up_at = give_up_at - interval '71 h 59 min'")
    assert receipts.apply(it.db, ids).waiting == 1
    it.rows("UPDATE notify.receipt SET give_up_at = give_up_at - interval '1 min'")
    assert receipts.apply(it.db, ids).unmatched == 1

    assert make_due(it) == []
    assert "receipts of a about nothing that this fleet has sent: 1" in caplog.text
    assert PHONE not in caplog.text
    assert receipts_seen.troubled(it.db) == {"unmatched": 1}
    # An operator who knows better has it looked for anew.
    assert receipts_seen.try_anew(it.db, [*ids, 99]) == ids
    assert receipts.apply(it.db, ids).waiting == 1


def test_doctor_tells_of_receipts_that_nobody_looks_at_and_of_those_that_nobody_can_use(it: World) -> None:
    assert list(doctor._receipts(it.db)) == []
    keep(it, event(DELIVERED, uuid7()))
    report(it, event(DELIVERED))
    it.rows("UPDATE notify.receipt SET received_at = received_at - interval '2 min'")
    untouched, trouble = doctor._receipts(it.db)
    assert "2 min ago" in untouched.text
    assert "-Q notify.receipts" in untouched.remedy
    assert "1 unmatched" in trouble.text
    assert trouble.remedy == "Type `notify receipts list`"


def test_its_delivery_may_come_later(it: World) -> None:
    one = it.accept()
    ids = keep(it, event(DELIVERED, one))
    stored.apply(it.db, ids)
    it.record(it.claimed(one), "accepted", State.SENT)
    stored.apply(it.db, make_due(it))
    assert it.state(one) == "delivered"


def test_what_cannot_be_anybodys_is_shown_at_once_and_what_says_nothing_is_done(it: World) -> None:
    assert report(it, event(DELIVERED), event(DELIVERED, delivery_id="no-uuid"), event()) == [
        "unmatched", "unmatched", "applied",
    ]  # fmt: skip


# --- addresses ------------------------------------------------------------------------------------------


def suppressed(it: World) -> dict[tuple[str, str], tuple[str, str]]:
    rows = it.rows("SELECT * FROM notify.suppression")
    return {(row["tenant"], row["address"]): (row["reason"], row["source"]) for row in rows}


def accept_for(it: World, tenant: str, address: str = PHONE) -> uuid.UUID:
    return it.accept(call(tenant=tenant, to={"sms": address}))


def test_an_event_of_a_delivery_suppresses_its_address_for_its_tenant_alone(it: World) -> None:
    for standing in (Standing.INVALID, Standing.OPTED_OUT, Standing.COMPLAINED):
        one = it.claimed(accept_for(it, "shop"))
        other = accept_for(it, "bank")
        it.record(one, "accepted", State.SENT)
        report(it, event(UNDELIVERED, one.id, standing=standing, address="+15550000000"))
        assert suppressed(it) == {("shop", PHONE): (standing, "receipts:a")}
        assert it.claim(other) is not None
        assert it.state(accept_for(it, "shop")) == "suppressed"
        it.rows("DELETE FROM notify.suppression")


def test_a_stop_without_a_delivery_holds_for_every_tenant_at_plan_and_at_claim(it: World) -> None:
    # Given two tenants, each with one that waits,
    ones = [accept_for(it, tenant) for tenant in ("shop", "bank")]
    # when the person says stop to our number,
    assert report(it, event(standing=Standing.OPTED_OUT, address=PHONE)) == ["applied"]
    # then nothing goes to it, whoever sends,
    assert suppressed(it) == {("*", PHONE): ("opted_out", "receipts:a")}
    assert [it.claim(one) for one in ones] == [None, None]
    assert [it.state(one) for one in ones] == ["suppressed"] * 2
    assert it.state(accept_for(it, "third")) == "suppressed"
    hop = planned(call(tenant="fourth"), claim=one_claim())
    accepting.accept(it.db, [hop])
    assert it.state(hop.deliveries[0].id) == "suppressed"
    bare = call(tenant="shop")
    assert read_context(it.db, [bare]).of(bare)[1] == {("sms", PHONE)}
    # and other addresses are free.
    assert it.claim(accept_for(it, "shop", "+4915112345679")) is not None


def test_a_person_with_their_own_suppression_and_everybodys_is_found_once(it: World) -> None:
    recipients.upsert(it.db, "u1", {"sms": PHONE}, tenant="shop")
    for tenant in ("shop", "*"):
        suppressions.suppress(it.db, "sms", PHONE, reason="by_operator", tenant=tenant)
    person = call(tenant="shop", to="u1")
    known, pairs = read_context(it.db, [person]).of(person)
    assert known["u1"].addresses == {"sms": (PHONE,)}
    assert pairs == {("sms", PHONE)}
    assert it.state(accept_for(it, "shop")) == "suppressed"


def test_a_dead_token_is_no_contact_point_any_more(it: World) -> None:
    for tenant, person in (("shop", "u1"), ("shop", "u2"), ("bank", "u1")):
        recipients.upsert(it.db, person, {"push": "token-1", "sms": PHONE}, tenant=tenant)
    one = it.claimed(it.accept(call(tenant="shop", to={"push": "token-1"}, channels=["push"])))
    it.record(one, "accepted", State.SENT)
    report(it, event(UNDELIVERED, one.id, standing=Standing.INVALID), channel="push")
    left = it.rows("SELECT tenant, recipient_id, channel FROM notify.contact_point WHERE channel = 'push'")
    assert left == [{"tenant": "bank", "recipient_id": "u1", "channel": "push"}]
    assert len(it.rows("SELECT 1 AS one FROM notify.contact_point WHERE channel = 'sms'")) == 3


def test_an_opt_in_takes_back_only_a_stop_said_in_the_same_way(it: World) -> None:
    start = {"standing": Standing.OPTED_IN, "address": PHONE}
    for reason, source in (
        ("opted_out", "operator"),
        ("address_invalid", "receipts:a"),
        ("opted_out", "receipts:b"),
    ):
        suppressions.suppress(it.db, "sms", PHONE, reason=reason, source=source, tenant="*")
        report(it, event(**start))
        assert suppressed(it) == {("*", PHONE): (reason, source)}
        it.rows("DELETE FROM notify.suppression")
    report(it, event(standing=Standing.OPTED_OUT, address=PHONE), event(**start))
    assert suppressed(it) == {}


def test_of_stop_and_start_the_later_counts_in_whatever_order_they_come(it: World) -> None:
    noon = datetime(2026, 5, 1, 12, tzinfo=UTC)
    stop, start = Standing.OPTED_OUT, Standing.OPTED_IN
    for said, order, at_once in itertools.product(
        ((stop, start, stop), (start, stop, start)), itertools.permutations((0, 1, 2)), (False, True)
    ):
        events = [
            event(standing=said[hour], address=PHONE, at=noon + timedelta(hours=hour)) for hour in order
        ]
        if at_once:
            stored.apply(it.db, keep(it, *events))
        else:
            report(it, *events)
        assert bool(suppressed(it)) is (said[-1] is stop), (said, order, at_once)
        it.rows("DELETE FROM notify.suppression")
        it.rows("DELETE FROM notify.receipt")


def test_what_the_person_said_outlasts_what_the_provider_thinks(it: World) -> None:
    for standing in (
        Standing.INVALID,
        Standing.COMPLAINED,
        Standing.OPTED_OUT,
        Standing.COMPLAINED,
        Standing.INVALID,
    ):
        report(it, event(standing=standing, address=PHONE))
    assert suppressed(it) == {("*", PHONE): ("opted_out", "receipts:a")}


def test_nobody_is_called_as_the_suppression_of_all(it: World) -> None:
    with pytest.raises(ValueError, match="tenant"):
        build_notification(now=datetime.now(UTC), event_type="a.b", to={"sms": PHONE}, payload={}, tenant="*")
    from notify_tasks.errors import WireError  # noqa: PLC0415
    from notify_tasks.notification import Notification  # noqa: PLC0415

    wire = call().to_wire()
    with pytest.raises(WireError, match="tenant"):
        Notification.from_wire(wire | {"tenant": "*"})
    with pytest.raises(BadRow):
        recipients.upsert(it.db, "u1", {}, tenant="*")


def test_an_erased_persons_address_is_not_written_again(it: World) -> None:
    id_ = sent(it)
    it.rows("UPDATE notify.delivery SET address = ''")
    report(it, event(UNDELIVERED, id_, standing=Standing.INVALID, address=PHONE))
    assert suppressed(it) == {}


def test_erasing_a_person_erases_what_providers_said_of_them(it: World) -> None:
    recipients.upsert(it.db, "u1", {"sms": PHONE})
    one = it.claimed(it.accept(call(to={"id": "u1", "sms": PHONE})))
    it.record(one, "accepted", State.SENT)
    keep(it, event(of=one.id, address=PHONE, known=False))
    report(it, event(DELIVERED, one.id, address=PHONE))
    erasing.erase(it.db, "u1")
    assert [(row["address"], row["request_id"]) for row in receipt_rows(it)] == [(None, None)] * 2
    assert it.rows("SELECT * FROM notify.receipt_request") == []


# --- kept -----------------------------------------------------------------------------------------------


def test_an_event_told_again_is_one_row_and_another_providers_is_another(it: World) -> None:
    one = event(DELIVERED, uuid7(), id="same")
    assert len(keep(it, one, one)) == 1
    again = stored.keep(it.db, "a", "sms", [one], b"x")
    assert (again.new, again.repeated) == ((), 1)
    assert len(keep(it, one, provider="b")) == 1
    assert it.rows("SELECT count(*) AS n FROM notify.receipt_request") == [{"n": 2}]


def test_many_requests_at_once_keep_each_event_once(it: World) -> None:
    events = [event(DELIVERED, uuid7(), id=f"n{n}") for n in range(50)]
    kept = together(6, lambda n: stored.keep(it.db, "a", "sms", events[:: -1 if n % 2 else 1], b"x"))
    assert sum(len(each.new) for each in kept) == 50 == len(receipt_rows(it))


def test_what_came_is_kept_until_all_of_it_is_applied(it: World) -> None:
    id_ = sent(it)
    ids = keep(it, event(DELIVERED, id_), event(DELIVERED, uuid7()))
    requests = "SELECT raw FROM notify.receipt_request"
    stored.apply(it.db, ids)
    assert [bytes(row["raw"]) for row in it.rows(requests)] == [b"{}\nwhat came"]
    it.rows("UPDATE notify.receipt SET delivery_id = %s", id_)
    stored.apply(it.db, make_due(it))
    assert it.rows(requests) == []


def test_a_row_that_was_kept_and_not_announced_is_found_by_the_sweep(it: World) -> None:
    id_ = sent(it)
    kept = keep(it, event(DELIVERED, id_))
    assert it.state(id_) == "sent"  # the process ended between the commit and the wake-up
    it.rows("UPDATE notify.receipt SET due_at = due_at - interval '4 s'")
    assert stored.take_due(it.db, limit=10) == kept
    assert stored.take_due(it.db, limit=10) == []  # one worker is told, for now
    it.rows("UPDATE notify.receipt SET due_at = due_at - interval '31 s'")
    assert stored.take_due(it.db, limit=10) == kept
    stored.apply(it.db, kept)
    assert it.state(id_) == "delivered"


def test_whatever_a_provider_says_can_be_stored(it: World) -> None:
    wild = "a\0\ud800" + "x" * 5000
    (id_,) = keep(
        it, event(DELIVERED, id=wild, code=wild, detail=wild, provider_message_id=wild, address=wild)
    )
    assert [one.state for one in stored.apply(it.db, [id_])] == ["unmatched"]
    assert keep(it, event(DELIVERED, id=wild)) == []


def test_one_that_postgresql_refuses_does_not_hold_up_its_neighbours(
    it: World, caplog: pytest.LogCaptureFixture
) -> None:
    ones = [sent(it) for _ in range(3)]
    ids = keep(it, *(event(DELIVERED, one) for one in ones))
    it.rows("ALTER TABLE notify.status_event ADD CHECK (kind = 'sent' OR delivery_id <> '%s')" % ones[1])  # noqa: UP031
    done = receipts.apply(it.db, ids)
    assert (done.applied, done.refused) == (2, 1)
    assert [it.state(one) for one in ones] == ["delivered", "sent", "delivered"]
    assert [row["state"] for row in receipt_rows(it)] == ["applied", "unreadable", "applied"]


def test_an_answer_of_postgresql_that_is_lost_changes_nothing(it: World) -> None:
    id_ = sent(it)
    with proxied(it.url) as proxy, world(proxy.url, wait=2) as far:
        one = event(DELIVERED, id_)
        proxy.arm("lose_answer", b"COMMIT")
        with pytest.raises(DatabaseAway):
            keep(far, one)
        kept = stored.keep(far.db, "a", "sms", [one], b"x")  # the provider sends it again
        assert kept.repeated == 1
        ids = make_due(it)
        proxy.arm("lose_answer", b"COMMIT")
        with pytest.raises(DatabaseAway):
            stored.apply(far.db, ids)
        assert stored.apply(far.db, ids) == []
    assert it.events(id_) == ["sent", "delivered"]


def test_a_receipt_waits_for_a_result_that_is_being_written(it: World) -> None:
    one = it.claimed()
    ids = keep(it, event(DELIVERED, one.id))
    with plain(it.url) as other, other.transaction():
        other.execute("SELECT 1 FROM notify.delivery WHERE id = %s FOR UPDATE", (one.id,))
        done = together_with(it, ids)
        until(waiting_for_locks(it.url, 1), "the receipt waits")
        other.execute("UPDATE notify.delivery SET state = 'sent' WHERE id = %s", (one.id,))
    assert [each.moved for each in done()] == ["delivered"]


def together_with(it: World, ids: Sequence[int]) -> Any:
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415

    pool = ThreadPoolExecutor(1)
    future = pool.submit(stored.apply, it.db, ids)

    def result() -> list[stored.Applied]:
        found = future.result(10)
        pool.shutdown()
        return found

    return result


# --- taking in ------------------------------------------------------------------------------------------


def test_what_is_stored_of_a_request_is_all_but_what_proves_who_asked() -> None:
    body = b"{}\n\0\xff\n"
    headers = {"content-type": "x/y", "authorization": "Basic c2VjcmV0", "cookie": "a"}
    back = receipts.unpack(receipts.pack(Receipt("POST", "a=%2B&\xe4", headers, body)))
    assert back == Receipt("POST", "a=%2B&\xe4", {"content-type": "x/y"}, body)


def test_what_postgresql_refuses_is_kept_all_the_same(it: World, caplog: pytest.LogCaptureFixture) -> None:
    one = ReportingProvider("secret")
    far = b'[{"id": "1", "status": "sent", "at": "9999-12-31T23:59:59-23:00"}]'
    assert len(receipts.take(it.db, "a", "sms", one, Receipt("PIPE", "", {}, far)).new) == 1
    it.rows("DELETE FROM notify.receipt")
    it.rows("ALTER TABLE notify.receipt ADD CHECK (state = 'unreadable')")
    kept = receipts.take(it.db, "a", "sms", one, Receipt("PIPE", "", {}, far))
    assert kept.new == ()
    (row,) = receipt_rows(it)
    assert (row["state"], row["detail"]) == (
        "unreadable",
        "the database refuses it: a row was refused (SQLSTATE 23514)",
    )
    assert "cannot be read and is kept" in caplog.text


def test_a_redis_that_is_gone_is_told_once_and_holds_nobody_up(caplog: pytest.LogCaptureFixture) -> None:
    waker = receipts.Waker(Broker("redis://127.0.0.1:9/0", timeout=1))
    for n in range(100):
        waker.wake([n])
    assert [record.getMessage() for record in caplog.records] == [
        "receipts not announced (Unreachable): 1; the sweep will"
    ]


def test_thousands_of_forged_ones_are_counted_and_not_each_told(
    it: World, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusals = receipts.Refusals(it.db)
    for _ in range(5000):
        refusals.count("a", "signature")
    refusals.count("a", "timestamp")
    monkeypatch.setattr(receipts, "REFUSALS_EVERY", 0.0)  # ten seconds later
    refusals.count("a", "signature")
    assert [record.getMessage() for record in caplog.records] == [
        "receipts refused for a (signature): 1",
        "receipts refused for a (timestamp): 1",
        "receipts refused for a (signature): 5000",
    ]
    assert sweeps.counters(it.db) == {"receipts_forged": 5002}


def test_wake_ups_have_ids_alone_and_not_too_many() -> None:
    made = receipts.messages(range(401))
    assert [len(one.args[0]) for one in made] == [200, 200, 1]  # type: ignore[arg-type]
    assert {(one.queue, one.task) for one in made} == {("notify.receipts", "notify_tasks.receipts")}
    assert made[2].argsrepr == "(1 receipts)"

"""Erasing a person: what waits is stopped, who they are and what they were sent is gone, what happened stays."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from notify_tasks import people, settings
from notify_tasks.messages import Outgoing, build
from notify_tasks.notification import Notification
from notify_tasks.people import Erased
from notify_tasks.routing import SEND_TASK
from notify_tasks.states import State
from notify_tasks.store import cancelling, inbox, intakes, parking, recipients, replaying, statuses, sweeps
from notify_tasks.store.parking import Parked
from tests.integration.core_shop import Shop, one_row, shop
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
OTHER = "+4915112345679"
CANARIES = (PHONE, "canary@example.com", "hunter2")


@pytest.fixture
def it(database: str) -> Iterator[World]:
    settings.configure(database_url=database)
    with world(database, connections=20) as opened:
        yield opened
    people.close()
    settings.reset()


@pytest.fixture
def desk(it: World, tmp_path: Path) -> Iterator[Shop]:
    with shop(tmp_path, it.db) as opened:
        yield opened


@pytest.fixture
def ann(it: World) -> str:
    people.upsert("ann", sms=PHONE, email="canary@example.com", locale="de", timezone="Europe/Berlin")
    people.upsert("bob", sms=OTHER)
    return "ann"


def everything(it: World) -> str:
    """All rows of all tables, as text."""
    tables = it.rows("SELECT tablename AS name FROM pg_tables WHERE schemaname = 'notify'")
    found = []
    for table in tables:
        rows = it.rows(f"SELECT * FROM notify.{table['name']}")
        found += [f"{table['name']}: {row}" for row in rows]
        found += [bytes(row["raw"]).decode(errors="replace") for row in rows if "raw" in row]
    return "\n".join(found)


def accepted(it: World, desk: Shop, message_id: str, to: Any = "ann", **options: Any) -> uuid.UUID:
    """A call that waits for a worker; returns the first delivery's id."""
    assert desk.take(call(message_id, to=to, **options), INTAKE).kind == "accepted"
    (row, *_) = it.rows("SELECT id FROM notify.delivery WHERE message_id = %s ORDER BY id", message_id)
    found: uuid.UUID = row["id"]
    return found


# --- what goes, what stays ------------------------------------------------------------------------------


def test_nothing_is_left_that_says_who_the_person_is_or_what_they_were_sent(
    it: World, desk: Shop, ann: str
) -> None:
    # Given a person with a past, a present and a future, in every table,
    secret = {"n": 1, "password": "hunter2"}
    sent = it.claimed(accepted(it, desk, "sent", payload=secret))
    it.record(sent, "accepted", State.SENT, provider_message_id="p-1")
    it.rows(
        "INSERT INTO notify.attachment (notification_id, position, tenant, content) VALUES (%s, 0, 'default', %s)",
        sent.notification_id,
        b"the hunter2 file",
    )
    it.rows("""UPDATE notify.notification SET attachments = '[{"name": "hunter2.pdf"}]'""")
    waits = accepted(it, desk, "waits", payload=secret)
    inbox.put(
        it.db, delivery_id=str(sent.id), tenant="default", recipient_id=ann, event_type="x", data=secret
    )
    inline = {"id": ann, "sms": PHONE, "locale": "de"}
    desk.take(call("refused", to=inline, payload={"n": "hunter2"}), INTAKE)
    intakes.keep(it.db, [call("kept", to=inline, payload=secret).to_wire()], origin="producer")
    raw = json.dumps(call("parked", to=inline, payload=secret).to_wire()).encode()
    parking.park(it.db, [Parked(INTAKE, "unreadable", raw)])
    before = everything(it)
    assert all(canary in before for canary in (*CANARIES, "the hunter2 file", "hunter2.pdf"))

    # when they are erased,
    done = people.erase(ann)

    # then no table has a word of it,
    after = everything(it)
    for canary in (*CANARIES, "Europe/Berlin"):
        assert canary not in after, [line for line in after.splitlines() if canary in line]
    assert done == Erased(
        known=True,
        addresses=2,
        cancelled=1,
        in_doubt=0,
        being_sent=0,
        deliveries=2,
        notifications=2,
        shared=0,
        inbox=1,
        calls=2,
        parked=1,
        parked_unsearched=0,
    )
    assert people.get(ann) is None
    # and what happened, and when, is still told.
    (status,) = statuses.read(it.db, "sent").notifications
    (delivery,) = status.deliveries
    assert (delivery.state, delivery.provider_message_id, delivery.address) == ("sent", "p-1", "")
    assert [attempt.outcome for attempt in delivery.attempts] == ["accepted"]
    assert it.state(waits) == "cancelled"
    assert it.events(waits) == ["cancelled"]
    (row,) = it.rows("SELECT hash FROM notify.notification WHERE message_id = 'sent'")
    assert len(row["hash"]) == 32


def test_everybody_else_is_left_alone(it: World, desk: Shop, ann: str) -> None:
    people.upsert(ann, tenant="other", sms=PHONE)
    others = [
        accepted(it, desk, "bobs", to="bob", payload={"n": 1}),
        accepted(it, desk, "other", tenant="other", payload={"n": 1}),
        accepted(it, desk, "bare", to={"sms": "+4915112345670"}, payload={"n": 1}),
    ]
    inbox.put(
        it.db, delivery_id=str(uuid.uuid4()), tenant="default", recipient_id="bob", event_type="x", data={}
    )
    intakes.keep(it.db, [call("kept", to="bob").to_wire()], origin="producer")
    accepted(it, desk, "mine")
    count = "SELECT count(*) AS n FROM notify.inbox_item"

    people.erase(ann)

    assert [it.state(id_) for id_ in others] == ["queued"] * 3
    assert all(it.row(id_)["address"] for id_ in others)
    found = it.rows("SELECT message_id FROM notify.notification WHERE payload = '{}'")
    assert found == [{"message_id": "mine"}]
    assert it.rows(count) == [{"n": 1}]
    assert intakes.waiting(it.db) == 1
    assert people.get(ann, tenant="other") is not None


def test_a_notification_that_others_got_too_keeps_its_content_and_loses_the_address(
    it: World, desk: Shop, ann: str
) -> None:
    accepted(it, desk, "both", to=["ann", "bob"], payload={"n": 7})

    done = people.erase(ann)

    assert (done.cancelled, done.notifications, done.shared) == (1, 0, 1)
    rows = it.rows("SELECT recipient_id, address, state FROM notify.delivery ORDER BY 1")
    assert [tuple(row.values()) for row in rows] == [("ann", "", "cancelled"), ("bob", OTHER, "queued")]
    assert it.rows("SELECT payload FROM notify.notification") == [{"payload": {"n": 7}}]

    # The last of them takes it along.
    done = people.erase("bob")
    assert (done.notifications, done.shared) == (1, 0)
    assert it.rows("SELECT payload FROM notify.notification") == [{"payload": {}}]


def test_calls_that_name_others_too_go_on_without_the_person(it: World, desk: Shop, ann: str) -> None:
    both = [{"id": "ann", "email": "canary@example.com"}, "bob", {"sms": "+4915112345670"}]
    desk.take(call("refused", to=both, payload={"n": "x"}), INTAKE)
    intakes.keep(it.db, [call("kept", to=both).to_wire()], origin="producer")
    raw = json.dumps(call("parked", to=both).to_wire()).encode()
    parking.park(it.db, [Parked(INTAKE, "unreadable", raw), Parked(INTAKE, "unreadable", b"\xffnot json")])

    done = people.erase(ann)

    assert (done.calls, done.parked, done.parked_unsearched) == (2, 0, 2)
    left = [{"id": "bob"}, {"sms": "+4915112345670"}]
    (refused,) = it.rows("SELECT envelope FROM notify.notification")
    (kept,) = it.rows("SELECT envelope FROM notify.intake")
    assert refused["envelope"]["to"] == kept["envelope"]["to"] == left
    desk.intake.drain()
    rows = it.rows("SELECT recipient_id FROM notify.delivery ORDER BY address DESC")
    assert [row["recipient_id"] for row in rows] == ["bob", None]


def test_a_call_taken_from_the_intake_table_is_not_sent_by_a_copy_in_redis(
    it: World, desk: Shop, ann: str
) -> None:
    notification = call("kept", to={"id": "ann", "sms": PHONE})
    intakes.keep(it.db, [notification.to_wire()], origin="ledger")
    people.erase(ann)
    assert desk.take(notification, INTAKE).kind == "cancelled"
    assert people.get(ann) is None


def test_parked_celery_messages_are_read_like_calls(it: World, ann: str) -> None:
    def message(to: Any, id_: str) -> bytes:
        outgoing = Outgoing(SEND_TASK, [call(id_, to=to).to_wire()], INTAKE, id_)
        return str(build(outgoing, bucket=0).commands[-1][-1]).encode()

    mine, bobs = message({"id": "ann", "sms": PHONE}, "m-1"), message("bob", "m-2")
    assert PHONE.encode() not in mine  # it is in base64, where no search for the number finds it
    wake_up = str(
        build(Outgoing("deliver", [[str(uuid.uuid4())]], "notify.sms", "w"), bucket=0).commands[-1][-1]
    )
    parking.park(it.db, [Parked(INTAKE, "x", each) for each in (mine, bobs, wake_up.encode())])

    done = people.erase(ann)

    assert (done.parked, done.parked_unsearched) == (1, 0)
    left = [parking.read(it.db, row.id) for row in parking.parked(it.db)]
    assert {raw for _, raw in left if raw} == {bobs, wake_up.encode()}  # type: ignore[misc]


def test_suppressed_addresses_stay_so_that_nobody_writes_there_again(it: World, desk: Shop, ann: str) -> None:
    recipients.suppress(it.db, "sms", PHONE, reason="opted_out")
    people.erase(ann)
    assert desk.take(call("m-1", to={"sms": PHONE}), "notify.sms").claimed is None
    assert one_row(it)["state"] == "suppressed"


# --- what waits, what is under way ----------------------------------------------------------------------


@pytest.mark.parametrize("state", ["held", "queued", "retrying"])
def test_what_waits_is_stopped_with_its_reason(it: World, desk: Shop, ann: str, state: str) -> None:
    id_ = accepted(it, desk, "m-1")
    it.rows("UPDATE notify.delivery SET state = %s, due_at = now()", state)

    done = people.erase(ann)

    assert (done.cancelled, done.in_doubt) == (1, 0)
    row = it.row(id_)
    assert (row["state"], row["reason"], row["due_at"]) == ("cancelled", "recipient_erased", None)
    (event,) = it.rows("SELECT kind, code FROM notify.status_event WHERE delivery_id = %s", id_)
    assert (event["kind"], event["code"]) == ("cancelled", "recipient_erased")
    assert it.claim(id_) is None
    assert sweeps.take_due(it.db, limit=10) == []


def test_what_may_have_arrived_ends_in_doubt(it: World, desk: Shop, ann: str) -> None:
    id_ = it.claimed(accepted(it, desk, "m-1")).id
    it.end_lease(id_)
    done = people.erase(ann)
    assert (done.cancelled, done.in_doubt) == (0, 1)
    assert (it.state(id_), it.row(id_)["reason"]) == ("in_doubt", "recipient_erased")


@pytest.mark.parametrize(
    ("outcome", "wanted", "end"),
    [
        ("accepted", State.SENT, "sent"),
        ("refused", State.FAILED, "failed"),
        ("address_invalid", State.FAILED, "failed"),
    ],
)
def test_what_is_being_sent_gets_its_result(
    it: World, desk: Shop, ann: str, outcome: str, wanted: State, end: str
) -> None:
    claimed = it.claimed(accepted(it, desk, "m-1"))
    done = people.erase(ann)

    recorded = it.record(claimed, outcome, wanted, suppress="dead" if outcome == "address_invalid" else None)

    assert (done.being_sent, done.cancelled, done.deliveries) == (1, 0, 1)
    assert recorded is not None
    assert recorded.applied
    assert (it.state(claimed.id), it.row(claimed.id)["address"]) == (end, "")
    assert it.rows("SELECT 1 FROM notify.suppression") == []  # there is no address to suppress any more


@pytest.mark.parametrize(("outcome", "end"), [("try_later", "cancelled"), ("uncertain", "in_doubt")])
def test_a_result_that_wants_another_try_gets_none(
    it: World, desk: Shop, ann: str, outcome: str, end: str
) -> None:
    claimed = it.claimed(accepted(it, desk, "m-1"))
    people.erase(ann)
    it.record(claimed, outcome, State.RETRYING, unknown=outcome == "uncertain", due=0)

    assert it.claim(claimed.id) is None

    row = it.row(claimed.id)
    assert (row["state"], row["reason"]) == (end, "recipient_erased")
    assert it.events(claimed.id)[-1] == end
    assert len(it.attempts(claimed.id)) == 1


def test_a_worker_that_asks_again_for_what_it_has_does_not_get_an_empty_message(
    it: World, desk: Shop, ann: str
) -> None:
    claimed = it.claimed(accepted(it, desk, "m-1"))
    people.erase(ann)
    assert it.claim(claimed.id, token=claimed.token) is None
    it.end_lease(claimed.id)
    assert it.claim(claimed.id) is None
    assert it.state(claimed.id) == "in_doubt"


def test_nothing_of_an_erased_person_can_be_replayed(it: World, desk: Shop, ann: str) -> None:
    claimed = it.claimed(accepted(it, desk, "m-1"))
    it.record(claimed, "refused", State.FAILED)
    desk.take(call("m-2", to={"id": "ann", "sms": PHONE}, payload={}), INTAKE)
    people.erase(ann)
    for message_id in ("m-1", "m-2"):
        assert replaying.replay(it.db, message_id) == replaying.Replayed([], 0)


def test_erasing_waits_for_a_claim_in_progress(it: World, desk: Shop, ann: str) -> None:
    id_ = accepted(it, desk, "m-1")
    with plain(it.url) as claiming:
        claiming.execute("BEGIN")
        claiming.execute("UPDATE notify.delivery SET state = 'sending' WHERE id = %s", (id_,))

        def run(which: int) -> Any:
            if which:
                return people.erase(ann)
            until(waiting_for_locks(it.url, 1), "erasing waits for the claim")
            return claiming.execute("COMMIT")

        _, done = together(2, run)
    assert (done.being_sent, done.cancelled) == (1, 0)
    assert (it.state(id_), it.row(id_)["address"]) == ("sending", "")


def test_erasing_beside_calls_changes_and_cancels_ends_and_leaves_nothing_half(
    it: World, desk: Shop, ann: str
) -> None:
    def run(n: int) -> object:
        id_ = f"m-{n}"
        if n % 4 == 0:
            return people.erase(ann)
        if n % 4 == 1:
            return people.upsert(ann, sms=PHONE, email=f"e{n}@example.com")
        if n % 4 == 2:
            return desk.take(call(id_, to={"id": "ann", "sms": PHONE}), INTAKE).kind
        return cancelling.cancel(it.db, "default", f"m-{n - 1}")

    together(40, run)
    people.erase(ann)
    deadlocks = it.rows("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
    assert deadlocks == [{"deadlocks": 0}]  # each is a second of waiting

    assert people.get(ann) is None
    assert PHONE not in everything(it)
    assert it.rows("SELECT 1 FROM notify.delivery WHERE state IN ('queued', 'held') AND address <> ''") == []


# --- again, and for nobody --------------------------------------------------------------------------------


def test_erasing_again_finds_nothing_and_writes_no_second_event(it: World, desk: Shop, ann: str) -> None:
    id_ = accepted(it, desk, "m-1")
    people.erase(ann)
    again = people.erase(ann)
    assert not again.anything
    assert (again.known, again.deliveries, again.notifications) == (False, 0, 0)
    assert it.events(id_) == ["cancelled"]


def test_nobody_is_nothing(it: World) -> None:
    assert not people.erase("nobody").anything


def test_what_is_left_of_somebody_who_was_never_stored_goes_too(it: World, desk: Shop) -> None:
    desk.take(call("m-1", to="stranger", payload={"n": 1}), INTAKE)
    done = people.erase("stranger")
    assert (done.known, done.calls, done.anything) == (False, 1, True)
    (row,) = it.rows("SELECT state, reason, envelope, payload FROM notify.notification")
    assert tuple(row.values()) == ("rejected", "unknown_recipient", None, {})


def test_an_erased_person_can_be_stored_anew(it: World, desk: Shop, ann: str) -> None:
    people.erase(ann)
    assert people.upsert(ann, sms=PHONE).addresses == {"sms": (PHONE,)}
    assert desk.take(call("m-1", to=ann), "notify.sms").claimed is not None


def test_an_erasure_whose_answer_was_lost_can_be_repeated(
    it: World, desk: Shop, ann: str, database: str
) -> None:
    id_ = accepted(it, desk, "m-1")
    with proxied(database) as proxy:
        settings.configure(database_url=proxy.url)
        proxy.arm("lose_answer", b"COMMIT")
        with pytest.raises(people.DatabaseAway):
            people.erase(ann)
        until(lambda: proxy.cuts, "the cut")
        people.erase(ann)
    assert it.events(id_) == ["cancelled"]


def test_a_part_that_fails_leaves_the_whole_as_it_was(it: World, desk: Shop, ann: str) -> None:
    # Given a database that refuses the last step,
    id_ = accepted(it, desk, "m-1", payload={"n": 7})
    it.rows(
        "CREATE FUNCTION notify.no() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '23000'; END $$"
    )
    it.rows("CREATE TRIGGER no BEFORE DELETE ON notify.recipient FOR EACH ROW EXECUTE FUNCTION notify.no()")
    with pytest.raises(Exception, match="23000"):
        people.erase(ann)

    # then nothing of it was done.
    assert (it.state(id_), it.row(id_)["address"]) == ("queued", PHONE)
    assert it.events(id_) == []
    found = people.get(ann)
    assert found is not None
    assert set(found.addresses) == {"email", "sms"}


def test_it_is_found_by_index_among_many(it: World, ann: str) -> None:
    from notify_tasks.store import erasing  # noqa: PLC0415 - only here

    it.rows(
        "INSERT INTO notify.notification (id, tenant, message_id, event_type, occurred_at, payload, plan, state, hash)"
        " SELECT gen_random_uuid(), 'default', 'm' || n, 't', now(), '{}', '{}', 'accepted', 'h'"
        " FROM generate_series(1, 3000) n"
    )
    it.rows(
        "INSERT INTO notify.delivery (id, notification_id, tenant, message_id, event_type, recipient_id, address,"
        " channel, lane, state, on_doubt, max_attempts)"
        " SELECT gen_random_uuid(), id, tenant, message_id, 't', message_id, 'a', 'sms', 'normal', 'sent', 'hold', 1"
        " FROM notify.notification"
    )
    for table in ("delivery", "notification"):
        it.rows(f"ANALYZE notify.{table}")
    who = {"id": "m7", "tenant": "default", "reason": "x"}
    with plain(it.url) as connection:
        for statement in (erasing._DELIVERIES, erasing._NOTIFICATIONS):
            plan = str(connection.execute(f"EXPLAIN {statement}", who).fetchall())
            assert "delivery_recipient" in plan
            assert "Seq Scan on delivery" not in plan
            assert "Seq Scan on notification" not in plan


def test_the_envelope_that_names_a_person_is_wire_that_can_still_be_read(
    it: World, desk: Shop, ann: str
) -> None:
    intakes.keep(it.db, [call("kept", to=["ann", "bob"]).to_wire()], origin="producer")
    people.erase(ann)
    (row,) = it.rows("SELECT envelope FROM notify.intake")
    assert [ref.id for ref in Notification.from_wire(row["envelope"]).to] == ["bob"]

"""What an operator does to many deliveries: pauses, replays by filter, and settles what is in doubt."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from notify_tasks.errors import InvalidCall
from notify_tasks.filters import Filter, parse
from notify_tasks.states import MOVES, State
from notify_tasks.store import deliveries, doubts, erasing, pausing, replaying, selecting
from notify_tasks.store.replaying import BY_FILTER
from tests.integration.core_world import PHONE, World, call, together, world

BY = "ann@desk"
NOW = datetime(2030, 1, 31, 12, tzinfo=UTC)


@pytest.fixture
def it(database: str) -> Iterator[World]:
    with world(database, connections=20) as opened:
        yield opened


def ended(it: World, state: str = "failed", **columns: Any) -> uuid.UUID:
    """A delivery that has ended so, tried once."""
    id_ = it.claimed().id
    code = columns.pop("code", "550 5.1.1")
    it.rows(
        "UPDATE notify.attempt SET outcome = 'refused', code = %s, ended_at = now() WHERE delivery_id = %s",
        code,
        id_,
    )
    given = {"state": state, "lease_until": None, "provider": "smtp-main"} | columns
    for name, value in given.items():
        it.rows(f"UPDATE notify.delivery SET {name} = %s WHERE id = %s", value, id_)
    return id_


def filtered(*words: str, states: tuple[str, ...] = BY_FILTER) -> Filter:
    return parse(words, now=datetime.now(UTC), states=states)


def found(it: World, *words: str) -> set[uuid.UUID]:
    wanted = filtered(*words)
    return {
        each.id
        for state in wanted.of("state")
        for each in selecting.page(it.db, wanted, state, after=None, limit=100)
    }


# --- filters ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("stat=failed", "--where: there is no field 'stat'. Did you mean state?"),
        ("event_type=order.shipped", "--where: there is no field 'event_type'. Did you mean type?"),
        ("state=faild", "--where state: there is no state 'faild' here. Did you mean failed?"),
        ("channel=mail", "--where channel: there is no channel 'mail' here. Did you mean email?"),
        ("type=", "--where type: no value follows. Write type=VALUE"),
        ("type", "--where type: no value follows. Write type=VALUE"),
        ("since=2 weeks", "--where: there is no field 'weeks'."),
        ("since=2w", "--where since: 'w' is no unit of time. Write 2h, 3d, or 2030-01-31T09:00+01:00"),
        ("since=2030-01-31T09:00", "--where since: the time has no zone. Write 2030-01-31T09:00Z for UTC"),
        ("code=550 code=552", "--where code: it is given twice. Write code=one,other for either of two"),
        ('reason="paused: x', "--where: a quotation is not closed."),
    ],
)
def test_a_wrong_filter_names_the_field_and_the_nearest_right_one(words: str, said: str) -> None:
    with pytest.raises(InvalidCall) as wrong:
        parse([words], now=NOW, states=BY_FILTER)
    assert str(wrong.value).startswith(said)


def test_a_filter_may_be_one_text_or_several() -> None:
    one = parse(["state=failed,expired type=order.* since=2h"], now=NOW, states=BY_FILTER)
    assert one == parse(["state=failed,expired", "type=order.*", "since=2h"], now=NOW, states=BY_FILTER)
    assert one.since == NOW - timedelta(hours=2)
    assert parse(['reason="a b"'], now=NOW, states=BY_FILTER).of("reason") == ("a b",)


def test_what_is_not_meant_here_says_what_to_do_instead() -> None:
    with pytest.raises(InvalidCall, match="Type another command"):
        parse(["state=in_doubt"], now=NOW, states=BY_FILTER, refused={"in_doubt": "Type another command"})


def test_a_filter_finds_what_it_says(it: World) -> None:
    bounced = ended(it)
    other = ended(it, event_type="invoice.paid", code="552 5.2.2", lane="bulk", recipient_id="user_4")
    never = ended(it, code=None, reason="country_not_allowed")
    it.rows("DELETE FROM notify.attempt WHERE delivery_id = %s", never)
    old = ended(it, updated_at=datetime.now(UTC) - timedelta(hours=3))
    late = ended(it, "expired")

    assert found(it) == {bounced, other, never, old}
    assert found(it, "state=failed,expired") == {bounced, other, never, old, late}
    assert found(it, "code=552") == {other}
    assert found(it, "code=550") == {bounced, old}
    assert found(it, "code=country_not_allowed") == {never}
    assert found(it, "type=invoice.*") == found(it, "type=invoice.paid") == {other}
    assert found(it, "lane=bulk", "channel=sms", "provider=smtp-main") == {other}
    assert found(it, "recipient=user_4") == {other}
    assert found(it, "recipient=userx4") == found(it, "recipient=user%") == set()
    assert old not in found(it, "since=2h")
    assert found(it, "until=2h") == {old}
    assert found(it, "tenant=nobody") == set()


# --- replays by filter --------------------------------------------------------------------------------


def test_of_many_replays_at_once_each_delivery_is_sent_again_once(it: World) -> None:
    ids = [ended(it) for _ in range(20)]
    wakes = together(6, lambda _: replaying.again(it.db, ids, by=BY, lifetime=None))
    assert len([wake for each in wakes for wake in each]) == 20
    assert found(it) == set()
    (group,) = selecting.groups(it.db, filtered())
    assert (group.count, group.replayed, group.gone) == (20, 20, 0)
    assert it.events(ids[0])[-1] == "replayed"


def test_a_page_goes_on_where_the_last_one_ended_whatever_has_been_replayed(it: World) -> None:
    ids = [ended(it) for _ in range(5)]
    wanted = filtered()
    first = selecting.page(it.db, wanted, "failed", after=None, limit=2)
    second = selecting.page(it.db, wanted, "failed", after=first[-1], limit=2)
    assert [each.id for each in [*first, *second]] == ids[:4]
    replaying.again(it.db, ids[:4], by=BY, lifetime=None)
    assert [each.id for each in selecting.page(it.db, wanted, "failed", after=None, limit=2)] == ids[4:]


def test_what_has_no_content_or_address_any_more_is_counted_and_not_replayed(it: World) -> None:
    erased, purged = ended(it, address=""), ended(it)
    it.rows(
        "UPDATE notify.notification SET purged_at = now() FROM notify.delivery d"
        " WHERE d.notification_id = notification.id AND d.id = %s",
        purged,
    )
    assert found(it) == set()
    assert sum(group.gone for group in selecting.groups(it.db, filtered())) == 2
    assert replaying.again(it.db, [erased, purged], by=BY, lifetime=None) == []


def test_what_is_in_doubt_by_now_is_not_replayed_by_the_many(it: World) -> None:
    id_ = ended(it, "in_doubt")
    assert replaying.again(it.db, [id_], by=BY, lifetime=None) == []


def test_a_replay_may_have_a_new_expiry(it: World) -> None:
    id_ = ended(it, "expired", expires_at=datetime.now(UTC) - timedelta(days=1))
    (wake,) = replaying.again(it.db, [id_], by=BY, lifetime=7200)
    left = it.row(wake.id)["expires_at"] - datetime.now(UTC)
    assert timedelta(hours=1, minutes=50) < left <= timedelta(hours=2)


# --- in doubt -----------------------------------------------------------------------------------------


def in_doubt(it: World) -> uuid.UUID:
    """A push or SMS of which nobody knows."""
    claimed = it.claimed()
    it.record(claimed, "uncertain", State.IN_DOUBT, code="timeout", unknown=True)
    assert it.state(claimed.id) == "in_doubt"
    return claimed.id


@pytest.mark.parametrize(("word", "state"), [("sent", "sent"), ("failed", "failed"), ("resend", "failed")])
def test_a_doubt_is_settled_with_who_and_why(it: World, word: str, state: str) -> None:
    id_ = in_doubt(it)
    done = doubts.resolve(it.db, [id_], word, by=BY, why="seen in their log")

    assert it.state(id_) == state
    assert State(state) in MOVES[State.IN_DOUBT]
    (event,) = it.rows(
        "SELECT kind, detail FROM notify.status_event WHERE delivery_id = %s AND code = 'operator'", id_
    )
    assert event == {"kind": state, "detail": f"{word} by {BY}: seen in their log"}
    assert (done.count, len(done.wakes)) == (1, int(word == "resend"))
    for wake in done.wakes:
        assert it.row(wake.id)["replay_of"] == id_
        assert it.claim(wake.id) is not None


def test_what_is_settled_stays_settled(it: World) -> None:
    id_ = in_doubt(it)
    done = together(6, lambda n: doubts.resolve(it.db, [id_], ("sent", "resend")[n % 2], by=BY, why="x"))
    assert sum(each.count for each in done) == 1
    assert doubts.resolve(it.db, [id_], "failed", by=BY, why="x").count == 0
    assert sum(len(each.wakes) for each in done) == (it.state(id_) == "failed")


def test_what_was_replayed_before_is_settled_and_not_sent_a_third_time(it: World) -> None:
    id_ = in_doubt(it)
    replaying.replay(it.db, it.row(id_)["message_id"])
    assert doubts.resolve(it.db, [id_], "resend", by=BY, why="x").count == 0
    assert doubts.resolve(it.db, [id_], "failed", by=BY, why="x").count == 1


def test_doubts_are_listed_by_filter_the_longest_first(it: World) -> None:
    first, second = in_doubt(it), in_doubt(it)
    ended(it)
    listed = doubts.find(it.db, filtered(states=("in_doubt",)), limit=10)
    assert [(each.id, each.code, each.outcome) for each in listed] == [
        (first, "timeout", "uncertain"),
        (second, "timeout", "uncertain"),
    ]
    assert (
        doubts.find(it.db, filtered("code=timeout", "since=1h", states=("in_doubt",)), limit=1)[0].id == first
    )
    assert doubts.find(it.db, filtered("provider=b", states=("in_doubt",)), limit=9) == []


# --- pauses -------------------------------------------------------------------------------------------


def test_a_pause_says_who_why_since_when_and_how_much_waits(it: World) -> None:
    pausing.put(it.db, "type", "test.ping", reason="incident 7", by=BY)
    first = pausing.listed(it.db)[0]
    pausing.put(it.db, "type", "test.ping", reason="incident 8", by="bob@desk")
    ids = [it.accept(call(f"m-{n}")) for n in range(3)]
    deliveries.hold(it.db, [(id_, 5.0, "paused: incident 8") for id_ in ids])
    it.rows("UPDATE notify.delivery SET expires_at = now() + interval '1 day'")
    it.shift(ids[0], expires_at=600)

    (pause,) = pausing.listed(it.db)
    assert (pause.kind, pause.name, pause.reason, pause.by) == ("type", "test.ping", "incident 8", "bob@desk")
    assert pause.since == first.since
    assert (pause.held, pause.expiring) == (3, 1)
    assert pausing.remove(it.db, "type", "test.ping")
    assert not pausing.remove(it.db, "type", "test.ping")


# --- erasing ----------------------------------------------------------------------------------------


def test_what_erasing_would_do_is_said_and_not_done(it: World) -> None:
    # Given a person for whom something waits, when it is asked what erasing would do, then nothing is done.
    it.accept(call("m-1", to={"id": "user-42", "sms": PHONE}))
    before = it.rows("SELECT to_jsonb(d)::text AS x FROM notify.delivery d ORDER BY id")

    looked = erasing.look(it.db, "user-42")

    assert (looked.known, looked.addresses, looked.cancelled, looked.notifications) == (True, 1, 1, 1)
    assert it.rows("SELECT to_jsonb(d)::text AS x FROM notify.delivery d ORDER BY id") == before
    assert erasing.erase(it.db, "user-42") == looked
    assert not erasing.look(it.db, "user-42").known

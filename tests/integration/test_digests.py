"""Digests on a real PostgreSQL: what is gathered is in exactly one of them, whatever meets, repeats or ends."""

from __future__ import annotations

import json
import secrets
import shutil
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from channels.contract import EmailContent
from notify_tasks.gathering import SOURCE
from notify_tasks.notification import Notification
from notify_tasks.rendering import LoadedType
from notify_tasks.store import (
    cancelling,
    digests,
    erasing,
    intakes,
    preferences,
    recipients,
    replaying,
    sweeps,
)
from notify_tasks.store.database import DatabaseAway
from notify_tasks.store.digests import Flushed, OpenDigest
from notify_tasks.sweeping import Publishing, Sweeper
from tests.integration.core_shop import Shop, shop
from tests.integration.core_world import (
    World,
    call,
    plain,
    proxied,
    together,
    until,
    waiting_for_locks,
    world,
)

LATER = datetime(2100, 1, 1, tzinfo=UTC)
"""By then, every window is over."""
POST = """
category = "posts"
channels = ["sms", "push"]
expires = "1d"
{more}
[payload]
type = "object"
"""
DIGEST = """
category = "posts"
channels = ["sms", "push"]
[payload]
type = "object"
required = ["count", "since", "until", "events"]
"""
GATHERS = '[digest]\ntype = "post.digest"\nevery = "1d"\n'


def write(types: Path, name: str, policy: str) -> None:
    folder = types / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "notification.toml").write_text(policy)
    (folder / "example.json").write_text('{"count": 1, "since": "", "until": "", "events": []}')
    (folder / "sms.txt").write_text("{{ payload.count | default(1) }} new")
    (folder / "push.json").write_text('{"title": "{{ payload.count | default(1) }} new"}')


@pytest.fixture
def it(database: str) -> Iterator[World]:
    with world(database, connections=20) as opened:
        for id_ in ("ann", "bob"):
            recipients.upsert(opened.db, id_, addresses={"sms": [f"+49151123456{len(id_) + ord(id_[0])}"]})
        yield opened


@pytest.fixture
def desk(it: World, tmp_path: Path) -> Iterator[Shop]:
    with shop(tmp_path, it.db) as opened:
        write(opened.types, "post.digest", DIGEST)
        write(opened.types, "post.new", POST.format(more=GATHERS))
        yield opened


def post(desk: Shop, n: int = 1, message_id: str | None = None, **options: Any) -> str:
    """One event for ann over sms; returns what became of the call."""
    given = {"event_type": "post.new", "to": "ann", "payload": {"n": n}, **options}
    return desk.take(call(message_id or f"m-{n}", **given), "notify.intake").kind


def flush(it: World, now: datetime | None = LATER) -> Flushed:
    return digests.flush(it.db, limit=500, now=now)


def gathered(it: World, recipient: str = "ann") -> list[OpenDigest]:
    return digests.open_digests(it.db, recipient)


def calls(it: World) -> list[Notification]:
    """The calls of digests that wait for their planning."""
    return [Notification.from_wire(row["envelope"]) for row in it.rows("SELECT envelope FROM notify.intake")]


def events(made: Notification) -> list[int]:
    return [event["payload"]["n"] for event in made.payload["events"]]


def states(it: World) -> dict[str, str]:
    found = it.rows("SELECT message_id, state FROM notify.delivery ORDER BY created_at")
    return {row["message_id"]: row["state"] for row in found}


# --- gathered and sent --------------------------------------------------------------------------------


def test_events_wait_and_go_together_newest_first(it: World, desk: Shop) -> None:
    for n in (1, 2, 3):
        assert post(desk, n) == "accepted"
    (row, *_) = it.rows("SELECT state, reason, due_at, digest_id FROM notify.delivery")
    (digest,) = gathered(it)
    assert (row["state"], row["reason"], row["due_at"]) == ("held", "digest", None)
    assert (digest.id, digest.type, digest.count) == (row["digest_id"], "post.digest", 3)
    assert not desk.wakes
    assert flush(it, now=None) == Flushed(), "it is not due yet"

    assert flush(it) == Flushed(1, 1, 3)

    (made,) = calls(it)
    assert made.message_id == f"digest-{digest.id}"
    assert (made.event_type, made.source, made.channels) == ("post.digest", SOURCE, ("sms",))
    assert [ref.to_wire() for ref in made.to] == [{"id": "ann"}]
    assert events(made) == [3, 2, 1]
    assert made.payload["count"] == 3
    assert made.payload["since"] < made.payload["until"]
    assert {event["event_type"] for event in made.payload["events"]} == {"post.new"}
    assert set(states(it).values()) == {"digested"}
    told = it.rows("SELECT kind, detail FROM notify.status_event")
    assert told == [{"kind": "digested", "detail": made.message_id}] * 3
    # It is planned as any call, and flushing again finds nothing.
    assert flush(it) == Flushed()
    assert desk.intake.drain() == 1
    assert states(it)[made.message_id] == "queued"
    assert [wake.event_type for wake in desk.wakes] == ["post.digest"]
    assert gathered(it) == []


def test_the_stored_plan_tells_which_digest_and_when(it: World, desk: Shop) -> None:
    post(desk, 1)
    (digest,) = gathered(it)
    (row,) = it.rows("SELECT plan FROM notify.notification")
    (planned,) = row["plan"]["decisions"]
    assert (planned["state"], planned["reason"]) == ("held", "digest")
    assert planned["digest"] == {
        "id": str(digest.id),
        "type": "post.digest",
        "when": "every 1d",
        "due_at": digest.due_at.isoformat(),
        "opened": True,
    }
    assert planned["due_at"] == digest.due_at.isoformat()


def test_the_first_goes_at_once_and_the_others_are_gathered(it: World, desk: Shop) -> None:
    write(desk.types, "post.new", POST.format(more=GATHERS + 'first = "now"\n'))
    keep(it, *(call(f"m-{n}", event_type="post.new", to="ann", payload={"n": n}) for n in (1, 2)))
    desk.intake.drain()
    post(desk, 3)

    assert states(it) == {"m-1": "queued", "m-2": "held", "m-3": "held"}
    assert [wake.message_id for wake in desk.wakes] == ["m-1"]
    (digest,) = gathered(it)
    assert digest.count == 2
    assert it.rows("SELECT events, opening FROM notify.digest") == [{"events": 2, "opening": 1}]
    flush(it)
    assert [events(made) for made in calls(it)] == [[3, 2]]
    # A window in which nothing followed sends nothing.
    post(desk, 4)
    assert states(it)["m-4"] == "queued"
    assert flush(it) == Flushed(1, 0, 0)
    assert it.rows("SELECT state FROM notify.digest") == [{"state": "closed"}]


def keep(it: World, *made: Notification) -> None:
    intakes.keep(it.db, [notification.to_wire() for notification in made], origin="producer")


def test_a_sliding_digest_is_put_off_up_to_its_cap(it: World, desk: Shop) -> None:
    write(
        desk.types,
        "post.new",
        POST.format(more='[digest]\ntype = "post.digest"\nafter = "10m"\nat_most = "25m"\n'),
    )
    post(desk, 1)
    (opened,) = gathered(it)
    assert opened.due_at - opened.opened_at == pytest.approx(timedelta(minutes=10), abs=timedelta(seconds=5))
    it.rows("UPDATE notify.digest SET due_at = due_at - interval '8 min', cap_at = cap_at - interval '8 min'")
    post(desk, 2)
    (put_off,) = gathered(it)
    assert put_off.due_at == pytest.approx(opened.due_at, abs=timedelta(seconds=30))
    it.rows("UPDATE notify.digest SET due_at = due_at - interval '9 min', cap_at = cap_at - interval '9 min'")
    post(desk, 3)
    (capped,) = it.rows("SELECT due_at, cap_at FROM notify.digest")
    assert capped["due_at"] == capped["cap_at"]


def test_each_value_is_gathered_by_itself_and_each_person_and_channel(it: World, desk: Shop) -> None:
    write(desk.types, "post.new", POST.format(more=GATHERS + 'by = "post.id"\n'))
    for n, (to, id_) in enumerate([("ann", 7), ("ann", 8), ("bob", 7), ("ann", 7), ("ann", None)]):
        post(desk, n, to=to, channels=["sms"], payload={"n": n, "post": {"id": id_} if id_ else {}})
    post(desk, 9, to={"sms": "+4915112345999", "locale": "de"}, payload={"n": 9, "post": {"id": 7}})
    post(desk, 10, sandbox=True, payload={"n": 10, "post": {"id": 7}})

    flush(it)
    found = {
        (made.to[0].id, made.payload.get("by"), made.sandbox): (events(made), made.to[0].to_wire())
        for made in calls(it)
    }
    assert found == {
        ("ann", 7, False): ([3, 0], {"id": "ann"}),
        ("ann", 8, False): ([1], {"id": "ann"}),
        ("ann", None, False): ([4], {"id": "ann"}),
        ("bob", 7, False): ([2], {"id": "bob"}),
        (None, 7, False): ([9], {"sms": "+4915112345999", "locale": "de"}),
        ("ann", 7, True): ([10], {"id": "ann"}),
    }


def test_devices_of_a_person_are_one_digest_in_which_an_event_is_once(it: World, desk: Shop) -> None:
    recipients.upsert(it.db, "ann", addresses={"push": ["t-1", "t-2"]})
    post(desk, 1, channels=["push"])
    post(desk, 2, channels=["push"])
    (digest,) = gathered(it)
    assert digest.count == 2
    flush(it)
    (made,) = calls(it)
    assert (made.channels, events(made)) == (("push",), [2, 1])
    assert it.rows("SELECT state, count(*) AS n FROM notify.delivery GROUP BY state") == [
        {"state": "digested", "n": 4}
    ]


def test_a_full_digest_is_due_at_once_and_the_next_one_begins(it: World, desk: Shop) -> None:
    write(desk.types, "post.new", POST.format(more=GATHERS + "most = 3\n"))
    for n in range(5):
        post(desk, n)
    assert [(digest.full, digest.count) for digest in gathered(it)] == [(True, 3), (False, 2)]
    assert flush(it, now=None) == Flushed(1, 1, 3)
    assert [events(made) for made in calls(it)] == [[2, 1, 0]]
    # So is one that has become too large.
    write(desk.types, "post.new", POST.format(more=GATHERS))
    for n in range(5, 22):
        post(desk, n, payload={"n": n, "text": "x" * 63_000})
    assert flush(it, now=None).calls == 1


# --- what does not go into it -------------------------------------------------------------------------


def test_what_was_cancelled_expired_or_switched_off_is_not_in_it(it: World, desk: Shop) -> None:
    for n in range(5):
        post(desk, n)
    assert cancelling.cancel(it.db, "default", "m-0").cancelled == 1
    it.rows("UPDATE notify.delivery SET expires_at = now() - interval '1 s' WHERE message_id = 'm-1'")
    it.rows("UPDATE notify.delivery SET category = 'other' WHERE message_id = 'm-2'")
    preferences.change(it.db, "ann", lambda _: {"categories": {"other": {"*": "off"}}}, by="test")

    assert flush(it).events == 2
    assert [events(made) for made in calls(it)] == [[4, 3]]
    assert sweeps.expire(it.db, limit=100) == 1
    assert states(it) == {
        "m-0": "cancelled",
        "m-1": "expired",
        "m-2": "suppressed",
        "m-3": "digested",
        "m-4": "digested",
    }
    # What is in it cannot be called back; what was stopped can be sent by itself.
    assert not cancelling.cancel(it.db, "default", "m-3").complete
    assert len(replaying.replay(it.db, "m-0").wakes) == 1
    assert replaying.replay(it.db, "m-3").wakes == []


def test_an_empty_digest_is_removed(it: World, desk: Shop) -> None:
    post(desk, 1)
    cancelling.cancel(it.db, "default", "m-1")
    assert flush(it) == Flushed(1, 0, 0)
    assert calls(it) == []
    assert it.rows("SELECT * FROM notify.digest") == []


def test_an_event_does_not_expire_before_its_digest_unless_the_call_says_so(it: World, desk: Shop) -> None:
    post(desk, 1, digest="weekly")
    post(desk, 2, digest="weekly", expires=timedelta(minutes=1), message_id="m-2")
    (digest,) = gathered(it)
    rows = it.rows("SELECT message_id, state, reason, expires_at FROM notify.delivery ORDER BY 1")
    assert [(row["state"], row["reason"]) for row in rows] == [
        ("held", "digest"),
        ("expired", "expires_in_digest"),
    ]
    assert rows[0]["expires_at"] >= digest.due_at + timedelta(hours=23)


def test_erasing_a_person_empties_their_digests(it: World, desk: Shop) -> None:
    for n in range(2):
        post(desk, n)
    post(desk, 5, to="bob")
    write(desk.types, "post.new", POST.format(more='[throttle]\nlimit = "9/d"\nover = "drop"\n'))
    post(desk, 6)
    assert erasing.erase(it.db, "ann").cancelled == 3
    assert it.rows("SELECT * FROM notify.throttle") == []
    assert [row["recipient_id"] for row in it.rows("SELECT recipient_id FROM notify.digest")] == ["bob"]
    assert flush(it) == Flushed(1, 1, 1)


# --- who decides --------------------------------------------------------------------------------------


def test_a_person_s_choice_goes_before_the_call_s_and_the_type_s(it: World, desk: Shop) -> None:
    def wants(said: str) -> None:
        preferences.change(it.db, "ann", lambda _: {"categories": {"posts": {"sms": said}}}, by="test")

    def at_once_or_when(n: int, **options: Any) -> str:
        post(desk, n, channels=["sms"], **options)
        (row,) = it.rows(
            "SELECT d.state, g.at FROM notify.delivery d LEFT JOIN notify.digest g ON g.id = d.digest_id"
            " WHERE d.message_id = %s",
            f"m-{n}",
        )
        it.rows("DELETE FROM notify.digest")
        return str(row["at"] or row["state"])

    assert at_once_or_when(1) == "every 1d"
    assert at_once_or_when(2, digest="daily 09:30") == "daily 09:30"
    assert at_once_or_when(3, digest="off") == "queued"
    wants("daily")
    assert at_once_or_when(4, digest="off") == "daily 08:00"
    wants("weekly")
    assert at_once_or_when(5) == "weekly mon 08:00"
    write(desk.types, "post.new", POST.format(more='[digest]\ntype = "post.digest"\nweekly = "fri 17:00"\n'))
    assert at_once_or_when(6) == "weekly fri 17:00"
    wants("daily")
    assert at_once_or_when(7) == "daily 17:00"
    # A type without a digest goes at once, which its plan says; a call that asks it for one is rejected.
    write(desk.types, "post.new", POST.format(more=""))
    assert at_once_or_when(8) == "queued"
    (row,) = it.rows("SELECT plan FROM notify.notification WHERE message_id = 'm-8'")
    assert row["plan"]["decisions"][0]["reasons"] == ["no_digest_type"]
    assert post(desk, 9, digest="daily") == "rejected"
    (row,) = it.rows("SELECT reason, detail FROM notify.notification WHERE message_id = 'm-9'")
    assert row["reason"] == "no_digest_type"
    assert "add [digest]" in row["detail"]
    write(desk.types, "post.new", POST.format(more="required = true"))
    assert at_once_or_when(10) == "queued"
    # A digest is never gathered itself.
    write(
        desk.types,
        "post.digest",
        DIGEST.replace("[payload]", GATHERS.replace("post.d", "other.d") + "[payload]"),
    )
    empty = {"count": 0, "since": "", "until": "", "events": []}
    post(desk, 11, event_type="post.digest", source=SOURCE, channels=["sms"], payload=empty)
    assert states(it)["m-11"] == "queued"


def test_a_digest_whose_type_is_missing_is_rejected_and_can_be_sent_later(it: World, tmp_path: Path) -> None:
    with shop(tmp_path, it.db, unknown_type_wait=0) as desk:
        write(desk.types, "post.new", POST.format(more=GATHERS))
        post(desk, 1)
        flush(it)
        desk.intake.drain()
        (row,) = it.rows("SELECT message_id, reason FROM notify.notification WHERE state = 'rejected'")
        assert row["reason"] == "unknown_event_type"
        write(desk.types, "post.digest", DIGEST)
        assert replaying.replay(it.db, row["message_id"]).calls == 1
        desk.intake.drain()
        assert states(it)[row["message_id"]] == "queued"


# --- once, whatever happens ---------------------------------------------------------------------------


def test_a_repeated_call_joins_once(it: World, desk: Shop) -> None:
    assert [post(desk, 1), post(desk, 1), post(desk, 2), post(desk, 1)] == [
        "accepted",
        "repeated",
        "accepted",
        "repeated",
    ]
    keep(it, *(call(f"m-{n}", event_type="post.new", to="ann", payload={"n": n}) for n in (1, 3)))
    desk.intake.drain()
    assert it.rows("SELECT events FROM notify.digest") == [{"events": 3}]
    flush(it)
    assert [events(made) for made in calls(it)] == [[3, 2, 1]]
    # Nor does a repetition open a digest.
    assert post(desk, 1) == "repeated"
    assert gathered(it) == []


def test_repetitions_at_once_join_once(it: World, desk: Shop) -> None:
    kinds = together(16, lambda _: post(desk, 1))
    assert sorted(set(kinds)) == ["accepted", "repeated"]
    assert it.rows("SELECT events FROM notify.digest") == [{"events": 1}]


def test_joins_and_flushes_at_once_lose_and_double_nothing(it: World, desk: Shop) -> None:
    write(desk.types, "post.new", POST.format(more=GATHERS + "most = 7\n"))
    each, producers = 12, 6

    def work(n: int) -> None:
        if n >= producers:
            for _ in range(25):
                flush(it)
            return
        for i in range(each):
            post(desk, n * each + i, to="ann" if i % 3 else "bob")

    together(producers + 2, work)
    flush(it)
    told = [event["message_id"] for made in calls(it) for event in made.payload["events"]]
    assert sorted(told) == sorted(f"m-{n}" for n in range(producers * each))
    assert set(states(it).values()) == {"digested"}
    assert gathered(it) == []


def test_a_flush_that_is_killed_before_its_commit_is_made_again(it: World, desk: Shop) -> None:
    post(desk, 1)
    with plain(it.url) as blocker, blocker.transaction():
        blocker.execute("LOCK TABLE notify.intake IN ACCESS EXCLUSIVE MODE")
        failed: list[BaseException] = []

        def doomed() -> None:
            try:
                flush(it)
            except DatabaseAway as error:
                failed.append(error)

        thread = threading.Thread(target=doomed)
        thread.start()
        until(waiting_for_locks(it.url, 1), "the flush waits", 30)
        assert flush(it) == Flushed(), "another one passes by what it holds"
        with plain(it.url) as killer:
            killer.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
        thread.join(30)
    assert len(failed) == 1
    assert calls(it) == []
    assert gathered(it)[0].count == 1
    assert flush(it).events == 1


def test_a_commit_whose_answer_is_lost_is_not_made_twice(it: World, desk: Shop) -> None:
    post(desk, 1)
    with proxied(it.url) as proxy, world(proxy.url) as far:
        far.rows("SELECT 1")
        proxy.arm("lose_answer", b"COMMIT")
        with pytest.raises(DatabaseAway):
            flush(far)
    assert flush(it) == Flushed()
    assert len(calls(it)) == 1


def test_what_comes_during_a_flush_waits_for_it_and_opens_the_next(it: World, desk: Shop) -> None:
    post(desk, 1)
    with plain(it.url) as blocker, blocker.transaction():
        blocker.execute("LOCK TABLE notify.intake IN ACCESS EXCLUSIVE MODE")
        flushing = threading.Thread(target=flush, args=(it,))
        flushing.start()
        until(waiting_for_locks(it.url, 1), "the flush waits", 30)
        joining = threading.Thread(target=post, args=(desk, 2))
        joining.start()
        until(waiting_for_locks(it.url, 2), "the join waits for the flush", 30)
    flushing.join(30)
    joining.join(30)
    assert [events(made) for made in calls(it)] == [[1]]
    assert [digest.count for digest in gathered(it)] == [1]


def test_many_digests_take_few_statements(it: World, desk: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    count = 1200
    it.rows(
        "INSERT INTO notify.notification (id, tenant, message_id, event_type, occurred_at, payload, plan, state, hash)"
        " SELECT gen_random_uuid(), 'default', 'b-' || n, 'post.new', now(), '{}', '{}', 'accepted', ''"
        " FROM generate_series(1, %s) n",
        count * 2,
    )
    it.rows(
        "WITH g AS (INSERT INTO notify.digest (id, key, tenant, recipient_id, channel, event_type, digest_type, at,"
        " sandbox, due_at, most, events, opening, bytes)"
        " SELECT gen_random_uuid(), 'k-' || n, 'default', 'r-' || n, 'sms', 'post.new', 'post.digest', 'every 1h',"
        " false, now(), 500, 2, 0, 4 FROM generate_series(1, %s) n RETURNING id, recipient_id)"
        " INSERT INTO notify.delivery (id, notification_id, tenant, message_id, event_type, recipient_id, address,"
        " channel, lane, state, reason, on_doubt, max_attempts, digest_id)"
        " SELECT gen_random_uuid(), n.id, 'default', n.message_id, 'post.new', g.recipient_id, '+49', 'sms', 'normal',"
        " 'held', 'digest', 'resend', 8, g.id FROM notify.notification n"
        " JOIN g ON g.recipient_id = 'r-' || (substr(n.message_id, 3)::int + 1) / 2",
        count,
    )
    said: list[str] = []
    original = psycopg.Connection.execute

    def execute(self: Any, query: Any, *args: Any, **more: Any) -> Any:
        said.append(str(query))
        return original(self, query, *args, **more)

    monkeypatch.setattr(psycopg.Connection, "execute", execute)
    from notify_tasks import digests as flushing  # noqa: PLC0415 - here alone

    assert flushing.flush(it.db) == count
    assert len(said) == 2 * 3, "two statements a batch of 500"
    monkeypatch.undo()
    assert it.rows("SELECT count(*) AS n FROM notify.intake") == [{"n": count}]
    assert it.rows("SELECT DISTINCT state FROM notify.delivery") == [{"state": "digested"}]


def test_the_alarm_rings_for_what_is_due_and_plans_it(it: World, desk: Shop) -> None:
    rung: list[float] = []
    desk.gates.later = rung.append
    post(desk, 1)
    assert len(rung) == 1
    assert 0 <= rung[0] <= 86400
    it.rows("UPDATE notify.digest SET due_at = now()")
    unused: Any = None  # an alarm needs no Redis
    publish = Publishing(lambda _: None, lambda _: None, lambda _: None)
    Sweeper(
        database=it.db,
        pools=desk.pools,
        ledger=unused,
        intake=desk.intake,
        parking=unused,
        publish=publish,
        worker="w",
    ).ring()
    assert [wake.event_type for wake in desk.wakes] == ["post.digest"]


def test_large_digests_are_planned_a_few_at_a_time(
    it: World, desk: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(3):
        recipients.upsert(it.db, f"r-{n}", addresses={"sms": [f"+4915112345{800 + n}"]})
        post(desk, n, to=f"r-{n}", payload={"n": n, "text": secrets.token_hex(30_000)})
    flush(it)
    monkeypatch.setattr(intakes, "TAKEN_BYTES", 50_000)
    taken = [desk.intake.drain() for _ in range(4)]
    assert sum(taken) == 3
    assert max(taken) < 3


def test_the_house_s_own_digest_takes_what_is_gathered(it: World, desk: Shop) -> None:
    house = Path(__file__).parents[2] / "templates"
    for name in ("_layout", "comment.mentioned", "comment.digest"):
        shutil.copytree(house / name, desk.types / name)
    recipients.upsert(it.db, "ann", addresses={"email": ["ann@example.com"]}, locale="de")
    example = json.loads((house / "comment.mentioned" / "example.json").read_text())
    for n, author in enumerate(("Wei", "Ana")):
        mentioned = {**example, "author": author}
        post(desk, n, event_type="comment.mentioned", channels=["email"], digest="hourly", payload=mentioned)
    flush(it)
    (made,) = calls(it)
    assert desk.intake.drain() == 1
    assert states(it)[made.message_id] == "queued"
    loaded = LoadedType(desk.types, "comment.digest")
    mail = loaded.render(
        "email", made.payload, "de", recipient={"id": "ann", "locale": "de", "timezone": None}
    )
    assert isinstance(mail.content, EmailContent)
    assert mail.content.subject == "2 Kommentare erwähnen dich"
    assert mail.content.text.index("Ana zu") < mail.content.text.index("Wei zu")

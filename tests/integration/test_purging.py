"""Retention: old content and old rows go, and nothing that is still needed does."""

from __future__ import annotations

import threading
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from notify_tasks import explaining, retention, settings
from notify_tasks.settings import Settings
from notify_tasks.states import FINAL, State
from notify_tasks.store import accepting, cancelling, facts, inbox, purging, replaying, statuses
from notify_tasks.store.database import Database
from notify_tasks.store.purging import Kept
from notify_tasks.terminal import timeline
from tests.integration.core_world import (
    World,
    call,
    plain,
    planned,
    together,
    until,
    waiting_for_locks,
    world,
)

DAY = 86400.0
KEPT = Kept(7 * DAY, 30 * DAY, 90 * DAY)
CANARY = "canary-4711"
FINALS = sorted(state for state in FINAL)


@pytest.fixture
def it(database: str) -> Iterator[World]:
    with world(database, connections=20) as opened:
        yield opened


def purge(it: World, kept: Kept = KEPT, *, change: bool = True) -> dict[str, int]:
    done: Counter[str] = Counter()
    for page in purging.pages(it.db, kept, change=change):
        done[page.part] += page.done
    return dict(done)


def aged(it: World, id_: uuid.UUID, days: float) -> uuid.UUID:
    """As if everything about this delivery's notification had happened so many days ago."""
    back = "- make_interval(secs => %s)"
    own = "(SELECT notification_id FROM notify.delivery WHERE id = %s)"
    for statement in (
        f"UPDATE notify.message_key SET created_at = created_at {back} WHERE notification_id = {own}",
        f"UPDATE notify.notification SET accepted_at = accepted_at {back} WHERE id = {own}",
        f"UPDATE notify.delivery SET updated_at = updated_at {back} WHERE notification_id = {own}",
    ):
        seconds = [days * DAY] * statement.count(back)
        it.rows(statement, *seconds, id_)
    return id_


def ended(it: World, state: str = "failed", days: float = 8, **options: Any) -> uuid.UUID:
    """A delivery that ended so many days ago, with a private word in every place where there may be one."""
    given = {"payload": {"n": CANARY}, "to": {"sms": f"+49151{CANARY[-4:]}5678"}} | options
    item = planned(call(**given))
    accepting.accept(it.db, [item])
    id_ = item.deliveries[0].id
    it.claim(id_)
    it.rows("UPDATE notify.attempt SET detail = %s WHERE delivery_id = %s", f"no such user {CANARY}", id_)
    it.rows(
        "UPDATE notify.delivery SET state = %s, detail = %s, lease_until = NULL WHERE id = %s",
        state,
        CANARY,
        id_,
    )
    it.rows(
        "UPDATE notify.notification SET detail = %s, envelope = %s::jsonb WHERE id = %s",
        CANARY,
        "{}",
        item.id,
    )
    it.rows(
        "INSERT INTO notify.status_event (tenant, notification_id, delivery_id, kind, code, detail)"
        " VALUES ('default', %s, %s, %s, 'x', %s)",
        item.id,
        id_,
        state,
        CANARY,
    )
    it.rows("INSERT INTO notify.attachment VALUES (%s, 0, 'default', %s)", item.id, CANARY.encode())
    return aged(it, id_, days)


def dump(it: World) -> str:
    """Everything that is stored, as text."""
    tables = [row["t"] for row in it.rows("SELECT tablename AS t FROM pg_tables WHERE schemaname = 'notify'")]
    texts = []
    for table in tables:
        texts += [row["x"] for row in it.rows(f"SELECT to_jsonb(r)::text AS x FROM notify.{table} r")]
    return "\n".join(texts)


def exists(it: World, id_: uuid.UUID) -> bool:
    return bool(it.rows("SELECT 1 AS one FROM notify.delivery WHERE id = %s", id_))


def content(it: World, id_: uuid.UUID) -> bool:
    (row,) = it.rows(
        "SELECT d.address <> '' AND n.payload <> '{}' AS kept, n.purged_at FROM notify.delivery d"
        " JOIN notify.notification n ON n.id = d.notification_id WHERE d.id = %s",
        id_,
    )
    assert row["kept"] == (row["purged_at"] is None)
    return bool(row["kept"])


# --- content ------------------------------------------------------------------------------------------


def test_after_a_week_nothing_private_is_left_and_what_happened_is(it: World) -> None:
    id_ = ended(it)
    message_id = it.row(id_)["message_id"]
    assert CANARY in dump(it)
    assert purge(it, change=False) == {"content": 1}
    assert CANARY in dump(it)

    assert purge(it) == {"content": 1}

    assert CANARY not in dump(it)
    assert CANARY.encode().hex() not in dump(it)
    assert not content(it, id_)
    (status,) = statuses.read(it.db, message_id).notifications
    assert [each.state for each in status.deliveries] == ["failed"]
    assert [each.kind for each in status.deliveries[0].events] == ["failed"]
    assert len(status.deliveries[0].attempts) == 1
    assert purge(it) == {}
    # and whoever asks is told so.
    said = [moment.what for moment in timeline.moments(status)]
    assert said[-1] == "removed"
    facts_of_it = facts.of_message(it.db, message_id, tenant="default")
    assert facts_of_it is not None
    assert "removed at" in explaining.explanation(facts_of_it, datetime.now(UTC)).text


@pytest.mark.parametrize("state", sorted(State))
def test_only_what_is_final_goes(it: World, state: State) -> None:
    id_ = ended(it, state, days=40)
    purge(it)
    assert exists(it, id_) == (state not in FINAL)
    assert exists(it, id_) is False or content(it, id_)


def test_content_stays_for_a_week_after_the_end_however_long_ago_it_was_accepted(it: World) -> None:
    id_ = ended(it, days=60)
    it.shift(id_, updated_at=-6 * DAY)
    assert purge(it) == {"ids": 1}
    assert content(it, id_)


def test_a_replay_that_is_under_way_keeps_its_content(it: World) -> None:
    id_ = ended(it, days=40)
    (wake,) = replaying.replay(it.db, it.row(id_)["message_id"]).wakes
    purge(it)
    assert content(it, id_)
    claimed = it.claim(wake.id)
    assert claimed is not None
    assert claimed.payload == {"n": CANARY}


def test_of_a_replay_and_a_purge_at_once_one_is_too_late(it: World) -> None:
    for _ in range(8):
        id_ = ended(it)
        message_id = it.row(id_)["message_id"]

        def work(n: int, message_id: str = message_id) -> object:
            return purge(it) if n else replaying.replay(it.db, message_id)

        replayed = together(2, work)[0]
        assert bool(replayed.wakes) == content(it, id_)  # type: ignore[attr-defined]


def test_a_replay_that_is_made_while_a_purge_waits_keeps_its_content(it: World) -> None:
    # Given a purge that has found a delivery old enough and waits for its lock,
    id_ = ended(it)
    with plain(it.url) as other, other.transaction():
        other.execute("SELECT 1 FROM notify.delivery WHERE id = %s FOR UPDATE", (id_,))
        thread = threading.Thread(target=purge, args=(it,))
        thread.start()
        until(waiting_for_locks(it.url, 1), "the purge waits", 30)
        # when it is replayed meanwhile,
        assert len(replaying.replay(it.db, it.row(id_)["message_id"]).wakes) == 1
    thread.join()
    # then the content is still there.
    assert content(it, id_)


def test_what_was_purged_is_not_replayed(it: World) -> None:
    id_ = ended(it)
    purge(it)
    assert replaying.replay(it.db, it.row(id_)["message_id"]).wakes == []


def test_a_rejected_call_loses_its_content_too_and_is_then_not_replayed(it: World) -> None:
    item = replace(
        planned(call("m-1", payload={"n": CANARY})),
        deliveries=(),
        state="rejected",
        reason="bad",
        detail=CANARY,
    )
    accepting.accept(it.db, [item])
    it.rows("UPDATE notify.notification SET accepted_at = accepted_at - interval '8 days'")
    assert purge(it) == {"content": 1}
    assert CANARY not in dump(it)
    assert replaying.replay(it.db, "m-1").calls == 0


# --- rows ---------------------------------------------------------------------------------------------


def test_after_a_month_rows_and_message_ids_go(it: World) -> None:
    old, young = ended(it, days=31), ended(it, days=29)
    key = it.row(old)["message_id"]
    assert purge(it) == {"content": 2, "rows": 1, "ids": 1}
    assert (exists(it, old), exists(it, young)) == (False, True)
    assert it.rows("SELECT * FROM notify.status_event WHERE delivery_id = %s", old) == []
    assert it.rows("SELECT * FROM notify.attempt WHERE delivery_id = %s", old) == []
    assert not statuses.read(it.db, key).notifications


def test_message_ids_are_remembered_for_thirty_days_though_rows_are_not(it: World) -> None:
    id_ = ended(it, days=20)
    key = it.row(id_)["message_id"]
    purge(it, replace(KEPT, history=10 * DAY))
    assert not exists(it, id_)
    item = planned(call(key))
    assert accepting.accept(it.db, [item]).new == set()


def test_the_id_of_what_still_waits_is_kept_so_that_it_can_be_cancelled(it: World) -> None:
    id_ = aged(it, it.accept(call("m-1")), 40)
    purge(it)
    assert cancelling.cancel(it.db, "default", "m-1").cancelled == 1
    assert it.state(id_) == "cancelled"


def test_in_app_messages_outlive_what_brought_them_and_go_in_the_end(it: World) -> None:
    id_ = ended(it, "sent", days=31)
    inbox.put(it.db, delivery_id=str(id_), tenant="default", recipient_id="u", event_type="t", data={"a": 1})
    assert purge(it)["rows"] == 1
    (item,) = it.rows("SELECT * FROM notify.inbox_item")
    assert item["data"] == {"a": 1}
    assert inbox.mark_read(it.db, "u", [str(id_)]) == 1
    then = int((datetime.now(UTC) - timedelta(days=91)).timestamp() * 1000)
    it.rows(
        "UPDATE notify.inbox_item SET delivery_id = %s, created_at = now() - interval '91 days'",
        uuid.UUID(int=(then << 80) | 5),
    )
    assert purge(it) == {"inbox": 1}


def test_what_stands_by_itself_goes_with_time(it: World) -> None:
    rows = {
        "receipt_request": "INSERT INTO notify.receipt_request (provider, raw, received_at) VALUES ('p', 'x', {})",
        "parked_message": (
            "INSERT INTO notify.parked_message (digest, queue, reason, raw, parked_at, replayed_at)"
            " VALUES (gen_random_uuid(), 'q', 'r', 'x', {}, {})"
        ),
        "schedule_occurrence": (
            "INSERT INTO notify.schedule_occurrence (tenant, schedule_id, occurrence, message_id, created_at)"
            " VALUES ('default', gen_random_uuid(), now(), 'm', {})"
        ),
        "verification_begun": "INSERT INTO notify.verification_begun VALUES ('default', 'sms', 'd', {})",
        "receipt": (
            "INSERT INTO notify.receipt (provider, event_id, state, channel, address, received_at)"
            " VALUES ('p', gen_random_uuid(), 'applied', 'sms', 'a', {})"
        ),
    }
    for statement in rows.values():
        for days in (0, 31):
            it.rows(statement.replace("{}", f"now() - interval '{days} days'"))
    it.rows(rows["receipt"].replace("{}", "now() - interval '31 days'").replace("'applied'", "'waiting'"))

    done = purge(it)

    assert done == {"receipts": 1, "requests": 1, "occurrences": 1, "parked": 1, "codes": 1}
    for table in rows:
        assert it.rows(f"SELECT count(*) AS n FROM notify.{table}") == [{"n": 2 if table == "receipt" else 1}]


def test_more_than_a_page_of_everything_goes_in_one_run(it: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(purging, "PAGE", 2)
    for _ in range(5):
        ended(it, days=40)
        it.rows(
            "INSERT INTO notify.verification_begun VALUES ('default', 'sms', 'd', now() - interval '9 days')"
        )
    kept = aged(it, it.accept(), 40)
    assert purge(it) == {"content": 5, "rows": 5, "ids": 5, "codes": 5}
    assert content(it, kept)


# --- beside a fleet -----------------------------------------------------------------------------------


def test_two_never_purge_at_once_and_time_ends_a_run(it: World) -> None:
    for _ in range(3):
        ended(it)
    with it.db.alone(retention.LOCK) as mine:
        assert mine
        assert retention.purge(it.db, Settings()).busy
    done = retention.purge(it.db, Settings(), seconds=-1)
    assert done.more
    assert retention.purge(it.db, Settings()).done == {}


def test_content_is_never_kept_for_longer_than_its_rows_are() -> None:
    assert retention.kept(Settings(content_kept=50 * DAY)) == Kept(50 * DAY, 50 * DAY, 90 * DAY)
    read = settings.read({"NOTIFY_CONTENT_KEPT": "1d", "NOTIFY_HISTORY_KEPT": "14d"})
    assert (read.content_kept, read.history_kept) == (DAY, 14 * DAY)


_HISTORY = """
WITH n AS (
    INSERT INTO notify.notification (id, tenant, message_id, event_type, occurred_at, payload, plan, state, hash,
                                     accepted_at)
    SELECT gen_random_uuid(), 'default', 'old-' || g, 'test.ping', now(), '{{"n": 1}}', '{{}}', 'accepted', 'h',
           now() - interval '20 days' - make_interval(secs => g)
      FROM generate_series(1, {count}) g
    RETURNING id, message_id, accepted_at)
INSERT INTO notify.delivery (id, notification_id, tenant, message_id, event_type, address, channel, lane, state,
                             on_doubt, max_attempts, created_at, updated_at)
SELECT gen_random_uuid(), id, 'default', message_id, 'test.ping', '+4915112345678', 'sms', 'normal', 'sent', 'resend',
       8, accepted_at, accepted_at FROM n
"""


@pytest.mark.parametrize("count", [5_000, pytest.param(100_000, marks=pytest.mark.long)])
def test_sends_go_on_while_thousands_are_purged(it: World, count: int) -> None:
    # Given many old notifications, and one that waits,
    it.rows(_HISTORY.format(count=count))
    waiting = aged(it, it.accept(), 20)
    began, over, sent = threading.Event(), threading.Event(), Counter[str]()

    def run() -> None:
        db = Database(it.url, connections=2)
        try:
            for page in purging.pages(db, KEPT):
                sent[page.part] += page.done
                began.set()
        finally:
            db.close()
            over.set()

    # when they are purged, then every send beside it is accepted, claimed and recorded at its first try.
    thread = threading.Thread(target=run)
    thread.start()
    assert began.wait(60)
    while not over.is_set():
        claimed = it.claimed()
        recorded = it.record(claimed, "accepted", State.SENT)
        assert recorded is not None
        assert recorded.state == "sent"
        sent["sent"] += not over.is_set()
    thread.join()
    assert sent["content"] == count
    assert sent["sent"] >= 5
    assert it.rows(
        "SELECT count(*) AS n FROM notify.notification WHERE purged_at IS NULL AND payload <> '{}'"
    ) == [{"n": it.rows("SELECT count(*) AS n FROM notify.message_key")[0]["n"]}]
    assert content(it, waiting)

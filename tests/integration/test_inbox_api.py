"""The in-app inbox as the services that show it use it: read page by page, counted, marked as read, told live."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis

from channels.contract import DataContent, Message
from notify_tasks import api_connections, fleet, inbox, settings
from notify_tasks.embedded import Server
from notify_tasks.errors import InvalidCall, NotConfigured
from notify_tasks.notification import uuid7
from notify_tasks.store import inbox as stored
from notify_tasks.store.database import DatabaseAway
from tests.integration.core_world import World, plain, together, until, waiting_for_locks, world

ROOT = Path(__file__).parents[2]


@pytest.fixture
def it(database: str) -> Iterator[World]:
    settings.configure(database_url=database)
    with world(database, connections=20) as opened:
        yield opened
    inbox.close()
    settings.reset()


def arrive(
    it: World, count: int = 1, *, who: str = "ann", tenant: str = "default", at: str = "now()"
) -> list[str]:
    """Messages that came one after the other; returns their ids, oldest first."""
    ids = [str(uuid7()) for _ in range(count)]
    for n, id_ in enumerate(ids):
        assert stored.put(
            it.db, delivery_id=id_, tenant=tenant, recipient_id=who, event_type="order.shipped", data={"n": n}
        )
    if at != "now()":
        it.rows(
            "UPDATE notify.inbox_item SET created_at = %s::timestamptz WHERE delivery_id = ANY(%s)", at, ids
        )
    return ids


def ids_of(page: inbox.InboxPage) -> list[str]:
    return [message.id for message in page.messages]


# --- reading ------------------------------------------------------------------------------------------


def test_a_message_is_read_with_its_data_and_counted_until_it_is_marked(it: World) -> None:
    (id_,) = arrive(it)

    (message,) = inbox.messages("ann").messages
    assert (message.id, message.event_type, message.data, message.read_at) == (
        id_,
        "order.shipped",
        {"n": 0},
        None,
    )
    assert message.created_at.utcoffset() == timedelta(0)
    assert inbox.unread_count("ann") == 1

    assert inbox.mark_read("ann", [id_]) == 1
    assert inbox.unread_count("ann") == 0
    (read,) = inbox.messages("ann").messages
    assert read.read_at is not None
    assert abs(datetime.now(UTC) - read.read_at) < timedelta(minutes=1)
    assert inbox.messages("ann", unread=True) == inbox.InboxPage((), None)
    assert inbox.mark_read("ann", [id_]) == 0, "it was read before"
    assert inbox.messages("ann").messages == (read,), "and keeps its time"


def test_pages_are_newest_first_and_what_arrives_meanwhile_shifts_nothing(it: World) -> None:
    ids = arrive(it, 7)
    newest_first = ids[::-1]

    first = inbox.messages("ann", limit=3)
    arrive(it, 2)
    second = inbox.messages("ann", limit=3, after=first.next)
    last = inbox.messages("ann", limit=3, after=second.next)

    assert [ids_of(page) for page in (first, second, last)] == [
        newest_first[:3], newest_first[3:6], newest_first[6:],
    ]  # fmt: skip
    assert last.next is None
    exactly = inbox.messages("ann", limit=4, after=first.next)
    assert (len(exactly.messages), exactly.next) == (4, None)


def test_messages_of_one_moment_are_each_listed_once(it: World) -> None:
    ids = arrive(it, 5, at="2026-03-01T12:00:00.123456Z")
    found: list[str] = []
    after = None
    while True:
        page = inbox.messages("ann", limit=2, after=after)
        found += ids_of(page)
        after = page.next
        if after is None:
            break
    assert found == sorted(ids, reverse=True)


def test_unread_ones_are_listed_alone_page_by_page(it: World) -> None:
    ids = arrive(it, 6)
    inbox.mark_read("ann", [ids[0], ids[3]])

    first = inbox.messages("ann", unread=True, limit=2)
    rest = inbox.messages("ann", unread=True, limit=5, after=first.next)

    assert ids_of(first) + ids_of(rest) == [ids[5], ids[4], ids[2], ids[1]]
    assert rest.next is None


def test_lists_and_counts_are_read_by_their_indexes(it: World) -> None:
    it.rows(
        "INSERT INTO notify.inbox_item (delivery_id, tenant, recipient_id, event_type, data, read_at, created_at)"
        " SELECT gen_random_uuid(), 'default', 'u' || mod(n, 40), 'x', '{}', now(), now() - make_interval(secs => n)"
        " FROM generate_series(1, 20000) n"
    )
    arrive(it, 3)
    it.rows("ANALYZE notify.inbox_item")
    wanted: dict[str, Any] = {
        "tenant": "default", "recipient_id": "u1", "created_at": "infinity", "id": stored._LAST, "limit": 11,
    }  # fmt: skip
    with plain(it.url) as connection:
        page = str(connection.execute(f"EXPLAIN {stored._READ}", wanted).fetchall())
        unread = str(connection.execute(f"EXPLAIN {stored._READ_UNREAD}", wanted).fetchall())
        count = str(connection.execute(f"EXPLAIN {stored._COUNT}", ("default", "u1")).fetchall())
    assert "inbox_item_recipient" in page
    assert "inbox_item_unread" in unread
    assert "inbox_item_unread" in count
    assert "Seq Scan" not in page + unread + count


# --- marking ------------------------------------------------------------------------------------------


def test_none_marks_all_and_an_empty_list_none(it: World) -> None:
    arrive(it, 3)
    assert inbox.mark_read("ann", []) == 0
    assert inbox.unread_count("ann") == 3
    assert inbox.mark_read("ann", None) == 3
    assert inbox.unread_count("ann") == 0
    arrive(it)
    assert inbox.unread_count("ann") == 1, "what comes later is unread"


def test_nobody_reads_or_marks_another_ones_messages(it: World) -> None:
    # Given one id of two tenants, and another person,
    (mine,), (theirs,), (bobs,) = arrive(it), arrive(it, tenant="other"), arrive(it, who="bob")

    assert ids_of(inbox.messages("ann")) == [mine]
    assert ids_of(inbox.messages("ann", tenant="other")) == [theirs]
    # when all three ids are given for one of them,
    assert inbox.mark_read("ann", [mine, theirs, bobs]) == 1
    # then the others' stay unread, also when all are marked.
    assert inbox.mark_read("ann", None) == 0
    assert inbox.unread_count("ann", tenant="other") == 1
    assert inbox.unread_count("bob") == 1
    assert inbox.messages("nobody") == inbox.InboxPage((), None)


def test_of_two_devices_that_mark_at_once_each_message_is_counted_by_one(it: World) -> None:
    for _ in range(10):
        ids = arrive(it, 30)
        halves = (ids[:20], ids[10:][::-1], None)
        marked = together(6, lambda n, halves=halves: inbox.mark_read("ann", halves[n % 3]))  # type: ignore[misc]
        assert sum(marked) == 30
        assert inbox.unread_count("ann") == 0


def test_a_mark_that_waited_for_another_finds_it_read(it: World) -> None:
    (id_,) = arrive(it)
    with ThreadPoolExecutor(1) as other:
        # Given a device whose mark is not committed yet,
        with plain(it.url) as connection, connection.transaction():
            connection.execute("UPDATE notify.inbox_item SET read_at = '2026-03-01T12:00:00Z'")
            # when another one marks the same, it waits,
            second = other.submit(inbox.mark_read, "ann", [id_])
            until(waiting_for_locks(it.url, 1), "the second mark waits")
        # and then counts nothing and leaves the time.
        assert second.result(30) == 0
    (message,) = inbox.messages("ann").messages
    assert message.read_at == datetime(2026, 3, 1, 12, tzinfo=UTC)


# --- live readers -------------------------------------------------------------------------------------


@pytest.fixture
def listener(broker: str) -> Iterator[Callable[[str], Callable[[], str]]]:
    """Subscribe to a channel; returns what waits for the next word."""
    client: redis.Redis = redis.Redis.from_url(broker, decode_responses=True)
    heard = client.pubsub()

    def subscribe(channel: str) -> Callable[[], str]:
        heard.subscribe(channel)
        until(lambda: heard.get_message(timeout=0.1), "the subscription is there")

        def word() -> str:
            message = until(
                lambda: heard.get_message(ignore_subscribe_messages=True, timeout=0.1), "a word was heard"
            )
            return str(message["data"])

        return word

    yield subscribe
    heard.close()
    client.close()


def test_other_devices_hear_of_new_messages_and_of_marks_on_one_topic(
    it: World, broker: str, listener: Callable[[str], Callable[[], str]]
) -> None:
    settings.configure(broker_url=broker)
    word = listener(inbox.topic("ann"))
    id_ = str(uuid7())
    with redis.Redis.from_url(broker) as client:
        fleet.InboxStore(it.db, client).put(
            Message(id_, "key", "inapp", "order.shipped", "ann", DataContent({"title": "Shipped"}))
        )
    assert word() == id_

    # When one device marks it, once more, and another person's is marked,
    assert inbox.mark_read("ann", [id_]) == 1
    assert word() == inbox.READ
    assert inbox.mark_read("ann", [id_]) == 0
    arrive(it, who="bob")
    inbox.mark_read("bob", None)
    # then the next word is that of the next mark: nothing was said where nothing changed, nor of others.
    arrive(it, tenant="other")
    inbox.mark_read("ann", None, tenant="other")
    (last,) = arrive(it)
    with redis.Redis.from_url(broker) as client:
        client.publish(inbox.topic("ann"), "end")
    assert word() == "end"
    assert inbox.mark_read("ann", [last]) == 1
    assert word() == inbox.READ


def test_a_redis_that_is_away_or_frozen_fails_no_mark(
    it: World, start_redis: Callable[[], Server], caplog: pytest.LogCaptureFixture
) -> None:
    server = start_redis()
    settings.configure(broker_url=server.url)
    arrive(it)
    assert inbox.mark_read("ann", None) == 1
    for trouble in (signal.SIGSTOP, signal.SIGKILL):
        server.kill(trouble)
        arrive(it)
        with caplog.at_level(logging.INFO):
            assert inbox.mark_read("ann", None) == 1
    assert inbox.unread_count("ann") == 0
    assert caplog.text.count("no live reader was told") == 2
    assert "ann" not in caplog.text


# --- mistakes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("work", "field", "remedy"),
    [
        (lambda: inbox.messages("ann", limit=0), "limit", "1 to 200"),
        (lambda: inbox.messages("ann", limit=201), "limit", "1 to 200"),
        (lambda: inbox.messages("ann", after="yesterday"), "after", "`next`"),
        (lambda: inbox.messages("ann", after="9" * 18 + "-" + str(uuid7())), "after", "`next`"),
        (lambda: inbox.messages(""), "recipient_id", "1 to 200"),
        (lambda: inbox.unread_count("a\x00"), "recipient_id", "Leave such"),
        (lambda: inbox.mark_read("ann", None, tenant=""), "tenant", "1 to 200"),
        (lambda: inbox.mark_read("ann", str(uuid7())), "ids", "in a list"),
        (lambda: inbox.mark_read("ann", [str(uuid7()), "canary"]), "ids[1]", "the `id` of a message"),
        (lambda: inbox.mark_read("ann", [str(uuid7())] * 1001), "ids", "1000 at a time"),
    ],
)
def test_a_mistake_names_the_argument_and_the_remedy(
    it: World, work: Callable[[], object], field: str, remedy: str
) -> None:
    with pytest.raises(InvalidCall) as refused:
        work()
    assert refused.value.field == field
    assert remedy in refused.value.remedy
    assert "canary" not in str(refused.value)


def test_without_a_database_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_connections, "WAIT_SECONDS", 0.2)
    settings.reset()
    with pytest.raises(NotConfigured, match="database_url"):
        inbox.messages("ann")
    settings.configure(database_url="postgresql://nobody:canary@127.0.0.1:1/notify")
    with pytest.raises(DatabaseAway) as away:
        inbox.unread_count("ann")
    assert "canary" not in str(away.value)
    inbox.close()
    settings.reset()


def test_what_people_were_sent_is_in_no_repr(it: World) -> None:
    stored.put(
        it.db,
        delivery_id=str(uuid7()),
        tenant="default",
        recipient_id="ann",
        event_type="x",
        data={"t": "canary"},
    )
    assert "canary" not in repr(inbox.messages("ann"))


def test_without_its_libraries_it_says_what_to_install() -> None:
    program = "import sys; sys.modules['psycopg'] = None; from notify_tasks import inbox"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert "psycopg, which is not installed here" in done.stderr
    assert "pip install 'notify-tasks[postgres]'" in done.stderr


def test_it_is_loaded_when_it_is_first_used() -> None:
    program = (
        "import sys, notify_tasks as n; assert 'psycopg' not in sys.modules; "
        "from notify_tasks import inbox; assert n.inbox.messages is inbox.messages; "
        "assert not {'jinja2', 'pydantic', 'phonenumbers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", program], cwd=ROOT, check=True, timeout=60)

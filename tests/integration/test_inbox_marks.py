"""What marking an in-app message does: to the inbox, to live readers, and to the delivery that brought it."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator

import pytest
import redis

from notify_tasks import inbox, people, settings
from notify_tasks.inbox import InboxCounts
from notify_tasks.plans import Profile
from notify_tasks.states import State, may_move
from notify_tasks.store import inbox as stored
from notify_tasks.store import statuses
from notify_tasks.store.deliveries import Claimed
from notify_tasks.terminal.timeline import lines
from tests.integration.core_world import World, call, together, world


@pytest.fixture
def it(database: str) -> Iterator[World]:
    settings.configure(database_url=database)
    with world(database, connections=20) as opened:
        yield opened
    inbox.close()
    settings.reset()


def put(it: World, message_id: str | None = None) -> Claimed:
    """An in-app delivery that a worker has, its message stored, its result not yet written."""
    ann = {"ann": Profile("ann")}
    claimed = it.claimed(notification=call(message_id, to="ann", channels=["inapp"]), profiles=ann)
    assert stored.put(
        it.db,
        delivery_id=str(claimed.id),
        tenant="default",
        recipient_id="ann",
        event_type="test.ping",
        data={"n": 1},
    )
    return claimed


def arrived(it: World, message_id: str | None = None) -> uuid.UUID:
    claimed = put(it, message_id)
    it.record(claimed, "accepted", State.SENT)
    return claimed.id


def events(it: World, id_: uuid.UUID) -> list[str]:
    return [
        row["kind"]
        for row in it.rows("SELECT kind FROM notify.status_event WHERE delivery_id = %s ORDER BY id", id_)
    ]


# --- reading is arriving ------------------------------------------------------------------------------


def test_what_was_read_was_delivered_and_the_status_says_when(it: World) -> None:
    id_ = arrived(it, "m-1")
    other = arrived(it)

    assert inbox.mark_read("ann", [str(id_)]) == 1

    assert (it.state(id_), events(it, id_)) == ("delivered", ["sent", "delivered", "read"])
    assert (it.state(other), events(it, other)) == ("sent", ["sent"])
    found = statuses.read(it.db, "m-1")
    told = "\n".join(
        "".join(part if isinstance(part, str) else part.text for part in line)
        for line in lines(found, found.notifications[0].accepted_at)
    )
    assert re.search(r"read +inapp ann", told)


def test_it_is_read_once_however_often_it_is_marked(it: World) -> None:
    id_ = arrived(it)
    for _ in range(2):
        assert inbox.mark_read("ann", None) == 1
        assert inbox.mark_read("ann", None) == 0
        assert inbox.mark_unread("ann", [str(id_)]) == 1
        assert inbox.mark_unread("ann", [str(id_)]) == 0

    assert inbox.unread_count("ann") == 1
    assert (it.state(id_), events(it, id_)) == ("delivered", ["sent", "delivered", "read"])


def test_the_move_is_a_legal_one_from_wherever_the_delivery_is(it: World) -> None:
    ids = {state: arrived(it) for state in State}
    for state, id_ in ids.items():
        it.rows(
            "UPDATE notify.delivery SET state = %s, due_at = now(), unknown = 1 WHERE id = %s", state, id_
        )

    assert inbox.mark_read("ann", None) == len(State)

    arrives = {State.SENT, State.HELD, State.QUEUED, State.RETRYING, State.IN_DOUBT}
    for state, id_ in ids.items():
        now = State(it.state(id_))
        assert now is (State.DELIVERED if state in arrives else state)
        assert now is state or may_move(state, now)
        assert "read" in events(it, id_)
        if state in arrives:  # nothing is sent again
            assert it.row(id_)["due_at"] is None
            assert it.claim(id_) is None


def test_a_doubt_of_three_days_is_final(it: World) -> None:
    id_ = arrived(it)
    it.rows("UPDATE notify.delivery SET state = 'in_doubt' WHERE id = %s", id_)
    it.shift(id_, updated_at=-73 * 3600)
    inbox.mark_read("ann", None)
    assert it.state(id_) == "in_doubt"


def test_read_before_its_worker_could_write_it_is_in_no_doubt(it: World) -> None:
    claimed = put(it)
    inbox.mark_read("ann", None)
    assert it.state(claimed.id) == "sending"

    assert it.end_lease(claimed.id) == "sent"


def test_devices_that_mark_all_at_once_write_it_once(it: World) -> None:
    ids = [arrived(it) for _ in range(5)]
    assert sum(together(6, lambda _: inbox.mark_read("ann", None))) == 5
    assert [events(it, id_) for id_ in ids] == [["sent", "delivered", "read"]] * 5


def test_marking_and_erasing_at_once_do_not_stop_each_other(it: World) -> None:
    people.upsert("ann")
    for _ in range(20):
        arrived(it)

    def act(n: int) -> None:
        people.erase("ann") if n == 0 else inbox.mark_read("ann", None)

    together(4, act)
    assert inbox.counts("ann") == InboxCounts(0, 0)


# --- the rest of an inbox -----------------------------------------------------------------------------


def test_messages_are_counted_marked_unread_and_deleted(it: World) -> None:
    ids = [str(arrived(it)) for _ in range(4)]
    inbox.mark_read("ann", ids[:3])
    assert inbox.counts("ann") == InboxCounts(4, 1)
    assert inbox.counts("bob") == InboxCounts(0, 0)

    assert inbox.mark_unread("ann", ids) == 3
    assert inbox.mark_unread("bob", ids) == 0
    assert inbox.counts("ann") == InboxCounts(4, 4)

    assert inbox.delete("bob", None) == 0
    assert inbox.delete("ann", ids[:1], tenant="other") == 0
    assert inbox.delete("ann", ids[:1]) == 1
    assert [message.id for message in inbox.messages("ann").messages] == list(reversed(ids[1:]))
    assert inbox.delete("ann", None) == 3
    assert inbox.counts("ann") == InboxCounts(0, 0)
    assert [it.state(uuid.UUID(id_)) for id_ in ids] == ["delivered"] * 3 + ["sent"]


def test_live_readers_are_told_what_was_done(it: World, broker: str) -> None:
    settings.configure(broker_url=broker)
    ids = [str(arrived(it)) for _ in range(2)]
    with redis.Redis.from_url(broker, decode_responses=True) as client, client.pubsub() as listener:
        listener.subscribe(inbox.topic("ann"))
        assert listener.get_message(timeout=30)["type"] == "subscribe"  # type: ignore[index]

        inbox.mark_read("ann", None)
        inbox.mark_unread("ann", ids)
        inbox.mark_unread("ann", ids)  # changes nothing, so nobody is told
        inbox.delete("ann", ids)

        heard = [listener.get_message(timeout=30) for _ in range(3)]
        assert [word["data"] for word in heard if word] == ["read", "unread", "deleted"]
        assert listener.get_message(timeout=0.2) is None

"""Cancelling all that waits under a key: each call is sent or cancelled, never both, and the caller is told."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import notify_tasks
from notify_tasks import api_connections
from notify_tasks.calls import build_notification
from notify_tasks.errors import InvalidCall, NotConfigured
from notify_tasks.notification import Notification
from notify_tasks.states import State
from notify_tasks.store import accepting, cancelled_keys, cancelling, intakes
from notify_tasks.store.cancelled_keys import CancelledAll
from notify_tasks.store.cancelling import Cancelled
from notify_tasks.store.database import DatabaseAway
from tests.integration.core_shop import Shop, shop
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


@pytest.fixture
def it(database: str) -> Iterator[World]:
    with world(database, connections=20) as opened:
        yield opened


def cancel(
    it: World, key: str = "order-1", *, tenant: str = "default", asked: datetime | None = None
) -> CancelledAll:
    return cancelled_keys.cancel_all(it.db, key, tenant=tenant, asked=asked or datetime.now(UTC))


def numbers(done: CancelledAll) -> tuple[int, int, int, int]:
    return done.cancelled, done.too_late, done.in_doubt, done.stopped_before


def made(message_id: str, seconds: float = 0.0, **options: Any) -> Notification:
    """A call under the key, made so many seconds from now by its machine's clock."""
    at = datetime.now(UTC) + timedelta(seconds=seconds)
    given = {
        "to": {"sms": PHONE},
        "channels": ["sms"],
        "payload": {"n": 1},
        "cancel_key": "order-1",
    } | options
    return build_notification("test.ping", now=at, message_id=message_id, **given)


def test_everything_under_the_key_is_answered_for_and_nothing_else_is_touched(it: World) -> None:
    # Given deliveries in every place, two notifications without this key, and one of another tenant,
    waits = [it.accept(made(f"w-{n}")) for n in range(3)]
    sending = it.claimed(it.accept(made("sending")))
    sent = it.claimed(it.accept(made("sent")))
    it.record(sent, "accepted", State.SENT)
    doubt = it.claimed(it.accept(made("doubt")))
    it.end_lease(doubt.id)
    failed = it.claimed(it.accept(made("failed")))
    it.record(failed, "refused", State.FAILED)
    others = [
        it.accept(made("other", cancel_key="order-2")),
        it.accept(made("none", cancel_key=None)),
        it.accept(made("tenant", tenant="other")),
    ]

    # when the key is cancelled,
    done = cancel(it)

    # then what waited is stopped, and the numbers say what became of each.
    assert (done.notifications, numbers(done)) == (7, (3, 2, 1, 1))
    assert not done.complete
    assert {it.state(id_) for id_ in waits} == {"cancelled"}
    assert it.events(waits[0]) == ["cancelled"]
    assert (it.state(sending.id), it.state(doubt.id)) == ("sending", "in_doubt")
    assert {it.state(id_) for id_ in others} == {"queued"}
    # What was being sent and comes back is not tried again.
    it.record(sending, "try_later", State.RETRYING, due=0.0)
    assert it.claim(sending.id) is None
    assert it.state(sending.id) == "cancelled"


def test_calls_in_the_intake_table_go_and_are_known_as_cancelled(it: World) -> None:
    kept = [made("k-1"), made("k-2"), made("k-3", cancel_key="order-2"), made("k-4", tenant="other")]
    intakes.keep(it.db, [notification.to_wire() for notification in kept], origin="producer")

    done = cancel(it)

    assert (done.calls, done.notifications, done.complete) == (2, 0, True)
    assert [row["message_id"] for row in it.rows("SELECT message_id FROM notify.intake ORDER BY 1")] == [
        "k-3",
        "k-4",
    ]
    keys = it.rows("SELECT message_id FROM notify.message_key WHERE cancelled_at IS NOT NULL ORDER BY 1")
    assert [row["message_id"] for row in keys] == ["k-1", "k-2"]


@pytest.mark.parametrize("claim", [False, True], ids=["stored", "one hop"])
def test_a_call_on_its_way_is_stopped_and_one_made_after_the_cancel_is_not(it: World, *, claim: bool) -> None:
    # Given a call that is still in Redis when its key is cancelled,
    before = planned(made("before"), claim=one_claim() if claim else None)
    plain_call = planned(call("plain"))
    done = cancel(it)
    after = planned(made("after"), claim=one_claim() if claim else None)

    # when a worker takes it, one made after the cancel, and one without a key together,
    stored = accepting.accept(it.db, [before, after, plain_call])

    # then the first is cancelled, whenever it comes and however often.
    assert stored.new == {after.id, plain_call.id}
    assert stored.existing[before.id].cancelled
    assert stored.existing[before.id].notification_id is None
    again = planned(replace(before.notification, timestamp=datetime.now(UTC)))
    assert accepting.accept(it.db, [again]).existing[again.id].cancelled
    assert numbers(done) == (0, 0, 0, 0)
    # A second cancel finds the one made after the first.
    assert numbers(cancel(it)) == ((0, 1, 0, 0) if claim else (1, 0, 0, 0))


@pytest.mark.parametrize(
    ("canceller", "calls_stopped", "calls_accepted"),
    [
        (-1.0, [-2.0], [0.5, -0.5]),  # the cancellers's clock is a second behind: its own word counts
        (3600.0, [-1.0], [5.0]),  # an hour ahead: the database's counts, and a later call is safe
        (-3600.0, [-1.0, -1800.0], [5.0]),
    ],
)
def test_the_moment_is_the_cancellers_clock_where_it_can_be_right(
    it: World, canceller: float, calls_stopped: list[float], calls_accepted: list[float]
) -> None:
    cancel(it, asked=datetime.now(UTC) + timedelta(seconds=canceller))
    items = {seconds: planned(made(f"m{seconds}", seconds)) for seconds in (*calls_stopped, *calls_accepted)}

    stored = accepting.accept(it.db, list(items.values()))

    assert stored.new == {items[seconds].id for seconds in calls_accepted}


def test_a_tombstone_is_forgotten_when_its_time_is_over(it: World) -> None:
    before = planned(made("before"))
    done = cancel(it)
    assert timedelta(days=29) < done.until - done.moment < timedelta(days=31)
    it.rows("UPDATE notify.cancelled_key SET until = now() - interval '1 s'")

    assert accepting.accept(it.db, [before]).new == {before.id}
    cancel(it, "order-2")
    assert [row["cancel_key"] for row in it.rows("SELECT cancel_key FROM notify.cancelled_key")] == [
        "order-2"
    ]


def test_what_was_called_after_a_cancel_is_not_found_by_it_either(it: World) -> None:
    """A call that is accepted while the cancel goes through its pages."""
    old = [it.accept(made(f"o-{n}")) for n in range(3)]
    seen = threading.Event()

    class Slow:
        def __getattr__(self, name: str) -> Any:
            return getattr(it.db, name)

        def rows(self, statement: str, parameters: Any = ()) -> Any:
            if statement is cancelled_keys._FOUND and not seen.is_set():
                seen.set()
                ids.append(it.accept(made("late")))
            return it.db.rows(statement, parameters)

    ids: list[Any] = []
    done = cancelled_keys.cancel_all(Slow(), "order-1", tenant="default", asked=datetime.now(UTC))  # type: ignore[arg-type]

    assert numbers(done) == (3, 0, 0, 0)
    assert {it.state(id_) for id_ in old} == {"cancelled"}
    assert it.state(ids[0]) == "queued"


def test_many_are_cancelled_page_by_page(it: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cancelled_keys, "PAGE", 7)
    accepting.accept(it.db, [planned(made(f"m-{n}")) for n in range(50)])

    done = cancel(it)

    assert (done.notifications, numbers(done)) == (50, (50, 0, 0, 0))
    assert numbers(cancel(it)) == (50, 0, 0, 0)
    assert len(it.rows("SELECT 1 FROM notify.status_event")) == 50


def test_an_accept_that_has_begun_is_waited_for_and_found(it: World) -> None:
    # Given an accept that has asked for the key and has not committed yet,
    with plain(it.url) as accepting_now:
        accepting_now.execute("BEGIN")
        item = planned(made("m-1"))
        accepting_now.execute(
            "SELECT pg_advisory_xact_lock_shared(%s, hashtext('default/order-1'))", (cancelled_keys._LOCKS,)
        )

        def run(which: int) -> Any:
            if which:
                return cancel(it)
            until(waiting_for_locks(it.url, 1), "the cancel waits for the accept", 30)
            _store_with(accepting_now, item)
            return accepting_now.execute("COMMIT")

        _, done = together(2, run)

    assert numbers(done) == (1, 0, 0, 0)
    assert it.state(item.deliveries[0].id) == "cancelled"


def _store_with(connection: Any, item: Any) -> None:
    document = json.dumps(
        {
            "n": [accepting._notification_row(item)],
            "d": [accepting._delivery_row(item, delivery) for delivery in item.deliveries],
        },
        default=str,
    )
    connection.execute(accepting._ACCEPT, (document,))


def test_a_claim_in_progress_is_waited_for_and_comes_first(it: World) -> None:
    id_ = it.accept(made("m-1"))
    with plain(it.url) as claiming:
        claiming.execute("BEGIN")
        claiming.execute("UPDATE notify.delivery SET state = 'sending' WHERE id = %s", (id_,))

        def run(which: int) -> Any:
            if which:
                return cancel(it)
            until(waiting_for_locks(it.url, 1), "the cancel waits for the claim", 30)
            return claiming.execute("COMMIT")

        _, done = together(2, run)

    assert numbers(done) == (0, 1, 0, 0)
    assert it.state(id_) == "sending"


def test_a_call_without_a_key_asks_for_nothing(it: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It costs what it did before: one statement."""
    asked: list[str] = []
    real = it.db.rows
    monkeypatch.setattr(it.db, "transact", lambda _work: pytest.fail("a transaction of several statements"))

    def rows(statement: str, parameters: Any = ()) -> Any:
        asked.append(statement)
        return real(statement, parameters)

    monkeypatch.setattr(it.db, "rows", rows)

    accepting.accept(it.db, [planned(call("m-1"))])

    assert asked == [accepting._ACCEPT]


# --- races ----------------------------------------------------------------------------------------------

RACES = 1000
STORED = 700
THREADS = 8
KEYS = [f"order-{n}" for n in range(10)]


@dataclass(slots=True)
class Race:
    """Workers that take and send, one caller who cancels each call by its id, and one who cancels all by their keys."""

    it: World
    fleet: Shop
    calls: list[Notification]
    work: list[Any] = field(default_factory=list)
    """Deliveries that are stored, and calls that are still to be taken."""
    by_id: dict[str, Cancelled] = field(default_factory=dict)
    by_key: dict[str, CancelledAll] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def run(self) -> None:
        rng = random.Random(5)
        stored = [planned(one) for one in self.calls[:STORED]]
        for start in range(0, STORED, 100):
            accepting.accept(self.it.db, stored[start : start + 100])
        self.work = [*(item.deliveries[0].id for item in stored), *self.calls[STORED:]]
        rng.shuffle(self.work)
        some = self.calls[::3]
        rng.shuffle(some)
        jobs = [self._worker] * THREADS + [lambda: self._cancel_each(some), self._cancel_all]
        together(len(jobs), lambda n: jobs[n]())

    def _worker(self) -> None:
        while True:
            with self.lock:
                if not self.work:
                    return
                one = self.work.pop()
            if not isinstance(one, Notification):
                self.fleet.deliver(one)
                continue
            taken = self.fleet.take(one, "notify.sms")
            if taken.claimed is not None:
                self.fleet.deliverer.perform(taken.claimed, asked=taken.asked, lease=taken.lease)

    def _cancel_each(self, some: list[Notification]) -> None:
        for one in some:
            self.by_id[one.message_id] = cancelling.cancel(self.it.db, "default", one.message_id)

    def _cancel_all(self) -> None:
        for key in KEYS:
            least = len(self.work) - 40
            until(lambda least=least: len(self.work) < least or not self.work, "the workers go on", 60)  # type: ignore[misc]
            self.by_key[key] = cancel(self.it, key)


@pytest.fixture
def race(database: str, tmp_path: Path) -> Iterator[Race]:
    with world(database, connections=2 * THREADS + 4) as it, shop(tmp_path, it.db, threads=THREADS) as fleet:
        yield Race(it, fleet, [made(f"m-{n}", cancel_key=KEYS[n % 10]) for n in range(RACES)])


def test_a_thousand_races_end_sent_or_cancelled_and_the_numbers_agree(race: Race) -> None:
    # Given a thousand calls under ten keys: most are stored, the others come while workers and cancellers run,
    race.run()
    rows = race.it.rows("SELECT id, message_id, state FROM notify.delivery")
    state = {row["message_id"]: row["state"] for row in rows}

    # then each was sent or cancelled, and never both: the far end's log says the same,
    arrived = [message.delivery_id for message in race.fleet.scripts["a"].sent]
    assert len(arrived) == len(set(arrived))
    assert set(arrived) == {str(row["id"]) for row in rows if row["state"] == "sent"}
    never_stored = {one.message_id for one in race.calls} - set(state)
    stones = race.it.rows("SELECT message_id FROM notify.message_key WHERE notification_id IS NULL")
    assert never_stored == {row["message_id"] for row in stones}

    # each caller by id was told which,
    for message_id, answer in race.by_id.items():
        assert answer.before_intake == (message_id in never_stored)
        assert answer.complete == (state.get(message_id) != "sent")

    # and so was the caller by key: nothing was sent later than it had said.
    for n, key in enumerate(KEYS):
        mine = [state.get(f"m-{m}") for m in range(n, RACES, 10)]
        last = cancel(race.it, key)
        assert race.by_key[key].too_late == last.too_late == mine.count("sent")
        assert last.cancelled == mine.count("cancelled")

    # (and there were races: they went every way)
    assert set(state.values()) == {"sent", "cancelled"}
    assert never_stored


# --- what a producer calls ------------------------------------------------------------------------------


@contextmanager
def configured(url: str) -> Iterator[None]:
    notify_tasks.configure(database_url=url)
    try:
        yield
    finally:
        api_connections.close()
        notify_tasks.settings.reset()


def test_the_function_of_the_package_cancels_and_may_be_repeated(database: str) -> None:
    with proxied(database) as proxy, world(database) as it, configured(proxy.url):
        id_ = it.accept(made("m-1"))
        proxy.arm("lose_answer", b"COMMIT")
        with pytest.raises(DatabaseAway):
            notify_tasks.cancel_all("order-1")
        until(lambda: proxy.cuts, "the cut")

        assert notify_tasks.cancel_all("order-1").cancelled == 1
        assert it.state(id_) == "cancelled"


@pytest.mark.parametrize("key", ["", "a" * 201, "a\x00", 5, None])
def test_a_key_that_is_none_is_refused(key: Any) -> None:
    with pytest.raises(InvalidCall, match="cancel_key"):
        notify_tasks.cancel_all(key)


def test_without_a_database_the_setting_is_named() -> None:
    with pytest.raises(NotConfigured, match="NOTIFY_DATABASE_URL"):
        notify_tasks.cancel_all("order-1")


def test_importing_these_functions_loads_no_driver() -> None:
    code = (
        "import sys\n"
        "from notify_tasks import LocalTime, cancel_all, explain, explain_recipient, reschedule\n"
        "print(sorted({'psycopg', 'jinja2', 'channels', 'pydantic', 'celery'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"

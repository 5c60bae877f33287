"""The ledger and the sweep over it: what is left of a lost message becomes a notification, and nothing else does."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from notify_tasks import sweeping
from notify_tasks.keeping.redis import RedisKeeper
from notify_tasks.ledger import Ledger
from notify_tasks.listening import Listener
from notify_tasks.notification import Notification
from notify_tasks.parked import Parking
from notify_tasks.routing import LEDGER_PREFIX, PARKED_KEY, ledger_key
from notify_tasks.store import intakes, parking, sweeps
from notify_tasks.store.database import DatabaseAway
from notify_tasks.sweeping import Guard, Publishing, Sweeper
from tests.integration.core_shop import Shop, shop, write_type
from tests.integration.core_world import PHONE, World, call, plain, together, until, world

SMS = "notify.sms"


@pytest.fixture
def it(database: str) -> Iterator[World]:
    with world(database, connections=20) as opened:
        yield opened


@pytest.fixture
def client(broker: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(broker) as opened:
        yield opened


@pytest.fixture
def publish(broker: str) -> Iterator[Callable[..., Notification]]:
    """Call as a producer does: the message and its ledger entry, in Redis."""
    keeper = RedisKeeper(broker, timeout=5)

    def run(message_id: str, **options: Any) -> Notification:
        notification = call(message_id, **options)
        keeper.keep(notification, {}, deadline=time.monotonic() + 5)
        return notification

    yield run
    keeper.close()


@dataclass(slots=True)
class Sweep:
    """A sweeper with its worker's parts. What it publishes goes into lists; a marker runs when the test says so."""

    it: World
    desk: Shop
    client: redis.Redis
    ledger: Ledger
    sweeper: Sweeper
    markers: list[tuple[str, int]] = field(default_factory=list)

    def run(self) -> sweeping.Swept:
        return self.sweeper.sweep()

    def come_back(self) -> None:
        """All markers so far run, and ten seconds pass."""
        for queue, n in self.markers:
            sweeps.marker_ran(self.it.db, queue, n)
        self.markers.clear()
        self.it.rows(
            "UPDATE notify.marker SET sent_at = sent_at - '11 s'::interval, ran_at = ran_at - '11 s'::interval"
        )

    def age(self, buckets: int) -> None:
        """As if the ledger's entries had been written so many buckets earlier."""
        for key, (bucket, queue) in self.ledger.keys().items():
            self.client.rename(key, ledger_key(bucket - buckets, queue))


@pytest.fixture
def sweep(it: World, client: redis.Redis, tmp_path: Path) -> Iterator[Sweep]:
    with shop(tmp_path, it.db) as desk:
        yield sweep_with(it, desk, client)


def sweep_with(it: World, desk: Shop, client: redis.Redis) -> Sweep:
    markers: list[tuple[str, int]] = []

    def mark(more: Sequence[tuple[str, int]]) -> None:
        markers.extend(more)

    ledger = Ledger(client)
    sweeper = Sweeper(
        database=it.db,
        pools=desk.pools,
        ledger=ledger,
        intake=desk.intake,
        parking=Parking(it.db, client),
        publish=Publishing(desk.wakes.extend, mark, lambda _ids: None),
        worker="test",
    )
    return Sweep(it, desk, client, ledger, sweeper, markers)


def messages(it: World) -> dict[str, str]:
    return {
        row["message_id"]: row["state"]
        for row in it.rows("SELECT message_id, state FROM notify.notification")
    }


def nowhere() -> redis.Redis:
    """A Redis that refuses connections, and a client that says so at once."""
    return redis.Redis(port=9, retry=Retry(NoBackoff(), 0))


# --- entries --------------------------------------------------------------------------------------------


def test_a_call_leaves_an_entry_under_its_queue_and_time(
    client: redis.Redis, publish: Callable[..., Notification]
) -> None:
    ledger = Ledger(client)
    before = ledger.bucket_now()
    notification = publish("m-1")

    ((key, (bucket, queue)),) = ledger.keys().items()
    assert queue == SMS
    assert before - 1 <= bucket <= ledger.bucket_now()
    ((_, envelope),) = ledger.entries(key, 100).items()
    assert isinstance(envelope, dict)
    assert Notification.from_wire(envelope) == notification


def test_accepted_entries_go_together_and_soon(
    client: redis.Redis, publish: Callable[..., Notification]
) -> None:
    ledger = Ledger(client)
    for n in range(50):
        publish(f"m-{n}")
    keys = list(ledger.keys())
    entries = [(key, name.decode()) for key in keys for name in ledger.entries(key, 100)]
    calls = client.info("commandstats").get("cmdstat_hdel", {"calls": 0})["calls"]  # type: ignore[union-attr]

    for key, name in entries[1:]:
        ledger.forget(key, name)

    until(lambda: sum(len(ledger.entries(key, 100)) for key in keys) == 1, "the entries are gone")
    after = client.info("commandstats")["cmdstat_hdel"]["calls"]  # type: ignore[index]
    assert after - calls < 20


def test_a_redis_that_is_away_costs_nothing_but_the_removal(
    caplog: pytest.LogCaptureFixture,
) -> None:
    gone = Ledger(nowhere())
    gone.forget("notify.ledger.1.notify.sms", "f")
    gone.flush()
    thread = gone._thread
    gone.forget("notify.ledger.1.notify.sms", "f")
    assert thread is not None
    assert thread.is_alive()
    assert "f" not in caplog.text


def test_what_is_no_ledger_is_passed_over(client: redis.Redis, publish: Callable[..., Notification]) -> None:
    ledger = Ledger(client)
    publish("m-1")
    client.hset(f"{LEDGER_PREFIX}tuesday.notify.sms", "f", "v")
    client.hset(LEDGER_PREFIX.encode() + b"\xff\xfe", "f", "v")
    client.set(f"{LEDGER_PREFIX}5.notify.sms", "no hash at all")
    assert len(ledger.keys()) == 1


# --- lost or only behind ------------------------------------------------------------------------------------


def test_only_entries_from_well_before_a_marker_that_came_back_are_lost(
    sweep: Sweep, publish: Callable[..., Notification]
) -> None:
    # Given entries of the marker's own bucket, of the one before, and of the one before that,
    for buckets, message_id in ((0, "old"), (1, "near"), (1, "now")):
        sweep.age(buckets)
        publish(message_id)
    assert sweep.run().markers == 1
    now = sweep.it.rows("SELECT bucket FROM notify.marker")[0]["bucket"]
    places = {queue_bucket - now for queue_bucket, _ in sweep.ledger.keys().values()}
    assert places <= {0, -1, -2, -3}  # a bucket may have ended in between

    # when the marker has not come back, nothing is lost, however often one looks;
    assert sweep.run().rewoken_as_lost == 0

    # and when it has, only the oldest is.
    sweep.come_back()
    swept = sweep.run()
    lost = set(messages(sweep.it))
    assert "old" in lost
    assert "now" not in lost
    assert swept.rewoken_as_lost == len(lost)
    assert sweeps.counters(sweep.it.db)["rewoken_as_lost"] == len(lost)


@pytest.mark.parametrize(("buckets", "lost"), [(0, False), (1, False), (2, True), (50, True)])
def test_an_entry_is_compared_with_the_markers_bucket_less_one(
    sweep: Sweep, publish: Callable[..., Notification], buckets: int, *, lost: bool
) -> None:
    publish("m-1")
    sweep.run()
    sweep.come_back()
    ((key, (_, queue)),) = sweep.ledger.keys().items()
    (row,) = sweep.it.rows("SELECT bucket FROM notify.marker")
    sweep.client.rename(key, ledger_key(row["bucket"] - buckets, queue))

    sweep.run()

    assert messages(sweep.it) == ({"m-1": "accepted"} if lost else {})
    assert (sweep.ledger.keys() == {}) == lost


def test_a_lost_message_is_planned_in_the_same_sweep_and_woken(
    sweep: Sweep, publish: Callable[..., Notification], caplog: pytest.LogCaptureFixture
) -> None:
    publish("m-1")
    sweep.run()
    sweep.age(5)
    sweep.come_back()
    with caplog.at_level(logging.WARNING):
        sweep.run()
    assert messages(sweep.it) == {"m-1": "accepted"}
    assert [(wake.channel, wake.lane) for wake in sweep.desk.wakes] == [("sms", "normal")]
    assert intakes.waiting(sweep.it.db) == 0
    assert "1 lost messages" in caplog.text
    assert PHONE not in caplog.text


def test_an_accepted_message_whose_entry_was_left_behind_is_not_sent_twice(
    sweep: Sweep, publish: Callable[..., Notification]
) -> None:
    taken = sweep.desk.take(publish("m-1"), SMS)
    assert taken.claimed is not None
    sweep.run()
    sweep.age(5)
    sweep.come_back()
    sweep.run()
    assert sweep.ledger.keys() == {}
    assert sweep.it.rows("SELECT count(*) AS n FROM notify.delivery") == [{"n": 1}]
    assert sweep.desk.wakes == []


def test_a_marker_of_one_queue_says_nothing_of_anothers_entries(
    sweep: Sweep, publish: Callable[..., Notification]
) -> None:
    publish("m-1")
    publish("m-2", priority="high")
    sweep.run()
    assert sorted(queue for queue, _ in sweep.markers) == [SMS, "notify.sms.high"]
    sweep.age(5)
    sweep.markers[:] = [marker for marker in sweep.markers if marker[0] == SMS]
    sweep.come_back()
    sweep.run()
    assert set(messages(sweep.it)) == {"m-1"}


def test_after_a_flush_of_redis_new_markers_find_the_rows(sweep: Sweep) -> None:
    # Given stored deliveries whose wake-ups and markers are gone,
    lost = sorted(sweep.it.accept() for _ in range(3))
    sweep.run()
    sweep.client.flushall()
    sweep.markers.clear()

    # when two more markers have come back, then the rows are woken again.
    for _ in range(2):
        assert sweep.desk.wakes == []
        sweep.it.rows("UPDATE notify.marker SET sent_at = sent_at - '11 s'::interval")
        sweep.run()
        sweep.come_back()
    sweep.run()
    assert sorted(wake.id for wake in sweep.desk.wakes) == lost


# --- poison in the ledger -----------------------------------------------------------------------------------


def test_entries_that_nobody_can_plan_are_parked_and_their_neighbours_go_on(
    sweep: Sweep, publish: Callable[..., Notification]
) -> None:
    # Given good entries among a hash full of bad ones,
    good = [publish(f"m-{n}") for n in range(3)]
    wire = call("bad").to_wire()
    bad: dict[bytes, bytes] = {
        b"not json": b"\xff\xfe{",
        b"no envelope": b"[1, 2]",
        b"\xff\xfe": b'{"queue": "notify.sms"}',
        b"wrong version": json.dumps({"envelope": wire | {"v": 99}}).encode(),
        b"impossible time": json.dumps(
            {"envelope": wire | {"timestamp": "0001-01-01T00:00:00+14:00"}}
        ).encode(),
        b"nul": json.dumps({"envelope": wire | {"payload": {"n": "\x00"}}}).encode(),
        b"half a pair": json.dumps({"envelope": wire | {"payload": {"n": "\ud83d"}}}).encode(),
        b"deep": b'{"envelope": ' + b"[" * 5000 + b"]" * 5000 + b"}",
    }
    (key,) = sweep.ledger.keys()
    sweep.client.hset(key, mapping=bad)
    sweep.run()
    sweep.age(5)
    sweep.come_back()

    # when the sweep finds them,
    swept = sweep.run()

    # then the good ones are sent, the bad ones are kept byte for byte, and the sweep goes on to its end.
    assert set(messages(sweep.it)) == {one.message_id for one in good}
    parked = parking.parked(sweep.it.db)
    assert len(parked) == len(bad)
    assert {one.reason for one in parked} == {"ledger_unreadable", "refused_by_database"}
    kept = {parking.read(sweep.it.db, one.id) for one in parked}
    assert (SMS, b"\xff\xfe{") in kept
    assert sweep.ledger.keys() == {}
    assert swept.problems == []
    assert sweep.run().problems == []


def test_parked_messages_are_moved_out_of_redis_whatever_their_record_says(sweep: Sweep) -> None:
    records: list[Any] = [
        {"queue": SMS, "reason": "not-json", "detail": "x\x00y", "at": "1", "raw": "AAE="},
        {"queue": "q\ud83d", "reason": "r", "detail": {"an": "object"}, "at": "2\ud83d", "raw": "AAE="},
        {"queue": SMS, "reason": "r", "detail": None, "at": "3", "raw": "not base64 at all!"},
        {"queue": SMS},
        ["no", "record"],
    ]
    for record in records:
        sweep.client.lpush(PARKED_KEY, json.dumps(record))
    sweep.client.lpush(PARKED_KEY, b"\xff\x00 neither")
    sweep.client.lpush(PARKED_KEY, json.dumps(records[0]))  # the same one twice

    assert sweep.run().parked == len(records) + 2

    assert sweep.client.llen(PARKED_KEY) == 0
    parked = parking.parked(sweep.it.db)
    assert len(parked) == len(records) + 1
    assert sum(one.reason == "parked_record_unreadable" for one in parked) == 4


def test_an_intake_row_that_ends_its_sweep_holds_up_no_later_one(
    sweep: Sweep, publish: Callable[..., Notification]
) -> None:
    # Given a row that is no envelope at all beside good ones,
    sweep.it.rows(
        "INSERT INTO notify.intake (tenant, message_id, hash, envelope, origin) VALUES ('t', 'm', 'h', %s, 'producer')",
        json.dumps(call("x").to_wire() | {"timestamp": "0001-01-01T00:00:00+14:00"}),
    )
    intakes.keep(sweep.it.db, [call("m-1").to_wire()], origin="producer")
    for _ in range(6):
        sweep.it.rows("UPDATE notify.intake SET due_at = due_at - '31 s'::interval")
        try:
            sweep.run()
        except OverflowError:
            continue
    assert messages(sweep.it) == {"m-1": "accepted"}
    assert len(parking.parked(sweep.it.db)) == 1


# --- servers that are away ----------------------------------------------------------------------------------


def test_without_redis_the_sweep_does_what_needs_only_postgresql(it: World, tmp_path: Path) -> None:
    with shop(tmp_path, it.db) as desk:
        sweep = sweep_with(it, desk, nowhere())
        due, expiring = it.accept(call(at=None)), it.accept()
        it.rows("UPDATE notify.delivery SET state = 'held'")
        it.shift(due, due_at=-1)
        it.shift(expiring, expires_at=-1)
        intakes.keep(it.db, [call("m-1").to_wire()], origin="producer")

        swept = sweep.run()

        assert (swept.due, swept.expired, swept.intake) == (1, 1, 1)
        assert swept.problems == ["Redis: ConnectionError"]
        assert desk.wakes[0].id == due


def test_without_postgresql_the_sweep_says_so(client: redis.Redis, tmp_path: Path, it: World) -> None:
    with world("postgresql://u:p@127.0.0.1:9/none", wait=0.3) as gone, shop(tmp_path, gone.db) as desk:
        with pytest.raises(DatabaseAway):
            sweep_with(gone, desk, client).run()


def test_a_sweep_notes_itself_and_says_what_it_did(sweep: Sweep) -> None:
    assert str(sweep.run()) == "nothing to do"
    (row,) = sweep.it.rows("SELECT last_by FROM notify.sweep")
    assert row["last_by"] == "test"
    id_ = sweep.it.accept()
    sweep.it.rows("UPDATE notify.delivery SET state = 'held'")
    sweep.it.shift(id_, due_at=-1)
    assert str(sweep.run()) == "due 1, markers 1"


def test_a_sweep_ends_leases_and_tells_what_can_be_cleared_up(sweep: Sweep) -> None:
    claimed = sweep.it.claimed()
    sweep.it.rows("UPDATE notify.delivery SET on_doubt = 'hold', lease_until = now()")
    sweep.run()
    assert sweep.it.state(claimed.id) == "sending"  # the sweeps themselves have only begun
    sweep.it.rows("UPDATE notify.sweep SET leases_from = now()")

    swept = sweep.run()

    assert (swept.leases_ended, sweep.it.state(claimed.id)) == (1, "in_doubt")
    assert sweeps.counters(sweep.it.db) == {"leases_ended": 1}


def test_sweeps_at_once_move_each_entry_once(
    it: World, client: redis.Redis, tmp_path: Path, publish: Callable[..., Notification]
) -> None:
    for n in range(40):
        publish(f"m-{n}")
    with shop(tmp_path, it.db) as desk:
        several = [sweep_with(it, desk, client) for _ in range(4)]
        several[0].run()
        several[0].age(5)
        several[0].come_back()
        swept = together(4, lambda n: several[n].run())
    assert sum(one.rewoken_as_lost for one in swept) == 40
    assert len(messages(it)) == 40
    assert len(desk.wakes) == 40


# --- nobody sweeps ------------------------------------------------------------------------------------------


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeping, "TAKEOVER_SECONDS", 0.4)
    monkeypatch.setattr(sweeping, "GUARD_LOOKS_EVERY", 0.05)
    monkeypatch.setattr(sweeping, "GUARD_SWEEPS_EVERY", 0.2)


class Counting:
    """A sweeper that notes itself, as every sweep does, and nothing more."""

    def __init__(self, it: World, name: str) -> None:
        self.it, self.name, self.sweeps = it, name, 0

    def sweep(self) -> None:
        sweeps.begin(self.it.db, by=self.name, lease=40)
        self.sweeps += 1


def test_the_promised_takeover_is_no_gap_by_itself() -> None:
    longest = sweeping.TAKEOVER_SECONDS + 1.2 * sweeping.GUARD_LOOKS_EVERY
    assert longest < sweeps.GAP_SECONDS
    assert sweeping.GUARD_SWEEPS_EVERY < sweeping.TAKEOVER_SECONDS


@pytest.mark.usefixtures("hurried")
def test_one_of_many_workers_sweeps_when_nobody_does_and_stops_when_somebody_does(it: World) -> None:
    # Given workers and no beat,
    counting = [Counting(it, f"w-{n}") for n in range(3)]
    guards = [Guard(it.db, one) for one in counting]  # type: ignore[arg-type]
    for guard in guards:
        guard.start()

    # when nobody has swept for a while, then one of them does, again and again;
    until(lambda: max(one.sweeps for one in counting) >= 3, "somebody sweeps")
    assert sum(one.sweeps > 0 for one in counting) == 1

    # and when the maintenance process is back, then none of them does.
    stop = threading.Event()

    def maintenance() -> None:
        while not stop.wait(0.05):
            sweeps.begin(it.db, by="maint", lease=40)

    thread = threading.Thread(target=maintenance)
    thread.start()
    until(lambda: _quiet_for(counting, 0.6), "the guards are quiet")
    stop.set()
    thread.join(30)
    for guard in guards:
        guard.stop()
    for guard in guards:
        guard._thread.join(30)
        assert not guard._thread.is_alive()


def _quiet_for(counting: list[Counting], seconds: float) -> bool:
    before = [one.sweeps for one in counting]
    time.sleep(seconds)
    return before == [one.sweeps for one in counting]


@pytest.mark.usefixtures("hurried")
def test_a_guard_outlives_its_problems(it: World) -> None:
    class Stumbling(Counting):
        def sweep(self) -> None:
            super().sweep()
            if self.sweeps < 3:
                raise RuntimeError("a bug")

    stumbling = Stumbling(it, "w")
    guard = Guard(it.db, stumbling)  # type: ignore[arg-type]
    guard.start()
    until(lambda: stumbling.sweeps >= 4, "it goes on")
    guard.stop()
    guard._thread.join(30)


# --- the listener -------------------------------------------------------------------------------------------


@pytest.fixture
def listener(it: World, sweep: Sweep) -> Iterator[Listener]:
    opened = Listener(it.db, sweep.desk.intake)
    opened.start()
    yield opened
    opened.stop()
    opened._thread.join(30)
    assert not opened._thread.is_alive()


@pytest.mark.usefixtures("listener")
def test_committed_rows_are_planned_with_and_without_a_word(it: World) -> None:
    intakes.keep(it.db, [call("m-1").to_wire()], origin="producer")
    until(lambda: "m-1" in messages(it), "the poll finds it")
    intakes.keep(it.db, [call("m-2").to_wire()], origin="producer")
    it.rows("SELECT pg_notify('notify_intake', '')")
    until(lambda: "m-2" in messages(it), "the word is heard")


@pytest.mark.usefixtures("listener")
def test_a_listener_whose_connection_is_cut_listens_again(it: World) -> None:
    def cut() -> list[Any]:
        with plain(it.url) as other:
            return other.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name = 'notify-dedicated' AND datname = current_database()"
            ).fetchall()

    until(cut, "it listens")
    intakes.keep(it.db, [call("m-1").to_wire()], origin="producer")
    until(lambda: "m-1" in messages(it), "it listens again")


@pytest.mark.usefixtures("listener")
def test_a_listener_survives_a_row_that_breaks_its_drain(it: World, sweep: Sweep) -> None:
    write_type(sweep.desk.types, "test.other")
    bad = replace(call("bad"), priority="urgent")
    intakes.keep(it.db, [bad.to_wire(), call("m-1", event_type="test.other").to_wire()], origin="producer")
    until(lambda: "m-1" in messages(it), "the good one")
    assert [one.reason for one in parking.parked(it.db)] == ["refused_by_database"]

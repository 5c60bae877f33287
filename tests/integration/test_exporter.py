"""`notify exporter` over real servers: what waits, what was sent, and what is away."""

from __future__ import annotations

import json
import shutil
import signal
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import kombu
import psutil
import psycopg
import pytest
import redis
import trustme
from integration.core_world import World, call, until, world
from support.ports import free_port
from support.scraping import promtool, scrape, series, total, undeclared, values_of

from notify_tasks import metrics, routing
from notify_tasks.broker import Broker
from notify_tasks.embedded import Server, postgres_server, redis_server
from notify_tasks.exporter.serving import serve
from notify_tasks.fleet import deliver_message
from notify_tasks.settings import Settings
from notify_tasks.states import State
from notify_tasks.store import reports, sweeps
from notify_tasks.store.migrate import migrate
from notify_tasks.store.reports import Report
from notify_tasks.store.sweeps import Wake


@dataclass(slots=True)
class Watched:
    """Servers with an exporter that watches them."""

    redis: Server
    postgres: Server
    world: World
    url: str

    def page(self) -> str:
        return scrape(f"{self.url}/metrics")

    def shows(self, name: str, value: float, **labels: str) -> None:
        until(lambda: total(self.page(), name, **labels) == value, f"{name} {labels} is {value}", 60)


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Server]]:
    """Their own: they are stopped and frozen."""
    directory = tmp_path_factory.mktemp("exporter")
    with redis_server(directory, use_environment=False) as store:
        with postgres_server(directory, use_environment=False) as postgres:
            migrate(postgres.url)
            yield store, postgres


@pytest.fixture(scope="module")
def watched(servers: tuple[Server, Server]) -> Iterator[Watched]:
    store, postgres = servers
    exporter, exposed = serve(Settings(broker_url=store.url, database_url=postgres.url), "127.0.0.1", 0)
    with world(postgres.url) as found:
        yield Watched(store, postgres, found, exposed.url)
    exposed.close()
    exporter.stop()


def test_queues_and_what_workers_hold(watched: Watched) -> None:
    # Given three wake-ups in a queue, published by the fleet, and one that a worker holds,
    wakes = [Wake(watched.world.accept(), "sms", "normal") for _ in range(3)]
    broker = Broker(watched.redis.url, timeout=5)
    broker.publish([deliver_message("notify.sms", [wake]) for wake in wakes])
    client = redis.Redis.from_url(watched.redis.url)
    client.hset("unacked", "tag", json.dumps([{"body": "x"}, "", "notify.sms"]))
    client.zadd("unacked_index", {"tag": time.time() - 40})
    client.hset(routing.ledger_key(int(time.time() / 10) - 20, "notify.sms"), "one", "{}")
    client.hset(routing.ledger_key(int(time.time() / 10), "notify.sms"), "two", "{}")

    # then the exporter tells of each, and of how old the oldest is.
    watched.shows("notify_queue_messages", 3, queue="notify.sms")
    watched.shows("notify_queue_messages", 3)
    watched.shows("notify_queue_unacked", 1, queue="notify.sms")
    watched.shows("notify_ledger_entries", 2)
    watched.shows("notify_ledger_leftovers", 1)
    text = watched.page()
    assert 0 <= total(text, "notify_queue_oldest_seconds", queue="notify.sms") < 60
    assert 40 <= total(text, "notify_unacked_oldest_seconds") < 100
    assert total(text, "notify_redis_memory_bytes") > 100_000
    assert total(text, "notify_redis_aof_enabled") == total(text, "notify_redis_aof_ok") == 1
    assert total(text, "notify_redis_noeviction") == 1
    client.flushdb()
    client.close()


def test_totals_are_rows_and_count_each_delivery_once(watched: Watched) -> None:
    # Given deliveries that were sent, one of them delivered, one that failed, one that is late,
    it = watched.world
    before = {
        state: total(watched.page(), "notify_deliveries_total", state=state) for state in ("sent", "failed")
    }
    for n in range(5):
        claimed = it.claimed()
        if n == 0:  # accepted a minute ago
            it.shift(claimed.id, created_at=-60)
        if n == 1:  # accepted an hour ago, for half a second ago
            it.shift(claimed.id, created_at=-3600, planned_for=-0.5)
        it.record(claimed, "accepted", State.SENT)
    it.record(it.claimed(), "refused", State.FAILED, code="550")
    late = it.accept()
    it.shift(late, created_at=-45)

    # then they count once, with the time that they took from when they were due.
    watched.shows(
        "notify_deliveries_total", before["sent"] + 5, state="sent", channel="sms", type="test.ping"
    )
    watched.shows("notify_deliveries_total", before["failed"] + 1, state="failed")
    text = watched.page()
    count = total(text, "notify_accept_to_sent_seconds_count", channel="sms", lane="normal")
    assert count == before["sent"] + 5
    within = total(text, "notify_accept_to_sent_seconds_bucket", channel="sms", lane="normal", le="10.0")
    assert within == count - 1
    assert (
        total(text, "notify_slo_sent", window="5m") - total(text, "notify_slo_sent_in_time", window="5m") == 1
    )
    assert total(text, "notify_deliveries_failed", channel="sms") == 1

    # And the late one is seen as overdue, and lowers the share until it is sent.
    until(lambda: total(watched.page(), "notify_slo_overdue", lane="normal") >= 1, "it is overdue", 60)
    text = watched.page()
    assert 45 <= total(text, "notify_deliveries_oldest_seconds", channel="sms", state="queued") < 300
    sent, overdue = total(text, "notify_slo_sent", window="5m"), total(text, "notify_slo_overdue")
    in_time = total(text, "notify_slo_sent_in_time", window="5m")
    assert total(text, "notify_slo_in_time_ratio", window="5m") == pytest.approx(in_time / (sent + overdue))

    # And they stay when the rows go: a counter never falls.
    it.rows("DELETE FROM notify.notification")
    it.rows("DELETE FROM notify.status_event")
    it.record(it.claimed(), "accepted", State.SENT)
    watched.shows("notify_deliveries_total", before["sent"] + 6, state="sent")


def test_an_event_of_a_transaction_that_ends_late_is_counted(watched: Watched) -> None:
    # Given an event in a transaction that stays open, with a number below those that are counted meanwhile,
    it = watched.world
    before = total(watched.page(), "notify_deliveries_total", state="expired")
    slow, quick = it.accept(), it.accept()
    event = (
        "INSERT INTO notify.status_event (tenant, notification_id, delivery_id, kind)"
        " SELECT tenant, notification_id, id, 'expired' FROM notify.delivery WHERE id = %s"
    )
    with psycopg.connect(watched.postgres.url) as open_one:
        open_one.execute(event, (slow,))
        it.rows(event, quick)
        time.sleep(2.5)  # what would count the quick one too early has its time to do so
        assert total(watched.page(), "notify_deliveries_total", state="expired") == before
        open_one.commit()

    # then both are counted, once.
    watched.shows("notify_deliveries_total", before + 2, state="expired")


def test_what_is_held_by_plan_is_not_late(watched: Watched) -> None:
    # Given a call for tomorrow that was made an hour ago, and one whose time came and was taken up by the sweep,
    it = watched.world
    it.rows("DELETE FROM notify.notification")
    ahead = it.accept(call(at=datetime.now(UTC) + timedelta(days=1)))
    it.shift(ahead, created_at=-3600)
    due = it.accept(call(at=datetime.now(UTC) + timedelta(days=1)))
    it.shift(due, created_at=-3600, due_at=-3)
    assert [wake.id for wake in sweeps.take_due(it.db, limit=10)] == [due]

    # then neither counts from its acceptance.
    watched.shows("notify_deliveries_waiting", 1, state="held", channel="sms", lane="normal")
    text = watched.page()
    assert total(text, "notify_deliveries_oldest_seconds", channel="sms", state="held") == 0
    assert 3 <= total(text, "notify_deliveries_oldest_seconds", channel="sms", state="queued") < 600
    it.rows("DELETE FROM notify.notification")


def test_consumers_beat_and_the_sweep(watched: Watched) -> None:
    it = watched.world
    sweeps.begin(it.db, by="maint:1", lease=40)
    it.rows("UPDATE notify.sweep SET ticked_at = now() - interval '20 seconds'")
    sweeps.count(it.db, "rewoken_as_lost", 3)
    for n in range(2):
        reports.put(it.db, Report(f"w:{n}", "v1", "notify.toml", 1.0, queues=("notify.sms", "notify.email")))

    watched.shows("notify_queue_consumers", 2, queue="notify.sms")
    watched.shows("notify_queue_consumers", 0, queue="notify.push")
    watched.shows("notify_rewoken_as_lost_total", 3)
    watched.shows("notify_workers", 2)
    text = watched.page()
    assert 20 <= total(text, "notify_beat_age_seconds") < 200
    assert 0 <= total(text, "notify_sweep_age_seconds") < 180


def test_it_is_all_named_and_bounded_whatever_the_rows_say(watched: Watched) -> None:
    # Given rejected calls of types that nobody has, in which a producer wrote what it liked,
    it = watched.world
    for n in range(20):
        it.rows(
            "WITH n AS (INSERT INTO notify.notification (id, tenant, message_id, event_type, occurred_at, payload,"
            " plan, state, reason, hash) VALUES (gen_random_uuid(), 't', %s, %s, now(), '{}', '{}', 'rejected',"
            " 'unknown_event_type', 'h') RETURNING id, tenant)"
            " INSERT INTO notify.status_event (tenant, notification_id, kind, code)"
            " SELECT tenant, id, 'rejected', 'unknown_event_type' FROM n",
            f"m{n}",
            f"ana{n}@example.com",
        )

    # then they count as one type, every name is declared, and promtool has nothing to say.
    watched.shows("notify_notifications_total", 20, state="rejected", type="other")
    text = watched.page()
    assert "example.com" not in text
    assert promtool(text) == ""
    assert undeclared(text) == set()
    assert values_of(text, "queue") == set(routing.ALL_QUEUES)
    shown = {
        name.removesuffix("_bucket").removesuffix("_count").removesuffix("_sum") for name, _ in series(text)
    }
    assert {each.name for each in metrics.FLEET} - shown <= {"notify_provider_left_out"} | {
        each.name for each in metrics.FLEET if each.kind == "histogram"
    }


@pytest.fixture(scope="module")
def encrypted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Redis that speaks TLS alone: Debian's, since the bundled Valkey is built without."""
    binary = shutil.which("redis-sentinel")
    if binary is None:
        pytest.skip("no Redis with TLS is here: apt-get install redis-sentinel")
    directory = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(str(directory / "ca.pem"))
    certificate.private_key_and_cert_chain_pem.write_to_path(str(directory / "server.pem"))
    port = free_port()
    words = [
        *("redis-server", "--port", "0", "--tls-port", str(port), "--bind", "127.0.0.1", "--save", ""),
        *(
            "--dir",
            str(directory),
            "--tls-auth-clients",
            "no",
            "--tls-ca-cert-file",
            str(directory / "ca.pem"),
        ),
        *("--tls-cert-file", str(directory / "server.pem"), "--tls-key-file", str(directory / "server.pem")),
    ]
    with (directory / "log").open("wb") as log:
        # One program with three names: it is the server where it is called so.
        server = subprocess.Popen(words, executable=binary, stdout=log, stderr=log)
    yield f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={directory / 'ca.pem'}"
    server.terminate()
    server.wait(30)


def test_a_broker_with_tls_and_a_prefix_of_its_keys(encrypted: str, servers: tuple[Server, Server]) -> None:
    # Given messages that Celery's own library has put there, behind a prefix, and one that it has taken,
    _, postgres = servers
    exporter, exposed = serve(
        Settings(broker_url=encrypted, database_url=postgres.url), "127.0.0.1", 0, prefix="eu."
    )
    url = f"{exposed.url}/metrics"
    until(lambda: total(scrape(url), "notify_up", part="broker") == 1, "it answers by TLS", 60)
    place, _, certificate = encrypted.partition("?ssl_ca_certs=")
    tls = {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_ca_certs": certificate}
    options = {"global_keyprefix": "eu."}
    with kombu.Connection(place, ssl=tls, transport_options=options) as connection:
        queue = connection.SimpleQueue("notify.email")
        for n in range(3):
            queue.put({"n": n})
        taken = queue.get(timeout=30)

        # then they are seen where they are.
        until(lambda: total(scrape(url), "notify_queue_messages", queue="notify.email") == 2, "two wait", 60)
        until(
            lambda: total(scrape(url), "notify_queue_unacked", queue="notify.email") == 1, "one is held", 60
        )
        taken.ack()
        queue.close()
    exposed.close()
    exporter.stop()


def signalled(server: Server, number: signal.Signals) -> None:
    """A server with all of its processes."""
    found = psutil.Process(server.pid)
    for process in (found, *found.children(recursive=True)):
        process.send_signal(number)


def timed(work: Callable[[], str]) -> tuple[str, float]:
    began = time.monotonic()
    return work(), time.monotonic() - began


def test_a_frozen_database_and_a_dead_broker_are_metrics(watched: Watched) -> None:
    # Given a PostgreSQL that hangs: it takes connections and never answers,
    watched.shows("notify_up", 2)
    signalled(watched.postgres, signal.SIGSTOP)
    try:
        # then the answer comes in time, soon says that it is away, and still tells of the broker.
        until(lambda: total(watched.page(), "notify_up", part="postgres") == 0, "it counts as away", 60)
        text, took = timed(watched.page)
        assert total(text, "notify_up", part="broker") == 1
        assert total(text, "notify_sample_age_seconds", part="postgres") >= 3
        assert took < 10  # of 1.2 s by its own clock; the machine may be busy
        assert total(text, "notify_deliveries_total", state="sent") > 0
        assert scrape(f"{watched.url}/livez") == "alive\n"
        assert scrape(f"{watched.url}/readyz") == "ready\n"
    finally:
        signalled(watched.postgres, signal.SIGCONT)
    watched.shows("notify_up", 1, part="postgres")

    # And a broker that is gone is one, too, and comes back.
    watched.redis.kill(signal.SIGKILL)
    watched.shows("notify_up", 0, part="broker")
    assert total(watched.page(), "notify_up", part="postgres") == 1
    watched.redis.start()
    watched.shows("notify_up", 1, part="broker")

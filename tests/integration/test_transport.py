"""No queue item ends a worker or vanishes: each test asks real workers on a real Valkey."""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import socketserver
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import kombu.transport
import pytest
import redis
import trustme
from celery import Celery
from kombu.exceptions import OperationalError

from notify_tasks.embedded import Server, redis_server
from notify_tasks.routing import PARKED_KEY, TAKEN_HEADER
from notify_tasks.transport import Transport, install, park
from tests.integration.transport_app import Worker, app_for, until

SECRET = "anna@example.com"
IMPATIENT: dict[str, Any] = {
    "visibility_timeout": 1,
    "unacked_restore_interval": 0.2,
    "unacked_mutex_expire": 2,
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with redis_server(tmp_path_factory.mktemp("transport"), use_environment=False) as server:
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(server.url) as client:
        client.flushall()
        yield client


@pytest.fixture
def start(server: Server, tmp_path: Path) -> Iterator[Callable[..., Worker]]:
    workers: list[Worker] = []

    def start(directory: str = "worker", broker: str = server.url, **more: Any) -> Worker:
        workers.append(Worker(broker, tmp_path / directory, **more))
        return workers[-1]

    yield start
    for worker in workers:
        worker.kill()


def send(server: Server, task: str, *arguments: object, queue: str = "first", **options: Any) -> None:
    """As a stock producer does, on a connection of its own."""
    app = app_for(server.url)
    with app.connection_for_write() as connection:
        app.send_task(task, arguments, queue=queue, connection=connection, **options)


@pytest.fixture
def worker(start: Callable[..., Worker]) -> Worker:
    """A worker for the tests that need nothing special."""
    return start()


@contextmanager
def tls_in_front_of(server: Server, context: ssl.SSLContext) -> Iterator[int]:
    """The port of a proxy that speaks TLS, which the bundled server does not."""

    class Proxy(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with (
                suppress(OSError),
                context.wrap_socket(self.request, server_side=True) as outside,
                socket.create_connection(("127.0.0.1", server.port or 0)) as inside,
            ):
                outside.settimeout(0.02)
                inside.settimeout(0.02)
                while True:
                    for source, target in ((outside, inside), (inside, outside)):
                        with suppress(TimeoutError):
                            if not (data := source.recv(65536)):
                                return
                            target.sendall(data)

    class Proxies(socketserver.ThreadingTCPServer):
        daemon_threads = True
        block_on_close = False

    with Proxies(("127.0.0.1", 0), Proxy) as proxies:
        threading.Thread(target=proxies.serve_forever, args=(0.05,), daemon=True).start()
        yield proxies.server_address[1]
        proxies.shutdown()


def parked(client: redis.Redis) -> list[dict[str, Any]]:
    """The parked records, the oldest first."""
    return [json.loads(record) for record in reversed(client.lrange(PARKED_KEY, 0, -1))]


def raw(record: dict[str, Any]) -> bytes:
    return base64.b64decode(record["raw"])


def envelope(task: object = "work", arguments: object = ([1], {}, {}), **changes: Any) -> dict[str, Any]:
    """What a producer pushes, as kombu writes it; `changes` replace fields, None removes one."""
    body = base64.b64encode(json.dumps(arguments).encode()).decode()
    message: dict[str, Any] = {
        "body": body,
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"task": task, "id": "a1", "argsrepr": SECRET, "kwargsrepr": "{}"},
        "properties": {
            "body_encoding": "base64",
            "delivery_tag": "tag-1",
            "delivery_info": {"exchange": "", "routing_key": "first"},
        },
    }
    for name, value in changes.items():
        for holder in (
            message,
            message["headers"],
            message["properties"],
            message["properties"]["delivery_info"],
        ):
            if name in holder:
                holder[name] = value
                break
        else:
            message["headers"][name] = value
    changes["task"] = task
    return without(message, [name for name, value in changes.items() if value is None])


def without(message: dict[str, Any], names: list[str]) -> dict[str, Any]:
    return {
        name: without(value, names) if isinstance(value, dict) else value
        for name, value in message.items()
        if name not in names
    }


def item(**changes: Any) -> bytes:
    return json.dumps(envelope(**changes)).encode()


POISON: list[tuple[str, bytes]] = [
    ("not-json", b"not json, but " + SECRET.encode()),
    ("not-json", b""),
    ("not-json", b'{"half": '),
    ("not-json", b"\xff\xfe\x00"),
    ("not-json", b"[" * 100_000),
    ("not-json", b'{"__type__": "nonsense", "__value__": 1}'),
    ("not-an-object", b"[1, 2]"),
    ("not-an-object", b'"x"'),
    ("not-an-object", b"3"),
    ("not-an-object", b"null"),
    ("bad-envelope", b"{}"),
    ("bad-envelope", item(properties=None)),
    ("bad-envelope", item(headers=None)),
    ("bad-envelope", item(headers="x")),
    ("bad-envelope", item(body=None)),
    ("bad-envelope", item(body=[1])),
    ("bad-envelope", item(delivery_tag=None)),
    ("bad-envelope", item(delivery_tag=["t"])),
    ("bad-envelope", item(delivery_tag="")),
    ("bad-envelope", item(delivery_info=None)),
    ("bad-envelope", item(routing_key=7)),
    ("bad-envelope", item(routing_key="")),
    ("bad-envelope", json.dumps(envelope() | {"content-type": ["json"]}).encode()),
    ("bad-body", item(body_encoding="rot13")),
    ("bad-body", item(body_encoding={"base": 64})),
    ("bad-body", item(body="abc")),
    ("unknown-task", item(task="nobody.has.this")),
    ("unknown-task", item(task=None, body=base64.b64encode(b'{"task": "nobody", "id": "1"}').decode())),
    ("not-a-task", item(task=None)),
    ("unreadable-body", item(task=None, body=base64.b64encode(b"no json").decode())),
    ("invalid-task", json.dumps(envelope() | {"content-type": "application/x-python-serialize"}).encode()),
    ("unreadable-body", item(body=base64.b64encode(b"no json").decode())),
    ("unreadable-body", item(compression="zlib")),
    ("invalid-task", item(eta="tomorrow")),
    ("no-call", item(body="")),
    ("no-call", item(arguments=5)),
    ("no-call", item(arguments=[1, 2])),
    ("no-call", item(arguments=[[1], {}, {}, {}])),
    ("no-call", item(id=None)),
    ("no-call", item(task=["work"])),
    ("wrong-arguments", item(arguments=[[], {}, {}])),
    ("wrong-arguments", item(arguments=[[1], {"from_a_newer_version": 1}, {}])),
]


@pytest.mark.parametrize("pool", ["threads", "solo"])
def test_each_kind_of_poison_is_parked_and_its_neighbours_are_done(
    pool: str, server: Server, client: redis.Redis, start: Callable[..., Worker]
) -> None:
    # Given a queue in which every second item is poison, each of another kind
    producer = app_for(server.url)
    for number, (_, poison) in enumerate(POISON):
        producer.send_task("work", [number], queue="first")
        client.lpush("first", poison)
    producer.send_task("work", [len(POISON)], queue="first")
    # When a worker takes them
    worker = start(pool=pool)
    until(lambda: len(worker.done()) == len(POISON) + 1, "the neighbours are done")
    # Then it lives, each neighbour is done once, and each poison is parked with its reason and its bytes
    until(lambda: client.llen(PARKED_KEY) == len(POISON), "all poison is parked")
    assert worker.alive
    assert set(worker.done().values()) == {1}
    records = parked(client)
    assert [(record["reason"], record["queue"]) for record in records] == [
        (why, "first") for why, _ in POISON
    ]
    for record, (_, poison) in zip(records, POISON, strict=True):
        assert raw(record) == poison or json.loads(raw(record)) == json.loads(poison)
        assert record["at"].endswith("+00:00")
    # and nothing is left, no content is in the log, and the worker ends in order
    until(lambda: client.exists("first", "unacked", "unacked_index") == 0, "nothing is left")
    assert worker.stop() == 0
    log = worker.log.read_text()
    assert SECRET not in log
    assert "Traceback" not in log
    assert "parked a message of queue first: not-an-object, 6 bytes" in log


def test_poison_in_a_broadcast_and_in_a_priority_list_ends_no_worker(
    client: redis.Redis, worker: Worker
) -> None:
    for poison in (b"no", b"[1]", b"{}", item(), item(body="abc")):
        client.publish("/0.celery.pidbox", poison)
    client.lpush("first\x06\x163", b"[1]")
    until(lambda: client.llen(PARKED_KEY) == 1, "the poison of the priority list is parked")
    assert parked(client)[0]["queue"] == "first"
    assert worker.alive
    assert client.exists("unacked") == 0


def test_what_a_task_or_celery_itself_rejects_is_parked_as_it_came(
    server: Server, client: redis.Redis, worker: Worker
) -> None:
    producer = app_for(server.url)
    producer.send_task("refuse", [1], queue="first")
    until(lambda: client.llen(PARKED_KEY) == 1, "the rejected message is parked")
    # When an operator puts it back as it is, then it runs again
    client.lpush("first", raw(parked(client)[0]))
    until(lambda: client.llen(PARKED_KEY) == 2, "it was rejected again")
    assert worker.count("started 1") == 2
    assert {record["reason"] for record in parked(client)} == {"rejected"}


def test_stock_producers_and_workers_share_the_broker(
    server: Server, client: redis.Redis, start: Callable[..., Worker]
) -> None:
    # Given a stock worker and one of ours on the same queue, and on a queue each
    stock = start("stock", transport="stock", queues="first")
    ours = start("ours", queues="first,second")
    # When a stock producer sends to both queues, also with a countdown and a priority
    producer = app_for(server.url)
    for number in range(40):
        producer.send_task("work", [number], queue="first", priority=number % 10)
    for number in range(40, 60):
        producer.send_task("work", [number], queue="second", countdown=0.2)
    # Then all is done once, by both
    until(lambda: len(stock.done() | ours.done()) == 60, "all is done")
    assert set((stock.done() + ours.done()).values()) == {1}
    assert stock.done()
    assert ours.done()
    # and remote control reaches both
    assert len(producer.control.broadcast("ping", reply=True, timeout=5, limit=2)) == 2
    ours.process.terminate()
    assert stock.stop() == ours.process.wait(20) == 0
    assert client.exists("unacked", PARKED_KEY) == 0


def test_a_message_that_ends_its_worker_three_times_is_parked(
    server: Server, client: redis.Redis, start: Callable[..., Worker]
) -> None:
    # Given a message that hangs and a good one behind it
    producer = app_for(server.url)
    producer.send_task("hang", [7], queue="first")
    # When three workers in a row are killed while they hold it
    for take in range(1, 4):
        worker = start(threads=1, **IMPATIENT)
        until(lambda w=worker, take=take: w.count("started 7") == take, f"taken {take} times")
        worker.kill()
    producer.send_task("work", [8], queue="first")
    # Then the fourth finds it parked, and does the one behind it
    worker = start(threads=1, **IMPATIENT)
    until(lambda: client.llen(PARKED_KEY) == 1, "it is parked")
    until(lambda: worker.count("done 8") == 1, "the next one is done")
    assert worker.count("started 7") == 3
    (record,) = parked(client)
    assert record["reason"] == "taken-3-times"
    assert record["queue"] == "first"
    # and who replays it gives it three takes again
    assert TAKEN_HEADER not in json.loads(raw(record))["headers"]


def test_what_cannot_be_put_back_is_parked_and_holds_nothing_up(
    client: redis.Redis, start: Callable[..., Worker]
) -> None:
    # Given expired unacknowledged messages: two that nobody can read, one without a queue, and a good one
    entries = {
        "garbage": b"no json",
        "list": json.dumps([[1], "", "first"]).encode(),
        "homeless": json.dumps([envelope(), "nowhere", "nothing"]).encode(),
        "good": json.dumps([envelope(arguments=[[9], {}, {}]), "", "first"]).encode(),
    }
    for age, (tag, entry) in enumerate(entries.items()):
        client.hset("unacked", tag, entry)
        client.zadd("unacked_index", {tag: 100 - age})
    client.zadd("unacked_index", {"without a message": 1})
    # When a worker puts them back, then the good one is done and the others are parked
    worker = start(**IMPATIENT)
    until(lambda: worker.done() == {9: 1}, "the good one is done")
    until(lambda: client.exists("first", "unacked", "unacked_index") == 0, "nothing is left")
    assert sorted(record["reason"] for record in parked(client)) == [
        "bad-envelope",
        "bad-envelope",
        "no-queue",
    ]
    assert entries["garbage"] in map(raw, parked(client))


def test_an_orderly_stop_is_no_take_without_an_end(
    server: Server, client: redis.Redis, start: Callable[..., Worker]
) -> None:
    # Given a message with a countdown, which a worker fetches and holds
    app_for(server.url).send_task("work", [1], queue="first", countdown=60)
    worker = start()
    until(lambda: client.hlen("unacked") == 1, "it is held")
    # When the worker stops in order
    assert worker.stop() == 0
    # Then the message is back, and nothing has counted
    assert client.llen("first") == 1
    assert json.loads(client.lindex("first", 0))["headers"].get(TAKEN_HEADER) is None


def test_a_lost_connection_counts_and_a_retry_starts_anew(
    server: Server, client: redis.Redis, worker: Worker
) -> None:
    # Given a message whose header says that two workers lost it
    message = envelope("again", [[5], {}, {}])
    message["headers"][TAKEN_HEADER] = 2
    client.lpush("first", json.dumps(message))
    # When it is taken and retried, then the retry, a new message, has not been taken yet
    until(lambda: worker.count("taken 5 0") == 1, "the retry ran")
    assert worker.count("taken 5 2") == 1
    # When a worker loses its connection with a message in hand, then that take counts
    app_for(server.url).send_task("slow", [6, 2.0], queue="first")
    until(lambda: worker.count("started 6") == 1, "it runs")
    client.client_kill_filter(_type="normal", skipme=True)
    until(lambda: worker.count("started 6") == 2, "it runs again")
    (_, entry), *_ = client.hgetall("unacked").items()
    assert json.loads(entry)[0]["headers"][TAKEN_HEADER] == 1


def test_a_full_redis_loses_nothing_and_is_emptied(
    server: Server, client: redis.Redis, start: Callable[..., Worker]
) -> None:
    # Given a running worker, and a Redis that is full of good messages and poison
    worker = start(unacked_restore_interval=0.2)
    assert worker.call("pause", "test")
    producer = app_for(server.url)
    for number in range(50):
        producer.send_task("work", [number], queue="first")
        client.lpush("first", b"[%d]" % number)
    client.config_set("maxmemory", 1)
    try:
        with pytest.raises(redis.exceptions.OutOfMemoryError):
            client.lpush("first", b"x")
        # When it goes on, then all is done once and parked once, while Redis is still full
        worker.call("resume", "test")
        until(lambda: len(worker.done()) == 50 and client.llen(PARKED_KEY) == 50, "done and parked")
        assert set(worker.done().values()) == {1}
        until(lambda: client.exists("first", "unacked", "unacked_index") == 0, "nothing is left")
    finally:
        client.config_set("maxmemory", 0)
    assert worker.alive
    assert "Error in timer" not in worker.log.read_text()


def test_what_can_neither_be_parked_nor_put_back_is_kept(
    server: Server, client: redis.Redis, start: Callable[..., Worker]
) -> None:
    # Given a worker that may not write the parked list
    client.acl_setuser(
        "worker", enabled=True, passwords=["+w"], keys=["*"], channels=["*"], commands=["+@all"]
    )
    url = server.url.replace("//:", "//worker:").replace(str(urlsplit(server.url).password), "w")
    worker = start(broker=url)
    client.acl_setuser("worker", reset_keys=True, keys=["first*", "second*", "unacked*", "_kombu*"])
    # When poison comes, with good messages around it
    app_for(server.url).send_task("work", [1], queue="first")
    client.lpush("first", b"[1, 2]")
    app_for(server.url).send_task("work", [2], queue="first")
    until(lambda: "kept in memory" in worker.log.read_text(), "it is kept")
    # Then the worker does not turn hot, although events keep its loop turning,
    client.config_resetstat()
    for _ in range(100):
        client.publish("/0.celery.pidbox", b"{}")
        time.sleep(0.01)
    assert 1 <= client.info("commandstats")["cmdstat_lpush"]["rejected_calls"] <= 5
    # and parks it once it may; what is behind it goes on
    client.acl_setuser("worker", keys=["*"])
    until(lambda: client.llen(PARKED_KEY) == 1, "it is parked")
    until(lambda: worker.done() == {1: 1, 2: 1}, "the neighbours are done")
    # When it cannot be parked at the worker's end either, then it is on its queue
    client.acl_setuser("worker", reset_keys=True, keys=["first*", "second*", "unacked*", "_kombu*"])
    client.lpush("first", b"[3, 4]")
    until(lambda: worker.log.read_text().count("kept in memory") == 2, "it is kept")
    assert worker.stop() == 0
    assert client.lrange("first", 0, -1) == [b"[3, 4]"]


def test_tasks_park_what_they_cannot_work_on(client: redis.Redis, caplog: pytest.LogCaptureFixture) -> None:
    park(client, "notify.email", f'{{"v": 9, "to": "{SECRET}"}}'.encode(), "unknown-version", "9")
    (record,) = parked(client)
    assert (record["queue"], record["reason"], record["detail"]) == ("notify.email", "unknown-version", "9")
    assert SECRET.encode() in raw(record)
    assert "notify.email: unknown-version" in caplog.text
    assert SECRET not in caplog.text


def test_tasks_that_end_after_redis_was_gone_end_no_worker_and_run_once(
    server: Server, client: redis.Redis, start: Callable[..., Worker]
) -> None:
    # Given tasks that run while Redis dies
    worker = start()
    for number in range(4):
        send(server, "slow", number, 0.5 + 0.2 * number)
    until(lambda: worker.count("started 3") == 1, "they run")
    server.kill(signal.SIGKILL)
    until(lambda: "cannot be put back now" in worker.log.read_text(), "the worker notices")
    # When it is back, and they have ended meanwhile, then the worker lives and consumes,
    server.start()
    send(server, "work", 4)
    until(lambda: len(worker.done()) == 5 or not worker.alive, "all are done")
    assert worker.alive, worker.log.read_text()[-3000:]
    # and nothing is left that would run them again
    until(lambda: not client.exists("first", "unacked", "unacked_index"), "nothing is left")
    assert worker.count("started 0") == 1


def test_the_url_forms_of_redis_work_as_they_are(
    server: Server, client: redis.Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given this transport in this process, and a broker behind TLS
    for mapping in (kombu.transport.TRANSPORT_ALIASES, kombu.transport._transport_cache):
        for alias in ("redis", "rediss"):
            monkeypatch.setitem(mapping, alias, mapping.get(alias))
    install(Celery(set_as_current=False))
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with tls_in_front_of(server, context) as port:
        secure = server.url.replace("redis://", "rediss://").replace(f":{server.port}", f":{port}")
        for url, trust in (
            (server.url, None),
            (f"{secure}?ssl_cert_reqs=required&ssl_ca_certs={tmp_path}/ca.pem", None),
            (secure, {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_ca_certs": f"{tmp_path}/ca.pem"}),
        ):
            # When a message goes in and out, then it is there, and the transport is ours
            app = app_for(url)
            if trust:
                app.conf.broker_use_ssl = trust
            with app.connection_for_write() as connection:
                assert type(connection.transport) is Transport
                app.send_task("work", [1], connection=connection)
                message = connection.default_channel.basic_get("first")
                assert message is not None
                assert client.hlen("unacked") == 1
                message.ack()
            assert client.hlen("unacked") == 0
        # and a certificate that nobody trusts is refused
        with (
            pytest.raises(OperationalError),
            app_for(f"{secure}?ssl_cert_reqs=required").connection_for_write() as connection,
        ):
            connection.ensure_connection(max_retries=1, interval_start=0)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_ten_restarts_of_redis_in_a_row_end_no_worker(server: Server, start: Callable[..., Worker]) -> None:
    # Given a worker under load, whose tasks end all the time, while Redis is away too
    worker = start(threads=20, transport=os.environ.get("TRANSPORT_UNDER_TEST", "ours"))
    for restart in range(10):
        for number in range(100):
            send(server, "slow", number, 0.1 * (number % 15))
        journal = len(worker.journal())
        until(lambda journal=journal: len(worker.journal()) > journal + 8, "tasks run")
        # When Redis dies and comes back
        server.kill(signal.SIGKILL)
        time.sleep(1)
        server.start()
        send(server, "work", 1000 + restart, queue="second")
        until(lambda n=1000 + restart: worker.count(f"done {n}") or not worker.alive, "it consumes", 60)
        # Then the worker, ten times the same, consumes again
        assert worker.alive, worker.log.read_text()[-3000:]

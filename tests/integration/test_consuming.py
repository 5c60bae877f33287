"""A worker pauses and resumes, whatever happens meanwhile: real workers on a real Valkey."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from notify_tasks.embedded import Server, redis_server
from tests.integration.transport_app import Worker, app_for, until


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with redis_server(tmp_path_factory.mktemp("consuming"), use_environment=False) as server:
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(server.url) as client:
        client.flushall()
        yield client


@pytest.fixture
def start(server: Server, tmp_path: Path) -> Iterator[Callable[..., Worker]]:
    workers: list[Worker] = []

    def start(**more: Any) -> Worker:
        workers.append(Worker(server.url, tmp_path / "worker", **more))
        return workers[-1]

    yield start
    for worker in workers:
        worker.kill()


def send(server: Server, task: str, numbers: range, *more: object, **options: Any) -> None:
    app = app_for(server.url)
    with app.connection_for_write() as connection:
        for number in numbers:
            app.send_task(task, [number, *more], connection=connection, **options)


def ping(server: Server) -> int:
    app = app_for(server.url)
    with app.connection_for_write() as connection:
        answers = app.control.broadcast("ping", reply=True, timeout=0.5, limit=1, connection=connection)
    return len(answers or ())


def commands(client: redis.Redis) -> int:
    return int(client.info("stats")["total_commands_processed"])


@pytest.mark.parametrize(("pool", "transport"), [("threads", "ours"), ("solo", "ours"), ("threads", "stock")])
def test_nothing_runs_while_paused_and_everything_once_after(
    pool: str, transport: str, server: Server, client: redis.Redis, start: Callable[..., Worker]
) -> None:
    # Given a paused worker
    worker = start(pool=pool, transport=transport)
    assert worker.call("pause", "maintenance") is True
    # When messages come, then none is fetched, and remote control answers
    send(server, "work", range(20))
    until(lambda: ping(server) == 1, "it answers")
    before = commands(client)
    time.sleep(0.3)
    assert commands(client) - before < 20
    assert not worker.done()
    assert client.llen("first") == 20
    assert client.exists("unacked") == 0
    # When a second reason comes and the first goes, then it stays paused
    assert worker.call("pause", "maintenance") is True
    worker.call("pause", "database away")
    worker.call("resume", "maintenance")
    assert worker.call("reasons") == ["database away"]
    assert client.llen("first") == 20
    # When the last goes, then all run once
    worker.call("resume", "database away")
    until(lambda: len(worker.done()) == 20, "all are done")
    assert set(worker.done().values()) == {1}
    # When it stops in order while it is paused, then the messages wait for the next worker
    assert worker.call("pause", "maintenance") is True
    send(server, "work", range(20, 23))
    assert worker.stop() == 0
    assert client.llen("first") == 3
    assert client.exists("unacked") == 0


def test_a_pause_under_load_loses_and_doubles_nothing_and_keeps_the_order(
    server: Server, client: redis.Redis, start: Callable[..., Worker]
) -> None:
    # Given a worker with one thread in the midst of a long queue
    worker = start(threads=1)
    send(server, "work", range(300))
    # When it is paused and resumed again and again
    for _ in range(8):
        assert worker.call("pause", "test") is True
        until(lambda: client.hlen("unacked") == 0, "what it had fetched is done")
        done, left = len(worker.journal()), client.llen("first")
        time.sleep(0.05)
        # Then nothing moves meanwhile,
        assert (done, left) == (len(worker.journal()), client.llen("first"))
        worker.call("resume", "test")
    # and in the end each is done once, in the order it came
    until(lambda: len(worker.done()) == 300, "all are done")
    assert [line for line in worker.journal() if line.startswith("done")] == [f"done {n}" for n in range(300)]


def test_what_was_on_its_way_when_the_pause_came_goes_back(
    server: Server, client: redis.Redis, start: Callable[..., Worker]
) -> None:
    # Given a worker that waits for messages at Redis, up to a second each time
    worker = start(polling_interval=1)
    for round_ in range(4):
        # When it is told to pause and messages come before its wait is over
        worker.call("request_pause", "test")
        send(server, "work", range(round_ * 2, round_ * 2 + 2))
        assert worker.call("pause", "test") is True
        # Then both are on their queue, and neither runs,
        until(lambda: client.llen("first") == 2, "both are on their queue")
        assert not client.exists("unacked")
        assert len(worker.done()) == round_ * 2
        # until it resumes
        worker.call("resume", "test")
        until(lambda n=round_ * 2 + 2: len(worker.done()) == n, "both are done")
    assert set(worker.done().values()) == {1}


def test_a_pause_outlives_lost_connections(
    server: Server, client: redis.Redis, start: Callable[..., Worker]
) -> None:
    # Given a paused worker and messages
    worker = start()
    assert worker.call("pause", "test") is True
    send(server, "work", range(10))

    # When its connections are cut, and when Redis crashes and comes back
    def cut_connections() -> None:
        for kind in (
            "normal",
            "pubsub",
        ):  # the second shows: paused before its first fetch, it reads no other
            client.client_kill_filter(_type=kind, skipme=True)

    for cut in (cut_connections, lambda: server.restart("immediate")):
        connected = worker.log.read_text().count("Connected to")
        cut()
        until(lambda n=connected: worker.log.read_text().count("Connected to") > n, "it reconnects")
        # Then it is still paused, and remote control answers
        until(lambda: ping(server) == 1, "it answers")
        assert not worker.done()
    with redis.Redis.from_url(server.url) as client_after:
        assert client_after.llen("first") == 10
    # When somebody adds a queue, then it waits too
    app_for(server.url).control.broadcast("add_consumer", {"queue": "third"}, reply=True, timeout=5, limit=1)
    send(server, "work", range(10, 12), queue="third")
    time.sleep(0.3)
    assert not worker.done()
    # When it resumes, then all run once
    worker.call("resume", "test")
    until(lambda: len(worker.done()) == 12, "all are done")
    assert set(worker.done().values()) == {1}


@pytest.mark.parametrize("pool", ["threads", "solo"])
def test_tasks_wait_for_the_database_without_a_hot_loop(
    pool: str, server: Server, client: redis.Redis, start: Callable[..., Worker]
) -> None:
    # Given a worker whose database is away, and messages that need it
    worker = start(pool=pool)
    send(server, "store", range(30))
    until(lambda: "probed" in worker.journal(), "it looks for the database")
    # Then every message is back on its queue, and only those in hand were started, once
    until(lambda: client.llen("first") == 30, "all messages are on their queue")
    refused = [line for line in worker.journal() if line.startswith("refused")]
    assert 1 <= len(refused) <= 4
    before = commands(client)
    time.sleep(0.6)
    assert len([line for line in worker.journal() if line.startswith("refused")]) == len(refused)
    assert commands(client) - before < 40
    assert client.exists("unacked") == 0
    # When it is back, then all goes on by itself, once each
    (worker.directory / "database").touch()
    until(lambda: len(worker.done()) == 30, "all are done")
    assert set(worker.done().values()) == {1}
    assert worker.call("reasons") == []
    # When it goes away once more, then so does the worker's appetite
    (worker.directory / "database").unlink()
    send(server, "store", range(30, 40))
    until(lambda: client.llen("first") == 10 and client.exists("unacked") == 0, "all are on their queue")
    (worker.directory / "database").touch()
    until(lambda: len(worker.done()) == 40, "all are done")
    assert set(worker.done().values()) == {1}
    assert worker.alive


def test_a_process_with_a_hung_thread_lets_the_others_end_and_exits(
    server: Server, client: redis.Redis, start: Callable[..., Worker]
) -> None:
    # Given a worker with a hung thread, a busy one and waiting messages
    worker = start(threads=2)
    send(server, "hang", range(1))
    send(server, "slow", range(1, 2), 1.0)
    until(lambda: {"started 0", "started 1"} <= set(worker.journal()), "both run")
    send(server, "work", range(10, 20))
    # When the watchdog gives up the hung one
    begun = time.monotonic()
    worker.call("exit_soon", 70, 60)
    worker.call("exit_soon", 71, 60)
    assert worker.process.wait(30) == 70
    # Then the process did not wait for all the grace: the busy one has ended and is acknowledged,
    assert time.monotonic() - begun < 40
    assert worker.count("done 1") == 1
    # nothing new was begun, and the hung one's message waits for its visibility timeout
    assert client.hlen("unacked") == 1
    assert client.llen("first") == 10
    # When the supervisor starts the next one, then everything goes on, and that message comes back
    worker = start(threads=2, visibility_timeout=1, unacked_restore_interval=0.2)
    until(lambda: worker.count("started 0") == 2, "it is back")
    until(lambda: len(worker.done()) == 11, "the others are done")

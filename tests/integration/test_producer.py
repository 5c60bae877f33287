"""Calls on a real Redis: what a stock worker gets of them, what the ledger keeps, what stays as it was."""

from __future__ import annotations

import asyncio
import json
import logging
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from base64 import b64decode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import group, signals

from notify_tasks import (
    NotAccepted,
    NotificationResult,
    configure,
    producer,
    send_notification,
    settings,
)

ROOT = Path(__file__).parents[2]
QUEUES = "notify.intake,notify.email,notify.email.high"
CANARY = "canary@private.example"


@pytest.fixture
def client(broker: str) -> Iterator[redis.Redis]:
    settings.reset()
    configure(broker_url=broker)
    with redis.Redis.from_url(broker, decode_responses=True) as client:
        yield client
    producer.close()
    settings.reset()


def messages(client: redis.Redis, queue: str) -> list[dict[str, Any]]:
    """The messages of a queue, oldest first."""
    return [json.loads(raw) for raw in reversed(client.lrange(queue, 0, -1))]


def envelope(message: dict[str, Any]) -> dict[str, Any]:
    args, _, _ = json.loads(b64decode(message["body"]))
    found: dict[str, Any] = args[0]
    return found


def ledger(client: redis.Redis) -> dict[tuple[str, str], dict[str, Any]]:
    return {
        (key, field): json.loads(value)
        for key in client.scan_iter("notify.ledger.*")
        for field, value in client.hgetall(key).items()
    }


def until(condition: Callable[[], object], what: str, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.02)


@contextmanager
def stock_worker(broker: str, log: Path) -> Iterator[None]:
    command = [sys.executable, "-m", "celery", "-A", "tests.integration.stock_worker", "worker"]
    with log.open("wb") as out:
        worker = subprocess.Popen(
            [*command, "-P", "solo", "-Q", QUEUES, "-l", "INFO", "--without-gossip", "--without-mingle"],
            cwd=ROOT,
            env={**os.environ, "STOCK_BROKER": broker},
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    try:
        yield
    finally:
        worker.terminate()
        worker.wait(30)


# --- what a stock worker gets -----------------------------------------------------------------------


def test_a_stock_worker_runs_what_is_sent_in_every_way(
    client: redis.Redis, broker: str, tmp_path: Path
) -> None:
    # Given calls by delay, by a signature, by a group and by asyncio
    sent = [
        send_notification.delay("order.shipped", to="user-1"),
        send_notification.delay("order.shipped", to="user-2", channels=["email"], priority="high"),
        send_notification.delay("order.shipped", to={"email": CANARY}, channels=["email"]),
        send_notification.s(to="user-3").delay("order.shipped"),
        send_notification.si("order.shipped", to="user-4", message_id="mine").apply_async(countdown=60),
        send_notification.apply_async(("order.shipped",), {"to": "user-5"}, task_id="by-task-id"),
        asyncio.run(send_notification.adelay("order.shipped", to="user-6")),
    ]
    sent += group(send_notification.s("order.shipped", to=f"user-{n}") for n in range(7, 10))().results

    # When a worker that knows nothing of us takes them
    with stock_worker(broker, tmp_path / "log"):
        until(lambda: client.llen("seen") == len(sent), "all messages have run")

    # Then each ran once, under its message id as Celery's task id
    seen = {each["id"]: each for each in map(json.loads, client.lrange("seen", 0, -1))}
    assert sorted(seen) == sorted(result.id for result in sent)
    for id_, each in seen.items():
        assert each["args"][0]["message_id"] == id_
        assert each["root_id"] == id_
        assert each["kwargs"] == {}
        assert len(each["args"]) == 1
    assert {seen["mine"]["id"], seen["by-task-id"]["id"]} == {"mine", "by-task-id"}
    assert [seen[result.id]["queue"] for result in sent[:3]] == [
        "notify.intake",
        "notify.email.high",
        "notify.email",
    ]
    # And the worker's log shows no address
    log = (tmp_path / "log").read_text()
    assert "mine" in log
    assert CANARY not in log


@pytest.mark.parametrize(
    ("call", "queue"),
    [
        ({}, "notify.intake"),
        ({"channels": ["email"]}, "notify.email"),
        ({"channels": ["email"], "priority": "bulk"}, "notify.email.bulk"),
        ({"channels": ["email"], "priority": "normal"}, "notify.email"),
        ({"channels": ["email", "sms"], "priority": "high"}, "notify.intake.high"),
        ({"channels": ["email"], "to": ["user-1", "user-2"]}, "notify.intake"),
    ],
)
def test_one_recipient_and_one_channel_go_straight_to_the_channels_queue(
    client: redis.Redis, call: dict[str, Any], queue: str
) -> None:
    send_notification.delay("order.shipped", **{"to": "user-1", **call})

    assert [key for key in client.keys("notify.*") if not key.startswith("notify.ledger.")] == [queue]


def test_celerys_times_become_the_envelopes(client: redis.Redis) -> None:
    at = datetime.now(UTC) + timedelta(hours=1)

    send_notification.apply_async(("order.shipped",), {"to": "user-1"}, eta=at, expires=7200)

    [message] = messages(client, "notify.intake")
    assert datetime.fromisoformat(envelope(message)["at"]) == at
    assert datetime.fromisoformat(envelope(message)["expires"]) > at
    # Celery itself holds nothing back and drops nothing
    assert message["headers"]["eta"] is None
    assert message["headers"]["expires"] is None


# --- the ledger -------------------------------------------------------------------------------------


def test_each_message_has_its_ledger_entry_under_redis_time(client: redis.Redis) -> None:
    before, _ = client.time()
    result = send_notification.delay("order.shipped", to="user-1", tenant="acme", channels=["email"])
    after, _ = client.time()

    [message] = messages(client, "notify.email")
    [((key, field), entry)] = ledger(client).items()
    assert message["headers"]["notify_ledger"] == [key, field]
    assert field == f"acme/{result.id}/{envelope(message)['hash']}"
    assert entry == {"queue": "notify.email", "envelope": envelope(message)}
    assert int(key.split(".")[2]) in range(before // 10, after // 10 + 1)


def test_entry_and_message_are_one_transaction_and_the_entry_is_first(
    client: redis.Redis, broker: str
) -> None:
    with redis.Redis.from_url(broker) as watcher, watcher.monitor() as monitor:
        send_notification.delay("order.shipped", to="user-1")
        client.echo("end")
        seen: list[str] = []
        for command in monitor.listen():
            seen.append(command["command"].split()[0])
            if seen[-1] == "ECHO":
                break

    start = seen.index("MULTI")
    assert seen[start : start + 4] == ["MULTI", "HSET", "LPUSH", "EXEC"]


def test_a_repeated_call_has_the_same_hash_and_another_body_another(client: redis.Redis) -> None:
    for payload in ({"a": 1}, {"a": 1}, {"a": 2}):
        send_notification.apply_async(
            ("order.shipped",), {"to": "user-1", "payload": payload}, countdown=10, task_id="same"
        )

    first, second, third = (envelope(message) for message in messages(client, "notify.intake"))
    assert first["hash"] == second["hash"] != third["hash"]
    assert first["at"] < second["at"]
    assert {each["message_id"] for each in (first, second, third)} == {"same"}


def test_the_rights_of_the_reference_and_hset_and_time_suffice(client: redis.Redis, broker: str) -> None:
    rights = (
        "~notify.* ~_kombu.binding* +ping +hello +client +select +multi +exec +sadd +llen +lpush +hset +time"
    )
    client.execute_command("ACL", "SETUSER", "producer", "reset", "on", ">p", *rights.split())
    configure(broker_url=f"redis://producer:p@{broker.rpartition('@')[2]}")

    send_notification.delay("order.shipped", to="user-1")

    assert client.llen("notify.intake") == 1
    client.execute_command("ACL", "SETUSER", "producer", "-hset")
    with pytest.raises(NotAccepted, match=r"NOPERM.*\+hset"):
        send_notification.delay("order.shipped", to="user-1")
    assert client.llen("notify.intake") == 1
    client.execute_command("ACL", "DELUSER", "producer")


def test_a_wrong_password_is_a_refusal_and_is_not_shown(client: redis.Redis, broker: str) -> None:
    configure(broker_url=f"redis://:wr0ng@{broker.rpartition('@')[2]}")

    with pytest.raises(NotAccepted, match="WRONGPASS") as refused:
        send_notification.delay("order.shipped", to="user-1")

    assert "wr0ng" not in str(refused.value)
    assert client.dbsize() == 0


# --- threads, forks, asyncio ------------------------------------------------------------------------


def test_many_threads_send_at_once(client: redis.Redis) -> None:
    with ThreadPoolExecutor(16) as threads:
        sent = list(
            threads.map(lambda n: send_notification.delay("order.shipped", to=f"user-{n}").id, range(400))
        )

    assert sorted(sent) == sorted(each["headers"]["id"] for each in messages(client, "notify.intake"))
    assert len(ledger(client)) == 400


def _send_in_child(number: int) -> None:
    for each in range(20):
        send_notification.delay("order.shipped", to=f"child-{number}-{each}")


def test_forked_children_have_connections_of_their_own(client: redis.Redis) -> None:
    send_notification.delay("order.shipped", to="parent")  # leaves an idle connection for them to inherit
    fork = multiprocessing.get_context("fork")

    children = [fork.Process(target=_send_in_child, args=(number,)) for number in range(3)]
    for child in children:
        child.start()
    for each in range(20):
        send_notification.delay("order.shipped", to=f"parent-{each}")
    for child in children:
        child.join(30)

    assert [child.exitcode for child in children] == [0, 0, 0]
    assert client.llen("notify.intake") == 1 + 20 + 3 * 20
    assert len({each["headers"]["origin"] for each in messages(client, "notify.intake")}) == 4


def test_asyncio_sends_many_at_once_without_blocking_the_loop(client: redis.Redis) -> None:
    async def all_of_them() -> list[NotificationResult]:
        calls = (send_notification.adelay("order.shipped", to=f"user-{n}") for n in range(100))
        return await asyncio.gather(*calls)

    results = asyncio.run(all_of_them())

    assert len({result.id for result in results}) == 100
    assert client.llen("notify.intake") == 100


def test_a_cancelled_adelay_leaves_the_connections_usable(
    client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    async def cancelled() -> None:
        for _ in range(20):
            task = asyncio.create_task(send_notification.adelay("order.shipped", to="user-1"))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(cancelled())

    assert send_notification.delay("order.shipped", to="user-2", message_id="after").id == "after"
    until(lambda: "after" in {each["headers"]["id"] for each in messages(client, "notify.intake")}, "sent")
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


# --- tracing tools, and what nobody may see ---------------------------------------------------------


def test_tracing_tools_may_add_headers(client: redis.Redis) -> None:
    seen: list[tuple[str, str]] = []

    def before(headers: dict[str, Any], **_: object) -> None:
        headers["x-trace"] = "abc"
        seen.append(("before", headers["id"]))

    def after(headers: dict[str, Any], **_: object) -> None:
        seen.append(("after", headers["id"]))

    signals.before_task_publish.connect(before)
    signals.after_task_publish.connect(after)
    try:
        result = send_notification.delay("order.shipped", to="user-1")
    finally:
        signals.before_task_publish.disconnect(before)
        signals.after_task_publish.disconnect(after)

    assert seen == [("before", result.id), ("after", result.id)]
    assert messages(client, "notify.intake")[0]["headers"]["x-trace"] == "abc"


def test_the_callers_trace_travels_with_the_notification(client: redis.Redis) -> None:
    headers = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "id": "not-mine"}

    result = send_notification.apply_async(("order.shipped",), {"to": "user-1"}, headers=headers)

    [message] = messages(client, "notify.intake")
    assert envelope(message)["trace"] == {"traceparent": headers["traceparent"]}
    assert message["headers"]["id"] == result.id  # a header never takes the place of Celery's own


def test_nothing_personal_is_shown(client: redis.Redis, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    result = send_notification.delay(
        "order.shipped", to={"email": CANARY}, payload={"name": CANARY}, cancel_key=CANARY
    )

    [message] = messages(client, "notify.intake")
    headers = message["headers"]
    assert headers["argsrepr"] == f"('order.shipped', '{result.id}', 'all')"
    assert headers["kwargsrepr"] == "{}"
    assert CANARY not in json.dumps(headers) + json.dumps(message["properties"])
    assert CANARY not in caplog.text
    assert CANARY not in repr(result)
    assert envelope(message)["payload"] == {"name": CANARY}


def test_threads_that_start_together_open_one_keeper(client: redis.Redis) -> None:
    ready = threading.Barrier(8)

    def send(number: int) -> str:
        ready.wait()
        return send_notification.delay("order.shipped", to=f"user-{number}").id

    with ThreadPoolExecutor(8) as threads:
        assert len(set(threads.map(send, range(8)))) == 8
    assert client.llen("notify.intake") == 8

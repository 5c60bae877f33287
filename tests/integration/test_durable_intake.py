"""NOTIFY_INTAKE=postgres: a call is a committed row before it returns, and Redis is not asked."""

from __future__ import annotations

import asyncio
import multiprocessing
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest

from notify_tasks import (
    MaybeAccepted,
    NotAccepted,
    NotConfigured,
    configure,
    producer,
    send_notification,
    settings,
)
from notify_tasks.embedded import Server
from notify_tasks.notification import Notification
from notify_tasks.store.migrate import migrate

ROOT = Path(__file__).parents[2]
BUDGET = 1.0
SLACK = 0.5
"""Seconds: what the promise allows on top of the budget."""
CANARY = "canary@private.example"
ROWS = "SELECT message_id, hash, envelope FROM notify.intake ORDER BY created_at"


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    settings.reset()
    yield
    producer.close()  # before the database goes
    settings.reset()


@pytest.fixture
def rows(database: str) -> Iterator[Callable[[], list[Any]]]:
    configure(database_url=database, intake="postgres")
    with psycopg.connect(database, autocommit=True) as watcher:
        yield lambda: watcher.execute(ROWS).fetchall()


@contextmanager
def within_budget() -> Iterator[None]:
    started = time.monotonic()
    yield
    assert time.monotonic() - started <= BUDGET + SLACK


def test_a_call_is_a_committed_row_and_no_broker_is_needed(rows: Callable[[], list[Any]]) -> None:
    result = send_notification.delay("order.shipped", to="user-1", payload={"order_id": 981})

    [(message_id, hash_, envelope)] = rows()
    assert message_id == result.id
    assert Notification.from_wire(envelope).hash == hash_
    assert Notification.from_wire(envelope).payload == {"order_id": 981}


def test_redis_is_not_even_loaded(database: str) -> None:
    code = (
        "import sys; from notify_tasks import configure, send_notification\n"
        f"configure(database_url={database!r}, intake='postgres')\n"
        "send_notification.delay('order.shipped', to='user-1'); print('redis' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_the_listener_is_told(rows: Callable[[], list[Any]], database: str) -> None:
    with psycopg.connect(database, autocommit=True) as listener:
        listener.execute("LISTEN notify_intake")
        send_notification.delay("order.shipped", to="user-1")
        assert [told.channel for told in listener.notifies(timeout=10, stop_after=1)] == ["notify_intake"]
    assert len(rows()) == 1


def test_the_same_call_twice_is_one_row_and_another_body_a_second(rows: Callable[[], list[Any]]) -> None:
    for total in (1, 1, 2):
        send_notification.delay("order.shipped", to="user-1", payload={"total": total}, message_id="same")

    assert [message_id for message_id, _, _ in rows()] == ["same", "same"]


def test_an_unset_database_says_so() -> None:
    configure(intake="postgres")
    with pytest.raises(NotConfigured, match="NOTIFY_DATABASE_URL"):
        send_notification.delay("order.shipped", to="user-1")


def test_a_url_that_cannot_be_read_says_how_to_write_it() -> None:
    configure(intake="postgres", database_url="nonsense with s3cret")
    with pytest.raises(NotConfigured, match=r"database_url.*postgresql://") as refused:
        send_notification.delay("order.shipped", to="user-1")
    assert "s3cret" not in str(refused.value)


def test_many_threads_share_a_few_connections(rows: Callable[[], list[Any]], database: str) -> None:
    with ThreadPoolExecutor(32) as threads:
        sent = list(
            threads.map(lambda n: send_notification.delay("order.shipped", to=f"u-{n}").id, range(200))
        )

    assert sorted(sent) == sorted(message_id for message_id, _, _ in rows())
    with psycopg.connect(database) as watcher:
        found = watcher.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'notify-producer'"
        ).fetchone()
    assert found is not None
    assert 1 <= found[0] <= 8


def test_asyncio_may_use_it_too(rows: Callable[[], list[Any]]) -> None:
    async def all_of_them() -> None:
        await asyncio.gather(*(send_notification.adelay("order.shipped", to=f"u-{n}") for n in range(50)))

    asyncio.run(all_of_them())

    assert len(rows()) == 50


def _send_in_child() -> None:
    for each in range(10):
        send_notification.delay("order.shipped", to=f"child-{each}")


def test_forked_children_have_connections_of_their_own(rows: Callable[[], list[Any]]) -> None:
    send_notification.delay("order.shipped", to="parent")
    child = multiprocessing.get_context("fork").Process(target=_send_in_child)
    child.start()
    for each in range(10):
        send_notification.delay("order.shipped", to=f"parent-{each}")
    child.join(30)

    assert child.exitcode == 0
    assert len(rows()) == 21


def test_a_missing_table_is_a_refusal_that_says_what_to_type(postgres_url: str) -> None:
    configure(database_url=postgres_url, intake="postgres")

    with pytest.raises(NotAccepted, match="notify migrate"):
        send_notification.delay("order.shipped", to="user-1")


def test_nothing_private_is_in_an_error(rows: Callable[[], list[Any]], database: str) -> None:
    with psycopg.connect(database, autocommit=True) as owner:
        owner.execute("ALTER TABLE notify.intake ADD CHECK (tenant <> 'acme')")

    with pytest.raises(NotAccepted, match="23514") as refused:
        send_notification.delay("order.shipped", to={"email": CANARY}, payload={"a": CANARY}, tenant="acme")

    assert CANARY not in str(refused.value)
    assert refused.value.__cause__ is None
    assert refused.value.__context__ is None
    assert rows() == []


def test_no_server_is_a_refusal_within_the_budget() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    url = f"postgresql://u:s3cret@127.0.0.1:{port}/x"
    configure(database_url=url, intake="postgres", call_timeout=BUDGET)

    with within_budget(), pytest.raises(NotAccepted, match="cannot be reached") as refused:
        send_notification.delay("order.shipped", to="user-1")
    assert "s3cret" not in str(refused.value)


def test_a_server_that_never_answers_costs_the_budget_at_most() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"postgresql://u:p@127.0.0.1:{server.getsockname()[1]}/x"
        configure(database_url=url, intake="postgres", call_timeout=BUDGET)

        with within_budget(), pytest.raises(NotAccepted, match="no answer in time"):
            send_notification.delay("order.shipped", to="user-1")


def test_a_frozen_database_leaves_a_doubt_within_the_budget(start_postgres: Callable[[], Server]) -> None:
    # Given a connection that has worked
    server = start_postgres()
    migrate(server.url)
    configure(database_url=server.url, intake="postgres", call_timeout=BUDGET)
    send_notification.delay("order.shipped", to="user-1")
    with psycopg.connect(server.url, autocommit=True) as watcher:
        backends = psutil.Process(server.pid).children()  # by the kernel's ids: the server may have others

        # When the process behind it freezes
        for backend in backends:
            backend.suspend()
        try:
            with within_budget(), pytest.raises(MaybeAccepted) as doubt:
                send_notification.delay("order.shipped", to="user-1")
        finally:
            for backend in backends:
                backend.resume()

        # Then the same id gets through, and is there once
        send_notification.delay("order.shipped", to="user-1", message_id=doubt.value.message_id)
        kept = watcher.execute(
            "SELECT count(*) FROM notify.intake WHERE message_id = %s", (doubt.value.message_id,)
        ).fetchone()
        assert kept == (1,)


def test_a_restart_between_two_calls_is_not_noticed(start_postgres: Callable[[], Server]) -> None:
    server = start_postgres()
    migrate(server.url)
    configure(database_url=server.url, intake="postgres")
    send_notification.delay("order.shipped", to="user-1")

    server.restart("immediate")

    send_notification.delay("order.shipped", to="user-1")
    with psycopg.connect(server.url) as watcher:
        assert watcher.execute("SELECT count(*) FROM notify.intake").fetchone() == (2,)


def test_a_row_that_another_transaction_holds_does_not_hold_the_call(
    rows: Callable[[], list[Any]], database: str
) -> None:
    configure(call_timeout=BUDGET)
    with psycopg.connect(database) as other:
        send_notification.within(other, "order.shipped", to="user-1", message_id="same")

        with within_budget(), pytest.raises((MaybeAccepted, NotAccepted)):
            send_notification.delay("order.shipped", to="user-1", message_id="same")

        # Nor does the server go on waiting for it, when nobody asks any more
        waiting = (
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE application_name = 'notify-producer' AND datname = current_database() AND state = 'active'"
        )
        deadline = time.monotonic() + 5
        while other.execute(waiting).fetchone() != (0,):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        other.rollback()

    send_notification.delay("order.shipped", to="user-1", message_id="same")
    assert len(rows()) == 1

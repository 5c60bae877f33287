"""A producer in its host application: what stays the host's, and what is refused with a word on what to do."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import celery
import pytest
import redis
from celery import group

import notify_tasks
from notify_tasks import (
    InvalidCall,
    NotConfigured,
    NotHere,
    NotificationResult,
    configure,
    producer,
    send_notification,
    settings,
)
from notify_tasks.routing import SEND_TASK

ROOT = Path(__file__).parents[2]
CANARY = "canary@private.example"


@pytest.fixture
def client(broker: str) -> Iterator[redis.Redis]:
    settings.reset()
    configure(broker_url=broker)
    with redis.Redis.from_url(broker, decode_responses=True) as client:
        yield client
    producer.close()
    settings.reset()


# --- the host application ---------------------------------------------------------------------------


@pytest.mark.usefixtures("client")
def test_the_hosts_own_app_is_left_alone() -> None:
    host = celery.Celery("host", broker="memory://")

    send_notification.delay("order.shipped", to="user-1")

    assert celery.current_app._get_current_object() is host
    assert SEND_TASK not in host.tasks
    assert send_notification.app is not host


def test_the_hosts_tasks_in_a_group_with_ours_go_by_the_hosts_app(client: redis.Redis) -> None:
    host = celery.Celery("host", broker="memory://", set_as_current=False)

    @host.task(name="host.work", ignore_result=True)
    def work() -> None: ...

    group(send_notification.s("order.shipped", to="user-1"), work.s())()
    group(work.s(), send_notification.s("order.shipped", to="user-2"))()

    assert client.llen("notify.intake") == 2
    with host.connection_for_read() as connection:
        assert connection.default_channel.queue_declare("celery").message_count == 2


def test_a_group_that_went_through_json_still_goes_our_way(client: redis.Redis) -> None:
    stored = json.loads(json.dumps(group(send_notification.s("order.shipped", to="user-1"))))

    celery.signature(stored, app=send_notification.app).apply_async()

    assert client.llen("notify.intake") == 1


def test_the_django_settings_of_the_host_are_not_looked_for() -> None:
    code = (
        "import sys; before = list(sys.path); from notify_tasks import send_notification\n"
        "send_notification.s('a', to='u'); send_notification.app.conf.timezone\n"
        "assert sys.path == before and 'celery.fixups.django' not in sys.modules, sys.path"
    )
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "host.settings",
        "CELERY_CONFIG_MODULE": "hostconf",
    }
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, check=True)


def test_importing_loads_nothing_heavy_and_stays_lazy() -> None:
    code = (
        "import sys, notify_tasks\n"
        "assert 'celery' not in sys.modules\n"
        "from notify_tasks import send_notification\n"
        "heavy = {'psycopg', 'jinja2', 'requests', 'twilio', 'firebase_admin', 'redis', 'channels'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def test_every_exported_name_is_there() -> None:
    for name in notify_tasks.__all__:
        assert getattr(notify_tasks, name) is not None
    assert set(notify_tasks.__all__) <= set(dir(notify_tasks))
    with pytest.raises(AttributeError):
        _ = notify_tasks.nothing


# --- what says no -----------------------------------------------------------------------------------


def test_an_unset_broker_says_so() -> None:
    settings.reset()
    with pytest.raises(NotConfigured, match="NOTIFY_BROKER_URL"):
        send_notification.delay("order.shipped", to="user-1")


def test_a_bad_call_sends_nothing(client: redis.Redis) -> None:
    with pytest.raises(InvalidCall, match="to="):
        send_notification.delay("order.shipped", to=CANARY)
    with pytest.raises(InvalidCall, match="keyword"):
        send_notification.delay("order.shipped", "user-1")  # type: ignore[arg-type]  # that is the mistake
    with pytest.raises(InvalidCall, match="payload"):
        send_notification.delay("order.shipped", to="user-1", paylod={})  # type: ignore[call-arg]  # as above
    assert client.dbsize() == 0


def test_a_chord_is_refused_before_anything_is_sent(client: redis.Redis, broker: str) -> None:
    host = celery.Celery("host", broker="memory://", backend=broker, set_as_current=False)

    @host.task(name="host.after")
    def after(results: object) -> None: ...

    with pytest.raises(InvalidCall, match="chord"):
        celery.chord([send_notification.s("order.shipped", to="user-1")])(after.s())
    with pytest.raises(InvalidCall, match="chord"):
        celery.chord([send_notification.s("order.shipped", to="user-1")], app=host)(after.s())
    assert client.llen("notify.intake") == 0


@pytest.mark.parametrize(
    "run",
    [
        lambda: send_notification("order.shipped", to="user-1"),
        lambda: send_notification.apply(("order.shipped",), {"to": "user-1"}),
        send_notification.s("order.shipped", to="user-1"),
        lambda: send_notification.s("order.shipped", to="user-1").apply(),
    ],
)
def test_running_it_here_says_what_to_do(run: Callable[[], object]) -> None:
    with pytest.raises(NotHere, match=r"send_notification\.delay\(\)"):
        run()


@pytest.mark.parametrize(
    "ask",
    [
        lambda result: result.get(timeout=1),
        lambda result: result.wait(),
        lambda result: result.status,
        lambda result: result.state,
        lambda result: result.result,
        lambda result: result.ready(),
        lambda result: result.successful(),
        lambda result: result.failed(),
        lambda result: result.traceback,
        lambda result: result.children,
        lambda result: list(result.collect()),
    ],
)
def test_asking_the_result_says_whom_to_ask(ask: Callable[[NotificationResult], object]) -> None:
    with pytest.raises(NotHere, match="notify status id-1"):
        ask(NotificationResult("id-1"))


@pytest.mark.usefixtures("client")
def test_a_groups_result_says_whom_to_ask() -> None:
    result = group(send_notification.s("order.shipped", to=f"user-{n}") for n in range(2))()

    for ask in (result.get, result.ready, result.successful, result.join):
        with pytest.raises(NotHere, match="notify status"):
            ask()
    assert {each.tenant for each in result.results} == {"default"}


@pytest.mark.usefixtures("client")
def test_a_result_is_an_async_result_with_its_message_id() -> None:
    result = send_notification.delay("order.shipped", to="user-1", message_id="id-1")

    assert isinstance(result, celery.result.AsyncResult)
    assert result.id == result.message_id == result.task_id == str(result) == "id-1"
    assert pickle.loads(pickle.dumps(result)) == result
    assert pickle.loads(pickle.dumps(send_notification)) is send_notification


@pytest.mark.usefixtures("client")
def test_cancel_without_a_database_says_what_is_missing() -> None:
    result = send_notification.delay("order.shipped", to="user-1")

    with pytest.raises(NotHere, match="NOTIFY_DATABASE_URL"):
        result.cancel()


@pytest.mark.usefixtures("client")
def test_cancel_before_intake_takes_the_message_key(database: str) -> None:
    configure(database_url=database)
    result = send_notification.delay("order.shipped", to="user-1", tenant="acme")

    cancelled = result.cancel()

    assert cancelled.before_intake
    assert cancelled.complete

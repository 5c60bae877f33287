"""A producer that has the wheel alone, beside Django Channels, sends; the fleet of the repository delivers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from faults.fleet import running_fleet, workers

SEND = """
import sys
import channels.layers  # Django Channels, whole
from celery import Celery, current_app
host = Celery("host")
host.set_current()
from notify_tasks import send_notification
result = send_notification.delay("fault.ping", to={"sms": "+4915112345678"}, payload={"n": 1}, channels=["sms"])
assert current_app._get_current_object() is host
assert not {"psycopg", "jinja2", "twilio", "firebase_admin", "requests"} & set(sys.modules)
print(result.id)
"""


def test_a_call_from_the_wheel_alone_is_delivered(tmp_path: Path, in_producer: Callable[..., str]) -> None:
    with running_fleet(tmp_path / "fleet", workers(count=1)) as fleet:
        message_id = in_producer(SEND, NOTIFY_BROKER_URL=fleet.redis.url).strip()

        fleet.wait(
            "it is sent",
            lambda: (
                fleet.rows("SELECT state FROM notify.delivery WHERE message_id = %s", message_id)
                == [("sent",)]
            ),
            30,
        )
        assert [request.accepted for request in fleet.sandbox.requests()] == [True]

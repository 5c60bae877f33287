"""What a producer's own tests see: every call, checked, and no server anywhere."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from celery import group

from notify_tasks import InvalidCall, send_notification, settings
from notify_tasks.testing import Outbox, outbox

__all__ = ["outbox"]


@pytest.fixture(autouse=True)
def _no_settings() -> Iterator[None]:
    settings.reset()
    yield
    settings.reset()


class Connection:
    """A host's connection, as far as it is looked at."""

    autocommit = False

    def cursor(self) -> None: ...

    def commit(self) -> None: ...

    def rollback(self) -> None: ...


def test_every_way_of_calling_is_caught(outbox: Outbox) -> None:
    send_notification.delay("order.shipped", to="user-1", payload={"a": 1})
    send_notification.apply_async(("order.shipped",), {"to": ["user-2", "user-3"]}, countdown=5)
    group(send_notification.s("order.paid", to={"email": f"{n}@example.com"}) for n in range(2))()
    asyncio.run(send_notification.adelay("order.paid", to="user-1"))
    send_notification.within(Connection(), "order.lost", to="user-1")

    assert [each.event_type for each in outbox.notifications] == [
        "order.shipped",
        "order.shipped",
        "order.paid",
        "order.paid",
        "order.paid",
        "order.lost",
    ]
    assert len(outbox.to("user-1")) == 3
    assert len(outbox.to("user-3")) == 1
    assert len(outbox.to("1@example.com")) == 1
    assert len(outbox.of_type("order.paid")) == 3
    assert outbox.notifications[0].payload == {"a": 1}


@pytest.mark.parametrize("call", [{"to": "ann@example.com"}, {"to": "u", "priority": 3}, {"to": "u", "x": 1}])
def test_the_checks_are_in_force(outbox: Outbox, call: dict[str, Any]) -> None:
    with pytest.raises(InvalidCall):
        send_notification.delay("order.shipped", **call)
    assert outbox.notifications == []


def test_the_checks_of_a_connection_are_in_force(outbox: Outbox) -> None:
    connection = Connection()
    connection.autocommit = True
    with pytest.raises(InvalidCall, match="connection"):
        send_notification.within(connection, "order.shipped", to="user-1")
    assert outbox.notifications == []


def test_a_repeated_call_is_the_same_notification(outbox: Outbox) -> None:
    for total in (1, 1, 2):
        send_notification.delay("order.shipped", to="user-1", message_id="same", payload={"total": total})

    assert [each.payload["total"] for each in outbox.notifications] == [1, 2]


def test_cancelling_is_noted(outbox: Outbox) -> None:
    result = send_notification.delay("order.shipped", to="user-1")

    assert result.cancel().complete
    assert outbox.cancelled == [result.message_id]


def test_it_can_be_emptied(outbox: Outbox) -> None:
    send_notification.delay("order.shipped", to="user-1").cancel()

    outbox.clear()

    assert (outbox.notifications, outbox.cancelled) == ([], [])

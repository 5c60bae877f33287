"""For producers' own tests: calls are checked and caught, and no server is needed.

from notify_tasks.testing import outbox  # in conftest.py: makes the fixture known

def test_shipping_tells_the_customer(outbox):
    ship(order)
    [notification] = outbox.to("user-42")
    assert notification.event_type == "order.shipped"
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import pytest

from notify_tasks.notification import Notification
from notify_tasks.producer import capturing

__all__ = ["Cancelled", "Outbox", "outbox"]


@dataclass(frozen=True, slots=True)
class Cancelled:
    """What cancelling a caught notification gives: no worker has seen it, so it is never sent."""

    before_intake: bool = True
    cancelled: int = 0
    too_late: int = 0
    stopped_before: int = 0
    complete: bool = True


@dataclass(slots=True)
class Outbox:
    """The notifications that were asked for, in order.

    As in the fleet, a repeated call with the same message id is the same notification and is here once.
    """

    notifications: list[Notification] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    """Message ids of those that were cancelled."""

    def to(self, recipient: str) -> list[Notification]:
        """Those for a recipient: an id, or any address of the call."""
        return [
            each
            for each in self.notifications
            if any(recipient == ref.id or recipient in ref.addresses.values() for ref in each.to)
        ]

    def of_type(self, event_type: str) -> list[Notification]:
        """Those of an event type."""
        return [each for each in self.notifications if each.event_type == event_type]

    def clear(self) -> None:
        """Forget what was caught so far."""
        self.notifications.clear()
        self.cancelled.clear()

    def keep(self, notification: Notification, headers: Mapping[str, object], *, deadline: float) -> None:  # noqa: ARG002 - a keeper's signature
        """Catch a call; the producer calls this."""
        key = (notification.tenant, notification.message_id, notification.hash)
        if all(key != (each.tenant, each.message_id, each.hash) for each in self.notifications):
            self.notifications.append(notification)

    def cancel(self, tenant: str, message_id: str) -> Cancelled:  # noqa: ARG002 - a captor's signature
        """Note a cancelled notification; `NotificationResult.cancel` calls this."""
        self.cancelled.append(message_id)
        return Cancelled()

    def close(self) -> None:
        """Nothing to close."""


@pytest.fixture
def outbox() -> Iterator[Outbox]:
    """Catch every call of this process while the test runs."""
    caught = Outbox()
    with capturing(caught):
        yield caught

"""Where a call is kept before it has returned: in Redis, in PostgreSQL, or in a transaction of the caller's.

Each module is imported by whoever needs it, so that a producer loads one driver at most.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from notify_tasks.notification import Notification


class Keeper(Protocol):
    """One way of keeping a call."""

    def keep(self, notification: Notification, headers: Mapping[str, object], *, deadline: float) -> None:
        """Keep it.

        Args:
            notification: the checked call.
            headers: the caller's own message headers; of use only where there is a message.
            deadline: on the monotonic clock; the call has returned or raised by then.

        Raises:
            NotAccepted: it is surely not kept.
            MaybeAccepted: nobody knows.
        """

    def close(self) -> None:
        """Close what waits for its next use."""

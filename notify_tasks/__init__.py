"""notify-tasks: one call, one notification, delivered, and never lost.

    from notify_tasks import send_notification

    send_notification.delay("order.shipped", to="user-42", payload={"order_id": 981})

What is named here is the producer's API. It is loaded when it is first used, so that importing the package
costs nothing, and loads neither a database driver nor a template engine nor a provider's library.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from notify_tasks import errors
    from notify_tasks.attaching import Attachment
    from notify_tasks.calls import Call, Options
    from notify_tasks.errors import (
        InvalidCall,
        MaybeAccepted,
        MaybeCancelled,
        NotAccepted,
        NotConfigured,
        NotHere,
        NotifyError,
    )
    from notify_tasks.local_time import LocalTime
    from notify_tasks.notification import Notification
    from notify_tasks.producer import send_notification
    from notify_tasks.recipients import Recipient, To
    from notify_tasks.results import NotificationResult
    from notify_tasks.settings import Settings, configure
    from notify_tasks.steering import cancel_all, explain, explain_recipient, reschedule

__all__ = [
    "Attachment",
    "Call",
    "InvalidCall",
    "LocalTime",
    "MaybeAccepted",
    "MaybeCancelled",
    "NotAccepted",
    "NotConfigured",
    "NotHere",
    "Notification",
    "NotificationResult",
    "NotifyError",
    "Options",
    "Recipient",
    "Settings",
    "To",
    "cancel_all",
    "configure",
    "errors",
    "explain",
    "explain_recipient",
    "reschedule",
    "send_notification",
]

_HOMES: Final = {
    "Attachment": "attaching",
    "Call": "calls",
    "InvalidCall": "errors",
    "LocalTime": "local_time",
    "MaybeAccepted": "errors",
    "MaybeCancelled": "errors",
    "NotAccepted": "errors",
    "NotConfigured": "errors",
    "NotHere": "errors",
    "Notification": "notification",
    "NotificationResult": "results",
    "NotifyError": "errors",
    "Options": "calls",
    "Recipient": "recipients",
    "Settings": "settings",
    "To": "recipients",
    "cancel_all": "steering",
    "configure": "settings",
    "explain": "steering",
    "explain_recipient": "steering",
    "reschedule": "steering",
    "send_notification": "producer",
}

_MORE: Final = ("inbox", "people", "suppressions")
"""Modules, and no part of __all__: a producer alone has no libraries for them."""


def __getattr__(name: str) -> Any:
    if name == "errors" or name in _MORE:
        return importlib.import_module(f"notify_tasks.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'notify_tasks' has no attribute {name!r}")
    found = getattr(importlib.import_module(f"notify_tasks.{_HOMES[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

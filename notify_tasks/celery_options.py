"""Celery's options of a call, mapped to ours or refused. Pure.

Celery's expiry and revoke drop a message without a trace; ours leave a state. What a group or a signature
adds of its own is taken and has no effect, since each notification stands by itself.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping
from typing import Any, Final, NoReturn

from notify_tasks.errors import InvalidCall
from notify_tasks.recipients import meant

_WITHOUT_EFFECT: Final = frozenset(
    {
        "add_to_parent",  # a host task's results never wait for ours
        "group_id",
        "group_index",
        "ignore_result",
        "parent_id",
        "producer",  # a group's; our messages go to the fleet's own broker
        "publisher",
        "replaced_task_nesting",
        "reply_to",
        "retry",  # one call is one attempt within its budget; MaybeAccepted says how to go on
        "retry_policy",
        "root_id",
    }
)

_NO_RESULT: Final = (
    "a notification has no result that another task could begin with",
    "Call send_notification.delay() inside the task that comes before it",
)
_OWN_QUEUES: Final = (
    "the fleet's queues are chosen by channel and lane",
    'Write channels=["email"] or priority="high" in the call',
)
_FLEETS: Final = ("it is the fleet's own matter", "Leave it out")
_REFUSED: Final[Mapping[str, tuple[str, str]]] = {
    "chain": _NO_RESULT,
    "chord": _NO_RESULT,
    "link": _NO_RESULT,
    "link_error": (
        "what fails is kept and shown by the fleet",
        "Leave it out, and look with `notify status ID`",
    ),
    "exchange": _OWN_QUEUES,
    "exchange_type": _OWN_QUEUES,
    "queue": _OWN_QUEUES,
    "route_name": _OWN_QUEUES,
    "router": _OWN_QUEUES,
    "routing_key": _OWN_QUEUES,
    "connection": (
        "the fleet has a broker of its own",
        "Name it with notify_tasks.configure(broker_url=...) or NOTIFY_BROKER_URL",
    ),
    "time_limit": ("the fleet's calls have deadlines of their own", "Leave it out, or use expires"),
    "soft_time_limit": ("the fleet's calls have deadlines of their own", "Leave it out, or use expires"),
    "compression": _FLEETS,
    "delivery_mode": _FLEETS,
    "shadow": _FLEETS,
}
_TAKEN: Final = ("countdown", "eta", "expires", "headers", "priority", "serializer", "task_id")
_KNOWN: Final = dict.fromkeys((*_TAKEN, *_REFUSED))

_TRACE: Final = ("traceparent", "tracestate")
"""W3C Trace Context."""


def map_options(
    call: Mapping[str, Any], options: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, object]]:
    """Turn Celery's options into keywords of ours.

    Args:
        call: the keywords of the call.
        options: what was given to `apply_async`; None and empty lists count as not given.

    Returns:
        The call with `at`, `expires`, `message_id` and `priority` filled in, and the message headers.

    Raises:
        InvalidCall: an option has no meaning here, or contradicts the call.
    """
    stamps = set(options.get("stamped_headers") or ())
    said = {
        name: value
        for name, value in options.items()
        if name not in _WITHOUT_EFFECT
        and name not in stamps
        and name != "stamped_headers"
        and value is not None
        and value != []
    }
    for name in said:
        if name in _REFUSED:
            refuse(name)
        if name not in _TAKEN:
            raise InvalidCall(
                name, "there is no such Celery option", f"{meant(name, _KNOWN, {})} Ours go into kwargs"
            )
    if said.get("serializer", "json") != "json":
        raise InvalidCall("serializer", "notifications are JSON", "Leave it out")
    mapped = dict(call)
    for option, ours, value in _ours(said):
        if mapped.get(ours) is not None and str(mapped[ours]) != str(value):
            raise InvalidCall(option, f"{ours} says something else", f"Keep one of {option} and {ours}")
        mapped[ours] = value
    return mapped, _headers(said.get("headers"))


def refuse(option: str) -> NoReturn:
    """Refuse an option of Celery's with its remedy.

    Raises:
        InvalidCall: always.
    """
    raise InvalidCall(option, *_REFUSED[option])


def _ours(said: Mapping[str, Any]) -> list[tuple[str, str, object]]:
    found: list[tuple[str, str, object]] = []
    if "eta" in said and "countdown" in said:
        raise InvalidCall("eta", "countdown is given as well", "Keep one of them")
    if "eta" in said:
        found.append(("eta", "at", said["eta"]))
    if "countdown" in said and (seconds := _countdown(said["countdown"])):
        found.append(("countdown", "at", dt.timedelta(seconds=seconds)))
    found += [(name, name, said[name]) for name in ("expires", "priority") if name in said]
    if "task_id" in said:
        found.append(("task_id", "message_id", said["task_id"]))
    return found


def _countdown(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise InvalidCall("countdown", "it is not a number of seconds ahead", "Write 0 or more seconds")
    return float(value)


def _headers(value: object) -> dict[str, object]:
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        raise InvalidCall("headers", "they are not a dict with texts as keys", 'Write {"name": "value"}')
    return dict(value)


def trace_of(headers: Mapping[str, object]) -> dict[str, str] | None:
    """The trace that the call belongs to, if its headers carry one."""
    trace = {name: value for name in _TRACE if isinstance(value := headers.get(name), str)}
    return trace or None

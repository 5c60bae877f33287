"""One Celery message: what goes on the wire, and the signals before and after it. No connection here.

The form is Celery's message protocol 2 (docs.celeryq.dev, "Message Protocol") as kombu's Redis transport
writes it, so that stock workers run it. Celery's `before_task_publish` and `after_task_publish` are sent if
somebody listens: tracing tools add their headers there. The body that they are shown is a copy.
"""

from __future__ import annotations

import json
import os
import time
import uuid
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from celery import signals
from celery.utils.nodenames import anon_nodename

from notify_tasks.routing import LEDGER_HEADER, SENT_AT_HEADER, ledger_key

_NO_LINKS: Final = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
_NO_LINKS_JSON: Final = json.dumps(_NO_LINKS)


class Raw(str):
    """A text that is JSON already, so that it is not encoded twice."""

    __slots__ = ()


def shown(event_type: str, message_id: str, channels: str) -> str:
    """A message's arguments as logs and Flower show them: what an engineer on call needs, and nothing personal.

    Args:
        event_type: its type.
        message_id: what `notify status` takes.
        channels: names, joined by commas; empty where the plan will tell.
    """
    return repr((event_type, message_id, channels or "all"))


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One Celery message.

    Args:
        task: the task's name.
        args: its positional arguments: JSON values, or `Raw`.
        queue: where it goes.
        task_id: Celery's task id.
        root_id: under which Flower groups it; the default is the task id.
        argsrepr: what logs and Flower show as its arguments: nothing personal.
        headers: more message headers, JSON values.
        eta: not before; a time with a zone.
        ledger_field: where its entry stands in the ledger's hash; None for a message without one.
        ledger_value: the entry.
    """

    task: str
    args: Sequence[object] = field(repr=False)
    queue: str
    task_id: str
    root_id: str | None = None
    argsrepr: str = ""
    headers: Mapping[str, object] = field(default_factory=dict, repr=False)
    eta: datetime | None = None
    ledger_field: str | None = None
    ledger_value: str | None = field(default=None, repr=False)


@dataclass(slots=True)
class Built:
    """A message ready to be sent: the Redis commands that publish it."""

    outgoing: Outgoing
    headers: dict[str, object]
    commands: list[tuple[str, ...]]

    def published(self) -> None:
        """Tell who listens that it is out."""
        if signals.after_task_publish.receivers:
            signals.after_task_publish.send(
                sender=self.outgoing.task,
                headers=self.headers,
                body=_body_copy(self.outgoing),
                exchange="",
                routing_key=self.outgoing.queue,
            )


def build(outgoing: Outgoing, bucket: int) -> Built:
    """Make the commands of a message: its ledger entry, if it has one, then the message itself.

    Args:
        outgoing: the message.
        bucket: the ledger's present bucket.
    """
    headers = _headers(outgoing)
    properties: dict[str, object] = {
        "correlation_id": outgoing.task_id,
        "reply_to": "",
        "delivery_mode": 2,
        "delivery_info": {"exchange": "", "routing_key": outgoing.queue},
        "priority": 0,
        "body_encoding": "base64",
        "delivery_tag": str(uuid.uuid4()),
    }
    if signals.before_task_publish.receivers:
        signals.before_task_publish.send(
            sender=outgoing.task,
            body=_body_copy(outgoing),
            exchange="",
            routing_key=outgoing.queue,
            declare=[],
            headers=headers,
            properties=properties,
            retry_policy={},
        )
    commands: list[tuple[str, ...]] = []
    if outgoing.ledger_field is not None:
        key = ledger_key(bucket, outgoing.queue)
        headers[LEDGER_HEADER] = [key, outgoing.ledger_field]
        commands.append(("HSET", key, outgoing.ledger_field, outgoing.ledger_value or ""))
    body = f"[{_args_json(outgoing)}, {{}}, {_NO_LINKS_JSON}]"
    message = {
        "body": b64encode(body.encode()).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": headers,
        "properties": properties,
    }
    commands.append(("LPUSH", outgoing.queue, json.dumps(message, default=str)))
    return Built(outgoing, headers, commands)


def _headers(outgoing: Outgoing) -> dict[str, object]:
    return {
        **outgoing.headers,
        "lang": "py",
        "task": outgoing.task,
        "id": outgoing.task_id,
        "shadow": None,
        "eta": outgoing.eta.isoformat() if outgoing.eta else None,
        "expires": None,
        "group": None,
        "group_index": None,
        "retries": 0,
        "timelimit": [None, None],
        "root_id": outgoing.root_id or outgoing.task_id,
        "parent_id": None,
        "argsrepr": outgoing.argsrepr,
        "kwargsrepr": "{}",
        "origin": _origin(),
        "ignore_result": True,
        "replaced_task_nesting": 0,
        "stamped_headers": None,
        "stamps": {},
        SENT_AT_HEADER: round(time.time(), 3),
    }


_origins: dict[int, str] = {}


def _origin() -> str:
    pid = os.getpid()
    if pid not in _origins:
        _origins.clear()  # the parent's, in a forked child
        _origins[pid] = anon_nodename()
    return _origins[pid]


def _args_json(outgoing: Outgoing) -> str:
    return f"[{', '.join(arg if isinstance(arg, Raw) else json.dumps(arg) for arg in outgoing.args)}]"


def _body_copy(outgoing: Outgoing) -> tuple[list[object], dict[str, object], dict[str, object]]:
    return json.loads(_args_json(outgoing)), {}, dict(_NO_LINKS)

"""`notify status`."""

from __future__ import annotations

import argparse
import json
from datetime import UTC, datetime
from typing import Any

from notify_tasks.cli.context import database
from notify_tasks.store import statuses
from notify_tasks.store.statuses import Found
from notify_tasks.terminal.output import stderr, stdout
from notify_tasks.terminal.timeline import lines

NOT_FOUND = """\
notify: no notification has the id {id} (tenant {tenant}). Either
  - it is still in Redis, and no worker of its queue has taken it: type `notify doctor`
  - it was sent to another fleet: look at NOTIFY_BROKER_URL and NOTIFY_DATABASE_URL, here and at the producer
  - it belongs to another tenant: add --tenant NAME
  - the call had failed: the producer then got an error, and must repeat it"""


def run(options: argparse.Namespace) -> int:
    """Show what is known of a message id."""
    with database() as store:
        found = statuses.read(store, options.id, tenant=options.tenant)
    if not found.notifications and found.kept_since is None and found.cancelled_at is None:
        stderr().say(NOT_FOUND.format(id=options.id, tenant=options.tenant))
        return 1
    out = stdout()
    if options.json:
        out.plain(json.dumps(as_json(options.id, found), indent=2, ensure_ascii=False, default=str))
        return 0
    for line in lines(found, datetime.now(UTC)):
        out.say(line, wrap=True)
    return 0


def as_json(message_id: str, found: Found) -> dict[str, Any]:
    """Everything under a message id as plain values; times in RFC 3339."""
    moments = {
        "kept_since": found.kept_since,
        "cancelled_at": found.cancelled_at,
        "occurrence": found.occurrence,
    }
    return {
        "message_id": message_id,
        "notifications": _plain([it.as_json() for it in found.notifications]),
        **{name: None if at is None else at.isoformat() for name, at in moments.items()},
        "schedule": found.schedule,
    }


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return value

"""`notify cancel`, `notify migrate`."""

from __future__ import annotations

import argparse

from notify_tasks import settings
from notify_tasks.cli.context import database, find_fleet
from notify_tasks.store import cancelling
from notify_tasks.store import migrate as migrations
from notify_tasks.terminal.looks import counted
from notify_tasks.terminal.output import stdout


def cancel(options: argparse.Namespace) -> int:
    """Cancel by message id."""
    with database() as store:
        done = cancelling.cancel(store, options.tenant, options.id)
    if done.before_intake:
        stdout().say("cancelled before any worker had seen it: whenever it comes, it will not be sent")
        return 0
    parts = [f"{counted(done.cancelled, 'delivery')} cancelled"]
    if done.stopped_before:
        parts.append(f"{done.stopped_before} had ended without being sent")
    if done.too_late:
        parts.append(f"{done.too_late} too late: sent, being sent, or in doubt")
    stdout().say("; ".join(parts))
    return 0 if done.complete else 1


def migrate(_options: argparse.Namespace) -> int:
    """Bring the schema up to date."""
    find_fleet()
    out = stdout()
    done = migrations.migrate(settings.get().need_database_url(), tell=out.say)
    newest = max(it.version for it in migrations.available())
    out.say(f"the schema is at version {newest}" + ("" if done else ": nothing to do"))
    return 0

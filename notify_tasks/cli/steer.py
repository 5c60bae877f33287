"""`notify cancel`, `notify replay`, `notify migrate`."""

from __future__ import annotations

import argparse

from notify_tasks import settings
from notify_tasks.cli.context import database, find_fleet
from notify_tasks.store import cancelling, replaying, statuses
from notify_tasks.store import migrate as migrations
from notify_tasks.store.sweeps import Wake
from notify_tasks.terminal.looks import counted
from notify_tasks.terminal.output import stderr, stdout


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


def replay(options: argparse.Namespace) -> int:
    """Replay by message id."""
    with database() as store:
        done = replaying.replay(store, options.id, tenant=options.tenant)
        known = statuses.read(store, options.id, tenant=options.tenant)
    if not done.wakes and not done.calls:
        why = (
            "nothing of it ended without being sent"
            if known.notifications
            else "there is no such notification"
        )
        stderr().say(f"notify: nothing to replay: {why}. Type `notify status {options.id}`")
        return 1
    _wake(done.wakes)
    if done.wakes:
        stdout().say(f"{counted(len(done.wakes), 'delivery')} queued again")
    if done.calls:
        stdout().say("the rejected call is planned again within seconds")
    return 0


def _wake(wakes: list[Wake]) -> None:
    """Publish at best effort. What does not arrive, the sweep finds."""
    url = settings.get().broker_url
    if not wakes or url is None:
        return
    from notify_tasks.broker import Broker  # noqa: PLC0415 - a third of a second to import
    from notify_tasks.fleet import BROKER_SECONDS, Publisher  # noqa: PLC0415 - as above

    Publisher(Broker(url, timeout=BROKER_SECONDS)).wake(wakes)


def migrate(_options: argparse.Namespace) -> int:
    """Bring the schema up to date."""
    find_fleet()
    out = stdout()
    done = migrations.migrate(settings.get().need_database_url(), tell=out.say)
    newest = max(it.version for it in migrations.available())
    out.say(f"the schema is at version {newest}" + ("" if done else ": nothing to do"))
    return 0

"""`notify replay ID`, `notify replay --where FILTER`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Final

from notify_tasks import durations, filters
from notify_tasks.cli import bulk
from notify_tasks.cli.context import database
from notify_tasks.errors import InvalidCall
from notify_tasks.filters import Filter
from notify_tasks.store import replaying, selecting, statuses
from notify_tasks.store.database import Database
from notify_tasks.store.replaying import BY_FILTER
from notify_tasks.store.selecting import Group, Place
from notify_tasks.terminal.looks import counted
from notify_tasks.terminal.output import dim, stderr, stdout

BATCH: Final = 500
REFUSED: Final = {
    "in_doubt": "It may have arrived: settle it with `notify in-doubt resolve --where ... --as resend`",
    "sent": "It was sent; what is sent twice reaches a person twice",
    "delivered": "It was delivered; what is sent twice reaches a person twice",
}
EXPIRED: Final = "expired"


def run(options: argparse.Namespace) -> int:
    """Replay by message id, or by a filter."""
    if (options.id is None) == (not options.where):
        raise InvalidCall(
            "replay", "it takes a message id or --where", f"Write ID, or --where '{filters.EXAMPLE}'"
        )
    if options.where:
        return _many(options)
    if options.dry_run or options.expires is not None:
        raise InvalidCall(
            "--dry-run" if options.dry_run else "--expires", "it goes with --where", "Leave it out"
        )
    return _one(options)


def _one(options: argparse.Namespace) -> int:
    with database() as store:
        done = replaying.replay(store, options.id, tenant=options.tenant, by=bulk.who())
        known = statuses.read(store, options.id, tenant=options.tenant)
    if not done.wakes and not done.calls:
        why = (
            "nothing of it ended without being sent, or its content is gone"
            if known.notifications
            else "there is no such notification"
        )
        stderr().say(f"notify: nothing to replay: {why}. Type `notify status {options.id}`")
        return 1
    if done.wakes:
        bulk.Waker()(done.wakes)
        stdout().say(f"{counted(len(done.wakes), 'delivery')} queued again")
    if done.calls:
        stdout().say("the rejected call is planned again within seconds")
    return 0


def _many(options: argparse.Namespace) -> int:
    wanted = filters.parse(options.where, now=bulk.now(), states=BY_FILTER, refused=REFUSED)
    lifetime = _lifetime(options.expires)
    with database() as store:
        groups = selecting.groups(store, wanted)
        ready = sum(it.count - it.replayed - it.gone for it in groups)
        if not groups:
            stdout().say("no delivery is meant")
            return 1
        bulk.show(groups)
        _tell(groups)
        _check_expiry(groups, lifetime)
        if options.dry_run:
            stdout().say(f"{counted(ready, 'delivery')} would be sent again")
            return 0
        if not ready:
            stdout().say("nothing to replay")
            return 1
        if not bulk.agreed(options, f"This sends {counted(ready, 'delivery')} again.", "replay"):
            stderr().say("notify: nothing was replayed")
            return 1
        done = _replay(store, wanted, lifetime, ready)
    stdout().say(f"{counted(done, 'delivery')} queued again")
    return 0


def _lifetime(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        seconds = durations.parse(text)
    except ValueError as error:
        problem, _, remedy = str(error).partition(". ")
        raise InvalidCall("--expires", problem, remedy) from None
    if seconds <= 0:
        raise InvalidCall("--expires", "it is no time at all", "Write how long they are worth it, as in 2h")
    return seconds


def _tell(groups: Sequence[Group]) -> None:
    """Say what of it will not be sent again."""
    replayed, gone = sum(it.replayed for it in groups), sum(it.gone for it in groups)
    if replayed:
        stderr().say([dim(f"{counted(replayed, 'delivery')} of them replayed before: each is replayed once")])
    if gone:
        stderr().say([dim(f"{counted(gone, 'delivery')} of them cannot go: content or address is gone")])


def _check_expiry(groups: Sequence[Group], lifetime: float | None) -> None:
    expired = sum(it.count - it.replayed - it.gone for it in groups if it.state == EXPIRED)
    if expired and lifetime is None:
        raise InvalidCall(
            "--expires",
            f"{counted(expired, 'delivery')} of them expired, and may be worthless now",
            "Say how long they are worth it from now on, as in --expires 2h, or leave out state=expired",
        )


def _replay(store: Database, wanted: Filter, lifetime: float | None, ready: int) -> int:
    """Page by page. Ended in between and typed again, it goes on where it was."""
    wake, by, done = bulk.Waker(), bulk.who(), 0
    with bulk.progress("replayed", ready) as tell:
        for state in wanted.of("state"):
            after: Place | None = None
            while found := selecting.page(store, wanted, state, after=after, limit=BATCH):
                wakes = replaying.again(
                    store, [it.id for it in found], states=[state], by=by, lifetime=lifetime
                )
                wake(wakes)
                done += len(wakes)
                tell(len(wakes))
                after = found[-1]
    return done

"""What stands: pauses, doubts, failures, schedules that cannot be read, a beat that does not tick."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from notify_tasks.findings import Finding, bad, good, warning
from notify_tasks.store import ailing, pausing, sweeps
from notify_tasks.store.ailing import COUNTED
from notify_tasks.store.database import Database
from notify_tasks.store.pausing import Pause
from notify_tasks.terminal.looks import clock, counted, duration

BEAT_LATE: Final = 15.0
"""Seconds: beat ticks every five."""
DEAD_HOURS: Final = 24


def standing(database: Database) -> Iterator[Finding]:
    """Look at all of it."""
    yield from _beat(database)
    yield from (_paused(it) for it in pausing.listed(database))
    yield from _troubled(database)
    for it in ailing.stuck_schedules(database):
        tenant = "" if it.tenant == "default" else f" --tenant {it.tenant}"
        problem, _, remedy = it.problem.partition("; ")
        do = remedy or "Write it anew"
        yield bad(
            "schedules",
            f"{it.id}: {problem}",
            f"{do[:1].upper()}{do[1:]}; `notify schedules show {it.id}{tenant}`",
        )


def _beat(database: Database) -> Iterator[Finding]:
    age = sweeps.tick_age(database)
    if age is not None and age <= BEAT_LATE:
        yield good("beat", f"the last tick was {duration(age)} ago")
        return
    said = "no tick was ever carried out" if age is None else f"the last tick was {duration(age)} ago"
    yield warning(
        "beat",
        f"{said}: workers sweep of themselves, but nothing is purged",
        "Start `celery -A notify_tasks beat`, and a worker of notify.maint",
    )


def _paused(it: Pause) -> Finding:
    who = f" by {it.by}" if it.by else ""
    more = "+" if it.held >= pausing.COUNTED else ""
    soon = f", {it.expiring} of them expire within an hour" if it.expiring else ""
    return warning(
        "pauses",
        f"{it.kind} {it.name} since {clock(it.since)}{who} ({it.reason}): {it.held}{more} held{soon}",
        f"Type `notify resume --{it.kind} {it.name}` once it may go on",
    )


def _troubled(database: Database) -> Iterator[Finding]:
    found = ailing.trouble(database, hours=DEAD_HOURS)
    if found.in_doubt:
        age = f", the oldest for {duration(found.oldest)}" if found.oldest is not None else ""
        yield warning("in doubt", f"{_counted(found.in_doubt)}{age}", "Type `notify in-doubt list`")
    if found.dead:
        yield warning(
            "failed",
            f"{_counted(found.dead)} within {DEAD_HOURS} hours, not sent again",
            f'Type `notify replay --where "since={DEAD_HOURS}h" --dry-run` to see of what, and why',
        )


def _counted(number: int) -> str:
    return f"{number} or more deliveries" if number >= COUNTED else counted(number, "delivery")

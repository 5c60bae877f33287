"""Retention: what is too old goes, once an hour and whenever somebody types `notify purge`; never two at once."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from notify_tasks.settings import Settings
from notify_tasks.store import purging
from notify_tasks.store.database import Database
from notify_tasks.store.purging import Kept, Page

LOCK: Final = 0x7075726765  # "purge"
SLICE_SECONDS: Final = 4.0
"""So long one task works: a sweep on the same queue does not wait for longer."""


@dataclass(slots=True)
class Purged:
    """What was done.

    Args:
        done: rows blanked or deleted, by `purging.PARTS`.
        busy: somebody else is at it, and nothing was done.
        more: the time was over before all was done.
    """

    done: Mapping[str, int] = field(default_factory=dict)
    busy: bool = False
    more: bool = False

    def __str__(self) -> str:
        if self.busy:
            return "another process is at it"
        said = ", ".join(f"{name} {self.done[name]}" for name in purging.PARTS if self.done.get(name))
        return (said or "nothing was too old") + ("; more is" if self.more else "")


def kept(settings: Settings) -> Kept:
    """For how long things are kept: rows for as long as their content, at least."""
    return Kept(settings.content_kept, max(settings.history_kept, settings.content_kept), settings.inbox_kept)


def purge(
    database: Database,
    settings: Settings,
    *,
    seconds: float | None = None,
    told: Callable[[Page], None] = lambda _page: None,
) -> Purged:
    """Blank and delete what is too old.

    Args:
        database: the store.
        settings: say for how long things are kept.
        seconds: it ends after about so many; None does everything.
        told: called after each page.

    Raises:
        DatabaseError: what was done stays done, and the next run goes on.
    """
    with database.alone(LOCK) as mine:
        if not mine:
            return Purged(busy=True)
        begun = time.monotonic()
        done: Counter[str] = Counter()
        for page in purging.pages(database, kept(settings)):
            done[page.part] += page.done
            told(page)
            if seconds is not None and time.monotonic() - begun > seconds:
                return Purged(done, more=True)
        return Purged(done)


def count(database: Database, settings: Settings) -> Purged:
    """What a purge would do now. Rows that it would blank and delete at once are counted as content alone."""
    done: Counter[str] = Counter()
    for page in purging.pages(database, kept(settings), change=False):
        done[page.part] += page.done
    return Purged(done)

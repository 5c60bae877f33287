"""Flushing digests: what is due of them becomes calls, in batches."""

from __future__ import annotations

from typing import Final

from notify_tasks.store import digests
from notify_tasks.store.database import Database

BATCH: Final = 500
"""Digests in one commit."""
BATCHES: Final = 100
"""At most in one go: the rest is the next sweep's."""


def flush(database: Database, *, batches: int = BATCHES) -> int:
    """Make calls of digests that are due, in the intake table.

    Args:
        database: the store.
        batches: commits at most.

    Returns:
        how many calls were made.

    Raises:
        DatabaseError: what was committed before it stays; the next flush goes on.
    """
    made = 0
    for _ in range(batches):
        flushed = digests.flush(database, limit=BATCH)
        made += flushed.calls
        if not flushed.full:
            break
    return made

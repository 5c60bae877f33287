"""Deliveries that have to wait, written down together: one statement for all of a message's."""

from __future__ import annotations

import time
import uuid
from typing import Final

from notify_tasks.store import deliveries
from notify_tasks.store.database import Database

KEPT_SECONDS: Final = 0.5
"""So long at most one is kept back, so that it is written before its time comes."""


class Holds:
    """Collects waits. Whatever is not written is still queued: the sweep finds it.

    Args:
        database: takes them.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waits: list[tuple[uuid.UUID, float, str]] = []
        self._oldest = 0.0

    def add(self, id_: uuid.UUID, wait: float, reason: str) -> None:
        """One has to wait so many seconds from now."""
        now = time.monotonic()
        if not self._waits:
            self._oldest = now
        self._waits.append((id_, now + wait, reason))

    def write_old(self) -> None:
        """Write them if some have been kept for long.

        Raises:
            DatabaseAway: as `write`.
        """
        if self._waits and time.monotonic() - self._oldest > KEPT_SECONDS:
            self.write()

    def write(self) -> None:
        """Write them.

        Raises:
            DatabaseAway: nothing is known to be written; they are kept.
        """
        if not self._waits:
            return
        now = time.monotonic()
        deliveries.hold(
            self._database, [(id_, max(0.0, until - now), reason) for id_, until, reason in self._waits]
        )
        self._waits = []

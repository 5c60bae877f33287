"""Wakes what is due within the next minutes to the moment, where the sweep alone would be some seconds late.

Its thread begins with the first time that it is told, so that each child of a forking pool has its own.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

from notify_tasks.store.database import DatabaseError

logger = logging.getLogger(__name__)

LOOK_EVERY: Final = 0.1
"""Seconds: what is due within one look is woken together."""
HORIZON: Final = 300.0
"""Seconds ahead that are remembered. What is due later, or was given a time by a process that ended, is the sweep's."""


class Alarm:
    """Remembers when rows will be due that this process gave a time.

    Args:
        wake: wakes every row that is due now.
    """

    def __init__(self, wake: Callable[[], object]) -> None:
        self._wake = wake
        self._lock = threading.Lock()
        self._looks: set[int] = set()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def stop(self) -> None:
        """End. What is due after that is the sweep's."""
        self._stop.set()

    def after(self, seconds: float) -> None:
        """A row will be due in so many seconds."""
        if seconds > HORIZON:
            return
        with self._lock:
            self._looks.add(int((time.monotonic() + seconds) / LOOK_EVERY) + 1)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="notify-alarm", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(LOOK_EVERY):
            look = int(time.monotonic() / LOOK_EVERY)
            with self._lock:
                due = {each for each in self._looks if each <= look}
                self._looks -= due
            if not due:
                continue
            try:
                self._wake()
            except DatabaseError:
                continue  # the sweep finds them when the database is back
            except Exception:
                logger.exception("the alarm met a problem and goes on")

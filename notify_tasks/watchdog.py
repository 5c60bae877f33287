"""Ends provider calls that outlive their deadline.

A deadline bounds each round trip by itself; a peer that dribbles, or an SDK with sockets of its own, can
still hold a thread. Five seconds past the deadline the watchdog cuts the socket. If the call hangs on for
five more, the process lets its other threads end and exits, and its supervisor starts another: the lease
ends, the attempt is unknown.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from channels.contract import Deadline

CUT_AFTER: Final = 5.0
GIVE_UP_AFTER: Final = 10.0
LOOK_EVERY: Final = 0.5

logger = logging.getLogger(__name__)


class Watchdog:
    """Watches the calls of this process.

    Args:
        give_up: called once when a call cannot be ended; it should end the process.
    """

    def __init__(self, give_up: Callable[[], None]) -> None:
        self._give_up = give_up
        self._lock = threading.Lock()
        self._calls: dict[int, tuple[Deadline, str]] = {}
        self._cut: dict[int, float] = {}
        self._gave_up = False
        self._thread: threading.Thread | None = None

    @contextmanager
    def watching(self, deadline: Deadline, provider: str) -> Iterator[None]:
        """Watch one call while inside."""
        key = id(deadline)
        with self._lock:
            self._calls[key] = (deadline, provider)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="notify-watchdog", daemon=True)
                self._thread.start()
        try:
            yield
        finally:
            with self._lock:
                self._calls.pop(key, None)
                self._cut.pop(key, None)

    def _run(self) -> None:
        pause = threading.Event()
        while not pause.wait(LOOK_EVERY):
            self._look()

    def _look(self) -> None:
        with self._lock:
            calls = list(self._calls.items())
        for key, (deadline, provider) in calls:
            overdue = deadline.overdue()
            if overdue <= CUT_AFTER:
                continue
            with self._lock:
                # Counted from the cut: a process that was stopped meanwhile gives its calls the time to end,
                # too.
                cut_at = self._cut.setdefault(key, overdue) if key in self._calls else None
            if cut_at == overdue:
                logger.warning(
                    "a call of %s is %.0f s past its deadline: cutting its socket", provider, overdue
                )
                deadline.cut()
            elif cut_at is not None and overdue - cut_at > GIVE_UP_AFTER - CUT_AFTER and not self._gave_up:
                self._gave_up = True
                logger.error("a call of %s cannot be ended: this process exits and is replaced", provider)
                self._give_up()

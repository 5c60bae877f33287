"""The maintenance process's ear: rows that producers commit into `intake` are planned at once."""

from __future__ import annotations

import logging
import threading
from typing import Final

from notify_tasks.intake import Intake
from notify_tasks.store.database import Database, DatabaseError

logger = logging.getLogger(__name__)

POLL_SECONDS: Final = 2.0
"""A row without its NOTIFY, or with one that nobody heard, is found so soon."""
AGAIN_SECONDS: Final = 1.0


class Listener:
    """LISTENs on a connection of its own, and drains the table after each word and every two seconds."""

    def __init__(self, database: Database, intake: Intake) -> None:
        self._database = database
        self._intake = intake
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="notify-listener", daemon=True)

    def start(self) -> None:
        """Begin to listen."""
        self._thread.start()

    def stop(self) -> None:
        """End within two seconds."""
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._listen()
            except DatabaseError as error:
                logger.info(
                    "the intake listener lost the database (%s) and tries again", type(error).__name__
                )
            except Exception:
                logger.exception("the intake listener met a problem and goes on")
            self._stop.wait(AGAIN_SECONDS)

    def _listen(self) -> None:
        with self._database.listening("notify_intake") as word_within:
            while not self._stop.is_set():
                while self._intake.drain():
                    if self._stop.is_set():
                        return
                word_within(POLL_SECONDS)

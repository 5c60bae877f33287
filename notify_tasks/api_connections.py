"""The database connections of a process that reads and changes the fleet's data by API functions.

A process opens up to four, when it first needs one, and lets go of them after a minute without use.
"""

from __future__ import annotations

import atexit
import os
import threading
from typing import Final

from notify_tasks import settings
from notify_tasks.store.database import Database

CONNECTIONS: Final = 4
WAIT_SECONDS: Final = 5.0

_lock: Final = threading.Lock()
_open: tuple[int, str, Database] | None = None


def database() -> Database:
    """The process's own connections: a fork opens its own, and so does another setting.

    Raises:
        NotConfigured: no database is set.
    """
    global _open  # noqa: PLW0603 - opened by whoever needs it first
    url = settings.get().need_database_url()
    with _lock:
        if _open is None or _open[:2] != (os.getpid(), url):
            _close()
            opened = Database(url, connections=CONNECTIONS, wait=WAIT_SECONDS, name="notify-api")
            _open = (os.getpid(), url, opened)
        return _open[2]


def close() -> None:
    """Let go of the connections. The next call opens new ones."""
    with _lock:
        _close()


def _close() -> None:
    global _open  # noqa: PLW0603 - as in `database`
    if _open is not None and _open[0] == os.getpid():
        _open[2].close()
    _open = None


atexit.register(close)

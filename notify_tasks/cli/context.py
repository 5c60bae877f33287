"""What commands work with: the settings, or those of the demo that runs here, and the database."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from notify_tasks import settings
from notify_tasks.demo import running
from notify_tasks.store.database import Database
from notify_tasks.terminal.output import dim, stderr

_SERVERS: Final = ("NOTIFY_BROKER_URL", "NOTIFY_DATABASE_URL")


def find_fleet() -> None:
    """Take the settings of the demo that runs in this folder, where the environment names no server. Says so."""
    if any(os.environ.get(name + ending) for name in _SERVERS for ending in ("", "_FILE")):
        return
    directory = Path(running.DIRECTORY)
    pid = running.runs(directory)
    variables = running.read_environment(directory) if pid is not None else {}
    if not variables:
        return
    for name, value in variables.items():
        os.environ.setdefault(name, value)
    settings.reset()
    stderr().say([dim(f"using the demo that runs in {directory} (process {pid})")])


@contextmanager
def database() -> Iterator[Database]:
    """The fleet's database.

    Raises:
        NotConfigured: none is named.
        DatabaseError: it cannot be used; `entry` says it in words.
    """
    find_fleet()
    opened = Database(settings.get().need_database_url(), connections=2, wait=3.0, name="notify-cli")
    try:
        yield opened
    finally:
        opened.close()

"""Processes that gather and flush until they are killed. Run with the database's URL and a folder of types.

Each line on its input makes one more, by a fork of what is loaded already; its process id is the answer.
"""

from __future__ import annotations

import os
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path

from notify_tasks.store import digests
from notify_tasks.store.database import Database, DatabaseError
from tests.integration.core_shop import shop

LATER = datetime(2100, 1, 1, tzinfo=UTC)


def gather(url: str, root: Path) -> None:
    """Plan what the intake table has, and flush every digest there is, without end."""
    database = Database(url, connections=2)
    with shop(root, database) as desk:
        while True:
            try:
                desk.intake.drain(limit=7)
                digests.flush(database, limit=5, now=LATER)
            except DatabaseError:
                continue


def main() -> None:
    url, root = sys.argv[1], Path(sys.argv[2])
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for _ in sys.stdin:
        pid = os.fork()
        if pid == 0:
            gather(url, root)
            os._exit(1)
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""What the image runs, by its first word; the units under deploy/systemd use it, too.

    worker, beat, flower    Celery's own commands, with what every worker of this fleet has in common
    anything else           the `notify` command line: migrate, sandbox, health, send, status, doctor, ...

It becomes the process that it starts, so that signals reach Celery and nobody stands between.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Final

# Threads, because nearly all of a worker's time is waiting for providers. Workers need no greetings from each other.
WORKER: Final = ("--pool", "threads", "--loglevel", "INFO", "--without-gossip", "--without-mingle")
CELERY: Final[Mapping[str, Sequence[str]]] = {
    "worker": WORKER,
    "beat": ("--loglevel", "INFO"),
    "flower": (),
}


def main(words: Sequence[str]) -> int:
    """Become the process that the words name, or run a command of `notify`.

    Args:
        words: the role and its options; options given win over what is common.

    Returns:
        The exit status of a command.
    """
    role = words[0] if words else "--help"
    if role in CELERY:
        celery = [sys.executable, "-m", "celery", "-A", "notify_tasks"]
        if not sys.stdout.isatty():
            celery.append("--quiet")  # no banner between the lines of a log
        celery += [role, *CELERY[role], *words[1:]]
        os.execv(sys.executable, celery)  # noqa: S606 - no shell is wanted
    from notify_tasks.cli import main as notify  # noqa: PLC0415 - Celery's own commands need none of it

    return notify(words)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""The command line: `notify demo | send | status | cancel | replay | parked | migrate | doctor | ...`.

Each command is a module of this package that is imported when it runs, so that `notify --help` is quick.
Exit status: 0 done, 1 failed, 2 wrongly typed, 130 stopped with Ctrl-C.
"""

from __future__ import annotations

from notify_tasks.cli.entry import main

__all__ = ["main"]

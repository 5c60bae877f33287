"""`notify demo`."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from notify_tasks.demo import story
from notify_tasks.terminal.output import dim, stdout


def run(options: argparse.Namespace) -> int:
    """Run the demo; it stays on a terminal."""
    out = stdout()
    named = [name for name in ("NOTIFY_BROKER_URL", "NOTIFY_DATABASE_URL") if os.environ.get(name)]
    if named and not options.use_environment:
        out.say(
            [dim(f"{' and '.join(named)} left alone: the demo has servers of its own (--use-environment)")]
        )
    return story.run(
        Path(options.directory),
        out,
        stay=out.terminal and not options.once,
        own_servers=not options.use_environment,
    )

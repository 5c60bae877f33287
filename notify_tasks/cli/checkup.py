"""`notify doctor`."""

from __future__ import annotations

import argparse

from notify_tasks import doctor, settings
from notify_tasks.cli.context import find_fleet
from notify_tasks.doctor import Health
from notify_tasks.terminal.output import Span, dim, stderr, stdout

_MARKS = {Health.GOOD: ("✔", "sent"), Health.WARNING: ("◷", "held"), Health.BAD: ("✖", "failed")}


def run(_options: argparse.Namespace) -> int:
    """Examine everything, and say what to do."""
    find_fleet()
    out = stdout()
    wrong = 0
    for finding in doctor.examine(settings.get()):
        mark, colour = _MARKS[finding.health]
        out.say([Span(f"{mark} {finding.about:<11}", colour), f" {finding.text}"])
        if finding.remedy:
            out.say([dim(f"              {finding.remedy}")])
        wrong += finding.health is Health.BAD
    stderr().say(f"notify: {wrong} wrong; each line says what to do" if wrong else "all is well")
    return 1 if wrong else 0

"""`notify doctor`."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from dataclasses import asdict

from notify_tasks import doctor, settings
from notify_tasks.cli.context import find_fleet
from notify_tasks.findings import Health
from notify_tasks.terminal.output import Span, dim, stderr, stdout

_MARKS = {Health.GOOD: ("✔", "sent"), Health.WARNING: ("◷", "held"), Health.BAD: ("✖", "failed")}


def run(options: argparse.Namespace) -> int:
    """Examine everything, and say what to do."""
    find_fleet()
    out = stdout()
    if options.json:
        return _for_machines(options)
    wrong = doubtful = 0
    for finding in doctor.examine(settings.get()):
        mark, colour = _MARKS[finding.health]
        out.say([Span(f"{mark} {finding.about:<11}", colour), f" {finding.text}"])
        if finding.remedy:
            out.say([dim(f"              {finding.remedy}")])
        wrong += finding.health is Health.BAD
        doubtful += finding.health is Health.WARNING
    if wrong:
        stderr().say(f"notify: {wrong} wrong; each line says what to do")
    elif doubtful:
        stderr().say(f"nothing is wrong; {doubtful} to look at")
    else:
        stderr().say("all is well")
    return _status(wrong, doubtful, strict=options.strict)


def _for_machines(options: argparse.Namespace) -> int:
    found = list(doctor.examine(settings.get()))
    for it in found:
        stdout().plain(json.dumps(asdict(it) | {"health": it.health.value}, ensure_ascii=False))
    count = Counter(it.health for it in found)
    return _status(count[Health.BAD], count[Health.WARNING], strict=options.strict)


def _status(wrong: int, doubtful: int, *, strict: bool) -> int:
    return 1 if wrong or (strict and doubtful) else 0

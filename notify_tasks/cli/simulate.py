"""`notify simulate`."""

from __future__ import annotations

import argparse
import json
from datetime import UTC, datetime, timedelta

from notify_tasks import steering
from notify_tasks.cli.context import find_fleet
from notify_tasks.cli.send import call_of, moment
from notify_tasks.simulating import Foreseen, Simulation
from notify_tasks.terminal.looks import counted
from notify_tasks.terminal.output import Span, bold, dim, state, stdout
from notify_tasks.wording import when


def run(options: argparse.Namespace) -> int:
    """Show the plan of a call that is not made."""
    call = call_of(options)
    now = moment("--now", options.now)
    find_fleet()
    at = datetime.now(UTC) + now if isinstance(now, timedelta) else now
    made = steering.simulate(options.event_type, now=at, **call)
    out = stdout()
    if options.json:
        out.plain(json.dumps(made.as_json(), indent=2, ensure_ascii=False))
        return 0 if made.state == "accepted" else 1
    _plan(made)
    return 0 if made.state == "accepted" else 1


def _plan(made: Simulation) -> None:
    out = stdout()
    out.say([bold(made.event_type), dim(f"  called for at {when(made.now)}; nothing is sent or stored")])
    if made.decisions:
        out.table(("to", "channel", "address", "plan", "when", "why"), [_row(it) for it in made.decisions])
        out.say()
    for told in made.sentences:
        out.say(["  ", bold(told.about), ": " if told.about else "", told.text], wrap=True)
    count = counted(len([it for it in made.decisions if it.state in ("queued", "held")]), "delivery")
    out.say([dim(f"{count} would go out")])


def _row(it: Foreseen) -> list[Span | str]:
    going = {"queued": "at once", "held": "later"}.get(it.state, "not at all")
    return [
        it.recipient_id or f"number {it.recipient + 1}",
        it.channel,
        it.address,
        state(it.state),
        when(it.due_at) if it.due_at else going,
        ", ".join(it.reasons),
    ]

"""`notify pause`, `notify resume`."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from datetime import datetime
from difflib import get_close_matches
from pathlib import Path
from typing import Final

from notify_tasks import settings
from notify_tasks.cli import bulk
from notify_tasks.cli.context import database
from notify_tasks.errors import InvalidCall
from notify_tasks.gates import PAUSES_READ_SECONDS
from notify_tasks.routing import CHANNELS, INTAKE, LANES, WORK_QUEUES, queue_for
from notify_tasks.store import pausing
from notify_tasks.store.database import Database
from notify_tasks.store.pausing import COUNTED, KINDS, Pause
from notify_tasks.terminal.looks import NONE, duration
from notify_tasks.terminal.output import Span, bold, dim, stderr, stdout

QUEUES: Final = tuple(queue for queue in WORK_QUEUES if not queue.startswith(queue_for(INTAKE)))
LONGEST_REASON: Final = 200


def pause(options: argparse.Namespace) -> int:
    """Pause what is named, or list what is paused."""
    named = _named(options)
    if options.list:
        if named:
            raise InvalidCall("--list", "it lists every pause", f"Leave out --{named[0][0]}")
        return _list(as_json=options.json)
    if not named:
        raise InvalidCall(
            "pause", "nothing is named", "Write --queue, --type or --tenant with a name, or --list"
        )
    reason = " ".join((options.reason or "").split())
    if not reason:
        raise InvalidCall("--reason", "none is given", 'Write why, for who looks next: --reason "incident 7"')
    if len(reason) > LONGEST_REASON:
        raise InvalidCall("--reason", "it is too long", f"Write {LONGEST_REASON} characters or fewer")
    with database() as store:
        for kind, name in named:
            _check(store, kind, name, unchecked=options.unchecked)
        for kind, name in named:
            pausing.put(store, kind, name, reason=reason, by=bulk.who())
            stdout().say(f"{kind} {name} is paused")
    holds = f"workers hold it within {PAUSES_READ_SECONDS + 1:.0f} s; what is being sent now still goes out"
    stderr().say([dim(f"{holds}. Nothing is lost: `notify resume --{named[0][0]} {named[0][1]}` lets it go")])
    return 0


def resume(options: argparse.Namespace) -> int:
    """End pauses."""
    with database() as store:
        paused = pausing.listed(store)
        named = [(it.kind, it.name) for it in paused] if options.all else _named(options)
        if not named and not options.all:
            raise InvalidCall(
                "resume", "nothing is named", "Write --queue, --type or --tenant with a name, or --all"
            )
        gone = [(kind, name) for kind, name in named if pausing.remove(store, kind, name)]
    for kind, name in gone:
        held = next((it.held for it in paused if (it.kind, it.name) == (kind, name)), 0)
        waits = f": {_held(held)} go within seconds, the high lane first" if held else ""
        stdout().say(f"{kind} {name} goes on{waits}")
    for kind, name in named:
        if (kind, name) not in gone:
            stderr().say(f"notify: {kind} {name} is not paused. Type `notify pause --list` for what is")
    if not named:
        stdout().say("nothing is paused")
    return 0 if len(gone) == len(named) else 1


def _named(options: argparse.Namespace) -> list[tuple[str, str]]:
    named = []
    for kind in KINDS:
        for name in getattr(options, kind) or ():
            # A channel by itself means all its lanes.
            names = (
                [queue_for(name, lane) for lane in LANES] if kind == "queue" and name in CHANNELS else [name]
            )
            named += [(kind, each) for each in names]
    return list(dict.fromkeys(named))


def _check(store: Database, kind: str, name: str, *, unchecked: bool) -> None:
    """A mistyped pause would stop nothing, and nobody would see it.

    Raises:
        InvalidCall: there is nothing of that name.
    """
    if not name.strip() or len(name) > LONGEST_REASON:
        raise InvalidCall(f"--{kind}", "it is no name", f"Write the name of a {kind}")
    if kind == "queue" and name not in QUEUES:
        if name.startswith(queue_for(INTAKE)):
            remedy = "Calls must be kept: pause the queues, types or tenants that they become"
        else:
            remedy = _near(name, (*QUEUES, *CHANNELS)) or f"There are {', '.join(CHANNELS)}"
        raise InvalidCall("--queue", f"{name} cannot be paused", remedy)
    if unchecked:
        return
    if kind == "type":
        types = _types()
        if types and name not in types:
            remedy = _near(name, types) or "Type `notify templates list` for those there are"
            raise InvalidCall(
                "--type", f"there are no templates for {name} here", f"{remedy}, or add --unchecked"
            )
    if kind == "tenant" and not pausing.knows_tenant(store, name):
        raise InvalidCall("--tenant", f"nothing was sent for {name} lately", "Correct it, or add --unchecked")


def _types() -> list[str]:
    folder = Path(settings.get().templates)
    return sorted(it.parent.name for it in folder.glob("*/notification.toml"))


def _near(name: str, known: tuple[str, ...] | list[str]) -> str:
    near = get_close_matches(name, known, n=1, cutoff=0.6)
    return f"Did you mean {near[0]}?" if near else ""


def _held(number: int) -> str:
    return f"{number} or more deliveries" if number >= COUNTED else f"{number} deliveries"


def _list(*, as_json: bool) -> int:
    with database() as store:
        paused = pausing.listed(store)
    if as_json:
        stdout().plain(json.dumps([asdict(it) | {"since": it.since.isoformat()} for it in paused], indent=2))
        return 0
    if not paused:
        stdout().say("nothing is paused")
        return 0
    now = bulk.now()
    stdout().table(
        ("", "name", "for", "by", "held", "expire in 1 h", "why"), [_row(it, now) for it in paused]
    )
    stderr().say([dim("`notify resume --queue NAME`, --type, --tenant or --all lets them go")])
    return 0


def _row(it: Pause, now: datetime) -> tuple[Span | str, ...]:
    more = "+" if it.held >= COUNTED else ""
    return (
        it.kind,
        bold(it.name),
        duration(max(0.0, (now - it.since).total_seconds())),
        it.by or NONE,
        f"{it.held}{more}",
        str(it.expiring or ""),
        it.reason,
    )

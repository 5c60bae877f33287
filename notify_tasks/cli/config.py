"""`notify config show | check | reference`."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence

from notify_tasks import settings
from notify_tasks.cli.context import find_fleet
from notify_tasks.configuration.model import Configuration
from notify_tasks.configuration.origins import BadConfiguration, Problem, nearest
from notify_tasks.configuration.reference import markdown
from notify_tasks.configuration.showing import rows
from notify_tasks.errors import InvalidCall
from notify_tasks.providers import NoInbox, Pools
from notify_tasks.reloading import load
from notify_tasks.routing import CHANNELS
from notify_tasks.terminal.looks import counted
from notify_tasks.terminal.output import Span, bold, dim, stderr, stdout


def show(options: argparse.Namespace) -> int:
    """Show every value and where it comes from."""
    find_fleet()
    described = settings.describe(settings.get(), os.environ)
    try:
        configuration = load(settings.get())
    except BadConfiguration:
        if not options.json:
            _settings(described)
        raise
    found = list(rows(configuration, os.environ))
    if options.json:
        document = [
            *({"key": it.name, "value": it.value, "source": it.source, "line": None} for it in described),
            *(
                {"key": it.key, "value": it.value, "source": it.origin.source, "line": it.origin.line}
                for it in found
            ),
        ]
        stdout().plain(json.dumps(document, indent=2, ensure_ascii=False))
        return 0
    _settings(described)
    for title, table in (("providers", "providers."), ("channels", "channels.")):
        stdout().say()
        stdout().say([bold(title)])
        _rows([(it.key, it.value, str(it.origin)) for it in found if it.key.startswith(table)])
    return 0


def _settings(described: Sequence[settings.Described]) -> None:
    stdout().say([bold("settings")])
    _rows([(it.name, it.value or "not set", it.source) for it in described])


def _rows(found: Sequence[tuple[str, str, str]]) -> None:
    quiet = {"not set", "none"}
    stdout().table(
        ("key", "value", "from"),
        [
            (
                key,
                dim(value)
                if value in quiet
                else Span(value, "failed")
                if value.endswith("(not set)")
                else value,
                dim(source) if source == "default" else source,
            )
            for key, value, source in found
        ],
    )


def check(options: argparse.Namespace) -> int:
    """Say everything that is wrong."""
    find_fleet()
    channels = _channels(options)
    for wrong, right in settings.misspelt(os.environ):
        _say("◷", "held", f"{wrong}: there is no such setting", f"Did you mean {right}?")
    try:
        configuration = load(settings.get())
        problems: Sequence[Problem] = _unfit(configuration, channels)
    except BadConfiguration as error:
        configuration, problems = None, error.problems
    for problem in problems:
        _say("✖", "failed", f"{problem.origin}: {problem.about}", problem.remedy)
    for surprise in () if configuration is None else configuration.warnings:
        _say("◷", "held", f"{surprise.origin}: {surprise.about}", surprise.remedy)
    if configuration is None or problems:
        stderr().say(
            f"notify: {counted(len(problems), 'problem')}; a worker would not start, or keep what it has"
        )
        return 1
    read = [*map(str, configuration.files), *configuration.variables]
    unread = " (secrets and options were not looked at)" if options.files_only else ""
    stdout().say([Span("✔ ", "sent"), f"in order: {', '.join(read)}{unread}"])
    return 0


def _channels(options: argparse.Namespace) -> Sequence[str]:
    for name in options.channel or ():
        if name not in CHANNELS:
            raise InvalidCall("--channel", f"there is no channel {name!r}", nearest(name, CHANNELS))
    return () if options.files_only else options.channel or CHANNELS


def _unfit(configuration: Configuration, channels: Sequence[str]) -> list[Problem]:
    pools = Pools(configuration, inbox=NoInbox())
    try:
        return pools.problems(channels)
    finally:
        pools.close()


def _say(mark: str, colour: str, text: str, remedy: str) -> None:
    stdout().say([Span(f"{mark} ", colour), text])
    stdout().say([dim(f"  {remedy}")])


def reference(_options: argparse.Namespace) -> int:
    """Print the table of every setting."""
    stdout().plain(markdown())
    return 0

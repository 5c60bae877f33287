"""`notify templates new | check | list`."""

from __future__ import annotations

import argparse
from pathlib import Path

from notify_tasks import settings
from notify_tasks.rendering import BrokenType, Catalog
from notify_tasks.templates_check import check as check_types
from notify_tasks.templates_new import create
from notify_tasks.terminal.looks import counted
from notify_tasks.terminal.output import Span, dim, stderr, stdout


def _root() -> Path:
    return Path(settings.get().templates)


def check(options: argparse.Namespace) -> int:
    """Check every type, or one."""
    root = _root()
    problems = check_types(root, options.type)
    out = stdout()
    for problem in problems:
        out.say([Span("✖ ", "failed"), str(problem)])
    if problems:
        stderr().say(f"notify: {counted(len(problems), 'problem')} in {root}")
        return 1
    names = [options.type] if options.type else Catalog(root).names()
    out.say([Span("✔ ", "sent"), f"{counted(len(names), 'type')} in order: {', '.join(names)}"])
    return 0


def new(options: argparse.Namespace) -> int:
    """Make the folder of a new type, and say what to do with it."""
    root = _root()
    channels = [name.strip() for given in options.channels or ["email"] for name in given.split(",")]
    files = create(root, options.type, channels=channels, locales=options.locale or ())
    home = root / options.type
    out = stdout()
    out.say([Span("✔ ", "sent"), f"{home} has {counted(len(files), 'file')}:"])
    for file in files:
        out.say(f"  {file.relative_to(home)}")
    out.say()
    out.say("next:")
    for command, why in (
        (f"$EDITOR {home / 'notification.toml'}", "what a producer sends, where it goes"),
        (f"notify templates check {options.type}", "after each edit"),
        (f"notify templates preview {options.type}", "as people will get it"),
        (f"notify send {options.type} --to user-42 --payload @{home / 'example.json'}", "no restart needed"),
    ):
        out.say([f"  {command}", dim(f"  # {why}")])
    return 0


def show(_options: argparse.Namespace) -> int:
    """List the types."""
    catalog = Catalog(_root())
    rows: list[list[Span | str]] = []
    broken = 0
    for name in catalog.names():
        try:
            loaded = catalog.get(name)
        except BrokenType as error:
            broken += 1
            rows.append(
                [name, Span("✖ broken", "failed"), "", "", dim(f"{counted(len(error.problems), 'problem')}")]
            )
            continue
        if loaded is not None:
            policy = loaded.policy
            locales = ", ".join(["default", *loaded.locales.values()])
            others = [it for it in loaded.available if it not in policy.channels]
            named = [" and ".join(step.channels) for step in policy.steps]
            channels = (", then ".join(named) or ", ".join(policy.channels)) + (
                f" (also {', '.join(others)})" if others else ""
            )
            rows.append([name, Span("● in order", "sent"), policy.lane, channels, dim(locales)])
    if not rows:
        stderr().say(
            f"notify: there is no type in {_root()}. Add a folder with a notification.toml, or set NOTIFY_TEMPLATES"
        )
        return 1
    stdout().table(("type", "", "lane", "channels", "locales"), rows)
    if broken:
        stderr().say("notify: type `notify templates check` for what is broken")
    return 1 if broken else 0

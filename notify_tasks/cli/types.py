"""`notify templates check | preview | list`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from notify_tasks import settings
from notify_tasks.rendering import BrokenType, Catalog
from notify_tasks.templates_check import check as check_types
from notify_tasks.templates_check import preview as preview_type
from notify_tasks.terminal.looks import counted
from notify_tasks.terminal.output import Span, bold, dim, stderr, stdout


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


def preview(options: argparse.Namespace) -> int:
    """Show a type with its example."""
    shown = preview_type(_root(), options.type, options.channel, options.locale)
    out = stdout()
    if options.json:
        out.plain(json.dumps(shown, indent=2, ensure_ascii=False))
        return 0
    out.say([bold(options.type), dim(f"  version {shown['version']}")])
    for channel, parts in shown["channels"].items():
        out.say()
        out.say([bold(channel), dim(f"  locale {parts['locale']}")])
        for name, value in parts.items():
            if name == "html" and value is not None:
                out.say([dim(f"  html     {len(value.encode())} bytes; --json has it")])
            elif name != "locale" and value is not None:
                _part(name, value)
    return 0


def _part(name: str, value: Any) -> None:
    text = value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)
    first, *rest = text.rstrip("\n").split("\n")
    out = stdout()
    out.say([dim(f"  {name:<8} "), first])
    for line in rest:
        out.say(f"           {line}".rstrip())


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
            channels = ", ".join(policy.channels) + (f" (also {', '.join(others)})" if others else "")
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

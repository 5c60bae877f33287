"""The whole command line, put together from its groups of commands. Imports nothing but argparse's kin."""

from __future__ import annotations

import argparse
import sys
from difflib import get_close_matches
from typing import Any, Final, NoReturn

from notify_tasks.cli import (
    commands_authoring,
    commands_explaining,
    commands_operating,
    commands_preferring,
    commands_reaching,
    commands_receiving,
    commands_recurring,
    commands_sending,
    commands_steering,
)
from notify_tasks.cli.grammar import PROGRAM, Help, Parser

SUMMARY: Final = """\
Send notifications, see what became of them, and look after the fleet that carries them.

The fleet is named by NOTIFY_BROKER_URL (Redis) and NOTIFY_DATABASE_URL (PostgreSQL). Where neither is set and
a demo runs in this folder, the commands speak to the demo.
"""
EXAMPLES: Final = """\
start here:
  notify demo                                          a whole fleet on this machine
  notify send order.shipped --to user-42 --payload '{"order_id": 981}'
  notify status 0192f0c1-7a55-7d51-9c2e-4f0f0c1a7a55   what became of it

Each command has examples: `notify send --help`.
"""

_IN_ORDER: Final = (
    *("demo", "send", "simulate", "status", "explain", "reschedule", "cancel", "replay"),
    *("recipients", "devices", "endpoints", "preferences"),
    *("suppressions", "schedules", "receipts", "parked", "templates"),
    *("top", "doctor", "pause", "resume", "in-doubt", "purge", "erase"),
    *("config", "providers", "migrate", "health", "gateway", "exporter", "sandbox"),
)
_ADD: Final = {
    **commands_sending.ADD,
    **commands_authoring.ADD,
    **commands_explaining.ADD,
    **commands_preferring.ADD,
    **commands_reaching.ADD,
    **commands_receiving.ADD,
    **commands_recurring.ADD,
    **commands_operating.ADD,
    **commands_steering.ADD,
}


def build() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    parser = Parser(
        prog=PROGRAM,
        description=SUMMARY,
        epilog=EXAMPLES,
        formatter_class=Help,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="say which version this is")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=Parser)
    for name in _IN_ORDER:
        _ADD[name](commands)
    return parser


def check_name(parser: argparse.ArgumentParser, name: str) -> None:
    """Say of a mistyped command which one was meant."""
    names = next(list(it.choices) for it in parser._actions if isinstance(it.choices, dict))  # noqa: SLF001 - no other way
    if name.startswith("-") or name in names:
        return
    near = get_close_matches(name, names, n=1)
    remedy = f"Did you mean `{PROGRAM} {near[0]}`?" if near else f"There are {', '.join(names)}"
    sys.stderr.write(f"{PROGRAM}: there is no command {name!r}. {remedy}\n")
    raise SystemExit(2)


class _Version(argparse.Action):
    def __call__(self, *_: Any) -> NoReturn:
        from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415 - slow, and seldom asked

        try:
            number = version("notify-tasks")
        except PackageNotFoundError:
            number = "of a checkout that is not installed"
        sys.stdout.write(f"notify-tasks {number}\n")
        raise SystemExit(0)

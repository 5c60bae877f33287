"""How the command line is written: help that teaches by examples, errors of one line. Imports only argparse's kin."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Callable
from textwrap import dedent, indent
from typing import Any, Final, NoReturn

PROGRAM: Final = "notify"
TENANT: Final = "default"
DIRECTORY: Final = ".notify"
LONGEST_COMMAND: Final = len("suppressions")
WIDEST: Final = 110
"""Columns of help at most, however wide the terminal."""

Commands = Any
"""argparse's own class for it is private."""


class Help(argparse.RawDescriptionHelpFormatter):
    """Texts as they are written, and options in one column wide enough for all of them."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=26, width=min(shutil.get_terminal_size().columns, WIDEST))
        self._action_max_length = LONGEST_COMMAND + 4  # it forgets that commands are indented twice


class Parser(argparse.ArgumentParser):
    """argparse with errors of one line that say what to type next."""

    def error(self, message: str) -> NoReturn:
        sys.stderr.write(f"{PROGRAM}: {message}. Type `{self.prog} --help` for how it is written\n")
        raise SystemExit(2)


def command(
    commands: Commands, name: str, run: str, short: str, text: str = "", examples: str = ""
) -> argparse.ArgumentParser:
    """Add a command.

    Args:
        commands: what to add it to.
        name: as it is typed.
        run: `module:function` of `notify_tasks.cli`, imported when it runs.
        short: one line, without a full stop.
        text: what else its help says.
        examples: ready to be typed.
    """
    made: argparse.ArgumentParser = commands.add_parser(
        name,
        help=short,
        description=f"{short[0].upper()}{short[1:]}.\n\n{dedent(text)}".strip(),
        epilog="examples:\n" + indent(dedent(examples).rstrip(), "  ") if examples else None,
        formatter_class=Help,
        allow_abbrev=False,
    )
    made.set_defaults(run=run)
    return made


def group(
    commands: Commands, name: str, short: str, text: str, adders: tuple[Callable[[Commands], None], ...]
) -> None:
    """Add a command that has commands of its own."""
    made = command(commands, name, "", short, text)
    inner = made.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=Parser)
    for add in adders:
        add(inner)


def tenant(parser: argparse.ArgumentParser) -> None:
    """Add the option that says whose it is."""
    parser.add_argument("--tenant", default=TENANT, metavar="NAME", help="whose it is (default: %(default)s)")

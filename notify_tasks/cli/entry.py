"""Reads the command line, runs the command, and turns errors into one line with its remedy."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from typing import Final

from notify_tasks.cli.grammar import PROGRAM
from notify_tasks.cli.parser import build, check_name
from notify_tasks.errors import InvalidCall, MaybeAccepted, NotConfigured, NotifyError
from notify_tasks.terminal.output import Span, stderr

DONE: Final = 0
FAILED: Final = 1
MISTYPED: Final = 2
STOPPED: Final = 130
"""As a shell reports SIGINT."""

Command = Callable[[argparse.Namespace], int]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: without the program's name; the process's own by default.

    Returns:
        The exit status.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        parser = build()
        if not given:
            parser.print_help(sys.stderr)
            return MISTYPED
        check_name(parser, given[0])
        return _run(parser.parse_args(given))
    except SystemExit as leaving:  # argparse: 0 after --help, 2 after a mistake
        return int(leaving.code or 0)
    except KeyboardInterrupt:
        return STOPPED
    except BrokenPipeError:  # the reader has seen enough: `notify status ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE


def _run(options: argparse.Namespace) -> int:
    module, _, function = options.run.partition(":")
    try:
        command: Command = getattr(importlib.import_module(f"notify_tasks.cli.{module}"), function)
        status = command(options)
        sys.stdout.flush()
    except (BrokenPipeError, KeyboardInterrupt):
        raise
    except Exception as error:
        sentence = _in_words(error)
        if sentence is None:  # a fault of ours, which only a traceback helps to mend
            raise
        stderr().say([Span(f"{PROGRAM}: ", "failed"), sentence])
        return MISTYPED if isinstance(error, InvalidCall) else FAILED
    return status


def _in_words(error: Exception) -> str | None:
    """What is wrong and what to type, in one line; None for what should not happen."""
    match error:
        case MaybeAccepted(message_id=id_):
            again = f"type the same again with --id {id_}: it is sent once either way"
            return f"{str(error).partition(';')[0]}; {again}"
        case NotConfigured() if any(name in str(error) for name in SERVERS):
            return f"{error}. To try it here, type `{PROGRAM} demo` in another terminal"
        case NotifyError():
            return str(error)
        case ModuleNotFoundError():
            return _missing(error)
    return _database(error)


def _missing(error: ModuleNotFoundError) -> str:
    name = (error.name or "").partition(".")[0]
    if name == "channels":
        return "this command needs the repository: type it in its folder, or set PYTHONPATH to it"
    return f"this command needs {name}, which is not installed: pip install 'notify-tasks[worker,gateway,embedded]'"


SERVERS: Final = ("NOTIFY_BROKER_URL", "NOTIFY_DATABASE_URL")
UNDEFINED: Final = ("3F000", "42P01", "42703", "42883")
"""SQLSTATE of what an older schema does not have: schema, table, column, function."""


def _database(error: Exception) -> str | None:
    """A sentence for an error of the store, None for any other."""
    store = sys.modules.get("notify_tasks.store.database")
    if store is None or not isinstance(error, store.DatabaseError):
        return None
    if getattr(error, "sqlstate", None) in UNDEFINED:
        return f"the database has no schema that fits: type `{PROGRAM} migrate`"
    from notify_tasks import settings  # noqa: PLC0415 - only where something failed
    from notify_tasks.store.reachable import why_away  # noqa: PLC0415 - as above

    url = settings.get().database_url
    return (why_away(url) if url else None) or f"{error}; look at its log and type it again"

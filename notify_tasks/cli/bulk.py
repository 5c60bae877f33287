"""What commands that change many deliveries share: who asks, whether it is meant, how far it is."""

from __future__ import annotations

import argparse
import getpass
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Final, Protocol

from notify_tasks import settings
from notify_tasks.errors import InvalidCall
from notify_tasks.store.selecting import Group
from notify_tasks.store.sweeps import Wake
from notify_tasks.terminal.looks import NONE
from notify_tasks.terminal.output import dim, state, stderr, stdout

YES: Final = ("y", "yes")
SHOWN: Final = 50
"""Groups that are listed at most."""


def who() -> str:
    """Who types: `user@host`."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a container whose user has no name
        user = "unknown"
    return f"{user}@{socket.gethostname()}"


def now() -> datetime:
    """The present, in UTC."""
    return datetime.now(UTC)


def agreed(options: argparse.Namespace, question: str, option: str) -> bool:
    """Whether it is meant: `--yes`, or a yes on the terminal.

    Raises:
        InvalidCall: there is neither.
    """
    if options.yes:
        return True
    if not sys.stdin.isatty():
        raise InvalidCall(
            option, "there is no terminal to ask whether it is meant", "Add --yes, or --dry-run"
        )
    sys.stderr.write(f"{question} Type yes to go on: ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in YES


def show(groups: Sequence[Group]) -> None:
    """List groups of deliveries."""
    stdout().table(
        ("deliveries", "", "type", "channel", "provider", "code", "replayed", "content gone"),
        [
            (
                f"{it.count:>10}",
                state(it.state),
                it.event_type,
                it.channel,
                it.provider or NONE,
                (it.code or NONE)[:40],
                str(it.replayed or ""),
                str(it.gone or ""),
            )
            for it in groups[:SHOWN]
        ],
    )
    if len(groups) > SHOWN:
        stderr().say([dim(f"and {len(groups) - SHOWN} groups more: narrow it to see them")])


class Progress(Protocol):
    """Told of work done."""

    def __call__(self, done: int) -> None:
        """So many more are done."""


@contextmanager
def progress(what: str, total: int | None) -> Iterator[Progress]:
    """A bar with rate and estimate on a terminal; nothing elsewhere.

    Args:
        what: is counted.
        total: of it; None where nobody knows.
    """
    out = stderr()
    if not out.terminal:
        yield lambda done: None  # noqa: ARG005 - nobody looks
        return
    from rich.progress import (  # noqa: PLC0415 - only where there is a terminal
        BarColumn,
        MofNCompleteColumn,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as Bar  # noqa: PLC0415 - as above

    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bar(*columns, console=out.console, transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.advance(task, done)


class Waker:
    """Publishes wake-ups at best effort over one connection. What does not arrive, the sweep finds."""

    def __init__(self) -> None:
        from notify_tasks.broker import Broker  # noqa: PLC0415 - a third of a second to import
        from notify_tasks.fleet import BROKER_SECONDS, Publisher  # noqa: PLC0415 - as above

        url = settings.get().broker_url
        self._publisher = None if url is None else Publisher(Broker(url, timeout=BROKER_SECONDS))

    def __call__(self, wakes: Sequence[Wake]) -> None:
        if wakes and self._publisher is not None:
            self._publisher.wake(wakes)

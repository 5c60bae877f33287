"""`notify top`."""

from __future__ import annotations

import argparse
import json
import os
import select
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from notify_tasks import settings
from notify_tasks.cli import board
from notify_tasks.cli.context import find_fleet
from notify_tasks.errors import InvalidCall
from notify_tasks.overview import RATE_SECONDS, Watch
from notify_tasks.terminal.output import Output, stdout

PATIENCE: Final = 10.0
"""Seconds to wait for a first word."""
QUIT: Final = (b"q", b"Q", b"\x03")
LEAST: Final = 0.2


def run(options: argparse.Namespace) -> int:
    """Watch until somebody has seen enough, or write one snapshot."""
    if not LEAST <= options.every <= RATE_SECONDS:
        raise InvalidCall(
            "--every", f"{options.every:g} is out of range", f"Write {LEAST} to {RATE_SECONDS:g} seconds"
        )
    find_fleet()
    out = stdout()
    watch = Watch(settings.get(), every=options.every, prefix=options.key_prefix)
    try:
        if options.once or options.json or not out.terminal:
            return _once(watch, out, as_json=options.json)
        return _live(watch, out, options.every)
    finally:
        watch.close()


def _once(watch: Watch, out: Output, *, as_json: bool) -> int:
    seen = watch.look(patience=PATIENCE)
    if as_json:
        out.plain(json.dumps(board.plain(seen), indent=2, ensure_ascii=False))
    else:
        for line in board.lines(seen):
            out.plain(line)
    return 1 if seen.redis or seen.postgres else 0


def _live(watch: Watch, out: Output, every: float) -> int:
    from rich.live import Live  # noqa: PLC0415 - only where there is a terminal

    with (
        _keys() as pressed,
        Live(console=out.console, screen=True, auto_refresh=False, vertical_overflow="crop") as live,
    ):
        patience = PATIENCE
        while True:
            live.update(board.drawn(watch.look(patience=min(patience, every)), out, every), refresh=True)
            patience = 0.0
            if pressed(every) in QUIT:
                return 0


@contextmanager
def _keys() -> Iterator[Callable[[float], bytes]]:
    """Inside, keys come as they are pressed: a function that waits so many seconds for one."""
    if not sys.stdin.isatty():

        def nobody(seconds: float) -> bytes:
            time.sleep(seconds)
            return b""

        yield nobody
        return
    import termios  # noqa: PLC0415 - not on every system
    import tty  # noqa: PLC0415 - as above

    number = sys.stdin.fileno()
    before = termios.tcgetattr(number)
    try:
        tty.setcbreak(number)  # Ctrl-C still ends it

        def pressed(seconds: float) -> bytes:
            ready, _, _ = select.select([number], [], [], seconds)
            return os.read(number, 1) if ready else b""

        yield pressed
    finally:
        termios.tcsetattr(number, termios.TCSADRAIN, before)

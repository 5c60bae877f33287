"""A far end as a process: its arguments, its one line when it is ready, and its end."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import stat
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from pathlib import Path

from notify_tasks.sandbox.ready import Ready
from notify_tasks.sandbox.server import SandboxServer

Beside = Callable[[SandboxServer, Ready], AbstractAsyncContextManager[Ready]]
"""What runs beside a started server, on its loop; it may complete what is said about where things listen."""


def parser(prog: str, description: str | None) -> argparse.ArgumentParser:
    """The arguments of every far end; `SandboxServer` tells what they mean."""
    made = argparse.ArgumentParser(
        prog=prog, description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument(
        "--directory", type=Path, required=True, help="takes requests.jsonl, ca.pem and the accounts' files"
    )
    made.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    made.add_argument("--name", help="by which clients call it (the host)")
    for name in ("smtp", "http", "https", "control"):
        made.add_argument(f"--{name}-port", type=int, default=0, help="0: a free one")
    made.add_argument(
        "--hooks",
        metavar="URL",
        help="of the fleet's gateway, which receipts go to: http://127.0.0.1:8080/hooks",
    )
    made.add_argument("--seed", type=int, help="of the draws for modes with a rate")
    return made


def run(server: SandboxServer, beside: Beside = lambda _, ready: nullcontext(ready)) -> int:
    """Run until SIGTERM or SIGINT, or until the pipe on stdin ends, which it does when the starter dies.

    Returns:
        an exit status.
    """
    try:
        asyncio.run(_run(server, beside))
    except OSError as error:
        sys.stderr.write(f"the sandbox cannot start: {error}\n")
        return 1
    return 0


async def _run(server: SandboxServer, beside: Beside) -> None:
    over = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, over.set)
    started = await server.start(os.getpid())
    try:
        async with beside(server, started) as ready:
            sys.stdout.write(ready.line() + "\n")
            sys.stdout.flush()
            if stat.S_ISFIFO(os.fstat(sys.stdin.fileno()).st_mode):
                loop.add_reader(sys.stdin.fileno(), _watch, over)
            await over.wait()
    finally:
        await server.stop()


def _watch(over: asyncio.Event) -> None:
    if not os.read(sys.stdin.fileno(), 4096):
        asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
        over.set()

"""Start the far end of the wire, and say where it listens in one line of JSON."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import stat
import sys
from collections.abc import Sequence
from pathlib import Path

from notify_tasks.sandbox.server import SandboxServer


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until SIGTERM or SIGINT, or until the pipe on stdin ends, which it does when the starter dies."""
    parser = argparse.ArgumentParser(prog="python -m notify_tasks.sandbox", description=__doc__)
    parser.add_argument("--directory", type=Path, required=True, help="takes requests.jsonl and ca.pem")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    parser.add_argument("--smtp-port", type=int, default=0, help="0: a free one")
    parser.add_argument("--http-port", type=int, default=0, help="0: a free one")
    parser.add_argument("--control-port", type=int, default=0, help="0: a free one")
    parser.add_argument("--seed", type=int, help="of the draws for modes with a rate")
    options = vars(parser.parse_args(arguments))
    try:
        asyncio.run(_run(SandboxServer(options.pop("directory"), **options)))
    except OSError as error:
        sys.stderr.write(f"the sandbox cannot start: {error}\n")
        return 1
    return 0


async def _run(server: SandboxServer) -> None:
    over = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, over.set)
    ready = await server.start(os.getpid())
    try:
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


if __name__ == "__main__":
    sys.exit(main())

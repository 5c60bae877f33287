"""Start the far end of the wire with the page that shows what arrives, and say where in one line of JSON.

It is a tool for developers. The page has no password: it listens on loopback unless --host says otherwise.
NOTIFY_DATABASE_URL (or NOTIFY_DATABASE_URL_FILE, a file that may come later) names the fleet's database, for states,
timelines and in-app messages.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Final

from notify_tasks.sandbox.kept import Kept
from notify_tasks.sandbox.ready import Ready
from notify_tasks.sandbox.running import parser, run
from notify_tasks.sandbox.server import SandboxServer

PAGE_PORT: Final = 8025


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until SIGTERM or SIGINT, or until the pipe on stdin ends."""
    try:
        from notify_tasks.pages.sandbox_page import SandboxPage  # noqa: PLC0415 - to say what to install
        from notify_tasks.pages.serving import PageServer, listen  # noqa: PLC0415 - as above
    except ModuleNotFoundError as missing:
        extras = "notify-tasks[worker,gateway,embedded]"
        sys.stderr.write(f"the page needs {missing.name}, which is not installed: pip install '{extras}'\n")
        return 1
    made = parser("python -m notify_tasks.pages", __doc__)
    made.add_argument(
        "--page-port", type=int, help=f"0: a free one (default: {PAGE_PORT}, or a free one if that is taken)"
    )
    made.add_argument(
        "--page-host",
        action="append",
        default=[],
        metavar="NAME",
        help="a name under which browsers may ask for the page, beside localhost and IP addresses; may be repeated",
    )
    options = vars(made.parse_args(arguments))
    port, hosts = options.pop("page_port"), tuple(options.pop("page_host"))

    @asynccontextmanager
    async def beside(server: SandboxServer, ready: Ready) -> AsyncIterator[Ready]:
        wished = {"wished": PAGE_PORT} if port is None else {"port": port}
        page = SandboxPage(server, ready)
        serving = PageServer(page.application(hosts), listen(ready.host, **wished))
        await serving.start()
        try:
            async with page.watching():
                yield replace(ready, page_url=serving.url)
        finally:
            await serving.stop()

    return run(SandboxServer(options.pop("directory"), kept=Kept(), **options), beside)


if __name__ == "__main__":
    sys.exit(main())

"""Start the far end of the wire, and say where it listens in one line of JSON."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from notify_tasks.sandbox.running import parser, run
from notify_tasks.sandbox.server import SandboxServer


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until SIGTERM or SIGINT, or until the pipe on stdin ends."""
    options = vars(parser("python -m notify_tasks.sandbox", __doc__).parse_args(arguments))
    return run(SandboxServer(options.pop("directory"), **options))


if __name__ == "__main__":
    sys.exit(main())

"""`notify sandbox`."""

from __future__ import annotations

import argparse
import signal
from pathlib import Path
from types import FrameType
from typing import Any

from notify_tasks.cli.context import find_fleet
from notify_tasks.embedded import EmbeddedError
from notify_tasks.sandbox import sandbox_process
from notify_tasks.terminal.output import bold, stdout


def run(options: argparse.Namespace) -> int:
    """Run a sandbox until Ctrl-C or SIGTERM."""
    directory = Path(options.directory)
    find_fleet()
    given: dict[str, Any] = {
        f"{name}_port": getattr(options, f"{name}_port") for name in ("smtp", "http", "control")
    }
    given["host"] = options.host
    if options.page_port is not None:
        given["page_port"] = options.page_port
    signal.signal(signal.SIGTERM, _end)
    out = stdout()
    try:
        with sandbox_process(directory, page=True, **given) as sandbox:
            ready = sandbox.ready
            out.say([bold(f"open {ready.page_url}"), " to see what arrives; Ctrl-C ends it"])
            out.say(f"  SANDBOX_SMTP_URL={ready.smtp_url}")
            out.say(f"  SANDBOX_CA_FILE={Path(ready.ca_file).absolute()}")
            out.say(f"  SANDBOX_HTTP_URL={ready.http_url}")
            out.say(f"  log      {Path(ready.log_path).absolute()}, one line a request")
            out.say(
                "  trouble  curl -X PUT "
                f'{ready.control_url}/control/modes/smtp -d \'{{"mode": "slow", "delay": 3}}\''
            )
            status = sandbox.wait()
            raise EmbeddedError(
                f"the sandbox ended by itself with status {status}; its log says why: {directory}"
            )
    except KeyboardInterrupt:
        out.say("stopped")
    except RuntimeError as error:
        raise EmbeddedError(str(error)) from None
    return 0


def _end(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt

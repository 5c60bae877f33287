"""`notify sandbox`."""

from __future__ import annotations

import argparse
import signal
from pathlib import Path
from types import FrameType

from notify_tasks.embedded import EmbeddedError
from notify_tasks.sandbox import sandbox_process
from notify_tasks.terminal.output import bold, stdout


def run(options: argparse.Namespace) -> int:
    """Run a sandbox until Ctrl-C or SIGTERM."""
    directory = Path(options.directory)
    ports = {f"{name}_port": getattr(options, f"{name}_port") for name in ("smtp", "http", "control")}
    signal.signal(signal.SIGTERM, _end)
    out = stdout()
    try:
        with sandbox_process(directory, **ports) as sandbox:
            ready = sandbox.ready
            out.say([bold("the far end is up"), "; Ctrl-C ends it"])
            out.say(f"  SANDBOX_SMTP_URL={ready.smtp_url}")
            out.say(f"  SANDBOX_CA_FILE={Path(ready.ca_file).absolute()}")
            out.say(f"  SANDBOX_HTTP_URL={ready.http_url}")
            out.say(f"  log      {Path(ready.log_path).absolute()}, one line a request")
            out.say(
                "  trouble  curl -X PUT "
                f'{ready.control_url}/control/modes/smtp -d \'{{"mode": "slow", "delay": 3}}\''
            )
            signal.pause()
    except KeyboardInterrupt:
        out.say("stopped")
    except RuntimeError as error:
        raise EmbeddedError(str(error)) from None
    return 0


def _end(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt

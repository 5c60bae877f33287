"""`notify sandbox`."""

from __future__ import annotations

import argparse
import shlex
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any, Final

from notify_tasks.cli.context import find_fleet
from notify_tasks.embedded import EmbeddedError
from notify_tasks.sandbox import sandbox_process
from notify_tasks.terminal.output import bold, stdout

ENV_NAME: Final = "sandbox.env"
"""What is printed, as a file for a shell."""
_GROUPS: Final = (
    (
        "where it is; none of what follows is a secret",
        ("SANDBOX_SMTP_", "SANDBOX_BOUNCE_", "SANDBOX_CA_", "SANDBOX_HTTP_", "SANDBOX_URL"),
    ),
    ("email.sendgrid", ("SANDBOX_SENDGRID_",)),
    ("sms.twilio", ("SANDBOX_TWILIO_",)),
    ("sms.aliyun", ("SANDBOX_ALIYUN_",)),
    ("push.fcm", ("SANDBOX_FCM_",)),
    ("webpush.vapid", ("SANDBOX_VAPID_",)),
    ("webhook.standard", ("SANDBOX_WEBHOOK_",)),
    *(
        (f"chat.{name}", (f"SANDBOX_{name.upper()}_",))
        for name in ("slack", "teams", "dingtalk", "feishu", "wecom")
    ),
)


def run(options: argparse.Namespace) -> int:
    """Run a sandbox until Ctrl-C or SIGTERM."""
    directory = Path(options.directory)
    find_fleet()
    given: dict[str, Any] = {
        f"{name}_port": getattr(options, f"{name}_port") for name in ("smtp", "http", "https", "control")
    }
    given["host"] = options.host
    given |= {name: value for name in ("name", "hooks") if (value := getattr(options, name)) is not None}
    if options.page_port is not None:
        given["page_port"] = options.page_port
    signal.signal(signal.SIGTERM, _end)
    out = stdout()
    try:
        with sandbox_process(directory, page=True, **given) as sandbox:
            ready = sandbox.ready
            out.say([bold(f"open {ready.page_url}"), " to see what arrives; Ctrl-C ends it"])
            lines = list(variables(ready.environment))
            (directory / ENV_NAME).write_text("\n".join((*lines, "")))
            for line in lines:
                out.say(line)
            out.say()
            out.say(f"  all      set -a; . {shlex.quote(str((directory / ENV_NAME).absolute()))}; set +a")
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


def variables(environment: Mapping[str, str]) -> Iterator[str]:
    """The variables as lines for a shell or an env file, a group for each provider.

    Args:
        environment: the sandbox's, whose names begin with `SANDBOX_` and their group.
    """
    rest = dict(environment)
    for title, beginnings in _GROUPS:
        names = [each for each in rest if each.startswith(beginnings)]
        if names:
            yield f"# {title}"
        yield from (f"{name}={shlex.quote(rest.pop(name))}" for name in names)
    assert not rest, f"give {', '.join(rest)} a group"


def _end(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt

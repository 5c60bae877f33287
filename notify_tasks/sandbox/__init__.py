"""The far end of the wire: real servers that take notifications, misbehave when told to, and keep a log.

    python -m notify_tasks.sandbox --directory DIR [--smtp-port 0] [--http-port 0] [--https-port 0] [--control-port 0]

prints one JSON line with its ports, files and variables when it is ready. SMTP asks for STARTTLS (trust `ca_file`) and
AUTH (the line has user and password). `wire_http` is the HTTP far end, `wires` has the providers whose APIs it speaks,
`credentials` their accounts, `control` the control API, `modes` every way to misbehave and the addresses that do so by
themselves, `reporting` what is told later, `log` the log that a test accounts against.

`sandbox_process` starts one as a child; `server.SandboxServer` is the server itself. It needs the extra
`embedded`; starting one and reading its log does not.
"""

from __future__ import annotations

from notify_tasks.sandbox.log import LoggedRequest, effects_by_delivery, read_log
from notify_tasks.sandbox.process import Sandbox, sandbox_process, start_sandbox
from notify_tasks.sandbox.ready import Ready

__all__ = [
    "LoggedRequest",
    "Ready",
    "Sandbox",
    "effects_by_delivery",
    "read_log",
    "sandbox_process",
    "start_sandbox",
]

"""A sandbox as a child process: how tests and the demo start one, steer it and read its log."""

from __future__ import annotations

import http.client
import json
import select
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from notify_tasks.sandbox.log import LoggedRequest, read_log
from notify_tasks.sandbox.ready import Ready

_START_SECONDS: Final = 30.0
_STOP_SECONDS: Final = 10.0
_OUTPUT_NAME: Final = "sandbox.log"
_ALONE: Final = "notify_tasks.sandbox"
_WITH_PAGE: Final = "notify_tasks.pages"


class Sandbox:
    """A running sandbox.

    Args:
        ready: what it said when it was ready.
        process: the child.
    """

    def __init__(self, ready: Ready, process: subprocess.Popen[bytes]) -> None:
        self.ready = ready
        self.smtp_url = ready.smtp_url
        self.http_url = ready.http_url
        self.https_url = ready.https_url
        self.environment = dict(ready.environment)
        self.ca_file = Path(ready.ca_file)
        self.log_path = Path(ready.log_path)
        self.pid = ready.pid
        self._process = process

    def set_mode(self, target: str, mode: str, **values: float | str) -> None:
        """Tell a target how to behave, until it is told otherwise.

        Args:
            target: `smtp`, a channel, or a wire (`twilio`).
            mode: one of `modes.HTTP_MODES`, `modes.SMTP_MODES` or the wire's own, or a status.
            values: `rate`, `times`, `delay`, `retry_after`, `on`: see `notify_tasks.sandbox.modes`.

        Raises:
            ValueError: there is no such target, mode or value; the text tells the right ones.
        """
        self._control("PUT", f"/modes/{target}", {"mode": mode, **values})

    def modes(self) -> dict[str, dict[str, Any]]:
        """Every target's mode."""
        return self._control("GET", "/modes")

    def clear_modes(self, target: str | None = None) -> None:
        """Make one target well again, or all."""
        self._control("DELETE", "/modes" if target is None else f"/modes/{target}")

    def plan_receipts(self, target: str, **values: str | float | None) -> None:
        """Tell a target how to report back; what is not named stays as it is.

        Args:
            target: `smtp` or a wire that reports.
            values: `url`, `on`, `outcome`, `code`, `delay`, `before_response`, `duplicate`, `reordered`, `forged`: see
                `notify_tasks.sandbox.reports.Plan`.

        Raises:
            ValueError: there is no such target, or a value is wrong; the text tells the right ones.
        """
        self._control("PUT", f"/receipts/{target}", values)

    def receipts(self) -> dict[str, dict[str, Any]]:
        """Every target's plan, and how many of its reports got through (`sent`) or never did (`failed`)."""
        return self._control("GET", "/receipts")

    def clear_receipts(self, target: str | None = None) -> None:
        """Forget one plan, or all."""
        self._control("DELETE", "/receipts" if target is None else f"/receipts/{target}")

    def say(self, target: str, sender: str, body: str, **values: str) -> None:
        """A person writes to us, by the provider `target`, whose plan has the URL for it.

        Args:
            target: `twilio` or `aliyun`.
            sender: the person's number.
            body: `STOP`.
            values: `to`, `opt_out_type`.

        Raises:
            ValueError: nobody can answer that target, or its plan has no URL.
        """
        self._control("POST", "/inbound", {"target": target, "from": sender, "body": body, **values})

    def requests(self) -> list[LoggedRequest]:
        """The log so far. It can be read after the end, too."""
        return read_log(self.log_path)

    def kill(self) -> None:
        """End it with SIGKILL, as a crash would."""
        self._process.kill()
        self._process.wait()

    def wait(self) -> int:
        """Wait until it ends by itself."""
        return self._process.wait()

    def stop(self) -> None:
        """End it in an orderly way. Harmless when it has ended."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()

    def _control(self, method: str, path: str, body: object = None) -> dict[str, dict[str, Any]]:
        connection = http.client.HTTPConnection(urlsplit(self.ready.control_url).netloc, timeout=10)
        try:
            connection.request(method, f"/control{path}", body=json.dumps(body))
            response = connection.getresponse()
            answer: dict[str, Any] = json.loads(response.read())
        finally:
            connection.close()
        if "error" in answer:
            raise ValueError(answer["error"])
        return answer


def start_sandbox(
    directory: Path,
    *,
    page: bool = False,
    environment: Mapping[str, str] | None = None,
    **options: str | int,
) -> Sandbox:
    """Start a sandbox and wait until it is ready. It ends when this process does, however this one ends.

    Args:
        directory: takes its log, certificates and output; created if missing.
        page: with the page that shows what arrived; `ready.page_url` tells where.
        environment: the child's; None for our own. The page takes the fleet's database from it.
        options: `host`, `smtp_port`, `http_port`, `control_port`, `seed`: see `SandboxServer`. With the page also
            `page_port`: 0 for a free one; without it 8025, or a free one where somebody has that.

    Raises:
        RuntimeError: it did not start; the text has what it wrote.
    """
    directory.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", _WITH_PAGE if page else _ALONE, "--directory", str(directory)]
    for name, value in options.items():
        command += [f"--{name.replace('_', '-')}", str(value)]
    output = directory / _OUTPUT_NAME
    with output.open("ab") as errors:
        # A session of its own: Ctrl-C in the starter's terminal must not end it before the starter says so.
        process = subprocess.Popen(  # noqa: S603 - our own module, and options that are numbers or a host
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
            env=None if environment is None else dict(environment),
        )
    assert process.stdout is not None
    with process.stdout:
        waiting, _, _ = select.select([process.stdout], [], [], _START_SECONDS)
        line = process.stdout.readline() if waiting else b""
    if not line:
        process.kill()
        process.communicate()
        raise RuntimeError(
            f"the sandbox did not start: {output.read_text()[-2000:].strip() or 'it said nothing'}"
        )
    return Sandbox(Ready(**json.loads(line)), process)


@contextmanager
def sandbox_process(
    directory: Path,
    *,
    page: bool = False,
    environment: Mapping[str, str] | None = None,
    **options: str | int,
) -> Iterator[Sandbox]:
    """`start_sandbox` for a `with` block: stopped at its end."""
    sandbox = start_sandbox(directory, page=page, environment=environment, **options)
    try:
        yield sandbox
    finally:
        sandbox.stop()

"""The producer's process, seen from the demo."""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any, Final

from notify_tasks.demo.running import DemoError
from notify_tasks.demo.stage import Stage

LISTEN_SECONDS: Final = 0.2
SECRETS: Final = ("NOTIFY_DATABASE_URL", "SANDBOX_SMTP_URL")
"""What a producer is not told: it needs the broker and nothing more."""


class Producer:
    """A process that sends acts when told to.

    Args:
        process: it.
        log: where it writes what is no answer.
        meanwhile: called again and again while one waits for its answers.
    """

    def __init__(self, process: subprocess.Popen[str], log: str, meanwhile: Callable[[], None]) -> None:
        self.pid = process.pid
        self._log = log
        self._meanwhile = meanwhile
        assert process.stdin is not None
        assert process.stdout is not None
        self._stdin: IO[str] = process.stdin
        self._said: queue.Queue[dict[str, Any] | None] = queue.Queue()
        threading.Thread(target=self._listen, args=(process.stdout,), daemon=True).start()

    def _listen(self, stdout: IO[str]) -> None:
        for line in stdout:
            self._said.put(json.loads(line))
        self._said.put(None)

    def send(self, act: int, count: int, within: float) -> float:
        """Let it send an act.

        Args:
            act: its number.
            count: how many calls that makes.
            within: seconds.

        Returns:
            Seconds that it took.

        Raises:
            DemoError: a call failed.
        """
        begun = time.monotonic()
        self._stdin.write(f"{act}\n")
        self._stdin.flush()
        while count:
            self._meanwhile()
            with suppress(queue.Empty):
                answer = self._said.get(timeout=LISTEN_SECONDS)
                if answer is None:
                    raise DemoError(f"the producer ended; see what it says in {self._log}")
                if "error" in answer:
                    raise DemoError(f"a call of the producer failed: {answer['error']}")
                count -= 1
            if time.monotonic() - begun > within:
                raise DemoError(f"the producer did not get its calls through; see {self._log}")
        return time.monotonic() - begun


@contextmanager
def producer(stage: Stage, run: str, meanwhile: Callable[[], None]) -> Iterator[Producer]:
    """Start the producer, and end it.

    Args:
        stage: where it sends to.
        run: what its message ids begin with.
        meanwhile: called while one waits for it.
    """
    environment = {name: value for name, value in stage.environment.items() if name not in SECRETS}
    log = stage.supervisor.log_path("producer")
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "notify_tasks.demo.producer", run],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=environment,
            cwd=stage.root,
            start_new_session=True,  # Ctrl-C is for the demo, which ends it
            text=True,
        )
    try:
        yield Producer(process, str(log), meanwhile)
    finally:
        if process.stdin is not None:
            with suppress(OSError):
                process.stdin.close()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

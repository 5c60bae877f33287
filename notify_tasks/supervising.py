"""Runs the fleet's processes on one machine and restarts what dies: for the demo, for tests, for development.

In production this is the work of systemd, of a container engine or of an orchestrator. Some supervisor there must
be: a worker on the threads pool can end when its Redis goes, and one with a hung thread ends itself.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final, Self

LOOK_EVERY: Final = 0.1
RESTART_AFTER: Final = 0.3
"""Seconds before a process that died is started again; doubled up to `RESTART_MOST` for one that dies young."""
RESTART_MOST: Final = 10.0
YOUNG: Final = 5.0
PARENT_VARIABLE: Final = "NOTIFY_PARENT"
"""A process that finds its parent's id here ends with it (see `end_with_parent`)."""


@dataclass(frozen=True, slots=True)
class Spec:
    """One process to keep running.

    Args:
        name: of the process and of its log file.
        command: what to run.
        environment: variables for this process alone, such as a password that is no argument.
    """

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)


def celery_spec(
    name: str, *arguments: str, app: str = "notify_tasks", environment: Mapping[str, str] | None = None
) -> Spec:
    """`celery -A notify_tasks ...` in this interpreter."""
    return Spec(name, (sys.executable, "-m", "celery", "-A", app, *arguments), environment or {})


def worker_spec(name: str, queues: Sequence[str], *, threads: int = 8, app: str = "notify_tasks") -> Spec:
    """A worker for these queues. It skips the greetings among workers, which cost a second at each start."""
    return celery_spec(
        name,
        "worker",
        *("--pool", "threads", "--concurrency", str(threads)),
        *("--queues", ",".join(queues), "--hostname", f"{name}@%h"),
        *("--loglevel", "INFO", "--without-gossip", "--without-mingle"),
        app=app,
    )


def end_with_parent() -> None:
    """Started by a supervisor, this process ends when that one does, however it ends."""
    parent = os.environ.get(PARENT_VARIABLE)
    if parent is None or int(parent) != os.getppid():
        return

    def watch() -> None:
        while os.getppid() == int(parent):
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="notify-parent", daemon=True).start()


@dataclass(slots=True)
class _Child:
    spec: Spec
    process: subprocess.Popen[bytes]
    log: IO[bytes]
    started: float
    wait: float = RESTART_AFTER
    again_at: float | None = None
    wanted: bool = True
    restarts: int = 0
    stopped: bool = field(default=False)


class Supervisor:
    """Starts processes, restarts those that die, and stops them all in order.

    Args:
        directory: takes one log file a process.
        environment: of the processes.
        cwd: their working directory.
        on_restart: called with the name and the exit status when a process is started again.
    """

    def __init__(
        self,
        directory: Path,
        environment: Mapping[str, str],
        *,
        cwd: Path,
        on_restart: Callable[[str, int], None] = lambda _name, _status: None,
    ) -> None:
        self._directory = directory
        self._environment = {**environment, PARENT_VARIABLE: str(os.getpid())}
        self._cwd = cwd
        self._on_restart = on_restart
        self._children: dict[str, _Child] = {}
        self._lock = threading.RLock()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="notify-supervisor", daemon=True)
        directory.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self, spec: Spec) -> None:
        """Start a process and keep it running."""
        log = self.log_path(spec.name).open("ab")
        with self._lock:
            self._children[spec.name] = _Child(spec, self._launch(spec, log), log, time.monotonic())

    def log_path(self, name: str) -> Path:
        """Where the process writes."""
        return self._directory / f"{name}.log"

    def names(self) -> list[str]:
        """Every process that is kept running."""
        with self._lock:
            return [name for name, child in self._children.items() if child.wanted]

    def pid(self, name: str) -> int:
        """The process id it has now."""
        with self._lock:
            return self._children[name].process.pid

    def restarts(self, name: str) -> int:
        """How often it has been started again."""
        with self._lock:
            return self._children[name].restarts

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal to a process; it is started again if that ends it."""
        with self._lock:
            process = self._children[name].process
            if process.poll() is None:
                process.send_signal(number)

    def end(self, name: str, *, grace: float = 30.0) -> int | None:
        """Stop one process for good; returns its exit status."""
        with self._lock:
            child = self._children[name]
            child.wanted = False
            if child.process.poll() is None:
                child.process.terminate()
        return _wait(child.process, grace)

    def stop(self, *, grace: float = 30.0) -> None:
        """Stop every process in order: SIGTERM, and SIGKILL for what is left after `grace` seconds."""
        self._ending.set()
        with self._lock:
            children = list(self._children.values())
            for child in children:
                child.wanted = False
                if child.process.poll() is None:
                    child.process.send_signal(signal.SIGCONT)
                    child.process.terminate()
        ends = time.monotonic() + grace
        for child in children:
            _wait(child.process, max(0.1, ends - time.monotonic()))
            child.log.close()

    def _launch(self, spec: Spec, log: IO[bytes]) -> subprocess.Popen[bytes]:
        # A session of its own: Ctrl-C in the terminal reaches the supervisor alone, which stops the others in order.
        return subprocess.Popen(  # noqa: S603 - the commands are ours
            spec.command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**self._environment, **spec.environment},
            cwd=self._cwd,
            start_new_session=True,
        )

    def _run(self) -> None:
        while not self._ending.wait(LOOK_EVERY):
            with self._lock:
                for child in self._children.values():
                    self._look(child)

    def _look(self, child: _Child) -> None:
        if not child.wanted or child.process.poll() is None or self._ending.is_set():
            return
        now = time.monotonic()
        if child.again_at is None:
            young = now - child.started < YOUNG and child.process.returncode > 0  # not for what was killed
            child.wait = min(RESTART_MOST, child.wait * 2) if young else RESTART_AFTER
            child.again_at = now + child.wait
        elif now >= child.again_at:
            status = child.process.returncode
            child.process = self._launch(child.spec, child.log)
            child.started, child.again_at = now, None
            child.restarts += 1
            self._on_restart(child.spec.name, status)


def _wait(process: subprocess.Popen[bytes], seconds: float) -> int | None:
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()

"""A worker app for the tests of the transport and of consuming, and what starts and steers its workers.

A worker writes what its tasks do into a journal, line by line, so that nothing is lost when it is killed.
Tests call functions inside it, on a thread of their own, through a socket.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from multiprocessing.connection import Client, Listener
from pathlib import Path
from typing import Any

from celery import Celery
from celery.exceptions import Reject
from celery.signals import worker_ready

from notify_tasks.consuming import Away, Consumption, exit_soon
from notify_tasks.routing import transport_options
from notify_tasks.transport import install

ROOT = Path(__file__).parents[2]
DIRECTORY = Path(os.environ.get("TRANSPORT_APP_DIRECTORY", "."))
IN_WORKER = "TRANSPORT_APP_DIRECTORY" in os.environ
SETTINGS = {
    "task_acks_late": True,
    "task_reject_on_worker_lost": True,
    "worker_prefetch_multiplier": 1,
    "broker_connection_retry_on_startup": True,
    "broker_connection_max_retries": None,
    "task_ignore_result": True,
    "task_default_queue": "first",
    "worker_cancel_long_running_tasks_on_connection_loss": False,
}


def app_for(broker: str, **options: Any) -> Celery:
    """A Celery app with stock kombu, as a producer has it, unless this process installed ours."""
    app = Celery("transport_app", broker=broker, set_as_current=False)
    app.conf.update(SETTINGS, broker_transport_options=transport_options() | options)
    return app


app = app_for(
    os.environ.get("TRANSPORT_APP_BROKER", ""), **json.loads(os.environ.get("TRANSPORT_APP_OPTIONS", "{}"))
)
if os.environ.get("TRANSPORT_APP_TRANSPORT") == "ours":
    install(app)
consumption = Consumption()
consumption.install(app)


class DatabaseAway(Exception):
    """What a task gets while the "database", a file, is missing."""


def probe() -> None:
    note("probed")
    if not (DIRECTORY / "database").exists():
        raise DatabaseAway


away = Away(consumption, probe, first=0.2, most=0.4)


def note(*words: object) -> None:
    with (DIRECTORY / "journal").open("a") as journal:
        journal.write(" ".join(map(str, words)) + "\n")


@app.task(name="work")
def work(number: int) -> None:
    note("done", number)


@app.task(name="slow")
def slow(number: int, seconds: float) -> None:
    note("started", number)
    time.sleep(seconds)
    note("done", number)


@app.task(name="hang")
def hang(number: int) -> None:
    note("started", number)
    threading.Event().wait()


@app.task(name="refuse")
def refuse(number: int) -> None:
    note("started", number)
    raise Reject("of no use", requeue=False)


@app.task(name="store")
def store(number: int) -> None:
    if (DIRECTORY / "database").exists():
        note("done", number)
        return
    note("refused", number)
    problem = DatabaseAway()
    away.report(problem)
    away.wait_paused(5)
    raise Reject(problem, requeue=True)


@app.task(name="again", bind=True, max_retries=None)
def again(self: Any, number: int) -> None:
    note("taken", number, getattr(self.request, "notify_taken", 0))
    if self.request.retries < 1:
        raise self.retry(countdown=0)


@worker_ready.connect
def _listen(**_: object) -> None:
    if IN_WORKER:
        threading.Thread(target=_obey, daemon=True).start()


def _obey() -> None:
    functions: dict[str, Callable[..., Any]] = {
        "pause": consumption.pause,
        "request_pause": consumption.request_pause,
        "resume": consumption.resume,
        "reasons": lambda: sorted(consumption.reasons),
        "exit_soon": lambda code, grace: exit_soon(consumption, code, grace=grace),
    }
    with Listener(("127.0.0.1", 0)) as listener:
        (DIRECTORY / "port").write_text(str(listener.address[1]))
        note("listening")
        while True:
            with listener.accept() as caller:
                name, *arguments = caller.recv()
                caller.send(functions[name](*arguments))


def until(condition: Callable[[], object], what: str, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.02)


_numbers = itertools.count(1)


class Worker:
    """A worker process of this app. Several on one directory write one journal, if not at the same time."""

    def __init__(
        self, broker: str, directory: Path, *, pool: str = "threads", threads: int = 4, **more: Any
    ) -> None:
        self.directory = directory
        self.directory.mkdir(exist_ok=True)
        self.log = directory / f"log-{next(_numbers)}"
        listening = self.count("listening")
        (directory / "journal").touch()
        environment = os.environ | {
            "TRANSPORT_APP_BROKER": broker,
            "TRANSPORT_APP_DIRECTORY": str(directory),
            "TRANSPORT_APP_TRANSPORT": more.pop("transport", "ours"),
        }
        queues = more.pop("queues", "first,second")
        # A BRPOP lasts 0.2 s instead of 1 s: stopping and pausing wait for the one on its way.
        environment["TRANSPORT_APP_OPTIONS"] = json.dumps({"polling_interval": 0.2} | more)
        command = [sys.executable, "-m", "celery", "-A", "tests.integration.transport_app", "worker"]
        command += ["-P", pool, "-c", str(threads), "-Q", queues, "-n", f"{self.log.name}@%h", "-l", "INFO"]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*command, "--without-gossip", "--without-mingle"],
                cwd=ROOT,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        until(
            lambda: self.count("listening") > listening or self.process.poll() is not None, "the worker is up"
        )
        assert self.process.poll() is None, self.log.read_text()

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def journal(self) -> list[str]:
        path = self.directory / "journal"
        return path.read_text().splitlines() if path.exists() else []

    def count(self, line: str) -> int:
        return self.journal().count(line)

    def done(self) -> Counter[int]:
        return Counter(int(line.split()[1]) for line in self.journal() if line.startswith("done "))

    def call(self, *call: object) -> Any:
        with Client(("127.0.0.1", int((self.directory / "port").read_text()))) as worker:
            worker.send(call)
            return worker.recv()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        if self.alive:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

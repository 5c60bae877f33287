"""Celery's own commands, typed by hand in the repository: they work, or say in one line what to do."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from notify_tasks import send_notification, settings
from notify_tasks.store import statuses
from notify_tasks.store.database import Database

ROOT = Path(__file__).parents[2]
NOWHERE = {
    "NOTIFY_BROKER_URL": "redis://127.0.0.1:1/0",
    "NOTIFY_DATABASE_URL": "postgresql://ana:canary@127.0.0.1:1/notify",
}
CONFIG = """
[providers.inbox]
use = "inapp.store"
[channels.inapp]
pool = ["inbox"]
"""
WORKER = ("worker", "-Q", "notify.inapp,notify.intake")


def typed(*words: str) -> list[str]:
    return [sys.executable, "-m", "celery", "-A", "notify_tasks", *words]


def environment(more: dict[str, str]) -> dict[str, str]:
    return {**{name: value for name, value in os.environ.items() if not name.startswith("NOTIFY_")}, **more}


def end_of(words: tuple[str, ...], variables: dict[str, str]) -> tuple[int, str]:
    """The exit status, and what it wrote that is not Celery's greeting."""
    done = subprocess.run(
        typed(*words),
        cwd=ROOT,
        env=environment(variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout


@pytest.mark.parametrize(
    ("words", "variables", "sentence"),
    [
        (WORKER, {}, "NOTIFY_DATABASE_URL: no database is set. Set it in the environment"),
        (("beat",), {}, "NOTIFY_BROKER_URL: no broker is set. Set it in the environment"),
        (WORKER, NOWHERE, "PostgreSQL at 127.0.0.1:1 cannot be used: nobody listens there"),
        (
            ("worker", "-Q", "notify.emial"),
            NOWHERE,
            "there is no queue notify.emial; did you mean notify.email",
        ),
        (WORKER, {**NOWHERE, "NOTIFY_BROKER_URL": "amqp://x"}, "the scheme 'amqp' is not supported"),
        (
            ("beat",),
            {**NOWHERE, "NOTIFY_INTAKE": "kafka"},
            "NOTIFY_INTAKE: 'kafka' is neither. Write redis or postgres",
        ),
    ],
)
def test_what_is_missing_is_said_in_one_line(
    words: tuple[str, ...], variables: dict[str, str], sentence: str
) -> None:
    status, said = end_of(words, variables)
    assert status != 0
    assert "Traceback" not in said
    assert "canary" not in said
    (line,) = [line for line in said.splitlines() if "notify_tasks: " in line]
    assert sentence in line


def test_a_missing_schema_says_what_to_type(postgres_url: str, broker: str) -> None:
    status, said = end_of(WORKER, {"NOTIFY_BROKER_URL": broker, "NOTIFY_DATABASE_URL": postgres_url})
    assert status != 0
    assert "Traceback" not in said
    assert re.search(r"the database has schema 0, this version needs \d+: type `notify migrate`", said)


@contextmanager
def running(words: tuple[str, ...], variables: dict[str, str], log: Path, ready: str) -> Iterator[None]:
    """A command that runs until the block's end, and then ends well with SIGTERM."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            typed(*words), cwd=ROOT, env=environment(variables), stdout=output, stderr=subprocess.STDOUT
        )
    try:
        until(lambda: ready in log.read_text(), f"{words[0]} says {ready!r}", log)
        yield
        process.terminate()
        assert process.wait(30) == 0, log.read_text()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    assert "Traceback" not in log.read_text()


def until(condition: Callable[[], object], what: str, log: Path, seconds: float = 30) -> None:
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, f"{what}: not within {seconds} s\n{log.read_text()}"
        time.sleep(0.1)


@pytest.mark.timeout(150)
def test_a_worker_and_beat_typed_by_hand_deliver(broker: str, database: str, tmp_path: Path) -> None:
    """Celery's default pool is prefork: it must work for whoever types nothing more. Every other test uses threads."""
    (tmp_path / "notify.toml").write_text(CONFIG)
    variables = {
        "NOTIFY_BROKER_URL": broker,
        "NOTIFY_DATABASE_URL": database,
        "NOTIFY_CONFIG": str(tmp_path / "notify.toml"),
    }
    words = ("worker", "-Q", "notify.inapp,notify.maint", "-c", "2", "-l", "INFO")
    store = Database(database, connections=1)
    settings.reset()
    settings.configure(broker_url=broker)
    try:
        with (
            running(words, variables, tmp_path / "worker.log", " ready."),
            running(("beat", "-l", "INFO"), variables, tmp_path / "beat.log", "beat: Starting"),
        ):
            made = send_notification.delay(
                "order.shipped",
                to={"id": "ana", "email": "ana@example.com"},
                payload={"order_id": 981},
                channels=["inapp"],
            )

            def sent() -> bool:
                found = statuses.read(store, made.message_id).notifications
                return bool(found) and found[0].deliveries[0].state == "sent"

            until(sent, "it is sent", tmp_path / "worker.log")
            until(
                lambda: "notify_tasks.sweep" in (tmp_path / "worker.log").read_text().partition(" ready.")[2],
                "beat's tick reaches the worker",
                tmp_path / "beat.log",
            )
    finally:
        store.close()
        settings.reset()
    assert "ana@example.com" not in (tmp_path / "worker.log").read_text()

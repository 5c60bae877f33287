"""A type is made, edited and broken while workers run: nobody restarts them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from faults.fleet import ROOT, RunningFleet, beat, running_fleet

from notify_tasks import NotificationResult, send_notification
from notify_tasks.routing import MAINT_QUEUE, queue_for
from notify_tasks.store import statuses
from notify_tasks.store.database import Database
from notify_tasks.supervising import worker_spec

NAME = "order.cancelled"
CONFIG = """
[providers.inbox]
use = "inapp.store"
[channels.inapp]
pool = ["inbox"]
"""
WORKERS = (
    worker_spec("worker-1", [queue_for("intake", "normal")], threads=2),
    worker_spec("worker-2", [queue_for("inapp", "normal")], threads=2),
    worker_spec("maint", [MAINT_QUEUE], threads=2),
)


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[RunningFleet]:
    templates = tmp_path / "templates"
    config = tmp_path / "inbox.toml"
    config.write_text(CONFIG)
    shutil.copytree(ROOT / "templates" / "_layout", templates / "_layout")
    # A call that waits for its type is looked at again after this time, and rejected if there is still none.
    environment = {
        "NOTIFY_TEMPLATES": str(templates),
        "NOTIFY_CONFIG": str(config),
        "NOTIFY_UNKNOWN_TYPE_WAIT": "6",
    }
    with running_fleet(tmp_path, [*WORKERS, beat()], environment=environment) as running:
        yield running


@pytest.fixture
def store(fleet: RunningFleet) -> Iterator[Database]:
    database = Database(fleet.postgres.url, connections=2)
    yield database
    database.close()


def notify(fleet: RunningFleet, *words: str) -> subprocess.CompletedProcess[str]:
    """Type a command, as an author does."""
    command = [
        sys.executable,
        "-c",
        "import sys; from notify_tasks.cli import main; sys.exit(main())",
        *words,
    ]
    environment = {**os.environ, **fleet.environment}
    return subprocess.run(
        command, cwd=fleet.directory, env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def send(*, one_hop: bool = True) -> NotificationResult:
    return send_notification.delay(
        NAME,
        to={"id": "user-42", "chat": "room", "timezone": "Asia/Shanghai"},
        payload={"what": "Order 981", "happened_at": "2026-11-23T14:30:00+01:00"},
        channels=["inapp"] if one_hop else None,
    )


def shown(fleet: RunningFleet, result: NotificationResult) -> dict[str, str]:
    """What the person sees in the inbox, once it is there."""
    query = (
        "SELECT i.data FROM notify.inbox_item i JOIN notify.delivery d ON d.id = i.delivery_id "
        "WHERE d.message_id = %s"
    )
    fleet.wait("it is delivered", lambda: bool(fleet.rows(query, result.message_id)), 30)
    ((content,),) = fleet.rows(query, result.message_id)
    assert isinstance(content, dict)
    return content


def soon(fleet: RunningFleet, title: str) -> None:
    """New calls get a title within a few seconds: workers look at a type's files once a second."""
    fleet.wait(f"{title!r} is what people get", lambda: shown(fleet, send())["title"] == title, 30)


def edit(fleet: RunningFleet, before: str, after: str) -> None:
    """Save a file as editors do: whole, under another name, then moved into place."""
    file = Path(fleet.environment["NOTIFY_TEMPLATES"]) / NAME / "inapp.json"
    text = file.read_text()
    assert before in text
    spare = file.with_name(".inapp.json.new")
    spare.write_text(text.replace(before, after))
    spare.replace(file)


def test_a_type_is_made_edited_and_broken_while_workers_run(fleet: RunningFleet, store: Database) -> None:
    # Given a call whose type nobody has made yet
    early = send()
    fleet.wait("it waits", lambda: statuses.read(store, early.message_id).kept_since is not None, 30)

    # when its author makes the type
    made = notify(fleet, "templates", "new", NAME, "--channels", "inapp")
    assert (made.returncode, made.stderr) == (0, "")
    assert f"notify send {NAME}" in made.stdout
    # then it is delivered
    assert shown(fleet, early)["title"] == "News about Order 981"

    # An edit is what the next calls get, on both ways through the fleet, in the person's own time.
    edit(
        fleet,
        "News about {{ payload.what }}",
        "{{ payload.what }} is cancelled, {{ payload.happened_at | time }}",
    )
    soon(fleet, "Order 981 is cancelled, 9:30\xa0PM GMT+8")
    assert shown(fleet, send(one_hop=False))["title"] == "Order 981 is cancelled, 9:30\xa0PM GMT+8"

    # A broken edit changes nothing but the log and the check.
    edit(fleet, "is cancelled", "{{ payload.what")
    logs = [fleet.supervisor.log_path(spec.name) for spec in WORKERS[:2]]

    def reported() -> bool:
        send()
        send(one_hop=False)
        return all(f"{NAME} is broken; its last good version" in log.read_text() for log in logs)

    assert shown(fleet, send())["title"] == "Order 981 is cancelled, 9:30\xa0PM GMT+8"
    fleet.wait("the log of each worker says so", reported, 30)
    checked = notify(fleet, "templates", "check", NAME)
    assert checked.returncode == 1
    assert f"{NAME}/inapp.json, line" in checked.stdout
    assert shown(fleet, send())["title"] == "Order 981 is cancelled, 9:30\xa0PM GMT+8"

    # Mended, it has the new words.
    edit(fleet, "{{ payload.what,", "has ended,")
    soon(fleet, "Order 981 has ended, 9:30\xa0PM GMT+8")
    assert {fleet.supervisor.restarts(name) for name in fleet.supervisor.names()} == {0}

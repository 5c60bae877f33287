"""What workers count and expose, on threads and on prefork, against what the far end has taken."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from faults.fleet import RunningFleet, running_fleet
from support.ports import free_port
from support.scraping import promtool, scrape, series, total, undeclared, values_of

from notify_tasks import send_notification
from notify_tasks.supervising import Spec, celery_spec, worker_spec

PHONE = "+4915112345678"
CHILDREN = 2


def prefork_spec(name: str, *queues: str) -> Spec:
    return celery_spec(
        name,
        "worker",
        *("--pool", "prefork", "--concurrency", str(CHILDREN), "--max-tasks-per-child", "2"),
        *("--queues", ",".join(queues), "--hostname", f"{name}@%h"),
        *("--loglevel", "INFO", "--without-gossip", "--without-mingle"),
    )


@pytest.fixture(scope="module")
def temporary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tmp")


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory, temporary: Path) -> Iterator[RunningFleet]:
    abandoned = temporary / f"notify-metrics-{os.getuid()}" / "1"
    abandoned.mkdir(parents=True)
    (abandoned / "counter_1.db").write_bytes(b"")
    (abandoned / "lock").touch()
    specs = [
        worker_spec("threads", ["notify.sms", "notify.sms.high"], threads=4),
        prefork_spec("prefork", "notify.push"),
    ]
    environment = {"NOTIFY_METRICS_PORT": "auto", "TMPDIR": str(temporary)}
    with running_fleet(tmp_path_factory.mktemp("metrics"), specs, environment=environment) as running:
        yield running


def page(fleet: RunningFleet, name: str) -> str:
    (port,) = re.findall(r"metrics on port (\d+) of 127.0.0.1", fleet.supervisor.log_path(name).read_text())
    return scrape(f"http://127.0.0.1:{port}/metrics")


def send(channel: str, number: int, event_type: str = "fault.ping") -> None:
    to = {"sms": PHONE} if channel == "sms" else {"push": "a-token"}
    for _ in range(number):
        send_notification.delay(event_type, to=to, channels=[channel], payload={"n": 1})


def taken(fleet: RunningFleet, channel: str) -> int:
    return sum(it.accepted for it in fleet.sandbox.requests() if it.channel == channel)


def test_a_worker_on_threads_counts_what_it_has_sent(fleet: RunningFleet) -> None:
    # Given a worker that is asked for metrics, when it has sent twenty messages and refused a call,
    before = taken(fleet, "sms")
    send("sms", 20)
    send_notification.delay("fault.ping", to={"sms": PHONE}, channels=["sms"], payload={"wrong": 1})
    fleet.wait("it has counted them", lambda: total(page(fleet, "threads"), "notify_calls_total") == 21, 60)
    fleet.wait(
        "and sent them",
        lambda: total(page(fleet, "threads"), "notify_attempts_total", outcome="accepted") == 20,
        60,
    )

    # then its counters agree with the far end, and say how long each part took.
    text = page(fleet, "threads")
    assert taken(fleet, "sms") - before == 20
    assert total(text, "notify_results_total", channel="sms", type="fault.ping", state="sent") == 20
    assert (
        total(text, "notify_attempts_total", provider="far-sms", type="fault.ping", outcome="accepted") == 20
    )
    assert (
        total(text, "notify_calls_total", type="fault.ping", result="rejected", reason="payload_invalid") == 1
    )
    assert total(text, "notify_planned_total", channel="sms", decision="send", reason="") == 20
    for name in ("render_seconds", "provider_seconds"):
        assert total(text, f"notify_{name}_count", channel="sms") == 20
    assert total(text, "notify_queue_wait_seconds_count", queue="notify.sms") == 21
    assert 0 < total(text, "notify_queue_wait_seconds_sum") < 21 * 60
    assert total(text, "notify_threads") == 4
    assert total(text, "notify_consuming") == 1
    assert promtool(text) == ""
    assert undeclared(text) == set()


def test_children_that_come_and_go_leave_their_counts_and_no_files(
    fleet: RunningFleet, temporary: Path
) -> None:
    # Given a prefork worker whose children end after two tasks each, when it has sent forty messages,
    before = taken(fleet, "push")
    send("push", 40)
    fleet.wait(
        "all forty are counted",
        lambda: total(page(fleet, "prefork"), "notify_attempts_total", outcome="accepted") == 40,
        90,
    )

    # then its totals hold what all of those have done,
    text = page(fleet, "prefork")
    assert taken(fleet, "push") - before == 40
    assert total(text, "notify_results_total", channel="push", state="sent") == 40
    assert total(text, "notify_provider_seconds_bucket", le="+Inf") == 40
    assert promtool(text) == ""
    assert undeclared(text) == set()

    # and the files are those of the children that live, of the parent, and of what the dead have left.
    (folder,) = (temporary / f"notify-metrics-{os.getuid()}").glob("*/")
    children = {file.stem.rpartition("_")[2] for file in folder.glob("*.db")} - {"0", folder.name}
    assert len(children) <= CHILDREN
    assert folder.name == str(fleet.supervisor.pid("prefork"))
    assert (folder / "counter_0.db").stat().st_size < 200_000


def test_no_label_holds_what_a_producer_makes_up(fleet: RunningFleet) -> None:
    # When calls name types that there are not, tenants, and people,
    for n in range(30):
        send_notification.delay(f"made.up{n}", to={"sms": PHONE}, channels=["sms"], payload={})
    send_notification.delay(
        "fault.ping",
        to={"sms": PHONE},
        channels=["sms"],
        payload={"n": 1},
        tenant="secret-tenant",
        source="shop",
    )
    fleet.wait(
        "they are counted",
        lambda: total(page(fleet, "threads"), "notify_calls_total", type="other", result="waiting") == 30,
        60,
    )

    # then there is one value for all of them, and nothing personal at all.
    text = page(fleet, "threads")
    assert values_of(text, "type") == {"fault.ping", "other"}
    for private in (PHONE, PHONE[1:], "secret-tenant", "made.up"):
        assert private not in text
    assert len(series(text)) < 500


def test_a_port_that_is_taken_ends_the_worker_with_a_word(fleet: RunningFleet) -> None:
    port = free_port()
    with socket.create_server(("127.0.0.1", port)):
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "celery",
                "-A",
                "notify_tasks",
                "worker",
                "-Q",
                "notify.chat",
                "-P",
                "threads",
            ],
            env=fleet.environment | {"NOTIFY_METRICS_PORT": str(port)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode != 0
    assert f"NOTIFY_METRICS_PORT: nothing can listen on 127.0.0.1:{port}" in done.stderr

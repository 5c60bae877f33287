"""What an operator does to `notify.toml` while the fleet runs, and what a worker says of a wrong one at its start."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from faults.fleet import ROOT, RunningFleet, running_fleet

from notify_tasks import send_notification
from notify_tasks.supervising import celery_spec, worker_spec

PHONE = "+4915112345678"
WITHIN = 30.0
"""Seconds in which running workers take a change: five, but on a machine that is busy with other tests."""
PROVIDER = """
[providers.{name}]
use = "sms.sandbox"
url = "env:SANDBOX_HTTP_URL"
kind = "{kind}"
enabled = {enabled}
"""
KINDS = {"left": "idempotent", "right": "queryable"}
"""The far end logs a provider's kind, so this is how it tells the two apart."""


def config(left: int, right: int, *, off: str = "") -> str:
    providers = [
        PROVIDER.format(name=name, kind=kind, enabled=str(name != off).lower())
        for name, kind in KINDS.items()
    ]
    pool = f'[{{ provider = "left", weight = {left} }}, {{ provider = "right", weight = {right} }}]'
    sms = "".join([*providers, f"[channels.sms]\npool = {pool}\n"])
    push = sms.replace("sms", "push").replace("left", "push-left").replace("right", "push-right")
    return sms + push


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningFleet]:
    directory = tmp_path_factory.mktemp("configuration")
    path = directory / "operated.toml"
    path.write_text(config(1, 0))
    specs = [
        worker_spec("worker", ["notify.sms", "notify.maint"], threads=4),
        # Celery's default pool: a child process sends, and has its own configuration.
        celery_spec("forked", "worker", "-Q", "notify.push", "-c", "1", "-l", "INFO", "--without-mingle"),
    ]
    with running_fleet(directory, specs, environment={"NOTIFY_CONFIG": str(path)}) as running:
        yield running


def written(fleet: RunningFleet, text: str) -> None:
    Path(fleet.environment["NOTIFY_CONFIG"]).write_text(text)


def taken_by(fleet: RunningFleet, channel: str = "sms") -> str:
    """Send one message and say which provider took it."""
    before = len(fleet.sandbox.requests())
    to = {"sms": PHONE, "push": "token"}
    send_notification.delay("fault.ping", to=to, payload={"n": 1}, channels=[channel])
    ends = time.monotonic() + 30
    while len(requests := fleet.sandbox.requests()) == before:
        assert time.monotonic() < ends, f"it was not sent: {fleet.summary()}"
        time.sleep(0.02)
    names = {kind: name for name, kind in KINDS.items()}
    return names[str(requests[before].kind)]


def until_taken_by(fleet: RunningFleet, name: str, channel: str = "sms") -> None:
    """Send until a provider takes one, and see that it then takes all."""
    begun = time.monotonic()
    while taken_by(fleet, channel) != name:
        assert time.monotonic() - begun < WITHIN, f"{name} takes nothing within {WITHIN:.0f} s"
    assert {taken_by(fleet, channel) for _ in range(10)} == {name}


def log(fleet: RunningFleet) -> str:
    return fleet.supervisor.log_path("worker").read_text()


def notify(fleet: RunningFleet, *words: str) -> tuple[int, str]:
    """Type a command with the fleet's environment."""
    done = subprocess.run(
        [sys.executable, "-c", "import sys; from notify_tasks.cli import main; sys.exit(main())", *words],
        cwd=ROOT,
        env=fleet.environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_an_operators_day(fleet: RunningFleet) -> None:
    path = fleet.environment["NOTIFY_CONFIG"]

    # Given a pool whose first provider has all the weight, it takes all.
    assert {taken_by(fleet) for _ in range(5)} == {"left"}
    assert taken_by(fleet, "push") == "left"

    # When the weights are changed in the file, the other one takes all within five seconds.
    written(fleet, config(0, 1))
    until_taken_by(fleet, "right")
    until_taken_by(fleet, "right", "push")
    assert "pool of sms left 1, right 0 -> left 0, right 1" in log(fleet)

    # When the file is broken, that is said in the log and by the doctor, and nothing changes.
    written(fleet, config(1, 0).replace("[channels.sms]", "[channels.sms"))
    broken = f"{path}:13: no TOML here"
    fleet.wait("the log names the line", lambda: broken in log(fleet), WITHIN)
    fleet.wait(
        "the worker reports it",
        lambda: bool(fleet.rows("SELECT 1 FROM notify.configuration_report WHERE problem IS NOT NULL")),
        WITHIN,
    )
    assert {taken_by(fleet) for _ in range(5)} == {"right"}
    status, said = notify(fleet, "doctor")
    assert status == 1
    assert re.search(rf"✖ config +{re.escape(broken)}", said)
    assert re.search(rf"workers? .* still uses the configuration of .*\n +because {re.escape(broken)}", said)
    status, said = notify(fleet, "config", "check")
    assert status == 1
    assert broken in said
    assert log(fleet).count(broken) == 1

    # When it is mended with that provider switched off, it is called no more, whatever its weight.
    written(fleet, config(0, 1, off="right"))
    until_taken_by(fleet, "left")
    assert "right switched off" in log(fleet)
    fleet.wait(
        "the worker reports it",
        lambda: not fleet.rows("SELECT 1 FROM notify.configuration_report WHERE problem IS NOT NULL"),
        WITHIN,
    )
    assert "✖ config" not in notify(fleet, "doctor")[1]
    assert notify(fleet, "config", "check")[0] == 0
    assert fleet.supervisor.restarts("worker") == 0


def test_a_rate_holds_what_is_too_much_and_lets_it_go_when_it_is_raised(fleet: RunningFleet) -> None:
    # Given a provider that is granted one call a minute from now on,
    written(fleet, config(1, 0).replace("enabled", 'rate = "1/min"\nenabled', 1))
    fleet.wait("the rate is taken", lambda: "rate of left none -> 1/min" in log(fleet), WITHIN)
    before = len(fleet.sandbox.requests())

    # when three are sent, the rest waits for its turn,
    for _ in range(3):
        send_notification.delay("fault.ping", to={"sms": PHONE}, payload={"n": 1}, channels=["sms"])
    waiting = "SELECT 1 FROM notify.delivery WHERE state = 'held' AND reason = 'rate:left'"
    fleet.wait("two wait", lambda: len(fleet.rows(waiting)) == 2, 30)
    assert len(fleet.sandbox.requests()) == before + 1

    # and need not wait for it any more when the rate is another one.
    written(fleet, config(1, 0).replace("enabled", 'rate = "100/s"\nenabled', 1))
    fleet.wait("the new rate is taken", lambda: "rate of left 1/min -> 100/s" in log(fleet), WITHIN)
    fleet.wait("all are sent", lambda: len(fleet.sandbox.requests()) == before + 3, WITHIN)
    assert fleet.rows(waiting) == []


def started(fleet: RunningFleet, text: str, folder: Path, *queues: str, **variables: str) -> tuple[int, str]:
    """Start one more worker on another file; returns its exit status and what it wrote."""
    path = folder / "notify.toml"
    path.write_text(text)
    environment = {**fleet.environment, "NOTIFY_CONFIG": str(path), **variables}
    words = ["worker", "-Q", ",".join(queues), "-P", "threads", "-c", "1"]
    done = subprocess.run(
        [sys.executable, "-m", "celery", "-A", "notify_tasks", *words],
        cwd=ROOT,
        env={name: value for name, value in environment.items() if value},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, (done.stdout + done.stderr).replace(f"{folder}/", "")


def test_a_worker_refuses_to_start_on_a_wrong_configuration(fleet: RunningFleet, tmp_path: Path) -> None:
    """Every problem is said at once, and no message is taken."""
    client = redis.Redis.from_url(fleet.redis.url)
    client.lpush("notify.chat", "a message that a worker would take, and park")
    wrong = (
        config(1, 0)
        .replace('"sms.sandbox"', '"sms.sandbx"', 1)
        .replace("kind", "timeout = 3\nrate = 5\nknd", 1)
    )
    status, said = started(fleet, wrong, tmp_path, "notify.chat")
    assert status == 1
    assert "Traceback" not in said
    assert "notify_tasks: the configuration has 2 problems:\n" in said
    assert (
        "  notify.toml:3: providers.left.use: there is no provider 'sms.sandbx'. Did you mean use =" in said
    )
    assert '  notify.toml:6: providers.left.rate: 5 has no unit. Write "5/s" or "5/min"\n' in said
    assert client.llen("notify.chat") == 1
    client.delete("notify.chat")
    client.close()


def test_a_worker_refuses_to_start_without_the_secrets_of_its_channels(
    fleet: RunningFleet, tmp_path: Path
) -> None:
    status, said = started(fleet, config(1, 0), tmp_path, "notify.sms", SANDBOX_HTTP_URL="")
    assert status == 1
    assert (
        "notify.toml:4: providers.left.url: the variable SANDBOX_HTTP_URL is not set. "
        "Set SANDBOX_HTTP_URL, or SANDBOX_HTTP_URL_FILE" in said
    )
    assert "notify.toml:10: providers.right.url: the variable SANDBOX_HTTP_URL is not set." in said

    status, said = started(fleet, config(1, 0), tmp_path, "notify.sms", NOTIFY_ENV="prd")
    assert status == 1
    assert "notify.prd.toml: there is no such file, and NOTIFY_ENV is 'prd'." in said
